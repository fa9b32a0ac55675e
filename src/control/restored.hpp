// How a restored machine stands to the one that was saved: whether it is the same one, and what
// time it finds.
#pragma once

#include <optional>
#include <string>

#include "src/base/result.hpp"
#include "src/machine/machine.hpp"

namespace nestor::control {

enum class RestoreTier : u8 {
    again,  ///< the same run once more, bit for bit, as often as wanted
    resume, ///< the one machine goes on, here and nowhere else
    clone,  ///< another machine: an identity and entropy of its own
};

/// What happens to guest time.
struct ClockChoice {
    enum class Kind : u8 {
        resume,  ///< goes on where it stood
        advance, ///< as much passes as passed since the save
        at,      ///< the real-time clock shows `seconds`
    };
    Kind kind = Kind::resume;
    i64 seconds = 0; ///< since 1970
};

/// "resume" or "clone"; usage error otherwise.
[[nodiscard]] Result<RestoreTier> parse_tier(const std::string& text);
/// "resume", "advance" or "at=TIME": seconds since 1970, or 2026-03-01T12:00:00Z.
[[nodiscard]] Result<ClockChoice> parse_clock(const std::string& text);

/// Gives the machine an identity of its own: generation ID and entropy from the host.
[[nodiscard]] Result<> make_clone(machine::Machine& machine);
/// Changes the machine's time as chosen. `saved` and `now` are host times in nanoseconds since
/// 1970. Returns what was done, for people: "clock advanced by 12.5 s".
[[nodiscard]] std::string set_clock(machine::Machine& machine, const ClockChoice& choice, i64 saved,
                                    i64 now);

} // namespace nestor::control
