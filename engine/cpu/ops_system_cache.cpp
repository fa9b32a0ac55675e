// Caches, TLBs, fences and waiting: INVLPG, INVPCID, CLFLUSH and its kin, WBINVD, INVD, SERIALIZE,
// HLT, PAUSE, MONITOR, MWAIT (SDM 2).
//
// Owns nothing. There are no caches and the TLB is coherent, so these check, exit and flush; what
// they must not do is forget a fault.
#include "engine/cpu/system.hpp"

namespace nestor::cpu {

using namespace arch;

namespace {

const Op* op_nothing(Cpu& cpu, const Op* op) { return next(cpu, op); }

/// Linear address without limit checks: INVLPG takes any (SDM 2 INVLPG).
const Op* op_invlpg(Cpu& cpu, const Op* op) {
    NESTOR_OR_STOP(cpu, op, privileged(cpu));
    const Seg segment = Cpu::operand_segment(op);
    u64 address = cpu.offset_of(op);
    if (!cpu.mode.is64()) {
        address = static_cast<u32>(address + cpu.seg(segment).base);
    } else if (segment >= Seg::fs) {
        address += cpu.seg(segment).base;
    }
    if ((cpu.controls.proc & proc_control::invlpg_exiting) != 0) {
        return cpu.vm_exit(op, ExitReason::invlpg, address);
    }
    cpu.flush_tlb_page(address);
    return op;
}

const Op* op_invpcid(Cpu& cpu, const Op* op) {
    if ((cpu.controls.proc2 & proc2_control::enable_invpcid) == 0) {
        return cpu.raise(op, Exception::ud); // SDM 3C 26.3: not enabled in non-root operation
    }
    NESTOR_OR_STOP(cpu, op, privileged(cpu));
    if ((cpu.controls.proc & proc_control::invlpg_exiting) != 0) {
        const u64 disp = memory_qualification(cpu, op);
        cpu.vm_exit(op, ExitReason::invpcid, disp);
        cpu.exit.instruction_info = memory_instruction_info(cpu, op) | (op->dst / 8u) << 28;
        return nullptr;
    }
    const u64 type = cpu.mode.is64() ? cpu.reg<u64>(op->dst) : cpu.reg<u32>(op->dst);
    u64 descriptor[2];
    u64 address;
    NESTOR_OR_STOP(cpu, op, cpu.linear(op, 16, Access::read, address));
    NESTOR_OR_STOP(cpu, op, cpu.load_slow(op, address, descriptor, 16, Cpu::operand_segment(op)));
    const u64 pcid = descriptor[0] & mask(11, 0);
    const bool pcide = (cpu.s.cr4 & cr4::pcide) != 0;
    if (type > 3 || descriptor[0] >> 12 != 0 || (type < 2 && !pcide && pcid != 0) ||
        (type == 0 && !canonical(cpu, descriptor[1]))) {
        return cpu.raise(op, Exception::gp);
    }
    cpu.flush_tlb();
    return op;
}

/// CLFLUSH, CLFLUSHOPT, CLWB: checked as a load of one byte.
const Op* op_flush_line(Cpu& cpu, const Op* op) {
    u8 byte;
    NESTOR_OR_STOP(cpu, op, cpu.load(op, byte));
    return op;
}

const Op* op_wbinvd(Cpu& cpu, const Op* op) {
    NESTOR_OR_STOP(cpu, op, privileged(cpu));
    if ((cpu.controls.proc2 & proc2_control::wbinvd_exiting) != 0) {
        return cpu.vm_exit(op, ExitReason::wbinvd);
    }
    return op;
}

/// Exits always in VMX non-root operation (SDM 3C 26.1.2).
const Op* op_invd(Cpu& cpu, const Op* op) {
    NESTOR_OR_STOP(cpu, op, privileged(cpu));
    return cpu.vm_exit(op, ExitReason::invd);
}

const Op* op_hlt(Cpu& cpu, const Op* op) {
    NESTOR_OR_STOP(cpu, op, privileged(cpu));
    if ((cpu.controls.proc & proc_control::hlt_exiting) != 0) {
        return cpu.vm_exit(op, ExitReason::hlt);
    }
    cpu.s.activity = state::ActivityState::hlt;
    return cpu.leave(op);
}

/// PAUSE-loop exiting (SDM 3C 26.1.3): at CPL 0, when a loop's PAUSEs are no further apart than
/// PLE_Gap and the first was more than PLE_Window ago. Times are TSC cycles, without offset.
bool pause_loop_exits(Cpu& cpu, const Op* op) {
    const Controls& c = cpu.controls;
    if ((c.proc2 & proc2_control::pause_loop_exiting) == 0 || cpu.cpl != 0) {
        return false;
    }
    const u64 now = cpu.ticks_at(op);
    // A time of zero: no PAUSE yet at CPL 0 since the VM entry.
    const bool loop = cpu.s.pause_last != 0 && now - cpu.s.pause_last <= c.ple_gap;
    cpu.s.pause_last = now;
    if (!loop) {
        cpu.s.pause_first = now;
        return false;
    }
    return now - cpu.s.pause_first > c.ple_window;
}

const Op* op_pause(Cpu& cpu, const Op* op) {
    if ((cpu.controls.proc & proc_control::pause_exiting) != 0 || pause_loop_exits(cpu, op)) {
        return cpu.vm_exit(op, ExitReason::pause);
    }
    cpu.raise_attention(Cpu::Attention::yield); // ends the scheduler's turn (DESIGN.md, rule 2)
    return cpu.leave(op);
}

/// L0 does the waiting, so it takes part even where no control asks for an exit: then, and for its
/// own guest, the address is found first and guest_physical names it.
const Op* op_monitor(Cpu& cpu, const Op* op) {
    if (cpu.cpl != 0) {
        return cpu.raise(op, Exception::ud);
    }
    const bool asked = (cpu.controls.proc & proc_control::monitor_exiting) != 0;
    if (asked && !cpu.controls.assisted) {
        return cpu.vm_exit(op, ExitReason::monitor); // before faults of the operand
    }
    const u64 extensions =
        cpu.mode.is64() ? cpu.gpr(Gpr::rcx) : static_cast<u32>(cpu.gpr(Gpr::rcx));
    if (extensions != 0) {
        return cpu.raise(op, Exception::gp);
    }
    u64 address;
    u8 byte;
    const Seg segment = Cpu::operand_segment(op);
    NESTOR_OR_STOP(cpu, op, cpu.linear_general(op, cpu.offset_of(op), 1, Access::read, address));
    NESTOR_OR_STOP(cpu, op, cpu.load_slow(op, address, &byte, 1, segment));
    Translation t;
    NESTOR_OR_STOP(cpu, op, cpu.translate(address, Access::read, false, false, t));
    if (asked || !cpu.controls.assisted) {
        cpu.vm_exit(op, ExitReason::monitor);
        cpu.exit.guest_linear = address;
        cpu.exit.guest_physical = t.physical;
        cpu.exit.assist = !asked;
        return nullptr;
    }
    cpu.monitor(t.physical);
    return op;
}

/// L0 does the waiting. Without an exit MWAIT is a hint that is not taken (SDM 2 MWAIT).
const Op* op_mwait(Cpu& cpu, const Op* op) {
    if (cpu.cpl != 0) {
        return cpu.raise(op, Exception::ud);
    }
    const bool asked = (cpu.controls.proc & proc_control::mwait_exiting) != 0;
    if (asked || !cpu.controls.assisted) {
        cpu.vm_exit(op, ExitReason::mwait, cpu.s.monitor_armed ? 1 : 0);
        cpu.exit.assist = !asked;
        return nullptr;
    }
    const u64 extensions =
        cpu.mode.is64() ? cpu.gpr(Gpr::rcx) : static_cast<u32>(cpu.gpr(Gpr::rcx));
    if ((extensions & ~u64{1}) != 0) {
        return cpu.raise(op, Exception::gp);
    }
    cpu.s.monitor_armed = false;
    cpu.raise_attention(Cpu::Attention::yield);
    return cpu.leave(op);
}

/// The address of MONITOR is DS:rAX with overrides; the decoder lists it as a hidden operand or not
/// at all.
bool emit_monitor(Emit& e) {
    bool found = false;
    for (unsigned i = 0; i < e.d.insn.operand_count && !found; ++i) {
        if (e.is_mem(i)) {
            e.set_memory(i);
            found = true;
        }
    }
    if (!found) {
        e.op.base = Cpu::gpr_slot(0);
        Seg segment = Seg::ds;
        const ZyanU64 attributes = e.d.insn.attributes;
        segment = (attributes & ZYDIS_ATTRIB_HAS_SEGMENT_ES) != 0   ? Seg::es
                  : (attributes & ZYDIS_ATTRIB_HAS_SEGMENT_CS) != 0 ? Seg::cs
                  : (attributes & ZYDIS_ATTRIB_HAS_SEGMENT_SS) != 0 ? Seg::ss
                  : (attributes & ZYDIS_ATTRIB_HAS_SEGMENT_FS) != 0 ? Seg::fs
                  : (attributes & ZYDIS_ATTRIB_HAS_SEGMENT_GS) != 0 ? Seg::gs
                                                                    : Seg::ds;
        e.op.ea = static_cast<u8>(ea::general | static_cast<u8>(segment) << ea::segment_shift);
        e.op.ea |= e.d.insn.address_width == 32   ? ea::address32
                   : e.d.insn.address_width == 16 ? ea::address16
                                                  : 0;
    }
    e.op.fn = then_next<op_monitor>;
    return true;
}

} // namespace

bool emit_system_cache(Emit& e) {
    switch (e.mnemonic()) {
    case ZYDIS_MNEMONIC_INVLPG:
        e.set_memory(0);
        e.op.fn = then_next<op_invlpg>;
        return true;
    case ZYDIS_MNEMONIC_INVPCID:
        e.op.dst = Emit::reg_offset(e.operand(0).reg.value);
        e.set_memory(1);
        e.op.fn = then_next<op_invpcid>;
        return true;
    case ZYDIS_MNEMONIC_CLFLUSH:
    case ZYDIS_MNEMONIC_CLFLUSHOPT:
    case ZYDIS_MNEMONIC_CLWB:
        e.set_memory(0);
        e.op.fn = then_next<op_flush_line>;
        return true;
    case ZYDIS_MNEMONIC_CLDEMOTE:
    case ZYDIS_MNEMONIC_SERIALIZE:
        e.op.fn = op_nothing;
        return true;
    case ZYDIS_MNEMONIC_WBINVD:
        e.op.fn = then_next<op_wbinvd>;
        return true;
    case ZYDIS_MNEMONIC_INVD:
        return ends_with(e, op_invd);
    case ZYDIS_MNEMONIC_HLT:
        return ends_with(e, op_hlt);
    case ZYDIS_MNEMONIC_PAUSE:
        return ends_with(e, op_pause);
    case ZYDIS_MNEMONIC_MONITOR:
        return emit_monitor(e);
    case ZYDIS_MNEMONIC_MWAIT:
        return ends_with(e, op_mwait);
    default:
        return false;
    }
}

} // namespace nestor::cpu
