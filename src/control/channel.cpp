// Sockets and framing of the control protocol.
//
// Owns the claim on a socket path. Between looking whether an old socket is alive and replacing it,
// the directory is locked, so that of two machines with one name only one starts. The lock is on
// the directory itself: no lock file stays behind.
#include "src/control/channel.hpp"

#include <cerrno>
#include <cstring>

#include <fcntl.h>
#include <poll.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "src/control/paths.hpp"

namespace nestor::control {
namespace {

constexpr int send_seconds = 5;
constexpr std::size_t header = 4;

sockaddr_un address_of(const std::string& path) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::memcpy(address.sun_path, path.data(), std::min(path.size(), sizeof(address.sun_path) - 1));
    return address;
}

Fd new_socket() { return Fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)); }

bool connect_to(const Fd& fd, const std::string& path) {
    const sockaddr_un address = address_of(path);
    return fd.valid() &&
           ::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) == 0;
}

Result<Fd> lock_directory(const std::string& path) {
    const std::size_t slash = path.rfind('/');
    const std::string directory = slash == std::string::npos ? "." : path.substr(0, slash + 1);
    Fd fd(::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (!fd.valid() || ::flock(fd.get(), LOCK_EX) != 0) {
        return fail_errno("opening the directory of control socket " + path, errno);
    }
    return fd;
}

void limit_sending(int fd) {
    const timeval limit{.tv_sec = send_seconds, .tv_usec = 0};
    (void)::setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
}

} // namespace

Result<Listener> Listener::claim(const std::string& path, const std::string& who) {
    TRY(check_socket_path(path));
    const Fd lock = TRY(lock_directory(path));
    if (is_alive(path)) {
        return fail(ErrorCode::failed, "a machine named " + who + " is running already at " + path,
                    "choose another --name, or end it with: vm stop " + who);
    }
    Fd fd = new_socket();
    if (!fd.valid()) {
        return fail_errno("making a control socket", errno);
    }
    (void)::unlink(path.c_str());
    const sockaddr_un address = address_of(path);
    if (::bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0 ||
        ::chmod(path.c_str(), 0600) != 0 || ::listen(fd.get(), 8) != 0 ||
        ::fcntl(fd.get(), F_SETFL, O_NONBLOCK) != 0) {
        return fail_errno("listening on control socket " + path, errno);
    }
    return Listener(std::move(fd), path);
}

Listener::Listener(Listener&& other) noexcept
    : fd_(std::move(other.fd_)), path_(std::exchange(other.path_, {})) {}

Listener& Listener::operator=(Listener&& other) noexcept {
    fd_ = std::move(other.fd_);
    std::swap(path_, other.path_);
    return *this;
}

Listener::~Listener() {
    if (!path_.empty()) {
        (void)::unlink(path_.c_str());
    }
}

std::optional<Fd> Listener::accept() const {
    Fd fd(::accept4(fd_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (!fd.valid()) {
        return std::nullopt;
    }
    ucred peer{};
    socklen_t size = sizeof(peer);
    if (::getsockopt(fd.get(), SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0 ||
        (peer.uid != ::getuid() && peer.uid != 0)) {
        return std::nullopt;
    }
    return fd;
}

Result<> send_message(int fd, std::string_view text) {
    std::string frame;
    for (unsigned i = 0; i < header; ++i) {
        frame += static_cast<char>(text.size() >> (8 * i) & 0xff);
    }
    frame += text;
    for (std::size_t done = 0; done < frame.size();) {
        const ssize_t sent = ::send(fd, frame.data() + done, frame.size() - done, MSG_NOSIGNAL);
        if (sent > 0) {
            done += static_cast<std::size_t>(sent);
            continue;
        }
        if (sent < 0 && errno == EINTR) {
            continue;
        }
        pollfd wait{.fd = fd, .events = POLLOUT, .revents = 0};
        if (sent < 0 && errno == EAGAIN && ::poll(&wait, 1, send_seconds * 1000) > 0) {
            continue;
        }
        return fail(ErrorCode::failed, "the peer of the control socket does not listen");
    }
    return {};
}

bool MessageReader::fill(int fd) {
    for (;;) {
        char bytes[4096];
        const ssize_t got = ::recv(fd, bytes, sizeof(bytes), 0);
        if (got > 0) {
            buffer_.append(bytes, static_cast<std::size_t>(got));
            if (buffer_.size() > max_message + header) {
                return false;
            }
            if (static_cast<std::size_t>(got) == sizeof(bytes)) {
                continue;
            }
            return true;
        }
        if (got < 0 && errno == EINTR) {
            continue;
        }
        return got < 0 && errno == EAGAIN;
    }
}

std::optional<std::string> MessageReader::next() {
    if (buffer_.size() < header) {
        return std::nullopt;
    }
    std::size_t size = 0;
    for (unsigned i = 0; i < header; ++i) {
        size |= std::size_t{static_cast<u8>(buffer_[i])} << (8 * i);
    }
    if (buffer_.size() - header < size) {
        return std::nullopt; // of one that is too long, fill() gets tired
    }
    std::string text = buffer_.substr(header, size);
    buffer_.erase(0, header + size);
    return text;
}

bool is_alive(const std::string& path) { return connect_to(new_socket(), path); }

Result<Reply> ask(const std::string& path, const Request& request, int patience_ms,
                  const std::function<void(u64, u64)>& progress) {
    TRY(check_socket_path(path));
    const Fd fd = new_socket();
    if (!connect_to(fd, path)) {
        return fail_errno("connecting to the machine at " + path, errno);
    }
    limit_sending(fd.get());
    TRY(send_message(fd.get(), encode(request)));
    MessageReader reader;
    for (;;) {
        while (const auto text = reader.next()) {
            Reply reply = TRY(decode_reply(*text));
            if (reply.kind != Reply::Kind::progress) {
                return reply;
            }
            if (progress) {
                progress(reply.body.number("done"), reply.body.number("total"));
            }
        }
        pollfd wait{.fd = fd.get(), .events = POLLIN, .revents = 0};
        const int ready = ::poll(&wait, 1, patience_ms);
        if (ready < 0 && errno != EINTR) {
            return fail_errno("waiting for the machine at " + path, errno);
        }
        if (ready == 0) {
            return fail(ErrorCode::failed, "the machine at " + path + " does not answer");
        }
        if (ready > 0 && !reader.fill(fd.get())) {
            return fail(ErrorCode::failed, "the machine at " + path + " ended before it answered");
        }
    }
}

} // namespace nestor::control
