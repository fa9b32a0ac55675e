// x87 instructions: dispatch by opcode (SDM 2D A.5).
//
// What exists is the decoder's decision; here the first opcode byte and ModRM choose a handler.
// Faults that only depend on CR0 are decided at decode time.
#include "engine/cpu/ops_x87.hpp"

namespace nestor::cpu {

namespace {

const Op* raise_nm(Cpu& cpu, const Op* op) { return cpu.raise(op, arch::Exception::nm); }

bool wait(Cpu&, const Op*) { return true; }

bool stops(Emit& e, bool nm) {
    if (nm) {
        e.op.fn = raise_nm;
        e.ends_block = true;
    }
    return nm;
}

/// The memory operand, such that Cpu::offset_of is the offset without segment base: FDP has that.
void set_memory(Emit& e, unsigned i) {
    e.set_memory(i);
    const auto& m = e.operand(i).mem;
    if (m.segment != ZYDIS_REGISTER_FS && m.segment != ZYDIS_REGISTER_GS) {
        return;
    }
    e.op.ea |= ea::general;
    if (m.index == ZYDIS_REGISTER_NONE) {
        e.op.index = Cpu::zero_slot;
    }
    if (m.base == ZYDIS_REGISTER_NONE) {
        e.op.base = Cpu::zero_slot;
    }
}

bool emit_wait(Emit& e) {
    // SDM 2A FWAIT: #NM with CR0.MP and CR0.TS both set; CR0.EM does not matter.
    if (!stops(e, e.mode.has(Mode::wait_nm))) {
        e.op.fn = x87::control_handler<wait, true>;
    }
    return true;
}

} // namespace

bool emit_x87(Emit& e) {
    const auto& insn = e.d.insn;
    if (insn.mnemonic == ZYDIS_MNEMONIC_FWAIT) {
        return emit_wait(e);
    }
    if (insn.encoding != ZYDIS_INSTRUCTION_ENCODING_LEGACY ||
        insn.opcode_map != ZYDIS_OPCODE_MAP_DEFAULT || (insn.opcode & 0xf8) != 0xd8) {
        return false;
    }
    if (stops(e, e.mode.unit(Mode::x87_shift) == UnitState::nm)) {
        return true;
    }
    const auto& m = insn.raw.modrm;
    const u8 modrm = static_cast<u8>(m.mod << 6 | m.reg << 3 | m.rm);
    e.op.dst = m.rm;
    e.op.src = m.reg;
    e.op.imm = (insn.opcode & 7) << 8 | modrm;
    for (unsigned i = 0; i < insn.operand_count; ++i) {
        if (e.is_mem(i) && m.mod != 3) {
            set_memory(e, i);
            e.op.imm |= x87::imm_memory;
        }
    }
    OpFn fn = x87::arithmetic(insn.opcode, modrm);
    fn = fn != nullptr ? fn : x87::moves(insn.opcode, modrm);
    fn = fn != nullptr ? fn : x87::functions(insn.opcode, modrm);
    fn = fn != nullptr ? fn : x87::control(insn.opcode, modrm, e);
    if (fn == nullptr) {
        return false;
    }
    e.op.fn = fn;
    return true;
}

} // namespace nestor::cpu
