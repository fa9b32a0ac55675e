// Checking a store. Internal to snapshot.
#pragma once

#include <map>
#include <mutex>
#include <set>
#include <unordered_map>

#include "snapshot/load.hpp"
#include "snapshot/parallel.hpp"
#include "snapshot/store.hpp"

namespace nestor::snapshot {

class Fsck final {
public:
    Fsck(const Store::Impl& store, const FsckOptions& options)
        : store_(store), layout_(store.layout), options_(options),
          nodes_(*store.packs, RecordKind::nodes, cached_records) {}

    [[nodiscard]] Result<FsckReport> run();

private:
    static constexpr std::size_t cached_records = 16;
    /// Some records of a pack: what one thread checks at once.
    struct Chunk {
        u32 pack = 0;
        u32 first = 0;
        u32 last = 0;
    };

    /// What a record's items have, whatever its list says.
    struct Items {
        RecordKind kind = RecordKind::pages;
        std::vector<Digest> digests;
    };

    /// Adds a finding and says which it is.
    std::size_t found(std::string where, std::string what);
    /// Notes that `tag` cannot be restored because of what is wrong at `location`.
    void blame(Location location, const std::string& tag, const std::string& page);

    // fsck_packs.cpp
    [[nodiscard]] Result<> check_packs();
    [[nodiscard]] Result<> check_records(const Chunk& chunk, RecordBuffer& buffer);
    [[nodiscard]] std::string check_items(RecordBuffer& buffer, std::vector<Digest>& digests) const;
    [[nodiscard]] Result<> check_index();

    // fsck.cpp
    [[nodiscard]] Result<> check_manifests();
    [[nodiscard]] Result<> check_beside();
    void check_snapshot(const std::string& tag);
    [[nodiscard]] bool holds(RecordKind kind, Location location, const Digest& digest) const;
    /// Whether everything below is sound; blames what is not.
    [[nodiscard]] bool check_tree(Location location, const Digest& digest, unsigned level,
                                  u64 index, const PlacedMap& map, const std::string& tag);

    const Store::Impl& store_;
    const Layout& layout_;
    const FsckOptions& options_;
    FsckReport report_;
    std::mutex mutex_; ///< of what the pack threads fill
    std::map<u32, std::unique_ptr<const Pack>> packs_;
    std::unordered_map<u64, Items> items_; ///< by extent
    std::map<u64, std::size_t> by_record_; ///< finding of a record, by extent
    std::map<u32, std::size_t> by_pack_;
    std::map<Digest, std::size_t> by_manifest_;
    RecordCache nodes_;
    std::unordered_map<u64, Digest> sound_; ///< subtrees checked already
};

} // namespace nestor::snapshot
