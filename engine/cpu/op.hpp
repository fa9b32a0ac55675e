// Decoded instructions and blocks: what the interpreter runs.
//
// One instruction is one Op of 32 bytes, and a block is a run of them in one page. A handler does
// its instruction and ends in next(), which the compiler turns into a jump to the following handler
// (threaded code); a handler that has to stop returns null. Builds that do not optimise sibling
// calls (sanitizers, -O0) define NESTOR_TRAMPOLINE: there next() returns the following Op and a
// loop calls it.
#pragma once

#include <array>
#include <cstddef>

#include "src/base/types.hpp"

namespace nestor::cpu {

class Cpu;
struct Op;
struct Block;

/// Executes `op`; returns null when the block chain stops (Cpu::outcome says why).
using OpFn = const Op* (*)(Cpu&, const Op*);

/// How the memory operand of an Op forms its linear address.
namespace ea {
inline constexpr u8 scale = 3;         ///< bits 1:0: shift of the index
inline constexpr u8 segment_shift = 2; ///< bits 4:2: arch::Seg
inline constexpr u8 segment = 7 << segment_shift;
inline constexpr u8 general = 0x20;   ///< segment base, limit or address-size truncation matter
inline constexpr u8 address32 = 0x40; ///< offset truncated to 32 bits (with general)
inline constexpr u8 address16 = 0x80; ///< offset truncated to 16 bits (with general)
} // namespace ea

/// One decoded instruction. Which fields mean what is between emitter and handler, except that
/// base/index/ea/disp always describe the memory operand and len/offset/index the position.
struct alignas(32) Op {
    OpFn fn = nullptr;
    u8 dst = 0;    ///< byte offset in the general registers, or a vector register number
    u8 src = 0;    ///< likewise
    u8 base = 0;   ///< slot (Cpu::slot) of the base register; slot 0 is always zero
    u8 index = 0;  ///< slot of the index register
    u8 ea = 0;     ///< bits of namespace ea
    u8 len = 0;    ///< instruction length in bytes
    u8 offset = 0; ///< of the instruction's first byte in its block
    u8 number = 0; ///< ordinal of the instruction in its block
    i32 disp = 0;
    i32 imm = 0;
    u64 aux = 0; ///< 64-bit immediate, thunk, or packed operands
};
static_assert(sizeof(Op) == 32);

/// Longest block. Small enough that offset and number fit their bytes.
inline constexpr unsigned max_block_ops = 64;
inline constexpr unsigned max_block_bytes = 240;

/// Where a link that was not filled leads: a block that is dead from the start, so that following a
/// link needs no other test than the budget's.
extern Block nowhere;

/// A run of instructions that starts at one guest-physical address in one mode.
struct alignas(Op) Block {
    static constexpr i64 dead = i64{1} << 62;
    /// Variant whose state is right between any two instructions: no flag is left out, nothing is
    /// fused. Used where a run must stop inside a block.
    static constexpr u32 exact = 1u << 31;

    i64 n = 0; ///< counts charged on entry; `dead` once invalidated, so that no budget covers it
    u32 count = 0;            ///< instructions
    u32 mode = 0;             ///< Mode::key it was decoded in, with `exact` for the exact variant
    const u8* host = nullptr; ///< first byte in host memory
    u64 phys = 0;             ///< guest-physical address of the first byte
    u64 second_page =
        0; ///< guest-physical page of the tail where the only instruction crosses, or 0
    u16 bytes = 0;
    bool crosses = false; ///< one instruction that lies in two pages
    /// Direct successors in the same page: taken, fall-through.
    std::array<Block*, 2> link{&nowhere, &nowhere};
    Block* hash_next = nullptr;

    /// They follow the block in memory (CodeCache::insert): to reach them takes no load.
    [[nodiscard]] Op* ops() { return reinterpret_cast<Op*>(this + 1); }
};

#if defined(NESTOR_TRAMPOLINE)
inline const Op* jump_to(Cpu&, const Op* op) { return op; }
#else
[[gnu::always_inline]] inline const Op* jump_to(Cpu& cpu, const Op* op) {
    // Without this GCC loads `fn` beside the addition that forms `op`, which takes two instructions
    // more than an addition and an indirect jump: a tenth of what a simple handler has.
    asm("" : "+r"(op));
    return op->fn(cpu, op);
}
#endif

/// The instruction is done: go on with the next of the block.
[[gnu::always_inline]] inline const Op* next(Cpu& cpu, const Op* op) {
    return jump_to(cpu, op + 1);
}

} // namespace nestor::cpu
