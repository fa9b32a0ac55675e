// Arithmetic and the conditional jump behind it as one handler: one dispatch less, and the
// condition comes from the operands instead of the kept flags.
//
// The first of the two Ops gets the fused handler; the jump's own Op stays, describes the jump and
// counts as an instruction. Flags are kept all the same, since what follows may read them. A memory
// operand that needs the slow path goes the unfused way.
#include "engine/cpu/alu.hpp"
#include "engine/cpu/branch.hpp"

namespace nestor::cpu {
namespace {

/// What the two operands are: op->src and op->dst as the bodies in alu.hpp have them.
enum class Form : u8 {
    reg_reg, ///< CompareReg: src with dst
    reg_imm, ///< CompareImm: src with immediate
    mem_reg, ///< CompareReg
    mem_imm, ///< CompareImm
    reg_mem, ///< CompareLoad: dst with memory
    to_reg,  ///< AluReg: dst with src, into dst
    to_imm,  ///< AluImm
};

template <Alu operation, class T, Form form, Ea address>
constexpr OpFn plain_handler() {
    switch (form) {
    case Form::reg_reg:
        return handler<ReadReg<T, CompareReg<operation, T, true>>>;
    case Form::reg_imm:
        return handler<ReadReg<T, CompareImm<operation, T, true>>>;
    case Form::mem_reg:
        return handler<ReadMem<T, CompareReg<operation, T, true>, address>>;
    case Form::mem_imm:
        return handler<ReadMem<T, CompareImm<operation, T, true>, address>>;
    case Form::reg_mem:
        return handler<ReadMem<T, CompareLoad<operation, T, true>, address>>;
    case Form::to_reg:
        return handler<ModifyReg<T, AluReg<operation, T, true>>>;
    default:
        return handler<ModifyReg<T, AluImm<operation, T, true>>>;
    }
}

/// The condition after an operation without carry in, from its operands and result.
template <Alu operation, unsigned cc, class T>
[[gnu::always_inline]] inline bool known_condition(T a, T b, T r) {
    using S = Signed<T>;
    constexpr bool compares = operation == Alu::cmp || operation == Alu::sub;
    bool v;
    if constexpr (cc >> 1 == 1) {
        v = compares ? a < b : operation == Alu::add ? r < a : false;
    } else if constexpr (cc >> 1 == 2) {
        v = r == 0;
    } else if constexpr (cc >> 1 == 3) {
        v = compares ? a <= b : (operation == Alu::add && r < a) || r == 0;
    } else if constexpr (cc >> 1 == 4) {
        v = static_cast<S>(r) < 0;
    } else {
        bool less;
        if constexpr (compares) {
            less = static_cast<S>(a) < static_cast<S>(b);
        } else if constexpr (operation == Alu::add) {
            less = (static_cast<S>(r) < 0) != (static_cast<S>((a ^ r) & (b ^ r)) < 0);
        } else {
            less = static_cast<S>(r) < 0;
        }
        v = less || (cc >> 1 == 7 && r == 0);
    }
    return v != ((cc & 1) != 0);
}
[[gnu::always_inline]] inline const Op* jump_if(Cpu& cpu, const Op* jump, bool condition) {
    if (condition) {
        return go_taken(cpu, jump);
    }
    return go_fall_through(cpu, jump);
}

template <Alu operation, class T, Form form, Ea address, unsigned cc>
const Op* fused(Cpu& cpu, const Op* op) {
    T memory = 0;
    if constexpr (form == Form::mem_reg || form == Form::mem_imm || form == Form::reg_mem) {
        const u64 linear = fast_address<address>(cpu, op);
        const TlbEntry& e = cpu.tlb.at(linear);
        if (!e.reads(linear, sizeof(T))) [[unlikely]] {
            return plain_handler<operation, T, form, address>()(cpu, op);
        }
        memory = host_load<T>(e.host(linear));
    }
    const T imm = static_cast<T>(op->imm);
    const u8 dst = op->dst;
    T a;
    T b;
    if constexpr (form == Form::reg_reg) {
        a = cpu.reg<T>(op->src);
        b = cpu.reg<T>(dst);
    } else if constexpr (form == Form::reg_imm) {
        a = cpu.reg<T>(op->src);
        b = imm;
    } else if constexpr (form == Form::mem_reg) {
        a = memory;
        b = cpu.reg<T>(dst);
    } else if constexpr (form == Form::mem_imm) {
        a = memory;
        b = imm;
    } else if constexpr (form == Form::reg_mem) {
        a = cpu.reg<T>(dst);
        b = memory;
    } else if constexpr (form == Form::to_reg) {
        a = cpu.reg<T>(dst);
        b = cpu.reg<T>(op->src);
    } else {
        a = cpu.reg<T>(dst);
        b = imm;
    }
    const T r = alu<operation, T, true>(cpu, a, b);
    if constexpr (form == Form::to_reg || form == Form::to_imm) {
        cpu.set_reg<T>(dst, r);
    }
    return jump_if(cpu, op + 1, known_condition<operation, cc>(a, b, r));
}
/// INC and DEC: the conditions that do not read CF.
template <bool up, class T, unsigned cc>
const Op* fused_step(Cpu& cpu, const Op* op) {
    const T a = cpu.reg<T>(op->dst);
    const T r = up ? increment<T, true>(cpu, a) : decrement<T, true>(cpu, a);
    cpu.set_reg<T>(op->dst, r);
    constexpr Alu operation = up ? Alu::add : Alu::sub;
    return jump_if(cpu, op + 1, known_condition<operation, cc>(a, T{1}, r));
}

struct Fusion {
    OpFn plain;
    std::array<OpFn, 16> fused; ///< by condition code; null where there is none
};

template <class Make>
constexpr std::array<OpFn, 16> for_conditions(Make make) {
    // O, NO, P and NP are rare.
    std::array<OpFn, 16> f{};
#define NESTOR_FUSE(n) f[n] = make(std::integral_constant<unsigned, n>{});
    NESTOR_FUSE(2)
    NESTOR_FUSE(3)
    NESTOR_FUSE(4)
    NESTOR_FUSE(5)
    NESTOR_FUSE(6)
    NESTOR_FUSE(7)
    NESTOR_FUSE(8)
    NESTOR_FUSE(9)
    NESTOR_FUSE(12)
    NESTOR_FUSE(13)
    NESTOR_FUSE(14)
    NESTOR_FUSE(15)
#undef NESTOR_FUSE
    return f;
}
template <Alu operation, class T, Form form, Ea address = Ea::base>
constexpr Fusion fusion() {
    return {plain_handler<operation, T, form, address>(), for_conditions([](auto n) -> OpFn {
                return fused<operation, T, form, address, n.value>;
            })};
}
template <bool up, class T>
constexpr Fusion step_fusion() {
    constexpr auto make = [](auto n) -> OpFn {
        constexpr unsigned cc = n.value;
        if constexpr (cc >> 1 == 1 || cc >> 1 == 3) {
            return nullptr;
        } else {
            return fused_step<up, T, cc>;
        }
    };
    if constexpr (up) {
        return {handler<ModifyReg<T, Inc<T, true>>>, for_conditions(make)};
    } else {
        return {handler<ModifyReg<T, Dec<T, true>>>, for_conditions(make)};
    }
}

#define NESTOR_COMPARES(operation, T)                                                              \
    fusion<operation, T, Form::reg_reg>(), fusion<operation, T, Form::reg_imm>(),                  \
        fusion<operation, T, Form::mem_reg>(), fusion<operation, T, Form::mem_imm>(),              \
        fusion<operation, T, Form::mem_reg, Ea::indexed>(),                                        \
        fusion<operation, T, Form::mem_imm, Ea::indexed>()
#define NESTOR_WRITES(operation)                                                                   \
    fusion<operation, u32, Form::to_reg>(), fusion<operation, u32, Form::to_imm>(),                \
        fusion<operation, u64, Form::to_reg>(), fusion<operation, u64, Form::to_imm>()

constexpr Fusion fusions[] = {
    NESTOR_COMPARES(Alu::test, u8),
    NESTOR_COMPARES(Alu::test, u16),
    NESTOR_COMPARES(Alu::test, u32),
    NESTOR_COMPARES(Alu::test, u64),
    NESTOR_COMPARES(Alu::cmp, u8),
    NESTOR_COMPARES(Alu::cmp, u16),
    NESTOR_COMPARES(Alu::cmp, u32),
    NESTOR_COMPARES(Alu::cmp, u64),
    fusion<Alu::cmp, u8, Form::reg_mem>(),
    fusion<Alu::cmp, u8, Form::reg_mem, Ea::indexed>(),
    fusion<Alu::cmp, u16, Form::reg_mem>(),
    fusion<Alu::cmp, u16, Form::reg_mem, Ea::indexed>(),
    fusion<Alu::cmp, u32, Form::reg_mem>(),
    fusion<Alu::cmp, u32, Form::reg_mem, Ea::indexed>(),
    fusion<Alu::cmp, u64, Form::reg_mem>(),
    fusion<Alu::cmp, u64, Form::reg_mem, Ea::indexed>(),
    NESTOR_WRITES(Alu::sub),
    NESTOR_WRITES(Alu::add),
    NESTOR_WRITES(Alu::and_),
    step_fusion<true, u32>(),
    step_fusion<true, u64>(),
    step_fusion<false, u32>(),
    step_fusion<false, u64>(),
};
#undef NESTOR_COMPARES
#undef NESTOR_WRITES

} // namespace

void fuse_with_previous(Emit& e, unsigned cc) {
    for (const Fusion& f : fusions) {
        if (f.plain == e.previous->fn) {
            if (f.fused[cc] != nullptr) {
                e.previous->fn = f.fused[cc];
            }
            return;
        }
    }
}

} // namespace nestor::cpu
