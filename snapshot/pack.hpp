// Packs: sealed, append-only files that hold everything a snapshot consists of except its manifest.
//
// A pack is a header, records, a directory of record offsets and a trailer, little endian:
//
//   header    64 bytes: "nestpack", u32 version, u32 id, 16 zero bytes, SHA-256 of these 32
//   record    24 bytes: magic, kind, items, raw size, stored size, encoding (0 plain, 1 zstd), 0
//             the seal (record_seal()); items x (digest, u32 size); payload
//   directory u64 offset of every record
//   trailer   64 bytes: "nestpend", u32 version, u32 records, u64 directory offset, u64 file size,
//             SHA-256 of the directory and these 32
//
// A record is an extent of up to 4096 items of one kind, compressed together. Its item list makes
// packs self-describing: the index is rebuilt from them alone. gc replaces a pack by one that has
// the same id and record numbers, without what nothing refers to: a record of length 0, an item of
// size 0.
//
// Packs were chosen over extents as LMDB values by measurement: 79 MB in 3300 compressed extents
// took 8.7 % more space there (a value fills whole LMDB pages) and 1.05 to 1.6 times the time, and
// readers need no LMDB. The index keeps about 27 (fresh) to 80 (much rewritten) bytes a page.
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <vector>

#include "src/base/digest.hpp"
#include "src/base/fd.hpp"
#include "src/base/result.hpp"
#include "src/base/types.hpp"

namespace nestor::snapshot {

/// Where an item lies: pack, record in the pack, item in the record. Stable for ever: a rewritten
/// pack keeps its id and record numbers.
class Location final {
public:
    static constexpr u64 max_pack = (u64{1} << 28) - 1;
    static constexpr u64 max_record = (u64{1} << 24) - 1;
    static constexpr u64 max_slot = (u64{1} << 12) - 1;

    constexpr Location() = default;
    constexpr explicit Location(u64 value) : value_(value) {}
    constexpr Location(u32 pack, u32 record, u32 slot)
        : value_(u64{pack} << 36 | u64{record} << 12 | slot) {}

    [[nodiscard]] constexpr u64 value() const { return value_; }
    [[nodiscard]] constexpr u32 pack() const { return static_cast<u32>(value_ >> 36); }
    [[nodiscard]] constexpr u32 record() const {
        return static_cast<u32>(value_ >> 12 & max_record);
    }
    [[nodiscard]] constexpr u32 slot() const { return static_cast<u32>(value_ & max_slot); }
    /// The same record, whatever the slot.
    [[nodiscard]] constexpr u64 extent() const { return value_ >> 12; }
    constexpr auto operator<=>(const Location&) const = default;

private:
    u64 value_ = 0;
};

/// "pack 3 record 17 item 2"
[[nodiscard]] std::string to_string(Location location);

enum class RecordKind : u16 { pages = 1, nodes = 2, units = 3 };

/// One item of a record, as its item list has it.
struct Item {
    Digest digest; ///< all zero bits where size is 0
    u32 size = 0;  ///< 0: collected
};

/// The seal of a whole record: SHA-256 of its header, of the digests of the first and the second
/// half of what follows the seal (each a multiple of 64 bytes; they are digested side by side), and
/// of what is left. `record` is at least as long as a record's head.
[[nodiscard]] Digest record_seal(std::span<const std::byte> record);

/// Largest payload of a record, before compression.
inline constexpr u32 max_raw_size = 64u << 20;

/// What part of a record's `bytes` in its file is there for each item: by the items' sizes, 0 for a
/// collected one and at least 1 for any other.
[[nodiscard]] std::vector<u32> shares_of_items(std::span<const Item> items, u64 bytes);

/// A record read into memory; reused from read to read.
class RecordBuffer final {
public:
    RecordBuffer();
    ~RecordBuffer();
    RecordBuffer(const RecordBuffer&) = delete;
    RecordBuffer& operator=(const RecordBuffer&) = delete;

    [[nodiscard]] std::size_t count() const { return items_.size(); }
    /// Empty where there is no such item.
    [[nodiscard]] std::span<const std::byte> item(u32 slot) const;
    [[nodiscard]] const std::vector<Item>& items() const { return items_; }
    [[nodiscard]] RecordKind kind() const { return kind_; }

    /// Takes apart the bytes of one record. With `payload`, decodes that too; with `seal`,
    /// compares the record's own digest first. For hostile bytes.
    [[nodiscard]] Result<> parse(std::span<const std::byte> record, bool payload, bool seal);

private:
    friend class Pack;
    [[nodiscard]] Result<> decode(std::span<const std::byte> stored, u32 encoding, u32 raw_size);

    std::vector<std::byte> stored_;
    std::vector<std::byte> raw_;
    std::vector<Item> items_;
    std::vector<u32> offsets_;
    RecordKind kind_ = RecordKind::pages;
    void* context_ = nullptr; // ZSTD_DCtx
};

/// One sealed pack, open for reading. Thread-safe.
class Pack final {
public:
    /// Reads and verifies header, trailer and directory.
    [[nodiscard]] static Result<std::unique_ptr<const Pack>> open(const std::string& path, u32 id);

    [[nodiscard]] u32 records() const { return static_cast<u32>(offsets_.size()); }
    [[nodiscard]] u64 file_size() const { return file_size_; }
    /// Bytes of a record in the file; 0 where it was collected.
    [[nodiscard]] u64 record_size(u32 record) const;
    /// The bytes of a record as they are, unchecked.
    [[nodiscard]] Result<std::vector<std::byte>> raw_record(u32 record) const;
    /// Whether `path` still names the file that is open.
    [[nodiscard]] bool is_file(const std::string& path) const;

    /// Reads one record and decodes it. Item digests are not compared: the caller does, with the
    /// digest it came for.
    [[nodiscard]] Result<> read(u32 record, RecordBuffer& into) const;
    /// Reads the item list only.
    [[nodiscard]] Result<> read_items(u32 record, RecordBuffer& into) const;
    /// Reads, compares the seal, decodes.
    [[nodiscard]] Result<> read_sealed(u32 record, RecordBuffer& into) const;

private:
    Pack() = default;
    [[nodiscard]] Result<> read_bytes(u32 record, u64 limit, RecordBuffer& into) const;
    [[nodiscard]] Result<> load_directory(u32 id);

    Fd fd_;
    std::string path_;
    u64 file_size_ = 0;
    u64 directory_ = 0;
    std::vector<u64> offsets_;
};

/// The packs of a store, opened when first used, the last 256 of them kept open. Thread-safe.
class Packs final {
public:
    explicit Packs(std::string directory) : directory_(std::move(directory)) {}

    [[nodiscard]] Result<std::shared_ptr<const Pack>> get(u32 id) const;
    /// Closes what is not the file of that name any more. Whoever decides by what packs hold what
    /// to refer to calls it when it has the writer lock.
    void refresh() const;
    /// Reads the record that holds `location` and checks its kind.
    [[nodiscard]] Result<> read(Location location, RecordKind kind, RecordBuffer& into) const;
    /// Ids of all sealed packs, sorted.
    [[nodiscard]] Result<std::vector<u32>> ids() const;
    [[nodiscard]] std::string path(u32 id) const;
    [[nodiscard]] const std::string& directory() const { return directory_; }

private:
    struct Slot {
        std::shared_ptr<const Pack> pack;
        u64 used = 0;
    };

    std::string directory_;
    mutable std::mutex mutex_;
    mutable std::map<u32, Slot> open_;
    mutable u64 clock_ = 0;
};

} // namespace nestor::snapshot
