// Counters as stored value plus what the vCPU retired since (SDM 3B 19.2.2).
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
constexpr u64 select_writable = mask(31, 0) & ~bit(21); ///< bit 21 is AnyThread, not offered
constexpr u64 fixed_control_writable = 0xbbb;

unsigned global_bit(unsigned n) { return n < Pmu::counters ? n : 32 + n - Pmu::counters; }

/// Events that have a count here: unhalted core cycles, instructions, reference cycles
/// (SDM 3B table 19-1: event select and umask).
bool event_counts(u64 select) {
    const u64 event = select & 0xffff;
    return event == 0x003c || event == 0x00c0 || event == 0x013c;
}

} // namespace

bool Pmu::counting_fixed(unsigned n) const {
    return (s_.fixed_control >> (4 * n) & 3) != 0 && (s_.global_control >> (32 + n) & 1) != 0;
}

bool Pmu::counting(unsigned n) const {
    if (n >= counters) {
        return counting_fixed(n - counters);
    }
    return (s_.select[n] & select_enable) != 0 && (s_.global_control >> n & 1) != 0 &&
           event_counts(s_.select[n]);
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

u64 Pmu::value(unsigned n, u64 retired) const {
    return (stored(n) + (counting(n) ? retired - s_.since : 0)) & width_mask;
}

bool Pmu::advance(u64 retired) {
    bool due = false;
    for (unsigned n = 0; n < counters + fixed_counters; ++n) {
        if (!counting(n)) {
            continue;
        }
        const u64 sum = stored(n) + (retired - s_.since);
        stored(n) = sum & width_mask;
        if (sum > width_mask) {
            s_.global_status |= bit(global_bit(n));
            due |= interrupts(n);
        }
    }
    s_.since = retired;
    return due;
}

u64 Pmu::until_overflow(u64 retired) const {
    u64 nearest = ~u64{0};
    for (unsigned n = 0; n < counters + fixed_counters; ++n) {
        if (counting(n) && interrupts(n)) {
            nearest = std::min(nearest, width_mask + 1 - value(n, retired));
        }
    }
    return nearest;
}

std::optional<u64> Pmu::read(Msr msr, u64 retired) const {
    const u32 index = static_cast<u32>(msr);
    if (msr >= Msr::pmc0 && msr <= Msr::pmc3) {
        return value(index - static_cast<u32>(Msr::pmc0), retired);
    }
    if (msr >= Msr::perf_evt_sel0 && msr <= Msr::perf_evt_sel3) {
        return s_.select[index - static_cast<u32>(Msr::perf_evt_sel0)];
    }
    if (msr >= Msr::fixed_ctr0 && msr <= Msr::fixed_ctr2) {
        return value(counters + index - static_cast<u32>(Msr::fixed_ctr0), retired);
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

Pmu::Write Pmu::write(Msr msr, u64 value, u64 retired) {
    advance(retired);
    const u32 index = static_cast<u32>(msr);
    const auto checked = [](u64& field, u64 v, u64 writable) {
        if ((v & ~writable) != 0) {
            return Write::gp;
        }
        field = v;
        return Write::done;
    };
    if (msr >= Msr::pmc0 && msr <= Msr::pmc3) {
        // SDM 3B 19.2.6: legacy writes take 32 bits, sign extended.
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

std::optional<u64> Pmu::rdpmc(u32 ecx, u64 retired) const {
    const unsigned n = ecx & 0x3fffffff;
    if ((ecx & bit<u32>(30)) != 0) {
        return n < fixed_counters ? std::optional(value(counters + n, retired)) : std::nullopt;
    }
    return ecx < counters ? std::optional(value(n, retired)) : std::nullopt;
}

} // namespace nestor::hv
