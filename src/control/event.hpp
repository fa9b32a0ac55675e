// The EVENT of `--until`.
#pragma once

#include <string>

#include "src/base/result.hpp"

namespace nestor::control {

/// serial:TEXT, icount:N, seconds:N, l2 (a nested guest is entered). Counts and seconds are those
/// of the machine's life, which a snapshot continues; seconds are guest time.
struct Event {
    enum class Kind : u8 { never, serial, icount, seconds, l2 };
    Kind kind = Kind::never;
    std::string text; ///< with serial
    u64 value = 0;    ///< with icount; with seconds in nanoseconds
};

/// Usage errors name --until.
[[nodiscard]] Result<Event> parse_event(const std::string& text);
[[nodiscard]] std::string to_text(const Event& event);

} // namespace nestor::control
