// APIC virtualization: the virtual-APIC page and what the processor does with it (SDM 3C chapter
// 30).
//
// The page is L1's memory, or L0's own for vmcs01 (Controls::own_virtual_apic). Virtualizations
// that end in a VM exit do so behind the instruction: their functions are called once it is
// complete and set outcome and exit.
#pragma once

#include "engine/cpu/cpu.hpp"

namespace nestor::cpu {

/// Registers of the virtual-APIC page.
namespace vapic {
inline constexpr u16 id = 0x20, tpr = 0x80, ppr = 0xa0, eoi = 0xb0, isr = 0x100, tmr = 0x180,
                     irr = 0x200, icr = 0x300, icr_high = 0x310, self_ipi = 0x3f0;
} // namespace vapic

/// The page can be read and written now. False: outcome is page_needed or copy_needed.
bool virtual_apic_ready(Cpu& cpu);
// Of a page that is ready.
u32 read_virtual_apic(const Cpu& cpu, u16 offset);
void write_virtual_apic(Cpu& cpu, u16 offset, u32 value);

/// After VTPR changed (SDM 3C 30.1.2): the TPR-below-threshold exit, or a new PPR and whether an
/// interrupt is recognized.
void virtualize_tpr(Cpu& cpu);
/// SDM 3C 30.1.4, with the EOI-induced exit.
void virtualize_eoi(Cpu& cpu);
/// SDM 3C 30.1.5.
void virtualize_self_ipi(Cpu& cpu, u8 vector);
/// APIC-write emulation, behind an instruction whose write was virtualized (SDM 3C 30.4.3.2).
void emulate_apic_write(Cpu& cpu, u16 offset);

/// Whether an access to the APIC-access page is virtualized (SDM 3C 30.4.2, 30.4.3).
bool apic_access_virtualized(const Cpu& cpu, u16 offset, unsigned size, bool write);

/// An MSR of the x2APIC range under "virtualize x2APIC mode" (SDM 3C 30.5).
enum class ApicMsr : u8 {
    not_virtual, ///< goes to the APIC that there is
    done,
    gp,      ///< #GP(0)
    stopped, ///< outcome is page_needed or copy_needed
};
ApicMsr read_apic_msr(Cpu& cpu, u32 index, u64& value);
/// `done`: the value is stored; what follows from it, behind the instruction, is left to
/// finish_apic_msr().
ApicMsr write_apic_msr(Cpu& cpu, u32 index, u64 value);
void finish_apic_msr(Cpu& cpu, u32 index);

// --- virtual interrupts -------------------------------------------------------------------------

/// Contract. VM entry: a new PPR, then evaluation (SDM 3C 27.3.2.5). False: page_needed or
/// copy_needed.
bool begin_virtual_interrupts(Cpu& cpu);
/// Contract. A virtual interrupt is recognized: only RFLAGS.IF, blocking or activity may hold it
/// back. It is what ends HLT (SDM 3C 30.2.1). False too while the page is absent.
[[nodiscard]] bool virtual_interrupt_pending(const Cpu& cpu);
/// Takes the recognized interrupt: RVI, SVI, PPR, IRR and ISR change, and its vector is returned
/// for delivery (SDM 3C 30.2.2). The page is ready.
u8 take_virtual_interrupt(Cpu& cpu);
/// Contract. Moves what was posted to the descriptor into the virtual-APIC page (SDM 3C 30.6): when
/// the notification vector arrived while this VMCS was current. False: outcome is page_needed or
/// copy_needed, nothing changed.
bool process_posted_interrupts(Cpu& cpu);
/// Contract. An interrupt with this vector arrives at the processor: true when it is the
/// notification vector of the current VMCS, whose posted interrupts were moved (SDM 3C 30.6).
/// Only for L0's own descriptor, which is always there.
bool take_notification(Cpu& cpu, u8 vector);

} // namespace nestor::cpu
