// Far RET and IRET in every mode (SDM 2 RET, IRET/IRETD/IRETQ).
//
// Owns nothing. One Return pops, checks and commits; IRET differs by the flags, by virtual-8086 and
// nested-task returns, and by always taking SS:RSP in 64-bit mode. IRET ends NMI blocking, also
// when it faults (SDM 3A 6.7.1).
#include "engine/cpu/injection.hpp"
#include "engine/cpu/system.hpp"

namespace nestor::cpu {

using namespace arch;

namespace {

constexpr u64 iret_always = rflags::cf | rflags::pf | rflags::af | rflags::zf | rflags::sf |
                            rflags::tf | rflags::df | rflags::of | rflags::nt;
constexpr u64 wide_only = rflags::rf | rflags::ac | rflags::id;

/// RF lasts for one instruction and matters only to breakpoints: without any it is dropped here.
void set_rflags(Cpu& cpu, u64 changed, u64 values) {
    if ((cpu.s.dr7 & dr7::enables) == 0) {
        values &= ~rflags::rf;
    }
    cpu.s.rflags = (cpu.rflags() & ~changed) | (values & changed) | rflags::fixed1;
    cpu.lazy.settle();
}

u64 iopl(const Cpu& cpu) { return (cpu.s.rflags & rflags::iopl) >> 12; }

/// RFLAGS bits that IRET at `cpl` may change with a width (SDM 2 IRET).
u64 iret_mask(const Cpu& cpu, unsigned width) {
    u64 changed = iret_always | (width > 2 ? wide_only : 0);
    if (cpu.cpl <= iopl(cpu)) {
        changed |= rflags::if_;
    }
    if (cpu.cpl == 0) {
        changed |= rflags::iopl | (width > 2 ? rflags::vif | rflags::vip : 0);
    }
    return changed;
}

/// The common part of RET and IRET in protected mode.
struct Return {
    Cpu& cpu;
    const Op* op;
    unsigned width;
    u64 release; ///< bytes that RET imm16 releases
    bool iret;
    Site site{cpu, op};
    u64 rip = 0;
    u64 cs_image = 0;
    u64 flags = 0;
    state::Segment code{};

