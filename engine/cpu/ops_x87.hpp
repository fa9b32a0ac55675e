// Inside the x87 group: how bodies become handlers, and which file emits what.
#pragma once

#include "engine/cpu/emit.hpp"
#include "engine/cpu/simd.hpp"
#include "engine/cpu/x87.hpp"

namespace nestor::cpu::x87 {

// Op of the group: dst = i of ST(i), src = ModRM.reg where a body serves several, imm = FOP, with
// `imm_memory` when there is a memory operand.
inline constexpr i32 imm_memory = 1 << 16;

/// Does an instruction. False: stopped before it happened, `outcome` says why.
using Body = bool (*)(Cpu&, const Op*);

template <Body body>
[[gnu::noinline]] bool run_body(Cpu& cpu, const Op* op) {
    return body(cpu, op);
}

/// Waiting instructions that are not control instructions: they record where they are
/// (SDM 1 8.1.8). With FCS and FDS deprecated only offsets are kept.
template <Body body>
const Op* handler(Cpu& cpu, const Op* op) {
    if (simd::mf_pending(cpu)) [[unlikely]] {
        return cpu.raise(op, arch::Exception::mf);
    }
    if (!run_body<body>(cpu, op)) [[unlikely]] {
        return cpu.abandon(op);
    }
    state::X87& f = cpu.s.x87;
    f.instruction_pointer = cpu.rip_of(op);
    f.opcode = static_cast<u16>(op->imm & 0x7ff);
    if ((op->imm & imm_memory) != 0) {
        f.data_pointer = cpu.offset_of(op);
    }
    return next(cpu, op);
}

/// Control instructions; `waiting` ones report a pending exception first.
template <Body body, bool waiting>
const Op* control_handler(Cpu& cpu, const Op* op) {
    if (waiting && simd::mf_pending(cpu)) [[unlikely]] {
        return cpu.raise(op, arch::Exception::mf);
    }
    return run_body<body>(cpu, op) ? next(cpu, op) : cpu.abandon(op);
}

// Handler for a form, by first opcode byte and ModRM; null where the file has none.
OpFn arithmetic(u8 opcode, u8 modrm);       ///< ops_x87_arithmetic.cpp
OpFn moves(u8 opcode, u8 modrm);            ///< ops_x87_move.cpp
OpFn functions(u8 opcode, u8 modrm);        ///< ops_x87_math.cpp
OpFn control(u8 opcode, u8 modrm, Emit& e); ///< ops_x87_control.cpp

} // namespace nestor::cpu::x87
