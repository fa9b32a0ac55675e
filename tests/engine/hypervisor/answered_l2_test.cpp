// An instruction of L2 that a device has answered retires before anything else is taken.
//
// As answered_test.cpp has it for L1, under what L1 may ask of the silicon: exits on interrupts,
// virtual interrupts, monitor trap, windows, the preemption timer at every count, a log that is
// full (SDM 3C 26.2, 26.5, 29.3.6, 30.2).
#include "answered_kinds.hpp"

namespace nestor::hv {
namespace {

enum class Guest : u8 {
    passed_through, ///< L2 takes L1's interrupts itself
    exits,          ///< interrupts and NMIs exit
    own_apic,       ///< virtual-interrupt delivery, and interrupts are posted
    monitor_trap,
    window,   ///< interrupt-window exiting
    timer,    ///< the preemption timer, at every count
    log_full, ///< PML
};
constexpr std::pair<Guest, const char*> guests[] = {{Guest::passed_through, "passed through"},
                                                    {Guest::exits, "exits"},
                                                    {Guest::own_apic, "virtual interrupts"},
                                                    {Guest::monitor_trap, "monitor trap"},
                                                    {Guest::window, "interrupt window"},
                                                    {Guest::timer, "preemption timer"},
                                                    {Guest::log_full, "log full"}};

void set_guest(Host& host, state::Vmcs& v, Guest guest, unsigned variant) {
    using namespace arch;
    switch (guest) {
    case Guest::passed_through:
        return;
    case Guest::exits:
        v.pin_based_vm_exec_control |=
            pin_control::external_interrupt_exiting | pin_control::nmi_exiting;
        return;
    case Guest::own_apic:
        v.pin_based_vm_exec_control |=
            pin_control::external_interrupt_exiting | pin_control::process_posted_interrupts;
        v.cpu_based_vm_exec_control |= proc_control::use_tpr_shadow;
        cpu::activate(v, proc2_control::virtual_interrupt_delivery |
                             proc2_control::apic_register_virtualization |
                             proc2_control::virtualize_apic_accesses);
        v.vm_exit_controls |= exit_control::acknowledge_interrupt;
        v.virtual_apic_page_addr = 0x4000;
        v.apic_access_addr = 0x5000;
        v.posted_intr_desc_addr = Host::descriptor;
        v.posted_interrupt_notification_vector = answered_vector;
        // Where the device's notification comes, vector 0x61 is posted.
        host.put(Host::descriptor + 0x61 / 8, u8{1 << (0x61 % 8)});
        host.put(Host::descriptor + 32, u8{1});
        return;
    case Guest::monitor_trap:
        v.cpu_based_vm_exec_control |= proc_control::monitor_trap_flag;
        return;
    case Guest::window:
        v.cpu_based_vm_exec_control |= proc_control::interrupt_window_exiting;
        v.guest_rflags &= ~rflags::if_;
        return;
    case Guest::timer:
        v.pin_based_vm_exec_control |= pin_control::activate_preemption_timer;
        v.vmx_preemption_timer_value = variant;
        return;
    case Guest::log_full:
        cpu::activate(v, proc2_control::enable_pml);
        v.pml_address = 0xb000;
        v.pml_index = static_cast<u16>(variant - 1); // how many writes still fit
        return;
    }
}

void try_l2(const Kind& kind, Raised raised, Apicv apicv, Guest guest, unsigned variant) {
    Host host;
    host.fill(kind.code);
    state::Vcpu v = host.at_instruction();
    set_registers(v.cpu, kind);
    state::Vmcs v12 = Host::plain_vmcs(v);
    set_guest(host, v12, guest, variant);
    ASSERT_TRUE(host.vcpu.load(Host::before_launch(v, v12)));
    state::ApicvInhibits inhibits;
    inhibits.disabled = begins_without(apicv);
    host.vcpu.set_inhibits(inhibits);
    raise_at_first_access(host, raised, apicv, inhibits);
    static_cast<void>(host.run());
    const state::Vcpu after = host.vcpu.save();
    const bool in_l2 = after.cpu.in_smm ? after.nested.smm.guest_mode : after.nested.guest_mode;
    const u64 rcx = after.cpu.gpr[1];
    u64 rip = after.nested.vmcs12.guest_rip;
    if (in_l2) {
        rip = after.cpu.in_smm ? host.read(Host::smbase + 0x8000 + 0x7fd8) : after.cpu.rip;
    }
    if (rip - Host::handlers < 4096 && !after.cpu.in_smm) {
        rip = interrupted(host, in_l2 ? after.cpu.gpr[4] : after.nested.vmcs12.guest_rsp);
    }
    expect_asked(host, kind, retired(kind, rip, rcx));
}

TEST(Answered, L2RetiresWhatADeviceAnsweredBeforeAnythingElse) {
    for (const Kind& kind : kinds()) {
        for (const auto& [raised, what] : events) {
            if (raised == Raised::unblocked) {
                continue;
            }
            for (const auto& [apicv, who] : apicvs) {
                for (const auto& [guest, how] : guests) {
                    const bool varies = guest == Guest::timer || guest == Guest::log_full;
                    for (unsigned variant = 0; variant < (varies ? 6U : 1U); ++variant) {
                        SCOPED_TRACE(std::string(kind.name) + " raises " + what + ", " + who +
                                     ", " + how + " " + std::to_string(variant));
                        try_l2(kind, raised, apicv, guest, variant);
                    }
                }
            }
        }
        if (HasFailure()) {
            return;
        }
    }
}

TEST(Answered, APostedInterruptThatTheDeviceNotifiesComesBehindTheInstruction) {
    for (const Kind& kind : kinds()) {
        SCOPED_TRACE(kind.name);
        Host host;
        host.fill(kind.code);
        state::Vcpu v = host.at_instruction();
        set_registers(v.cpu, kind);
        state::Vmcs v12 = Host::plain_vmcs(v);
        set_guest(host, v12, Guest::own_apic, 0);
        ASSERT_TRUE(host.vcpu.load(Host::before_launch(v, v12)));
        host.at_access = [&](unsigned n) {
            if (n == 1) {
                raise(host, Raised::edge); // its vector is the notification vector
            }
        };
        static_cast<void>(host.run());
        const state::Vcpu after = host.vcpu.save();
        ASSERT_TRUE(after.nested.guest_mode);
        EXPECT_EQ(halted_in(after), 0x61);
        expect_asked(host, kind, kind.repeats ? 1 : kind.asks.size());
        EXPECT_EQ(interrupted(host, after.cpu.gpr[4]), kind.repeats ? Host::code : end_of(kind));
    }
}

} // namespace
} // namespace nestor::hv
