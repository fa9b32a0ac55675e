// VM exit from L2 to L1 (SDM 3C chapter 28), in the order of KVM's: L2's state into vmcs12, exit
// information, MSR store list, vmcs01 current again, pending updates of vmcs01, L1's state from
// vmcs12's host area, MSR load list.
//
// Every page that the exit needs was made sure of before L2 ran (reach_exit), so an exit is never
// left half done. It counts one. What the lists or L1's PDPTEs make impossible is a VMX abort,
// which is a shutdown.
#include "engine/arch/bits.hpp"
#include "engine/arch/msr.hpp"
#include "engine/cpu/package.hpp"
#include "engine/cpu/vmcs_state.hpp"
#include "engine/hypervisor/nested.hpp"
#include "engine/hypervisor/vcpu_impl.hpp"

namespace nestor::hv {

using namespace arch;

namespace {

constexpr u32 entry_failure_bit = bit<u32>(31);
constexpr u64 pdpt_size = 32;

bool has(u32 word, u32 control) { return (word & control) != 0; }

bool pae_paging(u64 cr0, u64 cr4, bool long_mode) {
    return (cr0 & cr0::pg) != 0 && (cr4 & cr4::pae) != 0 && !long_mode;
}

} // namespace

/// The page without which an exit to L1 could not be completed.
std::optional<Exit> Nested::reach_exit() {
    const state::Vmcs& v = s.vmcs12;
    if (auto stop =
            reach(v.vm_exit_msr_store_addr, v.vm_exit_msr_store_count * list_entry_size, true)) {
        return stop;
    }
    if (auto stop =
            reach(v.vm_exit_msr_load_addr, v.vm_exit_msr_load_count * list_entry_size, false)) {
        return stop;
    }
    const bool long_host = has(v.vm_exit_controls, exit_control::host_address_space_size);
    if (pae_paging(v.host_cr0, v.host_cr4, long_host)) {
        return reach(v.host_cr3 & ~(pdpt_size - 1), pdpt_size, false);
    }
    return std::nullopt;
}

void Nested::exit_to_l1(const cpu::VmExit& exit) {
    v_.count_transition();
    save_l2(exit);
    state::Vmcs& v = s.vmcs12;
    v.vm_exit_reason = static_cast<u32>(exit.reason);
    v.exit_qualification = exit.qualification;
    v.guest_linear_address = exit.guest_linear;
    v.guest_physical_address = exit.guest_physical;
    v.vm_exit_intr_info = exit.interruption_info;
    v.vm_exit_intr_error_code = exit.interruption_error;
    v.idt_vectoring_info = exit.idt_vectoring_info;
    v.idt_vectoring_error_code = exit.idt_vectoring_error;
    v.vm_exit_instruction_len = exit.instruction_length;
    v.vm_exit_instruction_info = exit.instruction_info;
    v.vm_entry_intr_info &= ~info_valid; // SDM 3C 28.2
    const bool nmi = exit.reason == ExitReason::exception_or_nmi &&
                     (exit.interruption_info >> 8 & 7) == static_cast<u32>(cpu::EventType::nmi);
    // SDM 3C 28.5.5. With virtual NMIs, the bit was not about NMIs.
    const bool blocked = has(v.pin_based_vm_exec_control, pin_control::virtual_nmis)
                             ? false
                             : v_.cpu.s.blocking_by_nmi;
    back_to_vmcs01();
    const bool stored = store_msrs(); // the time-stamp counter is L1's
    load_l1(nmi || blocked);
    if (!stored) {
        abort();
    }
}

/// An entry that failed behind the checks of controls and host state (SDM 3C 27.8): no guest state
/// is saved, no entry field changes.
void Nested::entry_failed(const cpu::VmExit& exit) {
    s.vmcs12.vm_exit_reason = static_cast<u32>(exit.reason) | entry_failure_bit;
    s.vmcs12.exit_qualification = exit.qualification;
    back_to_vmcs01();
    load_l1(v_.cpu.s.blocking_by_nmi);
}

void Nested::save_l2(const cpu::VmExit& exit) {
    state::Vmcs& v = s.vmcs12;
    v_.cpu.materialize();
    cpu::store_controls(v_.cpu, v);
    cpu::save_guest(v_.cpu, v);
    if (has(v.vm_exit_controls, exit_control::save_preemption_timer) &&
        has(v.pin_based_vm_exec_control, pin_control::activate_preemption_timer)) {
        v.vmx_preemption_timer_value =
            exit.reason == ExitReason::preemption_timer ? 0 : cpu::preemption_timer_value(v_.cpu);
    }
}

bool Nested::store_msrs() {
    const cpu::EntryContext c = context();
    for (u32 i = 0; i < s.vmcs12.vm_exit_msr_store_count; ++i) {
        const u64 at = s.vmcs12.vm_exit_msr_store_addr + i * list_entry_size;
        cpu::MsrListEntry entry;
        const std::span<u8> bytes{reinterpret_cast<u8*>(&entry), sizeof entry};
        static_cast<void>(read_memory(at, bytes));
        if (cpu::check_msr_store(entry, c) || !v_.read_msr(entry.index, entry.value)) {
            return false;
        }
        static_cast<void>(write_memory(at, bytes));
    }
    return true;
}

void Nested::back_to_vmcs01() {
    s.guest_mode = false;
    s.mtf_pending = false;
    s.run_pending = false;
    s.timer_deadline = ~u64{0};
    v_.back_to_vmcs01();
}

void Nested::load_l1(bool nmi_blocked) {
    const state::Vmcs& v = s.vmcs12;
    cpu::load_host(v_.cpu, v);
    v_.cpu.s.blocking_by_nmi = nmi_blocked;
    if (has(v.vm_exit_controls, exit_control::load_perf_global_ctrl)) {
        v_.advance_pmu();
        static_cast<void>(v_.pmu.write(Msr::perf_global_ctrl, v.host_ia32_perf_global_ctrl));
    }
    v_.cpu.transition();
    const bool pdptes_ok =
        !pae_paging(v_.cpu.s.cr0, v_.cpu.s.cr4, (v_.cpu.s.efer & efer::lma) != 0) ||
        v_.cpu.load_pdptrs(nullptr, v_.cpu.s.cr3);
    if (!pdptes_ok || load_msrs(v.vm_exit_msr_load_addr, v.vm_exit_msr_load_count) != 0) {
        abort();
    }
}

/// VMX abort (SDM 3C 28.7).
void Nested::abort() { v_.cpu.s.activity = state::ActivityState::shutdown; }

} // namespace nestor::hv
