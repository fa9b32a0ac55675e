// The few system calls every layer above needs, with errors that name the file.
#include "src/base/fd.hpp"

#include <cerrno>
#include <cstring>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

namespace nestor {

void Fd::reset() {
    if (fd_ >= 0) {
        ::close(fd_);
        fd_ = -1;
    }
}

Failure fail_errno(std::string what, int error_number) {
    what += ": ";
    what += std::strerror(error_number);
    return fail(ErrorCode::failed, std::move(what));
}

Result<std::vector<std::byte>> read_file(const std::string& path, std::size_t limit) {
    std::vector<std::byte> bytes;
    TRY(read_file(path, limit, [&](std::size_t size) -> Result<std::span<std::byte>> {
        bytes.resize(size);
        return std::span(bytes);
    }));
    return bytes;
}

Result<> read_file(const std::string& path, std::size_t limit,
                   const std::function<Result<std::span<std::byte>>(std::size_t size)>& room) {
    const Fd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    if (!fd.valid()) {
        return fail_errno("opening " + path, errno);
    }
    struct stat info{};
    if (::fstat(fd.get(), &info) != 0) {
        return fail_errno("reading the size of " + path, errno);
    }
    if (!S_ISREG(info.st_mode)) {
        return fail(ErrorCode::failed, "reading " + path + ": not a regular file");
    }
    const auto size = static_cast<std::size_t>(info.st_size);
    if (size > limit) {
        return fail(ErrorCode::failed, "reading " + path + ": " + std::to_string(size) +
                                           " bytes, more than the " + std::to_string(limit) +
                                           " that can be used");
    }
    const std::span<std::byte> bytes = TRY(room(size));
    std::size_t done = 0;
    while (done < size) {
        const ssize_t n = ::read(fd.get(), bytes.data() + done, size - done);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0) {
            return fail_errno("reading " + path, errno);
        }
        if (n == 0) {
            return fail(ErrorCode::failed, "reading " + path + ": the file got shorter meanwhile");
        }
        done += static_cast<std::size_t>(n);
    }
    return {};
}

Result<> write_all(int fd, std::span<const std::byte> data) {
    while (!data.empty()) {
        const ssize_t n = ::write(fd, data.data(), data.size());
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0) {
            return fail_errno("writing", errno);
        }
        data = data.subspan(static_cast<std::size_t>(n));
    }
    return {};
}

} // namespace nestor
