// The pages of a save. Owns: which pages are looked at, digested, looked up, compressed and
// written, in one pass by a few threads with buffers of their own.
//
// A leaf of 64 pages that is as it was in the base costs nothing. Of a changed one, pages that were
// in the base are where its leaf says; the others are looked up by digest, and what the store does
// not have is written. A leaf that some other snapshot left in the store is used again only when
// each of its pages is found where it says, so what gc has taken away is never referred to.
#include "snapshot/save.hpp"

#include <bit>

#include "snapshot/parallel.hpp"

namespace nestor::snapshot {

namespace {

constexpr std::size_t extent_payload = 64u << 10;
constexpr u64 leaves_per_chunk = 4;
constexpr std::size_t page_cached_records = 4;

} // namespace

struct SaveJob::Worker {
    Finder finder;
    RecordBuilder builder;
    RecordCache nodes;
    MapNode node;
    std::array<const u8*, fanout> bytes{}; ///< pages of the leaf under way; null: not loaded
    std::vector<std::byte> buffer;         ///< what `bytes` points to, with a PageSource
};

Result<> SaveJob::load_page(Worker& worker, const RegionTree& tree, u64 page) {
    const u64 slot = page & (fanout - 1);
    if (worker.bytes[slot] != nullptr) {
        return {};
    }
    if (request_.source == nullptr || tree.image) {
        worker.bytes[slot] = tree.host + (page << page_shift);
        return {};
    }
    worker.buffer.resize(fanout << page_shift);
    const auto into = std::span(worker.buffer).subspan(slot << page_shift).first<page_size>();
    TRY(request_.source->read(tree.page(page), into));
    worker.bytes[slot] = reinterpret_cast<const u8*>(into.data());
    return {};
}

/// `read`: its digest was made from its bytes just now.
Result<> SaveJob::save_page(Worker& worker, std::size_t at, u64 page, bool read) {
    const RegionTree& tree = *all_[at];
    const Digest& digest = tree.nodes[0][page];
    Location& where = (*places_[at][page >> fanout_shift])[page & (fanout - 1)];
    if (where != Location{}) {
        return {};
    }
    where = TRY(worker.finder.find(RecordKind::pages, digest));
    if (where != Location{} || !items_.claim(digest)) {
        return {};
    }
    TRY(load_page(worker, tree, page));
    const auto bytes = std::as_bytes(std::span(worker.bytes[page & (fanout - 1)], page_size));
    // An older digest may be of a page that the store has lost and memory has not.
    if (!read && sha256(bytes) != digest) {
        return fail(ErrorCode::corrupt, "page " + std::to_string(tree.page(page).value()) +
                                            ": the store has lost it and memory has another");
    }
    (tree.image ? new_image_pages_ : new_pages_) += 1;
    return worker.builder.add(digest, bytes, &where, &items_);
}

/// Fills in the pages that are as in the base.
Result<> SaveJob::places_in_base(Worker& worker, const RegionTree& tree, u64 leaf,
                                 LeafPlaces& places) {
    const Location location = has_base(tree) ? tree.where[1][leaf] : Location{};
    if (location == Location{}) {
        return {};
    }
    const auto bytes = worker.nodes.item(location);
    if (!bytes || !parse_node(*bytes, 1, fanout, worker.node)) {
        return {}; // damaged: its pages are looked up one by one
    }
    const auto now = tree.children(1, leaf);
    for (std::size_t i = 0; i < now.size(); ++i) {
        // Compared with the pack's list: a location in a damaged node must not be passed on.
        if (now[i] != zero_digest && worker.node.digests[i] == now[i] &&
            worker.finder.holds(RecordKind::pages, worker.node.locations[i], now[i])) {
            places[i] = worker.node.locations[i];
        }
    }
    return {};
}

/// The leaf in the store that has this digest and whose pages are all there, or zero.
Result<Location> SaveJob::stored_leaf(Worker& worker, const RegionTree& tree, u64 leaf) {
    const Digest& digest = tree.nodes[1][leaf];
    const Location location = TRY(worker.finder.find(RecordKind::nodes, digest));
    if (location == Location{} ||
        !read_node(worker.nodes, location, digest, tree.pages, 1, leaf, worker.node)) {
        return Location{};
    }
    for (u64 left = worker.node.mask; left != 0; left &= left - 1) {
        const auto i = static_cast<std::size_t>(std::countr_zero(left));
        if (!worker.finder.holds(RecordKind::pages, worker.node.locations[i],
                                 worker.node.digests[i])) {
            return Location{};
        }
    }
    return location;
}

Result<> SaveJob::save_leaf(Worker& worker, std::size_t at, u64 leaf) {
    RegionTree& tree = *all_[at];
    const u64 first = leaf << fanout_shift;
    const u64 dirty = tree.dirty[leaf];
    worker.bytes.fill(nullptr);
    for (u64 left = dirty; left != 0; left &= left - 1) {
        TRY(load_page(worker, tree, first + static_cast<u64>(std::countr_zero(left))));
    }
    if (dirty != 0) {
        tree.update_leaf(leaf, worker.bytes);
        dirty_pages_ += tree.image ? 0 : static_cast<u64>(std::popcount(dirty));
    }
    Location& where = nodes_[at][1][leaf];
    if (tree.nodes[1][leaf] == zero_digest) {
        return {};
    }
    if (has_base(tree) && tree.differs[leaf] == 0 && tree.where[1][leaf] != Location{}) {
        where = tree.where[1][leaf];
        return {};
    }
    where = TRY(stored_leaf(worker, tree, leaf));
    if (where != Location{}) {
        return {};
    }
    places_[at][leaf] = std::make_unique<LeafPlaces>();
    TRY(places_in_base(worker, tree, leaf, *places_[at][leaf]));
    const u64 end = std::min(first + fanout, tree.pages);
    for (u64 page = first; page < end; ++page) {
        if (tree.nodes[0][page] != zero_digest) {
            TRY(save_page(worker, at, page, (dirty >> (page - first) & 1) != 0));
        }
    }
    return {};
}

Result<> SaveJob::save_chunk(Worker& worker, std::size_t at, u64 first, u64 last) {
    const RegionTree& tree = *all_[at];
    for (u64 leaf = first; leaf < last; ++leaf) {
        TRY(save_leaf(worker, at, leaf));
    }
    if (request_.source != nullptr && !tree.image) {
        const u64 begin = first << fanout_shift;
        const u64 end = std::min(last << fanout_shift, tree.pages);
        request_.source->passed(tree.page(begin), end - begin);
    }
    return {};
}

Result<> SaveJob::save_pages() {
    std::vector<std::unique_ptr<Worker>> workers;
    for (unsigned i = 0; i < std::max(1u, request_.threads); ++i) {
        std::unique_ptr<Index::View> view = TRY(index_->view());
        workers.emplace_back(
            new Worker{.finder = Finder(std::move(view), packs_),
                       .builder = RecordBuilder(RecordKind::pages, extent_payload, *writer_),
                       .nodes = RecordCache(packs_, RecordKind::nodes, page_cached_records),
                       .node = {},
                       .buffer = {}});
    }
    u64 total = 0;
    for (const RegionTree* const tree : all_) {
        total += tree->pages << page_shift;
    }
    ProgressMeter meter(request_.progress, total);
    for (std::size_t at = 0; at < all_.size(); ++at) {
        RegionTree& tree = *all_[at];
        const u64 leaves = tree.dirty.size();
        const u64 chunks = (leaves + leaves_per_chunk - 1) / leaves_per_chunk;
        const auto save_one = [&](unsigned worker, u64 chunk) -> Result<> {
            const u64 first = chunk * leaves_per_chunk;
            const u64 last = std::min(first + leaves_per_chunk, leaves);
            TRY(save_chunk(*workers[worker], at, first, last));
            const u64 end = std::min(last << fanout_shift, tree.pages);
            return meter.add((end - (first << fanout_shift)) << page_shift);
        };
        const Result<> saved =
            parallel_chunks(chunks, static_cast<unsigned>(workers.size()), save_one);
        tree.update_nodes(); // also when it failed: the leaves that were digested are
        TRY(saved);
        for (u64 leaf = 0; leaf < leaves && !tree.image; ++leaf) {
            const auto pages = tree.children(1, leaf);
            report_.zero_pages +=
                tree.nodes[1][leaf] == zero_digest
                    ? pages.size()
                    : static_cast<u64>(std::count(pages.begin(), pages.end(), zero_digest));
        }
    }
    for (const auto& worker : workers) {
        TRY(worker->builder.flush());
    }
    report_.new_pages = new_pages_;
    report_.new_image_pages = new_image_pages_;
    report_.dirty_pages = dirty_pages_;
    return {};
}

} // namespace nestor::snapshot
