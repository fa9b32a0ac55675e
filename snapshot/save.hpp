// One save, from the request to the reference. Internal to snapshot.
#pragma once

#include <array>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <unordered_map>
#include <vector>

#include "snapshot/digest_tree.hpp"
#include "snapshot/files.hpp"
#include "snapshot/index.hpp"
#include "snapshot/manifest.hpp"
#include "snapshot/pack_writer.hpp"
#include "snapshot/parallel.hpp"

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
    struct Hash {
        std::size_t operator()(const Digest& digest) const;
    };
    struct Shard {
        std::mutex mutex;
        std::unordered_map<Digest, Location, Hash> map;
    };
    [[nodiscard]] Shard& shard(const Digest& digest) { return shards_[digest.bytes[0] & 63]; }
    std::array<Shard, 64> shards_;
};

/// Looks items up in the index and compares each answer with the pack's item list, so that a
/// damaged index costs space and never a snapshot. One per thread.
class Finder final {
public:
    Finder(std::unique_ptr<Index::View> view, const Packs& packs)
        : view_(std::move(view)), packs_(packs) {}

    /// Zero where the store does not have it.
    [[nodiscard]] Result<Location> find(RecordKind kind, const Digest& digest);

private:
    struct List {
        RecordKind kind = RecordKind::pages;
        std::vector<Digest> digests;
    };
    [[nodiscard]] const List& list(Location location);

    std::unique_ptr<Index::View> view_;
    const Packs& packs_;
    RecordBuffer buffer_;
    std::unordered_map<u64, List> lists_;
    std::set<u32> missing_packs_;
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

class SaveJob final {
public:
    SaveJob(const Layout& layout, const Packs& packs, const SaveRequest& request)
        : layout_(layout), packs_(packs), request_(request) {}

    [[nodiscard]] Result<SaveReport> run();

    /// Packs are closed at this size. Tests make it small.
    static u64 pack_limit;

private:
    struct Worker;

    [[nodiscard]] Result<> check_request() const;
    [[nodiscard]] Result<> prepare();
    [[nodiscard]] Result<> save_pages();
    [[nodiscard]] Result<> save_chunk(Worker& worker, std::size_t region, u64 first, u64 last);
    [[nodiscard]] Result<> save_leaf(Worker& worker, std::size_t region, u64 leaf);
    [[nodiscard]] Result<> save_page(Worker& worker, std::size_t region, u64 page);
    [[nodiscard]] Result<> save_nodes();
    [[nodiscard]] Result<> save_level(std::size_t region, unsigned level, Finder& finder,
                                      RecordBuilder& builder, std::vector<Location>& below);
    [[nodiscard]] Result<> save_units();
    [[nodiscard]] Result<> commit();
    [[nodiscard]] Result<> write_reference();
    [[nodiscard]] Result<Location> place(const Digest& digest, Location known);

    const Layout& layout_;
    const Packs& packs_;
    const SaveRequest& request_;
    std::unique_ptr<Index> index_;
    std::unique_ptr<PackWriter> writer_;
    MemoryDigester own_digester_;
    MemoryDigester::Impl* trees_ = nullptr;
    std::vector<std::vector<Location>> locations_; ///< per region and page; zero: ask items_
    std::vector<std::vector<Location>> leaves_;    ///< per region: leaves the store has already
    NewItems items_;
    std::atomic<u64> new_pages_{0};
    PlacedManifest placed_;
    SaveReport report_;
};

} // namespace nestor::snapshot
