// XCHG, XADD, CMPXCHG, CMPXCHG8B, CMPXCHG16B (SDM 2A, 2C).
//
// LOCK changes nothing: the processors of a machine run one after the other. A compare-exchange
// that does not match writes the old value back, so it needs write rights all the same.
#include "engine/cpu/alu.hpp"
#include "engine/cpu/ops_integer.hpp"

namespace nestor::cpu {
namespace {

template <class T>
struct Exchange {
    static T run(Cpu& cpu, const Op* op, T v) {
        const T other = cpu.reg<T>(op->src);
        cpu.set_reg<T>(op->src, v);
        return other;
    }
};
template <class T, bool flags>
struct ExchangeAdd {
    static T run(Cpu& cpu, const Op* op, T v) {
        const T sum = alu<Alu::add, T, flags>(cpu, v, cpu.reg<T>(op->src));
        cpu.set_reg<T>(op->src, v);
        return sum;
    }
};
template <class T>
struct CompareExchange {
    static T run(Cpu& cpu, const Op* op, T v) {
        const T expected = cpu.reg<T>(0);
        alu<Alu::cmp, T, true>(cpu, expected, v);
        if (expected == v) {
            return cpu.reg<T>(op->src);
        }
        cpu.set_reg<T>(0, v);
        return v;
    }
};
/// The register form: a 32-bit destination keeps its upper half when nothing is exchanged.
template <class T>
const Op* compare_exchange_reg(Cpu& cpu, const Op* op) {
    const T expected = cpu.reg<T>(0);
    const T v = cpu.reg<T>(op->dst);
    alu<Alu::cmp, T, true>(cpu, expected, v);
    if (expected == v) {
        cpu.set_reg<T>(op->dst, cpu.reg<T>(op->src));
    } else {
        cpu.set_reg<T>(0, v);
    }
    return next(cpu, op);
}

/// CMPXCHG8B and CMPXCHG16B: EDX:EAX or RDX:RAX with ECX:EBX or RCX:RBX. Only ZF changes.
template <class Half>
[[gnu::noinline]] bool compare_exchange_pair(Cpu& cpu, const Op* op) {
    struct Pair {
        Half low, high;
        bool operator==(const Pair&) const = default;
    };
    u64 address;
    if (!cpu.linear(op, sizeof(Pair), Access::write, address)) {
        return false;
    }
    // SDM 2A CMPXCHG16B: #GP(0) when not aligned.
    if (sizeof(Half) == 8 && (address & 15) != 0) {
        return cpu.set_fault(arch::Exception::gp, 0);
    }
    Pair v;
    if (!cpu.load_for_write(op, address, v)) {
        return false;
    }
    const Pair expected{cpu.reg<Half>(0), cpu.reg<Half>(16)};
    const bool equal = v == expected;
    const Pair stored = equal ? Pair{cpu.reg<Half>(24), cpu.reg<Half>(8)} : v;
    if (!cpu.store_linear(op, address, stored, Cpu::operand_segment(op))) {
        return false;
    }
    if (!equal) {
        cpu.set_reg<Half>(0, v.low);
        cpu.set_reg<Half>(16, v.high);
    }
    cpu.set_flags(arch::rflags::zf, equal ? arch::rflags::zf : 0);
    return true;
}

bool emit_pair(Emit& e, OpFn fn) {
    e.set_memory(0);
    e.op.fn = fn;
    return true;
}

} // namespace

bool emit_exchange(Emit& e) {
    switch (e.mnemonic()) {
    case ZYDIS_MNEMONIC_XCHG:
        return by_size(e.size(0), [&](auto t) {
            using T = decltype(t);
            const unsigned memory = e.is_mem(1) ? 1 : 0;
            e.op.src = reg_of(e, 1 - memory);
            return emit_modify<T, Exchange<T>>(e, memory);
        });
    case ZYDIS_MNEMONIC_PAUSE:
        // With REX.B it is XCHG of R8, F3 or not; Zydis 4.0 says PAUSE.
        if ((e.d.insn.attributes & ZYDIS_ATTRIB_HAS_REX) == 0 || e.d.insn.raw.rex.B == 0) {
            return false;
        }
        return by_wide_size(e.d.insn.operand_width / 8u, [&](auto t) {
            using T = decltype(t);
            e.op.src = Emit::reg_offset(ZYDIS_REGISTER_RAX);
            e.op.dst = Emit::reg_offset(ZYDIS_REGISTER_R8);
            e.op.fn = handler<ModifyReg<T, Exchange<T>>>;
            return true;
        });
    case ZYDIS_MNEMONIC_XADD:
        return by_size(e.size(0), [&](auto t) {
            return by_bool(e.flags_live, [&](auto flags) {
                using T = decltype(t);
                e.op.src = reg_of(e, 1);
                return emit_modify<T, ExchangeAdd<T, flags.value>>(e, 0);
            });
        });
    case ZYDIS_MNEMONIC_CMPXCHG:
        return by_size(e.size(0), [&](auto t) {
            using T = decltype(t);
            e.op.src = reg_of(e, 1);
            emit_modify<T, CompareExchange<T>>(e, 0);
            if (!e.is_mem(0)) {
                e.op.fn = compare_exchange_reg<T>;
            }
            return true;
        });
    case ZYDIS_MNEMONIC_CMPXCHG8B:
        return emit_pair(e, whole<compare_exchange_pair<u32>>);
    case ZYDIS_MNEMONIC_CMPXCHG16B:
        return emit_pair(e, whole<compare_exchange_pair<u64>>);
    default:
        return false;
    }
}

} // namespace nestor::cpu
