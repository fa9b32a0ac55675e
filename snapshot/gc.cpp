// gc: mark from references and leases, then remove packs that nothing refers to and rewrite those
// that are mostly dead. Owns: that what is referred to is on disk at every moment.
//
// A rewritten pack keeps its id and record numbers, so no reference to it changes and the file is
// replaced by one rename; readers with the old file open go on in it. Order: manifests without a
// reference, packs without a living item, rewritten packs, index. Every step leaves a sound store.
// Removing comes first because it needs no room, so a full disk can be collected. What the index
// still says of things that are gone is found out by whoever asks it, and costs nothing but room.
//
// Between packs the writer lock is let go for a moment, so saves go on; what they saved is marked
// before the next pack is touched.
#include "snapshot/gc.hpp"

#include <algorithm>
#include <cerrno>
#include <thread>

#include <sys/statvfs.h>
#include <unistd.h>

#include "snapshot/format.hpp"
#include "snapshot/items.hpp"

namespace nestor::snapshot {

namespace {

/// A pack is rewritten when less than this part of it is alive.
constexpr double rewrite_below = 0.8;
constexpr std::chrono::milliseconds longest_hold{300};
constexpr std::chrono::milliseconds pause{12}; // longer than a waiting writer sleeps
constexpr std::chrono::milliseconds longest_wait{120'000};

u64 free_bytes(const std::string& path) {
    struct statvfs info{};
    return ::statvfs(path.c_str(), &info) == 0 ? u64{info.f_bavail} * info.f_frsize : ~u64{0};
}

double ms_since(std::chrono::steady_clock::time_point start) {
    return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start)
        .count();
}

Result<> remove_file(const std::string& path) {
    if (::unlink(path.c_str()) != 0 && errno != ENOENT) {
        return fail_errno("removing " + path, errno);
    }
    return {};
}

} // namespace

Result<> GcJob::begin() {
    held_since_ = Clock::now();
    remove_leftovers(layout_);
    store_.packs->refresh();
    return marker_.mark();
}

/// Holds the lock no longer than a save is willing to wait.
Result<> GcJob::let_others_write() {
    if (Clock::now() - held_since_ < longest_hold) {
        return {};
    }
    lock_.reset();
    std::this_thread::sleep_for(pause);
    lock_.emplace(TRY(store_.begin_write(longest_wait)));
    return begin();
}

Result<> GcJob::progress(u64 bytes) {
    done_ += bytes;
    if (options_.progress && !options_.progress(std::min(done_, total_), total_)) {
        return fail(ErrorCode::failed, "interrupted", "run it again to go on");
    }
    return {};
}

Result<> GcJob::remove_manifests() {
    for (const std::string& directory : {layout_.manifests(), layout_.orders(), layout_.claims()}) {
        bool changed = false;
        for (const std::string& name : TRY(list_directory(directory))) {
            const auto digest = digest_from_hex(name);
            if (!digest || marker_.manifests().contains(*digest)) {
                continue;
            }
            report_.manifests_removed += directory == layout_.manifests() ? 1 : 0;
            if (!options_.dry_run) {
                TRY(remove_file(directory + "/" + name));
                changed = true;
            }
        }
        if (changed) {
            TRY(sync_directory(directory));
        }
    }
    return {};
}

GcJob::Survey GcJob::survey(u32 id) {
    Survey found{id, 0, 0, false};
    const auto pack = Pack::open(store_.packs->path(id), id);
    if (!pack) {
        found.damaged = true; // fsck has more to say; nothing that is alive lies in it
        return found;
    }
    found.bytes = (*pack)->file_size();
    for (u32 record = 0; record < (*pack)->records(); ++record) {
        const u64 size = (*pack)->record_size(record);
        if (size == 0 || !marker_.live().has_record(Location(id, record, 0))) {
            continue;
        }
        if (!(*pack)->read_items(record, buffer_)) {
            found.damaged = true;
            found.live += size;
            continue;
        }
        const auto shares = shares_of_items(buffer_.items(), size);
        for (u32 slot = 0; slot < buffer_.count(); ++slot) {
            found.live += marker_.live().has(Location(id, record, slot)) ? shares[slot] : 0;
        }
    }
    return found;
}

Result<> GcJob::remove_pack(const Survey& pack) {
    report_.packs_removed += 1;
    report_.bytes_after -= pack.bytes;
    return options_.dry_run ? Result<>{} : remove_file(store_.packs->path(pack.id));
}

Result<> GcJob::rewrite_record(const Pack& pack, u32 id, u32 record, PackFile& file) {
    if (pack.record_size(record) == 0 || !marker_.live().has_record(Location(id, record, 0))) {
        file.skip();
        return {};
    }
    std::vector<Item> items;
    std::vector<std::byte> raw;
    bool whole = true;
    bool sound = pack.read_sealed(record, buffer_).has_value();
    for (u32 slot = 0; sound && slot < buffer_.count(); ++slot) {
        const Item& item = buffer_.items()[slot];
        if (!marker_.live().has(Location(id, record, slot))) {
            whole = whole && item.size == 0;
            items.push_back({});
            continue;
        }
        const auto bytes = buffer_.item(slot);
        // A node's digest does not cover where its children lie; the seal did.
        sound = buffer_.kind() == RecordKind::nodes || sha256(bytes) == item.digest;
        items.push_back(item);
        raw.insert(raw.end(), bytes.begin(), bytes.end());
    }
    if (whole || !sound || raw.empty()) {
        return file.append(TRY(pack.raw_record(record))); // damage is kept for fsck to see
    }
    return file.append(TRY(encoder_.encode(buffer_.kind(), items, raw)));
}

/// The size of the new file.
Result<u64> GcJob::rewrite(u32 id) {
    const auto pack = TRY(Pack::open(store_.packs->path(id), id));
    PackFile file = TRY(PackFile::create(layout_.packs(), id, Sync::yes));
    for (u32 record = 0; record < pack->records(); ++record) {
        TRY(rewrite_record(*pack, id, record, file));
    }
    TRY(file.finish());
    return file.size();
}

Result<> GcJob::shrink(const Survey& pack) {
    if (options_.dry_run) {
        report_.packs_rewritten += 1;
        report_.bytes_after -= pack.bytes - pack.live;
        return {};
    }
    const auto after = rewrite(pack.id);
    if (!after) {
        if (free_bytes(layout_.root) > pack.live + (u64{1} << 20)) {
            return Failure(after.error());
        }
        report_.packs_without_room += 1;
        return {};
    }
    report_.packs_rewritten += 1;
    report_.bytes_after -= pack.bytes - std::min(pack.bytes, *after);
    return {};
}

Result<> GcJob::sweep() {
    std::vector<Survey> shrinkable;
    for (const u32 id : TRY(store_.packs->ids())) {
        TRY(let_others_write());
        const Survey pack = survey(id);
        report_.bytes_before += pack.bytes;
        report_.bytes_after += pack.bytes;
        if (pack.live == 0 && !pack.damaged) {
            TRY(remove_pack(pack));
        } else if (!pack.damaged && static_cast<double>(pack.live) <
                                        rewrite_below * static_cast<double>(pack.bytes)) {
            shrinkable.push_back(pack);
        }
        report_.live_bytes += pack.live;
        TRY(progress(pack.bytes));
    }
    // The smallest first: each makes room for the next.
    std::sort(shrinkable.begin(), shrinkable.end(),
              [](const Survey& a, const Survey& b) { return a.live < b.live; });
    for (const Survey& pack : shrinkable) {
        TRY(let_others_write());
        TRY(shrink(pack));
        TRY(progress(0));
    }
    return options_.dry_run ? Result<>{} : sync_directory(layout_.packs());
}

/// Takes entries out of the index that lead nowhere. It is a hint, so where there is no room for
/// that it goes as a whole and the next save makes it again.
Result<> GcJob::prune_index() {
    store_.packs->refresh();
    auto index = Index::open(layout_, *store_.packs);
    const auto prune = [&]() -> Result<> {
        std::vector<u32> gone;
        const auto existing = TRY(store_.packs->ids());
        for (const u32 id : TRY((*index)->indexed_packs())) {
            if (!std::binary_search(existing.begin(), existing.end(), id)) {
                gone.push_back(id);
            }
        }
        ItemLists lists(*store_.packs);
        return (*index)->prune(
            [&](u64 key, Location location) {
                return marker_.live().has(location) || lists.holds(location, key);
            },
            gone);
    };
    const Result<> pruned = index ? prune() : Failure(index.error());
    if (!pruned) {
        index = Failure(Error{}); // closes it
        return Index::remove(layout_);
    }
    return {};
}

Result<GcReport> GcJob::run() {
    const auto start = Clock::now();
    lock_.emplace(TRY(store_.begin_write(options_.wait_for_writer)));
    TRY(begin());
    report_.mark_ms = ms_since(start);
    for (const u32 id : TRY(store_.packs->ids())) {
        const auto pack = store_.packs->get(id);
        total_ += pack ? (*pack)->file_size() : 0;
    }
    TRY(remove_manifests());
    TRY(sweep());
    if (!options_.dry_run) {
        TRY(prune_index());
    }
    report_.snapshots = marker_.snapshots();
    report_.leased = marker_.leased();
    report_.total_ms = ms_since(start);
    return report_;
}

Result<GcReport> Store::gc(const GcOptions& options) { return GcJob(*impl_, options).run(); }

} // namespace nestor::snapshot
