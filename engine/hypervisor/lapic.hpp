// The local APIC of an L1 vCPU (SDM 3A chapter 11), in xAPIC and x2APIC mode.
//
// Its registers are the words of state::Lapic::page, laid out as the xAPIC page is. They are
// vmcs01's virtual-APIC page as they stand: under vmcs01 the silicon reads and writes them too.
// Time comes in as ticks and TSC values; there is no clock.
#pragma once

#include <array>
#include <optional>
#include <span>

#include "engine/hypervisor/exit.hpp"
#include "engine/state/vcpu.hpp"
#include "src/base/result.hpp"

namespace nestor::hv {

/// Register offsets in the xAPIC page (SDM 3A table 11-1).
enum class ApicRegister : u16 {
    id = 0x20,
    version = 0x30,
    tpr = 0x80,
    apr = 0x90,
    ppr = 0xa0,
    eoi = 0xb0,
    ldr = 0xd0,
    dfr = 0xe0,
    svr = 0xf0,
    isr = 0x100,
    tmr = 0x180,
    irr = 0x200,
    esr = 0x280,
    lvt_cmci = 0x2f0,
    icr = 0x300,
    icr2 = 0x310,
    lvt_timer = 0x320,
    lvt_thermal = 0x330,
    lvt_pmi = 0x340,
    lvt_lint0 = 0x350,
    lvt_lint1 = 0x360,
    lvt_error = 0x370,
    timer_initial = 0x380,
    timer_current = 0x390,
    timer_divide = 0x3e0,
    self_ipi = 0x3f0,
};

class Lapic final {
public:
    explicit Lapic(u16 id) : id_(id) { reset(); }

    /// What a register write sets off, for the vCPU to carry out.
    struct Effects {
        std::optional<InterruptMessage> send; ///< an interrupt command
        std::optional<Vector> eoi_broadcast;  ///< a level-triggered interrupt ended
        bool interrupt_ended = false;         ///< the vector in service is another one
    };

    /// What L0's VMCS for L1 and its inhibits depend on.
    struct Setting {
        u64 base = 0;
        u32 id = 0; ///< of the current mode
        bool software_enabled = false;
        bool operator==(const Setting&) const = default;
    };

    void reset();
    /// INIT keeps the ID and IA32_APIC_BASE (SDM 3A 11.4.7.3).
    void init();

    [[nodiscard]] bool enabled() const { return (s_.base & apic_base_enable) != 0; }
    [[nodiscard]] bool x2apic() const { return (s_.base & apic_base_x2apic) != 0; }
    [[nodiscard]] bool software_enabled() const {
        return enabled() && (reg(ApicRegister::svr) & 0x100) != 0;
    }
    [[nodiscard]] u64 base() const { return s_.base; }
    [[nodiscard]] Setting setting() const {
        return {s_.base, x2apic() ? reg(ApicRegister::id) : reg(ApicRegister::id) >> 24,
                software_enabled()};
    }
    [[nodiscard]] bool id_modified() const { return setting().id != id_; }
    [[nodiscard]] bool moved() const { return enabled() && (s_.base & ~page_mask) != default_base; }
    /// Guest-physical page of the registers; all ones unless in xAPIC mode.
    [[nodiscard]] u64 mmio_page() const {
        return enabled() && !x2apic() ? s_.base & ~page_mask : ~u64{0};
    }
    /// WRMSR to IA32_APIC_BASE. False: #GP(0).
    [[nodiscard]] bool write_base(u64 value, u64 physical_bits);

    /// A 4-byte access to the xAPIC page. Holes read as zero, ignore writes and are noted in ESR.
    [[nodiscard]] u32 mmio_read(u16 offset, u64 ticks);
    Effects mmio_write(u16 offset, u32 value, u64 ticks);
    /// A write of `size` bytes within one register, which keeps its other bytes.
    Effects mmio_write_part(u16 offset, u32 value, unsigned size, u64 ticks);
    /// The silicon wrote the register's word for the guest: does what the write means, as of
    /// `ticks`.
    Effects written(u16 offset, u64 ticks);
    /// RDMSR and WRMSR of 0x800..0x8ff. False: #GP(0).
    [[nodiscard]] bool msr_read(u32 index, u64 ticks, u64& value) const;
    [[nodiscard]] bool msr_write(u32 index, u64 value, u64 ticks, Effects& effects);

    [[nodiscard]] u64 tsc_deadline() const;
    void write_tsc_deadline(u64 value);

    /// CR8 is TPR 7:4.
    [[nodiscard]] u8 cr8() const { return static_cast<u8>(reg(ApicRegister::tpr) >> 4 & 15); }
    void write_cr8(u8 value) { reg(ApicRegister::tpr) = u32{value} << 4; }

