// Writing packs: see pack.hpp for the format.
#pragma once

#include <mutex>
#include <optional>

#include "snapshot/pack.hpp"
#include "snapshot/pack_file.hpp"

namespace nestor::snapshot {

/// Makes the bytes of records. One per thread.
class RecordEncoder final {
public:
    RecordEncoder();
    ~RecordEncoder();
    RecordEncoder(const RecordEncoder&) = delete;
    RecordEncoder& operator=(const RecordEncoder&) = delete;

    /// A whole record, valid until the next call. `raw` is the items' bytes one after the other,
    /// at most max_raw_size, and there are at most Location::max_slot + 1 of them. An item of size
    /// 0 keeps its number and stands for nothing.
    [[nodiscard]] Result<std::span<const std::byte>>
    encode(RecordKind kind, std::span<const Item> items, std::span<const std::byte> raw);

private:
    std::vector<std::byte> out_;
    void* context_; // ZSTD_CCtx
};

/// Appends records to new packs. append() may be called by several threads. Until keep(), the
/// destructor removes every file that was made: a failed save leaves nothing behind.
class PackWriter final {
public:
    PackWriter(std::string directory, u32 first_id, u64 pack_limit, Sync sync = Sync::yes)
        : directory_(std::move(directory)), next_id_(first_id), limit_(pack_limit), sync_(sync) {}
    ~PackWriter();
    PackWriter(const PackWriter&) = delete;
    PackWriter& operator=(const PackWriter&) = delete;

    /// Where item 0 of the record is now.
    [[nodiscard]] Result<Location> append(std::span<const std::byte> record);
    /// Completes the open pack; with Sync::yes everything appended is on disk after it.
    [[nodiscard]] Result<> seal();
    void keep() { keep_ = true; }

    /// Ids of the packs that are complete.
    [[nodiscard]] const std::vector<u32>& sealed() const { return sealed_; }
    [[nodiscard]] u64 bytes_written() const { return total_; }

private:
    [[nodiscard]] Result<> start();
    [[nodiscard]] Result<Location> append_locked(std::span<const std::byte> record);
    [[nodiscard]] Result<> seal_locked();

    std::mutex mutex_;
    std::string directory_;
    u32 next_id_;
    u64 limit_;
    Sync sync_;
    std::optional<PackFile> file_;
    u64 total_ = 0;
    std::vector<u32> sealed_;
    std::optional<Error> error_; ///< of the first write that failed
    bool keep_ = false;
};

} // namespace nestor::snapshot
