// What waits for L1 before an entry, and what ends its waiting: timers, SMI, INIT, SIPI, NMI,
// interrupts.
//
// L0 decides what to inject in the SDM's order of priority (SDM 3A table 6-2); what cannot be
// injected yet opens an interrupt or NMI window. Where the silicon delivers virtual interrupts, L0
// does so only to keep them in order with the PIC's. Nothing is injected while an access of an
// abandoned instruction is being answered: it has begun. While L2 is active, nested_events.cpp
// decides.
#include <algorithm>

#include "engine/arch/bits.hpp"
#include "engine/cpu/package.hpp"
#include "engine/cpu/system.hpp"
#include "engine/hypervisor/vcpu_impl.hpp"

namespace nestor::hv {

using state::ActivityState;

namespace {

constexpr u32 interrupt_window = arch::proc_control::interrupt_window_exiting;
constexpr u32 nmi_window = arch::proc_control::nmi_window_exiting;
constexpr u32 windows = interrupt_window | nmi_window;

} // namespace

bool Vcpu::Impl::wakes() const {
    if (nested.s.guest_mode) {
        return nested.wakes();
    }
    const bool smi_or_init = smi_waits() || (init_waits() && !cpu.s.in_smm);
    switch (cpu.s.activity) {
    case ActivityState::active:
        return true;
    case ActivityState::wait_for_sipi:
        return init_waits() || events.sipi;
    case ActivityState::shutdown:
        return nmi_waits() || smi_or_init;
    case ActivityState::hlt:
        break;
    }
    return smi_or_init || (nmi_waits() && !cpu.s.blocking_by_nmi) || halt_ends();
}

/// What ends HLT or MWAIT at whichever level is active, besides SMI, INIT, NMI and a write to the
/// line that MWAIT watches (cpu::Cpu::monitor).
bool Vcpu::Impl::halt_ends() const {
    const bool enabled = (cpu.s.rflags & arch::rflags::if_) != 0;
    return cpu.injecting() || cpu.s.pending_debug != 0 || (enabled && interrupt_waits());
}

/// INIT is blocked in VMX root operation (SDM 3C 24.8).
bool Vcpu::Impl::init_waits() const { return events.init && !nested.s.vmxon; }

bool Vcpu::Impl::smi_waits() const { return events.smi && !cpu.s.in_smm && !inhibits.block_irq; }
bool Vcpu::Impl::nmi_waits() const { return events.nmi_count > 0 && !inhibits.block_irq; }

/// Above L1's task priority, whatever else holds it back.
bool Vcpu::Impl::interrupt_waits() const {
    return !inhibits.block_irq && (lapic.deliverable() || pic_waits());
}

bool Vcpu::Impl::pic_waits() const {
    return !inhibits.block_irq && lapic.accepts_pic() && config.board != nullptr &&
           config.board->pic_output();
}

void Vcpu::Impl::advance_pmu() {
    if (pmu.advance({cpu.s.retired, cpu.retired_outside_cpl0()}) &&
        lapic.raise_local(ApicRegister::lvt_pmi)) {
        events.nmi_count = static_cast<u8>(std::min(2, events.nmi_count + 1));
    }
}

std::optional<Exit> Vcpu::Impl::prepare() {
    lapic.run_timer(ticks_now(), tsc_now());
    advance_pmu();
    if (!wakes()) {
        if (cpu.s.activity == ActivityState::wait_for_sipi) {
            return WaitingForSipi{};
        }
        return Halted{};
    }
    if (cpu.s.activity == ActivityState::hlt && cpu.s.monitor_armed) {
        cpu.s.monitor_armed = false;
        cpu.s.activity = ActivityState::active;
    }
    return inject_next();
}

std::optional<Exit> Vcpu::Impl::inject_next() {
    follow_lapic();
    follow_interrupts();
    cpu.controls.proc = (cpu.controls.proc & ~windows) | nested.windows();
    if (cpu.injecting() || cpu.answering()) {
        return std::nullopt;
    }
    if (nested.s.guest_mode) {
        return nested.events();
    }
    if (smi_waits() && !cpu.s.blocking_by_mov_ss && !cpu.s.blocking_by_sti) {
        return enter_smm();
    }
    if (init_waits() && !cpu.s.in_smm) {
        accept_init();
        return std::nullopt;
    }
    if (events.sipi && cpu.s.activity == ActivityState::wait_for_sipi) {
        accept_sipi();
        return std::nullopt;
    }
    if (cpu.s.pending_debug != 0) {
        return std::nullopt; // comes before NMI and interrupts; the silicon delivers it
    }
    if (!inject_nmi()) {
        inject_interrupt();
    }
    return std::nullopt;
}

/// True: an NMI is injected. Otherwise a window is open if one waits.
bool Vcpu::Impl::inject_nmi() {
    if (!nmi_waits()) {
        return false;
    }
    if (!cpu.nmi_deliverable()) {
        cpu.controls.proc |= nmi_window;
        return false;
    }
    --events.nmi_count;
    cpu::Event e;
    e.type = cpu::EventType::nmi;
    e.vector = 2;
    cpu.inject(e);
    return true;
}

void Vcpu::Impl::inject_interrupt() {
    if (!interrupt_waits() || (delivers_virtually() && !pic_waits())) {
        return;
    }
    const auto local = lapic.deliverable();
    if (!cpu.interruptible()) {
        cpu.controls.proc |= interrupt_window;
        return;
    }
    cpu::Event e;
    e.type = cpu::EventType::external_interrupt;
    if (local) {
        acknowledge(*local);
        e.vector = local->value();
    } else {
        e.vector = config.board->acknowledge_pic().value();
    }
    cpu.inject(e);
}

} // namespace nestor::hv
