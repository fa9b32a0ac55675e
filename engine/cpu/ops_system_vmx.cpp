// Instructions that always leave to L0: VMX, CPUID, GETSEC, RSM (SDM 3C 26.1.2); and VMFUNC.
//
// Owns nothing. In VMX non-root operation the VMX instructions exit before their privilege check;
// what remains here is #UD in modes where they do not exist, and VMCS shadowing. Memory operands
// are described in the instruction information field (SDM 3C 28.2.5), for L0 to read them. Operand
// packing: op.imm the exit reason, op.dst and op.src register offsets.
#include "engine/cpu/package.hpp"
#include "engine/cpu/system.hpp"
#include "engine/cpu/vmx_memory.hpp"

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

/// Whether VMREAD or VMWRITE of a field exits: always without VMCS shadowing, else by bitmap
/// (SDM 3C 26.1.3). What does not is an access to the shadow VMCS, whose layout L0 knows: an exit
/// too, that nobody asked for, behind the privilege check. False: a bitmap's page is needed, or
/// #GP(0).
bool shadow_access(Cpu& cpu, ExitReason reason, u64 field, bool& assist) {
    const Controls& c = cpu.controls;
    assist = false;
    const u64 wide = cpu.mode.is64() ? field : static_cast<u32>(field);
    if ((c.proc2 & proc2_control::vmcs_shadowing) == 0 || wide >> 15 != 0) {
        return true;
    }
    u8 here = 0;
    const u64 bitmap = reason == ExitReason::vmread ? c.vmread_bitmap : c.vmwrite_bitmap;
    if (!read_structure(cpu, bitmap + wide / 8, &here, 1)) {
        return false;
    }
    assist = (here >> (wide & 7) & 1) == 0;
    return !assist || privileged(cpu);
}

bool is_field_access(ExitReason reason) {
    return reason == ExitReason::vmread || reason == ExitReason::vmwrite;
}

/// One memory operand; a second, register operand (INVEPT, INVVPID, VMREAD, VMWRITE) in op.dst.
const Op* op_exit_memory(Cpu& cpu, const Op* op) {
    const auto reason = static_cast<ExitReason>(op->imm);
    bool assist = false;
    if (is_field_access(reason)) {
        NESTOR_OR_STOP(cpu, op, shadow_access(cpu, reason, cpu.reg<u64>(op->dst), assist));
    }
    const u64 qualification = memory_qualification(cpu, op);
    cpu.vm_exit(op, reason, qualification);
    cpu.exit.instruction_info = memory_instruction_info(cpu, op) | (op->dst / 8u) << 28;
    cpu.exit.assist = assist;
    return nullptr;
}

/// VMREAD and VMWRITE with registers: op.src the r/m operand, op.dst the other one.
const Op* op_exit_registers(Cpu& cpu, const Op* op) {
    const auto reason = static_cast<ExitReason>(op->imm);
    bool assist = false;
    NESTOR_OR_STOP(cpu, op, shadow_access(cpu, reason, cpu.reg<u64>(op->dst), assist));
    cpu.vm_exit(op, reason);
    cpu.exit.instruction_info = (op->src / 8u) << 3 | bit<u32>(10) | (op->dst / 8u) << 28;
    cpu.exit.assist = assist;
    return nullptr;
}

/// SDM 3C 26.5.6.3: what a VM entry would check of an EPTP.
bool valid_eptp(const Cpu& cpu, u64 eptp) {
    const u64 type = eptp & 7;
    return (type == 0 || type == 6) && (eptp >> 3 & 7) == 3 && (eptp & mask(11, 7)) == 0 &&
           eptp >> cpu.package.features().physical_bits == 0;
}

/// SDM 3C 26.5.6: function 0 switches the EPTP; what it does not like exits.
const Op* op_vmfunc(Cpu& cpu, const Op* op) {
    Controls& c = cpu.controls;
    const u32 function = static_cast<u32>(cpu.gpr(Gpr::rax));
    if ((c.proc2 & proc2_control::enable_vm_functions) == 0 || function > 63) {
        return cpu.raise(op, Exception::ud);
    }
    const u32 index = static_cast<u32>(cpu.gpr(Gpr::rcx));
    if (function != 0 || c.eptp_list == Controls::none || index >= 512) {
        return cpu.vm_exit(op, ExitReason::vmfunc);
    }
    u64 eptp = 0;
    NESTOR_OR_STOP(cpu, op, read_structure(cpu, c.eptp_list + index * 8, &eptp, 8));
    if (!valid_eptp(cpu, eptp)) {
        return cpu.vm_exit(op, ExitReason::vmfunc);
    }
    c.eptp = eptp;
    c.eptp_index = static_cast<u16>(index);
    cpu.flush_all_translations();
    return cpu.leave(op);
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
        return ends_with(e, op_vmfunc);
    default:
        return false;
    }
}

} // namespace nestor::cpu
