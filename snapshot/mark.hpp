// What snapshots refer to: the mark phase of gc. Internal to snapshot.
#pragma once

#include <set>

#include "snapshot/item_set.hpp"
#include "snapshot/load.hpp"
#include "snapshot/store.hpp"

namespace nestor::snapshot {

/// Collects what the references and leases of a store lead to. A subtree that was seen is not
/// walked again, so marking again after something was saved costs what is new.
class Marker final {
public:
    explicit Marker(const Store::Impl& store)
        : store_(store), cache_(*store.packs, RecordKind::nodes, cached_records) {}

    /// Marks everything that is referred to now. The caller holds the writer lock. Corrupt, naming
    /// the snapshot, where something cannot be followed: then nothing may be collected.
    [[nodiscard]] Result<> mark();

    [[nodiscard]] const ItemSet& live() const { return live_; }
    [[nodiscard]] const std::set<Digest>& manifests() const { return manifests_; }
    [[nodiscard]] u64 snapshots() const { return snapshots_; } ///< tags at the last mark()
    [[nodiscard]] u64 leased() const { return leased_; } ///< manifests with a lease and no tag

private:
    static constexpr std::size_t cached_records = 16;

    [[nodiscard]] Result<> mark_manifest(const Digest& digest);
    [[nodiscard]] Result<> mark_node(Location location, const Digest& digest, unsigned level,
                                     u64 index, u64 pages);

    const Store::Impl& store_;
    RecordCache cache_;
    ItemSet live_;
    std::set<Digest> manifests_;
    u64 snapshots_ = 0;
    u64 leased_ = 0;
};

} // namespace nestor::snapshot
