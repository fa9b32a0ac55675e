// Where near jumps go: through a block's link slots, the jump cache, or the dispatcher.
//
// A direct jump inside its page links its block to the target's block. Everything else is looked up
// in the jump cache. Only when both miss is the target checked: a block that was executed at a
// linear address proves that the address is canonical and within the code segment.
#pragma once

#include "engine/cpu/operands.hpp"

namespace nestor::cpu {

/// Slots of Block::link.
inline constexpr unsigned taken_slot = 0;
inline constexpr unsigned fall_through_slot = 1;

/// op->src of a direct jump: which slots may be filled.
inline constexpr u8 links_taken = 1u << taken_slot;
inline constexpr u8 links_fall_through = 1u << fall_through_slot;

/// #GP(0) on the jump itself when its target is not canonical or beyond the CS limit (SDM 2A
/// CALL, JMP, Jcc, RET). False: `event` holds the fault.
bool check_target(Cpu& cpu, u64 target);

/// Goes to a target through the jump cache; `op` is the last of its block and has done its work.
const Op* go(Cpu& cpu, const Op* op, u64 target);
/// Likewise; the target has been checked.
const Op* go_checked(Cpu& cpu, const Op* op, u64 target);

/// The slow part of go_direct: the link is not filled or the block behind it cannot be entered.
const Op* go_unlinked(Cpu& cpu, const Op* op, u64 target, unsigned slot);

/// Goes to the target of a direct jump, or to its fall-through.
[[gnu::always_inline]] inline const Op* go_direct(Cpu& cpu, const Op* op, u64 target,
                                                  unsigned slot) {
    Block* following = cpu.block->link[slot];
    const i64 left = cpu.budget - following->n;
    if (left < 0) [[unlikely]] {
        return go_unlinked(cpu, op, target, slot);
    }
    cpu.s.rip = target;
    cpu.budget = left;
    cpu.block = following;
    return jump_to(cpu, following->ops());
}

/// A direct jump's op: aux is its target and disp its fall-through, both from the block's start.
[[gnu::always_inline]] inline const Op* go_taken(Cpu& cpu, const Op* op) {
    return go_direct(cpu, op, cpu.s.rip + op->aux, taken_slot);
}
[[gnu::always_inline]] inline const Op* go_fall_through(Cpu& cpu, const Op* op) {
    return go_direct(cpu, op, cpu.s.rip + static_cast<u64>(i64{op->disp}), fall_through_slot);
}

/// Replaces the handler of the CMP, TEST or other arithmetic before a Jcc by one that does both.
void fuse_with_previous(Emit& e, unsigned cc);

} // namespace nestor::cpu
