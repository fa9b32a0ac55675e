// ACPI fixed hardware.
//
// Owns PM1_STS, PM1_EN, PM1_CNT, GPE0_STS, GPE0_EN and which half turns of the PM timer were
// reported. The timer is a function of ticks. TMR_STS is set whenever bit 23 of the timer changes
// (ACPI 6.4, 4.8.3.3), which makes a deadline only while TMR_EN asks for it.
#include "src/device/acpi_pm.hpp"

#include <algorithm>

#include "src/base/bits.hpp"

namespace nestor::device {
namespace {

constexpr u16 timer_status = 1 << 0;
constexpr u16 global_status = 1 << 5;
constexpr u16 power_button_status = 1 << 8;
constexpr u16 rtc_status = 1 << 10;
constexpr u16 status_bits = timer_status | global_status | power_button_status | rtc_status;

constexpr u16 control_sci_enable = 1 << 0;
constexpr u16 control_bus_master_reload = 1 << 1;
constexpr unsigned sleep_type_shift = 10;
constexpr u16 control_sleep_type = 7 << sleep_type_shift;
constexpr u16 control_sleep_enable = 1 << 13; // write-only

constexpr unsigned timer_bits = 24;

} // namespace

u8 AcpiPm::read(unsigned offset, Ticks now) {
    advance(now);
    const unsigned shift = offset % 4 * 8;
    u32 value = 0;
    switch (offset / 4) {
    case 0:
        value = s_.status | u32{s_.enable} << 16;
        break;
    case 1:
        value = s_.control;
        break;
    case 2:
        value = static_cast<u32>(timer_.cycles(now)) & mask<u32>(timer_bits - 1, 0);
        break;
    default:
        value = s_.event_status | u32{s_.event_enable} << 8;
        break;
    }
    return static_cast<u8>(value >> shift);
}

bool AcpiPm::write(unsigned offset, u8 value, Ticks now) {
    advance(now);
    const unsigned shift = offset % 2 * 8;
    const u16 byte_mask = static_cast<u16>(0xff << shift);
    const u16 placed = static_cast<u16>(value << shift);
    bool power_off = false;
    switch (offset / 2) {
    case 0:
        s_.status &= static_cast<u16>(~placed);
        break;
    case 1:
        s_.enable = static_cast<u16>((s_.enable & ~byte_mask) | (placed & status_bits));
        break;
    case 2: {
        const u16 kept = placed & (control_bus_master_reload | control_sleep_type);
        s_.control = static_cast<u16>((s_.control & ~byte_mask) | kept | control_sci_enable);
        power_off = (placed & control_sleep_enable) != 0 &&
                    (placed & control_sleep_type) >> sleep_type_shift == sleep_type_s5;
        break;
    }
    case 6: // one byte each: a write to the status clears what it names (4.8.4.1.1)
        if (shift == 0) {
            s_.event_status &= static_cast<u8>(~value);
        } else {
            s_.event_enable = value;
        }
        break;
    default: // the timer is read-only
        break;
    }
    update_deadline();
    return power_off;
}

void AcpiPm::press_power_button() { s_.status |= power_button_status; }

void AcpiPm::raise_event(unsigned number) { s_.event_status |= bit<u8>(number); }

bool AcpiPm::irq() const {
    return (s_.status & s_.enable & status_bits) != 0 || (s_.event_status & s_.event_enable) != 0;
}

void AcpiPm::advance(Ticks now) {
    const u64 half_turns = timer_.cycles(now) >> (timer_bits - 1);
    if (half_turns > s_.timer_seen) {
        s_.timer_seen = half_turns;
        s_.status |= timer_status;
    }
    update_deadline();
}

void AcpiPm::update_deadline() {
    const bool wanted = (s_.enable & timer_status) != 0 && (s_.status & timer_status) == 0;
    const bool in_range = s_.timer_seen < bit(63 - timer_bits);
    deadline_ =
        wanted && in_range ? timer_.tick_of((s_.timer_seen + 1) << (timer_bits - 1)) : no_deadline;
}

void AcpiPm::reset(Ticks now) {
    s_ = {};
    s_.timer_seen = timer_.cycles(now) >> (timer_bits - 1);
    update_deadline();
}

Result<> AcpiPm::load(const state::AcpiPm& from) {
    const u16 control_bits = control_sci_enable | control_bus_master_reload | control_sleep_type;
    if ((from.status & ~status_bits) != 0 || (from.enable & ~status_bits) != 0 ||
        (from.control & ~control_bits) != 0) {
        return fail(ErrorCode::corrupt, "status, enable or control: reserved bits");
    }
    s_ = from;
    update_deadline();
    return {};
}

} // namespace nestor::device
