// VMLAUNCH and VMRESUME of L1 (SDM 3C chapter 27).
//
// Checks come first and change nothing; they are those of the silicon's table (entry_checks.def),
// made on vmcs12, so what L1 got wrong is never found in vmcs02. Then the entry is committed: L1's
// registers are forgotten, because vmcs12's host area says what they will be; L2's are loaded. The
// instruction retires as the one count that an entry is.
#include <fmt/format.h>

#include "engine/arch/bits.hpp"
#include "engine/arch/msr.hpp"
#include "engine/cpu/package.hpp"
#include "engine/cpu/vmcs_fields.hpp"
#include "engine/cpu/vmcs_state.hpp"
#include "engine/hypervisor/nested.hpp"
#include "engine/hypervisor/vcpu_impl.hpp"

namespace nestor::hv {

using namespace arch;
using cpu::EntryCheckKind;

namespace {

cpu::VmExit entry_failure(ExitReason reason, u64 qualification) {
    cpu::VmExit exit;
    exit.reason = reason;
    exit.qualification = qualification;
    return exit;
}

} // namespace

cpu::EntryContext Nested::context() const {
    const cpu::Features& f = v_.config.package->features();
    cpu::EntryContext c;
    c.capabilities = capabilities;
    c.physical_bits = f.physical_bits;
    c.linear_bits = f.la57 ? 57 : 48;
    c.efer_allowed = (efer::sce | efer::lme | efer::lma | efer::nxe) & ~f.efer_reserved;
    c.debugctl_allowed = debugctl_allowed;
    c.perf_global_allowed = Pmu::global_bits;
    c.long_mode = (v_.cpu.s.efer & efer::lma) != 0;
    c.in_smm = v_.cpu.s.in_smm;
    c.x2apic = v_.lapic.x2apic();
    c.current_vmcs = s.current;
    return c;
}

std::optional<Exit> Nested::enter(bool launch) {
    if (s.current == none) {
        return fail_invalid();
    }
    u32 revision = 0;
    if (auto stop = read_memory(s.current, {reinterpret_cast<u8*>(&revision), sizeof revision})) {
        return stop;
    }
    if ((revision & cpu::region::shadow_indicator) != 0) {
        return fail_invalid();
    }
    if (v_.cpu.s.blocking_by_mov_ss) {
        return fail_valid(Error::blocked_by_mov_ss);
    }
    if (launch == s.vmcs12.launch_state) {
        return fail_valid(launch ? Error::vmlaunch_non_clear : Error::vmresume_non_launched);
    }
    return check_entry();
}

std::optional<Exit> Nested::check_entry() {
    const cpu::EntryContext c = context();
    const cpu::GuestMemory& memory = v_.config.package->memory();
    const state::Vmcs& v = s.vmcs12;
    if (cpu::check_controls(v, c)) {
        return fail_valid(Error::invalid_controls);
    }
    const cpu::EntryMemory controls = cpu::check_controls_memory(v, c, memory);
    if (controls.page_needed) {
        return PageNeeded{*controls.page_needed};
    }
    if (controls.failure) {
        return fail_valid(Error::invalid_controls);
    }
    if (cpu::check_host(v, c)) {
        return fail_valid(Error::invalid_host_state);
    }
    // Whatever happens next ends in an exit sooner or later: its pages have to be there.
    if (auto stop = reach_exit()) {
        return stop;
    }
    if (const auto failure = cpu::check_guest(v, c)) {
        return fail_entry(ExitReason::entry_failure_guest_state, failure->qualification);
    }
    const cpu::EntryMemory guest = cpu::check_guest_memory(v, c, memory);
    if (guest.page_needed) {
        return PageNeeded{*guest.page_needed};
    }
    if (guest.failure) {
        return fail_entry(ExitReason::entry_failure_guest_state, guest.failure->qualification);
    }
    if (auto stop =
            reach(v.vm_entry_msr_load_addr, v.vm_entry_msr_load_count * list_entry_size, false)) {
        return stop;
    }
    const state::Vmcs made = vmcs02();
    if (const auto failure = cpu::check_controls(made, c)) {
        // What L0 added is wrong: nothing of it is L1's.
        return Refused{fmt::format("vmcs02 is refused: {}", failure->text)};
    }
    commit_entry(made, guest.pdptes);
    return std::nullopt;
}

/// The entry counts as one, with the exit that it ends in.
std::optional<Exit> Nested::fail_entry(ExitReason reason, u64 qualification) {
    v_.complete_exit();
    v_.leave_vmcs01();
    entry_failed(entry_failure(reason, qualification));
    return std::nullopt;
}

void Nested::commit_entry(const state::Vmcs& vmcs02, const std::array<u64, 4>& pdptes) {
    v_.complete_exit();
    v_.leave_vmcs01();
    cpu::load_guest(v_.cpu, s.vmcs12, pdptes);
    if ((s.vmcs12.vm_entry_controls & entry_control::load_perf_global_ctrl) != 0) {
        v_.advance_pmu();
        static_cast<void>(
            v_.pmu.write(Msr::perf_global_ctrl, s.vmcs12.guest_ia32_perf_global_ctrl));
    }
    const u32 bad = load_msrs(s.vmcs12.vm_entry_msr_load_addr, s.vmcs12.vm_entry_msr_load_count);
    if (bad != 0) {
        entry_failed(entry_failure(ExitReason::entry_failure_msr_loading, bad));
        return;
    }
    s.vmcs12.launch_state = true;
    s.guest_mode = true;
    make_current(vmcs02);
    v_.cpu.transition();
    cpu::begin_entry(v_.cpu, s.vmcs12);
}

/// An MSR-load list. 0, or the 1-based index of the entry that cannot be loaded.
u32 Nested::load_msrs(u64 address, u32 count) {
    const cpu::EntryContext c = context();
    for (u32 i = 0; i < count; ++i) {
        cpu::MsrListEntry entry;
        static_cast<void>(read_memory(address + i * list_entry_size,
                                      {reinterpret_cast<u8*>(&entry), sizeof entry}));
        Lapic::Effects effects;
        if (cpu::check_msr_load(entry, c) || !v_.write_msr(entry.index, entry.value, effects)) {
            return i + 1;
        }
    }
    return 0;
}

} // namespace nestor::hv
