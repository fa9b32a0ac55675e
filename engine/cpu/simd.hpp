// Inside the SIMD group: what emitters and handlers of ops_simd*.cpp agree on.
#pragma once

#include <cstddef>

#include "engine/cpu/cpu.hpp"
#include "engine/cpu/emit.hpp"
#include "engine/cpu/thunk.hpp"

namespace nestor::cpu::simd {

// Op::dst, src and base hold operands as word offsets in Cpu::s, whatever their register file:
// dst = ModRM.reg, src = VEX.vvvv, base = ModRM.rm where it is a register.
inline constexpr u8 vector_slot(unsigned n) {
    return static_cast<u8>(offsetof(state::Cpu, vector) / 8 + 4 * n);
}
inline constexpr u8 mmx_slot(unsigned n) {
    return static_cast<u8>((offsetof(state::Cpu, x87) + offsetof(state::X87, significand)) / 8 + n);
}
static_assert(offsetof(state::Cpu, vector) % 8 == 0 && offsetof(state::Cpu, vector) / 8 + 63 < 256);
static_assert((offsetof(state::Cpu, x87) + offsetof(state::X87, significand)) % 8 == 0);
static_assert(offsetof(state::Cpu, gpr) == 0);

inline u64* at(Cpu& cpu, u8 slot) { return reinterpret_cast<u64*>(&cpu.s) + slot; }

/// Op::imm of thunked instructions.
namespace attr {
inline constexpr u32 size = 0x3f;      ///< bytes of the memory operand
inline constexpr u32 aligned = 1 << 6; ///< #GP(0) unless aligned to its size
inline constexpr u32 rm_written = 1 << 7;
inline constexpr u32 mmx_reg = 1 << 8; ///< ModRM.reg is an MMX register that is written
inline constexpr u32 mmx_rm = 1 << 9;
inline constexpr u32 scalar = 1 << 10;     ///< one element counts for underflow
inline constexpr u32 underflow_shift = 11; ///< 2 bits: Underflow
inline constexpr u32 vex = 1 << 13;        ///< the destination is written up to bit 255
inline constexpr u32 extra_shift = 16;     ///< slot that `extra` points to
} // namespace attr

/// Element type of results that can be tiny.
enum class Underflow : u8 { none, half, single, double_ };

/// Register number of a vector, MMX or general register.
inline unsigned number(const ZydisDecodedOperand& o) {
    return static_cast<unsigned>(ZydisRegisterGetId(o.reg.value));
}
inline bool is_vex(const Emit& e) { return e.d.insn.encoding == ZYDIS_INSTRUCTION_ENCODING_VEX; }
inline ZydisRegisterClass reg_class(const ZydisDecodedOperand& o) {
    return o.type == ZYDIS_OPERAND_TYPE_REGISTER ? ZydisRegisterGetClass(o.reg.value)
                                                 : ZYDIS_REGCLASS_INVALID;
}
/// Word offset in Cpu::s of a register operand.
u8 slot_of(const ZydisDecodedOperand& o);

/// An x87 exception is pending, so MMX and waiting x87 instructions raise #MF (SDM 1 8.7.1). With
/// CR0.NE clear a PC would signal IRQ 13; nestor-v1 has IGNNE# asserted there.
inline bool mf_pending(const Cpu& cpu) {
    return (cpu.s.x87.status & 0x80) != 0 && (cpu.s.cr0 & arch::cr0::ne) != 0;
}
/// The transition from x87 to MMX state: TOP = 0, all tags valid (SDM 1 9.5.1).
void enter_mmx(Cpu& cpu);

/// Room for a memory operand that cannot be used in place: page-crossing, MMIO, watched pages.
struct Bounce {
    alignas(64) u8 bytes[64];
};

/// Linear address of the memory operand, alignment checked. False: outcome says why.
[[gnu::always_inline]] inline bool locate(Cpu& cpu, const Op* op, unsigned size, u64 alignment,
                                          Access kind, u64& address) {
    if (!cpu.linear(op, size, kind, address)) [[unlikely]] {
        return false;
    }
    if ((address & (alignment - 1)) != 0) [[unlikely]] {
        return cpu.set_fault(arch::Exception::gp, 0);
    }
    return true;
}
/// Host pointer for `size` bytes if the TLB allows the access there, else null.
[[gnu::always_inline]] inline u8* in_place(Cpu& cpu, u64 address, unsigned size, Access kind) {
    const TlbEntry& t = cpu.tlb.at(address);
    const bool hit = kind == Access::write ? t.writes(address, size) : t.reads(address, size);
    return hit ? t.host(address) : nullptr;
}

// Parts of emit_simd, in this order. False: not theirs.
bool emit_move(Emit& e);        ///< plain moves without a thunk (ops_simd_move.cpp)
bool emit_compiled(Emit& e);    ///< common integer operations (ops_simd_integer.cpp)
bool emit_masked(Emit& e);      ///< gathers and masked moves (ops_simd_masked.cpp)
bool emit_approximate(Emit& e); ///< RCP and RSQRT (ops_simd_math.cpp)

// Handlers of thunked instructions (ops_simd_run.cpp).
enum class Form : u8 { reg, load, store };
OpFn plain_handler(Form form, bool mmx);
OpFn flags_handler(Form form);           ///< PTEST, VTESTPx, PCMPxSTRx
OpFn float_handler(Form form, bool mmx); ///< reads or writes MXCSR
OpFn compare_handler(Form form);         ///< COMISx: MXCSR and flags

} // namespace nestor::cpu::simd
