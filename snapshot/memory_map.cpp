// Nodes of the memory map: their digests, their stored form and the checks on it.
#include "snapshot/memory_map.hpp"

#include <algorithm>
#include <bit>
#include <cstring>

#include "snapshot/format.hpp"

namespace nestor::snapshot {

namespace {

constexpr std::size_t node_head = 2 * sizeof(u64);
constexpr std::size_t child_size = sizeof(Digest) + sizeof(u64);
constexpr u64 max_physical = u64{1} << 52; // SDM 3A 4.1.4, MAXPHYADDR

Failure damaged_node() {
    return fail(ErrorCode::corrupt, "a node of the memory map is damaged", damage_remedy);
}

} // namespace

Digest node_digest(unsigned level, std::span<const Digest> children) {
    // Gathered first: one update of 2 KiB is several times cheaper than 64 small ones.
    std::array<std::byte, node_head + fanout * sizeof(Digest)> buffer;
    std::size_t at = node_head;
    u64 mask = 0;
    for (std::size_t i = 0; i < children.size(); ++i) {
        if (children[i] != zero_digest) {
            mask |= u64{1} << i;
            std::memcpy(buffer.data() + at, &children[i], sizeof(Digest));
            at += sizeof(Digest);
        }
    }
    if (mask == 0) {
        return zero_digest;
    }
    const u64 head[2] = {level, mask};
    std::memcpy(buffer.data(), head, sizeof(head));
    return sha256(std::span(buffer).first(at));
}

void encode_node(const MapNode& node, std::vector<std::byte>& out) {
    const u64 head[2] = {node.mask, node.level};
    const std::size_t begin = out.size();
    out.resize(begin + node_head + static_cast<std::size_t>(std::popcount(node.mask)) * child_size);
    std::byte* at = out.data() + begin;
    std::memcpy(at, head, sizeof(head));
    at += sizeof(head);
    for (u64 left = node.mask; left != 0; left &= left - 1) {
        const auto i = static_cast<std::size_t>(std::countr_zero(left));
        const u64 location = node.locations[i].value();
        std::memcpy(at, &node.digests[i], sizeof(Digest));
        std::memcpy(at + sizeof(Digest), &location, sizeof(location));
        at += child_size;
    }
}

Result<> parse_node(std::span<const std::byte> bytes, unsigned level, u64 children, MapNode& into) {
    if (bytes.size() < node_head) {
        return damaged_node();
    }
    into.mask = load_at<u64>(bytes, 0);
    into.level = level;
    const u64 allowed = children >= fanout ? ~u64{0} : (u64{1} << children) - 1;
    const auto count = static_cast<std::size_t>(std::popcount(into.mask));
    if (load_at<u64>(bytes, sizeof(u64)) != level || into.mask == 0 ||
        (into.mask & ~allowed) != 0 || bytes.size() != node_head + count * child_size) {
        return damaged_node();
    }
    into.digests.fill(zero_digest);
    into.locations.fill(Location{});
    std::size_t at = node_head;
    for (u64 left = into.mask; left != 0; left &= left - 1) {
        const auto i = static_cast<std::size_t>(std::countr_zero(left));
        into.digests[i] = load_at<Digest>(bytes, at);
        into.locations[i] = Location(load_at<u64>(bytes, at + sizeof(Digest)));
        at += child_size;
    }
    return {};
}

Result<> decode_node(std::span<const std::byte> bytes, const Digest& expected, unsigned level,
                     u64 children, MapNode& into) {
    TRY(parse_node(bytes, level, children, into));
    if (node_digest(level, into.digests) != expected) {
        return damaged_node();
    }
    return {};
}

Result<std::vector<std::size_t>> order_regions(std::span<const Extent> extents) {
    std::vector<std::size_t> order(extents.size());
    for (std::size_t i = 0; i < order.size(); ++i) {
        const Extent& e = extents[i];
        const u64 start = e.start.value();
        if (e.size == 0 || ((start | e.size) & page_mask) != 0) {
            return fail(ErrorCode::usage, "a memory region is empty or not page aligned");
        }
        if (start > max_physical || e.size > max_physical - start) {
            return fail(ErrorCode::usage, "a memory region ends above 2^52");
        }
        order[i] = i;
    }
    std::sort(order.begin(), order.end(),
              [&](std::size_t a, std::size_t b) { return extents[a].start < extents[b].start; });
    for (std::size_t i = 1; i < order.size(); ++i) {
        const Extent& before = extents[order[i - 1]];
        if (extents[order[i]].start - before.start < before.size) {
            return fail(ErrorCode::usage, "two memory regions overlap");
        }
    }
    return order;
}

Digest map_root(std::span<const RegionEntry> regions) {
    Hasher hasher;
    hasher.add(u64{regions.size()});
    for (const RegionEntry& region : regions) {
        hasher.add(region.start.value());
        hasher.add(region.size);
        hasher.add(bytes_of(region.root));
    }
    return hasher.finish();
}

bool is_zero_page(const u8* page) {
    for (std::size_t at = 0; at < page_size; at += 256) {
        u64 any = 0;
        for (std::size_t i = 0; i < 256; i += sizeof(u64)) {
            u64 word;
            std::memcpy(&word, page + at + i, sizeof(word));
            any |= word;
        }
        if (any != 0) {
            return false;
        }
    }
    return true;
}

} // namespace nestor::snapshot
