// APIC virtualization: TPR shadow, the APIC-access page, x2APIC mode, virtual-interrupt delivery,
// posted interrupts (SDM 3C chapter 30).
#include "engine/cpu/virtual_apic.hpp"
#include "tests/engine/cpu/vmx_fixture.hpp"

namespace nestor::cpu {

using namespace arch;

namespace {

class VirtualApicTest : public VmxTest {
protected:
    VirtualApicTest() {
        proc(proc_control::use_tpr_shadow);
        cpu.s.gpr[0] = apic_access;
    }
    void delivery() {
        proc2(proc2_control::virtual_interrupt_delivery |
              proc2_control::apic_register_virtualization);
    }
    void x2apic() {
        proc(proc_control::use_msr_bitmaps);
        proc2(proc2_control::virtualize_x2apic_mode);
    }
    [[nodiscard]] u32 reg(u16 offset) const { return read<u32>(apic_page + offset); }
    void set_vector(u16 bank, u8 vector) {
        const u64 at = apic_page + bank + (vector >> 5) * 16u;
        write(at, read<u32>(at) | u32{1} << (vector & 31));
    }
    [[nodiscard]] bool has_vector(u16 bank, u8 vector) const {
        return (reg(static_cast<u16>(bank + (vector >> 5) * 16)) >> (vector & 31) & 1) != 0;
    }
};

} // namespace

// --- TPR shadow ---------------------------------------------------------------------------------

TEST_F(VirtualApicTest, MovFromCr8ReadsTheVirtualTpr) {
    write(apic_page + 0x80, u32{0x95});
    run_guest({0x44, 0x0f, 0x20, 0xc0, 0xf4});
    EXPECT_EQ(rax(), 9u);
}

TEST_F(VirtualApicTest, MovToCr8WritesTheVirtualTpr) {
    cpu.s.gpr[0] = 7;
    run_guest({0x44, 0x0f, 0x22, 0xc0, 0xf4});
    EXPECT_TRUE(halted());
    EXPECT_EQ(reg(0x80), 0x70u);
}

TEST_F(VirtualApicTest, MovToCr8BelowTheThresholdExitsBehindIt) {
    vmcs.tpr_threshold = 5;
    write(apic_page + 0x80, u32{0x70});
    cpu.s.gpr[0] = 4;
    run_guest({0x44, 0x0f, 0x22, 0xc0, 0xf4});
    expect_exit(ExitReason::tpr_below_threshold);
    EXPECT_EQ(cpu.s.rip, code + 4);
    EXPECT_EQ(cpu.retired_in_run(), 1u);
    EXPECT_EQ(reg(0x80), 0x40u);
}

TEST_F(VirtualApicTest, EntryBelowTheThresholdExits) {
    vmcs.tpr_threshold = 5;
    run_guest({0x90});
    expect_exit(ExitReason::tpr_below_threshold);
    EXPECT_EQ(cpu.s.rip, code);
}

TEST_F(VirtualApicTest, AbsentPageIsPageNeeded) {
    memory_.set_state(gfn_of(Gpa(apic_page)), page_state::absent);
    run_guest({0x44, 0x0f, 0x20, 0xc0, 0xf4});
    EXPECT_EQ(stop, Cpu::Stop::page_needed);
    EXPECT_EQ(cpu.wanted_page, apic_page >> page_shift);
}

// --- the APIC-access page -----------------------------------------------------------------------

TEST_F(VirtualApicTest, ReadOfTheAccessPageExits) {
    proc2(proc2_control::virtualize_apic_accesses);
    run_guest({0x8b, 0x58, 0x20}); // mov ebx, [rax+0x20]
    expect_exit(ExitReason::apic_access, 0x20);
    EXPECT_EQ(cpu.exit.instruction_length, 3u);
}

TEST_F(VirtualApicTest, WriteOfTheAccessPageExits) {
    proc2(proc2_control::virtualize_apic_accesses);
    run_guest({0x89, 0x98, 0x00, 0x03, 0x00, 0x00}); // mov [rax+0x300], ebx
    expect_exit(ExitReason::apic_access, 0x300 | 1 << 12);
}

TEST_F(VirtualApicTest, FetchFromTheAccessPageExits) {
    proc2(proc2_control::virtualize_apic_accesses);
    run_guest({0xff, 0xe0});
    expect_exit(ExitReason::apic_access, 2 << 12);
}

TEST_F(VirtualApicTest, DeliveryThroughTheAccessPageExits) {
    proc2(proc2_control::virtualize_apic_accesses);
    cpu.s.gpr[4] = apic_access + 0x800;
    inject(0x41);
    run_guest({0x90});
    EXPECT_EQ(cpu.exit.reason, ExitReason::apic_access);
    EXPECT_EQ(cpu.exit.qualification >> 12, 3u);
    EXPECT_EQ(cpu.exit.idt_vectoring_info, 1u << 31 | 0x41);
}

TEST_F(VirtualApicTest, TprOfTheAccessPageIsVirtualized) {
    proc2(proc2_control::virtualize_apic_accesses);
    cpu.s.gpr[3] = 0x12345660;
    run_guest({0x89, 0x98, 0x80, 0x00, 0x00, 0x00, 0x8b, 0x88, 0x80, 0x00, 0x00, 0x00, 0xf4});
    EXPECT_TRUE(halted());
    EXPECT_EQ(cpu.s.gpr[1], 0x60u);
    EXPECT_EQ(reg(0x80), 0x60u);
}

TEST_F(VirtualApicTest, TprWriteBelowTheThresholdExitsBehindIt) {
    proc2(proc2_control::virtualize_apic_accesses);
    vmcs.tpr_threshold = 5;
    write(apic_page + 0x80, u32{0x70});
    cpu.s.gpr[3] = 0x40;
    run_guest({0x90, 0x89, 0x98, 0x80, 0x00, 0x00, 0x00, 0xf4});
    expect_exit(ExitReason::tpr_below_threshold);
    EXPECT_EQ(cpu.s.rip, code + 7);
}

TEST_F(VirtualApicTest, WideAccessIsNotVirtualized) {
    proc2(proc2_control::virtualize_apic_accesses);
    run_guest({0x48, 0x8b, 0x98, 0x80, 0x00, 0x00, 0x00});
    expect_exit(ExitReason::apic_access, 0x80);
}

TEST_F(VirtualApicTest, RegisterVirtualizationReadsThePage) {
    proc2(proc2_control::virtualize_apic_accesses | proc2_control::apic_register_virtualization);
    write(apic_page + 0x30, u32{0x50014});
    run_guest({0x8b, 0x58, 0x30, 0xf4});
    EXPECT_EQ(cpu.s.gpr[3], 0x50014u);
}

TEST_F(VirtualApicTest, RegisterVirtualizationOfAWriteExitsBehindIt) {
    proc2(proc2_control::virtualize_apic_accesses | proc2_control::apic_register_virtualization);
    cpu.s.gpr[3] = 0x1ff;
    run_guest({0x89, 0x98, 0xf0, 0x00, 0x00, 0x00, 0xf4});
    expect_exit(ExitReason::apic_write, 0xf0);
    EXPECT_EQ(cpu.s.rip, code + 6);
    EXPECT_EQ(reg(0xf0), 0x1ffu);
}

TEST_F(VirtualApicTest, TheTimersCountIsNotVirtualized) {
    proc2(proc2_control::virtualize_apic_accesses | proc2_control::apic_register_virtualization);
    run_guest({0x8b, 0x98, 0x90, 0x03, 0x00, 0x00});
    expect_exit(ExitReason::apic_access, 0x390);
}

// --- x2APIC mode --------------------------------------------------------------------------------

TEST_F(VirtualApicTest, X2ApicTprIsVirtualized) {
    x2apic();
    cpu.s.gpr[0] = 0x50;
    cpu.s.gpr[1] = 0x808;
    run_guest({0x0f, 0x30, 0x31, 0xc0, 0x0f, 0x32, 0xf4});
    EXPECT_TRUE(halted());
    EXPECT_EQ(rax(), 0x50u);
    EXPECT_EQ(reg(0x80), 0x50u);
}

TEST_F(VirtualApicTest, X2ApicTprHasReservedBits) {
    x2apic();
    cpu.s.gpr[0] = 0x150;
    cpu.s.gpr[1] = 0x808;
    run_guest({0x0f, 0x30});
    EXPECT_EQ(reached(), 13);
}

TEST_F(VirtualApicTest, OtherX2ApicMsrsGoToTheApicThatThereIs) {
    x2apic();
    cpu.s.gpr[1] = 0x802;
    run_guest({0x0f, 0x32});
    expect_exit(ExitReason::rdmsr);
    EXPECT_TRUE(cpu.exit.assist);
}

TEST_F(VirtualApicTest, X2ApicReadsThePageWithRegisterVirtualization) {
    x2apic();
    proc2(proc2_control::apic_register_virtualization);
    write(apic_page + 0x20, u32{5});
    cpu.s.gpr[1] = 0x802;
    run_guest({0x0f, 0x32, 0xf4});
    EXPECT_EQ(rax(), 5u);
}

// --- virtual interrupts -------------------------------------------------------------------------

TEST_F(VirtualApicTest, VirtualInterruptIsDeliveredAtEntry) {
    delivery();
    set_vector(vapic::irr, 0x41);
    vmcs.guest_interrupt_status = 0x41;
    cpu.s.rflags |= rflags::if_;
    run_guest({0x90});
    EXPECT_EQ(reached(), 0x41);
    EXPECT_EQ(read<u64>(rsp()), code);
    EXPECT_FALSE(has_vector(vapic::irr, 0x41));
    EXPECT_TRUE(has_vector(vapic::isr, 0x41));
    EXPECT_EQ(reg(vapic::ppr), 0x40u);
    store_controls(cpu, vmcs);
    EXPECT_EQ(vmcs.guest_interrupt_status, 0x4100);
}

TEST_F(VirtualApicTest, VirtualInterruptWaitsForTheFlag) {
    delivery();
    set_vector(vapic::irr, 0x41);
    vmcs.guest_interrupt_status = 0x41;
    run_guest({0x90, 0xfb, 0x90, 0x90});
    EXPECT_EQ(reached(), 0x41);
    EXPECT_EQ(read<u64>(rsp()), code + 3);
}

TEST_F(VirtualApicTest, VirtualInterruptOfTheTasksPriorityWaits) {
    delivery();
    set_vector(vapic::irr, 0x41);
    vmcs.guest_interrupt_status = 0x41;
    write(apic_page + 0x80, u32{0x40});
    cpu.s.rflags |= rflags::if_;
    run_guest({0xf4});
    EXPECT_TRUE(halted());
    EXPECT_FALSE(virtual_interrupt_pending(cpu));
}

TEST_F(VirtualApicTest, LoweringTheTprLetsItIn) {
    delivery();
    set_vector(vapic::irr, 0x41);
    vmcs.guest_interrupt_status = 0x41;
    write(apic_page + 0x80, u32{0x40});
    cpu.s.rflags |= rflags::if_;
    cpu.s.gpr[0] = 0;
    run_guest({0x44, 0x0f, 0x22, 0xc0, 0x90});
    EXPECT_EQ(reached(), 0x41);
    EXPECT_EQ(read<u64>(rsp()), code + 4);
}

TEST_F(VirtualApicTest, VirtualInterruptEndsHlt) {
    delivery();
    set_vector(vapic::irr, 0x41);
    vmcs.guest_interrupt_status = 0x41;
    cpu.s.rflags |= rflags::if_;
    cpu.s.activity = state::ActivityState::hlt;
    run_guest({0x90});
    EXPECT_EQ(reached(), 0x41);
}

TEST_F(VirtualApicTest, EoiLetsTheNextOneIn) {
    delivery();
    x2apic();
    set_vector(vapic::isr, 0x51);
    set_vector(vapic::isr, 0x31);
    set_vector(vapic::irr, 0x41);
    vmcs.guest_interrupt_status = 0x5141;
    cpu.s.rflags |= rflags::if_;
    cpu.s.gpr[0] = 0;
    cpu.s.gpr[1] = 0x80b;
    run_guest({0x0f, 0x30, 0x90});
    EXPECT_EQ(reached(), 0x41);
    EXPECT_FALSE(has_vector(vapic::isr, 0x51));
    store_controls(cpu, vmcs);
    EXPECT_EQ(vmcs.guest_interrupt_status, 0x4100);
}

TEST_F(VirtualApicTest, EoiExitsByItsBitmap) {
    delivery();
    x2apic();
    set_vector(vapic::isr, 0x51);
    vmcs.guest_interrupt_status = 0x5100;
    vmcs.eoi_exit_bitmap1 = u64{1} << 0x11;
    cpu.s.gpr[0] = 0;
    cpu.s.gpr[1] = 0x80b;
    run_guest({0x0f, 0x30, 0x90});
    expect_exit(ExitReason::virtualized_eoi, 0x51);
    EXPECT_EQ(cpu.s.rip, code + 2);
}

TEST_F(VirtualApicTest, SelfIpiIsDelivered) {
    delivery();
    proc2(proc2_control::virtualize_apic_accesses);
    cpu.s.rflags |= rflags::if_;
    cpu.s.gpr[3] = 1u << 18 | 0x61;
    run_guest({0x89, 0x98, 0x00, 0x03, 0x00, 0x00, 0x90});
    EXPECT_EQ(reached(), 0x61);
    EXPECT_EQ(read<u64>(rsp()), code + 6);
}

TEST_F(VirtualApicTest, OtherInterruptCommandsExit) {
    delivery();
    proc2(proc2_control::virtualize_apic_accesses);
    cpu.s.gpr[3] = 0x61;
    run_guest({0x89, 0x98, 0x00, 0x03, 0x00, 0x00, 0x90});
    expect_exit(ExitReason::apic_write, 0x300);
}

TEST_F(VirtualApicTest, VirtualInterruptWaitsForTheInterruptWindow) {
    delivery();
    proc(proc_control::interrupt_window_exiting);
    set_vector(vapic::irr, 0x41);
    vmcs.guest_interrupt_status = 0x41;
    cpu.s.rflags |= rflags::if_;
    run_guest({0x90});
    expect_exit(ExitReason::interrupt_window);
}

TEST_F(VirtualApicTest, PostedInterruptsAreTakenIn) {
    delivery();
    pin(pin_control::process_posted_interrupts);
    write(pi_descriptor + 4, u32{1u << 5});  // vector 0x25
    write(pi_descriptor + 12, u32{1u << 1}); // vector 0x61
    write(pi_descriptor + 32, u32{1});       // ON
    cpu.s.rflags |= rflags::if_;
    enter();
    ASSERT_TRUE(process_posted_interrupts(cpu));
    execute({0x90});
    EXPECT_EQ(reached(), 0x61);
    EXPECT_TRUE(has_vector(vapic::irr, 0x25));
    EXPECT_EQ(read<u32>(pi_descriptor + 32), 0u);
    EXPECT_EQ(read<u32>(pi_descriptor + 12), 0u);
}

TEST_F(VirtualApicTest, FaultOfItsDeliveryExitsWithIt) {
    delivery();
    vmcs.exception_bitmap = 1 << 11;
    gate64(0x41, code0, handler(0x41), 0x0e);
    set_vector(vapic::irr, 0x41);
    vmcs.guest_interrupt_status = 0x41;
    cpu.s.rflags |= rflags::if_;
    run_guest({0x90});
    expect_exit(ExitReason::exception_or_nmi);
    EXPECT_EQ(cpu.exit.idt_vectoring_info, 1u << 31 | 0x41);
    EXPECT_TRUE(has_vector(vapic::isr, 0x41));
}

} // namespace nestor::cpu
