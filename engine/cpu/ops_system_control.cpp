// Control and debug registers: MOV CR, LMSW, CLTS, MOV DR (SDM 2 MOV, SDM 3A 2.5, SDM 3B 18.2).
//
// Owns nothing. Handlers check privilege, then the VMX guest/host masks and exits (SDM 3C 26.1.3),
// then call write_crN (control_registers.cpp), which holds the value checks.
// Operand packing: op.dst the general register, op.imm the register number, op.aux its index.
#include "engine/cpu/system.hpp"
#include "engine/cpu/virtual_apic.hpp"

namespace nestor::cpu {

using namespace arch;

namespace {

/// Exit qualification for control-register accesses (SDM 3C table 28-3).
enum class CrAccess : u8 { to, from, clts, lmsw };
u64 cr_qualification(unsigned cr, CrAccess type, u64 gpr) {
    return cr | static_cast<u64>(type) << 4 | gpr << 8;
}

u64 masked_read(u64 real, u64 mask_bits, u64 shadow) {
    return (real & ~mask_bits) | (shadow & mask_bits);
}

bool control(const Cpu& cpu, u32 bit_) { return (cpu.controls.proc & bit_) != 0; }

/// 64 bits in 64-bit mode, otherwise 32 (SDM 2 MOV CR).
u64 source(const Cpu& cpu, const Op* op) {
    return cpu.mode.is64() ? cpu.reg<u64>(op->dst) : cpu.reg<u32>(op->dst);
}
void set_destination(Cpu& cpu, const Op* op, u64 value) {
    if (cpu.mode.is64()) {
        cpu.set_reg<u64>(op->dst, value);
    } else {
        cpu.set_reg<u32>(op->dst, static_cast<u32>(value));
    }
}

/// SDM 3C 26.1.3: one of the CR3-target values does not exit.
bool cr3_target(const Cpu& cpu, u64 value) {
    const Controls& c = cpu.controls;
    for (u32 i = 0; i < c.cr3_target_count && i < c.cr3_targets.size(); ++i) {
        if (c.cr3_targets[i] == value) {
            return true;
        }
    }
    return false;
}

/// MOV from CR8 and to it: TPR 7:4 of the virtual-APIC page (SDM 3C 30.3), or of L0's APIC.
bool read_cr8(Cpu& cpu, u64& value) {
    if (!control(cpu, proc_control::use_tpr_shadow)) {
        value = cpu.controls.cr8;
        return true;
    }
    if (!virtual_apic_ready(cpu)) {
        return false;
    }
    value = read_virtual_apic(cpu, vapic::tpr) >> 4 & 15;
    return true;
}
const Op* write_cr8(Cpu& cpu, const Op* op, u64 value) {
    if (value >> 4 != 0) {
        return cpu.raise(op, Exception::gp);
    }
    if (!control(cpu, proc_control::use_tpr_shadow) && !cpu.controls.assisted) {
        cpu.vm_exit(op, ExitReason::cr_access, cr_qualification(8, CrAccess::to, op->aux));
        cpu.exit.assist = true; // the task priority of L1's APIC, which L0 keeps
        return nullptr;
    }
    if (!control(cpu, proc_control::use_tpr_shadow)) {
        cpu.controls.cr8 = static_cast<u8>(value);
        return cpu.leave(op);
    }
    NESTOR_OR_STOP(cpu, op, virtual_apic_ready(cpu));
    write_virtual_apic(cpu, vapic::tpr, static_cast<u32>(value) << 4);
    cpu.leave(op);
    virtualize_tpr(cpu);
    return nullptr;
}

template <unsigned cr>
const Op* op_read_cr(Cpu& cpu, const Op* op) {
    NESTOR_OR_STOP(cpu, op, privileged(cpu));
    const Controls& c = cpu.controls;
    const u64 qualification = cr_qualification(cr, CrAccess::from, op->aux);
    u64 value = 0;
    switch (cr) {
    case 0:
        value = masked_read(cpu.s.cr0, c.cr0_mask, c.cr0_shadow);
        break;
    case 2:
        value = cpu.s.cr2;
        break;
    case 3:
        if (control(cpu, proc_control::cr3_store_exiting)) {
            return cpu.vm_exit(op, ExitReason::cr_access, qualification);
        }
        value = cpu.s.cr3;
        break;
    case 4:
        value = masked_read(cpu.s.cr4, c.cr4_mask, c.cr4_shadow);
        break;
    default:
        if (control(cpu, proc_control::cr8_store_exiting)) {
            return cpu.vm_exit(op, ExitReason::cr_access, qualification);
        }
        NESTOR_OR_STOP(cpu, op, read_cr8(cpu, value));
        break;
    }
    set_destination(cpu, op, value);
    return op;
}

template <unsigned cr>
const Op* op_write_cr(Cpu& cpu, const Op* op) {
    NESTOR_OR_STOP(cpu, op, privileged(cpu));
    const Controls& c = cpu.controls;
    const Site site{cpu, op};
    const u64 value = source(cpu, op);
    const u64 following = cpu.next_rip(op);
    const u64 qualification = cr_qualification(cr, CrAccess::to, op->aux);
    bool ok = true;
    switch (cr) {
    case 0:
        if (((value ^ c.cr0_shadow) & c.cr0_mask) != 0) {
            return cpu.vm_exit(op, ExitReason::cr_access, qualification);
        }
        ok = write_cr0(site, (value & ~c.cr0_mask) | (cpu.s.cr0 & c.cr0_mask));
        break;
    case 2:
        cpu.s.cr2 = value;
        return op;
    case 3:
        if (control(cpu, proc_control::cr3_load_exiting) && !cr3_target(cpu, value)) {
            return cpu.vm_exit(op, ExitReason::cr_access, qualification);
        }
        ok = write_cr3(site, value);
        break;
    case 4:
        if (((value ^ c.cr4_shadow) & c.cr4_mask) != 0) {
            return cpu.vm_exit(op, ExitReason::cr_access, qualification);
        }
        ok = write_cr4(site, (value & ~c.cr4_mask) | (cpu.s.cr4 & c.cr4_mask));
        break;
    default:
        if (control(cpu, proc_control::cr8_load_exiting)) {
            return cpu.vm_exit(op, ExitReason::cr_access, qualification);
        }
        return write_cr8(cpu, op, value);
    }
    return ok ? cpu.leave_to(op, following) : cpu.abandon(op);
}

const Op* op_clts(Cpu& cpu, const Op* op) {
    NESTOR_OR_STOP(cpu, op, privileged(cpu));
    const Controls& c = cpu.controls;
    if ((c.cr0_mask & cr0::ts) != 0) {
        if ((c.cr0_shadow & cr0::ts) != 0) {
            return cpu.vm_exit(op, ExitReason::cr_access, cr_qualification(0, CrAccess::clts, 0));
        }
        return cpu.leave(op);
    }
    cpu.s.cr0 &= ~cr0::ts;
    cpu.update_mode();
    return cpu.leave(op);
}

template <bool memory>
const Op* op_lmsw(Cpu& cpu, const Op* op) {
    NESTOR_OR_STOP(cpu, op, privileged(cpu));
    u16 word;
    u64 address = 0;
    if constexpr (memory) {
        NESTOR_OR_STOP(cpu, op, cpu.linear(op, 2, Access::read, address));
        NESTOR_OR_STOP(cpu, op, cpu.load_linear(op, address, word, Cpu::operand_segment(op)));
    } else {
        word = cpu.reg<u16>(op->dst);
    }
    const Controls& c = cpu.controls;
    constexpr u64 others = cr0::mp | cr0::em | cr0::ts;
    // SDM 3C 26.1.3: PE can only be set, so only setting it can exit.
    const bool sets_pe = (c.cr0_mask & word & ~c.cr0_shadow & cr0::pe) != 0;
    if (sets_pe || ((word ^ c.cr0_shadow) & c.cr0_mask & others) != 0) {
        const u64 form = memory ? bit(6) : 0;
        cpu.vm_exit(op, ExitReason::cr_access,
                    cr_qualification(0, CrAccess::lmsw, 0) | form | u64{word} << 16);
        cpu.exit.guest_linear = address;
        return nullptr;
    }
    u64 value = (cpu.s.cr0 & ~others) | (word & (others | cr0::pe));
    value = (value & ~c.cr0_mask) | (cpu.s.cr0 & c.cr0_mask);
    const Site site{cpu, op};
    const u64 following = cpu.next_rip(op);
    return write_cr0(site, value) ? cpu.leave_to(op, following) : cpu.abandon(op);
}

// --- debug registers ----------------------------------------------------------------------------

/// Order of SDM 2 MOV DR and SDM 3C 26.1.3: #UD (CR4.DE), privilege, the exit, DR7.GD.
/// False: stopped is what the handler returns.
bool debug_access(Cpu& cpu, const Op* op, unsigned number, bool from) {
    if ((number == 4 || number == 5) && (cpu.s.cr4 & cr4::de) != 0) {
        return cpu.set_fault(Exception::ud, 0);
    }
    if (!privileged(cpu)) {
        return false;
    }
    if (control(cpu, proc_control::mov_dr_exiting)) {
        cpu.set_exit(ExitReason::mov_dr, number | u64{from} << 4 | op->aux << 8);
        cpu.exit.instruction_length = op->len;
        return false;
    }
    if ((cpu.s.dr7 & dr7::gd) != 0) {
        return cpu.set_fault(Exception::db, 0, dr6::bd);
    }
    return true;
}

const Op* op_read_dr(Cpu& cpu, const Op* op) {
    const auto n = static_cast<unsigned>(op->imm);
    NESTOR_OR_STOP(cpu, op, debug_access(cpu, op, n, true));
    const u64 value = n < 4 ? cpu.s.dr[n] : (n & 1) == 0 ? cpu.s.dr6 : cpu.s.dr7;
    set_destination(cpu, op, value);
    return op;
}

const Op* op_write_dr(Cpu& cpu, const Op* op) {
    const auto n = static_cast<unsigned>(op->imm);
    NESTOR_OR_STOP(cpu, op, debug_access(cpu, op, n, false));
    const u64 value = source(cpu, op);
    if (n >= 4 && value >> 32 != 0) {
        return cpu.raise(op, Exception::gp); // SDM 2 MOV DR: bits 63:32 of DR6 and DR7
    }
    if (n < 4) {
        cpu.s.dr[n] = value;
    } else if ((n & 1) == 0) {
        cpu.s.dr6 = (value & (dr6::b | dr6::bd | dr6::bs | dr6::bt)) | dr6::fixed1;
    } else {
        cpu.s.dr7 = (value & ~(mask(15, 14) | bit(12) | bit(11))) | dr7::fixed1;
    }
    cpu.update_flags_mode();
    return cpu.leave(op);
}

// --- emitters -----------------------------------------------------------------------------------

bool in_range(const Emit& e, unsigned i, ZydisRegister first, ZydisRegister last) {
    return e.is_reg(i) && e.operand(i).reg.value >= first && e.operand(i).reg.value <= last;
}

void set_register(Emit& e, unsigned i) {
    e.op.dst = Emit::reg_offset(e.operand(i).reg.value);
    e.op.aux = e.op.dst / 8u;
}

bool emit_cr(Emit& e, unsigned number, bool write) {
    set_register(e, write ? 1 : 0);
    switch (number) {
    case 0:
        return write ? ends_with(e, op_write_cr<0>) : (e.op.fn = then_next<op_read_cr<0>>, true);
    case 2:
        e.op.fn = write ? then_next<op_write_cr<2>> : then_next<op_read_cr<2>>;
        return true;
    case 3:
        return write ? ends_with(e, op_write_cr<3>) : (e.op.fn = then_next<op_read_cr<3>>, true);
    case 4:
        return write ? ends_with(e, op_write_cr<4>) : (e.op.fn = then_next<op_read_cr<4>>, true);
    case 8:
        return write ? ends_with(e, op_write_cr<8>) : (e.op.fn = then_next<op_read_cr<8>>, true);
    default:
        emit_undefined(e);
        return true;
    }
}

bool emit_mov(Emit& e) {
    for (unsigned i = 0; i < 2; ++i) {
        if (in_range(e, i, ZYDIS_REGISTER_CR0, ZYDIS_REGISTER_CR15)) {
            const auto n = static_cast<unsigned>(e.operand(i).reg.value - ZYDIS_REGISTER_CR0);
            return emit_cr(e, n, i == 0);
        }
        if (in_range(e, i, ZYDIS_REGISTER_DR0, ZYDIS_REGISTER_DR15)) {
            const auto n = static_cast<unsigned>(e.operand(i).reg.value - ZYDIS_REGISTER_DR0);
            if (n > 7) {
                emit_undefined(e);
                return true;
            }
            e.op.imm = static_cast<i32>(n);
            set_register(e, 1 - i);
            if (i == 0) {
                return ends_with(e, op_write_dr);
            }
            e.op.fn = then_next<op_read_dr>;
            return true;
        }
    }
    return false;
}

} // namespace

bool emit_system_control(Emit& e) {
    switch (e.mnemonic()) {
    case ZYDIS_MNEMONIC_MOV:
        return emit_mov(e);
    case ZYDIS_MNEMONIC_CLTS:
        return ends_with(e, op_clts);
    case ZYDIS_MNEMONIC_LMSW:
        if (e.is_mem(0)) {
            e.set_memory(0);
            return ends_with(e, op_lmsw<true>);
        }
        e.op.dst = Emit::reg_offset(e.operand(0).reg.value);
        return ends_with(e, op_lmsw<false>);
    default:
        return false;
    }
}

} // namespace nestor::cpu
