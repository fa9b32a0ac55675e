// Instructions that exit in VMX non-root operation: reason, qualification, length, information; and
// that they do not exit with the control off (SDM 3C 26.1).
#include <string>

#include "tests/engine/cpu/vmx_fixture.hpp"

namespace nestor::cpu {

using namespace arch;

namespace {

struct Intercept {
    const char* name;
    std::vector<u8> bytes;
    u32 proc;  ///< primary control that makes it exit; with `proc2` 0: none does, it always exits
    u32 proc2; ///< secondary controls
    ExitReason reason;
    u64 qualification = 0;
    u32 info = 0;
    u32 also2 = 0; ///< secondary controls that the instruction needs to exist
};

void PrintTo(const Intercept& i, std::ostream* out) { *out << i.name; }

// [RAX] in 64-bit mode: 64-bit addresses, DS, no index, base RAX.
constexpr u32 rax_memory = 2u << 7 | 3u << 15 | 1u << 22;
constexpr u32 rcx_memory = rax_memory | 1u << 23;

const Intercept intercepts[] = {
    {"Hlt", {0xf4}, proc_control::hlt_exiting, 0, ExitReason::hlt},
    {"Invlpg", {0x0f, 0x01, 0x38}, proc_control::invlpg_exiting, 0, ExitReason::invlpg, 0x20000},
    {"Mwait", {0x0f, 0x01, 0xc9}, proc_control::mwait_exiting, 0, ExitReason::mwait},
    {"Rdpmc", {0x0f, 0x33}, proc_control::rdpmc_exiting, 0, ExitReason::rdpmc},
    {"Rdtsc", {0x0f, 0x31}, proc_control::rdtsc_exiting, 0, ExitReason::rdtsc},
    {"Rdtscp",
     {0x0f, 0x01, 0xf9},
     proc_control::rdtsc_exiting,
     0,
     ExitReason::rdtscp,
     0,
     0,
     proc2_control::enable_rdtscp},
    {"MovFromCr3",
     {0x0f, 0x20, 0xd8},
     proc_control::cr3_store_exiting,
     0,
     ExitReason::cr_access,
     0x13},
    {"MovToCr3",
     {0x0f, 0x22, 0xd9},
     proc_control::cr3_load_exiting,
     0,
     ExitReason::cr_access,
     0x103},
    {"MovToCr8",
     {0x44, 0x0f, 0x22, 0xc2},
     proc_control::cr8_load_exiting,
     0,
     ExitReason::cr_access,
     0x208},
    {"MovFromCr8",
     {0x44, 0x0f, 0x20, 0xc0},
     proc_control::cr8_store_exiting,
     0,
     ExitReason::cr_access,
     0x18},
    {"MovToDr2", {0x0f, 0x23, 0xd3}, proc_control::mov_dr_exiting, 0, ExitReason::mov_dr, 0x302},
    {"MovFromDr7", {0x0f, 0x21, 0xf8}, proc_control::mov_dr_exiting, 0, ExitReason::mov_dr, 0x17},
    {"Monitor", {0x0f, 0x01, 0xc8}, proc_control::monitor_exiting, 0, ExitReason::monitor},
    {"Pause", {0xf3, 0x90}, proc_control::pause_exiting, 0, ExitReason::pause},
    {"Wbinvd", {0x0f, 0x09}, 0, proc2_control::wbinvd_exiting, ExitReason::wbinvd},
    {"Rdrand",
     {0x0f, 0xc7, 0xf3},
     0,
     proc2_control::rdrand_exiting,
     ExitReason::rdrand,
     0,
     3u << 3 | 1u << 11},
    {"Rdseed",
     {0x48, 0x0f, 0xc7, 0xff},
     0,
     proc2_control::rdseed_exiting,
     ExitReason::rdseed,
     0,
     7u << 3 | 2u << 11},
    {"Sgdt",
     {0x0f, 0x01, 0x00},
     0,
     proc2_control::descriptor_table_exiting,
     ExitReason::gdtr_idtr_access,
     0,
     rax_memory},
    {"Lidt",
     {0x0f, 0x01, 0x58, 0x08},
     0,
     proc2_control::descriptor_table_exiting,
     ExitReason::gdtr_idtr_access,
     8,
     rax_memory | 3u << 28},
    {"Sldt",
     {0x0f, 0x00, 0xc2},
     0,
     proc2_control::descriptor_table_exiting,
     ExitReason::ldtr_tr_access,
     0,
     1u << 10 | 2u << 3},
    {"Str",
     {0x0f, 0x00, 0xc9},
     0,
     proc2_control::descriptor_table_exiting,
     ExitReason::ldtr_tr_access,
     0,
     1u << 10 | 1u << 3 | 1u << 28},
    {"Invpcid",
     {0x66, 0x0f, 0x38, 0x82, 0x11},
     proc_control::invlpg_exiting,
     0,
     ExitReason::invpcid,
     0,
     rcx_memory | 2u << 28,
     proc2_control::enable_invpcid},
};

const Intercept always[] = {
    {"Cpuid", {0x0f, 0xa2}, 0, 0, ExitReason::cpuid},
    {"Invd", {0x0f, 0x08}, 0, 0, ExitReason::invd},
    {"Vmcall", {0x0f, 0x01, 0xc1}, 0, 0, ExitReason::vmcall},
    {"Vmlaunch", {0x0f, 0x01, 0xc2}, 0, 0, ExitReason::vmlaunch},
    {"Vmresume", {0x0f, 0x01, 0xc3}, 0, 0, ExitReason::vmresume},
    {"Vmxoff", {0x0f, 0x01, 0xc4}, 0, 0, ExitReason::vmxoff},
    {"Vmclear", {0x66, 0x0f, 0xc7, 0x30}, 0, 0, ExitReason::vmclear, 0, rax_memory},
    {"Vmptrld", {0x0f, 0xc7, 0x70, 0x10}, 0, 0, ExitReason::vmptrld, 0x10, rax_memory},
    {"Vmptrst", {0x0f, 0xc7, 0x38}, 0, 0, ExitReason::vmptrst, 0, rax_memory},
    {"Vmxon", {0xf3, 0x0f, 0xc7, 0x30}, 0, 0, ExitReason::vmxon, 0, rax_memory},
    {"Vmread", {0x0f, 0x78, 0xd1}, 0, 0, ExitReason::vmread, 0, 1u << 10 | 1u << 3 | 2u << 28},
    {"VmreadMemory", {0x0f, 0x78, 0x11}, 0, 0, ExitReason::vmread, 0, rcx_memory | 2u << 28},
    {"Vmwrite", {0x0f, 0x79, 0xd1}, 0, 0, ExitReason::vmwrite, 0, 1u << 10 | 1u << 3 | 2u << 28},
    {"Invept", {0x66, 0x0f, 0x38, 0x80, 0x11}, 0, 0, ExitReason::invept, 0, rcx_memory | 2u << 28},
    {"Invvpid",
     {0x66, 0x0f, 0x38, 0x81, 0x11},
     0,
     0,
     ExitReason::invvpid,
     0,
     rcx_memory | 2u << 28},
    {"Rdmsr", {0x0f, 0x32}, 0, 0, ExitReason::rdmsr},
    {"Wrmsr", {0x0f, 0x30}, 0, 0, ExitReason::wrmsr},
};

class Intercepts : public VmxTest, public ::testing::WithParamInterface<Intercept> {
protected:
    void run_case(bool control) {
        const Intercept& i = GetParam();
        proc2(i.also2);
        if (control) {
            proc(i.proc);
            if (i.proc2 != 0) {
                proc2(i.proc2);
            }
        }
        cpu.s.gpr[0] = data;
        cpu.s.gpr[1] = tables; // a good CR3; too large for an MSR of the bitmap
        cpu.s.gpr[2] = 0;
        enter();
        for (std::size_t n = 0; n < i.bytes.size(); ++n) {
            write(code + n, i.bytes[n]);
        }
        stop = cpu.run(0, 1);
    }
};
class Conditional : public Intercepts {};
class Unconditional : public Intercepts {};

std::string name_of(const ::testing::TestParamInfo<Intercept>& info) { return info.param.name; }

} // namespace

TEST_P(Conditional, ExitsWithTheControlOn) {
    run_case(true);
    const Intercept& i = GetParam();
    expect_exit(i.reason, i.qualification);
    EXPECT_EQ(cpu.exit.instruction_length, i.bytes.size());
    EXPECT_EQ(cpu.exit.instruction_info, i.info);
    EXPECT_FALSE(cpu.exit.assist);
    EXPECT_EQ(cpu.s.rip, code);
    EXPECT_EQ(cpu.retired_in_run(), 0u);
}

TEST_P(Conditional, DoesNotExitWithTheControlOff) {
    run_case(false);
    EXPECT_TRUE(stop != Cpu::Stop::exit || cpu.exit.assist) << arch::name_of(cpu.exit.reason);
}

INSTANTIATE_TEST_SUITE_P(Vmx, Conditional, ::testing::ValuesIn(intercepts), name_of);

TEST_P(Unconditional, ExitsWhateverTheControls) {
    run_case(false);
    const Intercept& i = GetParam();
    expect_exit(i.reason, i.qualification);
    EXPECT_EQ(cpu.exit.instruction_length, i.bytes.size());
    EXPECT_EQ(cpu.exit.instruction_info, i.info);
    EXPECT_FALSE(cpu.exit.assist);
}

INSTANTIATE_TEST_SUITE_P(Vmx, Unconditional, ::testing::ValuesIn(always), name_of);

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
    EXPECT_EQ(cpu.exit.instruction_info, rcx_memory);
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
