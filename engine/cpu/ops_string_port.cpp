// INS and OUTS, alone and with REP (SDM 2A, 2B).
//
// One iteration is one access answered from outside; the instruction starts again with each answer.
// For INS the memory is found writable before the port is read, since a port cannot be read twice.
// Where controls make the instruction exit (SDM 3C 26.1.3), that comes behind its permission
// checks.
#include "engine/cpu/string.hpp"
#include "engine/cpu/system.hpp"

namespace nestor::cpu {

using namespace arch;

namespace {

/// op->imm bit 0: a REP prefix.
constexpr i32 repeated = 1;

/// Linear address of the element, without checks: an exit comes before the memory's faults.
u64 element_address(const Cpu& cpu, Seg segment, u64 offset) {
    const u64 base = cpu.s.segments[static_cast<unsigned>(segment)].base;
    if (cpu.mode.is64()) {
        return offset + (segment >= Seg::fs ? base : 0);
    }
    return static_cast<u32>(base + offset);
}

/// Exit qualification (SDM 3C table 28-5) and instruction information (table 28-9).
void exit_to_monitor(Cpu& cpu, const Op* op, u16 port, unsigned size, bool in) {
    cpu.set_exit(ExitReason::io_instruction, io_qualification(port, size, in, false) | 1u << 4 |
                                                 ((op->imm & repeated) != 0 ? 1u << 5 : 0));
    const u64 mask = string_mask(op);
    const unsigned address_size = mask == 0xffff ? 0 : mask == 0xffffffff ? 1 : 2;
    const Seg segment = in ? Seg::es : Cpu::operand_segment(op);
    const u64 offset = cpu.s.gpr[in ? rdi_index : rsi_index] & mask;
    cpu.exit.instruction_length = op->len;
    cpu.exit.guest_linear = element_address(cpu, segment, offset);
    cpu.exit.instruction_info = address_size << 7 | static_cast<u32>(segment) << 15;
}

/// Permission and the VM exit, which come before anything about memory.
bool port_allowed(Cpu& cpu, const Op* op, u16 port, unsigned size, bool in) {
    bool exits = false;
    if (!io_permitted(cpu, op, port, size) || !io_exits(cpu, port, size, exits)) {
        return false;
    }
    if (exits) {
        exit_to_monitor(cpu, op, port, size, in);
    }
    return !exits;
}

template <class T>
bool one_in(Cpu& cpu, const Op* op) {
    const u16 port = cpu.reg<u16>(16);
    u64 address;
    if (!port_allowed(cpu, op, port, sizeof(T), true) ||
        !cpu.segment_access(Seg::es, cpu.s.gpr[rdi_index] & string_mask(op), sizeof(T),
                            Access::write, address)) {
        return false;
    }
    u64 data = 0;
    if (!cpu.probe_write(op, address, sizeof(T), Seg::es) ||
        !cpu.external_access(op, PendingAccess::Kind::port, port, sizeof(T), false, data) ||
        !cpu.store_linear(op, address, static_cast<T>(data), Seg::es)) {
        return false;
    }
    add_index(cpu, rdi_index, string_step(cpu, sizeof(T)), string_mask(op));
    note_io_breakpoints(cpu, io_breakpoints(cpu, port, sizeof(T)));
    return true;
}
template <class T>
bool one_out(Cpu& cpu, const Op* op) {
    const u16 port = cpu.reg<u16>(16);
    const Seg segment = Cpu::operand_segment(op);
    u64 address;
    if (!port_allowed(cpu, op, port, sizeof(T), false) ||
        !cpu.segment_access(segment, cpu.s.gpr[rsi_index] & string_mask(op), sizeof(T),
                            Access::read, address)) {
        return false;
    }
    T value;
    if (!cpu.load_linear(op, address, value, segment)) {
        return false;
    }
    u64 data = value;
    if (!cpu.external_access(op, PendingAccess::Kind::port, port, sizeof(T), true, data)) {
        return false;
    }
    add_index(cpu, rsi_index, string_step(cpu, sizeof(T)), string_mask(op));
    note_io_breakpoints(cpu, io_breakpoints(cpu, port, sizeof(T)));
    return true;
}

template <bool (*element)(Cpu&, const Op*)>
const Op* op_once(Cpu& cpu, const Op* op) {
    NESTOR_OR_STOP(cpu, op, element(cpu, op));
    return cpu.leave(op);
}
template <bool (*element)(Cpu&, const Op*)>
const Op* op_repeat(Cpu& cpu, const Op* op) {
    const u64 mask = string_mask(op);
    Progress p;
    if ((cpu.s.gpr[rcx_index] & mask) == 0) {
        p.done = 1;
        p.ended = true;
        return finish_repeat(cpu, op, p);
    }
    p.ok = element(cpu, op);
    if (p.ok) {
        p.done = 1;
        add_index(cpu, rcx_index, ~u64{0}, mask);
        p.ended = (cpu.s.gpr[rcx_index] & mask) == 0;
    }
    return finish_repeat(cpu, op, p);
}
template <bool (*element)(Cpu&, const Op*)>
bool emit(Emit& e) {
    set_string(e);
    const bool rep = has_rep(e);
    e.op.imm = rep ? repeated : 0;
    e.op.fn = rep ? op_repeat<element> : op_once<element>;
    e.ends_block = true;
    return true;
}

} // namespace

bool emit_string_port(Emit& e) {
    switch (e.mnemonic()) {
    case ZYDIS_MNEMONIC_INSB:
        return emit<one_in<u8>>(e);
    case ZYDIS_MNEMONIC_INSW:
        return emit<one_in<u16>>(e);
    case ZYDIS_MNEMONIC_INSD:
        return emit<one_in<u32>>(e);
    case ZYDIS_MNEMONIC_OUTSB:
        return emit<one_out<u8>>(e);
    case ZYDIS_MNEMONIC_OUTSW:
        return emit<one_out<u16>>(e);
    case ZYDIS_MNEMONIC_OUTSD:
        return emit<one_out<u32>>(e);
    default:
        return false;
    }
}

} // namespace nestor::cpu
