// Arithmetic flags, kept lazily: the last result and operands instead of the flags themselves.
//
// Most flags are never read. An instruction whose flags may be read stores result, operands and
// kind; readers compute what they ask for. Eager results are written to RFLAGS with kind `eager`.
// INC and DEC leave CF alone, so what they give is kept beside the operation before them.
// SDM 1 3.4.3.1; carries out of bit n of a + b (+ c) are (a & b) | ((a | b) & ~result).
#pragma once

#include <bit>

#include "engine/arch/bits.hpp"

namespace nestor::cpu {

enum class FlagKind : u8 {
    eager, ///< RFLAGS is right
    add,   ///< a + b (+ carry) = result
    sub,   ///< a - b (- borrow) = result
    logic, ///< result; CF = OF = AF = 0
};
/// An INC or DEC since then, which gave `step_result`: all flags but CF are its.
enum class FlagStep : u8 { none, inc, dec };

struct LazyFlags {
    u64 result = 0; ///< truncated to the operand size
    u64 a = 0;      ///< first operand, truncated
    u64 b = 0;      ///< second operand, truncated
    FlagKind kind = FlagKind::eager;
    u8 bits = 64; ///< operand size: 8, 16, 32 or 64
    FlagStep step = FlagStep::none;
    u8 step_bits = 64;
    u64 step_result = 0; ///< truncated

    /// All six flags come from an operation of this size (with its result and operands), or are in
    /// RFLAGS.
    void set(FlagKind k, u8 size) {
        kind = k;
        bits = size;
        step = FlagStep::none;
        step_bits = size;
    }
    void settle() { set(FlagKind::eager, 64); }
    void set_step(FlagStep s, u8 size, u64 r) {
        step = s;
        step_bits = size;
        step_result = r;
    }
    [[nodiscard]] bool settled() const { return kind == FlagKind::eager && step == FlagStep::none; }

    // Flags, where those that are not kept here are in `rflags`.

    [[nodiscard]] bool cf(u64 rflags) const {
        switch (kind) {
        case FlagKind::add:
            return top((a & b) | ((a | b) & ~result));
        case FlagKind::sub:
            return top((~a & b) | ((~a | b) & result));
        case FlagKind::logic:
            return false;
        case FlagKind::eager:
            break;
        }
        return (rflags & arch::rflags::cf) != 0;
    }
    [[nodiscard]] bool zf(u64 rflags) const {
        if (step != FlagStep::none) {
            return step_result == 0;
        }
        return kind == FlagKind::eager ? (rflags & arch::rflags::zf) != 0 : result == 0;
    }
    [[nodiscard]] bool sf(u64 rflags) const {
        if (step != FlagStep::none) {
            return (step_result >> (step_bits - 1) & 1) != 0;
        }
        return kind == FlagKind::eager ? (rflags & arch::rflags::sf) != 0 : top(result);
    }
    /// `rflags` with the six arithmetic flags put right.
    [[nodiscard]] u64 apply(u64 rflags) const {
        u64 six = rflags & arch::rflags::arithmetic;
        if (kind != FlagKind::eager) {
            six = of_result(result, bits) | (cf(0) ? arch::rflags::cf : 0) | carries();
        }
        if (step != FlagStep::none) {
            six = (six & arch::rflags::cf) | of_result(step_result, step_bits) | step_carries();
        }
        return (rflags & ~arch::rflags::arithmetic) | six;
    }

private:
    [[nodiscard]] bool top(u64 v) const { return (v >> (bits - 1) & 1) != 0; }

    /// ZF, SF and PF.
    static u64 of_result(u64 r, unsigned size) {
        using namespace arch;
        return (r == 0 ? rflags::zf : 0) | ((r >> (size - 1) & 1) != 0 ? rflags::sf : 0) |
               ((std::popcount(static_cast<u8>(r)) & 1) == 0 ? rflags::pf : 0);
    }
    /// AF and OF.
    [[nodiscard]] u64 carries() const {
        using namespace arch;
        if (kind == FlagKind::logic) {
            return 0;
        }
        const u64 overflow =
            kind == FlagKind::add ? (a ^ result) & (b ^ result) : (a ^ b) & (a ^ result);
        return (((a ^ b ^ result) & 0x10) != 0 ? rflags::af : 0) | (top(overflow) ? rflags::of : 0);
    }
    [[nodiscard]] u64 step_carries() const {
        using namespace arch;
        const u64 sign = u64{1} << (step_bits - 1);
        const bool up = step == FlagStep::inc;
        return ((step_result & 0xf) == (up ? 0u : 0xfu) ? rflags::af : 0) |
               (step_result == (up ? sign : sign - 1) ? rflags::of : 0);
    }
};

} // namespace nestor::cpu
