// Event delivery through the IDT: SDM 3A chapter 6, SDM 2 INT n.
//
// Cpu::deliver takes one event to its handler, with the faults of the delivery itself: they combine
// with the event to the second fault, a double fault or a triple fault (SDM 3A table 6-5). Nothing
// is committed until the whole frame is known to fit; a page that is missing leaves CR2 and DR6 too
// as they were, so that the delivery can start again; behind a task switch the event is kept. A
// fault inside a delivery that is already part of a VM entry's injection is subject to the
// exception bitmap, the injected event is not.
#include "engine/cpu/ept.hpp"
#include "engine/cpu/injection.hpp"
#include "engine/cpu/system.hpp"

namespace nestor::cpu {

using namespace arch;

namespace {

bool is_exception(EventType type) {
    return type == EventType::hardware_exception || type == EventType::software_exception ||
           type == EventType::privileged_software_exception;
}

u32 interruption_info(const Event& e) {
    return e.vector | static_cast<u32>(e.type) << 8 | (e.has_error ? bit<u32>(11) : 0) |
           bit<u32>(31);
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
        // SDM 3B 18.2.3: B3:0 are those of this exception, the others accumulate.
        cpu.s.dr6 = (cpu.s.dr6 & ~dr6::b) | (e.address & (dr6::b | dr6::bd | dr6::bs | dr6::bt));
        cpu.s.dr7 &= ~dr7::gd;
        cpu.s.debugctl &= ~u64{1}; // LBR
    }
}

/// SDM 3C 25.6.3: the exception bitmap; for #PF as the error-code mask and match say.
bool exception_exits(const Cpu& cpu, const Event& e) {
    if (!is_exception(e.type)) {
        return false;
    }
    const Controls& c = cpu.controls;
    const bool listed = (c.exception_bitmap >> (e.vector & 31) & 1) != 0;
    if (e.vector != static_cast<u8>(Exception::pf)) {
        return listed;
    }
    return listed == ((e.error & c.page_fault_mask) == c.page_fault_match);
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
    const bool double_fault = e.vector == static_cast<u8>(Exception::df);
    cpu.set_exit(ExitReason::exception_or_nmi, qualification);
    cpu.exit.interruption_info = interruption_info(e);
    if (cpu.nmi_unblocked && !during && !double_fault) {
        cpu.exit.interruption_info |= bit<u32>(12); // SDM 3C 28.2.3
    }
    cpu.exit.interruption_error = e.has_error ? e.error : 0;
    cpu.exit.instruction_length = e.instruction_length;
    // A double fault is not met during the delivery that led to it (SDM 3C 28.2.4).
    if (during && !double_fault) {
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

bool raise_for_exited(Cpu& cpu, const Event& e) {
    if (exception_exits(cpu, e)) {
        exit_for_exception(cpu, e, std::nullopt);
        return true;
    }
    if (e.vector == static_cast<u8>(Exception::pf)) {
        cpu.s.cr2 = e.address;
    }
    if (pushes_rf(e)) {
        cpu.s.rflags |= rflags::rf;
    }
    cpu.inject(e);
    return false;
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
        if (!exempt && exception_exits(*this, e)) {
            exit_for_exception(*this, e, during);
            break;
        }
        if (!exempt) {
            record(*this, e); // an entry's event changes neither CR2 nor debug registers
        }
        delivering = e;
        outcome = Outcome::resume;
        if (exempt ? deliver_injected_once(*this, e) : deliver_once(*this, e)) {
            delivering.reset();
            nmi_unblocked = false;
            task_switched = false;
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
        if (e.type == EventType::hardware_exception && e.vector == static_cast<u8>(Exception::df) &&
            exceptions[second.vector & 31].klass != ExceptionClass::benign) {
            set_exit(ExitReason::triple_fault); // SDM 3A 6.15, interrupt 8
            break;
        }
        during = e;
        e = doubles(e, second) ? adapted(*this, double_fault()) : second;
    }
    if (outcome == Outcome::vm_exit) {
        const bool first_hand =
            exit.reason == ExitReason::exception_or_nmi || exit.reason == ExitReason::triple_fault;
        if (!first_hand && delivering) {
            s.blocking_by_nmi |= delivering->type == EventType::nmi;
            exit.idt_vectoring_info = interruption_info(*delivering);
            exit.idt_vectoring_error = delivering->has_error ? delivering->error : 0;
            exit.instruction_length = delivering->instruction_length;
        }
    } else if (task_switched) {
        // What led here is over and does not start again (SDM 3A 8.3): the event waits in the new
        // task, as L0 would inject it, with what it left in CR2 and DR6.
        own_flags = s.rflags;
        if (pushes_rf(e)) {
            s.rflags |= rflags::rf;
        }
        inject(e);
    } else {
        s.blocking_by_nmi |= nmi_unblocked; // IRET starts again
        s.cr2 = old_cr2;
        s.dr6 = old_dr6;
        s.dr7 = old_dr7;
        s.debugctl = old_debugctl;
        if (first.type == EventType::hardware_exception && !by_entry &&
            first.vector == static_cast<u8>(Exception::ve)) {
            const Outcome why = outcome;
            take_back_ve(*this);
            outcome = why;
        }
    }
    delivering.reset();
    nmi_unblocked = false;
    task_switched = false;
    return false;
}

} // namespace nestor::cpu
