// The digests of a machine's memory as trees in memory: what MemoryDigester keeps, and what a save
// fills while it reads the pages. Internal to snapshot.
#pragma once

#include <vector>

#include "snapshot/memory_map.hpp"
#include "snapshot/snapshot.hpp"

namespace nestor::snapshot {

/// One region's tree. nodes[0] are the pages, nodes[levels] is the root alone.
struct RegionTree {
    Gpa start;
    u64 pages = 0;
    const u8* host = nullptr; ///< of the regions given last
    std::vector<std::vector<Digest>> nodes;
    std::vector<u64> dirty;  ///< one word for the 64 pages of a leaf
    std::vector<u8> changed; ///< leaves that the nodes above do not know yet

    [[nodiscard]] unsigned levels() const { return static_cast<unsigned>(nodes.size()) - 1; }
    [[nodiscard]] const Digest& root() const { return nodes.back()[0]; }
    [[nodiscard]] std::span<const Digest> children(unsigned level, u64 index) const;

    /// Digests the dirty pages of one leaf, cleans them and brings the leaf's own digest up to
    /// date. Several threads may update different leaves.
    void update_leaf(u64 leaf);
    /// Brings the digests of all nodes above the leaves up to date with them.
    void update_nodes();
};

struct MemoryDigester::Impl {
    std::vector<RegionTree> regions; ///< sorted by start

    /// Makes the trees for these regions, or checks that they have the shape of the first ones.
    [[nodiscard]] Result<> attach(std::span<const Region> given);
    [[nodiscard]] std::vector<RegionEntry> entries() const;
};

} // namespace nestor::snapshot
