// The entries of the index: looked up, added, taken out, compared. Owns their form: one unnamed
// table, the first 8 bytes of a digest to an 8-byte location, and a 5-byte key ("P" and the pack
// id, most significant byte first) for every pack that is indexed. The file is index_file.cpp's.
#include "snapshot/index.hpp"

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

#include <lmdb.h>

#include "src/base/log.hpp"

#include "snapshot/format.hpp"
#include "snapshot/index_lmdb.hpp"

namespace nestor::snapshot {

namespace {

constexpr std::size_t key_size = sizeof(u64);

std::array<u8, 5> pack_key(u32 id) {
    return {'P', static_cast<u8>(id >> 24), static_cast<u8>(id >> 16), static_cast<u8>(id >> 8),
            static_cast<u8>(id)};
}

bool is_pack_key(std::span<const u8> key) { return key.size() == 5 && key[0] == 'P'; }

u32 pack_of_key(std::span<const u8> key) {
    return u32{key[1]} << 24 | u32{key[2]} << 16 | u32{key[3]} << 8 | key[4];
}

/// Key and location of an item; nothing where the entry is none.
std::optional<std::pair<u64, Location>> read_entry(std::span<const u8> key,
                                                   std::span<const u8> value) {
    u64 prefix = 0;
    u64 location = 0;
    if (key.size() != sizeof(prefix) || value.size() != sizeof(location)) {
        return std::nullopt;
    }
    std::memcpy(&prefix, key.data(), sizeof(prefix));
    std::memcpy(&location, value.data(), sizeof(location));
    return std::pair(prefix, Location(location));
}

MDB_val value_of(const void* data, std::size_t size) { return {size, const_cast<void*>(data)}; }

} // namespace

Index::View::~View() { mdb_txn_abort(txn(txn_)); }

Result<std::optional<Location>> Index::View::find(const Digest& digest) const {
    MDB_val key = value_of(digest.bytes.data(), key_size);
    MDB_val value{};
    const int code = mdb_get(txn(txn_), table_, &key, &value);
    if (code == MDB_NOTFOUND) {
        return std::optional<Location>{};
    }
    if (code != 0) {
        return fail_lmdb("reading the index", code);
    }
    if (value.mv_size != sizeof(u64)) {
        return std::optional<Location>{}; // damaged: as good as absent
    }
    u64 location = 0;
    std::memcpy(&location, value.mv_data, sizeof(location));
    return std::optional(Location(location));
}

Result<> Index::scan(
    std::span<const u8> first,
    const std::function<bool(std::span<const u8> key, std::span<const u8> value)>& each) const {
    Transaction transaction;
    int code = transaction.begin(env(env_), MDB_RDONLY);
    MDB_cursor* cursor = nullptr;
    if (code == 0) {
        code = mdb_cursor_open(transaction.get(), table_, &cursor);
    }
    if (code != 0) {
        return fail_lmdb("reading the index", code);
    }
    MDB_val key = value_of(first.data(), first.size());
    MDB_val value{};
    code = mdb_cursor_get(cursor, &key, &value, MDB_SET_RANGE);
    while (code == 0 && each({static_cast<const u8*>(key.mv_data), key.mv_size},
                             {static_cast<const u8*>(value.mv_data), value.mv_size})) {
        code = mdb_cursor_get(cursor, &key, &value, MDB_NEXT);
    }
    mdb_cursor_close(cursor);
    return code == 0 || code == MDB_NOTFOUND ? Result<>{} : fail_lmdb("reading the index", code);
}

Result<std::vector<u32>> Index::indexed_packs() const {
    std::vector<u32> ids;
    // Digests that begin with "P" lie between the pack keys.
    TRY(scan(pack_key(0), [&](std::span<const u8> key, std::span<const u8>) {
        if (is_pack_key(key) && pack_of_key(key) <= Location::max_pack) {
            ids.push_back(pack_of_key(key));
        }
        return key[0] == 'P';
    }));
    return ids;
}

u64 Index::key_of(const Digest& digest) {
    u64 key = 0;
    std::memcpy(&key, digest.bytes.data(), sizeof(key));
    return key;
}

Result<> Index::check(const Layout& layout,
                      const std::function<bool(u64 key, Location location)>& right) {
    TRY(check_index_file(layout.index()));
    Index index;
    index.path_ = layout.index();
    if (!file_exists(index.path_)) {
        return {};
    }
    TRY(index.open_environment());
    bool sound = true;
    TRY(index.scan(std::array<u8, 1>{}, [&](std::span<const u8> key, std::span<const u8> value) {
        if (is_pack_key(key)) {
            u32 id = 0;
            sound = value.size() == sizeof(id);
            if (sound) {
                std::memcpy(&id, value.data(), sizeof(id));
                sound = id == pack_of_key(key);
            }
            return sound;
        }
        const auto entry = read_entry(key, value);
        sound = entry && right(entry->first, entry->second);
        return sound;
    }));
    if (!sound) {
        return fail(ErrorCode::corrupt, "the index is damaged: an entry is not what the packs have",
                    "vm store fsck --repair makes it again from the packs");
    }
    return {};
}

Result<> Index::catch_up(const Packs& packs) {
    const auto known = TRY(indexed_packs());
    const auto existing = TRY(packs.ids());
    for (const auto* const ids : {&known, &existing}) {
        if (!ids->empty() && ids->back() >= next_pack_) {
            next_pack_ = ids->back() + 1;
        }
    }
    complete_ = std::includes(existing.begin(), existing.end(), known.begin(), known.end());
    for (const u32 id : existing) {
        if (std::binary_search(known.begin(), known.end(), id)) {
            continue;
        }
        const auto pack = packs.get(id);
        auto entries = pack ? pack_entries(**pack, id) : Failure(pack.error());
        if (!entries) {
            // Its snapshots will say so when loaded; saving others must go on.
            log(LogLevel::warning, "not indexed: " + entries.error().message);
            continue;
        }
        TRY(commit(*entries, {id}));
    }
    return {};
}

Result<std::unique_ptr<Index::View>> Index::view() const {
    Transaction transaction;
    const int code = transaction.begin(env(env_), MDB_RDONLY);
    if (code != 0) {
        return fail_lmdb("reading the index", code);
    }
    return std::unique_ptr<View>(new View(transaction.release(), table_));
}

Result<> Index::try_commit(const std::vector<IndexEntry>& entries, const std::vector<u32>& packs,
                           bool& full) {
    Transaction transaction;
    int code = transaction.begin(env(env_), 0);
    MDB_stat stat{};
    if (code == 0) {
        code = mdb_stat(transaction.get(), table_, &stat);
    }
    const unsigned append = stat.ms_entries == 0 ? MDB_APPEND : 0;
    for (std::size_t i = 0; code == 0 && i < entries.size(); ++i) {
        const u64 location = entries[i].location.value();
        MDB_val key = value_of(entries[i].digest.bytes.data(), key_size);
        MDB_val value = value_of(&location, sizeof(location));
        code = mdb_put(transaction.get(), table_, &key, &value, append);
    }
    for (std::size_t i = 0; code == 0 && i < packs.size(); ++i) {
        const auto id = pack_key(packs[i]);
        MDB_val key = value_of(id.data(), id.size());
        MDB_val value = value_of(&packs[i], sizeof(u32));
        code = mdb_put(transaction.get(), table_, &key, &value, 0);
    }
    if (code == 0) {
        code = transaction.commit();
    }
    full = code == MDB_MAP_FULL;
    return code == 0 || full ? Result<>{} : fail_lmdb("writing " + path_, write_error(path_, code));
}

Result<> Index::commit(std::vector<IndexEntry>& entries, const std::vector<u32>& packs) {
    std::sort(entries.begin(), entries.end(),
              [](const IndexEntry& a, const IndexEntry& b) { return a.digest < b.digest; });
    const auto same =
        std::unique(entries.begin(), entries.end(), [](const IndexEntry& a, const IndexEntry& b) {
            return key_of(a.digest) == key_of(b.digest);
        });
    entries.erase(same, entries.end());
    bool full = true;
    while (true) {
        TRY(try_commit(entries, packs, full));
        if (!full) {
            break;
        }
        TRY(grow());
    }
    for (const u32 id : packs) {
        next_pack_ = std::max(next_pack_, id + 1);
    }
    return {};
}

Result<> Index::try_prune(const std::function<bool(u64 key, Location)>& keep,
                          const std::vector<u32>& gone, bool& full) {
    Transaction transaction;
    MDB_cursor* cursor = nullptr;
    int code = transaction.begin(env(env_), 0);
    if (code == 0) {
        code = mdb_cursor_open(transaction.get(), table_, &cursor);
    }
    MDB_val key{};
    MDB_val value{};
    while (code == 0 && (code = mdb_cursor_get(cursor, &key, &value, MDB_NEXT)) == 0) {
        const std::span bytes(static_cast<const u8*>(key.mv_data), key.mv_size);
        const auto entry =
            read_entry(bytes, {static_cast<const u8*>(value.mv_data), value.mv_size});
        const bool wanted = is_pack_key(bytes)
                                ? !std::binary_search(gone.begin(), gone.end(), pack_of_key(bytes))
                                : entry && keep(entry->first, entry->second);
        if (!wanted) {
            code = mdb_cursor_del(cursor, 0); // the next MDB_NEXT gives what follows
        }
    }
    if (cursor != nullptr) {
        mdb_cursor_close(cursor);
    }
    if (code == MDB_NOTFOUND) {
        code = transaction.commit();
    }
    full = code == MDB_MAP_FULL;
    return code == 0 || full ? Result<>{} : fail_lmdb("writing " + path_, code);
}

Result<> Index::prune(const std::function<bool(u64 key, Location)>& keep,
                      const std::vector<u32>& gone) {
    bool full = true;
    while (full) {
        TRY(try_prune(keep, gone, full));
        if (full) {
            TRY(grow());
        }
    }
    return {};
}

Result<std::vector<IndexEntry>> pack_entries(const Pack& pack, u32 id) {
    std::vector<IndexEntry> entries;
    RecordBuffer buffer;
    for (u32 record = 0; record < pack.records(); ++record) {
        if (pack.record_size(record) == 0) {
            continue;
        }
        TRY(pack.read_items(record, buffer));
        if (buffer.kind() == RecordKind::units) {
            continue;
        }
        for (u32 slot = 0; slot < buffer.count(); ++slot) {
            if (buffer.items()[slot].size != 0) {
                entries.push_back({buffer.items()[slot].digest, Location(id, record, slot)});
            }
        }
    }
    return entries;
}

} // namespace nestor::snapshot
