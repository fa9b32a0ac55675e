// What a writer does before it writes: it takes the lock, and where the host went down with
// deferred saves not on disk, it finds out which of them survived. Owns: that nothing which may be
// torn is referred to or built upon: the index, which was not synced, is made again; packs and
// snapshots that do not verify in full go.
#include <algorithm>
#include <cerrno>

#include <unistd.h>

#include "src/base/log.hpp"

#include "snapshot/deferred.hpp"
#include "snapshot/index.hpp"
#include "snapshot/store.hpp"

namespace nestor::snapshot {

namespace {

Result<> remove_file(const std::string& path) {
    if (::unlink(path.c_str()) != 0 && errno != ENOENT) {
        return fail_errno("removing " + path, errno);
    }
    return {};
}

/// Everything below a deferred reference, compared with its digests.
Result<> verify_deferred(const Store::Impl& store, const std::string& tag) {
    const Layout& layout = store.layout;
    const auto bytes = TRY(read_file(layout.deferred(tag), max_text_file));
    const Reference reference =
        TRY(decode_reference({reinterpret_cast<const char*>(bytes.data()), bytes.size()}, tag));
    SnapshotData data;
    data.tag = tag;
    data.packs = store.packs;
    data.placed = TRY(store.manifest(reference.manifest));
    TRY(read_units(data.placed, *data.packs));
    return verify_maps(data, 2, {});
}

/// Manifests that came into their place before their bytes did. One that a reference names was on
/// disk, so if it is damaged now, that is for fsck to say.
Result<> remove_torn_manifests(const Store::Impl& store) {
    const Layout& layout = store.layout;
    const std::vector<Digest> named = TRY(named_manifests(layout));
    for (const std::string& name : TRY(list_directory(layout.manifests()))) {
        const auto digest = digest_from_hex(name);
        if (digest && !std::binary_search(named.begin(), named.end(), *digest) &&
            !store.manifest(*digest)) {
            TRY(remove_file(layout.manifest(*digest)));
        }
    }
    return {};
}

Result<> verify_pack(const Packs& packs, u32 id) {
    const auto pack = TRY(Pack::open(packs.path(id), id));
    RecordBuffer buffer;
    for (u32 record = 0; record < pack->records(); ++record) {
        if (pack->record_size(record) != 0) {
            TRY(pack->read_sealed(record, buffer));
        }
    }
    return {};
}

/// What a newer version saved without waiting for the disk cannot be verified here, and must not go
/// for that.
Result<> nothing_newer(const Store::Impl& store) {
    const std::vector<Digest> named = TRY(named_manifests(store.layout));
    for (const std::string& name : TRY(list_directory(store.layout.manifests()))) {
        const auto digest = digest_from_hex(name);
        if (!digest || std::binary_search(named.begin(), named.end(), *digest)) {
            continue;
        }
        const auto manifest = store.manifest(*digest);
        if (!manifest && manifest.error().code == ErrorCode::incompatible) {
            return Failure(with_context(manifest.error(), store.layout.manifest(*digest)));
        }
    }
    return {};
}

} // namespace

Result<> Store::Impl::recover() const {
    TRY(nothing_newer(*this));
    packs->refresh();
    TRY(Index::remove(layout));
    const u32 first = first_unsynced_pack(layout);
    for (const u32 id : TRY(packs->ids())) {
        if (id < first) {
            continue;
        }
        if (const Result<> verified = verify_pack(*packs, id); !verified) {
            if (verified.error().code == ErrorCode::incompatible) {
                return Failure(verified.error());
            }
            TRY(remove_file(packs->path(id)));
        }
    }
    packs->refresh();
    for (const std::string& tag : TRY(list_directory(layout.deferred()))) {
        const Result<> verified = verify_deferred(*this, tag);
        if (!verified) {
            nestor::log(LogLevel::warning,
                        "snapshot " + tag +
                            " was saved with deferred durability and lost when the host "
                            "went down: " +
                            verified.error().message);
            TRY(remove_file(layout.deferred(tag)));
        }
    }
    TRY(remove_torn_manifests(*this));
    return settle(layout, *packs);
}

Result<WriterLock> Store::Impl::begin_deferred_write(std::chrono::milliseconds wait) const {
    WriterLock lock = TRY(WriterLock::take(layout, wait));
    TRY(make_directories(layout));
    if (needs_recovery(layout)) {
        TRY(recover(), "looking what the last crash of the host has left");
    }
    return lock;
}

Result<WriterLock> Store::Impl::begin_write(std::chrono::milliseconds wait) const {
    WriterLock lock = TRY(begin_deferred_write(wait));
    TRY(settle(layout, *packs), "putting deferred snapshots on disk");
    return lock;
}

Result<> Store::sync() {
    const WriterLock lock = TRY(impl_->begin_write(std::chrono::seconds(5)));
    return {};
}

} // namespace nestor::snapshot
