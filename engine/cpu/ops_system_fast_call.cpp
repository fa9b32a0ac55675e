// SYSENTER, SYSEXIT, SYSCALL, SYSRET with Intel's behaviour (SDM 2), SWAPGS and the FS/GS bases.
//
// Owns nothing. The segments these load do not come from descriptors: flat, with fixed rights.
#include "engine/cpu/system.hpp"

namespace nestor::cpu {

using namespace arch;

namespace {

/// CS or SS as the fast calls set them: base 0, limit 4 GiB - 1, accessed, present.
state::Segment flat_code(u16 selector, u8 dpl, bool long_code) {
    state::Segment s;
    s.selector = selector;
    s.limit = 0xffffffff;
    s.attributes = 0xb | seg_attr::s | static_cast<u32>(dpl) << seg_attr::dpl_shift | seg_attr::p |
                   (long_code ? seg_attr::l : seg_attr::db) | seg_attr::g;
    return s;
}
state::Segment flat_stack(u16 selector, u8 dpl) {
    state::Segment s;
    s.selector = selector;
    s.limit = 0xffffffff;
    s.attributes = 0x3 | seg_attr::s | static_cast<u32>(dpl) << seg_attr::dpl_shift | seg_attr::p |
                   seg_attr::db | seg_attr::g;
    return s;
}

void load(Cpu& cpu, u16 cs, u16 ss, u8 dpl, bool long_code) {
    cpu.seg(Seg::cs) = flat_code(static_cast<u16>(dpl == 3 ? cs | 3 : cs & 0xfffc), dpl, long_code);
    cpu.seg(Seg::ss) = flat_stack(static_cast<u16>(dpl == 3 ? ss | 3 : ss), dpl);
}

const Op* finish(Cpu& cpu, const Op* op, u64 rip) {
    cpu.update_mode();
    return cpu.leave_to(op, rip);
}

bool syscall_exists(const Cpu& cpu) { return cpu.mode.is64() && (cpu.s.efer & efer::sce) != 0; }

const Op* op_syscall(Cpu& cpu, const Op* op) {
    if (!syscall_exists(cpu)) {
        return cpu.raise(op, Exception::ud);
    }
    cpu.materialize_flags();
    cpu.gpr(Gpr::rcx) = cpu.next_rip(op);
    cpu.gpr(Gpr::r11) = cpu.s.rflags & ~rflags::rf;
    const bool stepping = (cpu.s.rflags & rflags::tf) != 0;
    cpu.s.rflags &= ~(cpu.s.fmask | rflags::rf);
    cpu.s.rflags |= rflags::fixed1;
    const u16 selector = static_cast<u16>(cpu.s.star >> 32);
    load(cpu, selector, static_cast<u16>((selector & 0xfffc) + 8), 0, true);
    // The trap of an instruction that clears TF is discarded.
    cpu.suppress_trap = stepping && (cpu.s.rflags & rflags::tf) == 0;
    return finish(cpu, op, cpu.s.lstar);
}

template <bool wide>
const Op* op_sysret(Cpu& cpu, const Op* op) {
    if (!syscall_exists(cpu)) {
        return cpu.raise(op, Exception::ud);
    }
    const u64 target = cpu.gpr(Gpr::rcx);
    if (cpu.cpl != 0 || (wide && !canonical(cpu, target))) {
        return cpu.raise(op, Exception::gp);
    }
    cpu.s.rflags = (cpu.gpr(Gpr::r11) & 0x3c7fd7) | rflags::fixed1;
    cpu.lazy.settle();
    const u16 selector = static_cast<u16>(cpu.s.star >> 48);
    load(cpu, static_cast<u16>(wide ? selector + 16 : selector), static_cast<u16>(selector + 8), 3,
         wide);
    if ((cpu.s.rflags & rflags::tf) != 0) {
        // A TF that SYSRET sets traps behind SYSRET itself.
        cpu.s.pending_debug |= pending_debug::bs;
        cpu.raise_attention(Cpu::Attention::event);
    }
    return finish(cpu, op, wide ? target : static_cast<u32>(target));
}

const Op* op_sysenter(Cpu& cpu, const Op* op) {
    if (cpu.mode.has(Mode::real) || (cpu.s.sysenter_cs & 0xfffc) == 0) {
        return cpu.raise(op, Exception::gp);
    }
    const bool lma = ia32e(cpu);
    const u16 selector = static_cast<u16>(cpu.s.sysenter_cs & 0xfffc);
    cpu.s.rflags &= ~(rflags::vm | rflags::if_ | rflags::rf);
    load(cpu, selector, static_cast<u16>(selector + 8), 0, lma);
    const u64 keep = lma ? ~u64{0} : 0xffffffff;
    cpu.gpr(Gpr::rsp) = cpu.s.sysenter_esp & keep;
    return finish(cpu, op, cpu.s.sysenter_eip & keep);
}

template <bool wide>
const Op* op_sysexit(Cpu& cpu, const Op* op) {
    const u64 rip = cpu.gpr(Gpr::rdx);
    const u64 rsp = cpu.gpr(Gpr::rcx);
    if ((cpu.s.sysenter_cs & 0xfffc) == 0 || cpu.mode.has(Mode::real) || cpu.cpl != 0 ||
        (wide && (!canonical(cpu, rip) || !canonical(cpu, rsp)))) {
        return cpu.raise(op, Exception::gp);
    }
    const u16 selector = static_cast<u16>(cpu.s.sysenter_cs & 0xfffc);
    const unsigned cs = selector + (wide ? 32u : 16u);
    load(cpu, static_cast<u16>(cs), static_cast<u16>(cs + 8), 3, wide);
    cpu.gpr(Gpr::rsp) = wide ? rsp : static_cast<u32>(rsp);
    return finish(cpu, op, wide ? rip : static_cast<u32>(rip));
}

// --- FS and GS bases ----------------------------------------------------------------------------

const Op* op_swapgs(Cpu& cpu, const Op* op) {
    if (cpu.cpl != 0) {
        return cpu.raise(op, Exception::gp);
    }
    std::swap(cpu.seg(Seg::gs).base, cpu.s.kernel_gs_base);
    return next(cpu, op);
}

template <Seg which, class T>
const Op* op_read_base(Cpu& cpu, const Op* op) {
    if ((cpu.s.cr4 & cr4::fsgsbase) == 0) {
        return cpu.raise(op, Exception::ud);
    }
    cpu.set_reg<T>(op->dst, static_cast<T>(cpu.seg(which).base));
    return next(cpu, op);
}

template <Seg which, class T>
const Op* op_write_base(Cpu& cpu, const Op* op) {
    if ((cpu.s.cr4 & cr4::fsgsbase) == 0) {
        return cpu.raise(op, Exception::ud);
    }
    const u64 value = cpu.reg<T>(op->dst);
    if (!canonical(cpu, value)) {
        return cpu.raise(op, Exception::gp);
    }
    cpu.seg(which).base = value;
    return next(cpu, op);
}

template <Seg which>
bool emit_base(Emit& e, bool write) {
    if (!e.mode.is64()) {
        emit_undefined(e);
        return true;
    }
    e.op.dst = Emit::reg_offset(e.operand(0).reg.value);
    if (e.size(0) == 8) {
        e.op.fn = write ? op_write_base<which, u64> : op_read_base<which, u64>;
    } else {
        e.op.fn = write ? op_write_base<which, u32> : op_read_base<which, u32>;
    }
    return true;
}

} // namespace

bool emit_system_fast_call(Emit& e) {
    const bool wide = e.mode.is64() && (e.d.insn.attributes & ZYDIS_ATTRIB_HAS_REX) != 0 &&
                      e.d.insn.raw.rex.W != 0;
    switch (e.mnemonic()) {
    case ZYDIS_MNEMONIC_SYSCALL:
        return ends_with(e, op_syscall);
    case ZYDIS_MNEMONIC_SYSRET:
        return ends_with(e, wide ? op_sysret<true> : op_sysret<false>);
    case ZYDIS_MNEMONIC_SYSENTER:
        return ends_with(e, op_sysenter);
    case ZYDIS_MNEMONIC_SYSEXIT:
        return ends_with(e, wide ? op_sysexit<true> : op_sysexit<false>);
    case ZYDIS_MNEMONIC_SWAPGS:
        e.op.fn = op_swapgs;
        return true;
    case ZYDIS_MNEMONIC_RDFSBASE:
        return emit_base<Seg::fs>(e, false);
    case ZYDIS_MNEMONIC_RDGSBASE:
        return emit_base<Seg::gs>(e, false);
    case ZYDIS_MNEMONIC_WRFSBASE:
        return emit_base<Seg::fs>(e, true);
    case ZYDIS_MNEMONIC_WRGSBASE:
        return emit_base<Seg::gs>(e, true);
    default:
        return false;
    }
}

} // namespace nestor::cpu
