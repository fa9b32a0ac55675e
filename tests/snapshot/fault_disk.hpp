// A disk that fails and loses power, for tests: it stands between the program (the store and LMDB)
// and the C library's calls on the files below one directory.
//
// Recording keeps every change in order, so that afterwards the directory can be made as a crash
// would have left it: what was synced is there; of the rest any part, torn or reordered. A write
// through O_DSYNC is synced at once. Directory entries are synced by fsync of their directory only.
#pragma once

#include <cstddef>
#include <functional>
#include <map>
#include <random>
#include <string>
#include <vector>

namespace nestor::snapshot::testing {

/// How a call fails.
enum class Fault {
    none,
    io_error,        ///< EIO, once
    no_space,        ///< ENOSPC, from this call on
    dead,            ///< EIO, from this call on
    short_write,     ///< half of it is written and the call says so
    short_then_full, ///< half of it is written, then ENOSPC from the next call on
};

struct DiskOp {
    enum class Kind { write, truncate, sync, create, rename, unlink, sync_directory, note };
    Kind kind;
    int file = -1;       ///< which file, for ever
    std::string name;    ///< below the directory; of sync_directory: the directory
    std::string to;      ///< of rename
    long offset = 0;     ///< of write; size, of truncate
    std::string bytes;   ///< of write
    bool synced = false; ///< O_DSYNC
    int note = 0;
};

/// What is left of changes that were not synced.
enum class Loss { all, nothing, some, torn };

class FaultDisk final {
public:
    /// Begins to watch a directory; there is one at a time.
    explicit FaultDisk(std::string directory);
    ~FaultDisk();
    FaultDisk(const FaultDisk&) = delete;
    FaultDisk& operator=(const FaultDisk&) = delete;

    /// The call with that number, from 0, fails that way.
    void fail_at(std::size_t call, Fault fault);
    /// Calls that could have failed so far.
    [[nodiscard]] std::size_t calls() const;
    void stop();
    /// Puts a mark into the record.
    void note(int value);

    [[nodiscard]] const std::vector<DiskOp>& ops() const;
    /// Makes `target` what a loss of power after `count` ops may leave.
    void crash(std::size_t count, Loss loss, std::mt19937_64& random,
               const std::string& target) const;

    struct State; // fault_disk.cpp
};

} // namespace nestor::snapshot::testing
