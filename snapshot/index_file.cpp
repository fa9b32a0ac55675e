// The index's file: made, walked before LMDB may touch it, opened, grown. Owns the environment.
//
// LMDB trusts its file, so nothing but check_lmdb touches one before it was walked. No LMDB lock
// file (MDB_NOLOCK): the writer lock is the store's own, readers do not come here.
#include <algorithm>
#include <bit>
#include <cerrno>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "src/base/log.hpp"

#include "snapshot/index.hpp"
#include "snapshot/index_lmdb.hpp"
#include "snapshot/lmdb_check.hpp"

namespace nestor::snapshot {

namespace {

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
    if (code != 0) {
        ::unlink(part.c_str());
        return fail_lmdb("creating " + part, write_error(layout.root, code));
    }
    TRY(rename_file(part, path));
    return sync_directory(layout.root);
}

} // namespace

Failure fail_lmdb(const std::string& what, int code) {
    return fail(code == MDB_CORRUPTED || code == MDB_PAGE_NOTFOUND ? ErrorCode::corrupt
                                                                   : ErrorCode::failed,
                what + ": " + mdb_strerror(code));
}

int write_error(const std::string& path, int code) {
    return code == EIO && disk_is_full(path) ? ENOSPC : code;
}

Result<> check_index_file(const std::string& path) {
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

u64 Index::initial_map_size = u64{1} << 30;

Index::~Index() {
    if (env_ != nullptr) {
        mdb_env_close(env(env_));
    }
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
    const Result<> checked = known ? Result<>{} : check_index_file(index->path_);
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

Result<> Index::grow() {
    map_size_ *= 2;
    const int code = mdb_env_set_mapsize(env(env_), map_size_);
    return code == 0 ? Result<>{} : fail_lmdb("growing " + path_, code);
}

u64 Index::file_size() const {
    struct stat info{};
    return ::stat(path_.c_str(), &info) == 0 ? static_cast<u64>(info.st_size) : 0;
}

} // namespace nestor::snapshot
