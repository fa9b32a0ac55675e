// Progress and interruption of long work.
//
// Owns the last line of the terminal and the handlers of SIGINT and SIGTERM while work lasts. The
// handler only counts; that count is the one state here that is not passed around.
#include "src/cli/work.hpp"

#include <algorithm>
#include <atomic>
#include <csignal>
#include <cstdio>

#include <sys/ioctl.h>
#include <unistd.h>

#include "src/cli/verbs.hpp"

namespace nestor::cli {
namespace {

constexpr auto silent_for = std::chrono::seconds(1);
constexpr auto redraw_after = std::chrono::milliseconds(100);
constexpr auto line_after = std::chrono::seconds(5);
constexpr int signals_to_exit = 3;
constexpr int signals[] = {SIGINT, SIGTERM};
constexpr std::size_t bar_cells = 30;

std::atomic<int> asked{0};

void count_signal(int /*signal*/) {
    if (++asked >= signals_to_exit) {
        ::_exit(static_cast<int>(ErrorCode::failed));
    }
}

std::size_t columns() {
    winsize size{};
    return ::ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col != 0 ? size.ws_col : 80;
}

} // namespace

Work::Work(std::string what, bool quiet)
    : what_(std::move(what)), quiet_(quiet), terminal_(::isatty(STDERR_FILENO) == 1) {}

Work::~Work() {
    for (const int signal : signals) {
        if (catching_) {
            ::signal(signal, SIG_DFL);
        }
    }
    if (drawn_ && terminal_) {
        std::fprintf(stderr, "\r\033[K");
    }
}

/// "43 %, 220 MiB of 512 MiB, 3 s left"; what is done where the total is not known.
std::string Work::state_text(u64 done, u64 total, Clock::duration took) const {
    if (total == 0) {
        return size_text(done);
    }
    const double part = std::min(1.0, static_cast<double>(done) / static_cast<double>(total));
    const double seconds = std::chrono::duration<double>(took).count();
    char text[64];
    std::snprintf(text, sizeof(text), "%3.0f %%, %s of %s, %.0f s left", 100 * part,
                  size_text(done).c_str(), size_text(total).c_str(),
                  part > 0 ? seconds / part - seconds : 0.0);
    return text;
}

std::string Work::bar(u64 done, u64 total, const std::string& text) const {
    const std::size_t filled =
        total == 0 ? 0
                   : static_cast<std::size_t>(
                         static_cast<double>(bar_cells) *
                         std::min(1.0, static_cast<double>(done) / static_cast<double>(total)));
    std::string line = "vm: " + what_ + " [" + std::string(filled, '#') +
                       std::string(bar_cells - filled, '.') + "] " + text;
    line.resize(std::min(line.size(), columns() - 1));
    return line;
}

void Work::show(u64 done, u64 total) {
    const auto now = Clock::now();
    const auto since = drawn_ ? now - last_ : now - start_;
    const auto pause = !drawn_     ? Clock::duration(silent_for)
                       : terminal_ ? Clock::duration(redraw_after)
                                   : Clock::duration(line_after);
    if (quiet_ || since < pause) {
        return;
    }
    drawn_ = true;
    last_ = now;
    const std::string text = state_text(done, total, now - start_);
    if (terminal_) {
        std::fprintf(stderr, "\r%s\033[K", bar(done, total, text).c_str());
    } else {
        std::fprintf(stderr, "vm: %s: %s\n", what_.c_str(), text.c_str());
    }
}

snapshot::Progress Work::progress() {
    catching_ = true;
    asked = 0;
    struct sigaction action{};
    action.sa_handler = count_signal;
    for (const int signal : signals) {
        ::sigaction(signal, &action, nullptr);
    }
    return [this](u64 done, u64 total) {
        show(done, total);
        return asked == 0;
    };
}

} // namespace nestor::cli
