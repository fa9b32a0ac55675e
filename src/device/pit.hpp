// Intel 8254 timer with the PC's port 0x61: Intel 8254 data sheet (231164).
#pragma once

#include "engine/state/board.hpp"
#include "src/base/result.hpp"
#include "src/base/types.hpp"
#include "src/device/clock.hpp"

namespace nestor::device {

/// Three counters at 1.193182 MHz. Channel 0 drives IRQ 0; channel 2 is gated by port 0x61.
class Pit final {
public:
    static constexpr u64 hz = 1193182;

    /// `tick_hz` must be at least 2 * hz, so that no output change falls between two ticks.
    explicit Pit(u64 tick_hz);

    /// Ports 0x40..0x43 and 0x61. `now` must not go back.
    [[nodiscard]] u8 read(u16 port, Ticks now);
    void write(u16 port, u8 value, Ticks now);
    /// Level of channel 0's output as of the last access or advance.
    [[nodiscard]] bool irq() const { return output(0, s_.channels[0].seen_clock); }
    /// When channel 0's output changes next. Advance to exactly that tick to see every edge.
    [[nodiscard]] Ticks next_deadline() const { return deadline_; }
    void advance(Ticks now);

    void reset(Ticks now);
    [[nodiscard]] const state::Pit& save() const { return s_; }
    [[nodiscard]] Result<> load(const state::Pit& from);

private:
    [[nodiscard]] bool running(const state::PitChannel& c) const;
    [[nodiscard]] u64 elapsed(const state::PitChannel& c, u64 clock) const;
    [[nodiscard]] bool output(unsigned channel, u64 clock) const;
    /// The first clock after `clock` at which the output changes; 0 for never.
    [[nodiscard]] u64 next_change(unsigned channel, u64 clock) const;
    [[nodiscard]] u16 counter(const state::PitChannel& c, u64 clock) const;
    [[nodiscard]] u8 status(unsigned channel, u64 clock) const;
    void settle(u64 clock);
    void load_count(state::PitChannel& c, u16 value, u64 clock);
    void set_gate(state::PitChannel& c, bool level, u64 clock);
    void write_control(u8 value, u64 clock);
    void write_counter(state::PitChannel& c, u8 value, u64 clock);
    void latch(state::PitChannel& c, u64 clock);
    u8 read_counter(state::PitChannel& c, u64 clock);
    void update_deadline();

    Oscillator oscillator_;
    state::Pit s_;
    Ticks deadline_ = no_deadline; ///< derived from s_
};

} // namespace nestor::device
