// Counters that take in what the vCPU retired whenever it stops (SDM 3B 20.2.2).
//
// Owns state::Pmu. Counters are numbered general-purpose first, then fixed, in one sequence; the
// bit of a fixed counter in the global registers is 32 + its number.
#include "engine/hypervisor/pmu.hpp"

#include <algorithm>

#include "src/base/bits.hpp"

namespace nestor::hv {

using arch::Msr;

namespace {

constexpr u64 select_enable = bit(22), select_interrupt = bit(20);
constexpr u64 select_user = bit(16), select_os = bit(17);
/// FIXED_CTR_CTRL, ENABLE (SDM 3B figure 20-2): CPL 0, and CPL 1 to 3.
constexpr unsigned level_0 = 1, outside_level_0 = 2;
constexpr u64 select_writable = mask(31, 0) & ~bit(21); ///< bit 21 is AnyThread, not offered
constexpr u64 fixed_control_writable = 0xbbb;

unsigned global_bit(unsigned n) { return n < Pmu::counters ? n : 32 + n - Pmu::counters; }

/// Events that have a count here: unhalted core cycles, instructions, reference cycles
/// (SDM 3B table 20-1: event select and umask).
bool event_counts(u64 select) {
    const u64 event = select & 0xffff;
    return event == 0x003c || event == 0x00c0 || event == 0x013c;
}

} // namespace

unsigned Pmu::levels(unsigned n) const {
    if ((s_.global_control >> global_bit(n) & 1) == 0) {
        return 0;
    }
    if (n >= counters) {
        return static_cast<unsigned>(s_.fixed_control >> (4 * (n - counters)) & 3);
    }
    const u64 select = s_.select[n];
    if ((select & select_enable) == 0 || !event_counts(select)) {
        return 0;
    }
    return ((select & select_user) != 0 ? outside_level_0 : 0) |
           ((select & select_os) != 0 ? level_0 : 0);
}

bool Pmu::interrupts(unsigned n) const {
    return n < counters ? (s_.select[n] & select_interrupt) != 0
                        : (s_.fixed_control >> (4 * (n - counters) + 3) & 1) != 0;
}

u64& Pmu::stored(unsigned n) {
    return n < counters ? s_.counter[n] : s_.fixed_counter[n - counters];
}
u64 Pmu::stored(unsigned n) const {
    return n < counters ? s_.counter[n] : s_.fixed_counter[n - counters];
}

bool Pmu::advance(Retired now) {
    const u64 all = now.all - s_.since;
    const u64 outside = now.outside_cpl0 - outside_cpl0_;
    bool due = false;
    for (unsigned n = 0; n < counters + fixed_counters; ++n) {
        const unsigned where = levels(n);
        const u64 sum = stored(n) + ((where & level_0) != 0 ? all - outside : 0) +
                        ((where & outside_level_0) != 0 ? outside : 0);
        stored(n) = sum & width_mask;
        if (sum > width_mask) {
            s_.global_status |= bit(global_bit(n));
            due |= interrupts(n);
        }
    }
    s_.since = now.all;
    outside_cpl0_ = now.outside_cpl0;
    return due;
}

u64 Pmu::until_overflow() const {
    u64 nearest = ~u64{0};
    for (unsigned n = 0; n < counters + fixed_counters; ++n) {
        if (levels(n) != 0 && interrupts(n)) {
            nearest = std::min(nearest, width_mask + 1 - stored(n));
        }
    }
    return nearest;
}

std::optional<u64> Pmu::read(Msr msr) const {
    const u32 index = static_cast<u32>(msr);
    if (msr >= Msr::pmc0 && msr <= Msr::pmc3) {
        return stored(index - static_cast<u32>(Msr::pmc0));
    }
    if (msr >= Msr::perf_evt_sel0 && msr <= Msr::perf_evt_sel3) {
        return s_.select[index - static_cast<u32>(Msr::perf_evt_sel0)];
    }
    if (msr >= Msr::fixed_ctr0 && msr <= Msr::fixed_ctr2) {
        return stored(counters + index - static_cast<u32>(Msr::fixed_ctr0));
    }
    switch (msr) {
    case Msr::fixed_ctr_ctrl:
        return s_.fixed_control;
    case Msr::perf_global_status:
        return s_.global_status;
    case Msr::perf_global_ctrl:
        return s_.global_control;
    case Msr::perf_global_ovf_ctrl:
        return 0;
    default:
        return std::nullopt;
    }
}

Pmu::Write Pmu::write(Msr msr, u64 value) {
    const u32 index = static_cast<u32>(msr);
    const auto checked = [](u64& field, u64 v, u64 writable) {
        if ((v & ~writable) != 0) {
            return Write::gp;
        }
        field = v;
        return Write::done;
    };
    if (msr >= Msr::pmc0 && msr <= Msr::pmc3) {
        // SDM 3B 20.2.6: legacy writes take 32 bits, sign extended.
        s_.counter[index - static_cast<u32>(Msr::pmc0)] = sign_extend(value, 32) & width_mask;
        return Write::done;
    }
    if (msr >= Msr::perf_evt_sel0 && msr <= Msr::perf_evt_sel3) {
        return checked(s_.select[index - static_cast<u32>(Msr::perf_evt_sel0)], value,
                       select_writable);
    }
    if (msr >= Msr::fixed_ctr0 && msr <= Msr::fixed_ctr2) {
        return checked(s_.fixed_counter[index - static_cast<u32>(Msr::fixed_ctr0)], value,
                       width_mask);
    }
    switch (msr) {
    case Msr::fixed_ctr_ctrl:
        return checked(s_.fixed_control, value, fixed_control_writable);
    case Msr::perf_global_ctrl:
        return checked(s_.global_control, value, Pmu::global_bits);
    case Msr::perf_global_ovf_ctrl: {
        u64 clear = 0;
        const Write result = checked(clear, value, Pmu::global_bits | mask(63, 62));
        s_.global_status &= ~clear;
        return result;
    }
    case Msr::perf_global_status:
        return Write::gp; // read-only
    default:
        return Write::other;
    }
}

std::optional<u64> Pmu::rdpmc(u32 ecx) const {
    const unsigned n = ecx & 0x3fffffff;
    if ((ecx & bit<u32>(30)) != 0) {
        return n < fixed_counters ? std::optional(stored(counters + n)) : std::nullopt;
    }
    return ecx < counters ? std::optional(stored(n)) : std::nullopt;
}

} // namespace nestor::hv
