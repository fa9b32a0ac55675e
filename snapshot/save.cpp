// Saving a machine. Owns: the order of writes (extents, map, units; index; manifest; reference,
// DESIGN.md, rule 8) and that anything that fails before the reference leaves the store as it was.
// Pages are in save_pages.cpp, the map above them in save_map.cpp.
//
// A digester that was saved here before makes its snapshot the base: what it has not seen changing
// is where the base has it. A lease keeps the base whole, so this needs no tag and no second look.
#include "snapshot/save.hpp"

#include <algorithm>

#include <unistd.h>

#include "snapshot/deferred.hpp"

namespace nestor::snapshot {

namespace {

constexpr std::size_t unit_payload = 1u << 20;

double ms_since(std::chrono::steady_clock::time_point& start) {
    const auto now = std::chrono::steady_clock::now();
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

/// Records the parent, whatever the base is.
Result<> SaveJob::find_parent() {
    Manifest& manifest = placed_.manifest;
    if (request_.parent.empty() || request_.parent == "none") {
        return {};
    }
    if (request_.parent != "auto") {
        const auto reference = read_reference(layout_, request_.parent);
        if (!reference) {
            return Failure(with_context(reference.error(), "parent"));
        }
        manifest.parent = reference->manifest;
        manifest.parent_tag = request_.parent;
        return {};
    }
    if (!trees_->base || trees_->base->store != store_identity(layout_)) {
        return {};
    }
    for (const std::string& tag : TRY(list_tags(layout_))) {
        const auto reference = read_reference(layout_, tag);
        if (reference && reference->manifest == trees_->base->manifest) {
            manifest.parent = reference->manifest;
            manifest.parent_tag = tag;
            return {};
        }
    }
    return {};
}

/// The base counts while its lease does, and while no pack was lost.
void SaveJob::find_base() {
    const auto& base = trees_->base;
    base_ = base && base->store == store_identity(layout_) && base->lease != nullptr &&
            base->lease->valid() && index_->complete();
    for (const RegionTree& tree : trees_->regions) {
        base_ = base_ && !tree.where.empty();
    }
}

Result<> SaveJob::prepare() {
    remove_leftovers(layout_);
    packs_.refresh();
    if (!request_.replace && tag_exists(layout_, request_.tag)) {
        return fail(ErrorCode::failed, "there is a snapshot " + request_.tag + " already",
                    "choose another tag or remove that one first");
    }
    trees_ = &(request_.digester != nullptr ? *request_.digester : own_digester_).impl();
    TRY(trees_->attach(request_.regions));
    TRY(find_parent());
    Manifest& manifest = placed_.manifest;
    manifest.schema_set = request_.schema_set;
    manifest.engine_semantics = request_.engine_semantics;
    manifest.contract = request_.contract;
    manifest.tier = request_.tier;
    manifest.clone_forbidden = request_.clone_forbidden;
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
    if (sync_ == Sync::no) {
        const auto ids = TRY(packs_.ids());
        TRY(begin_deferred(layout_, ids.empty() ? 1 : ids.back() + 1));
    }
    const auto& base = trees_->base;
    index_ = TRY(
        Index::open(layout_, packs_, sync_,
                    base && base->store == store_identity(layout_) ? base->index : std::nullopt));
    writer_ =
        std::make_unique<PackWriter>(layout_.packs(), index_->next_pack_id(), pack_limit, sync_);
    find_base();
    for (RegionTree& tree : trees_->regions) {
        add_tree(tree);
        report_.pages += tree.pages;
    }
    return prepare_images();
}

void SaveJob::add_tree(RegionTree& tree) {
    all_.push_back(&tree);
    places_.emplace_back(tree.dirty.size());
    auto& levels = nodes_.emplace_back();
    levels.emplace_back();
    for (unsigned level = 1; level <= tree.levels(); ++level) {
        levels.emplace_back(tree.nodes[level].size());
    }
}

Result<> SaveJob::save_units() {
    std::vector<const Unit*> sorted;
    for (const Unit& unit : request_.units) {
        sorted.push_back(&unit);
    }
    std::sort(sorted.begin(), sorted.end(),
              [](const Unit* a, const Unit* b) { return a->name < b->name; });
    RecordBuilder builder(RecordKind::units, unit_payload, *writer_);
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
    placed_.manifest.machine_digest =
        machine_digest(placed_.manifest.contract, placed_.manifest.units,
                       placed_.manifest.memory_root, images_digest(placed_.manifest.images));
    return {};
}

Result<> SaveJob::put_reference() {
    const Digest& digest = placed_.manifest.digest;
    Result<> written = write_reference(layout_, {request_.tag, digest}, sync_);
    if (!written) {
        // It may be in place although not known to be on disk; then what it names must stay.
        const auto there = read_reference(layout_, request_.tag);
        if (!there || there->manifest != digest) {
            ::unlink(layout_.manifest(digest).c_str());
        }
    }
    return written;
}

Result<> SaveJob::commit() {
    auto start = Clock::now();
    TRY(writer_->seal());
    report_.sync_ms = ms_since(start);
    auto entries = items_.entries();
    TRY(index_->commit(entries, writer_->sealed()));
    // From here on the packs are the store's: if the reference fails, the next save uses them.
    writer_->keep();
    report_.index_bytes = index_->file_size();
    report_.index_ms += ms_since(start);
    placed_.manifest.provenance.save_ns = static_cast<u64>(
        std::chrono::duration_cast<std::chrono::nanoseconds>(start - begin_).count());
    const auto bytes = encode_manifest(placed_);
    TRY(replace_file(layout_.manifests(), to_hex(placed_.manifest.digest), bytes, sync_));
    TRY(put_reference());
    report_.commit_ms = ms_since(start);
    return {};
}

/// The digester's trees are those of this snapshot now.
void SaveJob::become_base() {
    const auto lease = request_.digester != nullptr || request_.images != nullptr
                           ? Lease::take(layout_, placed_.manifest.digest)
                           : nullptr;
    images_are_home(lease);
    if (request_.digester == nullptr) {
        return;
    }
    trees_->base = Base{store_identity(layout_), placed_.manifest.digest, lease,
                        state_of_file(layout_.index())};
    for (std::size_t i = 0; i < trees_->regions.size(); ++i) {
        RegionTree& tree = trees_->regions[i];
        tree.where = std::move(nodes_[i]);
        tree.differs.assign(tree.differs.size(), 0);
    }
}

Result<SaveReport> SaveJob::run() {
    TRY(check_request());
    const WriterLock lock =
        TRY(sync_ == Sync::yes ? store_.begin_write(request_.wait_for_writer)
                               : store_.begin_deferred_write(request_.wait_for_writer));
    auto start = Clock::now();
    begin_ = start;
    TRY(prepare());
    report_.index_ms = ms_since(start);
    TRY(save_pages());
    report_.pages_ms = ms_since(start);
    TRY(save_nodes());
    TRY(save_units());
    report_.map_ms = ms_since(start);
    TRY(commit());
    become_base();
    report_.total_ms = std::chrono::duration<double, std::milli>(Clock::now() - begin_).count();
    report_.manifest = placed_.manifest.digest;
    report_.machine_digest = placed_.manifest.machine_digest;
    report_.memory_root = placed_.manifest.memory_root;
    report_.parent = placed_.manifest.parent_tag;
    report_.bytes_written = writer_->bytes_written();
    return report_;
}

} // namespace nestor::snapshot
