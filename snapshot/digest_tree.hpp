// The digests of a machine's memory as trees in memory: what MemoryDigester keeps, and what a save
// fills while it reads the pages. Internal to snapshot.
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "snapshot/lease.hpp"
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
    /// Where the nodes of the base lie: where[0] is empty, where[n] goes with nodes[n]. Empty
    /// without a base; zero where the base has zero memory.
    std::vector<std::vector<Location>> where;
    std::vector<u8> differs; ///< leaves whose digest was another in the base
    bool image = false;      ///< of a boot image: `host` never changes, and there is no base

    [[nodiscard]] unsigned levels() const { return static_cast<unsigned>(nodes.size()) - 1; }
    [[nodiscard]] const Digest& root() const { return nodes.back()[0]; }
    [[nodiscard]] std::span<const Digest> children(unsigned level, u64 index) const;
    [[nodiscard]] Gfn page(u64 index) const { return gfn_of(start) + index; }

    /// Digests the dirty pages of one leaf, cleans them and brings the leaf's own digest up to
    /// date. `bytes` has a pointer for every dirty page. Several threads may update different
    /// leaves.
    void update_leaf(u64 leaf, const std::array<const u8*, fanout>& bytes);
    /// The same with the pages at `host`.
    void update_leaf(u64 leaf);
    /// Brings the digests of all nodes above the leaves up to date with them.
    void update_nodes();
    /// Digests all dirty pages at `host` and brings every node up to date.
    [[nodiscard]] Result<> update(unsigned threads);
};

/// A tree whose pages are all dirty. The region must not be empty.
[[nodiscard]] RegionTree make_tree(const Region& region);

/// The snapshot that a digester's trees were equal to once. The lease keeps what it consists of.
struct Base {
    std::string store; ///< store_identity()
    Digest manifest;
    std::shared_ptr<const Lease> lease;
    std::optional<FileState> index; ///< as the save left it
};

struct MemoryDigester::Impl {
    std::vector<RegionTree> regions; ///< sorted by start
    std::optional<Base> base;

    /// Makes the trees for these regions, or checks that they have the shape of the first ones.
    [[nodiscard]] Result<> attach(std::span<const Region> given);
    [[nodiscard]] std::vector<RegionEntry> entries() const;
};

} // namespace nestor::snapshot
