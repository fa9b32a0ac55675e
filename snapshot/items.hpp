// Items on their way into the store: which are new, where the others lie, and how new ones get into
// records. Internal to snapshot.
#pragma once

#include <array>
#include <memory>
#include <mutex>
#include <set>
#include <unordered_map>
#include <vector>

#include "snapshot/index.hpp"
#include "snapshot/pack_writer.hpp"

namespace nestor::snapshot {

/// What this save has put into packs, so that equal items go there once. Thread-safe.
class NewItems final {
public:
    /// True for the first caller with this digest, who then stores it.
    [[nodiscard]] bool claim(const Digest& digest);
    void placed(const Digest& digest, Location location);
    /// Where a claimed item lies; zero where its holder has not placed it yet.
    [[nodiscard]] Location find(const Digest& digest);
    [[nodiscard]] std::vector<IndexEntry> entries() const;

private:
    /// Entries in the order of their claims, and an open-addressed table of their numbers.
    struct Shard {
        [[nodiscard]] u32& slot(const Digest& digest);
        void grow();

        std::mutex mutex;
        std::vector<IndexEntry> entries;
        std::vector<u32> table; ///< number + 1, or 0; a power of two long, at most half full
    };
    [[nodiscard]] Shard& shard(const Digest& digest) { return shards_[digest.bytes[0] & 63]; }
    std::array<Shard, 64> shards_;
};

/// Item lists of records, the last few thousand of them kept.
class ItemLists final {
public:
    explicit ItemLists(const Packs& packs) : packs_(packs) {}

    /// Whether that item lies there.
    [[nodiscard]] bool holds(RecordKind kind, Location location, const Digest& digest);
    /// Whether an item with that key of the index lies there.
    [[nodiscard]] bool holds(Location location, u64 key);

private:
    struct List {
        RecordKind kind = RecordKind::pages;
        std::vector<Digest> digests;
    };
    [[nodiscard]] const List& list(Location location);

    const Packs& packs_;
    RecordBuffer buffer_;
    std::unordered_map<u64, List> lists_;
    std::set<u32> missing_packs_;
};

/// Looks items up in the index and compares each answer with the pack's item list, so that a
/// damaged index costs space and never a snapshot. One per thread.
class Finder final {
public:
    Finder(std::unique_ptr<Index::View> view, const Packs& packs)
        : view_(std::move(view)), lists_(packs) {}

    /// Zero where the store does not have it.
    [[nodiscard]] Result<Location> find(RecordKind kind, const Digest& digest);
    /// Whether that item lies there.
    [[nodiscard]] bool holds(RecordKind kind, Location location, const Digest& digest) {
        return lists_.holds(kind, location, digest);
    }

private:
    std::unique_ptr<Index::View> view_;
    ItemLists lists_;
};

/// Collects items of one kind into records and writes them. One per thread.
class RecordBuilder final {
public:
    RecordBuilder(RecordKind kind, std::size_t payload, PackWriter& writer)
        : kind_(kind), payload_(payload), writer_(writer) {
        raw_.reserve(payload);
    }

    /// Adds an item; `where` is set when its record is written, at the latest by flush().
    [[nodiscard]] Result<> add(const Digest& digest, std::span<const std::byte> bytes,
                               Location* where, NewItems* items);
    [[nodiscard]] Result<> flush();

private:
    RecordKind kind_;
    std::size_t payload_;
    PackWriter& writer_;
    RecordEncoder encoder_;
    std::vector<std::byte> raw_;
    std::vector<Item> list_;
    std::vector<std::pair<Location*, NewItems*>> targets_;
};

} // namespace nestor::snapshot
