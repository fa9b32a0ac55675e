// What stands at the boundary between two instructions, in the SDM's order (SDM 3A table 6-2):
// injection of a VM entry, monitor trap, debug traps, exits that wait for a boundary, virtual
// interrupts, and at last instruction breakpoints, which belong to the instruction behind it.
//
// All of it but a yield waits for a count to be left: what happens at a boundary happens at the
// start of the next run, so that a cut does not show.
#include "engine/cpu/cpu.hpp"
#include "engine/cpu/virtual_apic.hpp"
#include "engine/cpu/vmx_boundary.hpp"

namespace nestor::cpu {

using namespace arch;

bool Cpu::service_boundary() {
    if (shadow_fresh) {
        shadow_fresh = false; // set by an instruction that did not run alone
    }
    if (!begin_entry_boundary(*this)) {
        return stop_for(outcome);
    }
    if ((attention & Attention::injection) != 0 && !deliver_injected()) {
        return false;
    }
    // Nothing but a yield happens at the count where a run stops: a cut must not show.
    if (budget > 0 && monitor_trap_exit(*this)) {
        stop_ = Stop::exit;
        return false;
    }
    if (s.pending_debug != 0 && !s.blocking_by_mov_ss) {
        if (!deliver_pending_debug()) {
            return false;
        }
    }
    if (budget > 0 && monitor_trap_exit(*this)) {
        stop_ = Stop::exit;
        return false;
    }
    if (budget > 0) {
        if (boundary_exit(*this)) {
            stop_ = Stop::exit;
            return false;
        }
        bool delivered = false;
        if (!deliver_virtual_interrupt(*this, delivered)) {
            return stop_for(outcome);
        }
        if (delivered) {
            budget -= 1;
            note_monitor_trap(*this);
        }
    }
    if ((attention & Attention::yield) != 0) {
        attention &= ~Attention::yield;
        stop_ = Stop::yield;
        return false;
    }
    if (s.pending_debug == 0 && budget > 0 && !boundary_wanted(*this)) {
        attention &= ~Attention::event;
    }
    return true;
}

bool Cpu::deliver_injected() {
    if (budget <= 0) {
        stop_ = Stop::count;
        return false;
    }
    const Event e = *injected;
    if (own_flags) {
        // Waited for a page only: it is delivered as it would have been at once.
        s.rflags = *own_flags;
        own_flags.reset();
        injected.reset();
        attention &= ~Attention::injection;
        task_switched = true;
        event = e;
        return stop_for(Outcome::fault);
    }
    s.activity = state::ActivityState::active;
    if (!deliver(e)) {
        if (outcome == Outcome::vm_exit) {
            injected.reset();
            attention &= ~Attention::injection;
        }
        return stop_for(outcome);
    }
    injected.reset();
    attention &= ~Attention::injection;
    budget -= 1;
    note_monitor_trap(*this);
    return true;
}

bool Cpu::deliver_pending_debug() {
    if (budget <= 0) {
        stop_ = Stop::count;
        return false;
    }
    Event e;
    e.vector = static_cast<u8>(Exception::db);
    e.address = (s.pending_debug & pending_debug::b) |
                ((s.pending_debug & pending_debug::bs) != 0 ? dr6::bs : 0);
    const u64 before = s.pending_debug;
    s.pending_debug = 0;
    if (!deliver(e)) {
        if (outcome != Outcome::vm_exit) {
            s.pending_debug = before;
        }
        return stop_for(outcome);
    }
    budget -= 1;
    note_monitor_trap(*this);
    return true;
}

// SDM 3B 18.3.1.1: an instruction breakpoint is a fault, unless RF is set or SS was just loaded.
bool Cpu::code_breakpoint() {
    if ((s.rflags & rflags::rf) != 0 || s.blocking_by_mov_ss || (s.dr7 & dr7::enables) == 0) {
        return true;
    }
    u64 at = 0;
    if (!fetch_linear(at)) {
        return false;
    }
    u64 hit = 0;
    for (unsigned i = 0; i < 4; ++i) {
        const bool enabled = (s.dr7 >> (2 * i) & 3) != 0;
        const bool execute_type = (s.dr7 >> (16 + 4 * i) & 3) == 0;
        if (enabled && execute_type && s.dr[i] == at) {
            hit |= bit(i);
        }
    }
    return hit == 0 || set_fault(Exception::db, 0, hit);
}

} // namespace nestor::cpu
