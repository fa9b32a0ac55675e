// One pack on its way to disk: see pack.hpp for the format. Internal to snapshot.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "src/base/fd.hpp"

#include "snapshot/files.hpp"
#include "snapshot/pack.hpp"

namespace nestor::snapshot {

/// "00000007.pack"
[[nodiscard]] std::string pack_file_name(u32 id);

/// Writes DIR/ID.pack.part and gives it its name when it is complete, in place of an earlier pack
/// of that id. The destructor removes what was not finished. Not thread-safe.
class PackFile final {
public:
    /// The file must not be there: one writer, and leftovers were removed.
    [[nodiscard]] static Result<PackFile> create(const std::string& directory, u32 id, Sync sync);
    ~PackFile();
    PackFile(PackFile&&) noexcept = default;
    PackFile& operator=(PackFile&&) = delete;

    [[nodiscard]] u32 id() const { return id_; }
    [[nodiscard]] u32 records() const { return static_cast<u32>(offsets_.size()); }
    [[nodiscard]] u64 size() const { return offset_; }

    /// Adds the next record.
    [[nodiscard]] Result<> append(std::span<const std::byte> record);
    /// The next record number stands for nothing: what it was has been collected.
    void skip() { offsets_.push_back(offset_); }
    /// Directory, trailer, sync where that was asked for, and rename. The directory of packs is not
    /// synced.
    [[nodiscard]] Result<> finish();

private:
    PackFile(Fd fd, std::string path, u32 id, Sync sync)
        : fd_(std::move(fd)), path_(std::move(path)), id_(id), sync_(sync) {}

    Fd fd_;
    std::string path_; ///< its final one
    u32 id_;
    Sync sync_;
    u64 offset_ = 0;
    u64 on_its_way_ = 0; ///< so much of it the kernel was asked to begin writing
    std::vector<u64> offsets_;
};

} // namespace nestor::snapshot
