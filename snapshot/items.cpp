// Deduplication within a save and against the store. Owns: that an answer of the index counts only
// when the pack's own item list agrees, and that of equal new items one is written, whichever
// thread meets it first; the others find where it went when the map is written.
#include "snapshot/items.hpp"

#include <cstring>

namespace nestor::snapshot {

namespace {

/// Item lists kept to compare with; at 16 digests to an extent some 3 MB.
constexpr std::size_t max_lists = 4096;

} // namespace

std::size_t NewItems::Hash::operator()(const Digest& digest) const {
    std::size_t value;
    std::memcpy(&value, digest.bytes.data() + 8, sizeof(value));
    return value;
}

bool NewItems::claim(const Digest& digest) {
    Shard& s = shard(digest);
    const std::scoped_lock lock(s.mutex);
    return s.map.try_emplace(digest).second;
}

void NewItems::placed(const Digest& digest, Location location) {
    Shard& s = shard(digest);
    const std::scoped_lock lock(s.mutex);
    s.map[digest] = location;
}

Location NewItems::find(const Digest& digest) {
    Shard& s = shard(digest);
    const std::scoped_lock lock(s.mutex);
    const auto found = s.map.find(digest);
    return found == s.map.end() ? Location{} : found->second;
}

std::vector<IndexEntry> NewItems::entries() const {
    std::vector<IndexEntry> entries;
    for (const Shard& s : shards_) {
        for (const auto& [digest, location] : s.map) {
            entries.push_back({digest, location});
        }
    }
    return entries;
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
