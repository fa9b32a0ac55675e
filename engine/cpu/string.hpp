// What the string instructions share: index registers, the direction, and REP's counting.
#pragma once

#include "engine/cpu/operands.hpp"

namespace nestor::cpu {

inline constexpr unsigned rcx_index = 1;
inline constexpr unsigned rsi_index = 6;
inline constexpr unsigned rdi_index = 7;

/// Address mask of a string instruction (op->aux): 16, 32 or 64 bits.
[[nodiscard]] inline u64 string_mask(const Op* op) { return op->aux; }
/// Adds to RCX, RSI or RDI with the address size.
inline void add_index(Cpu& cpu, unsigned reg, u64 delta, u64 mask) {
    u64& r = cpu.s.gpr[reg];
    const u64 v = (r + delta) & mask;
    r = mask == 0xffff ? (r & ~mask) | v : v;
}
[[nodiscard]] inline bool goes_down(const Cpu& cpu) {
    return (cpu.s.rflags & arch::rflags::df) != 0;
}
[[nodiscard]] inline u64 string_step(const Cpu& cpu, u64 size) {
    return goes_down(cpu) ? u64{0} - size : size;
}

/// How far a repeated instruction came.
struct Progress {
    u64 done = 0;       ///< iterations completed
    bool ok = true;     ///< false: an access of the next one stopped it, outcome says why
    bool ended = false; ///< nothing is left to do
};

/// Iterations that a REP instruction may do now. It is the last of its block, so the budget has
/// been charged for it: one, and what is left. With work pending at the boundary, only one.
[[nodiscard]] inline u64 allowed_iterations(const Cpu& cpu) {
    return cpu.attention != 0 ? 1 : 1 + static_cast<u64>(cpu.budget);
}

/// Charges the iterations and goes on: behind the instruction when it ended, else to the
/// dispatcher with RIP on the instruction, which is then at a boundary like any other.
inline const Op* finish_repeat(Cpu& cpu, const Op* op, Progress p) {
    cpu.budget -= static_cast<i64>(p.done);
    if (!p.ok) {
        return cpu.abandon(op);
    }
    cpu.budget += 1;
    if (p.ended) {
        cpu.s.rflags &= ~arch::rflags::rf;
        return next(cpu, op);
    }
    cpu.s.rflags |= arch::rflags::rf; // after any iteration but the last (SDM 3B 18.3.1.1)
    return cpu.leave_to(op, cpu.rip_of(op));
}

/// Fills op->aux with the address mask and op->ea with the source segment.
void set_string(Emit& e);
[[nodiscard]] inline bool has_rep(const Emit& e) {
    return (e.d.insn.attributes &
            (ZYDIS_ATTRIB_HAS_REP | ZYDIS_ATTRIB_HAS_REPE | ZYDIS_ATTRIB_HAS_REPNE)) != 0;
}

/// INS and OUTS (ops_string_port.cpp).
bool emit_string_port(Emit& e);

} // namespace nestor::cpu
