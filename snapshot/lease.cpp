// Making, finding and dropping leases. Owns: the race with a gc that looks at a lease between its
// creation and its lock: gc holds the exclusive lock while it unlinks, so who gets the shared lock
// afterwards sees a file without a name and makes another.
#include "snapshot/lease.hpp"

#include <algorithm>
#include <atomic>

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

namespace nestor::snapshot {

namespace {

constexpr std::size_t digest_digits = 64;

bool has_name(int fd) {
    struct stat info{};
    return ::fstat(fd, &info) == 0 && info.st_nlink != 0;
}

} // namespace

std::shared_ptr<const Lease> Lease::take(const Layout& layout, const Digest& manifest) {
    static std::atomic<u64> counter{0};
    while (true) {
        std::string path = layout.leases() + "/" + to_hex(manifest) + "." +
                           std::to_string(::getpid()) + "." + std::to_string(counter++);
        Fd fd(::open(path.c_str(), O_RDONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644));
        if (!fd.valid()) {
            if (errno == EEXIST) {
                continue; // of a dead process with this one's number
            }
            return nullptr;
        }
        if (::flock(fd.get(), LOCK_SH) != 0) {
            ::unlink(path.c_str());
            return nullptr;
        }
        if (has_name(fd.get())) {
            return std::shared_ptr<const Lease>(new Lease(std::move(fd), std::move(path)));
        }
    }
}

Lease::Lease(Fd fd, std::string path)
    : fd_(std::move(fd)), path_(std::move(path)), process_(::getpid()) {}

Lease::~Lease() {
    if (process_ == ::getpid()) {
        ::unlink(path_.c_str());
    }
}

bool Lease::valid() const { return has_name(fd_.get()); }

Result<std::vector<Digest>> live_leases(const Layout& layout) {
    std::vector<Digest> live;
    for (const std::string& name : TRY(list_directory(layout.leases()))) {
        const auto manifest = digest_from_hex(std::string_view(name).substr(0, digest_digits));
        const std::string path = layout.leases() + "/" + name;
        const Fd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
        if (!manifest || !fd.valid()) {
            continue;
        }
        if (::flock(fd.get(), LOCK_EX | LOCK_NB) == 0) {
            ::unlink(path.c_str());
        } else {
            live.push_back(*manifest);
        }
    }
    std::sort(live.begin(), live.end());
    live.erase(std::unique(live.begin(), live.end()), live.end());
    return live;
}

std::string store_identity(const Layout& layout) {
    struct stat info{};
    if (::stat(layout.store_file().c_str(), &info) != 0) {
        return {};
    }
    return std::to_string(info.st_dev) + ":" + std::to_string(info.st_ino);
}

} // namespace nestor::snapshot
