// AAA, AAS, AAM, AAD, DAA, DAS, SALC, BOUND: what 64-bit mode no longer has (SDM 2A).
//
// Flags that the SDM leaves undefined follow the result (SF, ZF, PF) or are zero.
#include "engine/cpu/alu.hpp"
#include "engine/cpu/ops_integer.hpp"

namespace nestor::cpu {
namespace {

using namespace arch;

template <bool add>
const Op* op_ascii_adjust(Cpu& cpu, const Op* op) {
    const u64 flags = cpu.rflags();
    const bool adjust = (cpu.reg<u8>(0) & 15) > 9 || (flags & rflags::af) != 0;
    u16 ax = cpu.reg<u16>(0);
    if (adjust) {
        ax = static_cast<u16>(add ? ax + 0x106 : ax - 0x106);
    }
    const u8 al = ax & 15;
    cpu.set_reg<u16>(0, static_cast<u16>((ax & 0xff00) | al));
    set_all_flags(cpu, result_flags(al) | (adjust ? rflags::af | rflags::cf : 0));
    return next(cpu, op);
}
template <bool add>
const Op* op_decimal_adjust(Cpu& cpu, const Op* op) {
    const u64 flags = cpu.rflags();
    const u8 old = cpu.reg<u8>(0);
    u8 al = old;
    u64 result = 0;
    if ((al & 15) > 9 || (flags & rflags::af) != 0) {
        result |= rflags::af;
        // SDM 2A DAS: a borrow out of this step sets CF; the carry of DAA's implies old > 0x99.
        result |= (!add && al < 6) ? rflags::cf : 0;
        al = static_cast<u8>(add ? al + 6 : al - 6);
    }
    if (old > 0x99 || (flags & rflags::cf) != 0) {
        al = static_cast<u8>(add ? al + 0x60 : al - 0x60);
        result |= rflags::cf;
    }
    cpu.set_reg<u8>(0, al);
    set_all_flags(cpu, result | result_flags(al));
    return next(cpu, op);
}
const Op* op_aam(Cpu& cpu, const Op* op) {
    const u8 base = static_cast<u8>(op->imm);
    if (base == 0) {
        return cpu.raise(op, Exception::de);
    }
    const u8 al = cpu.reg<u8>(0);
    const u8 low = al % base;
    cpu.set_reg<u16>(0, static_cast<u16>(al / base << 8 | low));
    set_all_flags(cpu, result_flags(low));
    return next(cpu, op);
}
const Op* op_aad(Cpu& cpu, const Op* op) {
    const u8 al = static_cast<u8>(cpu.reg<u8>(0) + cpu.reg<u8>(1) * op->imm);
    cpu.set_reg<u16>(0, al);
    set_all_flags(cpu, result_flags(al));
    return next(cpu, op);
}
const Op* op_salc(Cpu& cpu, const Op* op) {
    cpu.set_reg<u8>(0, cpu.cf() ? 0xff : 0);
    return next(cpu, op);
}

/// The pair of bounds is one operand of twice the size, lower bound first.
template <class T, class Pair>
struct Bound {
    static bool run(Cpu& cpu, const Op* op, Pair v) {
        const auto index = static_cast<Signed<T>>(cpu.reg<T>(op->dst));
        const auto lower = static_cast<Signed<T>>(static_cast<T>(v));
        const auto upper = static_cast<Signed<T>>(static_cast<T>(v >> bits_of<T>));
        return (index >= lower && index <= upper) || cpu.set_fault(Exception::br, 0);
    }
};

} // namespace

bool emit_decimal(Emit& e) {
    switch (e.mnemonic()) {
    case ZYDIS_MNEMONIC_AAA:
        e.op.fn = op_ascii_adjust<true>;
        return true;
    case ZYDIS_MNEMONIC_AAS:
        e.op.fn = op_ascii_adjust<false>;
        return true;
    case ZYDIS_MNEMONIC_DAA:
        e.op.fn = op_decimal_adjust<true>;
        return true;
    case ZYDIS_MNEMONIC_DAS:
        e.op.fn = op_decimal_adjust<false>;
        return true;
    case ZYDIS_MNEMONIC_AAM:
    case ZYDIS_MNEMONIC_AAD:
        e.op.imm = static_cast<i32>(imm_of(e, 0) & 0xff);
        e.op.fn = e.mnemonic() == ZYDIS_MNEMONIC_AAM ? op_aam : op_aad;
        return true;
    case ZYDIS_MNEMONIC_SALC:
        e.op.fn = op_salc;
        return true;
    case ZYDIS_MNEMONIC_BOUND:
        e.op.dst = reg_of(e, 0);
        return e.size(0) == 2 ? emit_read<u32, Bound<u16, u32>>(e, 1)
                              : emit_read<u64, Bound<u32, u64>>(e, 1);
    default:
        return false;
    }
}

} // namespace nestor::cpu
