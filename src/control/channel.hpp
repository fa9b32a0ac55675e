// The control socket: one end listens, the other asks.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include "src/base/fd.hpp"
#include "src/control/message.hpp"

namespace nestor::control {

/// A listening control socket. Its file goes away with the object.
class Listener final {
public:
    /// Claims `path`. A socket file that nobody listens on is replaced; one that is alive fails:
    /// another machine has that name. `who` is what errors call the machine.
    [[nodiscard]] static Result<Listener> claim(const std::string& path, const std::string& who);
    Listener(Listener&& other) noexcept;
    Listener& operator=(Listener&& other) noexcept;
    ~Listener();

    [[nodiscard]] int fd() const { return fd_.get(); }
    /// The next peer of the same user, or nothing.
    [[nodiscard]] std::optional<Fd> accept() const;

private:
    Listener(Fd fd, std::string path) : fd_(std::move(fd)), path_(std::move(path)) {}
    Fd fd_;
    std::string path_;
};

/// Sends one message; a peer that takes longer than a few seconds to read fails it.
[[nodiscard]] Result<> send_message(int fd, std::string_view text);

/// Puts messages together from a stream of bytes.
class MessageReader final {
public:
    /// Reads what a descriptor has, without waiting where it is non-blocking. False: the peer is
    /// gone or announces more than max_message.
    [[nodiscard]] bool fill(int fd);
    /// The next complete message.
    [[nodiscard]] std::optional<std::string> next();

private:
    std::string buffer_;
};

/// Asks the machine at `path` and waits for its last answer. Fails where nobody listens, and where
/// nothing at all arrives for `patience_ms`.
[[nodiscard]] Result<Reply> ask(const std::string& path, const Request& request, int patience_ms,
                                const std::function<void(u64 done, u64 total)>& progress = {});

/// Whether a machine listens at `path`.
[[nodiscard]] bool is_alive(const std::string& path);

} // namespace nestor::control
