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

/// Steps that compute the register op->dst from registers.
template <class Step>
struct Computes {};
template <class T>
struct Computes<Copy<T>> {
    using Size = T;
    static T run(Cpu& cpu, const Op* op) { return cpu.reg<T>(op->src); }
};
template <class T, class Body>
struct Computes<ModifyReg<T, Body>> {
    using Size = T;
    static T run(Cpu& cpu, const Op* op) { return Body::run(cpu, op, cpu.reg<T>(op->dst)); }
};

/// Steps that change the register op->dst, given what it holds.
template <class Step>
struct Changes {};
template <class T, class Body>
struct Changes<ModifyReg<T, Body>> {
    using Size = T;
    static T run(Cpu& cpu, const Op* op, T v) { return Body::run(cpu, op, v); }
};
/// Where each register of the sum is op->dst: additions and multiples.
template <class T, Ea form>
struct Changes<Lea<T, form>> {
    using Size = T;
    static T run(Cpu&, const Op* op, T v) {
        const T scaled = form == Ea::indexed ? static_cast<T>(v << (op->ea & ea::scale)) : T{0};
        return static_cast<T>(displaced(v + scaled, op));
    }
};

template <class Step>
constexpr bool reads_source = false; ///< the register op->src as well
template <class T, Alu operation, class U, bool flags>
constexpr bool reads_source<ModifyReg<T, AluReg<operation, U, flags>>> = true;
template <class Step>
constexpr bool is_lea = false;
template <class T, Ea form>
constexpr bool is_lea<Lea<T, form>> = true;

/// The second changes what the first computed, which is not stored in between.
template <class First, class Second>
const Op* in_place(Cpu& cpu, const Op* op) {
    using T = typename Changes<Second>::Size;
    const T v = Computes<First>::run(cpu, op);
    ++op;
    const u8 dst = op->dst;
    cpu.set_reg<T>(dst, Changes<Second>::run(cpu, op, v));
    return next(cpu, op);
}
template <class First, class Second>
concept InPlace = std::is_same_v<typename Computes<First>::Size, typename Changes<Second>::Size>;

template <class First, class Second>
constexpr OpFn in_place_of() {
    if constexpr (InPlace<First, Second>) {
        return in_place<First, Second>;
    } else {
        return nullptr;
    }
}

/// Handlers of `First` and each of the Steps behind it.
template <class First, class... Steps>
constexpr std::array<OpFn, sizeof...(Steps)> followed_by{both<First, Steps>...};
/// Likewise where the second has the same sum; null where there is no such pair.
template <class First, class... Steps>
constexpr std::array<OpFn, sizeof...(Steps)> beside{neighbours_of<First, Steps>()...};
/// Likewise where the second changes what the first computed.
template <class First, class... Steps>
constexpr std::array<OpFn, sizeof...(Steps)> changing{in_place_of<First, Steps>()...};

/// One of the frequent instructions.
struct Known {
    OpFn alone;
    const OpFn* then;     ///< with each of the others behind it, in their order
    const OpFn* beside;   ///< likewise, as neighbours
    const OpFn* changing; ///< likewise, in place
    bool loads;           ///< from memory into op->dst
    bool reads_source;    ///< besides op->dst
    bool sums;            ///< LEA
};

template <class Step, class... All>
constexpr Known known() {
    return {handler<Step>,
            followed_by<Step, All...>.data(),
            beside<Step, All...>.data(),
            changing<Step, All...>.data(),
            loads<Step>,
            reads_source<Step>,
            is_lea<Step>};
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

/// Whether the second Op changes the register that the first computes, and reads it as such only.
bool same_register(const Known& b, const Op& first, const Op& second) {
    const u8 written = Cpu::gpr_slot(first.dst / 8u);
    const bool sum_of_it =
        second.base == written && (second.index == written || second.index == Cpu::zero_slot);
    return first.dst == second.dst && !(b.reads_source && second.src == first.dst) &&
           (!b.sums || sum_of_it);
}

/// The handler that does two Ops that follow each other, or null.
OpFn both_of(const Op& first, const Op& second) {
    const Known* a = find(first.fn);
    const Known* b = a == nullptr ? nullptr : find(second.fn);
    if (b == nullptr) {
        return nullptr;
    }
    const auto n = b - frequent.begin();
    if (a->changing[n] != nullptr && same_register(*b, first, second)) {
        return a->changing[n];
    }
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
