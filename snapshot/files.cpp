// Files of a store. Owns: the order write, sync, rename, sync directory, which is what makes a
// reference a commit point (DESIGN.md, rule 8), and the writer lock.
//
// The lock is flock on a file that is never removed: it ends with its process however that dies,
// so there are no stale locks, and the pid inside is only for the message.
#include "snapshot/files.hpp"

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <ctime>
#include <filesystem>
#include <thread>

#include <dirent.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "snapshot/deferred.hpp"
#include "snapshot/snapshot.hpp"

namespace nestor::snapshot {

namespace {

constexpr std::string_view store_line = "nestor store 1\n";
constexpr std::string_view reference_line = "nestor reference 1\n";
constexpr std::string_view digest_line = "sha256 ";

std::span<const std::byte> text_bytes(std::string_view text) {
    return std::as_bytes(std::span(text.data(), text.size()));
}

std::string holder(int fd) {
    char text[64] = {};
    const ssize_t n = ::pread(fd, text, sizeof(text) - 1, 0);
    int pid = 0;
    if (n <= 0 || std::sscanf(text, "pid %d\n", &pid) != 1) {
        return "another process";
    }
    return "pid " + std::to_string(pid);
}

void remove_matching(const std::string& directory) {
    DIR* const dir = ::opendir(directory.c_str());
    if (dir == nullptr) {
        return;
    }
    while (const dirent* const entry = ::readdir(dir)) {
        const std::string_view name = entry->d_name;
        if (name.ends_with(".part") || (name.starts_with(".") && name.ends_with(".tmp"))) {
            ::unlink((directory + "/" + std::string(name)).c_str());
        }
    }
    ::closedir(dir);
}

} // namespace

bool is_valid_tag(std::string_view tag) {
    const auto allowed = [](char c) {
        return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
               c == '.' || c == '_' || c == '-';
    };
    return !tag.empty() && tag.size() <= 100 && tag[0] != '.' && tag[0] != '-' && tag != "auto" &&
           tag != "none" && std::all_of(tag.begin(), tag.end(), allowed);
}

std::optional<FileState> state_of_file(const std::string& path) {
    constexpr i64 second = 1'000'000'000;
    const auto ns = [](const timespec& time) { return i64{time.tv_sec} * second + time.tv_nsec; };
    struct stat info{};
    timespec now{};
    // The clock that files get their times from: it stands still for some milliseconds.
    ::clock_gettime(CLOCK_REALTIME_COARSE, &now);
    if (::stat(path.c_str(), &info) != 0 || ns(info.st_ctim) >= ns(now)) {
        return std::nullopt;
    }
    return FileState{info.st_dev, info.st_ino, static_cast<u64>(info.st_size), ns(info.st_mtim),
                     ns(info.st_ctim)};
}

std::string seal_text(std::string body) {
    const Digest digest = sha256(text_bytes(body));
    return body + std::string(digest_line) + to_hex(digest) + "\n";
}

std::optional<std::string_view> open_text(std::string_view text) {
    constexpr std::size_t tail = digest_line.size() + 65;
    if (text.size() < tail) {
        return std::nullopt;
    }
    const std::string_view body = text.substr(0, text.size() - tail);
    const std::string expected = std::string(digest_line) + to_hex(sha256(text_bytes(body))) + "\n";
    if (text.substr(body.size()) != expected) {
        return std::nullopt;
    }
    return body;
}

Result<> make_directory(const std::string& path) {
    if (::mkdir(path.c_str(), 0755) != 0 && errno != EEXIST) {
        return fail_errno("creating the directory " + path, errno);
    }
    return {};
}

Result<> sync_file(int fd, const std::string& name) {
    if (::fdatasync(fd) != 0) {
        return fail_errno("writing " + name + " to disk", errno);
    }
    return {};
}

Result<> rename_file(const std::string& from, const std::string& to) {
    if (::rename(from.c_str(), to.c_str()) != 0) {
        return fail_errno("renaming " + from, errno);
    }
    return {};
}

Result<> sync_directory(const std::string& directory) {
    const Fd fd(::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (!fd.valid() || ::fsync(fd.get()) != 0) {
        return fail_errno("writing the directory " + directory + " to disk", errno);
    }
    return {};
}

Result<> replace_file(const std::string& directory, const std::string& name,
                      std::span<const std::byte> bytes, Sync sync) {
    const std::string final_path = directory + "/" + name;
    const std::string path = directory + "/." + name + "." + std::to_string(::getpid()) + ".tmp";
    const auto write = [&]() -> Result<> {
        const Fd fd(::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644));
        if (!fd.valid()) {
            return fail_errno("creating " + path, errno);
        }
        TRY(write_all(fd.get(), bytes), path);
        if (sync == Sync::yes) {
            TRY(sync_file(fd.get(), path));
        }
        return rename_file(path, final_path);
    };
    const Result<> written = write();
    if (!written) {
        ::unlink(path.c_str());
        return Failure(written.error());
    }
    return sync == Sync::yes ? sync_directory(directory) : Result<>{};
}

Result<std::vector<std::string>> list_directory(const std::string& directory) {
    DIR* const dir = ::opendir(directory.c_str());
    if (dir == nullptr) {
        return fail_errno("reading the directory " + directory, errno);
    }
    std::vector<std::string> names;
    while (const dirent* const entry = ::readdir(dir)) {
        if (entry->d_name[0] != '.') {
            names.emplace_back(entry->d_name);
        }
    }
    ::closedir(dir);
    std::sort(names.begin(), names.end());
    return names;
}

void remove_leftovers(const Layout& layout) {
    remove_matching(layout.packs());
    remove_matching(layout.manifests());
    remove_matching(layout.refs());
    remove_matching(layout.claims());
    remove_matching(layout.orders());
    remove_matching(layout.deferred());
    remove_matching(layout.root);
}

Result<WriterLock> WriterLock::take(const Layout& layout, std::chrono::milliseconds wait) {
    const std::string path = layout.lock_file();
    Fd fd(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644));
    if (!fd.valid()) {
        return fail_errno("opening " + path, errno);
    }
    const auto deadline = std::chrono::steady_clock::now() + wait;
    while (::flock(fd.get(), LOCK_EX | LOCK_NB) != 0) {
        if (errno != EWOULDBLOCK && errno != EINTR) {
            return fail_errno("locking " + path, errno);
        }
        if (std::chrono::steady_clock::now() >= deadline) {
            return fail(ErrorCode::failed,
                        "the store " + layout.root + " is being written: held by " +
                            holder(fd.get()),
                        "try again when it is done; reading works meanwhile");
        }
        std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
    // A full disk must not keep anyone from removing a snapshot, so a failure here is no error.
    const std::string text = "pid " + std::to_string(::getpid()) + "\n";
    if (::ftruncate(fd.get(), 0) == 0) {
        [[maybe_unused]] const ssize_t n = ::pwrite(fd.get(), text.data(), text.size(), 0);
    }
    return WriterLock(std::move(fd));
}

std::string encode_reference(const Reference& reference) {
    return seal_text(std::string(reference_line) + "tag " + reference.tag + "\nmanifest " +
                     to_hex(reference.manifest) + "\n");
}

Result<Reference> decode_reference(std::string_view text, std::string_view tag) {
    const auto damaged = [&] {
        return fail(ErrorCode::corrupt, "reference " + std::string(tag) + ": it is damaged");
    };
    const auto body = open_text(text);
    if (!body) {
        return damaged();
    }
    if (!body->starts_with(reference_line)) {
        return fail(ErrorCode::incompatible,
                    "reference " + std::string(tag) + ": written by a newer version",
                    "use a newer vm");
    }
    const std::string start =
        std::string(reference_line) + "tag " + std::string(tag) + "\nmanifest ";
    if (!body->starts_with(start) || body->size() != start.size() + 65) {
        return damaged();
    }
    const auto digest = digest_from_hex(body->substr(start.size(), 64));
    if (!digest) {
        return damaged();
    }
    return Reference{std::string(tag), *digest};
}

Result<std::vector<std::string>> list_tags(const Layout& layout) {
    std::vector<std::string> tags = TRY(list_directory(layout.refs()));
    if (deferred_counts(layout)) {
        for (std::string& tag : TRY(list_directory(layout.deferred()))) {
            tags.push_back(std::move(tag));
        }
        std::sort(tags.begin(), tags.end());
        tags.erase(std::unique(tags.begin(), tags.end()), tags.end());
    }
    return tags;
}

bool tag_exists(const Layout& layout, std::string_view tag) {
    return file_exists(layout.ref(tag)) ||
           (file_exists(layout.deferred(tag)) && deferred_counts(layout));
}

Result<Reference> read_reference(const Layout& layout, std::string_view tag) {
    if (!is_valid_tag(tag)) {
        return fail(ErrorCode::usage, "'" + std::string(tag) + "' cannot name a snapshot",
                    "use 1 to 100 of A-Z a-z 0-9 . _ -");
    }
    std::string path = layout.deferred(tag);
    if (!file_exists(path) || !deferred_counts(layout)) {
        path = layout.ref(tag);
    }
    if (!file_exists(path)) {
        return fail(ErrorCode::failed,
                    "there is no snapshot " + std::string(tag) + " in " + layout.root,
                    "vm snap ls lists what there is");
    }
    const auto bytes = TRY(read_file(path, max_text_file));
    return decode_reference({reinterpret_cast<const char*>(bytes.data()), bytes.size()}, tag);
}

Result<> write_reference(const Layout& layout, const Reference& reference, Sync sync) {
    const std::string& directory = sync == Sync::yes ? layout.refs() : layout.deferred();
    return replace_file(directory, reference.tag, text_bytes(encode_reference(reference)), sync);
}

bool file_exists(const std::string& path) { return ::access(path.c_str(), F_OK) == 0; }

Result<> make_directories(const Layout& layout) {
    for (const std::string& directory :
         {layout.root, layout.packs(), layout.manifests(), layout.refs(), layout.claims(),
          layout.orders(), layout.leases(), layout.deferred()}) {
        TRY(make_directory(directory));
    }
    return {};
}

Result<> make_store(const Layout& layout) {
    std::error_code ignored; // what is missing then, the next call names
    std::filesystem::create_directories(layout.root, ignored);
    TRY(make_directories(layout));
    return replace_file(layout.root, "store", text_bytes(seal_text(std::string(store_line))));
}

Result<> check_store_file(const Layout& layout) {
    const auto bytes = TRY(read_file(layout.store_file(), max_text_file));
    const std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    const auto body = open_text(text);
    if (!body) {
        return fail(ErrorCode::corrupt, layout.store_file() + ": it is damaged");
    }
    if (*body != store_line) {
        return fail(ErrorCode::incompatible, layout.store_file() + ": written by a newer version",
                    "use a newer vm");
    }
    return {};
}

} // namespace nestor::snapshot
