// Instruction boundaries under VMX controls.
//
// Owns nothing. The order is the SDM's: monitor trap, debug traps, TPR threshold and preemption
// timer, NMI window, interrupt window, virtual interrupts (SDM 3C 26.2, 26.5.1, 26.5.2, 30.2.2).
#include "engine/cpu/vmx_boundary.hpp"

#include "engine/cpu/system.hpp"
#include "engine/cpu/virtual_apic.hpp"

namespace nestor::cpu {

using namespace arch;
using state::ActivityState;

namespace {

bool control(const Cpu& cpu, u32 bits) { return (cpu.controls.proc & bits) != 0; }

bool virtual_interrupts(const Cpu& cpu) {
    return (cpu.controls.proc2 & proc2_control::virtual_interrupt_delivery) != 0;
}

/// SDM 3C 27.7.7: right behind a VM entry.
bool below_threshold(const Cpu& cpu) {
    return (cpu.attention & Cpu::Attention::entry) != 0 &&
           control(cpu, proc_control::use_tpr_shadow) && !virtual_interrupts(cpu) &&
           (read_virtual_apic(cpu, vapic::tpr) >> 4 & 15) < cpu.controls.tpr_threshold;
}

/// L0's own log has to be emptied.
bool log_nearly_full(const Cpu& cpu) {
    return cpu.controls.own_log != nullptr &&
           static_cast<u16>(cpu.controls.pml_index + 1) < own_log_reserve;
}

} // namespace

bool boundary_wanted(const Cpu& cpu) {
    return log_nearly_full(cpu) ||
           control(cpu,
                   proc_control::interrupt_window_exiting | proc_control::nmi_window_exiting) ||
           cpu.monitor_trap_pending ||
           (virtual_interrupts(cpu) && (cpu.controls.interrupt_status & 0xff) != 0);
}

u64 counts_until_preemption(const Cpu& cpu) {
    if (cpu.preemption_deadline == Cpu::no_deadline) {
        return ~u64{0};
    }
    const Clock& c = cpu.clock;
    const u64 now = cpu.count_at(nullptr);
    const u64 ticks = cpu.preemption_deadline > c.ticks ? cpu.preemption_deadline - c.ticks : 0;
    // The first count whose tick is not before the deadline.
    const u128 counts = (u128{ticks} * c.denominator + c.numerator - 1) / c.numerator;
    const u128 at = u128{c.count} + counts;
    return at > now ? static_cast<u64>(at - now) : 0;
}

bool begin_entry_boundary(Cpu& cpu) {
    if ((cpu.attention & Cpu::Attention::entry) == 0 ||
        !control(cpu, proc_control::use_tpr_shadow)) {
        return true;
    }
    return virtual_interrupts(cpu) ? begin_virtual_interrupts(cpu) : virtual_apic_ready(cpu);
}

bool monitor_trap_exit(Cpu& cpu) {
    const ActivityState activity = cpu.s.activity;
    if (!cpu.monitor_trap_pending || activity == ActivityState::shutdown ||
        activity == ActivityState::wait_for_sipi) {
        return false;
    }
    cpu.monitor_trap_pending = false;
    cpu.set_exit(ExitReason::monitor_trap_flag);
    return true;
}

bool boundary_exit(Cpu& cpu) {
    const ActivityState activity = cpu.s.activity;
    if (below_threshold(cpu)) {
        cpu.set_exit(ExitReason::tpr_below_threshold);
        return true;
    }
    cpu.attention &= ~Cpu::Attention::entry;
    if (log_nearly_full(cpu)) {
        cpu.set_exit(ExitReason::page_modification_log_full);
        return true;
    }
    if (activity == ActivityState::wait_for_sipi) {
        return false;
    }
    if (counts_until_preemption(cpu) == 0) {
        cpu.set_exit(ExitReason::preemption_timer);
        return true;
    }
    if (control(cpu, proc_control::nmi_window_exiting) && cpu.nmi_deliverable()) {
        cpu.set_exit(ExitReason::nmi_window);
        return true;
    }
    if (control(cpu, proc_control::interrupt_window_exiting) && cpu.interruptible() &&
        activity != ActivityState::shutdown) {
        cpu.set_exit(ExitReason::interrupt_window);
        return true;
    }
    return false;
}

bool deliver_virtual_interrupt(Cpu& cpu, bool& delivered) {
    delivered = false;
    const bool awake =
        cpu.s.activity == ActivityState::active || cpu.s.activity == ActivityState::hlt;
    if (!virtual_interrupts(cpu) || !awake || !cpu.interruptible() ||
        (cpu.controls.interrupt_status & 0xff) == 0) {
        return true;
    }
    if (!virtual_apic_ready(cpu)) {
        return false;
    }
    if (!virtual_interrupt_pending(cpu)) {
        return true;
    }
    Event e;
    e.type = EventType::external_interrupt;
    e.vector = static_cast<u8>(cpu.controls.interrupt_status);
    delivered = cpu.deliver(e);
    if (delivered || cpu.outcome == Outcome::vm_exit) {
        take_virtual_interrupt(cpu);
    }
    return delivered;
}

void note_monitor_trap(Cpu& cpu) {
    if (control(cpu, proc_control::monitor_trap_flag)) {
        cpu.monitor_trap_pending = true;
        cpu.attention |= Cpu::Attention::event;
    }
}

void record_exit(Cpu& cpu) {
    if (cpu.controls.assisted) {
        return; // L0 goes on with the instruction
    }
    switch (cpu.exit.reason) {
    case ExitReason::ept_violation:
    case ExitReason::ept_misconfiguration:
    case ExitReason::page_modification_log_full:
    case ExitReason::apic_access:
        // With an event in delivery: what its frame would have held.
        if ((cpu.exit.idt_vectoring_info >> 31) == 0) {
            cpu.s.rflags |= rflags::rf;
        }
        break;
    case ExitReason::triple_fault:
        cpu.s.rflags |= rflags::rf;
        break;
    case ExitReason::exception_or_nmi:
    case ExitReason::task_switch:
    case ExitReason::interrupt_window:
    case ExitReason::nmi_window:
    case ExitReason::monitor_trap_flag:
    case ExitReason::tpr_below_threshold:
    case ExitReason::virtualized_eoi:
    case ExitReason::apic_write:
    case ExitReason::preemption_timer:
        break;
    default:
        if (!cpu.exit.assist) {
            cpu.s.rflags &= ~rflags::rf; // an instruction
        }
        break;
    }
}

} // namespace nestor::cpu
