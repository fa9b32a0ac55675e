// The store as its users see it: opening, finding references, and the verbs that need no thread.
// Readers come in here without any lock: files are replaced whole, packs are never changed.
#include "snapshot/store.hpp"

#include <sys/stat.h>

#include "src/base/log.hpp"

#include "snapshot/claims.hpp"
#include "snapshot/deferred.hpp"
#include "snapshot/save.hpp"

namespace nestor::snapshot {

namespace {

constexpr std::chrono::milliseconds recovery_patience{5000};

u64 size_of(const std::string& path) {
    struct stat info{};
    return ::stat(path.c_str(), &info) == 0 ? static_cast<u64>(info.st_size) : 0;
}

} // namespace

Result<PlacedManifest> Store::Impl::manifest(const Digest& digest) const {
    const std::string path = layout.manifest(digest);
    if (!file_exists(path)) {
        return fail(ErrorCode::corrupt, path + ": this manifest is missing");
    }
    const auto bytes = TRY(read_file(path, max_manifest_file));
    return decode_manifest(bytes, digest);
}

Result<std::shared_ptr<const SnapshotData>> Store::Impl::load(std::string_view tag) const {
    Reference found = TRY(read_reference(layout, tag));
    auto data = std::make_shared<SnapshotData>();
    // Once the lease is there and the tag still says so, gc keeps the manifest and all below it.
    while (true) {
        data->lease = Lease::take(layout, found.manifest);
        const Reference again = TRY(read_reference(layout, tag));
        if (again.manifest == found.manifest) {
            break;
        }
        found = again;
    }
    const std::string context = "snapshot " + std::string(tag);
    data->tag = tag;
    data->store = store_identity(layout);
    data->order = layout.order(found.manifest);
    data->packs = packs;
    data->placed = TRY(manifest(found.manifest), context);
    data->units = TRY(read_units(data->placed, *packs), context);
    return std::shared_ptr<const SnapshotData>(std::move(data));
}

Store::Store(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Store::~Store() = default;
Store::Store(Store&&) noexcept = default;
Store& Store::operator=(Store&&) noexcept = default;

const std::string& Store::directory() const { return impl_->layout.root; }

Result<Store> Store::open(std::string directory, Mode mode) {
    auto impl = std::make_unique<Impl>(std::move(directory));
    const Layout& layout = impl->layout;
    if (!file_exists(layout.store_file())) {
        if (mode == Mode::existing) {
            return fail(ErrorCode::failed, layout.root + " is not a snapshot store",
                        "vm store init --store " + layout.root + " makes one");
        }
        TRY(make_store(layout), "making the store " + layout.root);
    }
    TRY(check_store_file(layout));
    if (needs_recovery(layout)) {
        // Reading does without: what is not known to be whole is not shown.
        const auto recovered = impl->begin_deferred_write(recovery_patience);
        if (!recovered) {
            nestor::log(LogLevel::warning, recovered.error().message);
        }
    }
    return Store(std::move(impl));
}

Result<SaveReport> Store::save(const SaveRequest& request) {
    return SaveJob(*impl_, request).run();
}

Result<Snapshot> Store::load(std::string_view tag) const { return Snapshot(TRY(impl_->load(tag))); }

bool Store::has(std::string_view tag) const { return tag_exists(impl_->layout, tag); }

Result<std::vector<ListEntry>> Store::list() const {
    std::vector<ListEntry> entries;
    const bool deferred = deferred_counts(impl_->layout);
    for (const std::string& tag : TRY(list_tags(impl_->layout))) {
        ListEntry entry;
        entry.tag = tag;
        entry.deferred = deferred && file_exists(impl_->layout.deferred(tag));
        const auto read = [&]() -> Result<Manifest> {
            const Reference reference = TRY(read_reference(impl_->layout, tag));
            return TRY(impl_->manifest(reference.manifest)).manifest;
        };
        auto manifest = read();
        if (manifest) {
            entry.claim = TRY(read_claim(impl_->layout, manifest->digest));
            entry.manifest = std::move(*manifest);
        } else {
            entry.error = manifest.error();
        }
        entries.push_back(std::move(entry));
    }
    return entries;
}

Result<StoreStat> Store::stat() const {
    const Layout& layout = impl_->layout;
    StoreStat stat;
    for (const ListEntry& entry : TRY(list())) {
        stat.snapshots += 1;
        if (entry.manifest) {
            for (const RegionEntry& region : entry.manifest->regions) {
                stat.logical_bytes += region.size;
            }
        }
    }
    stat.index_bytes = size_of(layout.index());
    for (const std::string& name : TRY(list_directory(layout.manifests()))) {
        stat.manifest_bytes += size_of(layout.manifests() + "/" + name);
    }
    RecordBuffer buffer;
    for (const u32 id : TRY(impl_->packs->ids())) {
        const auto pack = TRY(impl_->packs->get(id));
        stat.packs += 1;
        stat.pack_bytes += pack->file_size();
        for (u32 record = 0; record < pack->records(); ++record) {
            if (pack->record_size(record) == 0) {
                continue;
            }
            TRY(pack->read_items(record, buffer));
            stat.extents += buffer.kind() == RecordKind::pages ? 1 : 0;
            stat.pages += buffer.kind() == RecordKind::pages ? buffer.count() : 0;
            stat.map_nodes += buffer.kind() == RecordKind::nodes ? buffer.count() : 0;
        }
    }
    return stat;
}

} // namespace nestor::snapshot
