// Plain SIMD moves and the zero idiom, without a thunk: half of all SIMD instructions that run.
//
// A move is a number of bytes, and how far the destination is cleared behind them: to bit 127 for
// legacy loads of less than 16 bytes, to bit 255 for VEX forms (SDM 1 14.1.3), not at all
// otherwise.
#include <cstring>

#include "engine/cpu/simd.hpp"

namespace nestor::cpu::simd {

namespace {

template <unsigned size>
struct Bytes {
    u8 b[size];
};

template <unsigned size, unsigned clear_to>
[[gnu::always_inline]] inline void put(u64* destination, const Bytes<size>& v) {
    u8* const d = reinterpret_cast<u8*>(destination);
    std::memcpy(d, &v, size);
    if constexpr (clear_to > size) {
        std::memset(d + size, 0, clear_to - size);
    }
}

template <unsigned size, unsigned clear_to, bool aligned>
[[gnu::always_inline]] inline bool do_load(Cpu& cpu, const Op* op) {
    u64 address;
    Bytes<size> v;
    if (!locate(cpu, op, size, aligned ? size : 1, Access::read, address) ||
        !cpu.load_linear(op, address, v, Cpu::operand_segment(op))) [[unlikely]] {
        return false;
    }
    put<size, clear_to>(at(cpu, op->dst), v);
    return true;
}

template <unsigned size, bool aligned>
[[gnu::always_inline]] inline bool do_store(Cpu& cpu, const Op* op) {
    u64 address;
    Bytes<size> v;
    if (!locate(cpu, op, size, aligned ? size : 1, Access::write, address)) [[unlikely]] {
        return false;
    }
    std::memcpy(&v, at(cpu, op->dst), size);
    return cpu.store_linear(op, address, v, Cpu::operand_segment(op));
}

template <unsigned size, unsigned clear_to, bool aligned>
const Op* load(Cpu& cpu, const Op* op) {
    return do_load<size, clear_to, aligned>(cpu, op) ? next(cpu, op) : cpu.abandon(op);
}

template <unsigned size, bool aligned>
const Op* store(Cpu& cpu, const Op* op) {
    return do_store<size, aligned>(cpu, op) ? next(cpu, op) : cpu.abandon(op);
}

/// dst = base, both slots of any register file.
template <unsigned size, unsigned clear_to>
const Op* copy(Cpu& cpu, const Op* op) {
    Bytes<size> v;
    std::memcpy(&v, at(cpu, op->base), size);
    put<size, clear_to>(at(cpu, op->dst), v);
    return next(cpu, op);
}

template <unsigned size>
const Op* zero(Cpu& cpu, const Op* op) {
    std::memset(at(cpu, op->dst), 0, size);
    return next(cpu, op);
}

bool set_load(Emit& e, OpFn fn) {
    e.set_memory(1);
    e.op.dst = slot_of(e.operand(0));
    e.op.fn = fn;
    return true;
}
bool set_store(Emit& e, OpFn fn) {
    e.set_memory(0);
    e.op.dst = slot_of(e.operand(1));
    e.op.fn = fn;
    return true;
}
bool set_copy(Emit& e, OpFn fn) {
    e.op.dst = slot_of(e.operand(0));
    e.op.base = slot_of(e.operand(1));
    e.op.fn = fn;
    return true;
}

/// Whole-register moves: MOVUPS and its kin.
template <bool aligned>
bool whole(Emit& e) {
    const bool vex = is_vex(e);
    const bool wide = reg_class(e.operand(e.is_mem(0) ? 1 : 0)) == ZYDIS_REGCLASS_YMM;
    if (e.is_mem(0)) {
        return set_store(e, wide ? store<32, aligned> : store<16, aligned>);
    }
    if (e.is_mem(1)) {
        return set_load(e, wide  ? load<32, 32, aligned>
                           : vex ? load<16, 32, aligned>
                                 : load<16, 16, aligned>);
    }
    return set_copy(e, wide ? copy<32, 32> : vex ? copy<16, 32> : copy<16, 16>);
}

/// Moves of `size` bytes that clear the rest of a vector destination.
template <unsigned size>
bool part(Emit& e) {
    const bool vex = is_vex(e);
    if (e.is_mem(0)) {
        return set_store(e, store<size, false>);
    }
    if (e.is_mem(1)) {
        return set_load(e, vex ? load<size, 32, false> : load<size, 16, false>);
    }
    if (reg_class(e.operand(0)) == ZYDIS_REGCLASS_XMM) {
        return set_copy(e, vex ? copy<size, 32> : copy<size, 16>);
    }
    return set_copy(e, copy<size, 8>); // to a general register: 32 bits are zero-extended
}

bool has_mmx(const Emit& e) {
    return reg_class(e.operand(0)) == ZYDIS_REGCLASS_MMX ||
           reg_class(e.operand(1)) == ZYDIS_REGCLASS_MMX;
}

bool zero_idiom(Emit& e) {
    const unsigned last = is_vex(e) ? 2 : 1;
    if (!e.is_reg(last) || e.operand(last).reg.value != e.operand(last - 1).reg.value) {
        return false;
    }
    e.op.dst = slot_of(e.operand(0));
    e.op.fn = is_vex(e) ? zero<32> : zero<16>;
    return true;
}

} // namespace

bool emit_move(Emit& e) {
    if (has_mmx(e)) {
        return false;
    }
    switch (e.mnemonic()) {
    case ZYDIS_MNEMONIC_MOVUPS:
    case ZYDIS_MNEMONIC_MOVUPD:
    case ZYDIS_MNEMONIC_MOVDQU:
    case ZYDIS_MNEMONIC_LDDQU:
    case ZYDIS_MNEMONIC_VMOVUPS:
    case ZYDIS_MNEMONIC_VMOVUPD:
    case ZYDIS_MNEMONIC_VMOVDQU:
    case ZYDIS_MNEMONIC_VLDDQU:
        return whole<false>(e);
    case ZYDIS_MNEMONIC_MOVAPS:
    case ZYDIS_MNEMONIC_MOVAPD:
    case ZYDIS_MNEMONIC_MOVDQA:
    case ZYDIS_MNEMONIC_MOVNTPS:
    case ZYDIS_MNEMONIC_MOVNTPD:
    case ZYDIS_MNEMONIC_MOVNTDQ:
    case ZYDIS_MNEMONIC_MOVNTDQA:
    case ZYDIS_MNEMONIC_VMOVAPS:
    case ZYDIS_MNEMONIC_VMOVAPD:
    case ZYDIS_MNEMONIC_VMOVDQA:
    case ZYDIS_MNEMONIC_VMOVNTPS:
    case ZYDIS_MNEMONIC_VMOVNTPD:
    case ZYDIS_MNEMONIC_VMOVNTDQ:
    case ZYDIS_MNEMONIC_VMOVNTDQA:
        return whole<true>(e);
    case ZYDIS_MNEMONIC_MOVD:
    case ZYDIS_MNEMONIC_VMOVD:
        return part<4>(e);
    case ZYDIS_MNEMONIC_MOVQ:
    case ZYDIS_MNEMONIC_VMOVQ:
        return part<8>(e);
    case ZYDIS_MNEMONIC_MOVSS:
    case ZYDIS_MNEMONIC_VMOVSS:
        return (e.is_mem(0) || e.is_mem(1)) && part<4>(e);
    case ZYDIS_MNEMONIC_MOVSD:
    case ZYDIS_MNEMONIC_VMOVSD:
        return (e.is_mem(0) || e.is_mem(1)) && part<8>(e);
    case ZYDIS_MNEMONIC_PXOR:
    case ZYDIS_MNEMONIC_XORPS:
    case ZYDIS_MNEMONIC_XORPD:
    case ZYDIS_MNEMONIC_VPXOR:
    case ZYDIS_MNEMONIC_VXORPS:
    case ZYDIS_MNEMONIC_VXORPD:
        return zero_idiom(e);
    default:
        return false;
    }
}

} // namespace nestor::cpu::simd
