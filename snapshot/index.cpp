// The index in LMDB. Owns: the environment, and the rule that nothing but check_lmdb touches the
// file before it was walked. One unnamed table: the first 8 bytes of a digest to an 8-byte
// location, and a 5-byte key ("P" and the pack id, most significant byte first) for every pack that
// is indexed.
//
// No LMDB lock file (MDB_NOLOCK): the writer lock is the store's own, readers do not come here.
#include "snapshot/index.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <cerrno>
#include <cstring>
#include <utility>

#include <fcntl.h>
#include <lmdb.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "src/base/log.hpp"

#include "snapshot/format.hpp"
#include "snapshot/lmdb_check.hpp"

namespace nestor::snapshot {

namespace {

constexpr std::size_t key_size = sizeof(u64);

MDB_env* env(void* p) { return static_cast<MDB_env*>(p); }
MDB_txn* txn(void* p) { return static_cast<MDB_txn*>(p); }

Failure fail_lmdb(const std::string& what, int code) {
    return fail(code == MDB_CORRUPTED || code == MDB_PAGE_NOTFOUND ? ErrorCode::corrupt
                                                                   : ErrorCode::failed,
                what + ": " + mdb_strerror(code));
}

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

/// Walks an existing file. Missing is fine, empty too: LMDB makes it then.
Result<> check_file(const std::string& path) {
    const Fd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    struct stat info{};
    if (!fd.valid() || ::fstat(fd.get(), &info) != 0 || info.st_size == 0) {
        return {};
    }
    const auto size = static_cast<std::size_t>(info.st_size);
    void* const map = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, fd.get(), 0);
    if (map == MAP_FAILED) {
        return fail_errno("mapping " + path, errno);
    }
    const Result<> checked = check_lmdb({static_cast<const std::byte*>(map), size});
    ::munmap(map, size);
    return checked;
}

bool disk_is_full(const std::string& path) {
    constexpr u64 enough = u64{1} << 20; // bytes; one write of LMDB is at most that
    struct statvfs info{};
    return ::statvfs(path.c_str(), &info) == 0 && u64{info.f_bavail} * info.f_frsize < enough;
}

/// Puts an empty index in place where there is none, so that one is never half made.
Result<> make_file(const Layout& layout) {
    const std::string path = layout.index();
    const std::string part = path + ".part";
    if (file_exists(path)) {
        return {};
    }
    MDB_env* environment = nullptr;
    int code = mdb_env_create(&environment);
    if (code != 0) {
        return fail_lmdb("creating " + path, code);
    }
    code = mdb_env_open(environment, part.c_str(), MDB_NOSUBDIR | MDB_NOLOCK, 0644);
    if (code == 0) {
        code = mdb_env_sync(environment, 1);
    }
    mdb_env_close(environment);
    if (code == EIO && disk_is_full(layout.root)) {
        code = ENOSPC; // LMDB calls a write that was cut short an I/O error
    }
    if (code != 0) {
        ::unlink(part.c_str());
        return fail_lmdb("creating " + part, code);
    }
    TRY(rename_file(part, path));
    return sync_directory(layout.root);
}

/// A read or write transaction that is given up unless it was committed.
class Transaction final {
public:
    ~Transaction() { abort(); }
    Transaction() = default;
    Transaction(const Transaction&) = delete;
    Transaction& operator=(const Transaction&) = delete;

    int begin(MDB_env* environment, unsigned flags) {
        return mdb_txn_begin(environment, nullptr, flags, &txn_);
    }
    int commit() { return mdb_txn_commit(std::exchange(txn_, nullptr)); }
    void abort() {
        if (txn_ != nullptr) {
            mdb_txn_abort(std::exchange(txn_, nullptr));
        }
    }
    [[nodiscard]] MDB_txn* get() const { return txn_; }
    MDB_txn* release() { return std::exchange(txn_, nullptr); }

private:
    MDB_txn* txn_ = nullptr;
};

} // namespace

u64 Index::initial_map_size = u64{1} << 30;

Index::~Index() {
    if (env_ != nullptr) {
        mdb_env_close(env(env_));
    }
}

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

Result<> Index::remove(const Layout& layout) {
    if (::unlink(layout.index().c_str()) != 0 && errno != ENOENT) {
        return fail_errno("removing " + layout.index(), errno);
    }
    return {};
}

Result<std::unique_ptr<Index>> Index::open(const Layout& layout, const Packs& packs, Sync sync,
                                           const std::optional<FileState>& sound) {
    std::unique_ptr<Index> index(new Index);
    index->path_ = layout.index();
    // 20 ms for a million pages.
    const bool known = sound && state_of_file(index->path_) == sound;
    const Result<> checked = known ? Result<>{} : check_file(index->path_);
    if (!checked) {
        if (checked.error().code != ErrorCode::corrupt) {
            return Failure(checked.error());
        }
        log(LogLevel::warning, checked.error().message + "; making it again from the packs");
        TRY(remove(layout));
    }
    TRY(make_file(layout));
    TRY(index->open_environment());
    if (sync == Sync::no) {
        mdb_env_set_flags(env(index->env_), MDB_NOSYNC, 1);
    }
    TRY(index->catch_up(packs));
    return index;
}

Result<> Index::open_environment() {
    MDB_env* environment = nullptr;
    int code = mdb_env_create(&environment);
    if (code != 0) {
        return fail_lmdb("opening the index", code);
    }
    env_ = environment;
    struct stat info{};
    const u64 size = ::stat(path_.c_str(), &info) == 0 ? static_cast<u64>(info.st_size) : 0;
    map_size_ = std::max(initial_map_size, std::bit_ceil(2 * size));
    code = mdb_env_set_mapsize(environment, map_size_);
    if (code == 0) {
        code = mdb_env_open(environment, path_.c_str(),
                            MDB_NOSUBDIR | MDB_NOLOCK | MDB_NOTLS | MDB_NORDAHEAD, 0644);
    }
    if (code != 0) {
        return fail_lmdb("opening " + path_, code);
    }
    Transaction transaction;
    code = transaction.begin(environment, MDB_RDONLY);
    if (code == 0) {
        code = mdb_dbi_open(transaction.get(), nullptr, 0, &table_);
    }
    if (code == 0) {
        code = transaction.commit();
    }
    return code == 0 ? Result<>{} : fail_lmdb("opening " + path_, code);
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
    TRY(check_file(layout.index()));
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
    if (code == EIO && disk_is_full(path_)) {
        code = ENOSPC; // LMDB calls a write that was cut short an I/O error
    }
    return code == 0 || full ? Result<>{} : fail_lmdb("writing " + path_, code);
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

Result<> Index::grow() {
    map_size_ *= 2;
    const int code = mdb_env_set_mapsize(env(env_), map_size_);
    return code == 0 ? Result<>{} : fail_lmdb("growing " + path_, code);
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

u64 Index::file_size() const {
    struct stat info{};
    return ::stat(path_.c_str(), &info) == 0 ? static_cast<u64>(info.st_size) : 0;
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
