// A lamp that goes out by itself: the least device that has state, a port, memory, an interrupt
// line, a deadline and something to check when it is loaded.
#pragma once

#include "engine/state/lamp.hpp"
#include "src/base/result.hpp"
#include "src/device/clock.hpp"

namespace nestor::device {

class Lamp final {
public:
    static constexpr u64 burns_for = 1'000'000'000; ///< ticks
    static constexpr u8 too_bright = 0xff;

    [[nodiscard]] u8 level() const { return s_.level; }
    void light(u8 level, Ticks now) {
        s_.level = level;
        s_.off_at = level == 0 ? 0 : (now + burns_for).value();
    }
    [[nodiscard]] u32 label() const { return s_.label; }
    void set_label(u32 label) { s_.label = label; }

    [[nodiscard]] Ticks next_deadline() const {
        return s_.level == 0 ? no_deadline : Ticks(s_.off_at);
    }
    void advance(Ticks) { s_.level = 0; }

    void reset() { s_ = {}; }
    [[nodiscard]] const state::Lamp& save() const { return s_; }
    [[nodiscard]] Result<> load(const state::Lamp& from) {
        if (from.level == too_bright) {
            return fail(ErrorCode::corrupt, "level: no lamp is that bright");
        }
        s_ = from;
        return {};
    }

private:
    state::Lamp s_;
};

} // namespace nestor::device
