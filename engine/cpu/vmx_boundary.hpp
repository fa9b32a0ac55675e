// What VMX controls do at instruction boundaries: monitor trap flag, preemption timer, windows, the
// end of a VM entry, virtual interrupts (SDM 3C 26.5, 27.7, 30.2). Called by the run loop only.
#pragma once

#include "engine/cpu/cpu.hpp"

namespace nestor::cpu {

/// Whether the controls may want something at the next boundary, so that it must be looked at.
bool boundary_wanted(const Cpu& cpu);
/// Counts until the preemption timer expires; 0 when it has, all ones when it does not run.
u64 counts_until_preemption(const Cpu& cpu);

/// The virtual APIC's part of a VM entry, before anything is injected. False: page_needed or
/// copy_needed.
bool begin_entry_boundary(Cpu& cpu);
/// The exit that comes before debug traps: monitor trap flag. True: `exit` is set.
bool monitor_trap_exit(Cpu& cpu);
/// Exits behind debug traps and before NMIs: TPR threshold after an entry, preemption timer, NMI
/// and interrupt windows. True: `exit` is set.
bool boundary_exit(Cpu& cpu);
/// Delivers a virtual interrupt if there is one and it may be. False: outcome is vm_exit,
/// page_needed or copy_needed. `delivered`: one count is used.
bool deliver_virtual_interrupt(Cpu& cpu, bool& delivered);
/// After an instruction, or a delivered event, that retired.
void note_monitor_trap(Cpu& cpu);
/// RFLAGS.RF as an exit saves it (SDM 3C 28.3.3), where the exit's own code has not done so.
void record_exit(Cpu& cpu);

} // namespace nestor::cpu
