// vmcs02: what the silicon runs L2 under, made from vmcs12 and from what L0 needs.
//
// Owns nothing; derived at entry and after a restore, never saved. It is vmcs12 with L1's share of
// the time-stamp counter: second-level translation is L1's own EPT, bitmaps and pages are read
// where L1 put them, and what the silicon cannot do alone for L2 comes to L0 unasked
// (VmExit::assist). What L0 does with vmcs01's APIC has no place here: L2's acceleration is L1's.
#include "engine/cpu/vmx_controls.hpp"
#include "engine/hypervisor/nested.hpp"
#include "engine/hypervisor/vcpu_impl.hpp"
#include "engine/hypervisor/vmcs02.hpp"

namespace nestor::hv {

using namespace arch;

namespace {

/// L1's offset as seen through L2's multiplier (48 fraction bits), which may be negative.
u64 scale_signed(u64 offset, u64 multiplier) {
    const bool negative = static_cast<i64>(offset) < 0;
    const u64 magnitude = negative ? -offset : offset;
    const u64 scaled = static_cast<u64>(u128{magnitude} * multiplier >> 48);
    return negative ? -scaled : scaled;
}

bool secondary_on(const state::Vmcs& v, u32 control) {
    return (v.cpu_based_vm_exec_control & proc_control::activate_secondary_controls) != 0 &&
           (v.secondary_vm_exec_control & control) != 0;
}

} // namespace

u64 tsc_offset02(const state::Vmcs& v, u64 l1_tsc_offset) {
    if ((v.cpu_based_vm_exec_control & proc_control::use_tsc_offsetting) == 0) {
        return l1_tsc_offset;
    }
    const bool scaling = secondary_on(v, proc2_control::use_tsc_scaling);
    return v.tsc_offset + (scaling ? scale_signed(l1_tsc_offset, v.tsc_multiplier) : l1_tsc_offset);
}

state::Vmcs make_vmcs02(const state::Vmcs& vmcs12, u64 l1_tsc_offset) {
    state::Vmcs v = vmcs12;
    if ((v.cpu_based_vm_exec_control & proc_control::use_tsc_offsetting) == 0) {
        v.cpu_based_vm_exec_control |= proc_control::use_tsc_offsetting;
        v.secondary_vm_exec_control &= ~proc2_control::use_tsc_scaling;
    }
    v.tsc_offset = tsc_offset02(vmcs12, l1_tsc_offset);
    return v;
}

state::Vmcs Nested::vmcs02() const { return make_vmcs02(s.vmcs12, v_.msrs.tsc_offset); }

void Nested::make_current(const state::Vmcs& vmcs02) {
    cpu::set_controls(v_.cpu, vmcs02, nullptr);
    v_.follow_lapic();
}

u32 Nested::windows() const {
    constexpr u32 all = proc_control::interrupt_window_exiting | proc_control::nmi_window_exiting;
    return s.guest_mode ? s.vmcs12.cpu_based_vm_exec_control & all : 0;
}

void Nested::follow_tsc() {
    v_.cpu.controls.tsc_offset = tsc_offset02(s.vmcs12, v_.msrs.tsc_offset);
}

} // namespace nestor::hv