    bool check_code();
    bool check_stack(u16 selector, u8 level, state::Segment& out) const;
    bool protected_mode();
    bool to_v86(Popper& popper);
};

bool Return::check_code() {
    const auto selector = static_cast<u16>(cs_image);
    if (is_null(selector)) {
        return site.gp(0);
    }
    const u32 error = selector_error(selector);
    Descriptor d;
    if (!read_descriptor(site, selector, d)) {
        return false;
    }
    const u8 rpl = rpl_of(selector);
    if (!d.is_code() || rpl < cpu.cpl || (d.conforming() ? d.dpl() > rpl : d.dpl() != rpl) ||
        (ia32e(cpu) && d.long_code() && d.big())) {
        return site.gp(error);
    }
    if (!d.present()) {
        return site.fault(Exception::np, error);
    }
    if (!mark_accessed(site, d)) {
        return false;
    }
    code = make_segment(d, selector);
    return true;
}

/// SS for the outer level: null only for 64-bit code below CPL 3.
bool Return::check_stack(u16 selector, u8 level, state::Segment& out) const {
    if (is_null(selector)) {
        const bool long_target = ia32e(cpu) && (code.attributes & seg_attr::l) != 0;
        if (!long_target || level == 3 || rpl_of(selector) != level) {
            return site.gp(0);
        }
        out = null_segment(selector, level);
        return true;
    }
    const Exception absent = iret ? Exception::np : Exception::ss;
    return check_stack_segment(site, selector, level, Exception::gp, out, absent);
}

bool Return::to_v86(Popper& popper) {
    u64 image[6]; // ESP SS ES DS FS GS
    for (u64& element : image) {
        if (!popper.pop(element)) {
            return false;
        }
    }
    if (static_cast<u32>(rip) > 0xffff) {
        return site.gp(0);
    }
    set_rflags(cpu, rflags::writable, flags);
    cpu.s.rip = static_cast<u32>(rip);
    cpu.seg(Seg::cs) = v86_segment(static_cast<u16>(cs_image));
    cpu.s.gpr[4] = static_cast<u32>(image[0]);
    unsigned i = 1;
    for (const Seg which : {Seg::ss, Seg::es, Seg::ds, Seg::fs, Seg::gs}) {
        cpu.seg(which) = v86_segment(static_cast<u16>(image[i++]));
    }
    return true;
}

bool Return::protected_mode() {
    Popper popper(cpu, op, width);
    if (!popper.pop(rip) || !popper.pop(cs_image) || (iret && !popper.pop(flags))) {
        return false;
    }
    if (iret && width == 4 && (flags & rflags::vm) != 0 && cpu.cpl == 0 && !ia32e(cpu)) {
        return to_v86(popper);
    }
    if (!check_code()) {
        return false;
    }
    const u8 level = rpl_of(code.selector);
    const bool outer = level != cpu.cpl;
    popper.skip(release);
    state::Segment ss = cpu.seg(Seg::ss);
    u64 rsp = popper.rsp();
    if (outer || (iret && cpu.mode.is64())) {
        u64 sp = 0;
        u64 ss_image = 0;
        if (!popper.pop(sp) || !popper.pop(ss_image) ||
            !check_stack(static_cast<u16>(ss_image), level, ss)) {
            return false;
        }
        const bool long_target = ia32e(cpu) && (code.attributes & seg_attr::l) != 0;
        const u64 mask = stack_mask(ss, long_target);
        rsp = Popper::merge(cpu.s.gpr[4], sp + release, mask);
        if (long_target) {
            rsp = sp + release;
        }
    }
    if (!rip_fits(cpu, code, rip)) {
        return site.gp(0);
    }
    if (iret) {
        set_rflags(cpu, iret_mask(cpu, width), flags);
    }
    cpu.seg(Seg::cs) = code;
    cpu.seg(Seg::ss) = ss;
    cpu.s.gpr[4] = rsp;
    cpu.s.rip = rip;
    if (outer) {
        drop_privileged_segments(cpu, level);
    }
    return true;
}

const Op* finish(Cpu& cpu, const Op* op) {
    cpu.update_mode();
    return cpu.leave_to(op, cpu.s.rip);
}

template <unsigned width>
const Op* op_ret_far(Cpu& cpu, const Op* op) {
    const u64 release = static_cast<u16>(op->imm);
    if (!cpu.mode.is_real_like()) {
        Return r{cpu, op, width, release, false};
        NESTOR_OR_STOP(cpu, op, r.protected_mode());
        return finish(cpu, op);
    }
    Popper popper(cpu, op, width);
    u64 rip = 0;
    u64 cs = 0;
    NESTOR_OR_STOP(cpu, op, popper.pop(rip) && popper.pop(cs));
    if (rip > cpu.seg(Seg::cs).limit) {
        return cpu.raise(op, Exception::gp);
    }
    popper.skip(release);
    const auto selector = static_cast<u16>(cs);
    cpu.seg(Seg::cs) =
        cpu.mode.has(Mode::v86) ? v86_segment(selector) : real_segment(cpu.seg(Seg::cs), selector);
    cpu.s.gpr[4] = popper.rsp();
    cpu.s.rip = rip;
    return finish(cpu, op);
}

/// IRET in real-address mode, and in virtual-8086 mode with IOPL 3 or VME.
bool iret_real_like(Cpu& cpu, const Op* op, unsigned width) {
    const Site site{cpu, op};
    const bool v86 = cpu.mode.has(Mode::v86);
    const bool virtual_if = v86 && iopl(cpu) < 3;
    if (virtual_if && ((cpu.s.cr4 & cr4::vme) == 0 || width != 2)) {
        return site.gp(0);
    }
    Popper popper(cpu, op, width);
    u64 rip = 0;
    u64 cs = 0;
    u64 flags = 0;
    if (!popper.pop(rip) || !popper.pop(cs) || !popper.pop(flags)) {
        return false;
    }
    if (rip > cpu.seg(Seg::cs).limit) {
        return site.gp(0);
    }
    u64 changed = iret_always | rflags::if_ | (width > 2 ? wide_only : 0);
    changed |= v86 ? 0 : rflags::iopl;
    if (virtual_if) {
        // SDM 3B 21.3.3.4 / SDM 2 IRET: the image's IF goes to VIF.
        const bool wants_if = (flags & rflags::if_) != 0;
        if ((wants_if && (cpu.s.rflags & rflags::vip) != 0) || (flags & rflags::tf) != 0) {
            return site.gp(0);
        }
        changed = (changed & ~rflags::if_) | rflags::vif;
        flags = (flags & ~rflags::vif) | (wants_if ? rflags::vif : 0);
    }
    set_rflags(cpu, changed, flags);
    const auto selector = static_cast<u16>(cs);
    cpu.seg(Seg::cs) = v86 ? v86_segment(selector) : real_segment(cpu.seg(Seg::cs), selector);
    cpu.s.gpr[4] = popper.rsp();
    cpu.s.rip = rip;
    return true;
}

/// IRET with NT set: back to the task that the TSS links to (SDM 2 IRET, TASK-RETURN).
const Op* iret_task(Cpu& cpu, const Op* op) {
    const Site site{cpu, op};
    u16 link = 0;
    Descriptor tss;
    bool switched = false;
    const u64 next = cpu.next_rip(op);
    const bool ok = cpu.load_system(op, static_cast<u32>(cpu.s.tr.base), &link, 2) &&
                    check_tss(site, link, true, Exception::ts, tss) &&
                    task_switch(site, link, tss, TaskSwitchSource::iret, next, nullptr, switched);
    if (!ok && !switched) {
        return cpu.abandon(op);
    }
    finish(cpu, op);
    if (!ok) {
        cpu.outcome = Outcome::fault;
    }
    return nullptr;
}

/// IRET ends blocking by NMI even if it faults or exits, and the exit says so (SDM 3C 26.3,
/// 28.2.3). With "NMI exiting" but no virtual NMIs there is nothing that it could end.
void unblock_nmi(Cpu& cpu) {
    const u32 controls = cpu.controls.pin & (pin_control::nmi_exiting | pin_control::virtual_nmis);
    if (controls == pin_control::nmi_exiting) {
        return;
    }
    const bool was = cpu.s.blocking_by_nmi;
    cpu.s.blocking_by_nmi = false;
    cpu.nmi_unblocked = was && cpu.outcome == Outcome::fault;
    if (was && cpu.outcome == Outcome::vm_exit && (cpu.exit.idt_vectoring_info >> 31) == 0) {
        cpu.exit.qualification |= bit(12);
    }
}

template <unsigned width>
const Op* op_iret(Cpu& cpu, const Op* op) {
    bool ok;
    if (cpu.mode.is_real_like()) {
        ok = iret_real_like(cpu, op, width);
    } else if ((cpu.s.rflags & rflags::nt) != 0) {
        if (!ia32e(cpu)) {
            return iret_task(cpu, op);
        }
        ok = cpu.set_fault(Exception::gp, 0);
    } else {
        Return r{cpu, op, width, 0, true};
        ok = r.protected_mode();
    }
    if (ok || cpu.outcome == Outcome::fault || cpu.outcome == Outcome::vm_exit) {
        unblock_nmi(cpu);
    }
    return ok ? finish(cpu, op) : cpu.abandon(op);
}

// --- INT ----------------------------------------------------------------------------------------

const Op* software_event(Cpu& cpu, const Op* op, EventType type, u8 vector) {
    cpu.event = Event{};
    cpu.event.type = type;
    cpu.event.vector = vector;
    cpu.event.instruction_length = op->len;
    cpu.outcome = Outcome::fault;
    return cpu.abandon(op);
}

const Op* int_v86(Cpu& cpu, const Op* op, u8 vector) {
    const Site site{cpu, op};
    bool redirect = false;
    if ((cpu.s.cr4 & cr4::vme) != 0) {
        NESTOR_OR_STOP(cpu, op, vme_redirects(site, vector, redirect));
    }
    if (!redirect) {
        return iopl(cpu) == 3 ? software_event(cpu, op, EventType::software_interrupt, vector)
                              : cpu.raise(op, Exception::gp);
    }
    NESTOR_OR_STOP(cpu, op, deliver_redirected(site, vector, cpu.next_rip(op)));
    return finish(cpu, op);
}

const Op* op_int(Cpu& cpu, const Op* op) {
    const u8 vector = static_cast<u8>(op->imm);
    if (cpu.mode.has(Mode::v86)) {
        return int_v86(cpu, op, vector);
    }
    return software_event(cpu, op, EventType::software_interrupt, vector);
}

const Op* op_int3(Cpu& cpu, const Op* op) {
    return software_event(cpu, op, EventType::software_exception, 3);
}

const Op* op_into(Cpu& cpu, const Op* op) {
    if ((cpu.rflags() & rflags::of) == 0) {
        return cpu.leave(op);
    }
    return software_event(cpu, op, EventType::software_exception, 4);
}

const Op* op_int1(Cpu& cpu, const Op* op) {
    return software_event(cpu, op, EventType::privileged_software_exception, 1);
}

} // namespace

bool emit_far_return(Emit& e) {
    switch (e.mnemonic()) {
    case ZYDIS_MNEMONIC_RET: {
        if (e.d.insn.meta.branch_type != ZYDIS_BRANCH_TYPE_FAR) {
            return false;
        }
        e.op.imm = e.d.insn.operand_count_visible > 0
                       ? static_cast<i32>(e.operand(0).imm.value.u & 0xffff)
                       : 0;
        const unsigned width = e.d.insn.operand_width;
        return ends_with(e, width == 64   ? op_ret_far<8>
                            : width == 32 ? op_ret_far<4>
                                          : op_ret_far<2>);
    }
    case ZYDIS_MNEMONIC_IRET:
        return ends_with(e, op_iret<2>);
    case ZYDIS_MNEMONIC_IRETD:
        return ends_with(e, op_iret<4>);
    case ZYDIS_MNEMONIC_IRETQ:
        return ends_with(e, op_iret<8>);
    case ZYDIS_MNEMONIC_INT:
        e.op.imm = static_cast<i32>(e.operand(0).imm.value.u & 0xff);
        return ends_with(e, op_int);
    case ZYDIS_MNEMONIC_INT3:
        return ends_with(e, op_int3);
    case ZYDIS_MNEMONIC_INTO:
        return ends_with(e, op_into);
    case ZYDIS_MNEMONIC_INT1:
        return ends_with(e, op_int1);
    default:
        return false;
    }
}

} // namespace nestor::cpu
