// A guest of a hypervisor's: the processor of system_fixture.hpp in 64-bit mode under a VMCS that
// the test fills, with an EPT that maps guest-physical memory to itself.
#pragma once

#include "engine/cpu/vmx_controls.hpp"
#include "engine/state/vmcs.hpp"
#include "tests/engine/cpu/system_fixture.hpp"

namespace nestor::cpu {

class VmxTest : public SystemTest {
protected:
    // L1's structures, out of the guest's way.
    static constexpr u64 msr_bitmap = 0x300000, io_bitmap_a = 0x301000, io_bitmap_b = 0x302000,
                         vmread_bitmap = 0x303000, vmwrite_bitmap = 0x304000, apic_page = 0x305000,
                         apic_access = 0x306000, pi_descriptor = 0x307000, pml = 0x308000,
                         eptp_list = 0x309000, ve_area = 0x30a000, ept = 0x310000,
                         ept_pdpt = 0x311000, ept_pd = 0x312000, ept_pt = 0x313000;
    static constexpr u64 ept_pointer = ept | 3 << 3 | 6;
    static constexpr u64 all_rights = 7, write_back = 6 << 3, large = 1 << 7;

    VmxTest() {
        long_mode();
        cpu.s.cr0 |= arch::cr0::ne;
        cpu.s.cr4 |= arch::cr4::vmxe;
        vmcs.pin_based_vm_exec_control = 0x16;
        vmcs.cpu_based_vm_exec_control = 0x0401e172 & ~(arch::proc_control::cr3_load_exiting |
                                                        arch::proc_control::cr3_store_exiting);
        vmcs.vm_exit_controls = 0x36dff;
        vmcs.vm_entry_controls = 0x11ff;
        vmcs.msr_bitmap = msr_bitmap;
        vmcs.io_bitmap_a = io_bitmap_a;
        vmcs.io_bitmap_b = io_bitmap_b;
        vmcs.vmread_bitmap = vmread_bitmap;
        vmcs.vmwrite_bitmap = vmwrite_bitmap;
        vmcs.virtual_apic_page_addr = apic_page;
        vmcs.apic_access_addr = apic_access;
        vmcs.posted_intr_desc_addr = pi_descriptor;
        vmcs.pml_address = pml;
        vmcs.pml_index = 511;
        vmcs.eptp_list_address = eptp_list;
        vmcs.ve_information_address = ve_area;
        vmcs.ept_pointer = ept_pointer;
        write(ept, ept_pdpt | all_rights);
        write(ept_pdpt, ept_pd | all_rights);
        write(ept_pd, ept_pt | all_rights);
        write(ept_pd + 8, u64{0x200000} | all_rights | write_back | large);
        for (u64 i = 0; i < 512; ++i) {
            write(ept_pt + i * 8, i << page_shift | all_rights | write_back);
        }
    }

    void pin(u32 bits) { vmcs.pin_based_vm_exec_control |= bits; }
    void proc(u32 bits) { vmcs.cpu_based_vm_exec_control |= bits; }
    void proc2(u32 bits) {
        proc(arch::proc_control::activate_secondary_controls);
        vmcs.secondary_vm_exec_control |= bits;
    }
    /// The EPT entry that maps a guest-physical page below 2 MiB.
    static constexpr u64 leaf_of(u64 address) { return ept_pt + (address >> page_shift) * 8; }
    void map(u64 address, u64 entry) { write(leaf_of(address), entry); }
    /// Makes the VMCS current, entry included.
    void enter() {
        set_controls(cpu, vmcs, nullptr);
        cpu.transition();
        begin_entry(cpu, vmcs);
    }
    /// Enters, and runs code at `code` until HLT, an exit or 100 counts.
    void run_guest(std::initializer_list<int> bytes, u64 count = 100) {
        enter();
        execute(bytes, count);
    }
    void inject(u32 info, u32 error = 0, u32 length = 0) {
        vmcs.vm_entry_intr_info = info | 1u << 31;
        vmcs.vm_entry_exception_error_code = error;
        vmcs.vm_entry_instruction_len = length;
    }
    [[nodiscard]] bool halted() const {
        return stop == Cpu::Stop::inactive && cpu.s.activity == state::ActivityState::hlt;
    }

    state::Vmcs vmcs;
};

} // namespace nestor::cpu
