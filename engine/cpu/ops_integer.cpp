// The integer group: asks its parts in turn, and has the instructions that fit none of them: flag
// bits, NOP and its relatives, PAUSE, UD0 to UD2 (SDM 2A, 2B). Chooses the handler by the operand
// for all of them.
#include "engine/cpu/ops_integer.hpp"

#include "engine/cpu/alu.hpp"

namespace nestor::cpu {

using namespace arch;

const Op* op_nop(Cpu& cpu, const Op* op) { return next(cpu, op); }

bool Cpu::condition(unsigned cc) const {
    bool value = false;
    by_condition(cc & 15, [&](auto n) {
        value = condition_of<n.value>(*this);
        return true;
    });
    return value;
}

namespace {

template <u64 clear, u64 set>
const Op* op_carry(Cpu& cpu, const Op* op) {
    cpu.set_flags(clear | set, set);
    return next(cpu, op);
}
const Op* op_cmc(Cpu& cpu, const Op* op) {
    cpu.set_flags(rflags::cf, cpu.cf() ? 0 : rflags::cf);
    return next(cpu, op);
}
const Op* op_cld(Cpu& cpu, const Op* op) {
    cpu.s.rflags &= ~rflags::df;
    return next(cpu, op);
}
const Op* op_std(Cpu& cpu, const Op* op) {
    cpu.s.rflags |= rflags::df;
    return next(cpu, op);
}
constexpr u64 ah_flags = rflags::cf | rflags::pf | rflags::af | rflags::zf | rflags::sf;
const Op* op_lahf(Cpu& cpu, const Op* op) {
    cpu.set_reg<u8>(1, static_cast<u8>((cpu.rflags() & ah_flags) | rflags::fixed1));
    return next(cpu, op);
}
const Op* op_sahf(Cpu& cpu, const Op* op) {
    cpu.set_flags(ah_flags, cpu.reg<u8>(1));
    return next(cpu, op);
}
bool set(Emit& e, OpFn fn) {
    e.op.fn = fn;
    return true;
}

} // namespace

bool emit_operand(Emit& e, unsigned i, u8 Op::* field, const OperandHandlers& handlers) {
    if (!e.is_mem(i)) {
        e.op.*field = reg_of(e, i);
        e.op.fn = handlers.in_register;
        return true;
    }
    e.set_memory(i);
    if (is_general(&e.op) && !e.sums_or_misses()) {
        e.op.fn = handlers.slow;
    } else {
        e.op.fn = e.op.index == Cpu::zero_slot ? handlers.base : handlers.indexed;
    }
    return true;
}

bool emit_misc(Emit& e) {
    switch (e.mnemonic()) {
    case ZYDIS_MNEMONIC_NOP:
    case ZYDIS_MNEMONIC_PREFETCH:
    case ZYDIS_MNEMONIC_PREFETCHNTA:
    case ZYDIS_MNEMONIC_PREFETCHT0:
    case ZYDIS_MNEMONIC_PREFETCHT1:
    case ZYDIS_MNEMONIC_PREFETCHT2:
    case ZYDIS_MNEMONIC_PREFETCHW:
    case ZYDIS_MNEMONIC_PREFETCHWT1:
    case ZYDIS_MNEMONIC_LFENCE:
    case ZYDIS_MNEMONIC_SFENCE:
    case ZYDIS_MNEMONIC_MFENCE:
    case ZYDIS_MNEMONIC_ENDBR32:
    case ZYDIS_MNEMONIC_ENDBR64:
        return set(e, op_nop);
    case ZYDIS_MNEMONIC_CLC:
        return set(e, op_carry<rflags::cf, 0>);
    case ZYDIS_MNEMONIC_STC:
        return set(e, op_carry<0, rflags::cf>);
    case ZYDIS_MNEMONIC_CMC:
        return set(e, op_cmc);
    case ZYDIS_MNEMONIC_CLD:
        return set(e, op_cld);
    case ZYDIS_MNEMONIC_STD:
        return set(e, op_std);
    case ZYDIS_MNEMONIC_LAHF:
        return set(e, op_lahf);
    case ZYDIS_MNEMONIC_SAHF:
        return set(e, op_sahf);
    case ZYDIS_MNEMONIC_UD0:
    case ZYDIS_MNEMONIC_UD1:
    case ZYDIS_MNEMONIC_UD2:
        emit_undefined(e);
        return true;
    default:
        return false;
    }
}

bool emit_integer(Emit& e) {
    return emit_move(e) || emit_alu(e) || emit_stack(e) || emit_shift(e) || emit_exchange(e) ||
           emit_misc(e) || emit_bits(e) || emit_multiply(e) || emit_bmi(e) || emit_decimal(e);
}

} // namespace nestor::cpu
