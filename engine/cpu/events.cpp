// Event delivery through the IDT: SDM 3A chapter 6, SDM 2 INT n.
//
// Cpu::deliver takes one event to its handler, with the faults of the delivery itself: they combine
// with the event to the second fault, a double fault or a triple fault (SDM 3A table 6-5). Nothing
// is committed until the whole frame is known to fit; a page that is missing leaves CR2 and DR6 too
// as they were, so that the delivery can start again. A fault inside a delivery that is already
// part of a VM entry's injection is subject to the exception bitmap, the injected event is not.
#include "engine/cpu/system.hpp"

namespace nestor::cpu {

using namespace arch;

namespace {

bool is_exception(EventType type) {
    return type == EventType::hardware_exception || type == EventType::software_exception ||
           type == EventType::privileged_software_exception;
}

/// INT n, INT3 and INTO: gate DPL is checked and EXT is clear (SDM 3A 6.12.1.1, 6.13).
bool is_software(EventType type) {
    return type == EventType::software_interrupt || type == EventType::software_exception;
}

/// INT1 too: what returns behind its instruction.
bool is_software_kind(EventType type) {
    return is_software(type) || type == EventType::privileged_software_exception;
}

u32 interruption_info(const Event& e) {
    return e.vector | static_cast<u32>(e.type) << 8 | (e.has_error ? bit<u32>(11) : 0) |
           bit<u32>(31);
}

/// RF in the pushed image: set for faults, except instruction breakpoints (SDM 3B 17.3.1.1).
bool pushes_rf(const Event& e) {
    if (e.type != EventType::hardware_exception) {
        return false;
    }
    switch (e.vector) {
    case 1:
        return (e.address & dr6::bd) != 0;
    case 3:
    case 4:
    case 8:
    case 18:
        return false;
    default:
        return true;
    }
}

/// SDM 3A table 6-5. Whether `second`, met while delivering `first`, becomes a double fault.
bool doubles(const Event& first, const Event& second) {
    if (first.type != EventType::hardware_exception || first.vector >= exceptions.size()) {
        return false;
    }
    const ExceptionClass a = exceptions[first.vector].klass;
    const ExceptionClass b = exceptions[second.vector & 31].klass;
    if (a == ExceptionClass::contributory) {
        return b == ExceptionClass::contributory;
    }
    return a == ExceptionClass::page_fault &&
           (b == ExceptionClass::contributory || b == ExceptionClass::page_fault);
}

/// What an exception leaves in control and debug registers before its handler runs.
void record(Cpu& cpu, const Event& e) {
    if (e.type != EventType::hardware_exception) {
        return;
    }
    if (e.vector == 14) {
        cpu.s.cr2 = e.address;
    } else if (e.vector == 1) {
        // SDM 3B 17.2.3: B3:0 are those of this exception, the others accumulate.
        cpu.s.dr6 = (cpu.s.dr6 & ~dr6::b) | (e.address & (dr6::b | dr6::bd | dr6::bs | dr6::bt));
        cpu.s.dr7 &= ~dr7::gd;
        cpu.s.debugctl &= ~u64{1}; // LBR
    }
}

/// One delivery: the event, where it returns to, and what the gate says.
struct Delivery {
    Cpu& cpu;
    const Event& event;
    Site site;
    u64 return_rip;
    u64 flags; ///< image to push
    Descriptor gate{};
    state::Segment code{};
    u8 level = 0; ///< new CPL
    bool interrupt_gate = false;

