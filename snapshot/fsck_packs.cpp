// fsck of packs and index. Every byte of a pack is covered by some digest. Of the index, what LMDB
// reaches is walked, and each answer it gives is compared with the packs.
#include "snapshot/format.hpp"
#include "snapshot/fsck.hpp"
#include "snapshot/index.hpp"

namespace nestor::snapshot {

namespace {

constexpr u32 records_per_chunk = 256;
constexpr unsigned threads = 2;
constexpr u64 max_node_level = 8;

} // namespace

/// Notes the digests that a record's items have, whatever its list says, and compares the two.
/// Returns what is wrong, or nothing.
std::string Fsck::check_items(RecordBuffer& buffer, std::vector<Digest>& digests) const {
    std::string wrong;
    MapNode node;
    for (u32 slot = 0; slot < buffer.count(); ++slot) {
        const auto bytes = buffer.item(slot);
        Digest& digest = digests.emplace_back();
        if (bytes.empty()) {
            continue; // collected
        }
        if (buffer.kind() != RecordKind::nodes) {
            digest = sha256(bytes);
        } else {
            const u64 level = bytes.size() < 16 ? 0 : load_at<u64>(bytes, sizeof(u64));
            if (level >= 1 && level <= max_node_level &&
                parse_node(bytes, static_cast<unsigned>(level), fanout, node)) {
                digest = node_digest(static_cast<unsigned>(level), node.digests);
            }
        }
        if (digest != buffer.items()[slot].digest && wrong.empty()) {
            wrong = "item " + std::to_string(slot) + " does not have its digest";
        }
    }
    return wrong;
}

Result<> Fsck::check_records(const Chunk& chunk, RecordBuffer& buffer) {
    const Pack& pack = *packs_.at(chunk.pack);
    for (u32 record = chunk.first; record < chunk.last; ++record) {
        if (pack.record_size(record) == 0) {
            continue;
        }
        std::vector<Digest> digests;
        const Result<> sealed = pack.read_sealed(record, buffer);
        std::string wrong = sealed ? "" : sealed.error().message;
        // A record with a broken seal may still have all of its items.
        if (sealed || pack.read(record, buffer)) {
            const std::string item = check_items(buffer, digests);
            if (!item.empty()) {
                wrong = "record " + std::to_string(record) + ": " + item;
            }
        }
        const std::scoped_lock lock(mutex_);
        report_.records += 1;
        const u64 extent = Location(chunk.pack, record, 0).extent();
        items_.emplace(extent, Items{buffer.kind(), std::move(digests)});
        if (!wrong.empty()) {
            by_record_[extent] = found(store_.packs->path(chunk.pack), std::move(wrong));
        }
    }
    return {};
}

Result<> Fsck::check_packs() {
    u64 total = 0;
    std::vector<Chunk> chunks;
    for (const u32 id : TRY(store_.packs->ids())) {
        // Not the open pack of the store's cache: its directory was read some time ago.
        auto pack = Pack::open(store_.packs->path(id), id);
        if (!pack) {
            by_pack_[id] = found(store_.packs->path(id), pack.error().message);
            continue;
        }
        total += (*pack)->file_size();
        for (u32 first = 0; first < (*pack)->records(); first += records_per_chunk) {
            chunks.push_back({id, first, std::min(first + records_per_chunk, (*pack)->records())});
        }
        packs_[id] = std::move(*pack);
    }
    std::vector<RecordBuffer> buffers(threads);
    ProgressMeter meter(options_.progress, total);
    return parallel_chunks(chunks.size(), threads, [&](unsigned worker, u64 i) -> Result<> {
        TRY(check_records(chunks[i], buffers[worker]));
        u64 bytes = 0;
        for (u32 record = chunks[i].first; record < chunks[i].last; ++record) {
            bytes += packs_.at(chunks[i].pack)->record_size(record);
        }
        return meter.add(bytes);
    });
}

Result<> Fsck::check_index() {
    const bool there = file_exists(layout_.index());
    const Result<> checked = Index::check(layout_, [&](u64 key, Location location) {
        const auto record = items_.find(location.extent());
        const auto pack = packs_.find(location.pack());
        if (pack != packs_.end() && location.record() >= pack->second->records()) {
            return false;
        }
        // Of a record that is damaged or was collected, nothing can be said.
        return record == items_.end() || by_record_.contains(location.extent()) ||
               (location.slot() < record->second.digests.size() &&
                (Index::key_of(record->second.digests[location.slot()]) == key ||
                 record->second.digests[location.slot()] == zero_digest));
    });
    const bool make = options_.repair && (!checked || !there) && !packs_.empty();
    if (checked && !make) {
        return {};
    }
    const std::size_t at =
        found(layout_.index(), checked ? "the index is missing" : checked.error().message);
    if (make) {
        TRY(Index::remove(layout_));
        TRY(Index::open(layout_, *store_.packs), "making the index again");
        report_.findings[at].repaired = true;
    }
    return {};
}

} // namespace nestor::snapshot
