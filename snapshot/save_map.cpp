// The memory map of a save: its nodes, level by level from the leaves up, because a node holds
// where its children lie. Owns: that a node already in the store is used again only when it says of
// every child what this save knows to be true.
#include "snapshot/save.hpp"

#include "src/base/check.hpp"

namespace nestor::snapshot {

namespace {

constexpr std::size_t record_payload = 64u << 10;
constexpr std::size_t map_cached_records = 8;

} // namespace

/// `known`, or where this save put the item.
Result<Location> SaveJob::place(const Digest& digest, Location known) {
    if (digest == zero_digest || known != Location{}) {
        return known;
    }
    const Location location = items_.find(digest);
    CHECK(location != Location{});
    return location;
}

/// The node in the store that is `wanted`, or zero.
Result<Location> SaveJob::stored_node(const RegionTree& tree, unsigned level, u64 index,
                                      const MapNode& wanted) {
    const Digest& digest = tree.nodes[level][index];
    const Location location = TRY(node_finder_->find(RecordKind::nodes, digest));
    MapNode node;
    const bool same =
        location != Location{} &&
        read_node(*node_cache_, location, digest, tree.pages, level, index, node).has_value() &&
        node.locations == wanted.locations;
    return same ? location : Location{};
}

Result<> SaveJob::save_level(std::size_t at, unsigned level, RecordBuilder& builder,
                             std::vector<Location>& below) {
    const RegionTree& tree = *all_[at];
    std::vector<Location>& here = nodes_[at][level];
    std::vector<std::byte> bytes;
    MapNode node;
    node.level = level;
    for (u64 i = 0; i < here.size(); ++i) {
        const Digest& digest = tree.nodes[level][i];
        if (digest == zero_digest || here[i] != Location{}) {
            continue;
        }
        node.mask = 0;
        node.locations.fill(Location{});
        const auto children = tree.children(level, i);
        for (u64 c = 0; c < children.size(); ++c) {
            if (children[c] != zero_digest) {
                const Location known =
                    level == 1 ? (*places_[at][i])[c] : below[(i << fanout_shift) + c];
                node.mask |= u64{1} << c;
                node.digests[c] = children[c];
                node.locations[c] = TRY(place(children[c], known));
            }
        }
        if (level > 1) {
            here[i] = TRY(stored_node(tree, level, i, node));
        }
        if (here[i] != Location{} || !items_.claim(digest)) {
            continue;
        }
        bytes.clear();
        encode_node(node, bytes);
        TRY(builder.add(digest, bytes, &here[i], &items_));
    }
    TRY(builder.flush());
    return {};
}

/// Places the nodes above leaves that are all as in the base.
void SaveJob::keep_nodes(std::size_t at) {
    const RegionTree& tree = *all_[at];
    if (!has_base(tree)) {
        return;
    }
    std::vector<u8> moved = tree.differs;
    for (unsigned level = 2; level <= tree.levels(); ++level) {
        std::vector<u8> here(tree.nodes[level].size());
        for (u64 i = 0; i < moved.size(); ++i) {
            here[i >> fanout_shift] |= moved[i];
        }
        for (u64 i = 0; i < here.size(); ++i) {
            if (here[i] == 0) {
                nodes_[at][level][i] = tree.where[level][i];
            }
        }
        moved = std::move(here);
    }
}

Result<> SaveJob::save_nodes() {
    node_finder_ = std::make_unique<Finder>(TRY(index_->view()), packs_);
    node_cache_ = std::make_unique<RecordCache>(packs_, RecordKind::nodes, map_cached_records);
    RecordBuilder builder(RecordKind::nodes, record_payload, *writer_);
    for (std::size_t at = 0; at < all_.size(); ++at) {
        const RegionTree& tree = *all_[at];
        keep_nodes(at);
        for (unsigned level = 1; level <= tree.levels(); ++level) {
            TRY(save_level(at, level, builder, nodes_[at][level - 1]));
            for (u64 i = 0; i < nodes_[at][level].size(); ++i) {
                Location& where = nodes_[at][level][i];
                where = TRY(place(tree.nodes[level][i], where));
            }
        }
        if (!tree.image) {
            placed_.region_roots.push_back(nodes_[at].back()[0]);
        }
    }
    node_finder_.reset();
    placed_.manifest.regions = trees_->entries();
    placed_.manifest.memory_root = map_root(placed_.manifest.regions);
    return place_images();
}

} // namespace nestor::snapshot
