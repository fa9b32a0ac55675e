// Deduplication within a save and against the store. Owns: that an answer of the index counts only
// when the pack's own item list agrees, and that of equal new items one is written, whichever
// thread meets it first; the others find where it went when the map is written.
#include "snapshot/items.hpp"

#include <algorithm>
#include <cstring>

#include "src/base/check.hpp"

namespace nestor::snapshot {

namespace {

/// Item lists kept to compare with; at 16 digests to an extent some 3 MB.
constexpr std::size_t max_lists = 4096;

} // namespace

/// The slot that names the digest's entry, or the empty one where it belongs.
u32& NewItems::Shard::slot(const Digest& digest) {
    u64 hash = 0;
    std::memcpy(&hash, digest.bytes.data() + 8, sizeof(hash));
    const std::size_t mask = table.size() - 1;
    std::size_t at = hash & mask;
    while (table[at] != 0 && entries[table[at] - 1].digest != digest) {
        at = (at + 1) & mask;
    }
    return table[at];
}

void NewItems::Shard::grow() {
    table.assign(std::max<std::size_t>(table.size() * 2, 64), 0);
    for (std::size_t i = 0; i < entries.size(); ++i) {
        slot(entries[i].digest) = static_cast<u32>(i + 1);
    }
}

bool NewItems::claim(const Digest& digest) {
    Shard& s = shard(digest);
    const std::scoped_lock lock(s.mutex);
    if (2 * s.entries.size() >= s.table.size()) {
        s.grow();
    }
    u32& slot = s.slot(digest);
    if (slot != 0) {
        return false;
    }
    s.entries.push_back({digest, Location{}});
    slot = static_cast<u32>(s.entries.size());
    return true;
}

void NewItems::placed(const Digest& digest, Location location) {
    Shard& s = shard(digest);
    const std::scoped_lock lock(s.mutex);
    const u32 slot = s.table.empty() ? 0 : s.slot(digest);
    CHECK(slot != 0); // claimed before
    s.entries[slot - 1].location = location;
}

Location NewItems::find(const Digest& digest) {
    Shard& s = shard(digest);
    const std::scoped_lock lock(s.mutex);
    const u32 slot = s.table.empty() ? 0 : s.slot(digest);
    return slot == 0 ? Location{} : s.entries[slot - 1].location;
}

std::vector<IndexEntry> NewItems::entries() const {
    std::vector<IndexEntry> all;
    for (const Shard& s : shards_) {
        all.insert(all.end(), s.entries.begin(), s.entries.end());
    }
    return all;
}

const ItemLists::List& ItemLists::list(Location location) {
    if (lists_.size() > max_lists) {
        lists_.clear();
    }
    const auto [at, fresh] = lists_.try_emplace(location.extent());
    List& list = at->second;
    if (!fresh || missing_packs_.contains(location.pack())) {
        return list;
    }
    const auto pack = packs_.get(location.pack());
    if (!pack) {
        missing_packs_.insert(location.pack());
        return list;
    }
    if ((*pack)->read_items(location.record(), buffer_)) {
        list.kind = buffer_.kind();
        for (const Item& item : buffer_.items()) {
            list.digests.push_back(item.digest);
        }
    }
    return list;
}

Result<Location> Finder::find(RecordKind kind, const Digest& digest) {
    const auto location = TRY(view_->find(digest));
    if (!location) {
        return Location{};
    }
    return holds(kind, *location, digest) ? *location : Location{};
}

bool ItemLists::holds(Location location, u64 key) {
    const List& items = list(location);
    return location.slot() < items.digests.size() &&
           Index::key_of(items.digests[location.slot()]) == key;
}

bool ItemLists::holds(RecordKind kind, Location location, const Digest& digest) {
    const List& items = list(location);
    return location.slot() < items.digests.size() && items.kind == kind &&
           items.digests[location.slot()] == digest;
}

Result<> RecordBuilder::add(const Digest& digest, std::span<const std::byte> bytes, Location* where,
                            NewItems* items) {
    if (!raw_.empty() &&
        (raw_.size() + bytes.size() > payload_ || list_.size() > Location::max_slot)) {
        TRY(flush());
    }
    raw_.insert(raw_.end(), bytes.begin(), bytes.end());
    list_.push_back({digest, static_cast<u32>(bytes.size())});
    targets_.emplace_back(where, items);
    return {};
}

Result<> RecordBuilder::flush() {
    if (list_.empty()) {
        return {};
    }
    const auto record = TRY(encoder_.encode(kind_, list_, raw_));
    const Location base = TRY(writer_.append(record));
    for (u32 slot = 0; slot < list_.size(); ++slot) {
        const Location location(base.pack(), base.record(), slot);
        const auto [where, items] = targets_[slot];
        *where = location;
        if (items != nullptr) {
            items->placed(list_[slot].digest, location);
        }
    }
    raw_.clear();
    list_.clear();
    targets_.clear();
    return {};
}

} // namespace nestor::snapshot
