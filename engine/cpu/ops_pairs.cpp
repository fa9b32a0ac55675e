// Two instructions in one handler, for what programs put next to each other most.
//
// Dispatch is most of what a simple instruction costs, so the first of two Ops gets a handler that
// does both. Each Op still describes its instruction, and the second keeps its own handler: where
// the fast path cannot do an instruction, its slow handler goes on from there as if the two had
// never met. Comparisons stay out, because their jumps take them (ops_control_fused.cpp); so do
// exact blocks, which may be cut between any two instructions.
#include <algorithm>

#include "engine/cpu/move.hpp"
#include "engine/cpu/pairs.hpp"
#include "engine/cpu/shift.hpp"

namespace nestor::cpu {
namespace {

template <class First, class Second>
const Op* both(Cpu& cpu, const Op* op) {
    if (!First::run(cpu, op)) [[unlikely]] {
        return First::slow(cpu, op);
    }
    ++op;
    if (!Second::run(cpu, op)) [[unlikely]] {
        return Second::slow(cpu, op);
    }
    return next(cpu, op);
}

/// Two memory operands that differ in the displacement only, as fields and stack slots do: one sum
/// and, in one page, one TLB entry.
template <class First, class Second>
const Op* neighbours(Cpu& cpu, const Op* op) {
    const u64 sum = fast_sum<First::form>(cpu, op);
    const u64 address = displaced(sum, op);
    const TlbEntry& e = cpu.tlb.at(address);
    if (!First::run_at(cpu, op, address, e)) [[unlikely]] {
        return First::slow(cpu, op);
    }
    ++op;
    if (!Second::run_at(cpu, op, displaced(sum, op), e)) [[unlikely]] {
        return jump_to(cpu, op);
    }
    return next(cpu, op);
}
template <class Step>
concept HasMemory = requires { Step::form; };
template <class Step>
constexpr bool loads = false;
template <class T, class Body, Ea form>
constexpr bool loads<ReadMem<T, Body, form>> = true;

template <class First, class Second>
constexpr OpFn neighbours_of() {
    if constexpr (HasMemory<First> && HasMemory<Second>) {
        if constexpr (First::form == Second::form) {
            return neighbours<First, Second>;
        }
    }
    return nullptr;
}

template <class T>
using Copy = WriteReg<T, StoreReg<T>>;

/// What may follow a Copy to its own destination: the two together have three operands, and the
/// copy itself need not be stored.
template <class Step>
struct Changes {
    static constexpr bool a_copy = false;
};
template <class Operand, class Body, bool reads_src>
struct ChangesCopy {
    static constexpr bool a_copy = true;
    /// The other operand is the register op->src.
    static constexpr bool reads_source = reads_src;
    using Size = Operand;
    static const Op* run(Cpu& cpu, const Op* op) {
        const Operand v = cpu.reg<Operand>(op->src);
        ++op;
        const u8 dst = op->dst;
        cpu.set_reg<Operand>(dst, Body::run(cpu, op, v));
        return next(cpu, op);
    }
};
template <class T, Alu operation, bool flags>
struct Changes<ModifyReg<T, AluReg<operation, T, flags>>>
    : ChangesCopy<T, AluReg<operation, T, flags>, true> {};
template <class T, Alu operation, bool flags>
struct Changes<ModifyReg<T, AluImm<operation, T, flags>>>
    : ChangesCopy<T, AluImm<operation, T, flags>, false> {};
template <class T, Shift kind, bool flags>
struct Changes<ModifyReg<T, ByImm<kind, T, flags>>> : ChangesCopy<T, ByImm<kind, T, flags>, false> {
};

/// Handlers of `First` and each of the Steps behind it.
template <class First, class... Steps>
constexpr std::array<OpFn, sizeof...(Steps)> followed_by{both<First, Steps>...};
/// Likewise where the second has the same sum; null where there is no such pair.
template <class First, class... Steps>
constexpr std::array<OpFn, sizeof...(Steps)> beside{neighbours_of<First, Steps>()...};

/// One of the frequent instructions.
struct Known {
    OpFn alone;
    const OpFn* then;         ///< with each of the others behind it, in their order
    const OpFn* beside;       ///< likewise, as neighbours
    bool loads;               ///< from memory into op->dst
    OpFn on_copy32 = nullptr; ///< behind a Copy of that size to the same register
    OpFn on_copy64 = nullptr;
    bool reads_source = false; ///< then op->src must not be that register
};

template <class Step, class... All>
constexpr Known known() {
    Known k{handler<Step>, followed_by<Step, All...>.data(), beside<Step, All...>.data(),
            loads<Step>};
    if constexpr (Changes<Step>::a_copy) {
        constexpr bool wide = sizeof(typename Changes<Step>::Size) == 8;
        (wide ? k.on_copy64 : k.on_copy32) = Changes<Step>::run;
        k.reads_source = Changes<Step>::reads_source;
    }
    return k;
}
template <class... Steps>
constexpr std::array<Known, sizeof...(Steps)> all_known{known<Steps, Steps...>()...};

template <Alu operation, class T, bool flags = false>
using Register = ModifyReg<T, AluReg<operation, T, flags>>;
template <Alu operation, class T, bool flags = false>
using Immediate = ModifyReg<T, AluImm<operation, T, flags>>;
template <Shift kind, class T>
using ShiftBy = ModifyReg<T, ByImm<kind, T, false>>;
constexpr bool flags = true; ///< something may fault before they are written again

template <class T, Ea form>
using Load = ReadMem<T, LoadReg<T>, form>;
template <class T, Ea form>
using Store = WriteMem<T, StoreReg<T>, form>;

/// Found by sampling boots, the loops of tools/bench and compiled code.
constexpr auto& frequent = all_known<
    Copy<u64>, Copy<u32>, Register<Alu::add, u64>, Register<Alu::add, u64, flags>,
    Register<Alu::add, u32>, Register<Alu::add, u32, flags>, Register<Alu::sub, u64, flags>,
    Register<Alu::xor_, u64>, Register<Alu::xor_, u32>, Register<Alu::xor_, u32, flags>,
    Register<Alu::and_, u32>, Immediate<Alu::add, u64>, Immediate<Alu::add, u64, flags>,
    Immediate<Alu::add, u32>, Immediate<Alu::and_, u64, flags>, Immediate<Alu::and_, u32, flags>,
    ShiftBy<Shift::shr, u64>, ShiftBy<Shift::shl, u64>, ShiftBy<Shift::shr, u32>,
    ShiftBy<Shift::ror, u32>, Lea<u64, Ea::base>, Lea<u64, Ea::indexed>, Load<u64, Ea::base>,
    Load<u64, Ea::indexed>, Load<u32, Ea::base>, Store<u64, Ea::base>, Store<u64, Ea::indexed>,
    Store<u32, Ea::base>, ReadMem<u64, AluLoad<Alu::add, u64, flags>, Ea::indexed>,
    ReadReg<u8, ZeroExtend<u8, u32>>, ReadReg<u32, SignExtend<u32, u64>>>;

const Known* find(OpFn alone) {
    const auto* k = std::find_if(frequent.begin(), frequent.end(),
                                 [=](const Known& known) { return known.alone == alone; });
    return k == frequent.end() ? nullptr : k;
}

/// Whether the memory operands of two Ops differ in the displacement only, when the second runs.
bool same_sum(const Known& a, const Op& first, const Op& second) {
    const u8 written = Cpu::gpr_slot(first.dst / 8u);
    return first.base == second.base && first.index == second.index && first.ea == second.ea &&
           !(a.loads && (written == first.base || written == first.index));
}

/// The handler that does two Ops that follow each other, or null.
OpFn both_of(const Op& first, const Op& second) {
    const Known* a = find(first.fn);
    const Known* b = a == nullptr ? nullptr : find(second.fn);
    if (b == nullptr) {
        return nullptr;
    }
    if (first.dst == second.dst && !(b->reads_source && second.src == first.dst)) {
        const OpFn on_copy = a->alone == handler<Copy<u64>>   ? b->on_copy64
                             : a->alone == handler<Copy<u32>> ? b->on_copy32
                                                              : nullptr;
        if (on_copy != nullptr) {
            return on_copy;
        }
    }
    const auto n = b - frequent.begin();
    if (a->beside[n] != nullptr && same_sum(*a, first, second)) {
        return a->beside[n];
    }
    return a->then[n];
}

} // namespace

void pair_up(std::span<Op> ops) {
    for (std::size_t i = 0; i + 1 < ops.size(); ++i) {
        if (const OpFn both = both_of(ops[i], ops[i + 1])) {
            ops[i].fn = both;
            ++i;
        }
    }
}

} // namespace nestor::cpu
