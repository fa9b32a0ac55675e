// The virtual APIC (SDM 3C chapter 30): TPR, PPR, EOI and self-IPI virtualization, accesses to the
// APIC-access page, x2APIC MSRs, virtual-interrupt delivery, posted interrupts.
//
// Owns nothing. RVI and SVI are Controls::interrupt_status. That an interrupt is recognized is not
// kept: it follows from RVI and VPPR, which only the virtualizations here change.
#include "engine/cpu/virtual_apic.hpp"

#include <algorithm>
#include <array>
#include <bit>

#include "engine/cpu/package.hpp"
#include "engine/cpu/system.hpp"
#include "engine/cpu/vmx_memory.hpp"

namespace nestor::cpu {

using namespace arch;

namespace {

constexpr unsigned own_page_size = 1024;

u8 rvi(const Cpu& cpu) { return static_cast<u8>(cpu.controls.interrupt_status); }
u8 svi(const Cpu& cpu) { return static_cast<u8>(cpu.controls.interrupt_status >> 8); }
void set_status(Cpu& cpu, u8 new_rvi, u8 new_svi) {
    cpu.controls.interrupt_status = static_cast<u16>(new_rvi | u16{new_svi} << 8);
}

bool has2(const Cpu& cpu, u32 control) { return (cpu.controls.proc2 & control) != 0; }

u16 bank_word(u16 bank, u8 vector) { return static_cast<u16>(bank + (vector >> 5) * 16); }

void set_vector(Cpu& cpu, u16 bank, u8 vector, bool on) {
    const u16 at = bank_word(bank, vector);
    const u32 bit_ = u32{1} << (vector & 31);
    const u32 old = read_virtual_apic(cpu, at);
    write_virtual_apic(cpu, at, on ? old | bit_ : old & ~bit_);
}

/// Highest vector of a bank; 0 when it is empty.
u8 highest(const Cpu& cpu, u16 bank) {
    for (int word = 7; word >= 0; --word) {
        const u32 bits = read_virtual_apic(cpu, static_cast<u16>(bank + word * 16));
        if (bits != 0) {
            return static_cast<u8>(word * 32 + 31 - std::countl_zero(bits));
        }
    }
    return 0;
}

/// An exit behind an instruction that is complete.
void trap_exit(Cpu& cpu, ExitReason reason, u64 qualification) {
    cpu.set_exit(reason, qualification);
}

/// SDM 3C 30.1.3.
void virtualize_ppr(Cpu& cpu) {
    const u8 tpr = static_cast<u8>(read_virtual_apic(cpu, vapic::tpr));
    const u8 in_service = svi(cpu);
    const u8 ppr = (tpr >> 4) >= (in_service >> 4) ? tpr : static_cast<u8>(in_service & 0xf0);
    write_virtual_apic(cpu, vapic::ppr, ppr);
}

/// SDM 3C 30.2.1: the boundary looks whether something is to be delivered.
void evaluate(Cpu& cpu) {
    if (virtual_interrupt_pending(cpu)) {
        cpu.attention |= Cpu::Attention::event;
    }
}

/// Registers whose reads, or writes, the page answers with APIC-register virtualization
/// (SDM 3C 30.4.2, 30.4.3), by offset / 16.
constexpr bool register_virtualized(u16 offset, bool write) {
    const unsigned n = offset >> 4;
    if (n >= 0x10 && n < 0x28) {
        return !write; // ISR, TMR, IRR
    }
    return n == 0x02 || (n == 0x03 && !write) || n == 0x08 || n == 0x0b || n == 0x0d || n == 0x0e ||
           n == 0x0f || n == 0x28 || n == 0x30 || n == 0x31 || (n >= 0x32 && n <= 0x38) ||
           n == 0x3e;
}

/// SDM 3C 30.4.3.2: an ICR value that is a self-IPI without anything special.
bool plain_self_ipi(u32 icr) {
    constexpr u32 zero = mask(31, 20) | mask(17, 16) | bit(15) | bit(13) | bit(12) | mask(10, 8);
    return (icr & zero) == 0 && (icr >> 18 & 3) == 1 && (icr & 0xf0) != 0;
}

} // namespace

bool virtual_apic_ready(Cpu& cpu) {
    return cpu.controls.own_virtual_apic != nullptr ||
           structure_writable(cpu, cpu.controls.virtual_apic_page);
}

u32 read_virtual_apic(const Cpu& cpu, u16 offset) {
    const Controls& c = cpu.controls;
    u32 value = 0;
    if (c.own_virtual_apic != nullptr) {
        if (offset < own_page_size) {
            std::memcpy(&value, c.own_virtual_apic + offset, sizeof value);
        }
        return value;
    }
    const auto page = cpu.package.memory().page(gfn_of(Gpa(c.virtual_apic_page)));
    if (page.host == nullptr || (*page.state & page_state::absent) != 0) {
        return 0;
    }
    std::memcpy(&value, page.host + offset, sizeof value);
    return value;
}

void write_virtual_apic(Cpu& cpu, u16 offset, u32 value) {
    const Controls& c = cpu.controls;
    if (c.own_virtual_apic != nullptr) {
        if (offset < own_page_size) {
            std::memcpy(c.own_virtual_apic + offset, &value, sizeof value);
        }
        return;
    }
    write_structure(cpu, c.virtual_apic_page + offset, &value, sizeof value);
}

// --- virtualizations ----------------------------------------------------------------------------

void virtualize_tpr(Cpu& cpu) {
    if (!has2(cpu, proc2_control::virtual_interrupt_delivery)) {
        if ((read_virtual_apic(cpu, vapic::tpr) >> 4 & 15) < cpu.controls.tpr_threshold) {
            trap_exit(cpu, ExitReason::tpr_below_threshold, 0);
        }
        return;
    }
    virtualize_ppr(cpu);
    evaluate(cpu);
}

void virtualize_eoi(Cpu& cpu) {
    const u8 vector = svi(cpu);
    set_vector(cpu, vapic::isr, vector, false);
    set_status(cpu, rvi(cpu), highest(cpu, vapic::isr));
    virtualize_ppr(cpu);
    if ((cpu.controls.eoi_exit_bitmap[vector >> 6] >> (vector & 63) & 1) != 0) {
        trap_exit(cpu, ExitReason::virtualized_eoi, vector);
        return;
    }
    evaluate(cpu);
}

void virtualize_self_ipi(Cpu& cpu, u8 vector) {
    set_vector(cpu, vapic::irr, vector, true);
    if (cpu.controls.assisted) {
        // SDM 3A 11.8.4: an edge clears TMR. A processor leaves that to who does not see the IPI.
        set_vector(cpu, vapic::tmr, vector, false);
        cpu.controls.eoi_exit_bitmap[vector >> 6] &= ~(u64{1} << (vector & 63));
    }
    set_status(cpu, std::max(rvi(cpu), vector), svi(cpu));
    evaluate(cpu);
}

void emulate_apic_write(Cpu& cpu, u16 offset) {
    const bool delivery = has2(cpu, proc2_control::virtual_interrupt_delivery);
    const u16 reg = offset & 0xff0;
    switch (reg) {
    case vapic::tpr:
        write_virtual_apic(cpu, reg, read_virtual_apic(cpu, reg) & 0xff);
        virtualize_tpr(cpu);
        return;
    case vapic::eoi:
        if (delivery) {
            write_virtual_apic(cpu, reg, 0);
            virtualize_eoi(cpu);
            return;
        }
        break;
    case vapic::icr:
        if (const u32 icr = read_virtual_apic(cpu, reg); delivery && plain_self_ipi(icr)) {
            virtualize_self_ipi(cpu, static_cast<u8>(icr));
            return;
        }
        break;
    case vapic::icr_high:
        write_virtual_apic(cpu, reg, read_virtual_apic(cpu, reg) & 0xff000000);
        return;
    default:
        break;
    }
    trap_exit(cpu, ExitReason::apic_write, offset);
}

bool apic_access_virtualized(const Cpu& cpu, u16 offset, unsigned size, bool write) {
    if ((cpu.controls.proc & proc_control::use_tpr_shadow) == 0 || size > 4 ||
        (offset & 15) + size > 4) {
        return false;
    }
    const u16 reg = offset & 0xff0;
    if (has2(cpu, proc2_control::apic_register_virtualization)) {
        return register_virtualized(reg, write);
    }
    return reg == vapic::tpr || (has2(cpu, proc2_control::virtual_interrupt_delivery) &&
                                 (reg == vapic::eoi || reg == vapic::icr));
}

// --- x2APIC MSRs --------------------------------------------------------------------------------

namespace {

constexpr u32 first_msr = 0x800, last_msr = 0x8ff;
constexpr u32 tpr_msr = 0x808, eoi_msr = 0x80b, self_ipi_msr = 0x83f;

bool virtual_msr(const Cpu& cpu, u32 index) {
    return has2(cpu, proc2_control::virtualize_x2apic_mode) && index >= first_msr &&
           index <= last_msr;
}

} // namespace

ApicMsr read_apic_msr(Cpu& cpu, u32 index, u64& value) {
    if (!virtual_msr(cpu, index) ||
        (!has2(cpu, proc2_control::apic_register_virtualization) && index != tpr_msr)) {
        return ApicMsr::not_virtual;
    }
    if (!virtual_apic_ready(cpu)) {
        return ApicMsr::stopped;
    }
    const u16 offset = static_cast<u16>((index & 0xff) << 4);
    value = read_virtual_apic(cpu, offset) |
            u64{read_virtual_apic(cpu, static_cast<u16>(offset + 4))} << 32;
    return ApicMsr::done;
}

ApicMsr write_apic_msr(Cpu& cpu, u32 index, u64 value) {
    const bool delivery = has2(cpu, proc2_control::virtual_interrupt_delivery);
    const bool known =
        index == tpr_msr || (delivery && (index == eoi_msr || index == self_ipi_msr));
    if (!virtual_msr(cpu, index) || !known) {
        return ApicMsr::not_virtual;
    }
    if (value >> 8 != 0 || (index == eoi_msr && value != 0)) {
        return ApicMsr::gp;
    }
    if (!virtual_apic_ready(cpu)) {
        return ApicMsr::stopped;
    }
    const u16 offset = static_cast<u16>((index & 0xff) << 4);
    write_virtual_apic(cpu, offset, static_cast<u32>(value));
    write_virtual_apic(cpu, static_cast<u16>(offset + 4), 0);
    return ApicMsr::done;
}

void finish_apic_msr(Cpu& cpu, u32 index) {
    if (index == tpr_msr) {
        virtualize_tpr(cpu);
    } else if (index == eoi_msr) {
        virtualize_eoi(cpu);
    } else if (const u8 vector = static_cast<u8>(read_virtual_apic(cpu, vapic::self_ipi));
               vector >= 16) {
        virtualize_self_ipi(cpu, vector);
    } else {
        trap_exit(cpu, ExitReason::apic_write, vapic::self_ipi);
    }
}

// --- virtual interrupts -------------------------------------------------------------------------

bool begin_virtual_interrupts(Cpu& cpu) {
    if (!virtual_apic_ready(cpu)) {
        return false;
    }
    virtualize_ppr(cpu);
    evaluate(cpu);
    return true;
}

bool virtual_interrupt_pending(const Cpu& cpu) {
    const Controls& c = cpu.controls;
    return has2(cpu, proc2_control::virtual_interrupt_delivery) &&
           (c.proc & proc_control::interrupt_window_exiting) == 0 &&
           (rvi(cpu) >> 4) > (read_virtual_apic(cpu, vapic::ppr) >> 4 & 15);
}

u8 take_virtual_interrupt(Cpu& cpu) {
    const u8 vector = rvi(cpu);
    set_vector(cpu, vapic::isr, vector, true);
    write_virtual_apic(cpu, vapic::ppr, vector & 0xf0u);
    set_vector(cpu, vapic::irr, vector, false);
    set_status(cpu, highest(cpu, vapic::irr), vector);
    return vector;
}

bool process_posted_interrupts(Cpu& cpu) {
    const u64 descriptor = cpu.controls.posted_interrupt_descriptor;
    u32* const own = cpu.controls.own_posted;
    std::array<u32, 9> words{}; // PIR, then the word with ON (SDM 3C table 30-1)
    if (own != nullptr) {
        std::copy_n(own, words.size(), words.begin());
    } else if (!virtual_apic_ready(cpu) || !structure_writable(cpu, descriptor) ||
               !read_structure(cpu, descriptor, words.data(), sizeof words)) {
        return false;
    }
    u8 top = 0;
    for (unsigned i = 0; i < 8; ++i) {
        if (words[i] == 0) {
            continue;
        }
        top = static_cast<u8>(i * 32 + 31 - static_cast<unsigned>(std::countl_zero(words[i])));
        const u16 at = static_cast<u16>(vapic::irr + i * 16);
        write_virtual_apic(cpu, at, read_virtual_apic(cpu, at) | words[i]);
        words[i] = 0;
    }
    words[8] &= ~u32{1};
    if (own != nullptr) {
        std::copy(words.begin(), words.end(), own);
    } else {
        write_structure(cpu, descriptor, words.data(), sizeof words);
    }
    set_status(cpu, std::max(rvi(cpu), top), svi(cpu));
    evaluate(cpu);
    return true;
}

bool take_notification(Cpu& cpu, u8 vector) {
    const Controls& c = cpu.controls;
    return c.own_posted != nullptr && (c.pin & pin_control::process_posted_interrupts) != 0 &&
           c.notification_vector == vector && process_posted_interrupts(cpu);
}

} // namespace nestor::cpu
