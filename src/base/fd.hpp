// File descriptors with one owner.
#pragma once

#include <cstddef>
#include <functional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "src/base/result.hpp"

namespace nestor {

/// Owns a file descriptor; closes it once.
class Fd final {
public:
    Fd() = default;
    explicit Fd(int fd) : fd_(fd) {}
    ~Fd() { reset(); }
    Fd(Fd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
    Fd& operator=(Fd&& other) noexcept {
        if (this != &other) {
            reset();
            fd_ = std::exchange(other.fd_, -1);
        }
        return *this;
    }

    [[nodiscard]] int get() const { return fd_; }
    [[nodiscard]] bool valid() const { return fd_ >= 0; }
    void reset();

private:
    int fd_ = -1;
};

/// "opening PATH: No such file or directory", from errno. Code `failed` unless given.
[[nodiscard]] Failure fail_errno(std::string what, int error_number);

/// Reads a whole regular file of at most `limit` bytes.
[[nodiscard]] Result<std::vector<std::byte>> read_file(const std::string& path, std::size_t limit);
/// The same into what `room` gives for its size.
[[nodiscard]] Result<>
read_file(const std::string& path, std::size_t limit,
          const std::function<Result<std::span<std::byte>>(std::size_t size)>& room);

/// Writes all of `data`, continuing after short writes and EINTR.
[[nodiscard]] Result<> write_all(int fd, std::span<const std::byte> data);

} // namespace nestor