    /// Whether a message is addressed here (SDM 3A 11.6.2). Shorthands are the sender's business.
    [[nodiscard]] bool matches(const InterruptMessage& message) const;
    /// Fixed and lowest-priority delivery, up to IRR. False: the message is not accepted.
    [[nodiscard]] bool admit(Vector vector, bool level_triggered);
    void request(Vector vector) { set_bit(ApicRegister::irr, vector.value(), true); }
    /// The whole of it: sets IRR (and TMR).
    void accept(Vector vector, bool level_triggered);
    /// Sets IRR to what was posted, and empties the descriptor (SDM 3C table 30-1).
    void take_posted(std::span<u32> descriptor);
    /// A local interrupt source raises its LVT entry. NMI, SMI and the like come back as a message.
    std::optional<InterruptMessage> raise_local(ApicRegister lvt);

    /// Highest pending vector above PPR, or none.
    [[nodiscard]] std::optional<Vector> deliverable() const;
    /// Moves a deliverable vector from IRR to ISR.
    void acknowledge(Vector vector);
    /// Acknowledges a vector and ends it at once.
    void dismiss(Vector vector) { set_bit(ApicRegister::irr, vector.value(), false); }
    /// LINT0 lets the PIC's interrupts in: ExtINT unmasked, or no APIC in the way.
    [[nodiscard]] bool accepts_pic() const;
    [[nodiscard]] u8 processor_priority() const;

    // What VMCS fields are made from. Vectors are 0 where there is none.
    [[nodiscard]] u8 highest_requested() const;
    [[nodiscard]] u8 highest_in_service() const;
    /// Vectors whose end has to be seen, because they are level triggered.
    [[nodiscard]] std::array<u64, 4> level_triggered() const;
    /// The silicon ended a vector's service.
    [[nodiscard]] Effects ended(Vector vector) const;
    /// The priority class that TPR has to fall below for something to happen; 0 when it does not
    /// matter (SDM 3C 30.1.2).
    [[nodiscard]] u8 tpr_threshold() const;
    [[nodiscard]] u8* page() { return reinterpret_cast<u8*>(s_.page.data()); }

    /// Raises the timer's interrupt if its time has come. `tsc` is the TSC at `ticks`.
    void run_timer(u64 ticks, u64 tsc);
    /// Tick of the timer's next expiry, which may have passed; all ones when there is none. `tsc`
    /// is the TSC at `ticks`.
    [[nodiscard]] u64 next_deadline(u64 ticks, u64 tsc) const;

    [[nodiscard]] state::Lapic state() const;
    [[nodiscard]] Result<> load(const state::Lapic& from);

private:
    static constexpr u32 lvt_masked = 1u << 16;
    /// Error status bits (SDM 3A figure 11-9).
    static constexpr u32 esr_send_illegal = 1u << 5, esr_receive_illegal = 1u << 6,
                         esr_illegal_register = 1u << 7;
    static constexpr u64 apic_base_bsp = 1u << 8;
    static constexpr u64 apic_base_x2apic = 1u << 10;
    static constexpr u64 apic_base_enable = 1u << 11;
    static constexpr u64 default_base = 0xfee00000;

    [[nodiscard]] u32 reg(ApicRegister r) const { return s_.page[static_cast<u16>(r) / 4]; }
    u32& reg(ApicRegister r) { return s_.page[static_cast<u16>(r) / 4]; }
    [[nodiscard]] bool bit_set(ApicRegister bank, u8 vector) const;
    void set_bit(ApicRegister bank, u8 vector, bool on);
    [[nodiscard]] int highest(ApicRegister bank) const;

    [[nodiscard]] u32 read(u16 offset, u64 ticks) const;
    void write(u16 offset, u32 value, u64 ticks, Effects& effects);
    void write_lvt(u16 offset, u32 value, u64 ticks);
    void end_of_interrupt(Effects& effects);
    void send_command(u64 icr, Effects& effects);
    void error(u32 bit);
    void set_x2apic_ids();

    // The timer's registers, read and written as of `ticks` (lapic_timer.cpp).
    [[nodiscard]] unsigned timer_mode() const { return reg(ApicRegister::lvt_timer) >> 17 & 3; }
    [[nodiscard]] u64 timer_period() const;
    [[nodiscard]] u32 timer_count(u64 ticks) const;
    void start_timer(u64 ticks);
    void write_timer_initial(u32 value, u64 ticks);
    void write_timer_divide(u32 value, u64 ticks);
    void write_lvt_timer(u32 value, u64 ticks);

    /// The timer's registers as they took effect. With APIC-register virtualization the page has
    /// what the guest wrote before anybody else sees it.
    struct TimerRegisters {
        u32 lvt = 0, initial = 0, divide = 0;
    };
    void note_timer();
    void restore_timer();

    u16 id_;
    state::Lapic s_;
    TimerRegisters timer_;
};

} // namespace nestor::hv
