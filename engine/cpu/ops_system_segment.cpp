// Segment registers: MOV, PUSH, POP, LDS and its kin; LAR, LSL, VERR, VERW, ARPL.
//
// Owns nothing. Operand packing: op.aux is the arch::Seg; op.dst, op.src the general register. A
// load that leaves the mode key as it was goes on in its block.
#include "engine/cpu/system.hpp"

namespace nestor::cpu {

using namespace arch;

namespace {

Seg seg_of(const Op* op) { return static_cast<Seg>(op->aux & 7); }

/// A load of SS inhibits the single-step trap behind it too (SDM 3A 6.8.3).
void inhibit_trap(Cpu& cpu) { cpu.suppress_trap = (cpu.s.rflags & rflags::tf) != 0; }

/// After a segment register changed.
const Op* after_load(Cpu& cpu, const Op* op, Seg which) {
    if (which >= Seg::fs) {
        return op;
    }
    const u32 key = cpu.mode.key;
    const u64 following = cpu.next_rip(op);
    cpu.update_mode();
    return key == cpu.mode.key ? op : cpu.leave_to(op, following);
}

const Op* load_segment(Cpu& cpu, const Op* op, Seg which, u16 selector) {
    const Site site{cpu, op};
    state::Segment loaded;
    NESTOR_OR_STOP(cpu, op, check_segment_load(site, which, selector, loaded));
    cpu.seg(which) = loaded;
    if (which != Seg::ss) {
        return after_load(cpu, op, which);
    }
    const u64 following = cpu.next_rip(op);
    cpu.update_mode();
    cpu.set_shadow(true);
    inhibit_trap(cpu);
    return cpu.leave_to(op, following);
}

template <bool memory>
const Op* op_mov_to_seg(Cpu& cpu, const Op* op) {
    u16 selector;
    if constexpr (memory) {
        NESTOR_OR_STOP(cpu, op, cpu.load(op, selector));
    } else {
        selector = cpu.reg<u16>(op->src);
    }
    return load_segment(cpu, op, seg_of(op), selector);
}

/// Register forms write 16 bits, or zero-extended 32 or 64 (SDM 2 MOV).
template <class T>
const Op* op_mov_from_seg(Cpu& cpu, const Op* op) {
    cpu.set_reg<T>(op->dst, static_cast<T>(cpu.seg(seg_of(op)).selector));
    return op;
}
const Op* op_store_seg(Cpu& cpu, const Op* op) {
    NESTOR_OR_STOP(cpu, op, cpu.store<u16>(op, cpu.seg(seg_of(op)).selector));
    return op;
}

/// PUSH of a segment register. With a 32-bit operand only 16 bits are written (SDM 2 PUSH).
template <unsigned width>
const Op* op_push_seg(Cpu& cpu, const Op* op) {
    const u64 mask = stack_mask(cpu.seg(Seg::ss), cpu.mode.stack() == 2);
    const u64 sp = (cpu.s.gpr[4] - width) & mask;
    const u64 value = cpu.seg(seg_of(op)).selector;
    constexpr unsigned written = width == 8 ? 8 : 2;
    u64 address;
    NESTOR_OR_STOP(cpu, op, cpu.segment_access(Seg::ss, sp, written, Access::write, address));
    NESTOR_OR_STOP(cpu, op, cpu.store_slow(op, address, &value, written, Seg::ss));
    cpu.s.gpr[4] = Popper::merge(cpu.s.gpr[4], sp, mask);
    return op;
}

template <unsigned width>
const Op* op_pop_seg(Cpu& cpu, const Op* op) {
    Popper popper(cpu, op, width);
    u64 value = 0;
    NESTOR_OR_STOP(cpu, op, popper.pop(value));
    const Site site{cpu, op};
    state::Segment loaded;
    NESTOR_OR_STOP(cpu, op, check_segment_load(site, seg_of(op), static_cast<u16>(value), loaded));
    cpu.s.gpr[4] = popper.rsp();
    if (seg_of(op) != Seg::ss) {
        cpu.seg(seg_of(op)) = loaded;
        return after_load(cpu, op, seg_of(op));
    }
    cpu.seg(Seg::ss) = loaded;
    const u64 following = cpu.next_rip(op);
    cpu.update_mode();
    cpu.set_shadow(true);
    inhibit_trap(cpu);
    return cpu.leave_to(op, following);
}

/// LDS, LES, LSS, LFS, LGS: the offset goes to op.dst only after the segment was loaded.
template <class T>
const Op* op_load_far_pointer(Cpu& cpu, const Op* op) {
    u8 bytes[10];
    u64 address;
    const unsigned size = sizeof(T) + 2;
    NESTOR_OR_STOP(cpu, op, cpu.linear(op, size, Access::read, address));
    NESTOR_OR_STOP(cpu, op, cpu.load_slow(op, address, bytes, size, Cpu::operand_segment(op)));
    T offset;
    u16 selector;
    std::memcpy(&offset, bytes, sizeof offset);
    std::memcpy(&selector, bytes + sizeof offset, 2);
    const Site site{cpu, op};
    state::Segment loaded;
    NESTOR_OR_STOP(cpu, op, check_segment_load(site, seg_of(op), selector, loaded));
    cpu.seg(seg_of(op)) = loaded;
    cpu.set_reg<T>(op->dst, offset);
    return after_load(cpu, op, seg_of(op));
}

// --- looking at descriptors ---------------------------------------------------------------------

/// The selector operand of LAR, LSL, VERR, VERW: register (base op.src) or memory.
template <bool memory>
bool selector_operand(Cpu& cpu, const Op* op, u16& selector) {
    if constexpr (memory) {
        return cpu.load(op, selector);
    } else {
        selector = cpu.reg<u16>(op->src);
        return true;
    }
}

/// Reads a descriptor that may not exist. False: outcome is set.
bool look(Cpu& cpu, const Op* op, u16 selector, Descriptor& d, bool& found) {
    found = !is_null(selector) && descriptor_address(cpu, selector, 8, d.address);
    return !found || cpu.load_system(op, d.address, &d.low, 8);
}

bool visible(const Cpu& cpu, u16 selector, const Descriptor& d) {
    return (d.is_code() && d.conforming()) || (cpu.cpl <= d.dpl() && rpl_of(selector) <= d.dpl());
}

/// System types that LAR and LSL accept, as masks by type (SDM 2 table 3-50 and 3-51).
constexpr u32 lar_types = bit<u32>(1) | bit<u32>(2) | bit<u32>(3) | bit<u32>(4) | bit<u32>(5) |
                          bit<u32>(9) | bit<u32>(11) | bit<u32>(12);
constexpr u32 lar_types_long = bit<u32>(2) | bit<u32>(9) | bit<u32>(11) | bit<u32>(12);
constexpr u32 lsl_types = bit<u32>(1) | bit<u32>(2) | bit<u32>(3) | bit<u32>(9) | bit<u32>(11);
constexpr u32 lsl_types_long = bit<u32>(2) | bit<u32>(9) | bit<u32>(11);

template <class T, bool memory, bool rights>
const Op* op_lar_lsl(Cpu& cpu, const Op* op) {
    u16 selector;
    Descriptor d;
    bool ok = false;
    NESTOR_OR_STOP(cpu, op, selector_operand<memory>(cpu, op, selector));
    NESTOR_OR_STOP(cpu, op, look(cpu, op, selector, d, ok));
    if (ok && !d.segment()) {
        const u32 types = rights ? (ia32e(cpu) ? lar_types_long : lar_types)
                                 : (ia32e(cpu) ? lsl_types_long : lsl_types);
        ok = (types >> d.type() & 1) != 0;
    }
    ok = ok && visible(cpu, selector, d);
    if (ok) {
        const u32 value = rights ? static_cast<u32>(d.low >> 32) & 0x00f0ff00 : d.limit();
        cpu.set_reg<T>(op->dst, static_cast<T>(value));
    }
    cpu.set_flags(rflags::zf, ok ? rflags::zf : 0);
    return op;
}

template <bool memory, bool write>
const Op* op_verify(Cpu& cpu, const Op* op) {
    u16 selector;
    Descriptor d;
    bool ok = false;
    NESTOR_OR_STOP(cpu, op, selector_operand<memory>(cpu, op, selector));
    NESTOR_OR_STOP(cpu, op, look(cpu, op, selector, d, ok));
    ok = ok && d.segment() && visible(cpu, selector, d);
    if (write) {
        ok = ok && d.is_data() && d.write_or_read();
    } else {
        ok = ok && (d.is_data() || d.write_or_read());
    }
    cpu.set_flags(rflags::zf, ok ? rflags::zf : 0);
    return op;
}

template <bool memory>
const Op* op_arpl(Cpu& cpu, const Op* op) {
    u16 value;
    u64 address = 0;
    if constexpr (memory) {
        NESTOR_OR_STOP(cpu, op, cpu.load_for_write(op, address, value));
    } else {
        value = cpu.reg<u16>(op->dst);
    }
    const u8 wanted = rpl_of(cpu.reg<u16>(op->src));
    const bool raise = rpl_of(value) < wanted;
    if (raise) {
        value = with_rpl(value, wanted);
        if constexpr (memory) {
            NESTOR_OR_STOP(cpu, op, cpu.store_linear(op, address, value, Cpu::operand_segment(op)));
        } else {
            cpu.set_reg<u16>(op->dst, value);
        }
    }
    cpu.set_flags(rflags::zf, raise ? rflags::zf : 0);
    return op;
}

// --- emitters -----------------------------------------------------------------------------------

bool is_segment(const Emit& e, unsigned i) {
    return e.is_reg(i) && e.operand(i).reg.value >= ZYDIS_REGISTER_ES &&
           e.operand(i).reg.value <= ZYDIS_REGISTER_GS;
}
u64 segment_index(const Emit& e, unsigned i) {
    return static_cast<u64>(e.operand(i).reg.value - ZYDIS_REGISTER_ES);
}

bool emit_mov(Emit& e) {
    if (is_segment(e, 0)) {
        e.op.aux = segment_index(e, 0);
        e.ends_block = static_cast<Seg>(e.op.aux) == Seg::ss;
        if (static_cast<Seg>(e.op.aux) == Seg::cs) {
            emit_undefined(e);
        } else if (e.is_mem(1)) {
            e.set_memory(1);
            e.op.fn = then_next<op_mov_to_seg<true>>;
        } else {
            e.op.src = Emit::reg_offset(e.operand(1).reg.value);
            e.op.fn = then_next<op_mov_to_seg<false>>;
        }
        return true;
    }
    if (!is_segment(e, 1)) {
        return false;
    }
    e.op.aux = segment_index(e, 1);
    if (e.is_mem(0)) {
        e.set_memory(0);
        e.op.fn = then_next<op_store_seg>;
        return true;
    }
    e.op.dst = Emit::reg_offset(e.operand(0).reg.value);
    e.op.fn = e.size(0) == 8   ? then_next<op_mov_from_seg<u64>>
              : e.size(0) == 4 ? then_next<op_mov_from_seg<u32>>
                               : then_next<op_mov_from_seg<u16>>;
    return true;
}

bool emit_push_pop(Emit& e, bool push) {
    if (!is_segment(e, 0)) {
        return false;
    }
    e.op.aux = segment_index(e, 0);
    const unsigned w = e.d.insn.operand_width;
    if (push) {
        e.op.fn = w == 64   ? then_next<op_push_seg<8>>
                  : w == 32 ? then_next<op_push_seg<4>>
                            : then_next<op_push_seg<2>>;
    } else {
        e.op.fn = w == 64   ? then_next<op_pop_seg<8>>
                  : w == 32 ? then_next<op_pop_seg<4>>
                            : then_next<op_pop_seg<2>>;
        e.ends_block = static_cast<Seg>(e.op.aux) == Seg::ss;
    }
    return true;
}

bool emit_far_pointer(Emit& e, Seg which) {
    e.set_memory(1);
    e.op.aux = static_cast<u64>(which);
    e.op.dst = Emit::reg_offset(e.operand(0).reg.value);
    e.op.fn = e.size(0) == 8   ? then_next<op_load_far_pointer<u64>>
              : e.size(0) == 4 ? then_next<op_load_far_pointer<u32>>
                               : then_next<op_load_far_pointer<u16>>;
    return true;
}

template <bool memory, bool rights>
OpFn lar_lsl(unsigned size) {
    return size == 8   ? then_next<op_lar_lsl<u64, memory, rights>>
           : size == 4 ? then_next<op_lar_lsl<u32, memory, rights>>
                       : then_next<op_lar_lsl<u16, memory, rights>>;
}

/// The r/m16 operand i of the descriptor instructions.
bool set_selector_operand(Emit& e, unsigned i) {
    if (e.is_mem(i)) {
        e.set_memory(i);
        return true;
    }
    e.op.src = Emit::reg_offset(e.operand(i).reg.value);
    return false;
}

bool emit_descriptor_look(Emit& e) {
    if (e.mode.is_real_like()) {
        emit_undefined(e); // SDM 2: not recognized in real-address and virtual-8086 mode
        return true;
    }
    const ZydisMnemonic m = e.mnemonic();
    if (m == ZYDIS_MNEMONIC_LAR || m == ZYDIS_MNEMONIC_LSL) {
        const bool rights = m == ZYDIS_MNEMONIC_LAR;
        e.op.dst = Emit::reg_offset(e.operand(0).reg.value);
        if (set_selector_operand(e, 1)) {
            e.op.fn = rights ? lar_lsl<true, true>(e.size(0)) : lar_lsl<true, false>(e.size(0));
        } else {
            e.op.fn = rights ? lar_lsl<false, true>(e.size(0)) : lar_lsl<false, false>(e.size(0));
        }
        return true;
    }
    if (m == ZYDIS_MNEMONIC_ARPL) {
        e.op.src = Emit::reg_offset(e.operand(1).reg.value);
        if (e.is_mem(0)) {
            e.set_memory(0);
            e.op.fn = then_next<op_arpl<true>>;
        } else {
            e.op.dst = Emit::reg_offset(e.operand(0).reg.value);
            e.op.fn = then_next<op_arpl<false>>;
        }
        return true;
    }
    const bool write = m == ZYDIS_MNEMONIC_VERW;
    if (set_selector_operand(e, 0)) {
        e.op.fn = write ? then_next<op_verify<true, true>> : then_next<op_verify<true, false>>;
    } else {
        e.op.fn = write ? then_next<op_verify<false, true>> : then_next<op_verify<false, false>>;
    }
    return true;
}

} // namespace

bool emit_system_segment(Emit& e) {
    switch (e.mnemonic()) {
    case ZYDIS_MNEMONIC_MOV:
        return emit_mov(e);
    case ZYDIS_MNEMONIC_PUSH:
        return emit_push_pop(e, true);
    case ZYDIS_MNEMONIC_POP:
        return emit_push_pop(e, false);
    case ZYDIS_MNEMONIC_LES:
        return emit_far_pointer(e, Seg::es);
    case ZYDIS_MNEMONIC_LDS:
        return emit_far_pointer(e, Seg::ds);
    case ZYDIS_MNEMONIC_LSS:
        return emit_far_pointer(e, Seg::ss);
    case ZYDIS_MNEMONIC_LFS:
        return emit_far_pointer(e, Seg::fs);
    case ZYDIS_MNEMONIC_LGS:
        return emit_far_pointer(e, Seg::gs);
    case ZYDIS_MNEMONIC_LAR:
    case ZYDIS_MNEMONIC_LSL:
    case ZYDIS_MNEMONIC_VERR:
    case ZYDIS_MNEMONIC_VERW:
    case ZYDIS_MNEMONIC_ARPL:
        return emit_descriptor_look(e);
    default:
        return false;
    }
}

} // namespace nestor::cpu
