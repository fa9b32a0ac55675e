// One line, one write(2): the terminal may be in raw mode, so lines end with "\r\n" there.
#include "src/base/log.hpp"

#include <atomic>
#include <string>

#include <unistd.h>

namespace nestor {

namespace {

std::atomic<LogLevel> threshold{LogLevel::warning};

std::string_view name_of(LogLevel level) {
    switch (level) {
    case LogLevel::error:
        return "error: ";
    case LogLevel::warning:
        return "warning: ";
    case LogLevel::info:
        return "";
    case LogLevel::debug:
        return "debug: ";
    }
    return "";
}

} // namespace

void set_log_level(LogLevel level) { threshold.store(level, std::memory_order_relaxed); }

void log(LogLevel level, std::string_view text) {
    if (level > threshold.load(std::memory_order_relaxed)) {
        return;
    }
    std::string line = "nestor: ";
    line += name_of(level);
    line += text;
    line += ::isatty(STDERR_FILENO) != 0 ? "\r\n" : "\n";
    // A log line that cannot be written has nowhere else to go.
    [[maybe_unused]] const ssize_t n = ::write(STDERR_FILENO, line.data(), line.size());
}

} // namespace nestor
