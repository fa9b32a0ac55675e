// VMX non-root operation under controls that look at operands: masks and shadows of control
// registers, port and MSR bitmaps, PAUSE loops, VMCS shadowing, VM functions (SDM 3C 26.1, 26.3).
#include "tests/engine/cpu/vmx_fixture.hpp"

namespace nestor::cpu {

using namespace arch;

// --- control registers --------------------------------------------------------------------------

TEST_F(VmxTest, Cr3TargetValueDoesNotExit) {
    proc(proc_control::cr3_load_exiting);
    vmcs.cr3_target_count = 2;
    vmcs.cr3_target_value1 = tables;
    cpu.s.gpr[0] = tables;
    run_guest({0x0f, 0x22, 0xd8, 0xf4});
    EXPECT_TRUE(halted());
}

TEST_F(VmxTest, Cr3TargetBeyondTheCountExits) {
    proc(proc_control::cr3_load_exiting);
    vmcs.cr3_target_count = 1;
    vmcs.cr3_target_value1 = tables;
    cpu.s.gpr[0] = tables;
    run_guest({0x0f, 0x22, 0xd8, 0xf4});
    expect_exit(ExitReason::cr_access, 3);
}

TEST_F(VmxTest, Cr0BitsOfTheMaskReadTheShadow) {
    vmcs.cr0_guest_host_mask = cr0::ne | cr0::ts;
    vmcs.cr0_read_shadow = cr0::ts;
    run_guest({0x0f, 0x20, 0xc0, 0xf4});
    EXPECT_EQ(rax(), (cpu.s.cr0 & ~cr0::ne) | cr0::ts);
}

TEST_F(VmxTest, MovToCr0ExitsWhereItDiffersFromTheShadow) {
    vmcs.cr0_guest_host_mask = cr0::ts;
    cpu.s.gpr[0] = cpu.s.cr0 | cr0::ts;
    run_guest({0x0f, 0x22, 0xc0, 0xf4});
    expect_exit(ExitReason::cr_access, 0);
}

TEST_F(VmxTest, ClearingNeFaultsInNonRootOperation) {
    cpu.s.gpr[0] = cpu.s.cr0 & ~cr0::ne;
    run_guest({0x0f, 0x22, 0xc0, 0xf4});
    EXPECT_EQ(reached(), 13);
}

TEST_F(VmxTest, ClearingVmxeFaultsInNonRootOperation) {
    cpu.s.gpr[0] = cpu.s.cr4 & ~cr4::vmxe;
    run_guest({0x0f, 0x22, 0xe0, 0xf4});
    EXPECT_EQ(reached(), 13);
}

TEST_F(VmxTest, UnrestrictedGuestMayLeaveProtectedMode) {
    proc2(proc2_control::enable_ept | proc2_control::unrestricted_guest);
    protected_mode();
    cpu.s.cr0 |= cr0::ne;
    cpu.s.cr4 = cr4::vmxe;
    cpu.s.gpr[0] = cpu.s.cr0 & ~cr0::pe;
    run_guest({0x0f, 0x22, 0xc0, 0xf4});
    EXPECT_TRUE(halted());
    EXPECT_TRUE(cpu.mode.has(Mode::real));
}

TEST_F(VmxTest, LmswExitsWithItsOperand) {
    vmcs.cr0_guest_host_mask = cr0::ts;
    cpu.s.gpr[0] = data;
    write(data, u16{0x0009});
    run_guest({0x0f, 0x01, 0x30});
    expect_exit(ExitReason::cr_access, 3 << 4 | 1 << 6 | 0x9 << 16);
    EXPECT_EQ(cpu.exit.guest_linear, data);
}

TEST_F(VmxTest, CltsExitsWhereTheShadowHasTs) {
    vmcs.cr0_guest_host_mask = cr0::ts;
    vmcs.cr0_read_shadow = cr0::ts;
    run_guest({0x0f, 0x06});
    expect_exit(ExitReason::cr_access, 2 << 4);
}

TEST_F(VmxTest, CltsWithoutTsInTheShadowDoesNothing) {
    vmcs.cr0_guest_host_mask = cr0::ts;
    cpu.s.cr0 |= cr0::ts;
    run_guest({0x0f, 0x06, 0xf4});
    EXPECT_TRUE(halted());
    EXPECT_NE(cpu.s.cr0 & cr0::ts, 0u);
}

TEST_F(VmxTest, MovToCr8WithoutShadowIsLeftToL0) {
    cpu.s.gpr[0] = 5;
    run_guest({0x44, 0x0f, 0x22, 0xc0});
    expect_exit(ExitReason::cr_access, 8);
    EXPECT_TRUE(cpu.exit.assist);
}

// --- ports --------------------------------------------------------------------------------------

TEST_F(VmxTest, UnconditionalIoExits) {
    proc(proc_control::unconditional_io_exiting);
    run_guest({0xe4, 0x71});
    expect_exit(ExitReason::io_instruction, 0x71u << 16 | 1u << 6 | 1u << 3);
}

TEST_F(VmxTest, IoBitmapBitOfAnyByteExits) {
    proc(proc_control::use_io_bitmaps);
    write(io_bitmap_b + (0xc003 - 0x8000) / 8, u8{1 << 3});
    cpu.s.gpr[2] = 0xc000;
    run_guest({0xef});
    expect_exit(ExitReason::io_instruction, 0xc000u << 16 | 3);
}

TEST_F(VmxTest, IoBitmapZeroPassesUnconditionalExiting) {
    proc(proc_control::use_io_bitmaps | proc_control::unconditional_io_exiting);
    cpu.s.gpr[2] = 0xc000;
    run_guest({0xee});
    EXPECT_EQ(stop, Cpu::Stop::access);
    EXPECT_EQ(cpu.access.address, 0xc000u);
}

TEST_F(VmxTest, PortThatWrapsExits) {
    proc(proc_control::use_io_bitmaps);
    cpu.s.gpr[2] = 0xffff;
    run_guest({0x66, 0xed});
    expect_exit(ExitReason::io_instruction, 0xffffu << 16 | 1u << 3 | 1);
}

TEST_F(VmxTest, RepOutsExitsWithAddressAndSegment) {
    proc(proc_control::use_io_bitmaps);
    write(io_bitmap_a + 0x60 / 8, u8{1});
    cpu.seg(Seg::fs).base = 0x1000;
    cpu.s.gpr[1] = 3;
    cpu.s.gpr[2] = 0x60;
    cpu.s.gpr[6] = 0xdead0000; // not mapped: the exit comes first
    run_guest({0xf3, 0x64, 0x6e});
    expect_exit(ExitReason::io_instruction, 0x60u << 16 | 1u << 5 | 1u << 4);
    EXPECT_EQ(cpu.exit.guest_linear, 0xdead1000u);
    EXPECT_EQ(cpu.exit.instruction_info, 2u << 7 | 4u << 15);
}

TEST_F(VmxTest, RepWithNothingToDoDoesNotExit) {
    proc(proc_control::unconditional_io_exiting);
    cpu.s.gpr[1] = 0;
    run_guest({0xf3, 0x6c, 0xf4});
    EXPECT_TRUE(halted());
}

TEST_F(VmxTest, AbsentIoBitmapIsPageNeeded) {
    proc(proc_control::use_io_bitmaps);
    memory_.set_state(gfn_of(Gpa(io_bitmap_a)), page_state::absent);
    run_guest({0xe4, 0x71});
    EXPECT_EQ(stop, Cpu::Stop::page_needed);
    EXPECT_EQ(cpu.wanted_page, io_bitmap_a >> page_shift);
    EXPECT_EQ(cpu.s.rip, code);
}

// --- MSRs ---------------------------------------------------------------------------------------

TEST_F(VmxTest, MsrBitmapPassesAndExits) {
    proc(proc_control::use_msr_bitmaps);
    cpu.s.lstar = 0x1234;
    cpu.s.gpr[1] = 0xc0000082;
    run_guest({0x0f, 0x32, 0xf4});
    EXPECT_EQ(rax(), 0x1234u);
    long_mode();
    write(msr_bitmap + 1024 + 0x82 / 8, u8{1 << 2});
    cpu.s.gpr[1] = 0xc0000082;
    run_guest({0x0f, 0x32, 0xf4});
    expect_exit(ExitReason::rdmsr);
    EXPECT_FALSE(cpu.exit.assist);
}

TEST_F(VmxTest, PassedMsrThatTheSiliconLacksIsLeftToL0) {
    proc(proc_control::use_msr_bitmaps);
    cpu.s.gpr[1] = 0x1b;
    run_guest({0x0f, 0x30});
    expect_exit(ExitReason::wrmsr);
    EXPECT_TRUE(cpu.exit.assist);
}

TEST_F(VmxTest, TscIsScaledAndOffset) {
    proc(proc_control::use_tsc_offsetting);
    proc2(proc2_control::use_tsc_scaling);
    vmcs.tsc_offset = 1000;
    vmcs.tsc_multiplier = u64{3} << 47; // 1.5
    cpu.clock = {0, 600, 1, 1};
    run_guest({0x0f, 0x31, 0xf4});
    EXPECT_EQ(rax(), 1900u);
}

// --- PAUSE loops --------------------------------------------------------------------------------

TEST_F(VmxTest, PauseLoopExitsBehindItsWindow) {
    proc2(proc2_control::pause_loop_exiting);
    vmcs.ple_gap = 10;
    vmcs.ple_window = 5;
    cpu.clock = {0, 1000, 1, 1};
    enter();
    poke(code, {0xf3, 0x90, 0xeb, 0xfc}); // again: pause; jmp again
    u64 count = 0;
    do {
        stop = cpu.run(count, 100 - count);
        count += cpu.retired_in_run();
    } while (stop == Cpu::Stop::yield);
    expect_exit(ExitReason::pause);
    EXPECT_EQ(count, 6u);
}

// --- VMCS shadowing, VM functions, XSAVES -------------------------------------------------------

TEST_F(VmxTest, ShadowedVmreadByBitmap) {
    proc2(proc2_control::vmcs_shadowing);
    cpu.s.gpr[2] = 0x681e;
    run_guest({0x0f, 0x78, 0xd1});
    expect_exit(ExitReason::vmread);
    EXPECT_TRUE(cpu.exit.assist);
    write(vmread_bitmap + 0x681e / 8, u8{1 << 6});
    run_guest({0x0f, 0x78, 0xd1});
    expect_exit(ExitReason::vmread);
    EXPECT_FALSE(cpu.exit.assist);
}

TEST_F(VmxTest, ShadowedVmwriteNeedsPrivilege) {
    long_mode(3);
    cpu.s.cr0 |= cr0::ne;
    cpu.s.cr4 |= cr4::vmxe;
    proc2(proc2_control::vmcs_shadowing);
    cpu.s.gpr[2] = 0x681e;
    run_guest({0x0f, 0x79, 0xd1});
    EXPECT_EQ(reached(), 13);
}

TEST_F(VmxTest, FieldBeyondTheBitmapExits) {
    proc2(proc2_control::vmcs_shadowing);
    cpu.s.gpr[2] = 0x8000;
    run_guest({0x0f, 0x78, 0xd1});
    expect_exit(ExitReason::vmread);
    EXPECT_FALSE(cpu.exit.assist);
}

TEST_F(VmxTest, VmfuncIsUndefinedUnlessEnabled) {
    run_guest({0x0f, 0x01, 0xd4});
    EXPECT_EQ(reached(), 6);
}

TEST_F(VmxTest, VmfuncSwitchesTheEptp) {
    proc2(proc2_control::enable_ept | proc2_control::enable_vm_functions);
    vmcs.vm_function_controls = 1;
    write(eptp_list + 5 * 8, ept_pointer);
    vmcs.ept_pointer = ept_pointer | 1 << 6;
    cpu.s.gpr[0] = 0;
    cpu.s.gpr[1] = 5;
    run_guest({0x0f, 0x01, 0xd4, 0xf4});
    EXPECT_TRUE(halted());
    store_controls(cpu, vmcs);
    EXPECT_EQ(vmcs.ept_pointer, ept_pointer);
    EXPECT_EQ(vmcs.eptp_index, 5);
}

TEST_F(VmxTest, VmfuncWithABadEptpExits) {
    proc2(proc2_control::enable_ept | proc2_control::enable_vm_functions);
    vmcs.vm_function_controls = 1;
    cpu.s.gpr[0] = 0;
    cpu.s.gpr[1] = 5;
    run_guest({0x0f, 0x01, 0xd4, 0xf4});
    expect_exit(ExitReason::vmfunc);
}

TEST_F(VmxTest, XsavesExitsByTheXssBitmap) {
    proc2(proc2_control::enable_xsaves);
    vmcs.xss_exiting_bitmap = 1 << 8;
    cpu.s.cr4 |= cr4::osxsave;
    cpu.s.xss = 1 << 8;
    cpu.s.gpr[0] = 1 << 8;
    cpu.s.gpr[2] = 0;
    cpu.s.gpr[1] = data;
    run_guest({0x0f, 0xc7, 0x29});
    expect_exit(ExitReason::xsaves);
    EXPECT_EQ(cpu.exit.instruction_info, 2u << 7 | 3u << 15 | 1u << 22 | 1u << 23); // [RCX]
}

TEST_F(VmxTest, TaskSwitchExits) {
    protected_mode();
    cpu.s.cr0 |= cr0::ne;
    descriptor(free_selector, 0x6000, 0x67, 0x0089);
    run_guest({0xea, 0, 0, 0, 0, free_selector, 0});
    expect_exit(ExitReason::task_switch, free_selector | u64{2} << 30);
    EXPECT_EQ(cpu.exit.instruction_length, 7u);
}

} // namespace nestor::cpu
