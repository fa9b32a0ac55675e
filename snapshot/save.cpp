// Saving a machine. Owns: the order of writes (extents, map, units; index; manifest; reference,
// design.md "The snapshot") and that anything that fails before the reference leaves the store as
// it was.
//
// Pages are digested, looked up and compressed in one pass by a few threads, each with buffers of
// its own; what grows with the machine is 40 bytes a page. Nodes of the map follow level by level,
// because a node holds where its children lie.
#include "snapshot/save.hpp"

#include <algorithm>
#include <chrono>

#include <unistd.h>

#include "src/base/check.hpp"

#include "snapshot/parallel.hpp"

namespace nestor::snapshot {

namespace {

using Clock = std::chrono::steady_clock;

constexpr std::size_t extent_payload = 64u << 10;
constexpr u64 leaves_per_chunk = 4;

double ms_since(Clock::time_point& start) {
    const auto now = Clock::now();
    const double ms = std::chrono::duration<double, std::milli>(now - start).count();
    start = now;
    return ms;
}

std::string host_name() {
    char name[256] = {};
    return ::gethostname(name, sizeof(name) - 1) == 0 ? name : "";
}

} // namespace

u64 SaveJob::pack_limit = u64{256} << 20;

struct SaveJob::Worker {
    Finder finder;
    RecordBuilder builder;
};

Result<> SaveJob::check_request() const {
    if (!is_valid_tag(request_.tag)) {
        return fail(ErrorCode::usage, "'" + request_.tag + "' cannot name a snapshot",
                    "use 1 to 100 of A-Z a-z 0-9 . _ -");
    }
    std::set<std::string_view> names;
    for (const Unit& unit : request_.units) {
        if (unit.name.empty() || unit.bytes.size() > max_raw_size) {
            return fail(ErrorCode::usage, "a unit has no name or is larger than 64 MiB");
        }
        if (!names.insert(unit.name).second) {
            return fail(ErrorCode::usage, "two units are called " + unit.name);
        }
    }
    return {};
}

Result<> SaveJob::prepare() {
    remove_leftovers(layout_);
    if (!request_.replace && file_exists(layout_.ref(request_.tag))) {
        return fail(ErrorCode::failed, "there is a snapshot " + request_.tag + " already",
                    "choose another tag or remove that one first");
    }
    Manifest& manifest = placed_.manifest;
    if (!request_.parent.empty()) {
        if (!is_valid_tag(request_.parent) || !file_exists(layout_.ref(request_.parent))) {
            return fail(ErrorCode::failed, "there is no parent snapshot " + request_.parent);
        }
        const auto bytes = TRY(read_file(layout_.ref(request_.parent), 4096));
        const auto reference = TRY(decode_reference(
            {reinterpret_cast<const char*>(bytes.data()), bytes.size()}, request_.parent));
        manifest.parent = reference.manifest;
        manifest.parent_tag = request_.parent;
    }
    manifest.schema_set = request_.schema_set;
    manifest.engine_semantics = request_.engine_semantics;
    manifest.contract = request_.contract;
    manifest.tier = request_.tier;
    manifest.provenance = request_.provenance;
    if (manifest.provenance.created_unix_ns == 0) {
        manifest.provenance.created_unix_ns =
            std::chrono::duration_cast<std::chrono::nanoseconds>(
                std::chrono::system_clock::now().time_since_epoch())
                .count();
    }
    if (manifest.provenance.host.empty()) {
        manifest.provenance.host = host_name();
    }
    index_ = TRY(Index::open(layout_, packs_));
    writer_ = std::make_unique<PackWriter>(layout_.packs(), index_->next_pack_id(), pack_limit);
    trees_ = &(request_.digester != nullptr ? *request_.digester : own_digester_).impl();
    TRY(trees_->attach(request_.regions));
    for (const RegionTree& tree : trees_->regions) {
        locations_.emplace_back(tree.pages);
        leaves_.emplace_back(tree.nodes[1].size());
        report_.pages += tree.pages;
    }
    return {};
}

Result<> SaveJob::save_page(Worker& worker, std::size_t region, u64 page) {
    RegionTree& tree = trees_->regions[region];
    const Digest& digest = tree.nodes[0][page];
    Location& where = locations_[region][page];
    where = TRY(worker.finder.find(RecordKind::pages, digest));
    if (where != Location{} || !items_.claim(digest)) {
        return {};
    }
    const auto bytes = std::as_bytes(std::span(tree.host + (page << page_shift), page_size));
    // Its digest may come from a snapshot whose page the store has lost meanwhile.
    if (request_.digester != nullptr && sha256(bytes) != digest) {
        return fail(ErrorCode::corrupt, "page " +
                                            std::to_string(gfn_of(tree.start).value() + page) +
                                            ": the store has lost it and memory has another");
    }
    new_pages_ += 1;
    return worker.builder.add(digest, bytes, &where, &items_);
}

Result<> SaveJob::save_leaf(Worker& worker, std::size_t region, u64 leaf) {
    RegionTree& tree = trees_->regions[region];
    tree.update_leaf(leaf);
    const Digest& digest = tree.nodes[1][leaf];
    if (digest == zero_digest) {
        return {};
    }
    // A node is written after its children, so where it is, they are; unless a pack was lost. Then
    // nodes are all written anew, with where their children are now.
    if (index_->complete()) {
        leaves_[region][leaf] = TRY(worker.finder.find(RecordKind::nodes, digest));
        if (leaves_[region][leaf] != Location{}) {
            return {};
        }
    }
    const u64 begin = leaf << fanout_shift;
    const u64 end = std::min(begin + fanout, tree.pages);
    for (u64 page = begin; page < end; ++page) {
        if (tree.nodes[0][page] != zero_digest) {
            TRY(save_page(worker, region, page));
        }
    }
    return {};
}

Result<> SaveJob::save_chunk(Worker& worker, std::size_t region, u64 first, u64 last) {
    for (u64 leaf = first; leaf < last; ++leaf) {
        TRY(save_leaf(worker, region, leaf));
    }
    return {};
}

Result<> SaveJob::save_pages() {
    std::vector<std::unique_ptr<Worker>> workers;
    for (unsigned i = 0; i < std::max(1u, request_.threads); ++i) {
        std::unique_ptr<Index::View> view = TRY(index_->view());
        workers.emplace_back(
            new Worker{Finder(std::move(view), packs_),
                       RecordBuilder(RecordKind::pages, extent_payload, *writer_)});
    }
    ProgressMeter meter(request_.progress, report_.pages << page_shift);
    for (std::size_t region = 0; region < trees_->regions.size(); ++region) {
        RegionTree& tree = trees_->regions[region];
        const u64 leaves = tree.dirty.size();
        const u64 chunks = (leaves + leaves_per_chunk - 1) / leaves_per_chunk;
        const auto save_one = [&](unsigned worker, u64 chunk) -> Result<> {
            const u64 first = chunk * leaves_per_chunk;
            const u64 last = std::min(first + leaves_per_chunk, leaves);
            TRY(save_chunk(*workers[worker], region, first, last));
            const u64 end = std::min(last << fanout_shift, tree.pages);
            return meter.add((end - (first << fanout_shift)) << page_shift);
        };
        TRY(parallel_chunks(chunks, static_cast<unsigned>(workers.size()), save_one));
        tree.update_nodes();
        for (const Digest& digest : tree.nodes[0]) {
            report_.zero_pages += digest == zero_digest ? 1 : 0;
        }
    }
    for (const auto& worker : workers) {
        TRY(worker->builder.flush());
    }
    return {};
}

/// `known`, or where this save put the item.
Result<Location> SaveJob::place(const Digest& digest, Location known) {
    if (digest == zero_digest || known != Location{}) {
        return known;
    }
    const Location location = items_.find(digest);
    CHECK(location != Location{});
    return location;
}

Result<> SaveJob::save_level(std::size_t region, unsigned level, Finder& finder,
                             RecordBuilder& builder, std::vector<Location>& below) {
    const RegionTree& tree = trees_->regions[region];
    std::vector<Location> here(tree.nodes[level].size());
    std::vector<std::byte> bytes;
    MapNode node;
    node.level = level;
    for (u64 i = 0; i < here.size(); ++i) {
        const Digest& digest = tree.nodes[level][i];
        if (digest == zero_digest) {
            continue;
        }
        if (level == 1) {
            here[i] = leaves_[region][i];
        } else if (index_->complete()) {
            here[i] = TRY(finder.find(RecordKind::nodes, digest));
        }
        if (here[i] != Location{} || !items_.claim(digest)) {
            continue;
        }
        node.mask = 0;
        const auto children = tree.children(level, i);
        for (u64 c = 0; c < children.size(); ++c) {
            if (children[c] != zero_digest) {
                node.mask |= u64{1} << c;
                node.digests[c] = children[c];
                node.locations[c] = TRY(place(children[c], below[(i << fanout_shift) + c]));
            }
        }
        bytes.clear();
        encode_node(node, bytes);
        TRY(builder.add(digest, bytes, &here[i], &items_));
    }
    TRY(builder.flush());
    below = std::move(here);
    return {};
}

Result<> SaveJob::save_nodes() {
    Finder finder(TRY(index_->view()), packs_);
    RecordBuilder builder(RecordKind::nodes, extent_payload, *writer_);
    for (std::size_t region = 0; region < trees_->regions.size(); ++region) {
        const RegionTree& tree = trees_->regions[region];
        std::vector<Location> below = std::move(locations_[region]);
        for (unsigned level = 1; level <= tree.levels(); ++level) {
            TRY(save_level(region, level, finder, builder, below));
        }
        placed_.region_roots.push_back(TRY(place(tree.root(), below[0])));
    }
    placed_.manifest.regions = trees_->entries();
    placed_.manifest.memory_root = map_root(placed_.manifest.regions);
    return {};
}

Result<> SaveJob::save_units() {
    std::vector<const Unit*> sorted;
    for (const Unit& unit : request_.units) {
        sorted.push_back(&unit);
    }
    std::sort(sorted.begin(), sorted.end(),
              [](const Unit* a, const Unit* b) { return a->name < b->name; });
    RecordBuilder builder(RecordKind::units, 1u << 20, *writer_);
    placed_.units.resize(sorted.size());
    for (std::size_t i = 0; i < sorted.size(); ++i) {
        const Unit& unit = *sorted[i];
        const Digest digest = sha256(unit.bytes);
        placed_.manifest.units.push_back({unit.name, unit.type, unit.bytes.size(), digest});
        if (!unit.bytes.empty()) {
            TRY(builder.add(digest, unit.bytes, &placed_.units[i], nullptr));
        }
    }
    TRY(builder.flush());
    placed_.manifest.machine_digest = machine_digest(
        placed_.manifest.contract, placed_.manifest.units, placed_.manifest.memory_root);
    return {};
}

Result<> SaveJob::write_reference() {
    const std::string text = encode_reference({request_.tag, placed_.manifest.digest});
    const auto bytes = std::as_bytes(std::span(text));
    Result<> written = replace_file(layout_.refs(), request_.tag, bytes);
    if (!written) {
        // It may be in place although not known to be on disk; then what it names must stay.
        const auto there = read_file(layout_.ref(request_.tag), 4096);
        if (!there || !std::equal(there->begin(), there->end(), bytes.begin(), bytes.end())) {
            ::unlink(layout_.manifest(placed_.manifest.digest).c_str());
        }
    }
    return written;
}

Result<> SaveJob::commit() {
    auto start = Clock::now();
    TRY(writer_->seal());
    report_.sync_ms = ms_since(start);
    std::vector<u32> ids;
    for (const auto& pack : writer_->sealed()) {
        ids.push_back(pack.id);
    }
    auto entries = items_.entries();
    TRY(index_->commit(entries, ids));
    // From here on the packs are the store's: if the reference fails, the next save uses them.
    writer_->keep();
    report_.index_bytes = index_->file_size();
    report_.index_ms += ms_since(start);
    const auto bytes = encode_manifest(placed_);
    TRY(replace_file(layout_.manifests(), to_hex(placed_.manifest.digest), bytes));
    TRY(write_reference());
    report_.commit_ms = ms_since(start);
    return {};
}

Result<SaveReport> SaveJob::run() {
    TRY(check_request());
    const WriterLock lock = TRY(WriterLock::take(layout_, request_.wait_for_writer));
    auto start = Clock::now();
    const auto begin = start;
    TRY(prepare());
    report_.index_ms = ms_since(start);
    TRY(save_pages());
    report_.pages_ms = ms_since(start);
    TRY(save_nodes());
    TRY(save_units());
    report_.map_ms = ms_since(start);
    TRY(commit());
    report_.total_ms = std::chrono::duration<double, std::milli>(Clock::now() - begin).count();
    report_.manifest = placed_.manifest.digest;
    report_.machine_digest = placed_.manifest.machine_digest;
    report_.memory_root = placed_.manifest.memory_root;
    report_.new_pages = new_pages_;
    report_.bytes_written = writer_->bytes_written();
    return report_;
}

} // namespace nestor::snapshot
