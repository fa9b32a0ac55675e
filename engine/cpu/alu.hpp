// Two-operand arithmetic and the condition codes, for handlers of every group.
#pragma once

#include "engine/cpu/operands.hpp"

namespace nestor::cpu {

enum class Alu : u8 { add, or_, adc, sbb, and_, sub, xor_, cmp, test };

template <class T>
[[gnu::always_inline]] inline void set_lazy(Cpu& cpu, FlagKind kind, T result, T a, T b) {
    cpu.lazy.result = result;
    cpu.lazy.a = a;
    cpu.lazy.b = b;
    cpu.lazy.set(kind, bits_of<T>);
}
template <class T>
[[gnu::always_inline]] inline void set_lazy_logic(Cpu& cpu, T result) {
    cpu.lazy.result = result;
    cpu.lazy.set(FlagKind::logic, bits_of<T>);
}
/// Writes all six arithmetic flags.
inline void set_all_flags(Cpu& cpu, u64 values) {
    cpu.s.rflags = (cpu.s.rflags & ~arch::rflags::arithmetic) | values;
    cpu.lazy.settle();
}
/// ZF, SF and PF of a result.
template <class T>
[[nodiscard]] inline u64 result_flags(T r) {
    using namespace arch;
    return (r == 0 ? rflags::zf : 0) | (static_cast<Signed<T>>(r) < 0 ? rflags::sf : 0) |
           ((std::popcount(static_cast<u8>(r)) & 1) == 0 ? rflags::pf : 0);
}

template <Alu operation, class T, bool flags>
[[gnu::always_inline]] inline T alu(Cpu& cpu, T a, T b) {
    T r;
    if constexpr (operation == Alu::add) {
        r = static_cast<T>(a + b);
    } else if constexpr (operation == Alu::adc) {
        r = static_cast<T>(a + b + T{cpu.cf()});
    } else if constexpr (operation == Alu::sub || operation == Alu::cmp) {
        r = static_cast<T>(a - b);
    } else if constexpr (operation == Alu::sbb) {
        r = static_cast<T>(a - b - T{cpu.cf()});
    } else if constexpr (operation == Alu::or_) {
        r = a | b;
    } else if constexpr (operation == Alu::xor_) {
        r = a ^ b;
    } else {
        r = a & b;
    }
    if constexpr (flags) {
        if constexpr (operation == Alu::add || operation == Alu::adc) {
            set_lazy(cpu, FlagKind::add, r, a, b);
        } else if constexpr (operation == Alu::sub || operation == Alu::sbb ||
                             operation == Alu::cmp) {
            set_lazy(cpu, FlagKind::sub, r, a, b);
        } else {
            set_lazy_logic(cpu, r);
        }
    }
    return r;
}
template <class T, bool flags>
[[gnu::always_inline]] inline T increment(Cpu& cpu, T a) {
    const T r = static_cast<T>(a + 1);
    if constexpr (flags) {
        cpu.lazy.set_step(FlagStep::inc, bits_of<T>, r);
    }
    return r;
}
template <class T, bool flags>
[[gnu::always_inline]] inline T decrement(Cpu& cpu, T a) {
    const T r = static_cast<T>(a - 1);
    if constexpr (flags) {
        cpu.lazy.set_step(FlagStep::dec, bits_of<T>, r);
    }
    return r;
}

// Bodies (operands.hpp): the first operand is modified, or only read where nothing is written.

template <Alu operation, class T, bool flags>
struct AluReg {
    static T run(Cpu& cpu, const Op* op, T v) {
        return alu<operation, T, flags>(cpu, v, cpu.reg<T>(op->src));
    }
};
template <Alu operation, class T, bool flags>
struct AluImm {
    static T run(Cpu& cpu, const Op* op, T v) {
        return alu<operation, T, flags>(cpu, v, static_cast<T>(op->imm));
    }
};
/// Register op->dst with the operand read.
template <Alu operation, class T, bool flags>
struct AluLoad {
    static void run(Cpu& cpu, const Op* op, T v) {
        const u8 dst = op->dst;
        cpu.set_reg<T>(dst, alu<operation, T, flags>(cpu, cpu.reg<T>(dst), v));
    }
};
/// CMP and TEST of the operand read with register op->dst, with an immediate, and the other way.
template <Alu operation, class T, bool flags>
struct CompareReg {
    static void run(Cpu& cpu, const Op* op, T v) {
        alu<operation, T, flags>(cpu, v, cpu.reg<T>(op->dst));
    }
};
template <Alu operation, class T, bool flags>
struct CompareImm {
    static void run(Cpu& cpu, const Op* op, T v) {
        alu<operation, T, flags>(cpu, v, static_cast<T>(op->imm));
    }
};
template <Alu operation, class T, bool flags>
struct CompareLoad {
    static void run(Cpu& cpu, const Op* op, T v) {
        alu<operation, T, flags>(cpu, cpu.reg<T>(op->dst), v);
    }
};

template <class T, bool flags>
struct Inc {
    static T run(Cpu& cpu, const Op*, T v) { return increment<T, flags>(cpu, v); }
};
template <class T, bool flags>
struct Dec {
    static T run(Cpu& cpu, const Op*, T v) { return decrement<T, flags>(cpu, v); }
};

/// Condition code cc of the current flags (SDM 1 appendix B).
template <unsigned cc>
[[nodiscard]] inline bool condition_of(const Cpu& cpu) {
    using namespace arch;
    const LazyFlags& l = cpu.lazy;
    const u64 f = cpu.s.rflags;
    bool v;
    if constexpr (cc >> 1 == 1) {
        v = l.cf(f);
    } else if constexpr (cc >> 1 == 2) {
        v = l.zf(f);
    } else if constexpr (cc >> 1 == 3) {
        v = l.cf(f) || l.zf(f);
    } else if constexpr (cc >> 1 == 4) {
        v = l.sf(f);
    } else {
        const u64 all = cpu.rflags();
        const bool less = ((all & rflags::sf) != 0) != ((all & rflags::of) != 0);
        if constexpr (cc >> 1 == 0) {
            v = (all & rflags::of) != 0;
        } else if constexpr (cc >> 1 == 5) {
            v = (all & rflags::pf) != 0;
        } else if constexpr (cc >> 1 == 6) {
            v = less;
        } else {
            v = less || (all & rflags::zf) != 0;
        }
    }
    return v != ((cc & 1) != 0);
}

/// Calls f with the condition code as a compile-time constant.
template <class F>
bool by_condition(unsigned cc, F f) {
    switch (cc) {
#define NESTOR_CONDITION(n)                                                                        \
    case n:                                                                                        \
        return f(std::integral_constant<unsigned, n>{});
        NESTOR_CONDITION(0)
        NESTOR_CONDITION(1)
        NESTOR_CONDITION(2)
        NESTOR_CONDITION(3)
        NESTOR_CONDITION(4)
        NESTOR_CONDITION(5)
        NESTOR_CONDITION(6)
        NESTOR_CONDITION(7)
        NESTOR_CONDITION(8)
        NESTOR_CONDITION(9)
        NESTOR_CONDITION(10)
        NESTOR_CONDITION(11)
        NESTOR_CONDITION(12)
        NESTOR_CONDITION(13)
        NESTOR_CONDITION(14)
        NESTOR_CONDITION(15)
#undef NESTOR_CONDITION
    default:
        return false;
    }
}

} // namespace nestor::cpu
