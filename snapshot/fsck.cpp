// Reads all of a store and compares all of it with its digests. Owns: the list of what can be
// wrong, and which snapshots cannot be restored because of it. Packs are read once however many
// snapshots share them; snapshots are then walked from the reference down, each shared subtree
// once.
#include "snapshot/fsck.hpp"

#include <algorithm>

#include <unistd.h>

#include "snapshot/claims.hpp"
#include "snapshot/touch_order.hpp"

namespace nestor::snapshot {

std::size_t Fsck::found(std::string where, std::string what) {
    report_.findings.push_back({std::move(where), std::move(what), {}, false, false});
    return report_.findings.size() - 1;
}

void Fsck::blame(Location location, const std::string& tag, const std::string& page) {
    std::size_t at = 0;
    if (const auto record = by_record_.find(location.extent()); record != by_record_.end()) {
        at = record->second;
    } else if (const auto pack = by_pack_.find(location.pack()); pack != by_pack_.end()) {
        at = pack->second;
    } else if (!packs_.contains(location.pack())) {
        at = found(store_.packs->path(location.pack()), "this pack is missing");
        by_pack_[location.pack()] = at;
    } else {
        at = found("snapshot " + tag,
                   page + ": " + to_string(location) + " is not what it is referred to as");
    }
    auto& tags = report_.findings[at].tags;
    if (std::find(tags.begin(), tags.end(), tag) == tags.end()) {
        tags.push_back(tag);
    }
}

bool Fsck::holds(RecordKind kind, Location location, const Digest& digest) const {
    const auto record = items_.find(location.extent());
    return record != items_.end() && record->second.kind == kind &&
           location.slot() < record->second.digests.size() &&
           record->second.digests[location.slot()] == digest;
}

bool Fsck::check_tree(Location location, const Digest& digest, unsigned level, u64 index,
                      const PlacedMap& map, const std::string& tag) {
    if (digest == zero_digest) {
        return true;
    }
    const auto known = sound_.find(location.value());
    if (level > 0 && known != sound_.end() && known->second == digest) {
        return true;
    }
    MapNode node;
    const RecordKind kind = level > 0 ? RecordKind::nodes : RecordKind::pages;
    if (!holds(kind, location, digest) ||
        (level > 0 && !read_node(nodes_, location, digest, map.pages, level, index, node))) {
        blame(location, tag,
              map.describe(index << (fanout_shift * level)) + (level > 0 ? " and after" : ""));
        return false;
    }
    bool sound = true;
    for (u64 i = 0; level > 0 && i < fanout; ++i) {
        sound = check_tree(node.locations[i], node.digests[i], level - 1,
                           (index << fanout_shift) + i, map, tag) &&
                sound;
    }
    if (sound && level > 0) {
        sound_.emplace(location.value(), digest);
    }
    return sound;
}

void Fsck::check_snapshot(const std::string& tag) {
    ++report_.snapshots;
    const std::string where = "snapshot " + tag;
    const auto reference = read_reference(layout_, tag);
    const auto placed =
        reference ? store_.manifest(reference->manifest) : Failure(reference.error());
    bool sound = placed.has_value();
    if (!placed) {
        const auto known = reference ? by_manifest_.find(reference->manifest) : by_manifest_.end();
        const std::size_t at =
            known != by_manifest_.end() ? known->second : found(where, placed.error().message);
        report_.findings[at].tags.push_back(tag);
        if (placed.error().code == ErrorCode::incompatible) {
            report_.newer_tags.push_back(tag);
            return;
        }
    } else {
        const Manifest& manifest = placed->manifest;
        for (std::size_t i = 0; i < manifest.units.size(); ++i) {
            const UnitEntry& unit = manifest.units[i];
            if (unit.size != 0 && !holds(RecordKind::units, placed->units[i], unit.digest)) {
                blame(placed->units[i], tag, "unit " + unit.name);
                sound = false;
            }
        }
        // What the walk does not compare (kinds, sizes of units) a load does.
        if (sound && !read_units(*placed, *store_.packs)) {
            report_.findings[found(where, "its units cannot be read")].tags.push_back(tag);
            sound = false;
        }
        for (const PlacedMap& map : maps_of(*placed)) {
            sound = check_tree(map.location, map.root, map_levels(map.pages), 0, map, tag) && sound;
        }
    }
    if (!sound) {
        report_.damaged_tags.push_back(tag);
    }
}

Result<> Fsck::check_manifests() {
    for (const std::string& name : TRY(list_directory(layout_.manifests()))) {
        const std::string where = layout_.manifests() + "/" + name;
        const auto digest = digest_from_hex(name);
        if (!digest) {
            found(where, "this file does not belong here");
            continue;
        }
        const auto manifest = store_.manifest(*digest);
        if (!manifest) {
            const std::size_t at = found(where, manifest.error().message);
            report_.findings[at].newer = manifest.error().code == ErrorCode::incompatible;
            by_manifest_[*digest] = at;
        }
    }
    return {};
}

/// What lies beside snapshots: claims and hints.
Result<> Fsck::check_beside() {
    for (const std::string& name : TRY(list_directory(layout_.claims()))) {
        const auto digest = digest_from_hex(name);
        const auto claim = digest ? read_claim(layout_, *digest) : std::optional<Claim>{};
        if (!digest || !claim || !*claim || (*claim)->at_unix_ns == 0) {
            found(layout_.claims() + "/" + name, "the claim is damaged; it still counts as one");
        }
    }
    for (const std::string& name : TRY(list_directory(layout_.orders()))) {
        const std::string path = layout_.orders() + "/" + name;
        const auto file = read_file(path, max_order_file);
        if (file && decode_order(*file)) {
            continue;
        }
        const std::size_t at = found(path, "the recorded touch order is damaged; nothing reads it");
        report_.findings[at].repaired = options_.repair && ::unlink(path.c_str()) == 0;
    }
    return {};
}

Result<FsckReport> Fsck::run() {
    const auto lock = store_.begin_write(options_.wait_for_writer);
    std::optional<WriterLock> bare;
    if (!lock) {
        // Putting deferred snapshots on disk may fail in a damaged store; looking must not.
        bare.emplace(TRY(WriterLock::take(layout_, options_.wait_for_writer)));
        const std::size_t at = found(layout_.root, lock.error().message);
        report_.findings[at].newer = lock.error().code == ErrorCode::incompatible;
    }
    store_.packs->refresh();
    if (const Result<> store_file = check_store_file(layout_); !store_file) {
        found(layout_.store_file(), store_file.error().message);
    }
    TRY(check_packs());
    TRY(check_index());
    TRY(check_manifests());
    TRY(check_beside());
    for (const std::string& tag : TRY(list_tags(layout_))) {
        check_snapshot(tag);
    }
    for (auto& finding : report_.findings) {
        std::sort(finding.tags.begin(), finding.tags.end());
    }
    return std::move(report_);
}

Result<FsckReport> Store::fsck(const FsckOptions& options) const {
    return Fsck(*impl_, options).run();
}

} // namespace nestor::snapshot
