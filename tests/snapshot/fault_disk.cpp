// The interposed calls. They are defined under the C library's own names (and their 64-bit twins),
// so that the dynamic linker gives them to the program and to LMDB alike; the real ones are found
// behind them. Reading is left alone.
#include "tests/snapshot/fault_disk.hpp"

#include <cerrno>
#include <cstdarg>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <mutex>
#include <optional>
#include <set>

#include <dlfcn.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

namespace nestor::snapshot::testing {

struct FaultDisk::State {
    struct Open {
        int file = -1; ///< -1: a directory
        std::string name;
        bool synced = false;
    };

    std::recursive_mutex mutex;
    std::string root; ///< empty: not watching
    std::map<int, Open> open;
    std::map<std::string, int> names;
    std::map<int, std::string> before; ///< contents when watching began
    std::vector<std::string> directories;
    std::map<std::string, int> names_before;
    int next_file = 0;
    std::vector<DiskOp> ops;
    std::size_t calls = 0;
    std::size_t fail_at = ~std::size_t{0};
    Fault fault = Fault::none;

    /// The name of a path below the root.
    [[nodiscard]] std::optional<std::string> below(const char* path) const {
        const std::string text = path;
        if (root.empty() || !text.starts_with(root + "/")) {
            return text == root && !root.empty() ? std::optional<std::string>("") : std::nullopt;
        }
        return text.substr(root.size() + 1);
    }
    /// What is to happen to this call.
    Fault next() {
        const std::size_t call = calls++;
        if (call < fail_at) {
            return Fault::none;
        }
        const bool first = call == fail_at;
        switch (fault) {
        case Fault::no_space:
        case Fault::dead:
            return fault;
        case Fault::short_then_full:
            return first ? Fault::short_write : Fault::no_space;
        default:
            return first ? fault : Fault::none;
        }
    }
    /// Sets errno where the call fails altogether.
    static bool fails(Fault fault) {
        if (fault == Fault::none || fault == Fault::short_write) {
            return false;
        }
        errno = fault == Fault::no_space ? ENOSPC : EIO;
        return true;
    }
    void add(DiskOp op) { ops.push_back(std::move(op)); }
};

namespace {

FaultDisk::State& state() {
    static FaultDisk::State instance;
    return instance;
}

using Lock = std::scoped_lock<std::recursive_mutex>;
using Kind = DiskOp::Kind;

template <class F>
F* real(const char* name) {
    return reinterpret_cast<F*>(::dlsym(RTLD_NEXT, name));
}

std::string read_all(const std::string& path) {
    std::ifstream in(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
}

int do_open(const char* path, int flags, mode_t mode) {
    static auto* const next = real<int(const char*, int, mode_t)>("open64");
    FaultDisk::State& s = state();
    const Lock lock(s.mutex);
    const auto name = s.below(path);
    if (!name) {
        return next(path, flags, mode);
    }
    const bool there = s.names.contains(*name);
    if ((flags & O_ACCMODE) != O_RDONLY || (flags & O_CREAT) != 0) {
        const Fault fault = s.next();
        if (FaultDisk::State::fails(fault)) {
            return -1;
        }
    }
    const int fd = next(path, flags, mode);
    if (fd < 0) {
        return fd;
    }
    struct stat info{};
    if (::fstat(fd, &info) == 0 && S_ISDIR(info.st_mode)) {
        s.open[fd] = {-1, *name, false};
        return fd;
    }
    if (!there) {
        s.names[*name] = s.next_file++;
        s.add({Kind::create, s.names[*name], *name, {}, 0, {}, false, 0});
    } else if ((flags & O_TRUNC) != 0) {
        s.add({Kind::truncate, s.names[*name], *name, {}, 0, {}, false, 0});
    }
    s.open[fd] = {s.names[*name], *name, (flags & (O_DSYNC | O_SYNC)) != 0};
    return fd;
}

/// Writes at `offset`, or where the file stands.
ssize_t do_write(int fd, const void* data, std::size_t size, long offset, bool at) {
    static auto* const plain = real<ssize_t(int, const void*, std::size_t)>("write");
    static auto* const placed = real<ssize_t(int, const void*, std::size_t, off64_t)>("pwrite64");
    FaultDisk::State& s = state();
    const Lock lock(s.mutex);
    const auto open = s.open.find(fd);
    const bool watched = open != s.open.end();
    if (watched) {
        const Fault fault = s.next();
        if (FaultDisk::State::fails(fault)) {
            return -1;
        }
        if (fault == Fault::short_write && size > 1) {
            size /= 2;
        }
        offset = at ? offset : static_cast<long>(::lseek(fd, 0, SEEK_CUR));
    }
    const ssize_t n = at ? placed(fd, data, size, offset) : plain(fd, data, size);
    if (watched && n > 0) {
        s.add({Kind::write,
               open->second.file,
               open->second.name,
               {},
               offset,
               std::string(static_cast<const char*>(data), static_cast<std::size_t>(n)),
               open->second.synced,
               0});
    }
    return n;
}

ssize_t do_writev(int fd, const iovec* parts, int count, long offset, bool at) {
    std::string all;
    for (int i = 0; i < count; ++i) {
        all.append(static_cast<const char*>(parts[i].iov_base), parts[i].iov_len);
    }
    return do_write(fd, all.data(), all.size(), offset, at);
}

int do_sync(int fd, const char* call) {
    FaultDisk::State& s = state();
    const Lock lock(s.mutex);
    const auto open = s.open.find(fd);
    if (open == s.open.end()) {
        return real<int(int)>(call)(fd);
    }
    if (FaultDisk::State::fails(s.next())) {
        return -1;
    }
    const bool directory = open->second.file < 0;
    s.add({directory ? Kind::sync_directory : Kind::sync,
           open->second.file,
           open->second.name,
           {},
           0,
           {},
           false,
           0});
    return 0; // nothing here outlives the test, so the real disk need not be waited for
}

int do_truncate(int fd, long size) {
    static auto* const next = real<int(int, off64_t)>("ftruncate64");
    FaultDisk::State& s = state();
    const Lock lock(s.mutex);
    const auto open = s.open.find(fd);
    if (open == s.open.end()) {
        return next(fd, size);
    }
    if (FaultDisk::State::fails(s.next())) {
        return -1;
    }
    s.add({Kind::truncate, open->second.file, open->second.name, {}, size, {}, false, 0});
    return next(fd, size);
}

std::string directory_of(const std::string& name) {
    const std::size_t slash = name.rfind('/');
    return slash == std::string::npos ? "" : name.substr(0, slash);
}

/// Which of the ops before `count` are on disk for certain, or by luck.
std::vector<bool> survivors(const std::vector<DiskOp>& ops, std::size_t count, Loss loss,
                            std::mt19937_64& random) {
    std::vector<bool> kept(count);
    std::set<int> synced_files;
    std::set<std::string> synced_directories;
    for (std::size_t i = count; i-- > 0;) {
        const DiskOp& op = ops[i];
        bool sure = op.synced;
        switch (op.kind) {
        case Kind::sync:
            synced_files.insert(op.file);
            break;
        case Kind::sync_directory:
            synced_directories.insert(op.name);
            break;
        case Kind::write:
        case Kind::truncate:
            sure = sure || synced_files.contains(op.file);
            break;
        case Kind::create:
        case Kind::unlink:
            sure = synced_directories.contains(directory_of(op.name));
            break;
        case Kind::rename:
            sure = synced_directories.contains(directory_of(op.to));
            break;
        case Kind::note:
            break;
        }
        kept[i] = sure || loss == Loss::nothing || (loss != Loss::all && random() % 2 == 0);
    }
    return kept;
}

} // namespace

FaultDisk::FaultDisk(std::string directory) {
    State& s = state();
    s.names.clear();
    s.before.clear();
    s.ops.clear();
    s.open.clear();
    s.directories.clear();
    s.calls = 0;
    s.fail_at = ~std::size_t{0};
    for (const auto& entry : std::filesystem::recursive_directory_iterator(directory)) {
        const std::string name = entry.path().string().substr(directory.size() + 1);
        if (entry.is_directory()) {
            s.directories.push_back(name);
        } else {
            s.before[s.next_file] = read_all(entry.path().string());
            s.names[name] = s.next_file++;
        }
    }
    s.names_before = s.names;
    s.root = std::move(directory);
}

FaultDisk::~FaultDisk() { stop(); }

void FaultDisk::stop() {
    const Lock lock(state().mutex);
    state().root.clear();
    state().open.clear();
}

void FaultDisk::fail_at(std::size_t call, Fault fault) {
    state().fail_at = call;
    state().fault = fault;
}

std::size_t FaultDisk::calls() const { return state().calls; }

void FaultDisk::note(int value) {
    const Lock lock(state().mutex);
    state().add({Kind::note, -1, {}, {}, 0, {}, false, value});
}

const std::vector<DiskOp>& FaultDisk::ops() const { return state().ops; }

void FaultDisk::crash(std::size_t count, Loss loss, std::mt19937_64& random,
                      const std::string& target) const {
    const State& s = state();
    const std::vector<bool> kept = survivors(s.ops, count, loss, random);
    std::mt19937_64 unused;
    const std::vector<bool> sure = survivors(s.ops, count, Loss::all, unused);
    std::map<std::string, int> names = s.names_before;
    std::map<int, std::string> files = s.before;
    for (std::size_t i = 0; i < count; ++i) {
        const DiskOp& op = s.ops[i];
        std::string& file = files[op.file];
        if (!kept[i]) {
            continue;
        }
        switch (op.kind) {
        case Kind::write: {
            std::size_t size = op.bytes.size();
            if (loss == Loss::torn && !sure[i] && random() % 2 == 0) {
                size = random() % size;
            }
            file.resize(std::max(file.size(), static_cast<std::size_t>(op.offset) + size));
            file.replace(static_cast<std::size_t>(op.offset), size, op.bytes, 0, size);
            break;
        }
        case Kind::truncate:
            file.resize(static_cast<std::size_t>(op.offset));
            break;
        case Kind::create:
            names[op.name] = op.file;
            break;
        case Kind::rename:
            names[op.to] = op.file;
            names.erase(op.name);
            break;
        case Kind::unlink:
            names.erase(op.name);
            break;
        default:
            break;
        }
    }
    std::filesystem::remove_all(target);
    std::filesystem::create_directories(target);
    for (const std::string& directory : s.directories) {
        std::filesystem::create_directories(target + "/" + directory);
    }
    for (const auto& [name, file] : names) {
        std::ofstream out(target + "/" + name, std::ios::binary);
        out << files[file];
    }
}

} // namespace nestor::snapshot::testing

using namespace nestor::snapshot::testing;

// NOLINTBEGIN: the names are the C library's.
extern "C" {
int hook_open(const char* path, int flags, ...) asm("open");
int hook_open64(const char* path, int flags, ...) asm("open64");
ssize_t hook_write(int fd, const void* data, size_t size) asm("write");
ssize_t hook_pwrite(int fd, const void* data, size_t size, off64_t offset) asm("pwrite");
ssize_t hook_pwrite64(int fd, const void* data, size_t size, off64_t offset) asm("pwrite64");
ssize_t hook_writev(int fd, const iovec* parts, int count) asm("writev");
ssize_t hook_pwritev(int fd, const iovec* parts, int count, off64_t offset) asm("pwritev");
ssize_t hook_pwritev64(int fd, const iovec* parts, int count, off64_t offset) asm("pwritev64");
int hook_fsync(int fd) asm("fsync");
int hook_fdatasync(int fd) asm("fdatasync");
int hook_ftruncate(int fd, off64_t size) asm("ftruncate");
int hook_ftruncate64(int fd, off64_t size) asm("ftruncate64");
int hook_rename(const char* from, const char* to) asm("rename");
int hook_unlink(const char* path) asm("unlink");
int hook_close(int fd) asm("close");

static mode_t mode_of(int flags, va_list& arguments) {
    return (flags & O_CREAT) != 0 ? va_arg(arguments, mode_t) : 0;
}

int hook_open(const char* path, int flags, ...) {
    va_list arguments;
    va_start(arguments, flags);
    const mode_t mode = mode_of(flags, arguments);
    va_end(arguments);
    return do_open(path, flags, mode);
}
int hook_open64(const char* path, int flags, ...) {
    va_list arguments;
    va_start(arguments, flags);
    const mode_t mode = mode_of(flags, arguments);
    va_end(arguments);
    return do_open(path, flags, mode);
}
ssize_t hook_write(int fd, const void* data, size_t size) {
    return do_write(fd, data, size, 0, false);
}
ssize_t hook_pwrite(int fd, const void* data, size_t size, off64_t offset) {
    return do_write(fd, data, size, offset, true);
}
ssize_t hook_pwrite64(int fd, const void* data, size_t size, off64_t offset) {
    return do_write(fd, data, size, offset, true);
}
ssize_t hook_writev(int fd, const iovec* parts, int count) {
    return do_writev(fd, parts, count, 0, false);
}
ssize_t hook_pwritev(int fd, const iovec* parts, int count, off64_t offset) {
    return do_writev(fd, parts, count, offset, true);
}
ssize_t hook_pwritev64(int fd, const iovec* parts, int count, off64_t offset) {
    return do_writev(fd, parts, count, offset, true);
}
int hook_fsync(int fd) { return do_sync(fd, "fsync"); }
int hook_fdatasync(int fd) { return do_sync(fd, "fdatasync"); }
int hook_ftruncate(int fd, off64_t size) { return do_truncate(fd, size); }
int hook_ftruncate64(int fd, off64_t size) { return do_truncate(fd, size); }

int hook_rename(const char* from, const char* to) {
    static auto* const next = real<int(const char*, const char*)>("rename");
    FaultDisk::State& s = state();
    const Lock lock(s.mutex);
    const auto old_name = s.below(from);
    const auto new_name = s.below(to);
    if (!old_name || !new_name) {
        return next(from, to);
    }
    if (FaultDisk::State::fails(s.next())) {
        return -1;
    }
    const int result = next(from, to);
    if (result == 0) {
        const int file = s.names[*old_name];
        s.names.erase(*old_name);
        s.names[*new_name] = file;
        s.add({Kind::rename, file, *old_name, *new_name, 0, {}, false, 0});
    }
    return result;
}

int hook_unlink(const char* path) {
    static auto* const next = real<int(const char*)>("unlink");
    FaultDisk::State& s = state();
    const Lock lock(s.mutex);
    const auto name = s.below(path);
    if (!name) {
        return next(path);
    }
    if (FaultDisk::State::fails(s.next())) {
        return -1;
    }
    const int result = next(path);
    if (result == 0) {
        s.add({Kind::unlink, s.names[*name], *name, {}, 0, {}, false, 0});
        s.names.erase(*name);
    }
    return result;
}

int hook_close(int fd) {
    static auto* const next = real<int(int)>("close");
    FaultDisk::State& s = state();
    const Lock lock(s.mutex);
    s.open.erase(fd);
    return next(fd);
}
}
// NOLINTEND
