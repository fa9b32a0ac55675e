// Architectural performance monitoring version 2 (SDM 3B 19.2.2).
//
// Counters are functions of the vCPU's retired count: instructions, core cycles and reference
// cycles all advance by one an instruction (design rule 2), any other event stays at zero. The
// privilege filter of an event selector does not narrow what is counted.
#pragma once

#include <optional>

#include "engine/arch/msr.hpp"
#include "engine/state/vcpu.hpp"

namespace nestor::hv {

class Pmu final {
public:
    static constexpr unsigned counters = 4;
    static constexpr unsigned fixed_counters = 3;
    /// Bits of IA32_PERF_GLOBAL_CTRL that exist.
    static constexpr u64 global_bits = 0xf | u64{7} << 32;

    void reset() { s_ = {}; }
    /// Reads a PMU MSR at a retired count; none when it is not one of them.
    [[nodiscard]] std::optional<u64> read(arch::Msr msr, u64 retired) const;
    enum class Write : u8 { done, gp, other };
    Write write(arch::Msr msr, u64 value, u64 retired);
    /// RDPMC with this ECX; none: #GP(0).
    [[nodiscard]] std::optional<u64> rdpmc(u32 ecx, u64 retired) const;

    /// Instructions until a counter that asks for an interrupt overflows; all ones for never.
    [[nodiscard]] u64 until_overflow(u64 retired) const;
    /// Takes counts up to `retired` in; true when a PMI is due.
    bool advance(u64 retired);

    [[nodiscard]] const state::Pmu& state() const { return s_; }
    void load(const state::Pmu& from) { s_ = from; }

private:
    static constexpr u64 width_mask = (u64{1} << 48) - 1;
    [[nodiscard]] bool counting(unsigned n) const;
    [[nodiscard]] bool counting_fixed(unsigned n) const;
    [[nodiscard]] bool interrupts(unsigned n) const;
    [[nodiscard]] u64 value(unsigned n, u64 retired) const;
    [[nodiscard]] u64& stored(unsigned n);
    [[nodiscard]] u64 stored(unsigned n) const;

    state::Pmu s_;
};

} // namespace nestor::hv
