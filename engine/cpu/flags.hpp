// Arithmetic flags, kept lazily: the last result and operands instead of the flags themselves.
//
// Most flags are never read. An instruction whose flags may be read stores result, operands and
// kind; readers compute what they ask for. Eager results are written to RFLAGS with kind `eager`.
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
    inc,   ///< a + 1 = result; CF is b
    dec,   ///< a - 1 = result; CF is b
};

struct LazyFlags {
    u64 result = 0; ///< truncated to the operand size
    u64 a = 0;      ///< first operand, truncated
    u64 b = 0;      ///< second operand, truncated; old CF for inc and dec
    FlagKind kind = FlagKind::eager;
    u8 bits = 64; ///< operand size: 8, 16, 32 or 64

    [[nodiscard]] bool top(u64 v) const { return (v >> (bits - 1) & 1) != 0; }

    /// The six arithmetic flags; only for kind != eager.
    [[nodiscard]] u64 arithmetic() const {
        using namespace arch;
        u64 f = 0;
        f |= result == 0 ? rflags::zf : 0;
        f |= top(result) ? rflags::sf : 0;
        f |= (std::popcount(static_cast<u8>(result)) & 1) == 0 ? rflags::pf : 0;
        f |= cf() ? rflags::cf : 0;
        switch (kind) {
        case FlagKind::add:
            f |= ((a ^ b ^ result) & 0x10) != 0 ? rflags::af : 0;
            f |= top((a ^ result) & (b ^ result)) ? rflags::of : 0;
            break;
        case FlagKind::sub:
            f |= ((a ^ b ^ result) & 0x10) != 0 ? rflags::af : 0;
            f |= top((a ^ b) & (a ^ result)) ? rflags::of : 0;
            break;
        case FlagKind::inc:
            f |= (result & 0xf) == 0 ? rflags::af : 0;
            f |= top(~a & result) ? rflags::of : 0;
            break;
        case FlagKind::dec:
            f |= (result & 0xf) == 0xf ? rflags::af : 0;
            f |= top(a & ~result) ? rflags::of : 0;
            break;
        case FlagKind::logic:
        case FlagKind::eager:
            break;
        }
        return f;
    }

    [[nodiscard]] bool cf() const {
        switch (kind) {
        case FlagKind::add:
            return top((a & b) | ((a | b) & ~result));
        case FlagKind::sub:
            return top((~a & b) | ((~a | b) & result));
        case FlagKind::inc:
        case FlagKind::dec:
            return b != 0;
        case FlagKind::logic:
        case FlagKind::eager:
            break;
        }
        return false;
    }
};

} // namespace nestor::cpu
