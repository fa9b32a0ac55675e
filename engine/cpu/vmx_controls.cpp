// Making a VMCS the current one, and the part of VM entry that begins execution under it.
//
// Owns nothing. SDM 3C 25.6 says which field matters under which control; 27.6 and 27.7 what an
// entry does behind the checks and loads. Only control fields are read here: guest state is loaded
// by its own code.
#include "engine/cpu/vmx_controls.hpp"

#include "engine/cpu/system.hpp"
#include "engine/state/vmcs.hpp"

namespace nestor::cpu {

using namespace arch;

namespace {

constexpr u32 valid = bit<u32>(31);

/// The preemption timer counts down when this bit of the TSC changes (IA32_VMX_MISC[4:0]).
constexpr unsigned timer_shift = 5;

/// Of a page, whose low bits a VM entry finds clear.
u64 if_set(u32 controls, u32 control, u64 address) {
    return (controls & control) != 0 ? address & ~page_mask : Controls::none;
}

void set_virtual_apic(Controls& c, const state::Vmcs& vmcs) {
    c.apic_access_page =
        if_set(c.proc2, proc2_control::virtualize_apic_accesses, vmcs.apic_access_addr);
    c.virtual_apic_page = if_set(c.proc, proc_control::use_tpr_shadow, vmcs.virtual_apic_page_addr);
    c.posted_interrupt_descriptor = (c.pin & pin_control::process_posted_interrupts) != 0
                                        ? vmcs.posted_intr_desc_addr & ~u64{63}
                                        : Controls::none;
    c.notification_vector = static_cast<u8>(vmcs.posted_interrupt_notification_vector);
    c.tpr_threshold = (c.proc & proc_control::use_tpr_shadow) != 0 ? vmcs.tpr_threshold & 15 : 0;
    c.eoi_exit_bitmap = {vmcs.eoi_exit_bitmap0, vmcs.eoi_exit_bitmap1, vmcs.eoi_exit_bitmap2,
                         vmcs.eoi_exit_bitmap3};
    c.interrupt_status = vmcs.guest_interrupt_status;
}

void set_memory(Controls& c, const state::Vmcs& vmcs) {
    c.eptp = (c.proc2 & proc2_control::enable_ept) != 0 ? vmcs.ept_pointer : Controls::none;
    c.vpid = (c.proc2 & proc2_control::enable_vpid) != 0 ? vmcs.virtual_processor_id : u16{0};
    c.pml_address = if_set(c.proc2, proc2_control::enable_pml, vmcs.pml_address);
    c.pml_index = vmcs.pml_index;
    c.ve_information =
        if_set(c.proc2, proc2_control::ept_violation_ve, vmcs.ve_information_address);
    c.vm_functions =
        (c.proc2 & proc2_control::enable_vm_functions) != 0 ? vmcs.vm_function_controls : 0;
    c.eptp_list = (c.vm_functions & 1) != 0 ? vmcs.eptp_list_address & ~page_mask : Controls::none;
    c.eptp_index = vmcs.eptp_index;
}

void set_bitmaps(Controls& c, const state::Vmcs& vmcs) {
    c.io_bitmap_a = if_set(c.proc, proc_control::use_io_bitmaps, vmcs.io_bitmap_a);
    c.io_bitmap_b = if_set(c.proc, proc_control::use_io_bitmaps, vmcs.io_bitmap_b);
    c.msr_bitmap = if_set(c.proc, proc_control::use_msr_bitmaps, vmcs.msr_bitmap);
    c.vmread_bitmap = if_set(c.proc2, proc2_control::vmcs_shadowing, vmcs.vmread_bitmap);
    c.vmwrite_bitmap = if_set(c.proc2, proc2_control::vmcs_shadowing, vmcs.vmwrite_bitmap);
    c.xss_exit_bitmap = (c.proc2 & proc2_control::enable_xsaves) != 0 ? vmcs.xss_exiting_bitmap : 0;
}

void set_time(Controls& c, const state::Vmcs& vmcs) {
    const bool offset = (c.proc & proc_control::use_tsc_offsetting) != 0;
    const bool scaling = offset && (c.proc2 & proc2_control::use_tsc_scaling) != 0;
    c.tsc_offset = offset ? vmcs.tsc_offset : 0;
    c.tsc_multiplier = scaling ? vmcs.tsc_multiplier : Controls::tsc_unity;
    c.ple_gap = vmcs.ple_gap;
    c.ple_window = vmcs.ple_window;
}

/// SDM 3C 27.7.3: whether debug exceptions stay pending over an entry that injects.
bool keeps_pending_debug(const Cpu& cpu, EventType type) {
    const bool software =
        type == EventType::software_interrupt || type == EventType::software_exception;
    return type == EventType::other || (software && cpu.s.blocking_by_mov_ss);
}

void inject_event(Cpu& cpu, const state::Vmcs& vmcs) {
    const u32 info = vmcs.vm_entry_intr_info;
    Event e;
    e.vector = static_cast<u8>(info);
    e.type = static_cast<EventType>(info >> 8 & 7);
    if (!keeps_pending_debug(cpu, e.type)) {
        cpu.s.pending_debug = 0;
    }
    if (e.type == EventType::other) {
        cpu.monitor_trap_pending = true; // SDM 3C 27.6.2
        return;
    }
    e.has_error = (info >> 11 & 1) != 0;
    e.error = e.has_error ? vmcs.vm_entry_exception_error_code : 0;
    e.instruction_length =
        is_software_kind(e.type) ? static_cast<u8>(vmcs.vm_entry_instruction_len) : u8{0};
    cpu.inject(e);
}

} // namespace

void set_controls(Cpu& cpu, const state::Vmcs& vmcs, const OwnPages* own) {
    Controls c;
    c.assisted = own != nullptr;
    c.own_msr_bitmap = own != nullptr ? own->msr_bitmap : nullptr;
    c.own_virtual_apic = own != nullptr ? own->virtual_apic : nullptr;
    c.own_posted = own != nullptr ? own->posted : nullptr;
    c.lapic_page = cpu.controls.lapic_page;
    c.cr8 = cpu.controls.cr8;
    c.pin = vmcs.pin_based_vm_exec_control;
    c.proc = vmcs.cpu_based_vm_exec_control;
    c.proc2 = (c.proc & proc_control::activate_secondary_controls) != 0
                  ? vmcs.secondary_vm_exec_control
                  : 0;
    c.exception_bitmap = vmcs.exception_bitmap;
    c.page_fault_mask = vmcs.page_fault_error_code_mask;
    c.page_fault_match = vmcs.page_fault_error_code_match;
    c.cr0_mask = vmcs.cr0_guest_host_mask;
    c.cr0_shadow = vmcs.cr0_read_shadow;
    c.cr4_mask = vmcs.cr4_guest_host_mask;
    c.cr4_shadow = vmcs.cr4_read_shadow;
    c.cr3_targets = {vmcs.cr3_target_value0, vmcs.cr3_target_value1, vmcs.cr3_target_value2,
                     vmcs.cr3_target_value3};
    c.cr3_target_count = vmcs.cr3_target_count;
    set_time(c, vmcs);
    set_bitmaps(c, vmcs);
    set_virtual_apic(c, vmcs);
    set_memory(c, vmcs);
    c.own_log = own != nullptr && (c.proc2 & proc2_control::enable_pml) != 0 ? own->log : nullptr;
    cpu.controls = c;
    cpu.leave_translations();
    cpu.update_flags_mode();
}

void store_controls(const Cpu& cpu, state::Vmcs& vmcs) {
    const Controls& c = cpu.controls;
    if ((c.proc2 & proc2_control::virtual_interrupt_delivery) != 0) {
        vmcs.guest_interrupt_status = c.interrupt_status;
    }
    if ((c.proc2 & proc2_control::enable_pml) != 0) {
        vmcs.pml_index = c.pml_index;
    }
    if ((c.vm_functions & 1) != 0) {
        vmcs.ept_pointer = c.eptp;
        vmcs.eptp_index = c.eptp_index;
    }
}

void begin_entry(Cpu& cpu, const state::Vmcs& vmcs) {
    cpu.attention |= Cpu::Attention::entry;
    cpu.s.pause_first = 0;
    cpu.s.pause_last = 0;
    if ((cpu.controls.pin & pin_control::activate_preemption_timer) != 0) {
        const u64 now = cpu.ticks_at(nullptr) >> timer_shift;
        cpu.preemption_deadline = (now + vmcs.vmx_preemption_timer_value) << timer_shift;
    }
    if ((vmcs.vm_entry_intr_info & valid) != 0) {
        inject_event(cpu, vmcs);
    } else if (cpu.s.activity == state::ActivityState::shutdown ||
               cpu.s.activity == state::ActivityState::wait_for_sipi) {
        cpu.s.pending_debug = 0; // SDM 3C 27.7.3
    }
}

u32 preemption_timer_value(const Cpu& cpu) {
    if (cpu.preemption_deadline == Cpu::no_deadline) {
        return 0;
    }
    const u64 now = cpu.ticks_at(nullptr) >> timer_shift;
    const u64 end = cpu.preemption_deadline >> timer_shift;
    return end > now ? static_cast<u32>(end - now) : 0;
}

} // namespace nestor::cpu
