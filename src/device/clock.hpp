// Oscillators of devices as exact functions of ticks (DESIGN.md, rule 2).
#pragma once

#include <limits>

#include "src/base/types.hpp"

namespace nestor::device {

/// No event is due.
inline constexpr Ticks no_deadline{std::numeric_limits<u64>::max()};

/// An oscillator of `hz` next to a time base of `tick_hz`. Both clocks start at zero together, and
/// every conversion is exact integer arithmetic, so nothing drifts and nothing depends on when it
/// was asked.
class Oscillator final {
public:
    constexpr Oscillator(u64 hz, u64 tick_hz) : hz_(hz), tick_hz_(tick_hz) {}

    /// Whole cycles completed at `now`.
    [[nodiscard]] constexpr u64 cycles(Ticks now) const {
        return static_cast<u64>(u128{now.value()} * hz_ / tick_hz_);
    }

    /// The first tick at which `cycles` cycles are complete; no_deadline beyond the range of ticks.
    [[nodiscard]] constexpr Ticks tick_of(u64 cycles) const {
        const u128 tick = (u128{cycles} * tick_hz_ + hz_ - 1) / hz_;
        return tick >= no_deadline.value() ? no_deadline : Ticks(static_cast<u64>(tick));
    }

private:
    u64 hz_;
    u64 tick_hz_;
};

} // namespace nestor::device
