// Raw mode, the escape key and signals.
//
// Owns the terminal's settings. Signal handlers only write to a pipe and, before the process dies,
// put the settings back; both are allowed there (POSIX 2.4.3). What they need is the one state of
// this program that is not passed around.
#include "src/cli/terminal.hpp"

#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdio>

#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

namespace nestor::cli {
namespace {

constexpr u8 escape_key = 1; // Ctrl-A
constexpr std::string_view help =
    "Ctrl-A x ends the machine, Ctrl-A c tells how it stands, Ctrl-A Ctrl-A sends Ctrl-A";
constexpr std::size_t keep_back = 4096;
constexpr int patience = 3; // requests to end that nobody took, until the handler ends the process

struct {
    termios before{};
    std::atomic<bool> raw{false};
    std::atomic<int> pipe{-1};
    std::atomic<int> untaken{0};
} process;

void restore_settings() {
    if (process.raw.exchange(false)) {
        (void)::tcsetattr(STDIN_FILENO, TCSANOW, &process.before);
    }
}

void on_signal(int signal) {
    const int saved = errno;
    const u8 byte = static_cast<u8>(signal);
    (void)!::write(process.pipe, &byte, 1);
    if (signal != SIGTSTP && signal != SIGCONT && ++process.untaken >= patience) {
        restore_settings();
        ::_exit(static_cast<int>(ErrorCode::failed));
    }
    errno = saved;
}

void on_crash(int signal) {
    restore_settings();
    ::signal(signal, SIG_DFL);
    ::raise(signal);
}

constexpr int handled[] = {SIGINT, SIGTERM, SIGHUP, SIGTSTP, SIGCONT};
constexpr int crashes[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT, SIGQUIT};

void install(int signal, void (*handler)(int)) {
    struct sigaction action{};
    action.sa_handler = handler;
    ::sigaction(signal, &action, nullptr);
}

bool in_foreground() { return ::tcgetpgrp(STDIN_FILENO) == ::getpgrp(); }

} // namespace

Terminal::Terminal() {
    int ends[2] = {-1, -1};
    if (::pipe2(ends, O_CLOEXEC | O_NONBLOCK) == 0) {
        signals_ = Fd(ends[0]);
        process.pipe = ends[1];
    }
    process.untaken = 0;
    for (const int signal : handled) {
        install(signal, on_signal);
    }
    for (const int signal : crashes) {
        install(signal, on_crash);
    }
    install(SIGPIPE, SIG_IGN);
    is_terminal_ = ::isatty(STDIN_FILENO) == 1;
    enter_raw();
}

Terminal::~Terminal() {
    (void)flush();
    leave_raw();
    for (const int signal : handled) {
        install(signal, SIG_DFL);
    }
    for (const int signal : crashes) {
        install(signal, SIG_DFL);
    }
    (void)::close(process.pipe.exchange(-1));
}

void Terminal::enter_raw() {
    if (!is_terminal_ || !in_foreground() || process.raw ||
        ::tcgetattr(STDIN_FILENO, &process.before) != 0) {
        return;
    }
    termios raw = process.before;
    ::cfmakeraw(&raw);
    raw.c_oflag |= OPOST; // our own lines end in a plain newline
    process.raw = true;
    (void)::tcsetattr(STDIN_FILENO, TCSANOW, &raw);
}

void Terminal::leave_raw() { restore_settings(); }

void Terminal::greet() {
    if (is_terminal_) {
        tell(std::string("serial console: ") + std::string(help));
    }
}

control::ConsoleInput Terminal::take(bool input_ready) {
    control::ConsoleInput in;
    take_signals(in);
    if (!input_ready || !input_open_ || (is_terminal_ && !in_foreground())) {
        return in;
    }
    u8 bytes[1024];
    const ssize_t got = ::read(STDIN_FILENO, bytes, sizeof(bytes));
    if (got > 0) {
        take_keys(std::span(bytes, static_cast<std::size_t>(got)), in);
    } else if (got == 0 || (errno != EINTR && errno != EAGAIN)) {
        input_open_ = false;
    }
    return in;
}

void Terminal::take_keys(std::span<const u8> keys, control::ConsoleInput& in) {
    if (!is_terminal_) {
        in.bytes.assign(keys.begin(), keys.end());
        return;
    }
    for (const u8 key : keys) {
        if (!escaped_) {
            escaped_ = key == escape_key;
            if (!escaped_) {
                in.bytes.push_back(key);
            }
            continue;
        }
        escaped_ = false;
        if (key == escape_key) {
            in.bytes.push_back(key);
        } else if (key == 'x') {
            in.quit = true;
        } else if (key == 'c') {
            in.status = true;
        } else {
            tell(help);
        }
    }
}

void Terminal::take_signals(control::ConsoleInput& in) {
    u8 signal = 0;
    while (::read(signals_.get(), &signal, 1) == 1) {
        if (signal == SIGTSTP) {
            (void)flush();
            leave_raw();
            (void)::kill(::getpid(), SIGSTOP);
        } else if (signal == SIGCONT) {
            process.raw = false; // a shell has put its own settings back
            enter_raw();
        } else {
            in.signal = signal;
        }
    }
}

Result<> Terminal::write(std::span<const u8> bytes) {
    pending_.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    const bool line = !bytes.empty() && bytes.back() == '\n';
    return line || pending_.size() >= keep_back ? flush() : Result<>{};
}

Result<> Terminal::flush() {
    std::string out;
    out.swap(pending_);
    for (std::size_t done = 0; done < out.size();) {
        const ssize_t sent = ::write(STDOUT_FILENO, out.data() + done, out.size() - done);
        if (sent >= 0) {
            done += static_cast<std::size_t>(sent);
        } else if (errno == EAGAIN) {
            pollfd wait{.fd = STDOUT_FILENO, .events = POLLOUT, .revents = 0};
            (void)::poll(&wait, 1, -1);
        } else if (errno != EINTR) {
            return fail_errno("writing the guest's serial output to standard output", errno);
        }
    }
    return {};
}

void Terminal::tell(std::string_view line) {
    (void)flush();
    const std::string text = (process.raw ? "\nvm: " : "vm: ") + std::string(line) + "\n";
    (void)!::write(STDERR_FILENO, text.data(), text.size());
}

} // namespace nestor::cli
