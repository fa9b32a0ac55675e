// Architectural performance monitoring version 2 (SDM 3B 20.2.2).
//
// Counters are functions of the vCPU's retired count: instructions, core cycles and reference
// cycles all advance by one an instruction (DESIGN.md, rule 2), any other event stays at zero. What
// is counted at CPL 0 and above is told apart, as the USR and OS bits ask.
#pragma once

#include <optional>

#include "engine/arch/msr.hpp"
#include "engine/state/vcpu.hpp"

namespace nestor::hv {

/// What a vCPU retired.
struct Retired {
    u64 all = 0;          ///< since reset
    u64 outside_cpl0 = 0; ///< since any fixed point in time
};

class Pmu final {
public:
    static constexpr unsigned counters = 4;
    static constexpr unsigned fixed_counters = 3;
    /// Bits of IA32_PERF_GLOBAL_CTRL that exist.
    static constexpr u64 global_bits = 0xf | u64{7} << 32;

    void reset() { s_ = {}; }
    // All of these are at the count of the last advance().

    /// Reads a PMU MSR; none when it is not one of them.
    [[nodiscard]] std::optional<u64> read(arch::Msr msr) const;
    enum class Write : u8 { done, gp, other };
    Write write(arch::Msr msr, u64 value);
    /// RDPMC with this ECX; none: #GP(0).
    [[nodiscard]] std::optional<u64> rdpmc(u32 ecx) const;

    /// Instructions after which a counter that asks for an interrupt may overflow, and before which
    /// none does; all ones for never.
    [[nodiscard]] u64 until_overflow() const;
    /// Takes what was retired in; true when a PMI is due.
    bool advance(Retired now);

    [[nodiscard]] const state::Pmu& state() const { return s_; }
    void load(const state::Pmu& from) { s_ = from; }

private:
    static constexpr u64 width_mask = (u64{1} << 48) - 1;
    /// Where counter n counts: bits of FIXED_CTR_CTRL's enable field; 0: it does not count.
    [[nodiscard]] unsigned levels(unsigned n) const;
    [[nodiscard]] bool interrupts(unsigned n) const;
    [[nodiscard]] u64& stored(unsigned n);
    [[nodiscard]] u64 stored(unsigned n) const;

    state::Pmu s_;
    u64 outside_cpl0_ = 0; ///< Retired::outside_cpl0 at s_.since
};

} // namespace nestor::hv
