// Instructions that always leave to L0: VMX, CPUID, GETSEC, RSM (SDM 3C 26.1.2).
//
// Owns nothing. In VMX non-root operation the VMX instructions exit before their privilege check;
// what remains here is #UD in modes where they do not exist. Memory operands are described in the
// instruction information field (SDM 3C 28.2.5), for L0 to read them.
// Operand packing: op.imm the exit reason, op.dst and op.src register offsets.
#include "engine/cpu/system.hpp"

namespace nestor::cpu {

using namespace arch;

u32 memory_instruction_info(const Cpu& cpu, const Op* op) {
    const u32 width = (op->ea & ea::address16) != 0   ? 0u
                      : (op->ea & ea::address32) != 0 ? 1u
                      : cpu.mode.is64()               ? 2u
                                                      : 1u;
    u32 info = (op->ea & ea::scale) | width << 7 | static_cast<u32>(Cpu::operand_segment(op)) << 15;
    info |= op->index == Cpu::zero_slot ? bit<u32>(22) : (op->index - 1u) << 18;
    const bool no_base = op->base == Cpu::zero_slot || op->base == Cpu::rip_slot;
    return info | (no_base ? bit<u32>(27) : (op->base - 1u) << 23);
}

u64 memory_qualification(const Cpu& cpu, const Op* op) {
    const u64 disp = static_cast<u64>(static_cast<i64>(op->disp));
    return op->base == Cpu::rip_slot ? cpu.s.rip + disp : disp;
}

namespace {

const Op* op_exit(Cpu& cpu, const Op* op) {
    return cpu.vm_exit(op, static_cast<ExitReason>(op->imm));
}

const Op* op_rsm(Cpu& cpu, const Op* op) {
    if (!cpu.s.in_smm) {
        return cpu.raise(op, Exception::ud);
    }
    return cpu.vm_exit(op, ExitReason::rsm);
}

const Op* op_getsec(Cpu& cpu, const Op* op) {
    if ((cpu.s.cr4 & cr4::smxe) == 0) {
        return cpu.raise(op, Exception::ud);
    }
    return cpu.vm_exit(op, ExitReason::getsec);
}

/// One memory operand; a second, register operand (INVEPT, INVVPID, VMREAD, VMWRITE) in op.dst.
const Op* op_exit_memory(Cpu& cpu, const Op* op) {
    cpu.vm_exit(op, static_cast<ExitReason>(op->imm), memory_qualification(cpu, op));
    cpu.exit.instruction_info = memory_instruction_info(cpu, op) | (op->dst / 8u) << 28;
    return nullptr;
}

/// VMREAD and VMWRITE with registers: op.src the r/m operand, op.dst the other one.
const Op* op_exit_registers(Cpu& cpu, const Op* op) {
    cpu.vm_exit(op, static_cast<ExitReason>(op->imm));
    cpu.exit.instruction_info = (op->src / 8u) << 3 | bit<u32>(10) | (op->dst / 8u) << 28;
    return nullptr;
}

bool exits(Emit& e, ExitReason reason) {
    e.op.imm = static_cast<i32>(reason);
    return ends_with(e, op_exit);
}

/// VMX instructions but VMCALL exist in protected mode, and not in compatibility mode.
bool vmx_undefined(Emit& e) {
    const bool compatibility = e.mode.has(Mode::long_mode) && !e.mode.is64();
    if (e.mode.is_real_like() || compatibility) {
        emit_undefined(e);
        return true;
    }
    return false;
}

bool vmx(Emit& e, ExitReason reason) { return vmx_undefined(e) || exits(e, reason); }

bool vmx_memory(Emit& e, ExitReason reason, unsigned memory, int reg = -1) {
    if (vmx_undefined(e)) {
        return true;
    }
    e.op.imm = static_cast<i32>(reason);
    if (reg >= 0) {
        e.op.dst = Emit::reg_offset(e.operand(static_cast<unsigned>(reg)).reg.value);
    }
    if (e.is_mem(memory)) {
        e.set_memory(memory);
        return ends_with(e, op_exit_memory);
    }
    e.op.src = Emit::reg_offset(e.operand(memory).reg.value);
    return ends_with(e, op_exit_registers);
}

} // namespace

bool emit_system_vmx(Emit& e) {
    switch (e.mnemonic()) {
    case ZYDIS_MNEMONIC_CPUID:
        return exits(e, ExitReason::cpuid);
    case ZYDIS_MNEMONIC_GETSEC:
        return ends_with(e, op_getsec);
    case ZYDIS_MNEMONIC_RSM:
        return ends_with(e, op_rsm);
    case ZYDIS_MNEMONIC_VMCALL:
        return exits(e, ExitReason::vmcall);
    case ZYDIS_MNEMONIC_VMLAUNCH:
        return vmx(e, ExitReason::vmlaunch);
    case ZYDIS_MNEMONIC_VMRESUME:
        return vmx(e, ExitReason::vmresume);
    case ZYDIS_MNEMONIC_VMXOFF:
        return vmx(e, ExitReason::vmxoff);
    case ZYDIS_MNEMONIC_VMXON:
        return vmx_memory(e, ExitReason::vmxon, 0);
    case ZYDIS_MNEMONIC_VMCLEAR:
        return vmx_memory(e, ExitReason::vmclear, 0);
    case ZYDIS_MNEMONIC_VMPTRLD:
        return vmx_memory(e, ExitReason::vmptrld, 0);
    case ZYDIS_MNEMONIC_VMPTRST:
        return vmx_memory(e, ExitReason::vmptrst, 0);
    case ZYDIS_MNEMONIC_VMREAD:
        return vmx_memory(e, ExitReason::vmread, 0, 1);
    case ZYDIS_MNEMONIC_VMWRITE:
        return vmx_memory(e, ExitReason::vmwrite, 1, 0);
    case ZYDIS_MNEMONIC_INVEPT:
        return vmx_memory(e, ExitReason::invept, 1, 0);
    case ZYDIS_MNEMONIC_INVVPID:
        return vmx_memory(e, ExitReason::invvpid, 1, 0);
    case ZYDIS_MNEMONIC_VMFUNC:
        emit_undefined(e); // "enable VM functions" is never on
        return true;
    default:
        return false;
    }
}

} // namespace nestor::cpu
