// The memory map of a snapshot: per region a tree of digests with 64 children to a node.
//
// Level 0 are pages, a node of level n covers 64^n pages. A child that is all zero is absent: its
// digest is 32 zero bytes here, and in a stored node its mask bit is clear, so zero memory costs
// nothing at any level. A node's digest covers level, mask and the digests of the children present,
// not where they lie. Sixty-four because a scattered write then costs a page and two or three
// nodes of 2.6 KiB, and a mask is one word.
#pragma once

#include <array>
#include <span>
#include <vector>

#include "src/base/digest.hpp"
#include "src/base/result.hpp"
#include "src/base/types.hpp"

#include "snapshot/pack.hpp"
#include "snapshot/snapshot.hpp"

namespace nestor::snapshot {

inline constexpr unsigned fanout_shift = 6;
inline constexpr u64 fanout = u64{1} << fanout_shift;
inline constexpr Digest zero_digest{};

/// Levels of nodes above the pages of a region; at least 1.
[[nodiscard]] constexpr unsigned map_levels(u64 pages) {
    unsigned levels = 1;
    while (levels < 8 && (fanout << (fanout_shift * (levels - 1))) < pages) {
        ++levels;
    }
    return levels;
}

/// How many nodes (level 0: pages) a region of that many pages has at a level.
[[nodiscard]] constexpr u64 map_width(u64 pages, unsigned level) {
    const unsigned shift = fanout_shift * level;
    return (pages >> shift) + ((pages & ((u64{1} << shift) - 1)) != 0 ? 1 : 0);
}

struct MapNode {
    unsigned level = 1;
    u64 mask = 0;
    std::array<Digest, fanout> digests; ///< zero_digest where absent
    std::array<Location, fanout> locations;
};

/// zero_digest where all children are absent.
[[nodiscard]] Digest node_digest(unsigned level, std::span<const Digest> children);

/// Appends the stored form: mask, level, then digest and location of each child present.
void encode_node(const MapNode& node, std::vector<std::byte>& out);

/// Takes apart a stored node whose digest is not known: corrupt where it cannot be one.
[[nodiscard]] Result<> parse_node(std::span<const std::byte> bytes, unsigned level, u64 children,
                                  MapNode& into);

/// Takes apart a stored node and compares its digest, its level and that it has no child beyond
/// `children`. Everything else is corrupt.
[[nodiscard]] Result<> decode_node(std::span<const std::byte> bytes, const Digest& expected,
                                   unsigned level, u64 children, MapNode& into);

/// A region's place in memory, checked: page aligned, not empty, no wrap-around.
struct Extent {
    Gpa start;
    u64 size = 0;
    [[nodiscard]] u64 pages() const { return size >> page_shift; }
};

/// Order by start of regions that are page aligned and do not overlap; usage error otherwise.
[[nodiscard]] Result<std::vector<std::size_t>> order_regions(std::span<const Extent> extents);

/// SHA-256 over number, starts, sizes and roots of the regions, sorted by start.
[[nodiscard]] Digest map_root(std::span<const RegionEntry> regions);

[[nodiscard]] bool is_zero_page(const u8* page);

} // namespace nestor::snapshot
