// Near jumps, calls, returns and loops (SDM 2A, 2B).
//
// In 64-bit mode the operand size is always 64 bits: Intel's processors ignore the 66 prefix. A
// fault of the target belongs to the jump, so it comes before the stack or a counter changes.
#include "engine/cpu/alu.hpp"
#include "engine/cpu/branch.hpp"
#include "engine/cpu/stack.hpp"

namespace nestor::cpu {

using namespace arch;

bool check_target(Cpu& cpu, u64 target) {
    if (cpu.mode.is64()) {
        const unsigned width = (cpu.s.cr4 & cr4::la57) != 0 ? 57 : 48;
        return is_canonical(target, width) || cpu.set_fault(Exception::gp, 0);
    }
    return target <= cpu.seg(Seg::cs).limit || cpu.set_fault(Exception::gp, 0);
}

const Op* go_checked(Cpu& cpu, const Op* op, u64 target) {
    if (cpu.mode.has(Mode::flat_code)) {
        if (Block* following = cpu.cached_block(target)) {
            return cpu.enter(following, target);
        }
    }
    return cpu.leave_to(op, target);
}

const Op* go(Cpu& cpu, const Op* op, u64 target) {
    if (cpu.mode.has(Mode::flat_code)) {
        if (Block* following = cpu.cached_block(target)) {
            return cpu.enter(following, target);
        }
    }
    if (!check_target(cpu, target)) {
        return cpu.abandon(op);
    }
    return cpu.leave_to(op, target);
}

const Op* go_unlinked(Cpu& cpu, const Op* op, u64 target, unsigned slot) {
    target = cpu.truncate_rip(target);
    if ((op->src >> slot & 1) == 0) {
        return slot == taken_slot ? go(cpu, op, target) : go_checked(cpu, op, target);
    }
    Block** link = &cpu.block->link[slot];
    if ((*link)->n == Block::dead) {
        cpu.link = link;
    }
    return cpu.leave_to(op, target);
}

namespace {

/// A target with a 16-bit operand size is truncated to 16 bits (SDM 2A JMP).
template <class T>
u64 truncated(u64 target) {
    return static_cast<T>(target);
}

template <unsigned cc>
const Op* op_jcc(Cpu& cpu, const Op* op) {
    if (condition_of<cc>(cpu)) {
        return go_taken(cpu, op);
    }
    return go_fall_through(cpu, op);
}
/// Direct jumps whose targets wrap at 64 KiB: never linked.
template <unsigned cc>
const Op* op_jcc16(Cpu& cpu, const Op* op) {
    if (condition_of<cc>(cpu)) {
        return go(cpu, op, static_cast<u16>(cpu.s.rip + op->aux));
    }
    return go_fall_through(cpu, op);
}
const Op* op_jmp(Cpu& cpu, const Op* op) { return go_taken(cpu, op); }
const Op* op_jmp16(Cpu& cpu, const Op* op) {
    return go(cpu, op, static_cast<u16>(cpu.s.rip + op->aux));
}

// --- calls ---------------------------------------------------------------------------------------

template <class T>
[[gnu::noinline]] bool push_return(Cpu& cpu, const Op* op, u64 target) {
    return check_target(cpu, target) && push<T>(cpu, op, static_cast<T>(cpu.next_rip(op)));
}
/// After the target was formed: check, push, go.
template <class T>
[[gnu::noinline]] const Op* call_slow(Cpu& cpu, const Op* op, u64 target) {
    if (!push_return<T>(cpu, op, target)) {
        return cpu.abandon(op);
    }
    return go_checked(cpu, op, target);
}
template <class T>
const Op* op_call(Cpu& cpu, const Op* op) {
    return call_slow<T>(cpu, op, truncated<T>(cpu.s.rip + op->aux));
}
const Op* op_call64(Cpu& cpu, const Op* op) {
    const u64 target = cpu.s.rip + op->aux;
    const u64 back = cpu.s.rip + static_cast<u64>(i64{op->disp});
    if ((op->src & links_taken) != 0) {
        if (!fast_push(cpu, back)) [[unlikely]] {
            return call_slow<u64>(cpu, op, target);
        }
        return go_direct(cpu, op, target, taken_slot);
    }
    Block* following = cpu.cached_block(target);
    if (following == nullptr || !fast_push(cpu, back)) [[unlikely]] {
        return call_slow<u64>(cpu, op, target);
    }
    return cpu.enter(following, target);
}
const Op* call_indirect64(Cpu& cpu, const Op* op, u64 target) {
    Block* following = cpu.cached_block(target);
    if (following == nullptr || !fast_push(cpu, cpu.s.rip + op->offset + op->len)) [[unlikely]] {
        return call_slow<u64>(cpu, op, target);
    }
    return cpu.enter(following, target);
}

// --- indirect ------------------------------------------------------------------------------------

template <class T>
const Op* op_jmp_reg(Cpu& cpu, const Op* op) {
    return go(cpu, op, cpu.reg<T>(op->src));
}
template <class T>
const Op* op_call_reg(Cpu& cpu, const Op* op) {
    if constexpr (sizeof(T) == 8) {
        return call_indirect64(cpu, op, cpu.reg<T>(op->src));
    } else {
        return call_slow<T>(cpu, op, cpu.reg<T>(op->src));
    }
}
struct Target {
    u64 value;
    bool ok;
};
template <class T>
[[gnu::noinline]] Target load_target(Cpu& cpu, const Op* op) {
    T v = 0;
    const bool ok = cpu.load(op, v);
    return {v, ok};
}
template <class T>
const Op* op_jmp_mem(Cpu& cpu, const Op* op) {
    const Target t = load_target<T>(cpu, op);
    if (!t.ok) [[unlikely]] {
        return cpu.abandon(op);
    }
    return go(cpu, op, t.value);
}
template <class T>
[[gnu::noinline]] Target load_call_target(Cpu& cpu, const Op* op) {
    T v = 0;
    const bool ok = load_before_push(cpu, op, v);
    return {v, ok};
}
template <class T>
const Op* op_call_mem(Cpu& cpu, const Op* op) {
    const Target t = load_call_target<T>(cpu, op);
    if (!t.ok) [[unlikely]] {
        return cpu.abandon(op);
    }
    if constexpr (sizeof(T) == 8) {
        return call_indirect64(cpu, op, t.value);
    } else {
        return call_slow<T>(cpu, op, t.value);
    }
}

// --- returns -------------------------------------------------------------------------------------

/// op->imm bytes are released behind the return address.
template <class T>
[[gnu::noinline]] Target pop_target(Cpu& cpu, const Op* op) {
    T v = 0;
    if (!load_stack<T>(cpu, op, sp(cpu), v) || !check_target(cpu, v)) {
        return {0, false};
    }
    set_sp(cpu, sp(cpu) + sizeof(T) + static_cast<u64>(op->imm));
    return {v, true};
}
template <class T>
[[gnu::noinline]] const Op* op_ret(Cpu& cpu, const Op* op) {
    const Target t = pop_target<T>(cpu, op);
    if (!t.ok) [[unlikely]] {
        return cpu.abandon(op);
    }
    return go_checked(cpu, op, t.value);
}
const Op* op_ret64(Cpu& cpu, const Op* op) {
    u64 target;
    if (!fast_peek(cpu, target)) [[unlikely]] {
        return op_ret<u64>(cpu, op);
    }
    Block* following = cpu.cached_block(target);
    if (following == nullptr) [[unlikely]] {
        return op_ret<u64>(cpu, op);
    }
    cpu.s.gpr[4] += 8 + static_cast<u64>(op->imm);
    return cpu.enter(following, target);
}

// --- loops: the counter has the address size, which is op->imm bytes -----------------------------

template <class A>
const Op* op_jcxz(Cpu& cpu, const Op* op) {
    return cpu.reg<A>(8) == 0 ? go_taken(cpu, op) : go_fall_through(cpu, op);
}
enum class Loop : u8 { plain, while_zero, while_not_zero };
template <class A, Loop kind>
const Op* op_loop(Cpu& cpu, const Op* op) {
    const auto count = static_cast<A>(cpu.reg<A>(8) - 1);
    const bool taken =
        count != 0 && (kind == Loop::plain || condition_of<4>(cpu) == (kind == Loop::while_zero));
    if (taken && (op->src & links_taken) == 0) {
        // The target may fault, and then the counter keeps its value.
        u64 target = cpu.s.rip + op->aux;
        target = op->dst != 0 ? static_cast<u16>(target) : cpu.truncate_rip(target);
        if (!check_target(cpu, target)) [[unlikely]] {
            return cpu.abandon(op);
        }
        cpu.set_reg<A>(8, count);
        return go_checked(cpu, op, target);
    }
    cpu.set_reg<A>(8, count);
    return taken ? go_taken(cpu, op) : go_fall_through(cpu, op);
}
/// JCXZ whose target is not linked; 16-bit operand size truncates it.
template <class A>
const Op* op_jcxz_far_page(Cpu& cpu, const Op* op) {
    if (cpu.reg<A>(8) != 0) {
        return go_fall_through(cpu, op);
    }
    const u64 target = cpu.s.rip + op->aux;
    return go(cpu, op, op->dst != 0 ? static_cast<u16>(target) : cpu.truncate_rip(target));
}

// --- emitting ------------------------------------------------------------------------------------

bool set(Emit& e, OpFn fn) {
    e.op.fn = fn;
    e.ends_block = true;
    return true;
}
/// Operand size in bytes of a near branch.
unsigned branch_size(const Emit& e) { return e.mode.is64() ? 8 : e.d.insn.operand_width / 8u; }

/// Fills aux, disp, src and dst (16-bit operand size) of a direct jump.
void set_direct(Emit& e) {
    const i64 relative = e.operand(0).imm.value.s;
    const i64 end = i64{e.op.offset} + e.op.len;
    e.op.aux = static_cast<u64>(end + relative);
    e.op.disp = static_cast<i32>(end);
    e.op.dst = branch_size(e) == 2 ? 1 : 0;
    const i64 end_in_page = i64{e.page_offset} + e.op.len;
    const auto in_page = [](i64 at) { return at >= 0 && at < static_cast<i64>(page_size); };
    if (!e.mode.has(Mode::flat_code) || end_in_page > static_cast<i64>(page_size)) {
        return;
    }
    e.op.src =
        static_cast<u8>((in_page(end_in_page + relative) && e.op.dst == 0 ? links_taken : 0) |
                        (in_page(end_in_page) ? links_fall_through : 0));
}
bool emit_jcc(Emit& e) {
    const unsigned cc = e.d.insn.opcode & 15;
    set_direct(e);
    const bool narrow = e.op.dst != 0;
    by_condition(cc, [&](auto n) { return set(e, narrow ? op_jcc16<n.value> : op_jcc<n.value>); });
    if (!narrow && !e.exact && e.previous != nullptr) {
        fuse_with_previous(e, cc);
    }
    return true;
}
bool emit_jmp(Emit& e) {
    if (e.d.insn.meta.branch_type == ZYDIS_BRANCH_TYPE_FAR) {
        return false;
    }
    if (e.is_imm(0)) {
        set_direct(e);
        return set(e, e.op.dst != 0 ? op_jmp16 : op_jmp);
    }
    return by_wide_size(branch_size(e), [&](auto t) {
        using T = decltype(t);
        if (e.is_mem(0)) {
            e.set_memory(0);
            return set(e, op_jmp_mem<T>);
        }
        e.op.src = reg_of(e, 0);
        return set(e, op_jmp_reg<T>);
    });
}
bool emit_call(Emit& e) {
    if (e.d.insn.meta.branch_type == ZYDIS_BRANCH_TYPE_FAR) {
        return false;
    }
    return by_wide_size(branch_size(e), [&](auto t) {
        using T = decltype(t);
        if (e.is_imm(0)) {
            set_direct(e);
            return set(e, sizeof(T) == 8 ? op_call64 : op_call<T>);
        }
        if (e.is_mem(0)) {
            e.set_memory(0);
            return set(e, op_call_mem<T>);
        }
        e.op.src = reg_of(e, 0);
        return set(e, op_call_reg<T>);
    });
}
bool emit_ret(Emit& e) {
    if (e.d.insn.meta.branch_type == ZYDIS_BRANCH_TYPE_FAR) {
        return false;
    }
    e.op.imm = e.is_imm(0) ? static_cast<i32>(imm_of(e, 0) & 0xffff) : 0;
    return by_wide_size(branch_size(e), [&](auto t) {
        using T = decltype(t);
        return set(e, sizeof(T) == 8 ? op_ret64 : op_ret<T>);
    });
}
template <Loop kind>
bool emit_loop(Emit& e) {
    set_direct(e);
    return by_wide_size(e.d.insn.address_width / 8u, [&](auto t) {
        using A = decltype(t);
        return set(e, op_loop<A, kind>);
    });
}
bool emit_jcxz(Emit& e) {
    set_direct(e);
    return by_wide_size(e.d.insn.address_width / 8u, [&](auto t) {
        using A = decltype(t);
        return set(e, (e.op.src & links_taken) != 0 ? op_jcxz<A> : op_jcxz_far_page<A>);
    });
}

} // namespace

bool emit_control(Emit& e) {
    switch (e.mnemonic()) {
    case ZYDIS_MNEMONIC_JMP:
        return emit_jmp(e);
    case ZYDIS_MNEMONIC_CALL:
        return emit_call(e);
    case ZYDIS_MNEMONIC_RET:
        return emit_ret(e);
    case ZYDIS_MNEMONIC_LOOP:
        return emit_loop<Loop::plain>(e);
    case ZYDIS_MNEMONIC_LOOPE:
        return emit_loop<Loop::while_zero>(e);
    case ZYDIS_MNEMONIC_LOOPNE:
        return emit_loop<Loop::while_not_zero>(e);
    case ZYDIS_MNEMONIC_JCXZ:
    case ZYDIS_MNEMONIC_JECXZ:
    case ZYDIS_MNEMONIC_JRCXZ:
        return emit_jcxz(e);
    default:
        return e.d.insn.meta.category == ZYDIS_CATEGORY_COND_BR &&
                       e.d.insn.encoding == ZYDIS_INSTRUCTION_ENCODING_LEGACY
                   ? emit_jcc(e)
                   : false;
    }
}

} // namespace nestor::cpu
