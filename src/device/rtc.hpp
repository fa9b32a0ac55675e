// Real-time clock and CMOS RAM: Motorola MC146818A data sheet, as PCs have it at 0x70 and 0x71.
#pragma once

#include "engine/state/board.hpp"
#include "src/base/result.hpp"
#include "src/base/types.hpp"
#include "src/device/clock.hpp"

namespace nestor::device {

/// The clock shows a declared start time plus ticks; it never looks at a host clock.
class Rtc final {
public:
    struct Config {
        u64 tick_hz = 0;
        i64 start_time = 0; ///< seconds since 1970 at tick 0
        u64 memory_below_4g = 0;
        u64 memory_above_4g = 0;
        u16 cpus = 1;
    };
    explicit Rtc(const Config& config);

    /// Ports 0x70 and 0x71. `now` must not go back.
    [[nodiscard]] u8 read(u16 port, Ticks now);
    void write(u16 port, u8 value, Ticks now);
    /// Level of IRQ 8.
    [[nodiscard]] bool irq() const;
    /// When an enabled interrupt is due next.
    [[nodiscard]] Ticks next_deadline() const { return deadline_; }
    void advance(Ticks now);
    /// What the clock shows, in seconds since 1970, and sets it.
    [[nodiscard]] i64 seconds(Ticks now) const;
    void set_seconds(i64 seconds, Ticks now);

    /// The RESET pin: interrupts off; time and RAM are kept by the battery.
    void reset();
    [[nodiscard]] const state::Rtc& save() const { return s_; }
    [[nodiscard]] Result<> load(const state::Rtc& from);

private:
    [[nodiscard]] bool stopped() const;
    [[nodiscard]] Ticks tick_of_second(i64 second) const;
    [[nodiscard]] u64 periodic_hz() const;
    [[nodiscard]] u64 periods(Ticks now) const;
    [[nodiscard]] i64 next_alarm(i64 after) const;
    [[nodiscard]] bool update_in_progress(Ticks now) const;
    [[nodiscard]] u8 read_register(u8 index, Ticks now);
    void write_register(u8 index, u8 value, Ticks now);
    void show_time(Ticks now);
    void set_time(Ticks now, u64 ticks_into_second);
    void restart_periodic(Ticks now);
    void update_deadline();

    u64 tick_hz_;
    state::Rtc s_;
    Ticks deadline_ = no_deadline; ///< derived from s_
};

} // namespace nestor::device
