// vmcs01, under which L0 runs L1: how it is made, and how it changes.
//
// Owns the control fields of Impl::vmcs01. They are written when something changes, never at an
// entry, and saved as last written. L0 decides about L1's APIC, its mode and dirty logging
// whichever level runs; while L2 does, vmcs02 is the current VMCS and what was decided is a flag in
// state::NestedPending, carried out once vmcs01 is current again (SDM 3C 25.6, 30).
//
// The local APIC's page is the virtual-APIC page as it stands. So nothing is copied when APICv
// comes or goes: only who reads and writes the page changes.
#include <algorithm>

#include "engine/arch/bits.hpp"
#include "engine/arch/msr.hpp"
#include "engine/cpu/system.hpp"
#include "engine/cpu/virtual_apic.hpp"
#include "engine/hypervisor/vcpu_impl.hpp"

namespace nestor::hv {

using namespace arch;

namespace {

/// HLT, MWAIT, RDPMC and MONITOR exit; MSRs by bitmap; TPR accesses go to the virtual-APIC page.
/// Port accesses come to L0 as PendingAccess, data included, so that it need not emulate the
/// instruction; the I/O control is for exits to an L1.
constexpr u32 proc_controls =
    proc_control::hlt_exiting | proc_control::mwait_exiting | proc_control::rdpmc_exiting |
    proc_control::use_msr_bitmaps | proc_control::monitor_exiting | proc_control::use_tpr_shadow |
    proc_control::use_tsc_offsetting | proc_control::activate_secondary_controls;

/// RDTSCP (and RDPID), INVPCID and XSAVES run without an exit.
constexpr u32 secondary_controls =
    proc2_control::enable_rdtscp | proc2_control::enable_invpcid | proc2_control::enable_xsaves;

/// What comes and goes with the mode of L1's APIC, and with APICv.
constexpr u32 mode_controls =
    proc2_control::virtualize_apic_accesses | proc2_control::virtualize_x2apic_mode;
constexpr u32 apicv_controls =
    proc2_control::apic_register_virtualization | proc2_control::virtual_interrupt_delivery;

/// L0's vector for what was posted to L1. L1 may use the same for L2: descriptors are told apart by
/// the VMCS that is current.
constexpr u8 notification_vector = 0xf2;

constexpr u8 no_threshold = state::NestedPending{}.tpr_threshold;

/// MSRs that L1 reads and writes without an exit.
constexpr auto passed_through = std::to_array<u32>({
    0x174, 0x175, 0x176,                            // SYSENTER
    0xc0000081, 0xc0000082, 0xc0000083, 0xc0000084, // STAR, LSTAR, CSTAR, FMASK
    0xc0000100, 0xc0000101, 0xc0000102, 0xc0000103, // FS, GS, kernel GS base, TSC_AUX
});

constexpr u32 x2apic_first = static_cast<u32>(Msr::x2apic_first);
constexpr u32 msr_of(ApicRegister r) { return x2apic_first + (static_cast<u32>(r) >> 4); }

/// Registers of x2APIC mode that the page answers as the APIC would. Not PPR and the timer's count,
/// which are computed, and not ICR, whose halves lie apart.
bool answered_by_page(u32 index) {
    using enum ApicRegister;
    constexpr auto single = std::to_array<ApicRegister>({id, version, tpr, ldr, svr, esr});
    const auto is = [index](ApicRegister r) { return msr_of(r) == index; };
    return std::any_of(single.begin(), single.end(), is) ||
           (index >= msr_of(isr) && index < msr_of(esr)) ||
           (index >= msr_of(lvt_timer) && index <= msr_of(timer_initial)) || is(timer_divide);
}

enum class Access : u8 { read, write };

/// SDM 3C 25.6.9: read low, read high, write low, write high; 1 KiB each.
void pass(std::array<u8, page_size>& bitmap, u32 msr, Access access, bool passes) {
    const u32 start = (msr >= 0xc0000000 ? 1024u : 0u) + (access == Access::write ? 2048u : 0u);
    u8& byte = bitmap[start + (msr & 0x1fff) / 8];
    const auto one = static_cast<u8>(1u << (msr & 7));
    byte = static_cast<u8>(passes ? byte & ~one : byte | one);
}

void set_bits(u32& word, u32 bits, bool on) { word = on ? word | bits : word & ~bits; }

/// The fields that change in the life of a vCPU are those of `from`.
void copy_changing(const state::Vmcs& from, state::Vmcs& to) {
    constexpr u32 second = mode_controls | apicv_controls | proc2_control::enable_pml;
    to.pin_based_vm_exec_control |=
        from.pin_based_vm_exec_control & pin_control::process_posted_interrupts;
    to.secondary_vm_exec_control |= from.secondary_vm_exec_control & second;
    to.apic_access_addr = from.apic_access_addr;
    to.tpr_threshold = from.tpr_threshold;
    to.guest_interrupt_status = from.guest_interrupt_status;
    to.eoi_exit_bitmap0 = from.eoi_exit_bitmap0;
    to.eoi_exit_bitmap1 = from.eoi_exit_bitmap1;
    to.eoi_exit_bitmap2 = from.eoi_exit_bitmap2;
    to.eoi_exit_bitmap3 = from.eoi_exit_bitmap3;
    to.tsc_offset = from.tsc_offset;
    to.cr0_guest_host_mask = from.cr0_guest_host_mask;
    to.cr0_read_shadow = from.cr0_read_shadow;
    to.cr4_guest_host_mask = from.cr4_guest_host_mask;
    to.cr4_read_shadow = from.cr4_read_shadow;
}

/// What never changes.
state::Vmcs constant_part() {
    state::Vmcs v;
    v.pin_based_vm_exec_control = pin_control::external_interrupt_exiting;
    v.cpu_based_vm_exec_control = proc_controls;
    v.secondary_vm_exec_control = secondary_controls;
    v.vm_exit_controls = exit_control::acknowledge_interrupt;
    v.posted_interrupt_notification_vector = notification_vector;
    v.pml_index = cpu::log_entries - 1;
    return v;
}

bool secondary(const state::Vmcs& v, u32 control) {
    return (v.secondary_vm_exec_control & control) != 0;
}

bool delivers(const state::Vmcs& v) {
    return secondary(v, proc2_control::virtual_interrupt_delivery);
}

} // namespace

// --- making it ----------------------------------------------------------------------------------

void Vcpu::Impl::make_vmcs01() {
    msr_bitmap.fill(0xff);
    for (const u32 msr : passed_through) {
        pass(msr_bitmap, msr, Access::read, true);
        pass(msr_bitmap, msr, Access::write, true);
    }
    vmcs01 = constant_part();
    known_apic = lapic.setting();
    state::NestedPending all;
    all.virtual_apic_mode = all.dirty_logging = all.apic_access_reload = all.apicv_update = true;
    write_vmcs01(all);
    make_vmcs01_current();
}

/// A VMCS that another L0 than this one wrote could mean anything.
bool Vcpu::Impl::vmcs01_is_ours() const {
    state::Vmcs ours = constant_part();
    copy_changing(vmcs01, ours);
    return ours == vmcs01;
}

void Vcpu::Impl::make_vmcs01_current() {
    vmcs01.tsc_offset = msrs.tsc_offset;
    // In VMX operation CR0 and CR4 have fixed bits (SDM 3C 24.8). To change one of them exits.
    const VmxCapabilities& vmx = nested.capabilities;
    vmcs01.cr0_guest_host_mask = nested.s.vmxon ? vmx.cr0_fixed0 : 0;
    vmcs01.cr0_read_shadow = vmcs01.cr0_guest_host_mask;
    vmcs01.cr4_guest_host_mask = nested.s.vmxon ? vmx.cr4_fixed0 : 0;
    vmcs01.cr4_read_shadow = vmcs01.cr4_guest_host_mask;
    pass_x2apic();
    const cpu::OwnPages own{.msr_bitmap = msr_bitmap.data(),
                            .virtual_apic = lapic.page(),
                            .posted = posted.data(),
                            .log = pml_log.data()};
    cpu::set_controls(cpu, vmcs01, &own);
    follow_lapic();
}

/// The part of the MSR bitmap that depends on vmcs01's APIC controls.
void Vcpu::Impl::pass_x2apic() {
    const u32 controls = vmcs01.secondary_vm_exec_control & (mode_controls | apicv_controls);
    if (controls == x2apic_passed_for) {
        return;
    }
    x2apic_passed_for = controls;
    const bool mode = (controls & proc2_control::virtualize_x2apic_mode) != 0;
    const bool active = mode && (controls & apicv_controls) == apicv_controls;
    using enum ApicRegister;
    for (u32 msr = x2apic_first; msr <= msr_of(self_ipi); ++msr) {
        const bool is_tpr = msr == msr_of(tpr);
        const bool done = msr == msr_of(eoi) || msr == msr_of(self_ipi);
        pass(msr_bitmap, msr, Access::read, (mode && is_tpr) || (active && answered_by_page(msr)));
        pass(msr_bitmap, msr, Access::write, (mode && is_tpr) || (active && done));
    }
}

/// Fields that the silicon changes, or that follow the APIC from boundary to boundary, as they
/// stand. vmcs01 is current.
void Vcpu::Impl::store_vmcs01(state::Vmcs& into) const {
    cpu::store_controls(cpu, into);
    if (delivers(into)) {
        const auto level = lapic.level_triggered();
        into.eoi_exit_bitmap0 = level[0];
        into.eoi_exit_bitmap1 = level[1];
        into.eoi_exit_bitmap2 = level[2];
        into.eoi_exit_bitmap3 = level[3];
        into.guest_interrupt_status =
            static_cast<u16>((into.guest_interrupt_status & 0xff00) | lapic.highest_requested());
    } else {
        into.tpr_threshold = lapic.tpr_threshold();
    }
    into.pml_index = cpu::log_entries - 1; // the log is L0's memory, and emptied first
}

void Vcpu::Impl::vmcs01_changed() {
    leave_vmcs01();
    make_vmcs01_current();
}

void Vcpu::Impl::leave_vmcs01() {
    empty_log();
    store_vmcs01(vmcs01);
}

void Vcpu::Impl::back_to_vmcs01() {
    make_vmcs01_current();
    const state::NestedPending pending = std::exchange(nested.s.pending, {});
    if (pending != state::NestedPending{}) {
        write_vmcs01(pending);
        make_vmcs01_current();
    }
}

// --- changing it --------------------------------------------------------------------------------

bool Vcpu::Impl::apicv_active() const {
    return !apicv_inhibited(vmx_apicv, inhibits, nested.s.guest_mode) && lapic.software_enabled();
}

/// In the order that a nested exit keeps to.
void Vcpu::Impl::write_vmcs01(const state::NestedPending& what) {
    u32& second = vmcs01.secondary_vm_exec_control;
    if (what.tpr_threshold != no_threshold) {
        vmcs01.tpr_threshold = what.tpr_threshold;
    }
    if (what.virtual_apic_mode) {
        set_bits(second, proc2_control::virtualize_x2apic_mode, lapic.x2apic());
        set_bits(second, proc2_control::virtualize_apic_accesses,
                 lapic.enabled() && !lapic.x2apic());
    }
    if (what.dirty_logging) {
        set_bits(second, proc2_control::enable_pml, logging);
    }
    if (what.apic_access_reload) {
        vmcs01.apic_access_addr = lapic.base() & ~page_mask;
    }
    if (what.apicv_update) {
        const bool active = apicv_active();
        set_bits(second, apicv_controls, active);
        set_bits(vmcs01.pin_based_vm_exec_control, pin_control::process_posted_interrupts, active);
    }
    if (what.isr_refresh || (what.apicv_update && delivers(vmcs01))) {
        vmcs01.guest_interrupt_status = static_cast<u16>(lapic.highest_in_service() << 8);
    }
}

/// Carries a change of vmcs01 out, or leaves it for the exit to L1.
void Vcpu::Impl::change_vmcs01(const state::NestedPending& what) {
    if (nested.s.guest_mode) {
        state::NestedPending& pending = nested.s.pending;
        pending.virtual_apic_mode |= what.virtual_apic_mode;
        pending.dirty_logging |= what.dirty_logging;
        pending.apic_access_reload |= what.apic_access_reload;
        pending.apicv_update |= what.apicv_update;
        return;
    }
    leave_vmcs01();
    write_vmcs01(what);
    make_vmcs01_current();
}

/// Between two instructions at once, otherwise when the running one is complete.
void Vcpu::Impl::request() {
    requested = true;
    if (!unsettled && !cpu.answering()) {
        serve_requests();
    }
}

void Vcpu::Impl::serve_requests() {
    requested = false;
    state::NestedPending wanted;
    wanted.apicv_update = delivers(vmcs01) != apicv_active();
    wanted.dirty_logging = secondary(vmcs01, proc2_control::enable_pml) != logging;
    if (wanted != state::NestedPending{}) {
        change_vmcs01(wanted);
    }
}

/// What came of the last exit, and of requests, for vmcs01. It is as much part of that exit's
/// count as what the guest sees of it: a machine that is saved now has the flags.
void Vcpu::Impl::follow_apic() {
    if (lapic.setting() != known_apic) {
        follow_setting();
    }
    if (requested) {
        serve_requests();
    }
    if (nested.s.guest_mode) {
        follow_threshold();
    }
}

/// The guest changed its APIC's mode, place or identity, by any of several ways.
void Vcpu::Impl::follow_setting() {
    const Lapic::Setting now = lapic.setting();
    const Lapic::Setting before = std::exchange(known_apic, now);
    state::NestedPending wanted;
    wanted.virtual_apic_mode = ((before.base ^ now.base) & page_mask) != 0;
    wanted.apic_access_reload = ((before.base ^ now.base) & ~page_mask) != 0;
    if (wanted != state::NestedPending{}) {
        change_vmcs01(wanted);
        follow_lapic();
    }
    if (config.board != nullptr) {
        config.board->apic_changed();
    }
    requested = true; // the APIC may have been enabled or disabled
}

// --- the APIC at a boundary ---------------------------------------------------------------------

bool Vcpu::Impl::delivers_virtually() const { return !nested.s.guest_mode && delivers(vmcs01); }

/// What an entry to L1 tells the silicon of its APIC.
void Vcpu::Impl::follow_interrupts() {
    if (nested.s.guest_mode) {
        return;
    }
    cpu::Controls& c = cpu.controls;
    if (!delivers(vmcs01)) {
        c.tpr_threshold = lapic.tpr_threshold();
        return;
    }
    c.interrupt_status =
        static_cast<u16>((c.interrupt_status & 0xff00) | lapic.highest_requested());
    c.eoi_exit_bitmap = lapic.level_triggered();
    cpu::begin_virtual_interrupts(cpu); // L0's own page is always there
}

/// Without a TPR shadow of its own, L2's task priority is L1's.
void Vcpu::Impl::follow_threshold() {
    const bool own_shadow =
        (nested.s.vmcs12.cpu_based_vm_exec_control & proc_control::use_tpr_shadow) != 0;
    if (own_shadow || apicv_active()) {
        return;
    }
    const u8 wanted = lapic.tpr_threshold();
    const u8 pending = nested.s.pending.tpr_threshold;
    if (wanted != (pending != no_threshold ? pending : vmcs01.tpr_threshold)) {
        nested.s.pending.tpr_threshold = wanted;
    }
}

void Vcpu::Impl::accept(Vector vector, bool level_triggered) {
    if (!lapic.admit(vector, level_triggered)) {
        return;
    }
    if (unsettled ||
        (vmcs01.pin_based_vm_exec_control & pin_control::process_posted_interrupts) == 0) {
        lapic.request(vector);
        return;
    }
    posted[vector.value() / 32] |= u32{1} << vector.value() % 32;
    posted[8] |= 1; // ON
    if (!cpu::take_notification(cpu, notification_vector)) {
        lapic.take_posted(posted); // L2's VMCS is current: an interrupt for L0
    }
}

void Vcpu::Impl::acknowledge(Vector vector) {
    lapic.acknowledge(vector);
    service_changed();
}

/// The vector in service is another one, and not by the silicon's doing.
void Vcpu::Impl::service_changed() {
    if (delivers_virtually()) {
        cpu.controls.interrupt_status = static_cast<u16>(lapic.highest_in_service() << 8);
    } else if (nested.s.guest_mode && apicv_active()) {
        nested.s.pending.isr_refresh = true;
    }
}

// --- dirty logging ------------------------------------------------------------------------------

void Vcpu::Impl::empty_log() {
    if (cpu.controls.own_log == nullptr) {
        return;
    }
    for (unsigned i = (cpu.controls.pml_index + 1u) & 0xffff; i < pml_log.size(); ++i) {
        logged.push_back(gfn_of(Gpa(pml_log[i])));
    }
    cpu.controls.pml_index = cpu::log_entries - 1;
}

// --- the contract -------------------------------------------------------------------------------

void Vcpu::set_inhibits(const state::ApicvInhibits& machine) {
    impl_->inhibits = machine;
    impl_->request();
}

void Vcpu::set_dirty_logging(bool on) {
    impl_->logging = on;
    impl_->request();
}

std::vector<Gfn> Vcpu::take_logged_pages() {
    impl_->empty_log();
    return std::exchange(impl_->logged, {});
}

ApicIdentity Vcpu::apic_identity() const {
    const Lapic& lapic = impl_->lapic;
    return {lapic.setting().id, lapic.enabled(), lapic.id_modified(), lapic.moved()};
}

} // namespace nestor::hv
