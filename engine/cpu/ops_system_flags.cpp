// Flags that are more than arithmetic: PUSHF, POPF, CLI, STI, STAC, CLAC.
//
// Owns nothing. VME and PVI: SDM 3B 21.3 and 21.4. While flags are lazy, the system bits of
// s.rflags are right all the same, so they are changed in place.
#include "engine/cpu/system.hpp"

namespace nestor::cpu {

using namespace arch;

namespace {

u64 iopl(const Cpu& cpu) { return (cpu.s.rflags & rflags::iopl) >> 12; }
bool v86_below(const Cpu& cpu) { return cpu.mode.has(Mode::v86) && iopl(cpu) < 3; }

template <class T>
const Op* op_pushf(Cpu& cpu, const Op* op) {
    u64 image = cpu.rflags() & ~(rflags::vm | rflags::rf);
    if (v86_below(cpu)) {
        if ((cpu.s.cr4 & cr4::vme) == 0 || sizeof(T) != 2) {
            return cpu.raise(op, Exception::gp);
        }
        const bool vif = (image & rflags::vif) != 0;
        image = (image & ~rflags::if_) | rflags::iopl | (vif ? rflags::if_ : 0);
    }
    const u64 mask = stack_mask(cpu.seg(Seg::ss), cpu.mode.stack() == 2);
    const u64 sp = (cpu.s.gpr[4] - sizeof(T)) & mask;
    u64 address;
    NESTOR_OR_STOP(cpu, op, cpu.segment_access(Seg::ss, sp, sizeof(T), Access::write, address));
    NESTOR_OR_STOP(cpu, op, cpu.store_linear(op, address, static_cast<T>(image), Seg::ss));
    cpu.s.gpr[4] = Popper::merge(cpu.s.gpr[4], sp, mask);
    return op;
}

template <unsigned width>
const Op* op_popf(Cpu& cpu, const Op* op) {
    const bool virtual_if = v86_below(cpu);
    if (virtual_if && ((cpu.s.cr4 & cr4::vme) == 0 || width != 2)) {
        return cpu.raise(op, Exception::gp);
    }
    Popper popper(cpu, op, width);
    u64 image = 0;
    NESTOR_OR_STOP(cpu, op, popper.pop(image));
    u64 changed = rflags::arithmetic | rflags::tf | rflags::df | rflags::nt;
    if (width > 2) {
        changed |= rflags::ac | rflags::id | rflags::rf;
        image &= ~rflags::rf;
    }
    if (virtual_if) {
        // SDM 2 POPF: the image's IF goes to VIF.
        const bool wants_if = (image & rflags::if_) != 0;
        if ((wants_if && (cpu.s.rflags & rflags::vip) != 0) || (image & rflags::tf) != 0) {
            return cpu.raise(op, Exception::gp);
        }
        changed |= rflags::vif;
        image = (image & ~rflags::vif) | (wants_if ? rflags::vif : 0);
    } else {
        changed |= cpu.cpl <= iopl(cpu) ? rflags::if_ : 0;
        changed |= cpu.cpl == 0 ? rflags::iopl : 0;
    }
    const u64 before = cpu.s.rflags;
    cpu.s.gpr[4] = popper.rsp();
    cpu.set_flags(changed, image);
    constexpr u64 looked_at = rflags::tf | rflags::if_ | rflags::ac | rflags::rf;
    if (((before ^ cpu.s.rflags) & looked_at) == 0) {
        return op;
    }
    cpu.update_flags_mode();
    return cpu.leave(op);
}

/// CLI and STI above IOPL: VIF with VME or PVI, #GP(0) otherwise (SDM 2 table 3-7 and 4-20).
bool virtual_interrupts(const Cpu& cpu) {
    return cpu.mode.has(Mode::v86) ? (cpu.s.cr4 & cr4::vme) != 0
                                   : cpu.cpl == 3 && (cpu.s.cr4 & cr4::pvi) != 0;
}

const Op* op_cli(Cpu& cpu, const Op* op) {
    if (cpu.cpl <= iopl(cpu)) {
        cpu.s.rflags &= ~rflags::if_;
        return next(cpu, op);
    }
    if (!virtual_interrupts(cpu)) {
        return cpu.raise(op, Exception::gp);
    }
    cpu.s.rflags &= ~rflags::vif;
    return next(cpu, op);
}

const Op* op_sti(Cpu& cpu, const Op* op) {
    if (cpu.cpl <= iopl(cpu)) {
        if ((cpu.s.rflags & rflags::if_) == 0) {
            cpu.s.rflags |= rflags::if_;
            cpu.set_shadow(false);
        }
        return cpu.leave(op);
    }
    if (!virtual_interrupts(cpu) || (cpu.s.rflags & rflags::vip) != 0) {
        return cpu.raise(op, Exception::gp);
    }
    cpu.s.rflags |= rflags::vif;
    return cpu.leave(op);
}

template <bool set>
const Op* op_ac(Cpu& cpu, const Op* op) {
    if (cpu.cpl != 0) {
        return cpu.raise(op, Exception::ud);
    }
    cpu.s.rflags = set ? cpu.s.rflags | rflags::ac : cpu.s.rflags & ~rflags::ac;
    cpu.update_flags_mode();
    return next(cpu, op);
}

} // namespace

bool emit_system_flags(Emit& e) {
    switch (e.mnemonic()) {
    case ZYDIS_MNEMONIC_PUSHF:
        e.op.fn = then_next<op_pushf<u16>>;
        return true;
    case ZYDIS_MNEMONIC_PUSHFD:
        e.op.fn = then_next<op_pushf<u32>>;
        return true;
    case ZYDIS_MNEMONIC_PUSHFQ:
        e.op.fn = then_next<op_pushf<u64>>;
        return true;
    case ZYDIS_MNEMONIC_POPF:
        e.op.fn = then_next<op_popf<2>>;
        return true;
    case ZYDIS_MNEMONIC_POPFD:
        e.op.fn = then_next<op_popf<4>>;
        return true;
    case ZYDIS_MNEMONIC_POPFQ:
        e.op.fn = then_next<op_popf<8>>;
        return true;
    case ZYDIS_MNEMONIC_CLI:
        e.op.fn = op_cli;
        return true;
    case ZYDIS_MNEMONIC_STI:
        return ends_with(e, op_sti);
    case ZYDIS_MNEMONIC_STAC:
        e.op.fn = op_ac<true>;
        return true;
    case ZYDIS_MNEMONIC_CLAC:
        e.op.fn = op_ac<false>;
        return true;
    default:
        return false;
    }
}

} // namespace nestor::cpu
