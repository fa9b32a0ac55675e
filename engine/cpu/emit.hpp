// Between decoder and handlers: each instruction group turns a decoded instruction into an Op.
#pragma once

#include <Zydis/Zydis.h>

#include "engine/cpu/mode.hpp"
#include "engine/cpu/op.hpp"

namespace nestor::cpu {

/// An instruction as Zydis decoded it, hidden operands included.
struct Decoded {
    ZydisDecodedInstruction insn;
    ZydisDecodedOperand operands[ZYDIS_MAX_OPERAND_COUNT];
};

/// What an emitter reads and fills. `op` has len, offset and number set; fn decides.
struct Emit {
    const Decoded& d;
    Mode mode;
    Op& op;
    /// Whether anything may read the arithmetic flags that this instruction writes.
    bool flags_live = true;
    /// The block may be cut between any two Ops (Block::exact): one Op must do one instruction.
    bool exact = false;
    /// The Op before this one in its block, or null. A jump may replace its handler by a fused one.
    Op* previous = nullptr;
    /// Offset of the instruction's first byte in its page: tells whether a jump stays in the page.
    unsigned page_offset = 0;
    /// Set by the emitter when control does not go to the next Op (jumps, leave()).
    bool ends_block = false;

    [[nodiscard]] ZydisMnemonic mnemonic() const { return d.insn.mnemonic; }
    [[nodiscard]] const ZydisDecodedOperand& operand(unsigned i) const { return d.operands[i]; }
    [[nodiscard]] bool is_mem(unsigned i) const {
        return d.operands[i].type == ZYDIS_OPERAND_TYPE_MEMORY;
    }
    [[nodiscard]] bool is_reg(unsigned i) const {
        return d.operands[i].type == ZYDIS_OPERAND_TYPE_REGISTER;
    }
    [[nodiscard]] bool is_imm(unsigned i) const {
        return d.operands[i].type == ZYDIS_OPERAND_TYPE_IMMEDIATE;
    }
    /// Whether a memory operand that needs segmentation (ea::general) may still try the fast path:
    /// in flat protected mode its linear address is the plain sum or, where the sum leaves 32 bits,
    /// one that no TLB entry has. Not in IA-32e mode, whose TLB also has addresses beyond 4 GiB.
    [[nodiscard]] bool sums_or_misses() const;
    /// Operand size in bytes of operand i.
    [[nodiscard]] unsigned size(unsigned i) const { return d.operands[i].size / 8u; }
    /// Fills base, index, ea and disp from memory operand i. True always, so that emitters chain.
    void set_memory(unsigned i);
    /// Byte offset of a general register (AH..BH included) in Cpu::s.gpr.
    [[nodiscard]] static u8 reg_offset(ZydisRegister reg);
};

// Each returns false when the instruction is not of its group. The order is that of decode.cpp.
bool emit_integer(Emit& e); ///< moves, ALU, shifts, bits, multiply, stack, flags (ops_integer*.cpp)
bool emit_string(Emit& e);  ///< MOVS, STOS, CMPS, SCAS, LODS, INS, OUTS with REP (ops_string.cpp)
bool emit_control(Emit& e); ///< near jumps, calls, returns, loops (ops_control.cpp)
bool emit_system(Emit& e);  ///< far transfers, segments, CR, DR, MSR, tables (ops_system*.cpp)
bool emit_x87(Emit& e);     ///< x87 (ops_x87*.cpp)
bool emit_simd(Emit& e);    ///< MMX, SSE, AVX, VEX-coded BMI thunks (ops_simd*.cpp)
bool emit_xstate(Emit& e);  ///< FXSAVE, XSAVE family, LDMXCSR, XSETBV (ops_xstate.cpp)

/// #UD, for what does not exist or is not offered.
void emit_undefined(Emit& e);

} // namespace nestor::cpu
