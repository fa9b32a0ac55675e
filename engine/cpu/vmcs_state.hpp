// Between a VMCS and the registers of the processor: what VM entries load and VM exits save and
// load (SDM 3C 27.3.2, 28.3, 28.5).
//
// All of them leave MSRs that the silicon does not hold to the caller: IA32_PERF_GLOBAL_CTRL is in
// guest_ia32_perf_global_ctrl and host_ia32_perf_global_ctrl where the controls ask for it.
// Neither MSR lists nor event injection are done here.
#pragma once

#include "engine/cpu/cpu.hpp"
#include "engine/state/vmcs.hpp"

namespace nestor::cpu {

/// Loads the guest area; it passed check_guest(). `pdptes` are used with PAE paging without EPT
/// (from check_guest_memory); with EPT they come from the VMCS. Derived state follows
/// (Cpu::transition), so an injection must be given after the call.
void load_guest(Cpu& cpu, const state::Vmcs& vmcs, const std::array<u64, 4>& pdptes);

/// Saves the registers into the guest area, as a VM exit does. The preemption timer's value, the
/// interrupt status and CR0 and CR4 bits owned by a hypervisor in between are the caller's.
void save_guest(Cpu& cpu, state::Vmcs& vmcs);

/// Loads the host area, as a VM exit does, and puts the processor into the state that the SDM gives
/// the rest (segments, RFLAGS, DR7, DEBUGCTL, blocking). With PAE paging the PDPTEs are the
/// caller's to load (Cpu::load_pdptrs). NMI blocking is the caller's too: it depends on the exit.
void load_host(Cpu& cpu, const state::Vmcs& vmcs);

} // namespace nestor::cpu
