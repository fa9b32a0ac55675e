// Finds the control sockets and the default store.
//
// Owns the naming rules. The directory of sockets is what protects them: it is made for its owner
// only, and one that somebody else made in /tmp first is refused.
#include "src/control/paths.hpp"

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <filesystem>

#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "snapshot/snapshot.hpp"
#include "src/base/fd.hpp"

namespace nestor::control {
namespace {

constexpr std::string_view suffix = ".sock";

std::string environment(const char* name) {
    const char* const value = std::getenv(name);
    return value == nullptr ? std::string() : std::string(value);
}

std::string directory_name() {
    const std::string runtime = environment("XDG_RUNTIME_DIR");
    return runtime.empty() ? "/tmp/nestor-" + std::to_string(::getuid()) : runtime + "/nestor";
}

} // namespace

Result<> check_socket_path(const std::string& path) {
    constexpr std::size_t limit = sizeof(sockaddr_un::sun_path) - 1;
    if (path.empty() || path.size() > limit) {
        return fail(ErrorCode::usage,
                    "control socket " + path + ": a path of " + std::to_string(path.size()) +
                        " bytes is too long for a socket, which takes 1 to " +
                        std::to_string(limit),
                    "use a shorter --name, a shorter XDG_RUNTIME_DIR, or --socket PATH");
    }
    return {};
}

Result<std::string> socket_directory() {
    const std::string directory = directory_name();
    TRY(check_socket_path(directory + "/x" + std::string(suffix)));
    if (::mkdir(directory.c_str(), 0700) != 0 && errno != EEXIST) {
        return fail_errno("making the directory of control sockets " + directory, errno);
    }
    struct stat info{};
    if (::lstat(directory.c_str(), &info) != 0) {
        return fail_errno("looking at " + directory, errno);
    }
    if (!S_ISDIR(info.st_mode) || info.st_uid != ::getuid() || (info.st_mode & 077) != 0) {
        return fail(ErrorCode::failed,
                    "directory of control sockets " + directory +
                        ": it is not yours alone (owner and mode 0700)",
                    "remove it, or set XDG_RUNTIME_DIR to a directory of your own");
    }
    return directory;
}

Result<std::string> socket_path(const std::string& name) {
    if (!snapshot::is_valid_tag(name)) {
        return fail(ErrorCode::usage, "machine name '" + name + "' is not a name",
                    "use 1 to 100 of A-Z a-z 0-9 . _ - and begin with a letter or digit");
    }
    TRY(check_socket_path(directory_name() + "/" + name + std::string(suffix)));
    return TRY(socket_directory()) + "/" + name + std::string(suffix);
}

Result<std::vector<std::string>> socket_names() {
    const std::string directory = TRY(socket_directory());
    std::vector<std::string> names;
    std::error_code error;
    for (const auto& entry : std::filesystem::directory_iterator(directory, error)) {
        const std::string file = entry.path().filename().string();
        if (file.size() > suffix.size() && file.ends_with(suffix)) {
            names.push_back(file.substr(0, file.size() - suffix.size()));
        }
    }
    if (error) {
        return fail_errno("reading " + directory, error.value());
    }
    std::sort(names.begin(), names.end());
    return names;
}

Result<std::string> store_directory(const std::string& given) {
    if (!given.empty()) {
        return given;
    }
    if (const std::string store = environment("NESTOR_STORE"); !store.empty()) {
        return store;
    }
    if (const std::string data = environment("XDG_DATA_HOME"); !data.empty()) {
        return data + "/nestor";
    }
    if (const std::string home = environment("HOME"); !home.empty()) {
        return home + "/.local/share/nestor";
    }
    return fail(ErrorCode::usage, "there is no default store without HOME",
                "give --store DIR or set NESTOR_STORE");
}

} // namespace nestor::control
