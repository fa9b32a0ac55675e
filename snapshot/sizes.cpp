// What each snapshot costs: which stored items it alone refers to, and which it shares.
//
// First every item gets its owner: the one tag that refers to it, or "several". A part of a map
// that has several owners is not walked again, so this costs what is stored, not tags times memory.
// Then the items of the tags that are asked for are added up.
#include <unordered_map>
#include <unordered_set>

#include "snapshot/load.hpp"
#include "snapshot/parallel.hpp"
#include "snapshot/store.hpp"

namespace nestor::snapshot {

namespace {

constexpr u32 several = ~u32{0};
constexpr std::size_t census_cached_records = 16;

class Census final {
public:
    explicit Census(const Packs& packs)
        : packs_(packs), cache_(packs, RecordKind::nodes, census_cached_records) {}

    /// Notes that snapshot number `owner` (from 1 on) refers to all this.
    Result<> own(const PlacedManifest& placed, u32 owner) {
        for (const Location unit : placed.units) {
            if (unit != Location{}) {
                take(unit, owner);
            }
        }
        for (const PlacedMap& map : maps_of(placed)) {
            if (map.root != zero_digest) {
                TRY(own_tree(root_of(map), owner));
            }
        }
        return {};
    }

    /// Adds up what snapshot number `owner` refers to.
    Result<SnapshotSize> measure(const PlacedManifest& placed, u32 owner) {
        size_ = {};
        seen_.clear();
        for (const RegionEntry& region : placed.manifest.regions) {
            size_.logical_bytes += region.size;
        }
        for (const ImageEntry& image : placed.manifest.images) {
            size_.image_bytes += image.size;
        }
        for (const Location unit : placed.units) {
            if (unit != Location{} && seen_.emplace(unit.value(), 0).second) {
                TRY(add(unit, owner));
            }
        }
        for (const PlacedMap& map : maps_of(placed)) {
            if (map.root == zero_digest) {
                continue;
            }
            const u64 distinct = size_.distinct_pages;
            const u64 pages = TRY(add_tree(root_of(map), owner));
            if (map.image.empty()) {
                size_.nonzero_pages += pages;
            } else {
                size_.distinct_pages = distinct; // these are memory's
            }
        }
        return size_;
    }

private:
    struct Tree {
        unsigned level = 0;
        u64 index = 0;
        u64 pages = 0; ///< of the whole map
        Location location;
        Digest digest;
    };

    static Tree root_of(const PlacedMap& map) {
        return {map_levels(map.pages), 0, map.pages, map.location, map.root};
    }

    template <class Each>
    Result<> each_child(const Tree& tree, const Each& each) {
        MapNode node;
        TRY(read_node(cache_, tree.location, tree.digest, tree.pages, tree.level, tree.index,
                      node));
        for (u64 i = 0; i < fanout; ++i) {
            if (node.digests[i] != zero_digest) {
                TRY(each(Tree{tree.level - 1, (tree.index << fanout_shift) + i, tree.pages,
                              node.locations[i], node.digests[i]}));
            }
        }
        return {};
    }

    /// False where that was known, or is of no matter because several own it.
    bool take(Location location, u32 owner) {
        const auto [at, fresh] = owners_.try_emplace(location.value(), owner);
        if (fresh) {
            return true;
        }
        if (at->second == owner || at->second == several) {
            return false;
        }
        at->second = several;
        return true;
    }

    Result<> own_tree(const Tree& tree, u32 owner) {
        if (!take(tree.location, owner) || tree.level == 0) {
            return {};
        }
        return each_child(tree, [&](const Tree& child) { return own_tree(child, owner); });
    }

    /// Its stored bytes: an extent's are divided among its items, as gc does it.
    Result<> add(Location location, u32 owner) {
        const u64 bytes = TRY(share_of(location));
        (owners_[location.value()] == owner ? size_.unique_bytes : size_.shared_bytes) += bytes;
        return {};
    }

    Result<u64> share_of(Location location) {
        const auto [at, fresh] = shares_.try_emplace(location.extent());
        if (fresh) {
            const auto pack = TRY(packs_.get(location.pack()));
            TRY(pack->read_items(location.record(), buffer_));
            at->second = shares_of_items(buffer_.items(), pack->record_size(location.record()));
        }
        return location.slot() < at->second.size() ? at->second[location.slot()] : 0;
    }

    /// Pages that are not zero below a tree; a part that comes again is counted again, and costs
    /// nothing more.
    Result<u64> add_tree(const Tree& tree, u32 owner) {
        if (const auto known = seen_.find(tree.location.value()); known != seen_.end()) {
            return known->second;
        }
        TRY(add(tree.location, owner));
        u64 pages = tree.level == 0 ? 1 : 0;
        size_.distinct_pages += pages;
        const auto add_child = [&](const Tree& child) -> Result<> {
            pages += TRY(add_tree(child, owner));
            return {};
        };
        if (tree.level != 0) {
            TRY(each_child(tree, add_child));
        }
        seen_.emplace(tree.location.value(), pages);
        return pages;
    }

    const Packs& packs_;
    RecordCache cache_;
    RecordBuffer buffer_;
    std::unordered_map<u64, u32> owners_;              ///< by location
    std::unordered_map<u64, std::vector<u32>> shares_; ///< by extent: bytes of each item
    std::unordered_map<u64, u64> seen_; ///< by location: pages below it, in this snapshot
    SnapshotSize size_;
};

} // namespace

Result<std::vector<SnapshotSize>> Store::sizes(std::string_view only,
                                               const Progress& progress) const {
    std::vector<std::shared_ptr<const SnapshotData>> snapshots;
    u64 total = 0;
    if (!only.empty()) {
        TRY(impl_->load(only));
    }
    for (const std::string& tag : TRY(list_tags(impl_->layout))) {
        auto data = impl_->load(tag);
        if (!data && data.error().code != ErrorCode::corrupt) {
            return Failure(data.error());
        }
        if (data) {
            for (const RegionEntry& region : (*data)->placed.manifest.regions) {
                total += region.size;
            }
            snapshots.push_back(*std::move(data));
        }
    }
    Census census(*impl_->packs);
    ProgressMeter meter(progress, total);
    // Two tags of one manifest own everything together.
    for (u32 i = 0; i < snapshots.size(); ++i) {
        TRY(census.own(snapshots[i]->placed, i + 1), "snapshot " + snapshots[i]->tag);
        for (const RegionEntry& region : snapshots[i]->placed.manifest.regions) {
            TRY(meter.add(region.size));
        }
    }
    std::vector<SnapshotSize> sizes;
    for (u32 i = 0; i < snapshots.size(); ++i) {
        if (only.empty() || snapshots[i]->tag == only) {
            sizes.push_back(
                TRY(census.measure(snapshots[i]->placed, i + 1), "snapshot " + snapshots[i]->tag));
            sizes.back().tag = snapshots[i]->tag;
        }
    }
    return sizes;
}

} // namespace nestor::snapshot
