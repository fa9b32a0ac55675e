// How a restored machine stands to the one that was saved.
//
// Everything here enters the machine through Machine::input. A time later than the guest's passes
// in the guest, so timers run and a running operating system notices; an earlier one can only be
// shown by the real-time clock, because ticks never go back.
#include "src/control/restored.hpp"

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstdio>
#include <ctime>

#include <sys/random.h>

#include "src/base/fd.hpp"

namespace nestor::control {
namespace {

constexpr i64 ns_per_second = 1'000'000'000;

std::optional<i64> parse_time(const std::string& text) {
    i64 seconds = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), seconds);
    if (error == std::errc{} && end == text.data() + text.size()) {
        return seconds;
    }
    std::tm tm{};
    const char* const rest = ::strptime(text.c_str(), "%Y-%m-%dT%H:%M:%S", &tm);
    if (rest == nullptr || (*rest != 0 && std::string_view(rest) != "Z")) {
        return std::nullopt;
    }
    return ::timegm(&tm);
}

std::string seconds_text(u64 ns) {
    char text[40];
    std::snprintf(text, sizeof text, "%llu.%03llu s",
                  static_cast<unsigned long long>(ns / 1000000000),
                  static_cast<unsigned long long>(ns / 1000000 % 1000));
    return text;
}

u64 ticks_of(const machine::Machine& machine, u64 ns) {
    return static_cast<u64>(u128{ns} * machine.config().tick_hz / ns_per_second);
}

} // namespace

Result<RestoreTier> parse_tier(const std::string& text) {
    if (text == "resume") {
        return RestoreTier::resume;
    }
    if (text == "clone") {
        return RestoreTier::clone;
    }
    return fail(ErrorCode::usage, "--tier " + text + ": there is no such tier",
                "write resume or clone");
}

Result<ClockChoice> parse_clock(const std::string& text) {
    using Kind = ClockChoice::Kind;
    if (text == "resume") {
        return ClockChoice{};
    }
    if (text == "advance") {
        return ClockChoice{Kind::advance};
    }
    constexpr std::string_view at = "at=";
    constexpr i64 latest = i64{1} << 38; // of what the real-time clock can show
    if (text.starts_with(at)) {
        const auto seconds = parse_time(text.substr(at.size()));
        if (seconds && *seconds >= 0 && *seconds < latest) {
            return ClockChoice{Kind::at, *seconds};
        }
    }
    return fail(ErrorCode::usage, "--clock " + text + ": there is no such choice",
                "write resume, advance, at=1772366400 or at=2026-03-01T12:00:00Z");
}

Result<> make_clone(machine::Machine& machine) {
    machine::NewGeneration generation;
    machine::Entropy entropy;
    const auto random = [](void* into, std::size_t size) {
        return ::getrandom(into, size, 0) == static_cast<ssize_t>(size);
    };
    if (!random(generation.id.data(), generation.id.size()) ||
        !random(&entropy.seed, sizeof entropy.seed)) {
        return fail_errno("getting random numbers for a clone", errno);
    }
    machine.input(generation);
    machine.input(entropy);
    return {};
}

std::string set_clock(machine::Machine& machine, const ClockChoice& choice, i64 saved, i64 now) {
    switch (choice.kind) {
    case ClockChoice::Kind::resume:
        break;
    case ClockChoice::Kind::advance: {
        const auto passed = static_cast<u64>(std::max<i64>(now - saved, 0));
        machine.input(machine::AdvanceTicks{ticks_of(machine, passed)});
        return "clock advanced by " + seconds_text(passed);
    }
    case ClockChoice::Kind::at: {
        const i64 shown = machine.clock_seconds();
        if (choice.seconds < shown) {
            machine.input(machine::SetClock{choice.seconds});
            return "clock set back to " + std::to_string(choice.seconds);
        }
        const auto ahead = static_cast<u64>(choice.seconds - shown);
        machine.input(machine::AdvanceTicks{ahead * machine.config().tick_hz});
        return "clock advanced to " + std::to_string(choice.seconds);
    }
    }
    return "clock resumed";
}

} // namespace nestor::control
