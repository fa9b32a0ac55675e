// The current VMCS as the silicon sees it: controls (SDM 3C 25.6), and what they lead to.
//
// `Controls` is derived, by set_controls(), from a state::Vmcs: vmcs01, or the vmcs02 that L0 made
// out of vmcs01 and vmcs12. Structures that a VMCS names by address (bitmaps, EPT, virtual-APIC
// page) are read in L1's memory when an instruction needs them, as hardware does, so nothing of
// them is cached here and an absent page shows up as page_needed.
#pragma once

#include <array>

#include "src/base/types.hpp"

namespace nestor::state {
struct Vmcs;
} // namespace nestor::state

namespace nestor::cpu {

class Cpu;

/// Values are effective: a control whose activating bit is clear is zero here, an address whose
/// control is off is all ones, TSC parameters are neutral.
struct Controls {
    static constexpr u64 none = ~u64{0};
    static constexpr u64 tsc_unity = u64{1} << 48;

    u32 pin = 0;
    u32 proc = 0;
    u32 proc2 = 0; ///< zero where primary control 31 is clear
    u32 exception_bitmap = 0;
    u32 page_fault_mask = 0, page_fault_match = 0;
    u64 cr0_mask = 0, cr0_shadow = 0;
    u64 cr4_mask = 0, cr4_shadow = 0;
    std::array<u64, 4> cr3_targets{};
    u32 cr3_target_count = 0;
    u64 tsc_offset = 0;
    u64 tsc_multiplier = tsc_unity;

    // L1-physical addresses.
    u64 io_bitmap_a = none, io_bitmap_b = none;
    u64 msr_bitmap = none;
    u64 vmread_bitmap = none, vmwrite_bitmap = none;
    u64 apic_access_page = none;
    u64 virtual_apic_page = none;
    u64 posted_interrupt_descriptor = none;
    u64 eptp_list = none;
    u64 ve_information = none;
    u64 pml_address = none;

    u8 notification_vector = 0; ///< of posted interrupts
    u32 tpr_threshold = 0;
    std::array<u64, 4> eoi_exit_bitmap{};
    u64 xss_exit_bitmap = 0;
    u64 vm_functions = 0;
    u32 ple_gap = 0, ple_window = 0;
    u16 vpid = 0;

    // Fields of the VMCS that the silicon itself changes while it runs: store_controls().
    u64 eptp = none;          ///< VMFUNC
    u16 eptp_index = 0;       ///< VMFUNC
    u16 pml_index = 0;        ///< page-modification logging
    u16 interrupt_status = 0; ///< RVI in bits 7:0, SVI in 15:8

    // --- what no VMCS says ---

    /// L0's own guest runs, not one that an L1 made: what L0 would otherwise have to emulate after
    /// an exit the silicon does itself or has answered. Tasks are switched; accesses to the
    /// APIC-access page that are not virtualized are PendingAccess; CR0 and CR4 have no fixed bits.
    bool assisted = true;
    /// Where L1's own local APIC answers (PendingAccess::Kind::apic), whichever VMCS is current.
    u64 lapic_page = none;
    const u8* own_msr_bitmap = nullptr; ///< L0's, instead of msr_bitmap
    u8* own_virtual_apic = nullptr;     ///< L0's, instead of virtual_apic_page; 1 KiB
    u32* own_posted = nullptr;          ///< L0's, instead of posted_interrupt_descriptor
    u64* own_log = nullptr;             ///< L0's page-modification log; null while it is off
    u8 cr8 = 0;                         ///< TPR 7:4 without the TPR shadow, kept in step by L0
};

/// What L0 keeps in its own memory for vmcs01, and its other wishes for its own guest.
struct OwnPages {
    const u8* msr_bitmap = nullptr; ///< 4 KiB
    u8* virtual_apic = nullptr;     ///< 1 KiB, laid out as the xAPIC page
    u32* posted = nullptr;          ///< posted-interrupt descriptor, 64 bytes
    u64* log = nullptr;             ///< page-modification log, 512 entries
};

/// Entries of the page-modification log, and how many are still free in L0's own when it has to be
/// emptied: at a boundary, so that nothing is undone for it.
inline constexpr u16 log_entries = 512, own_log_reserve = 256;

/// Makes `vmcs` the current VMCS: fills cpu.controls from its control fields. `own` for vmcs01;
/// null for a vmcs02. `lapic_page` and `cr8` stay as they are. Nothing is read from guest memory.
/// Guest state is loaded before or after it (load_guest, load_host, or as it was saved).
void set_controls(Cpu& cpu, const state::Vmcs& vmcs, const OwnPages* own);

/// Writes the fields back that the silicon changes while it runs: guest interrupt status, PML
/// index, EPTP and EPTP index. Before a VMCS stops being the current one, and before a save.
void store_controls(const Cpu& cpu, state::Vmcs& vmcs);

/// What VM entry does once controls and guest state are loaded (SDM 3C 27.6 to 27.7): the event of
/// the entry interruption fields is injected, a monitor trap flag armed, the preemption timer
/// started from its field, virtual interrupts and TPR threshold are looked at. Not to be called
/// when a saved L2 is restored, unless its entry was still pending.
void begin_entry(Cpu& cpu, const state::Vmcs& vmcs);

/// The preemption timer's value now (SDM 3C 26.5.1), for the VMCS field at an exit that saves it.
u32 preemption_timer_value(const Cpu& cpu);

} // namespace nestor::cpu
