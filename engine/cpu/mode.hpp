// What decoding depends on besides the bytes: the execution mode, packed into one word.
//
// Blocks are keyed by it, so handlers need not ask: what is in the key is decided at decode time.
#pragma once

#include "engine/arch/bits.hpp"

namespace nestor::cpu {

/// What an instruction of a register file meets: run, or which fault first.
enum class UnitState : u8 { ok, ud, nm };

struct Mode {
    u32 key = 0;

    static constexpr u32 code_shift = 0;      // 2 bits: 0 16-bit, 1 32-bit, 2 64-bit
    static constexpr u32 stack_shift = 2;     // 2 bits: likewise, the stack-pointer width
    static constexpr u32 real = 1u << 4;      // CR0.PE = 0
    static constexpr u32 v86 = 1u << 5;       // RFLAGS.VM = 1
    static constexpr u32 flat_code = 1u << 6; // CS base 0, limit 4 GiB - 1, or 64-bit mode
    static constexpr u32 flat_data = 1u << 7; // DS, ES, SS likewise and writable
    static constexpr u32 long_mode = 1u << 8; // EFER.LMA = 1
    static constexpr u32 x87_shift = 9;       // 2 bits each: UnitState
    static constexpr u32 mmx_shift = 11;
    static constexpr u32 sse_shift = 13;
    static constexpr u32 avx_shift = 15;
    static constexpr u32 wait_nm = 1u << 17; // WAIT/FWAIT raises #NM (CR0.MP and TS)
    static constexpr u32 cpl3 = 1u << 18;

    /// Operand-size default: 0 16-bit, 1 32-bit, 2 64-bit code.
    [[nodiscard]] constexpr unsigned code() const { return key >> code_shift & 3; }
    [[nodiscard]] constexpr unsigned stack() const { return key >> stack_shift & 3; }
    [[nodiscard]] constexpr bool is64() const { return code() == 2; }
    /// Real-address or virtual-8086 mode: selectors are paragraphs.
    [[nodiscard]] constexpr bool is_real_like() const { return (key & (real | v86)) != 0; }
    [[nodiscard]] constexpr bool has(u32 bits) const { return (key & bits) != 0; }
    [[nodiscard]] constexpr UnitState unit(u32 shift) const {
        return static_cast<UnitState>(key >> shift & 3);
    }
    constexpr bool operator==(const Mode&) const = default;
};

} // namespace nestor::cpu
