// Page digests, the trees above them and the machine digest (DESIGN.md, rule 1).
// Owns: what exactly each digest covers. A change here changes the identity of every machine.
#include "snapshot/digest_tree.hpp"

#include <algorithm>
#include <bit>

#include "src/base/digest_pages.hpp"

#include "snapshot/format.hpp"
#include "snapshot/parallel.hpp"

namespace nestor::snapshot {

namespace {

/// Below this many dirty pages a second thread costs more than it saves.
constexpr u64 parallel_threshold = 256;
constexpr u64 leaves_per_chunk = 16;

u64 last_leaf_mask(u64 pages) {
    const u64 rest = pages & (fanout - 1);
    return rest == 0 ? ~u64{0} : (u64{1} << rest) - 1;
}

void mark_all(RegionTree& tree) {
    std::fill(tree.dirty.begin(), tree.dirty.end(), ~u64{0});
    tree.dirty.back() = last_leaf_mask(tree.pages);
}

} // namespace

RegionTree make_tree(const Region& region) {
    RegionTree tree;
    tree.start = region.start;
    tree.pages = region.size >> page_shift;
    const unsigned levels = map_levels(tree.pages);
    for (unsigned level = 0; level <= levels; ++level) {
        tree.nodes.emplace_back(map_width(tree.pages, level));
    }
    tree.dirty.resize(tree.nodes[1].size());
    tree.changed.resize(tree.nodes[1].size());
    tree.differs.resize(tree.nodes[1].size());
    mark_all(tree);
    tree.host = region.host;
    return tree;
}

std::span<const Digest> RegionTree::children(unsigned level, u64 index) const {
    const std::vector<Digest>& below = nodes[level - 1];
    const u64 first = index << fanout_shift;
    return std::span(below).subspan(first, std::min(fanout, below.size() - first));
}

void RegionTree::update_leaf(u64 leaf, const std::array<const u8*, fanout>& bytes) {
    // Pages that are not zero are digested together.
    std::array<const std::byte*, fanout> runs;
    std::array<u8, fanout> slots;
    std::array<Digest, fanout> digests;
    std::size_t count = 0;
    bool different = false;
    const auto learn = [&](u64 slot, const Digest& digest) {
        Digest& known = nodes[0][(leaf << fanout_shift) + slot];
        different |= known != digest;
        known = digest;
    };
    for (u64 left = dirty[leaf]; left != 0; left &= left - 1) {
        const auto slot = static_cast<u8>(std::countr_zero(left));
        if (is_zero_page(bytes[slot])) {
            learn(slot, zero_digest);
        } else {
            runs[count] = reinterpret_cast<const std::byte*>(bytes[slot]);
            slots[count++] = slot;
        }
    }
    sha256_each(std::span(runs).first(count), page_size, std::span(digests).first(count));
    for (std::size_t i = 0; i < count; ++i) {
        learn(slots[i], digests[i]);
    }
    dirty[leaf] = 0;
    if (different) {
        nodes[1][leaf] = node_digest(1, children(1, leaf));
        changed[leaf] = 1;
        differs[leaf] = 1;
    }
}

void RegionTree::update_leaf(u64 leaf) {
    std::array<const u8*, fanout> bytes;
    for (u64 slot = 0; slot < fanout; ++slot) {
        bytes[slot] = host + (((leaf << fanout_shift) + slot) << page_shift);
    }
    update_leaf(leaf, bytes);
}

void RegionTree::update_nodes() {
    std::vector<u8> below(changed.size());
    below.swap(changed);
    for (unsigned level = 2; level <= levels(); ++level) {
        std::vector<u8> here(nodes[level].size());
        for (u64 i = 0; i < below.size(); ++i) {
            here[i >> fanout_shift] |= below[i];
        }
        for (u64 i = 0; i < here.size(); ++i) {
            if (here[i] != 0) {
                nodes[level][i] = node_digest(level, children(level, i));
            }
        }
        below = std::move(here);
    }
}

Result<> RegionTree::update(unsigned threads) {
    u64 left = 0;
    for (const u64 word : dirty) {
        left += static_cast<u64>(std::popcount(word));
    }
    const u64 chunks = (dirty.size() + leaves_per_chunk - 1) / leaves_per_chunk;
    TRY(parallel_chunks(
        chunks, left < parallel_threshold ? 1 : threads, [&](unsigned, u64 chunk) -> Result<> {
            const u64 end = std::min<u64>((chunk + 1) * leaves_per_chunk, dirty.size());
            for (u64 i = chunk * leaves_per_chunk; i < end; ++i) {
                update_leaf(i);
            }
            return {};
        }));
    update_nodes();
    return {};
}

Result<> MemoryDigester::Impl::attach(std::span<const Region> given) {
    std::vector<Extent> extents;
    for (const Region& region : given) {
        extents.push_back({region.start, region.size});
    }
    const auto order = TRY(order_regions(extents));
    if (regions.empty()) {
        for (const std::size_t i : order) {
            regions.push_back(make_tree(given[i]));
        }
    }
    bool same = regions.size() == order.size();
    for (std::size_t i = 0; same && i < order.size(); ++i) {
        const Region& region = given[order[i]];
        same = regions[i].start == region.start && regions[i].pages == region.size >> page_shift;
        regions[i].host = region.host;
    }
    if (!same) {
        return fail(ErrorCode::usage, "the memory regions are not those of the first digest");
    }
    return {};
}

std::vector<RegionEntry> MemoryDigester::Impl::entries() const {
    std::vector<RegionEntry> entries;
    entries.reserve(regions.size());
    for (const RegionTree& tree : regions) {
        entries.push_back({tree.start, tree.pages << page_shift, tree.root()});
    }
    return entries;
}

MemoryDigester::MemoryDigester() : impl_(std::make_unique<Impl>()) {}
MemoryDigester::~MemoryDigester() = default;
MemoryDigester::MemoryDigester(MemoryDigester&&) noexcept = default;
MemoryDigester& MemoryDigester::operator=(MemoryDigester&&) noexcept = default;

void MemoryDigester::mark_dirty(Gfn first, u64 count) {
    for (RegionTree& tree : impl_->regions) {
        const u64 base = gfn_of(tree.start).value();
        const u64 begin = std::max(first.value(), base);
        const u64 end = std::min(first.value() + count, base + tree.pages);
        for (u64 gfn = begin; gfn < end; ++gfn) {
            const u64 page = gfn - base;
            tree.dirty[page >> fanout_shift] |= u64{1} << (page & (fanout - 1));
        }
    }
}

void MemoryDigester::mark_all_dirty() {
    for (RegionTree& tree : impl_->regions) {
        mark_all(tree);
    }
}

Result<> MemoryDigester::assume_zero(std::span<const Region> regions) {
    TRY(impl_->attach(regions));
    for (RegionTree& tree : impl_->regions) {
        std::fill(tree.dirty.begin(), tree.dirty.end(), u64{0});
        for (u64 leaf = 0; leaf < tree.dirty.size(); ++leaf) {
            if (tree.nodes[1][leaf] != zero_digest) {
                const auto pages = tree.children(1, leaf);
                std::fill_n(tree.nodes[0].begin() + static_cast<i64>(leaf << fanout_shift),
                            pages.size(), zero_digest);
                tree.differs[leaf] = 1;
            }
        }
        for (unsigned level = 1; level <= tree.levels(); ++level) {
            std::fill(tree.nodes[level].begin(), tree.nodes[level].end(), zero_digest);
        }
    }
    return {};
}

Result<Digest> MemoryDigester::root(std::span<const Region> regions, unsigned threads) {
    TRY(impl_->attach(regions));
    for (RegionTree& tree : impl_->regions) {
        TRY(tree.update(threads));
    }
    return map_root(impl_->entries());
}

Result<Digest> memory_root(std::span<const Region> regions, unsigned threads) {
    MemoryDigester digester;
    return digester.root(regions, threads);
}

Digest images_digest(std::span<const ImageEntry> images) {
    if (images.empty()) {
        return {};
    }
    Hasher hasher;
    const auto add_text = [&hasher](const std::string& text) {
        hasher.add(u64{text.size()});
        hasher.add(std::as_bytes(std::span(text)));
    };
    hasher.add(u64{images.size()});
    for (const ImageEntry& image : images) {
        hasher.add(u64{static_cast<u16>(image.kind)});
        add_text(image.named ? image.name : "");
        add_text(image.arguments);
        hasher.add(image.size);
        hasher.add(bytes_of(image.root));
    }
    return hasher.finish();
}

Digest machine_digest(const Contract& contract, std::span<const UnitEntry> units,
                      const Digest& memory_root, const Digest& images) {
    std::vector<const UnitEntry*> sorted;
    for (const UnitEntry& unit : units) {
        sorted.push_back(&unit);
    }
    std::sort(sorted.begin(), sorted.end(),
              [](const UnitEntry* a, const UnitEntry* b) { return a->name < b->name; });
    Hasher hasher;
    hasher.add(contract.type);
    hasher.add(bytes_of(sha256(contract.bytes)));
    hasher.add(u64{sorted.size()});
    for (const UnitEntry* const unit : sorted) {
        hasher.add(u64{unit->name.size()});
        hasher.add(std::as_bytes(std::span(unit->name)));
        hasher.add(unit->type);
        hasher.add(unit->size);
        hasher.add(bytes_of(unit->digest));
    }
    hasher.add(bytes_of(memory_root));
    if (images != Digest{}) {
        hasher.add(bytes_of(images));
    }
    return hasher.finish();
}

Digest machine_digest(const Contract& contract, std::span<const Unit> units,
                      const Digest& memory_root, const Digest& images) {
    std::vector<UnitEntry> entries;
    for (const Unit& unit : units) {
        entries.push_back({unit.name, unit.type, unit.bytes.size(), sha256(unit.bytes)});
    }
    return machine_digest(contract, entries, memory_root, images);
}

} // namespace nestor::snapshot
