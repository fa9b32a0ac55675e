// PUSH and POP of general registers, immediates and memory, PUSHA, POPA, ENTER, LEAVE (SDM 2A, 2B).
//
// In 64-bit mode registers have handlers of their own, since they are what compilers use. Segment
// registers and flags are system's. The stack pointer moves last, so a fault leaves it alone.
#include "engine/cpu/ops_integer.hpp"
#include "engine/cpu/stack.hpp"

namespace nestor::cpu {
namespace {

// --- 64-bit mode ---------------------------------------------------------------------------------

[[gnu::noinline]] const Op* push_value_slow(Cpu& cpu, const Op* op, u64 value) {
    if (!push_slow<u64>(cpu, op, value)) {
        return cpu.abandon(op);
    }
    return next(cpu, op);
}
const Op* op_push_reg64(Cpu& cpu, const Op* op) {
    const u64 value = cpu.reg<u64>(op->src);
    if (!fast_push(cpu, value)) [[unlikely]] {
        return push_value_slow(cpu, op, value);
    }
    return next(cpu, op);
}
const Op* op_push_imm64(Cpu& cpu, const Op* op) {
    const u64 value = static_cast<u64>(i64{op->imm});
    if (!fast_push(cpu, value)) [[unlikely]] {
        return push_value_slow(cpu, op, value);
    }
    return next(cpu, op);
}

// --- every mode ----------------------------------------------------------------------------------

template <class T>
[[gnu::noinline]] bool push_reg(Cpu& cpu, const Op* op) {
    return push<T>(cpu, op, cpu.reg<T>(op->src));
}
template <class T>
[[gnu::noinline]] bool push_imm(Cpu& cpu, const Op* op) {
    return push<T>(cpu, op, static_cast<T>(op->imm));
}
template <class T>
[[gnu::noinline]] bool push_mem(Cpu& cpu, const Op* op) {
    T v;
    return load_before_push(cpu, op, v) && push<T>(cpu, op, v);
}
template <class T>
[[gnu::noinline]] bool pop_reg(Cpu& cpu, const Op* op) {
    T v;
    if (!load_stack<T>(cpu, op, sp(cpu), v)) {
        return false;
    }
    set_sp(cpu, sp(cpu) + sizeof(T));
    cpu.set_reg<T>(op->dst, v); // POP RSP: the value wins
    return true;
}
/// SDM 2B POP: an address that uses RSP is formed with RSP already incremented. Puts it back.
template <class T, class Store>
bool with_popped_stack(Cpu& cpu, const Store& store) {
    const u64 old = cpu.s.gpr[4];
    set_sp(cpu, sp(cpu) + sizeof(T));
    const bool done = store();
    cpu.s.gpr[4] = old;
    return done;
}
template <class T>
[[gnu::noinline]] bool pop_mem(Cpu& cpu, const Op* op) {
    T v;
    const auto probe = [&] {
        u64 address;
        return cpu.linear(op, sizeof(T), Access::write, address) &&
               cpu.probe_write(op, address, sizeof(T), Cpu::operand_segment(op));
    };
    const auto store_reached = [&] { return with_popped_stack<T>(cpu, probe); };
    if (!load_stack<T>(cpu, op, sp(cpu), v, store_reached) ||
        !with_popped_stack<T>(cpu, [&] { return cpu.store<T>(op, v); })) {
        return false;
    }
    set_sp(cpu, sp(cpu) + sizeof(T));
    return true;
}

template <class T>
const Op* pop_reg_slow(Cpu& cpu, const Op* op) {
    return whole<pop_reg<T>>(cpu, op);
}
const Op* op_pop_reg64(Cpu& cpu, const Op* op) {
    u64 value;
    if (!fast_peek(cpu, value)) [[unlikely]] {
        return pop_reg_slow<u64>(cpu, op);
    }
    cpu.s.gpr[4] += 8;
    cpu.set_reg<u64>(op->dst, value);
    return next(cpu, op);
}

/// Registers in the order EAX, ECX, EDX, EBX, ESP, EBP, ESI, EDI.
template <class T>
[[gnu::noinline]] bool push_all(Cpu& cpu, const Op* op) {
    const u64 top = sp(cpu);
    for (unsigned i = 0; i < 8; ++i) {
        if (!probe_stack<T>(cpu, op, top - (i + 1) * sizeof(T))) {
            return false;
        }
    }
    for (unsigned i = 0; i < 8; ++i) {
        const T v = cpu.reg<T>(static_cast<u8>(8 * i));
        if (!store_stack<T>(cpu, op, top - (i + 1) * sizeof(T), v)) {
            return false;
        }
    }
    set_sp(cpu, top - 8 * sizeof(T));
    return true;
}
template <class T>
[[gnu::noinline]] bool pop_all(Cpu& cpu, const Op* op) {
    const u64 top = sp(cpu);
    T v[8];
    for (unsigned i = 0; i < 8; ++i) {
        const auto others_reached = [&] {
            bool reached = true;
            for (unsigned k = i + 1; k < 8 && reached; ++k) {
                reached = probe_stack_read<T>(cpu, op, top + k * sizeof(T));
            }
            return reached;
        };
        if (!load_stack<T>(cpu, op, top + i * sizeof(T), v[7 - i], others_reached)) {
            return false;
        }
    }
    for (unsigned i = 0; i < 8; ++i) {
        if (i != 4) { // SDM 2B POPA: ESP is discarded
            cpu.set_reg<T>(static_cast<u8>(8 * i), v[i]);
        }
    }
    set_sp(cpu, top + 8 * sizeof(T));
    return true;
}

/// ENTER: op->imm is the frame size, op->aux the nesting level (SDM 2A ENTER).
template <class T>
[[gnu::noinline]] bool enter_frame(Cpu& cpu, const Op* op) {
    const auto level = static_cast<unsigned>(op->aux);
    u64 top = sp(cpu) - sizeof(T);
    if (!store_stack<T>(cpu, op, top, cpu.reg<T>(rbp_offset))) {
        return false;
    }
    const u64 frame = top;
    for (unsigned i = 1; i < level; ++i) {
        T link;
        if (!load_stack<T>(cpu, op, cpu.s.gpr[5] - i * sizeof(T), link)) {
            return false;
        }
        top -= sizeof(T);
        if (!store_stack<T>(cpu, op, top, link)) {
            return false;
        }
    }
    if (level > 0) {
        top -= sizeof(T);
        if (!store_stack<T>(cpu, op, top, static_cast<T>(frame))) {
            return false;
        }
    }
    top -= static_cast<u64>(op->imm);
    // SDM 2A ENTER: a write at the final stack pointer must be possible.
    if (!probe_stack<T>(cpu, op, top)) {
        return false;
    }
    set_sp(cpu, top);
    cpu.set_reg<T>(rbp_offset, static_cast<T>(frame));
    return true;
}
template <class T>
[[gnu::noinline]] bool leave_frame(Cpu& cpu, const Op* op) {
    T frame;
    const u64 top = cpu.s.gpr[5] & sp_mask(cpu);
    if (!load_stack<T>(cpu, op, top, frame)) {
        return false;
    }
    set_sp(cpu, top + sizeof(T));
    cpu.set_reg<T>(rbp_offset, frame);
    return true;
}
const Op* op_leave64(Cpu& cpu, const Op* op) {
    const u64 frame = cpu.s.gpr[5];
    if (!fast_load(cpu, frame, cpu.s.gpr[5])) [[unlikely]] {
        return whole<leave_frame<u64>>(cpu, op);
    }
    cpu.s.gpr[4] = frame + 8;
    return next(cpu, op);
}

// --- emitting ------------------------------------------------------------------------------------

bool is_general_register(ZydisRegister reg) {
    const ZydisRegisterClass c = ZydisRegisterGetClass(reg);
    return c == ZYDIS_REGCLASS_GPR16 || c == ZYDIS_REGCLASS_GPR32 || c == ZYDIS_REGCLASS_GPR64;
}
bool set(Emit& e, OpFn fn) {
    e.op.fn = fn;
    return true;
}

bool emit_push(Emit& e) {
    if (e.is_reg(0) && !is_general_register(e.operand(0).reg.value)) {
        return false;
    }
    const bool wide = e.d.insn.operand_width == 64;
    return by_wide_size(e.d.insn.operand_width / 8u, [&](auto t) {
        using T = decltype(t);
        if (e.is_mem(0)) {
            e.set_memory(0);
            return set(e, whole<push_mem<T>>);
        }
        if (e.is_imm(0)) {
            e.op.imm = static_cast<i32>(imm_of(e, 0));
            return set(e, wide ? op_push_imm64 : whole<push_imm<T>>);
        }
        e.op.src = reg_of(e, 0);
        return set(e, wide ? op_push_reg64 : whole<push_reg<T>>);
    });
}
bool emit_pop(Emit& e) {
    if (e.is_reg(0) && !is_general_register(e.operand(0).reg.value)) {
        return false;
    }
    const bool wide = e.d.insn.operand_width == 64;
    return by_wide_size(e.d.insn.operand_width / 8u, [&](auto t) {
        using T = decltype(t);
        if (e.is_mem(0)) {
            e.set_memory(0);
            return set(e, whole<pop_mem<T>>);
        }
        e.op.dst = reg_of(e, 0);
        return set(e, wide ? op_pop_reg64 : whole<pop_reg<T>>);
    });
}

} // namespace

bool emit_stack(Emit& e) {
    const unsigned size = e.d.insn.operand_width / 8u;
    switch (e.mnemonic()) {
    case ZYDIS_MNEMONIC_PUSH:
        return emit_push(e);
    case ZYDIS_MNEMONIC_POP:
        return emit_pop(e);
    case ZYDIS_MNEMONIC_PUSHA:
        return set(e, whole<push_all<u16>>);
    case ZYDIS_MNEMONIC_PUSHAD:
        return set(e, whole<push_all<u32>>);
    case ZYDIS_MNEMONIC_POPA:
        return set(e, whole<pop_all<u16>>);
    case ZYDIS_MNEMONIC_POPAD:
        return set(e, whole<pop_all<u32>>);
    case ZYDIS_MNEMONIC_ENTER:
        e.op.imm = static_cast<i32>(imm_of(e, 0) & 0xffff);
        e.op.aux = imm_of(e, 1) & 31;
        return by_wide_size(size, [&](auto t) {
            using T = decltype(t);
            return set(e, whole<enter_frame<T>>);
        });
    case ZYDIS_MNEMONIC_LEAVE:
        if (size == 8) {
            return set(e, op_leave64);
        }
        return by_wide_size(size, [&](auto t) {
            using T = decltype(t);
            return set(e, whole<leave_frame<T>>);
        });
    default:
        return false;
    }
}

} // namespace nestor::cpu
