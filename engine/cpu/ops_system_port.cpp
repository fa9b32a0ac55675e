// IN and OUT, and the permission to use a port (SDM 1 chapter 19).
//
// Owns nothing. The permission check comes before the VM exit (SDM 3C 26.1.1). Without the exit the
// access is answered from outside and the instruction starts again with the answer.
// Operand packing: op.imm the port, or negative for DX.
#include "engine/cpu/system.hpp"
#include "engine/cpu/vmx_memory.hpp"

namespace nestor::cpu {

using namespace arch;

bool io_permitted(Cpu& cpu, const Op* op, u16 port, unsigned size) {
    const u64 iopl = (cpu.s.rflags & rflags::iopl) >> 12;
    if (cpu.mode.has(Mode::real) || (!cpu.mode.has(Mode::v86) && cpu.cpl <= iopl)) {
        return true;
    }
    // SDM 1 19.5.2: a 32-bit TSS whose limit covers the map's two bytes.
    const state::Segment& tr = cpu.s.tr;
    const bool usable =
        (tr.attributes & (seg_attr::unusable | seg_attr::p | 8)) == (seg_attr::p | 8);
    if (!usable || tr.limit < 103) {
        return cpu.set_fault(Exception::gp, 0);
    }
    u16 base = 0;
    u16 bits_here = 0;
    if (!cpu.load_system(op, tr.base + 102, &base, 2)) {
        return false;
    }
    const u32 offset = base + port / 8u;
    if (offset + 1 > tr.limit) {
        return cpu.set_fault(Exception::gp, 0);
    }
    if (!cpu.load_system(op, tr.base + offset, &bits_here, 2)) {
        return false;
    }
    const u32 wanted = ((1u << size) - 1) << (port & 7);
    return (bits_here & wanted) == 0 || cpu.set_fault(Exception::gp, 0);
}

bool io_exits(Cpu& cpu, u16 port, unsigned size, bool& exits) {
    const Controls& c = cpu.controls;
    exits = (c.proc & proc_control::unconditional_io_exiting) != 0;
    if ((c.proc & proc_control::use_io_bitmaps) == 0) {
        return true;
    }
    exits = port + size > 0x10000; // wraps
    for (unsigned i = 0; i < size && !exits; ++i) {
        const u32 p = u32{port} + i;
        const u64 bitmap = p < 0x8000 ? c.io_bitmap_a : c.io_bitmap_b;
        u8 here = 0;
        if (!read_structure(cpu, bitmap + (p & 0x7fff) / 8, &here, 1)) {
            return false;
        }
        exits = (here >> (p & 7) & 1) != 0;
    }
    return true;
}

u64 io_breakpoints(const Cpu& cpu, u16 port, unsigned size) {
    const u64 dr7 = cpu.s.dr7;
    if ((dr7 & dr7::enables) == 0 || (cpu.s.cr4 & cr4::de) == 0) {
        return 0;
    }
    u64 hit = 0;
    for (unsigned i = 0; i < 4; ++i) {
        if ((dr7 >> (2 * i) & 3) == 0 || (dr7 >> (16 + 4 * i) & 3) != 2) {
            continue;
        }
        static constexpr u64 lengths[] = {1, 2, 8, 4};
        const u64 length = lengths[dr7 >> (18 + 4 * i) & 3];
        const u64 start = align_down(cpu.s.dr[i], length);
        if (start < u64{port} + size && port < start + length) {
            hit |= bit(i);
        }
    }
    return hit;
}

void note_io_breakpoints(Cpu& cpu, u64 dr6_bits) {
    if (dr6_bits != 0) {
        cpu.s.pending_debug |= dr6_bits | pending_debug::enabled_breakpoint;
        cpu.raise_attention(Cpu::Attention::event);
    }
}

namespace {

template <class T, bool in>
const Op* op_port(Cpu& cpu, const Op* op) {
    const bool immediate = op->imm >= 0;
    const u16 port = immediate ? static_cast<u16>(op->imm) : cpu.reg<u16>(8 * 2);
    NESTOR_OR_STOP(cpu, op, io_permitted(cpu, op, port, sizeof(T)));
    bool exits = false;
    NESTOR_OR_STOP(cpu, op, io_exits(cpu, port, sizeof(T), exits));
    if (exits) {
        return cpu.vm_exit(op, ExitReason::io_instruction,
                           io_qualification(port, sizeof(T), in, immediate));
    }
    u64 data = cpu.reg<T>(0);
    NESTOR_OR_STOP(cpu, op,
                   cpu.external_access(op, PendingAccess::Kind::port, port, sizeof(T), !in, data));
    if (in) {
        cpu.set_reg<T>(0, static_cast<T>(data));
    }
    note_io_breakpoints(cpu, io_breakpoints(cpu, port, sizeof(T)));
    return cpu.leave(op);
}

template <bool in>
bool emit_port(Emit& e) {
    const unsigned data = in ? 0 : 1;
    const unsigned port = in ? 1 : 0;
    e.op.imm = e.is_imm(port) ? static_cast<i32>(e.operand(port).imm.value.u & 0xff) : -1;
    switch (e.size(data)) {
    case 1:
        return ends_with(e, op_port<u8, in>);
    case 2:
        return ends_with(e, op_port<u16, in>);
    default:
        return ends_with(e, op_port<u32, in>);
    }
}

} // namespace

bool emit_system_port(Emit& e) {
    switch (e.mnemonic()) {
    case ZYDIS_MNEMONIC_IN:
        return emit_port<true>(e);
    case ZYDIS_MNEMONIC_OUT:
        return emit_port<false>(e);
    default:
        return false;
    }
}

} // namespace nestor::cpu
