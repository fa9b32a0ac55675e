// Far JMP and CALL: code segments, call gates, task gates and TSSs (SDM 2 JMP, CALL; SDM 3A 5.8).
//
// Owns nothing. Handlers read the pointer, then go through one Transfer, which checks everything
// and commits at the end. A task switch that faults in the new task has happened: the instruction
// counts.
#include "engine/cpu/system.hpp"

namespace nestor::cpu {

using namespace arch;

namespace {

/// One far JMP or CALL in protected mode.
struct Transfer {
    Cpu& cpu;
    const Op* op;
    bool call;
    unsigned width; ///< operand size in bytes
    Site site{cpu, op};

    bool protected_mode(u16 selector, u64 offset, bool& switched);
    bool to_code(u16 selector, u64 offset, Descriptor& d);
    bool through_gate(u16 selector, Descriptor& gate);
    bool to_inner(const state::Segment& cs, u64 rip, const Descriptor& gate, unsigned gate_width);
    bool push_return(unsigned w, bool long_stack, const state::Segment& cs, u64 rip);
    bool to_task(u16 selector, const Descriptor& d, bool& switched);
    void commit(const state::Segment& cs, u64 rip) {
        cpu.seg(Seg::cs) = cs;
        cpu.s.rip = rip;
    }
};

/// Pushes CS and RIP on the current stack if this is a call, then checks the target and commits.
/// `cs` has its RPL set.
bool Transfer::push_return(unsigned w, bool long_stack, const state::Segment& cs, u64 rip) {
    const bool fits = rip_fits(cpu, cs, rip);
    if (!call) {
        if (!fits) {
            return site.gp(0);
        }
        commit(cs, rip);
        return true;
    }
    Frame frame(cpu.seg(Seg::ss), cpu.s.gpr[4], long_stack, w);
    frame.push(cpu.seg(Seg::cs).selector);
    frame.push(cpu.next_rip(op));
    if (!frame.check_room(site, 0)) {
        return false;
    }
    if (!fits) {
        return site.gp(0);
    }
    if (!frame.write(site, cpu.cpl)) {
        return false;
    }
    cpu.s.gpr[4] = frame.new_sp(cpu.s.gpr[4]);
    commit(cs, rip);
    return true;
}

bool Transfer::to_code(u16 selector, u64 offset, Descriptor& d) {
    const u32 error = selector_error(selector);
    const bool rights =
        d.conforming() ? d.dpl() <= cpu.cpl : d.dpl() == cpu.cpl && rpl_of(selector) <= cpu.cpl;
    if (!rights || (ia32e(cpu) && d.long_code() && d.big())) {
        return site.gp(error);
    }
    if (!d.present()) {
        return site.fault(Exception::np, error);
    }
    if (!mark_accessed(site, d)) {
        return false;
    }
    const state::Segment cs = make_segment(d, with_rpl(selector, cpu.cpl));
    return push_return(width, cpu.mode.stack() == 2, cs, offset);
}

bool Transfer::through_gate(u16 selector, Descriptor& gate) {
    const u32 gate_error = selector_error(selector);
    if (gate.dpl() < cpu.cpl || rpl_of(selector) > gate.dpl()) {
        return site.gp(gate_error);
    }
    if (!gate.present()) {
        return site.fault(Exception::np, gate_error);
    }
    const bool lma = ia32e(cpu);
    if (lma) {
        if (!read_descriptor_high(site, selector, gate)) {
            return false;
        }
        if ((gate.high >> 40 & 31) != 0) {
            return site.gp(gate_error); // SDM 3A 5.8.3.1: the upper type field must be 0
        }
    }
    const u16 code_selector = gate.gate_selector();
    if (is_null(code_selector)) {
        return site.gp(0);
    }
    const u32 error = selector_error(code_selector);
    Descriptor d;
    if (!read_descriptor(site, code_selector, d)) {
        return false;
    }
    if (!d.is_code() || d.dpl() > cpu.cpl || (lma && (!d.long_code() || d.big()))) {
        return site.gp(error);
    }
    if (!call && !d.conforming() && d.dpl() != cpu.cpl) {
        return site.gp(error);
    }
    if (!d.present()) {
        return site.fault(Exception::np, error);
    }
    if (!mark_accessed(site, d)) {
        return false;
    }
    const unsigned gate_width = lma ? 8 : gate.type() == system_type::call32 ? 4 : 2;
    const u64 rip = gate_width == 8   ? gate.gate_offset()
                    : gate_width == 4 ? gate.gate_offset() & 0xffffffff
                                      : gate.gate_offset() & 0xffff;
    const bool inner = call && !d.conforming() && d.dpl() < cpu.cpl;
    const u8 level = inner ? d.dpl() : cpu.cpl;
    const state::Segment cs = make_segment(d, with_rpl(code_selector, level));
    if (!inner) {
        return push_return(gate_width, lma, cs, rip);
    }
    return to_inner(cs, rip, gate, gate_width);
}

/// SDM 2 CALL, MORE-PRIVILEGE.
bool Transfer::to_inner(const state::Segment& cs, u64 rip, const Descriptor& gate,
                        unsigned gate_width) {
    const bool lma = gate_width == 8;
    const u8 level = rpl_of(cs.selector);
    InnerStack stack;
    if (!inner_stack(site, level, lma, 0, stack)) {
        return false;
    }
    Frame frame(stack.ss, stack.sp, lma, gate_width);
    frame.push(cpu.seg(Seg::ss).selector);
    frame.push(cpu.s.gpr[4]);
    if (!lma) {
        u64 parameters[32];
        Popper popper(cpu, op, gate_width);
        const unsigned count = gate.gate_count();
        for (unsigned i = 0; i < count; ++i) {
            if (!popper.pop(parameters[i])) {
                return false;
            }
        }
        for (unsigned i = count; i-- > 0;) {
            frame.push(parameters[i]);
        }
    }
    frame.push(cpu.seg(Seg::cs).selector);
    frame.push(cpu.next_rip(op));
    if (!frame.check_room(site, lma ? 0 : selector_error(stack.ss.selector))) {
        return false;
    }
    if (!rip_fits(cpu, cs, rip)) {
        return site.gp(0);
    }
    if (!frame.write(site, level)) {
        return false;
    }
    cpu.seg(Seg::ss) = stack.ss;
    cpu.s.gpr[4] = frame.new_sp(lma ? 0 : cpu.s.gpr[4]);
    commit(cs, rip);
    return true;
}

bool Transfer::to_task(u16 selector, const Descriptor& d, bool& switched) {
    const u32 error = selector_error(selector);
    if (d.dpl() < cpu.cpl || d.dpl() < rpl_of(selector)) {
        return site.gp(error);
    }
    const auto source = call ? TaskSwitchSource::call : TaskSwitchSource::jump;
    Descriptor tss;
    if (d.type() != system_type::task_gate) {
        return check_tss(site, selector, false, Exception::gp, tss) &&
               task_switch(site, selector, tss, source, cpu.next_rip(op), nullptr, switched);
    }
    if (!d.present()) {
        return site.fault(Exception::np, error);
    }
    const u16 tss_selector = d.gate_selector();
    return check_tss(site, tss_selector, false, Exception::gp, tss) &&
           task_switch(site, tss_selector, tss, source, cpu.next_rip(op), nullptr, switched);
}

bool Transfer::protected_mode(u16 selector, u64 offset, bool& switched) {
    if (is_null(selector)) {
        return site.gp(0);
    }
    Descriptor d;
    if (!read_descriptor(site, selector, d)) {
        return false;
    }
    if (d.is_code()) {
        return to_code(selector, offset, d);
    }
    if (!d.segment()) {
        const u32 type = d.type();
        const bool lma = ia32e(cpu);
        if (type == system_type::call32 || (!lma && type == system_type::call16)) {
            return through_gate(selector, d);
        }
        // SDM 3A 8.7: no task switches in IA-32e mode.
        if (!lma && (type == system_type::task_gate || (type & 5) == 1)) {
            return to_task(selector, d, switched);
        }
    }
    return site.gp(selector_error(selector));
}

const Op* far_transfer(Cpu& cpu, const Op* op, u16 selector, u64 offset, unsigned width,
                       bool call) {
    Transfer t{cpu, op, call, width};
    if (cpu.mode.is_real_like()) {
        state::Segment cs = cpu.mode.has(Mode::v86) ? v86_segment(selector)
                                                    : real_segment(cpu.seg(Seg::cs), selector);
        NESTOR_OR_STOP(cpu, op, t.push_return(width, false, cs, offset));
        cpu.update_mode();
        return cpu.leave_to(op, cpu.s.rip);
    }
    bool switched = false;
    const bool ok = t.protected_mode(selector, offset, switched);
    if (!ok && !switched) {
        return cpu.abandon(op);
    }
    cpu.update_mode();
    cpu.leave_to(op, cpu.s.rip);
    if (!ok) {
        cpu.outcome = Outcome::fault;
    }
    return nullptr;
}

/// ptr16:16 and ptr16:32: selector in aux, offset in imm.
template <bool call, unsigned width>
const Op* op_far_direct(Cpu& cpu, const Op* op) {
    return far_transfer(cpu, op, static_cast<u16>(op->aux), static_cast<u32>(op->imm), width, call);
}

/// m16:16, m16:32, m16:64.
template <bool call, unsigned width>
const Op* op_far_memory(Cpu& cpu, const Op* op) {
    u8 bytes[10];
    u64 address;
    const Seg segment = Cpu::operand_segment(op);
    NESTOR_OR_STOP(cpu, op, cpu.linear(op, width + 2, Access::read, address));
    NESTOR_OR_STOP(cpu, op, cpu.load_slow(op, address, bytes, width + 2, segment));
    u64 offset = 0;
    u16 selector;
    std::memcpy(&offset, bytes, width);
    std::memcpy(&selector, bytes + width, 2);
    return far_transfer(cpu, op, selector, offset, width, call);
}

template <bool call>
bool emit_far(Emit& e) {
    const unsigned width = e.d.insn.operand_width / 8u;
    if (e.is_mem(0)) {
        e.set_memory(0);
        return ends_with(e, width == 8   ? op_far_memory<call, 8>
                            : width == 4 ? op_far_memory<call, 4>
                                         : op_far_memory<call, 2>);
    }
    e.op.aux = e.operand(0).ptr.segment;
    const u32 offset = e.operand(0).ptr.offset;
    e.op.imm = static_cast<i32>(width == 2 ? offset & 0xffff : offset);
    return ends_with(e, width == 4 ? op_far_direct<call, 4> : op_far_direct<call, 2>);
}

} // namespace

bool emit_far_return(Emit& e); // ops_far_return.cpp

bool emit_system_far(Emit& e) {
    if (e.d.insn.meta.branch_type == ZYDIS_BRANCH_TYPE_FAR) {
        if (e.mnemonic() == ZYDIS_MNEMONIC_CALL) {
            return emit_far<true>(e);
        }
        if (e.mnemonic() == ZYDIS_MNEMONIC_JMP) {
            return emit_far<false>(e);
        }
    }
    return emit_far_return(e);
}

} // namespace nestor::cpu
