// MUL, IMUL, DIV, IDIV (SDM 2A, 2B).
//
// Undefined flags: after a multiplication SF, ZF and PF are those of the low half and AF is zero;
// after a division all six are zero. #DE for a zero divisor and for a quotient that does not fit.
#include "engine/cpu/alu.hpp"
#include "engine/cpu/ops_integer.hpp"

namespace nestor::cpu {
namespace {

using namespace arch;

/// The double-width type.
template <class T>
using Wide = std::conditional_t<
    sizeof(T) == 1, u16,
    std::conditional_t<sizeof(T) == 2, u32, std::conditional_t<sizeof(T) == 4, u64, u128>>>;
template <class T>
using SignedWide = std::conditional_t<
    sizeof(T) == 1, i16,
    std::conditional_t<sizeof(T) == 2, i32, std::conditional_t<sizeof(T) == 4, i64, i128>>>;

/// AX, or the accumulator with its upper half in DX, EDX, RDX.
template <class T>
Wide<T> wide_accumulator(const Cpu& cpu) {
    if constexpr (sizeof(T) == 1) {
        return cpu.reg<u16>(0);
    } else {
        return static_cast<Wide<T>>(Wide<T>{cpu.reg<T>(16)} << bits_of<T> | cpu.reg<T>(0));
    }
}
template <class T>
void set_wide_accumulator(Cpu& cpu, T low, T high) {
    cpu.set_reg<T>(0, low);
    cpu.set_reg<T>(sizeof(T) == 1 ? 1 : 16, high);
}
template <class T, bool flags>
void multiply_flags(Cpu& cpu, T low, bool overflow) {
    if constexpr (flags) {
        set_all_flags(cpu, result_flags(low) | (overflow ? rflags::cf | rflags::of : 0));
    }
}

template <class T, bool flags>
struct Mul {
    static void run(Cpu& cpu, const Op*, T v) {
        const auto product = static_cast<Wide<T>>(Wide<T>{v} * cpu.reg<T>(0));
        const auto low = static_cast<T>(product);
        const auto high = static_cast<T>(product >> bits_of<T>);
        set_wide_accumulator(cpu, low, high);
        multiply_flags<T, flags>(cpu, low, high != 0);
    }
};
template <class T>
SignedWide<T> signed_product(T a, T b) {
    return static_cast<SignedWide<T>>(SignedWide<T>{static_cast<Signed<T>>(a)} *
                                      static_cast<Signed<T>>(b));
}
template <class T>
bool fits(SignedWide<T> v) {
    return v == static_cast<Signed<T>>(v);
}
template <class T, bool flags>
struct Imul {
    static void run(Cpu& cpu, const Op*, T v) {
        const SignedWide<T> product = signed_product(v, cpu.reg<T>(0));
        const auto low = static_cast<T>(product);
        set_wide_accumulator(cpu, low, static_cast<T>(product >> bits_of<T>));
        multiply_flags<T, flags>(cpu, low, !fits<T>(product));
    }
};
template <class T, bool flags>
struct ImulReg {
    static void run(Cpu& cpu, const Op* op, T v) {
        const SignedWide<T> product = signed_product(cpu.reg<T>(op->dst), v);
        cpu.set_reg<T>(op->dst, static_cast<T>(product));
        multiply_flags<T, flags>(cpu, static_cast<T>(product), !fits<T>(product));
    }
};
template <class T, bool flags>
struct ImulImm {
    static void run(Cpu& cpu, const Op* op, T v) {
        const SignedWide<T> product = signed_product(v, static_cast<T>(op->imm));
        cpu.set_reg<T>(op->dst, static_cast<T>(product));
        multiply_flags<T, flags>(cpu, static_cast<T>(product), !fits<T>(product));
    }
};

template <class T, bool flags>
struct Div {
    static bool run(Cpu& cpu, const Op*, T v) {
        const Wide<T> dividend = wide_accumulator<T>(cpu);
        if (v <= static_cast<T>(dividend >> bits_of<T>)) {
            return cpu.set_fault(Exception::de, 0);
        }
        T quotient;
        T remainder;
        if constexpr (sizeof(T) == 8) {
            // The quotient fits: the host's own instruction cannot fault.
            asm("divq %4"
                : "=a"(quotient), "=d"(remainder)
                : "a"(static_cast<u64>(dividend)), "d"(static_cast<u64>(dividend >> 64)), "r"(v)
                : "cc");
        } else {
            quotient = static_cast<T>(dividend / v);
            remainder = static_cast<T>(dividend % v);
        }
        set_wide_accumulator(cpu, quotient, remainder);
        if constexpr (flags) {
            set_all_flags(cpu, 0);
        }
        return true;
    }
};
template <class T, bool flags>
struct Idiv {
    static bool run(Cpu& cpu, const Op*, T v) {
        using W = SignedWide<T>;
        const auto dividend = static_cast<W>(wide_accumulator<T>(cpu));
        const W divisor = static_cast<Signed<T>>(v);
        // The one dividend whose negation overflows never has a quotient that fits.
        constexpr W least = static_cast<W>(Wide<T>{1} << (2 * bits_of<T> - 1));
        if (divisor == 0 || dividend == least) {
            return cpu.set_fault(Exception::de, 0);
        }
        const W quotient = static_cast<W>(dividend / divisor);
        if (!fits<T>(quotient)) {
            return cpu.set_fault(Exception::de, 0);
        }
        set_wide_accumulator(cpu, static_cast<T>(quotient), static_cast<T>(dividend % divisor));
        if constexpr (flags) {
            set_all_flags(cpu, 0);
        }
        return true;
    }
};

template <template <class, bool> class Body>
bool emit_accumulator(Emit& e) {
    return by_size(e.size(0), [&](auto t) {
        return by_bool(e.flags_live, [&](auto flags) {
            using T = decltype(t);
            return emit_read<T, Body<T, flags.value>>(e, 0);
        });
    });
}
bool emit_imul(Emit& e) {
    if (e.d.insn.operand_count_visible == 1) {
        return emit_accumulator<Imul>(e);
    }
    e.op.dst = reg_of(e, 0);
    return by_wide_size(e.size(0), [&](auto t) {
        return by_bool(e.flags_live, [&](auto flags) {
            using T = decltype(t);
            if (e.d.insn.operand_count_visible == 3) {
                e.op.imm = static_cast<i32>(imm_of(e, 2));
                return emit_read<T, ImulImm<T, flags.value>>(e, 1);
            }
            return emit_read<T, ImulReg<T, flags.value>>(e, 1);
        });
    });
}

} // namespace

bool emit_multiply(Emit& e) {
    switch (e.mnemonic()) {
    case ZYDIS_MNEMONIC_MUL:
        return emit_accumulator<Mul>(e);
    case ZYDIS_MNEMONIC_IMUL:
        return emit_imul(e);
    case ZYDIS_MNEMONIC_DIV:
        return emit_accumulator<Div>(e);
    case ZYDIS_MNEMONIC_IDIV:
        return emit_accumulator<Idiv>(e);
    default:
        return false;
    }
}

} // namespace nestor::cpu
