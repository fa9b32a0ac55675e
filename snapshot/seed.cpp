// Page digests out of a snapshot's map, so that a restored machine's first digest or save looks
// only at what was written since. Reads every node of the map and no page.
#include "snapshot/digest_tree.hpp"
#include "snapshot/load.hpp"

namespace nestor::snapshot {

namespace {

/// Fills the tree below a node whose digest is in the tree already.
Result<> fill(RecordCache& cache, RegionTree& tree, unsigned level, u64 index, Location location) {
    const Digest digest = tree.nodes[level][index];
    if (digest == zero_digest) {
        return {};
    }
    MapNode node;
    TRY(read_node(cache, location, digest, tree.pages, level, index, node));
    std::vector<Digest>& below = tree.nodes[level - 1];
    const u64 first = index << fanout_shift;
    for (u64 i = 0; i < fanout && first + i < below.size(); ++i) {
        below[first + i] = node.digests[i];
        if (level > 1) {
            tree.where[level - 1][first + i] = node.locations[i];
        }
        if (level > 1) {
            TRY(fill(cache, tree, level - 1, first + i, node.locations[i]));
        }
    }
    return {};
}

} // namespace

Result<> Snapshot::seed(MemoryDigester& digester) const {
    const auto& regions = manifest().regions;
    std::vector<Region> shape;
    shape.reserve(regions.size());
    for (const RegionEntry& region : regions) {
        shape.push_back({region.start, region.size, nullptr});
    }
    MemoryDigester fresh;
    TRY(fresh.impl().attach(shape));
    RecordCache cache(*data_->packs, RecordKind::nodes, 8);
    for (std::size_t i = 0; i < regions.size(); ++i) {
        RegionTree& tree = fresh.impl().regions[i];
        tree.nodes.back()[0] = regions[i].root;
        tree.where.resize(tree.nodes.size());
        for (unsigned level = 1; level <= tree.levels(); ++level) {
            tree.where[level].resize(tree.nodes[level].size());
        }
        tree.where.back()[0] = data_->placed.region_roots[i];
        TRY(fill(cache, tree, tree.levels(), 0, data_->placed.region_roots[i]),
            "snapshot " + data_->tag + ": memory map");
        tree.dirty.assign(tree.dirty.size(), 0);
    }
    fresh.impl().base = Base{data_->store, manifest().digest, data_->lease, {}};
    digester = std::move(fresh);
    return {};
}

} // namespace nestor::snapshot
