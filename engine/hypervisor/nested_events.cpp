// What waits for L2, in the order of priority (SDM 3A table 6-2, SDM 3C 26.2): INIT, SIPI, then
// what the silicon itself finds at the boundary (monitor trap, debug exceptions, preemption timer),
// SMI, NMI, interrupts.
//
// Each becomes an exit to L1 where vmcs12 asks for it, and is delivered to L2 otherwise. Nothing
// comes before an event that VM entry is still to inject.
#include "engine/arch/bits.hpp"
#include "engine/cpu/virtual_apic.hpp"
#include "engine/hypervisor/nested.hpp"
#include "engine/hypervisor/vcpu_impl.hpp"

namespace nestor::hv {

using namespace arch;
using state::ActivityState;

namespace {

constexpr u32 nmi_info = Nested::info_valid | static_cast<u32>(cpu::EventType::nmi) << 8 | 2;

} // namespace

bool Nested::exits_on_interrupts() const {
    return (s.vmcs12.pin_based_vm_exec_control & pin_control::external_interrupt_exiting) != 0;
}

bool Nested::nmi_blocked() const {
    const u32 pin = s.vmcs12.pin_based_vm_exec_control;
    // SDM 3C 26.3: with virtual NMIs the blocking that is kept is not that of NMIs.
    return (pin & pin_control::virtual_nmis) == 0 && v_.cpu.s.blocking_by_nmi;
}

void Nested::event_exit(ExitReason reason, u64 qualification, u32 interruption) {
    cpu::VmExit exit;
    exit.reason = reason;
    exit.qualification = qualification;
    exit.interruption_info = interruption;
    exit_to_l1(exit);
}

bool Nested::boundary_busy() const {
    const cpu::Cpu& cpu = v_.cpu;
    const bool entering = (cpu.attention & cpu::Cpu::Attention::entry) != 0 &&
                          (cpu.controls.proc & proc_control::use_tpr_shadow) != 0;
    return entering || cpu.monitor_trap_pending ||
           (cpu.s.pending_debug != 0 && !cpu.s.blocking_by_mov_ss) || timer_expired();
}

/// A window that L1 asked for is open.
bool Nested::window_open() const {
    const u32 asked = windows();
    return ((asked & proc_control::interrupt_window_exiting) != 0 && v_.cpu.interruptible() &&
            v_.cpu.s.activity == ActivityState::hlt) ||
           ((asked & proc_control::nmi_window_exiting) != 0 && v_.cpu.nmi_deliverable());
}

bool Nested::timer_expired() const { return v_.ticks_now() >= v_.cpu.preemption_deadline; }

std::optional<Exit> Nested::events() {
    state::PendingEvents& e = v_.events;
    const ActivityState activity = v_.cpu.s.activity;
    if (e.init && activity != ActivityState::wait_for_sipi) {
        e.init = false;
        event_exit(ExitReason::init_signal);
        return std::nullopt;
    }
    if (e.sipi && activity == ActivityState::wait_for_sipi) {
        e.sipi = false;
        event_exit(ExitReason::sipi, e.sipi_vector);
        return std::nullopt;
    }
    if (activity == ActivityState::wait_for_sipi || boundary_busy()) {
        return std::nullopt;
    }
    if (v_.smi_waits() && !v_.cpu.s.blocking_by_mov_ss && !v_.cpu.s.blocking_by_sti) {
        return v_.enter_smm();
    }
    if (v_.nmi_waits() && !nmi_blocked()) {
        if ((s.vmcs12.pin_based_vm_exec_control & pin_control::nmi_exiting) != 0) {
            --e.nmi_count;
            event_exit(ExitReason::exception_or_nmi, 0, nmi_info);
            return std::nullopt;
        }
    }
    return interrupt();
}

/// The vector that L1 uses to post interrupts to L2 (SDM 3C 30.6).
bool Nested::posted_to_l2(Vector vector) const {
    const state::Vmcs& v = s.vmcs12;
    return (v.pin_based_vm_exec_control & pin_control::process_posted_interrupts) != 0 &&
           vector.value() == v.posted_interrupt_notification_vector;
}

/// NMIs that L2 takes itself, and interrupts.
std::optional<Exit> Nested::interrupt() {
    if (v_.inject_nmi()) {
        return std::nullopt;
    }
    if (!exits_on_interrupts()) {
        v_.inject_interrupt();
        return std::nullopt;
    }
    if (!v_.interrupt_waits()) {
        return std::nullopt;
    }
    const auto local = v_.lapic.deliverable();
    if (local && posted_to_l2(*local)) {
        if (!cpu::process_posted_interrupts(v_.cpu)) {
            stop_.reset();
            stop_for_cpu();
            return stop_;
        }
        v_.lapic.dismiss(*local);
        return std::nullopt;
    }
    const bool acknowledge = (s.vmcs12.vm_exit_controls & exit_control::acknowledge_interrupt) != 0;
    u32 info = 0;
    if (acknowledge && !local) {
        info = info_valid | v_.config.board->acknowledge_pic().value();
    }
    event_exit(ExitReason::external_interrupt, 0, info);
    if (acknowledge && local) {
        // With vmcs01 current: the vector in service is L1's.
        v_.acknowledge(*local);
        s.vmcs12.vm_exit_intr_info = info_valid | local->value();
    }
    return std::nullopt;
}

bool Nested::wakes() const {
    const state::PendingEvents& e = v_.events;
    switch (v_.cpu.s.activity) {
    case ActivityState::active:
        return true;
    case ActivityState::wait_for_sipi:
        return e.sipi;
    default:
        break;
    }
    const bool nmi = v_.nmi_waits() && !nmi_blocked();
    if (e.init || v_.smi_waits() || nmi || boundary_busy() || window_open() || v_.cpu.injecting()) {
        return true;
    }
    if (exits_on_interrupts() && v_.interrupt_waits()) {
        return true;
    }
    return v_.cpu.s.activity == ActivityState::hlt &&
           (v_.halt_ends() || cpu::virtual_interrupt_pending(v_.cpu));
}

} // namespace nestor::hv
