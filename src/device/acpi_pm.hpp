// ACPI fixed hardware: PM1a event and control block, the PM timer and eight general-purpose events
// (ACPI 6.4, 4.8.3 and 4.8.4).
#pragma once

#include "engine/state/board.hpp"
#include "src/base/result.hpp"
#include "src/base/types.hpp"
#include "src/device/clock.hpp"

namespace nestor::device {

/// Sixteen ports from `port`: PM1_STS +0, PM1_EN +2, PM1_CNT +4, PM_TMR +8 (24 bits), GPE0_STS +12,
/// GPE0_EN +13. The machine is always in ACPI mode: SCI_EN reads as one and there is no SMI command
/// port.
class AcpiPm final {
public:
    static constexpr u16 port = 0x600;
    static constexpr u16 event_port = port + 12;
    static constexpr u64 timer_hz = 3579545;
    static constexpr unsigned sci_irq = 9;
    static constexpr u8 sleep_type_s5 = 5;

    explicit AcpiPm(u64 tick_hz) : timer_(timer_hz, tick_hz) {}

    /// One byte of the block; the timer is consistent over the bytes read at one tick.
    [[nodiscard]] u8 read(unsigned offset, Ticks now);
    /// Writes one byte. Returns whether it asks for S5, that is, for power-off.
    bool write(unsigned offset, u8 value, Ticks now);
    /// The fixed power button was pressed.
    void press_power_button();
    /// General-purpose event 0 to 7 happened.
    void raise_event(unsigned number);
    /// Level of the SCI.
    [[nodiscard]] bool irq() const;
    [[nodiscard]] Ticks next_deadline() const { return deadline_; }
    void advance(Ticks now);

    void reset(Ticks now);
    [[nodiscard]] const state::AcpiPm& save() const { return s_; }
    [[nodiscard]] Result<> load(const state::AcpiPm& from);

private:
    void update_deadline();

    Oscillator timer_;
    state::AcpiPm s_;
    Ticks deadline_ = no_deadline; ///< derived from s_
};

} // namespace nestor::device
