// RCPPS, RCPSS, RSQRTPS, RSQRTSS and their VEX forms, in software (simd_math.hpp).
#include <cstring>

#include "engine/cpu/simd.hpp"
#include "engine/cpu/simd_math.hpp"

namespace nestor::cpu::simd {

namespace {

/// dst = f(source), element-wise. imm: bytes of the source | aligned; scalar VEX forms take the
/// elements above the first from src.
template <u32 (*function)(u32), bool memory, bool scalar, bool vex>
bool approximate(Cpu& cpu, const Op* op) {
    const u32 a = static_cast<u32>(op->imm);
    const unsigned size = a & attr::size;
    u32 in[8];
    if constexpr (memory) {
        u64 address;
        if (!locate(cpu, op, size, (a & attr::aligned) != 0 ? size : 1, Access::read, address)) {
            return false;
        }
        if (const u8* p = in_place(cpu, address, size, Access::read); p != nullptr) {
            std::memcpy(in, p, size);
        } else if (!cpu.load_slow(op, address, in, size, Cpu::operand_segment(op))) {
            return false;
        }
    } else {
        std::memcpy(in, at(cpu, op->base), size);
    }
    u32 out[8] = {};
    if constexpr (scalar && vex) {
        std::memcpy(out, at(cpu, op->src), 16);
    }
    for (unsigned i = 0; i < size / 4; ++i) {
        out[i] = function(in[i]);
    }
    std::memcpy(at(cpu, op->dst), out, vex ? 32 : size);
    return true;
}

template <u32 (*function)(u32), bool memory, bool scalar, bool vex>
const Op* handler(Cpu& cpu, const Op* op) {
    return approximate<function, memory, scalar, vex>(cpu, op) ? next(cpu, op) : cpu.abandon(op);
}

template <u32 (*function)(u32), bool scalar>
bool set(Emit& e) {
    const bool vex = is_vex(e);
    const unsigned source = scalar && vex ? 2 : 1;
    const bool memory = e.is_mem(source);
    unsigned size = 4;
    if (!scalar) {
        size = reg_class(e.operand(0)) == ZYDIS_REGCLASS_YMM ? 32 : 16;
    }
    e.op.dst = slot_of(e.operand(0));
    if (scalar && vex) {
        e.op.src = slot_of(e.operand(1));
    }
    if (memory) {
        e.set_memory(source);
    } else {
        e.op.base = slot_of(e.operand(source));
    }
    e.op.imm = static_cast<i32>(size | (!scalar && !vex ? attr::aligned : 0));
    e.op.fn =
        memory
            ? (vex ? handler<function, true, scalar, true> : handler<function, true, scalar, false>)
            : (vex ? handler<function, false, scalar, true>
                   : handler<function, false, scalar, false>);
    return true;
}

} // namespace

bool emit_approximate(Emit& e) {
    switch (e.mnemonic()) {
    case ZYDIS_MNEMONIC_RCPPS:
    case ZYDIS_MNEMONIC_VRCPPS:
        return set<approximate_reciprocal, false>(e);
    case ZYDIS_MNEMONIC_RCPSS:
    case ZYDIS_MNEMONIC_VRCPSS:
        return set<approximate_reciprocal, true>(e);
    case ZYDIS_MNEMONIC_RSQRTPS:
    case ZYDIS_MNEMONIC_VRSQRTPS:
        return set<approximate_reciprocal_sqrt, false>(e);
    case ZYDIS_MNEMONIC_RSQRTSS:
    case ZYDIS_MNEMONIC_VRSQRTSS:
        return set<approximate_reciprocal_sqrt, true>(e);
    default:
        return false;
    }
}

} // namespace nestor::cpu::simd
