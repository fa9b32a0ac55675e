// The timer of the local APIC (SDM 3A 11.5.4): one-shot, periodic, TSC deadline.
//
// The timer is a deadline in ticks, never a countdown: the current count is computed when somebody
// reads it. It counts the core crystal clock, 25 MHz, which is 40 ticks of the 1 GHz TSC that CPUID
// leaf 15H declares. With APIC-register virtualization the guest's write is in the page before
// anybody looks, so what took effect is kept beside it (note_timer, restore_timer).
#include <algorithm>

#include "engine/hypervisor/lapic.hpp"

namespace nestor::hv {

namespace {

constexpr u64 ticks_per_crystal = 40;
constexpr u64 never = ~u64{0};

/// Timer modes beside one-shot, which is 0 (SDM 3A figure 11-8).
constexpr unsigned periodic = 1, tsc_deadline_mode = 2;

} // namespace

void Lapic::note_timer() {
    timer_ = {reg(ApicRegister::lvt_timer), reg(ApicRegister::timer_initial),
              reg(ApicRegister::timer_divide)};
}

void Lapic::restore_timer() {
    reg(ApicRegister::lvt_timer) = timer_.lvt;
    reg(ApicRegister::timer_initial) = timer_.initial;
    reg(ApicRegister::timer_divide) = timer_.divide;
}

// Ticks per timer count: the divide configuration is bits 3, 1, 0 (SDM 3A figure 11-10).
u64 Lapic::timer_period() const {
    const u32 d = reg(ApicRegister::timer_divide);
    const u32 code = (d & 3) | (d >> 1 & 4);
    return ticks_per_crystal * (code == 7 ? 1 : u64{2} << code);
}

u32 Lapic::timer_count(u64 ticks) const {
    if (s_.timer_deadline == never || s_.timer_deadline <= ticks) {
        return 0;
    }
    const u64 unit = timer_period();
    return static_cast<u32>((s_.timer_deadline - ticks + unit - 1) / unit);
}

void Lapic::start_timer(u64 ticks) {
    const u64 count = reg(ApicRegister::timer_initial);
    s_.timer_deadline = count == 0 ? never : ticks + count * timer_period();
}

void Lapic::write_timer_initial(u32 value, u64 ticks) {
    if (timer_mode() != tsc_deadline_mode) {
        reg(ApicRegister::timer_initial) = value;
        start_timer(ticks);
    }
}

void Lapic::write_timer_divide(u32 value, u64 ticks) {
    // A running count goes on at the new rate.
    const u32 left = timer_count(ticks);
    reg(ApicRegister::timer_divide) = value & 0xb;
    if (s_.timer_deadline != never && left != 0) {
        s_.timer_deadline = ticks + left * timer_period();
    }
}

void Lapic::write_lvt_timer(u32 value, u64 ticks) {
    const unsigned mode_before = timer_mode();
    reg(ApicRegister::lvt_timer) = value;
    const unsigned mode_after = timer_mode();
    if ((mode_before == tsc_deadline_mode) != (mode_after == tsc_deadline_mode)) {
        // SDM 3A 11.5.4.1: changing to or from TSC-deadline mode disarms the timer.
        s_.tsc_deadline = 0;
        s_.timer_deadline = never;
        reg(ApicRegister::timer_initial) = 0;
    } else if (mode_after == periodic && s_.timer_deadline == never &&
               reg(ApicRegister::timer_initial) != 0) {
        start_timer(ticks);
    }
}

u64 Lapic::tsc_deadline() const { return timer_mode() == tsc_deadline_mode ? s_.tsc_deadline : 0; }

void Lapic::write_tsc_deadline(u64 value) {
    if (timer_mode() == tsc_deadline_mode) {
        s_.tsc_deadline = value;
    }
}

void Lapic::run_timer(u64 ticks, u64 tsc) {
    if (s_.tsc_deadline != 0 && tsc >= s_.tsc_deadline) {
        s_.tsc_deadline = 0;
        raise_local(ApicRegister::lvt_timer);
    }
    if (s_.timer_deadline <= ticks) {
        if (timer_mode() == periodic && reg(ApicRegister::timer_initial) != 0) {
            const u64 period = reg(ApicRegister::timer_initial) * timer_period();
            s_.timer_deadline += (1 + (ticks - s_.timer_deadline) / period) * period;
        } else {
            s_.timer_deadline = never;
        }
        raise_local(ApicRegister::lvt_timer);
    }
}

u64 Lapic::next_deadline(u64 ticks, u64 tsc) const {
    if (s_.tsc_deadline == 0) {
        return s_.timer_deadline;
    }
    // As run_timer() compares them: unsigned, so the deadline may be most of 2^64 away.
    const u64 left = tsc >= s_.tsc_deadline ? 0 : s_.tsc_deadline - tsc;
    return std::min(s_.timer_deadline, left > never - ticks ? never : ticks + left);
}

} // namespace nestor::hv