    [[nodiscard]] u32 gate_error() const { return event.vector * 8u + 2; }
    bool read_gate(unsigned size);
    bool check_gate_access() const;
    bool check_code();
    bool protected_mode();
    bool long_mode();
    bool from_v86(InnerStack& stack);
    bool through_task_gate();
    void finish(u64 rip);
};

bool Delivery::read_gate(unsigned size) {
    const u32 offset = event.vector * size;
    if (offset + size - 1 > cpu.s.idtr.limit) {
        return site.gp(gate_error());
    }
    u64 words[2] = {};
    const u64 address = cpu.s.idtr.base + offset;
    if (!cpu.load_system(nullptr, size == 16 ? address : static_cast<u32>(address), words, size)) {
        return false;
    }
    gate.low = words[0];
    gate.high = words[1];
    return true;
}

bool Delivery::check_gate_access() const {
    if (is_software(event.type) && gate.dpl() < cpu.cpl) {
        return site.gp(gate_error());
    }
    return gate.present() || site.fault(Exception::np, gate_error());
}

/// The handler's code segment (SDM 2 INT n, TRAP-OR-INTERRUPT-GATE).
bool Delivery::check_code() {
    const u16 selector = gate.gate_selector();
    if (is_null(selector)) {
        return site.gp(0);
    }
    const u32 error = selector_error(selector);
    Descriptor d;
    if (!read_descriptor(site, selector, d)) {
        return false;
    }
    if (!d.is_code() || d.dpl() > cpu.cpl) {
        return site.gp(error);
    }
    if (ia32e(cpu) && (!d.long_code() || d.big())) {
        return site.gp(error); // SDM 3A 6.14.1: only 64-bit handlers
    }
    if (!d.present()) {
        return site.fault(Exception::np, error);
    }
    if (cpu.mode.has(Mode::v86) && (d.conforming() || d.dpl() != 0)) {
        return site.gp(error); // SDM 3B 20.3.1.1
    }
    level = d.conforming() ? cpu.cpl : d.dpl();
    if (!mark_accessed(site, d)) {
        return false;
    }
    code = make_segment(d, with_rpl(selector, level));
    return true;
}

void Delivery::finish(u64 rip) {
    u64 clear = rflags::tf | rflags::nt | rflags::rf | rflags::vm;
    clear |= interrupt_gate ? rflags::if_ : 0;
    cpu.s.rflags &= ~clear;
    cpu.seg(Seg::cs) = code;
    cpu.s.rip = rip;
}

bool Delivery::through_task_gate() {
    Descriptor tss;
    const u16 selector = gate.gate_selector();
    if (!check_tss(site, selector, false, Exception::gp, tss)) {
        return false;
    }
    bool committed = false;
    const u32* error = event.has_error ? &event.error : nullptr;
    return task_switch(site, selector, tss, TaskSwitchSource::gate, return_rip, error, committed);
}

/// From virtual-8086 mode to CPL 0: the data segments are pushed too (SDM 3B 20.3.1.1).
bool Delivery::from_v86(InnerStack& stack) {
    const bool wide = gate.type() >= system_type::int32;
    Frame frame(stack.ss, stack.sp, false, wide ? 4 : 2);
    for (const Seg which : {Seg::gs, Seg::fs, Seg::ds, Seg::es, Seg::ss}) {
        frame.push(cpu.seg(which).selector);
    }
    frame.push(cpu.s.gpr[4]);
    frame.push(flags);
    frame.push(cpu.seg(Seg::cs).selector);
    frame.push(return_rip);
    if (event.has_error) {
        frame.push(event.error);
    }
    const u64 rip = gate.gate_offset() & (wide ? 0xffffffff : 0xffff);
    if (!frame.check_room(site, selector_error(stack.ss.selector))) {
        return false;
    }
    if (!rip_fits(cpu, code, rip)) {
        return site.gp(0);
    }
    if (!frame.write(site, 0)) {
        return false;
    }
    for (const Seg which : {Seg::gs, Seg::fs, Seg::ds, Seg::es}) {
        cpu.seg(which) = null_segment(0);
    }
    cpu.seg(Seg::ss) = stack.ss;
    cpu.s.gpr[4] = frame.new_sp(cpu.s.gpr[4]);
    finish(rip);
    return true;
}

bool Delivery::protected_mode() {
    if (!read_gate(8)) {
        return false;
    }
    const u32 type = gate.type();
    const bool task = type == system_type::task_gate;
    const bool known = task || type == system_type::int16 || type == system_type::trap16 ||
                       type == system_type::int32 || type == system_type::trap32;
    if (gate.segment() || !known) {
        return site.gp(gate_error());
    }
    if (!check_gate_access()) {
        return false;
    }
    if (task) {
        return through_task_gate();
    }
    interrupt_gate = type == system_type::int16 || type == system_type::int32;
    if (!check_code()) {
        return false;
    }
    const bool wide = type >= system_type::int32;
    const bool inner = level != cpu.cpl;
    InnerStack stack{cpu.seg(Seg::ss), cpu.s.gpr[4]};
    if (inner && !inner_stack(site, level, false, 0, stack)) {
        return false;
    }
    if (cpu.mode.has(Mode::v86)) {
        return from_v86(stack);
    }
    Frame frame(stack.ss, stack.sp, false, wide ? 4 : 2);
    if (inner) {
        frame.push(cpu.seg(Seg::ss).selector);
        frame.push(cpu.s.gpr[4]);
    }
    frame.push(flags);
    frame.push(cpu.seg(Seg::cs).selector);
    frame.push(return_rip);
    if (event.has_error) {
        frame.push(event.error);
    }
    const u64 rip = gate.gate_offset() & (wide ? 0xffffffff : 0xffff);
    if (!frame.check_room(site, inner ? selector_error(stack.ss.selector) : 0)) {
        return false;
    }
    if (!rip_fits(cpu, code, rip)) {
        return site.gp(0);
    }
    if (!frame.write(site, level)) {
        return false;
    }
    cpu.seg(Seg::ss) = stack.ss;
    cpu.s.gpr[4] = frame.new_sp(cpu.s.gpr[4]);
    finish(rip);
    return true;
}

/// SDM 3A 6.14: 16-byte gates, aligned frames of five quadwords, IST.
bool Delivery::long_mode() {
    if (!read_gate(16)) {
        return false;
    }
    const u32 type = gate.type();
    if (gate.segment() || (type != system_type::int32 && type != system_type::trap32)) {
        return site.gp(gate_error());
    }
    if (!check_gate_access()) {
        return false;
    }
    interrupt_gate = type == system_type::int32;
    if (!check_code()) {
        return false;
    }
    const bool inner = level != cpu.cpl;
    InnerStack stack{cpu.seg(Seg::ss), cpu.s.gpr[4]};
    if ((inner || gate.gate_ist() != 0) &&
        !inner_stack(site, level, true, gate.gate_ist(), stack)) {
        return false;
    }
    if (!inner) {
        stack.ss = cpu.seg(Seg::ss);
    }
    Frame frame(stack.ss, stack.sp & ~u64{15}, true, 8);
    frame.push(cpu.seg(Seg::ss).selector);
    frame.push(cpu.s.gpr[4]);
    frame.push(flags);
    frame.push(cpu.seg(Seg::cs).selector);
    frame.push(return_rip);
    if (event.has_error) {
        frame.push(event.error);
    }
    const u64 rip = gate.gate_offset();
    if (!frame.check_room(site, 0)) {
        return false;
    }
    if (!rip_fits(cpu, code, rip)) {
        return site.gp(0);
    }
    if (!frame.write(site, level)) {
        return false;
    }
    cpu.seg(Seg::ss) = stack.ss;
    cpu.s.gpr[4] = frame.new_sp(0);
    finish(rip);
    return true;
}

bool deliver_once(Cpu& cpu, const Event& e) {
    const bool software = is_software_kind(e.type);
    const Site site{cpu, nullptr, is_software(e.type) ? 0u : 1u};
    u64 return_rip = cpu.s.rip;
    if (software) {
        return_rip = cpu.truncate_rip(return_rip + e.instruction_length);
    }
    u64 flags = cpu.rflags();
    if (software) {
        flags &= ~rflags::rf;
    } else if (pushes_rf(e)) {
        flags |= rflags::rf;
    }
    if ((cpu.s.cr0 & cr0::pe) == 0) {
        if (e.vector * 4u + 3 > cpu.s.idtr.limit) {
            return site.gp(e.vector * 8u + 2);
        }
        return deliver_real(site, cpu.s.idtr.base, e.vector, return_rip, flags);
    }
    Delivery delivery{cpu, e, site, return_rip, flags};
    return ia32e(cpu) ? delivery.long_mode() : delivery.protected_mode();
}

void exit_for_exception(Cpu& cpu, const Event& e, const std::optional<Event>& during) {
    // SDM 3C 28.3.3: the saved RF is that of the image which delivery would have pushed.
    if (is_software_kind(e.type)) {
        cpu.s.rflags &= ~rflags::rf;
    } else if (pushes_rf(e)) {
        cpu.s.rflags |= rflags::rf;
    }
    u64 qualification = 0;
    if (e.type == EventType::hardware_exception && (e.vector == 14 || e.vector == 1)) {
        qualification = e.address;
    }
    cpu.set_exit(ExitReason::exception_or_nmi, qualification);
    cpu.exit.interruption_info = interruption_info(e);
    cpu.exit.interruption_error = e.has_error ? e.error : 0;
    cpu.exit.instruction_length = e.instruction_length;
    if (during) {
        cpu.exit.idt_vectoring_info = interruption_info(*during);
        cpu.exit.idt_vectoring_error = during->has_error ? during->error : 0;
    }
}

/// An event as it is delivered: no error codes in real-address mode.
Event adapted(const Cpu& cpu, Event e) {
    if ((cpu.s.cr0 & cr0::pe) == 0) {
        e.has_error = false;
    }
    return e;
}

Event double_fault() {
    Event e;
    e.vector = static_cast<u8>(Exception::df);
    e.has_error = true;
    return e;
}

} // namespace

bool deliver_real(const Site& site, u64 table, u8 vector, u64 return_rip, u64 pushed_flags) {
    Cpu& cpu = site.cpu;
    u16 target[2];
    if (!cpu.load_system(site.op, static_cast<u32>(table + vector * 4u), target, sizeof target)) {
        return false;
    }
    Frame frame(cpu.seg(Seg::ss), cpu.s.gpr[4], false, 2);
    frame.push(pushed_flags);
    frame.push(cpu.seg(Seg::cs).selector);
    frame.push(return_rip);
    if (!frame.check_room(site, 0)) {
        return false;
    }
    if (target[0] > cpu.seg(Seg::cs).limit) {
        return site.gp(0);
    }
    if (!frame.write(site, cpu.cpl)) {
        return false;
    }
    cpu.s.gpr[4] = frame.new_sp(cpu.s.gpr[4]);
    state::Segment& cs = cpu.seg(Seg::cs);
    cs = cpu.mode.has(Mode::v86) ? v86_segment(target[1]) : real_segment(cs, target[1]);
    cpu.s.rflags &= ~(rflags::tf | rflags::rf);
    if (!cpu.mode.has(Mode::v86)) {
        cpu.s.rflags &= ~(rflags::if_ | rflags::ac);
    }
    cpu.s.rip = target[0];
    return true;
}

bool Cpu::deliver(const Event& first) {
    const u64 old_cr2 = s.cr2;
    const u64 old_dr6 = s.dr6;
    const u64 old_dr7 = s.dr7;
    const u64 old_debugctl = s.debugctl;
    const bool by_entry = injected.has_value();
    Event e = adapted(*this, first);
    std::optional<Event> during;
    for (;;) {
        const bool exempt = by_entry && !during;
        if (is_exception(e.type) && !exempt && (controls.exception_bitmap >> e.vector & 1) != 0) {
            exit_for_exception(*this, e, during);
            break;
        }
        record(*this, e);
        delivering = e;
        outcome = Outcome::resume;
        if (deliver_once(*this, e)) {
            delivering.reset();
            s.activity = state::ActivityState::active;
            s.blocking_by_sti = false;
            s.blocking_by_mov_ss = false;
            s.blocking_by_nmi |= e.type == EventType::nmi;
            attention &= ~Attention::shadow;
            shadow_fresh = false;
            update_mode();
            return true;
        }
        if (outcome != Outcome::fault) {
            break;
        }
        const Event second = adapted(*this, event);
        if (e.type == EventType::hardware_exception &&
            e.vector == static_cast<u8>(Exception::df) &&
            exceptions[second.vector & 31].klass != ExceptionClass::benign) {
            set_exit(ExitReason::triple_fault); // SDM 3A 6.15, interrupt 8
            break;
        }
        during = e;
        e = doubles(e, second) ? adapted(*this, double_fault()) : second;
    }
    if (outcome == Outcome::vm_exit) {
        const bool first_hand = exit.reason == ExitReason::exception_or_nmi ||
                                exit.reason == ExitReason::triple_fault;
        if (!first_hand && delivering) {
            exit.idt_vectoring_info = interruption_info(*delivering);
            exit.idt_vectoring_error = delivering->has_error ? delivering->error : 0;
            exit.instruction_length = delivering->instruction_length;
        }
    } else {
        s.cr2 = old_cr2;
        s.dr6 = old_dr6;
        s.dr7 = old_dr7;
        s.debugctl = old_debugctl;
    }
    delivering.reset();
    return false;
}

} // namespace nestor::cpu
