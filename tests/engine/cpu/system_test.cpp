// System instructions: control and debug registers, flags, MSRs, ports, exits.
#include "tests/engine/cpu/system_fixture.hpp"

namespace nestor::cpu {

using namespace arch;

// --- control registers --------------------------------------------------------------------------

TEST_F(SystemTest, MovToCr0RefusesPagingWithoutProtection) {
    real_mode();
    cpu.s.gpr[0] = 0x80000010;
    execute({0x0f, 0x22, 0xc0});
    EXPECT_EQ(reached(), 13);
}

TEST_F(SystemTest, EnteringProtectedModeKeepsTheCodeSegment) {
    real_mode();
    cpu.s.gpr[0] = 0x11;
    execute({0x0f, 0x22, 0xc0, 0xf4});
    EXPECT_EQ(cpu.s.rip, code + 4);
    EXPECT_FALSE(cpu.mode.has(Mode::real));
    EXPECT_EQ(cpu.mode.code(), 0u);
}

TEST_F(SystemTest, EnablingPagingWithLmeActivatesLongMode) {
    long_mode();
    cpu.s.cr0 = 0x11;
    cpu.s.efer = efer::lme | efer::nxe;
    cpu.seg(Seg::cs).attributes = 0xc09b;
    cpu.rehydrate();
    cpu.s.gpr[0] = 0x80000011;
    execute({0x0f, 0x22, 0xc0, 0xf4});
    EXPECT_EQ(cpu.s.efer, efer::lme | efer::lma | efer::nxe);
    EXPECT_EQ(cpu.mode.code(), 1u); // compatibility mode until CS is loaded
    EXPECT_TRUE(cpu.mode.has(Mode::long_mode));
}

TEST_F(SystemTest, ClearingPaeInLongModeIsGp) {
    long_mode();
    cpu.s.gpr[0] = 0;
    execute({0x0f, 0x22, 0xe0});
    expect_fault64(13, 0, code);
}

TEST_F(SystemTest, PcideNeedsZeroPcid) {
    long_mode();
    cpu.s.cr3 = tables | 8;
    cpu.s.gpr[0] = cpu.s.cr4 | cr4::pcide;
    execute({0x0f, 0x22, 0xe0});
    expect_fault64(13, 0, code);
    long_mode();
    cpu.s.gpr[0] = cpu.s.cr4 | cr4::pcide;
    execute({0x0f, 0x22, 0xe0, 0xf4});
    EXPECT_NE(cpu.s.cr4 & cr4::pcide, 0u);
}

TEST_F(SystemTest, Cr3WhereNoRamIsFaults) {
    protected_mode();
    cpu.s.cr3 = 0xfff00000;
    cpu.s.gpr[0] = cpu.s.cr0 | cr0::pg; // 32-bit paging: entries of all ones have no reserved bits
    execute({0x0f, 0x22, 0xc0, 0xf4});
    EXPECT_EQ(stop, Cpu::Stop::exit); // a fetch from where no RAM is
    EXPECT_EQ(cpu.exit.reason, ExitReason::ept_violation);
}

TEST_F(SystemTest, Cr3BeyondPhysicalWidthIsGp) {
    long_mode();
    cpu.s.gpr[0] = u64{1} << 50 | tables;
    execute({0x0f, 0x22, 0xd8});
    expect_fault64(13, 0, code);
}

TEST_F(SystemTest, PaePointersAreCheckedWhenCr3IsLoaded) {
    protected_mode();
    cpu.s.cr4 = cr4::pae;
    cpu.s.cr0 = 0x80000011;
    for (unsigned i = 0; i < 4; ++i) {
        cpu.s.pdptr[i] = (tables + 0x1000) | 1;
    }
    write(tables + 0x1000, u64{0x87});
    write(data, u64{0x1e1}); // reserved bits 5 to 8
    cpu.rehydrate();
    cpu.s.gpr[0] = data;
    execute({0x0f, 0x22, 0xd8});
    EXPECT_EQ(reached(), 13);
    EXPECT_EQ(cpu.s.pdptr[0], (tables + 0x1000) | 1);
}

TEST_F(SystemTest, MaskedCr0BitsExitOrReadTheShadow) {
    long_mode();
    cpu.controls.cr0_mask = cr0::ne;
    cpu.controls.cr0_shadow = 0;
    cpu.s.cr0 |= cr0::ne;
    cpu.rehydrate();
    execute({0x0f, 0x20, 0xc1, 0xf4}); // mov rcx, cr0
    EXPECT_EQ(cpu.gpr(Gpr::rcx) & cr0::ne, 0u);

    cpu.s.activity = state::ActivityState::active;
    cpu.s.rip = code + 16;
    poke(code + 16, {0x0f, 0x22, 0xc3, 0xf4}); // mov cr0, rbx
    cpu.gpr(Gpr::rbx) = 0x80000011;
    stop = cpu.run(0, 10);
    EXPECT_NE(cpu.s.cr0 & cr0::ne, 0u); // the masked bit keeps its value
    cpu.s.activity = state::ActivityState::active;
    cpu.s.rip = code + 16;
    cpu.gpr(Gpr::rbx) |= cr0::ne;
    stop = cpu.run(0, 10);
    expect_exit(ExitReason::cr_access, 3u << 8);
    EXPECT_EQ(cpu.exit.instruction_length, 3u);
    EXPECT_EQ(cpu.s.rip, code + 16);
}

TEST_F(SystemTest, Cr8GoesThroughControls) {
    long_mode();
    cpu.s.gpr[0] = 9;
    execute({0x44, 0x0f, 0x22, 0xc0, 0x44, 0x0f, 0x20, 0xc1, 0xf4});
    EXPECT_EQ(cpu.controls.cr8, 9);
    EXPECT_EQ(cpu.gpr(Gpr::rcx), 9u);
    long_mode();
    cpu.controls.proc = proc_control::cr8_load_exiting;
    execute({0x44, 0x0f, 0x22, 0xc0});
    expect_exit(ExitReason::cr_access, 8);
}

TEST_F(SystemTest, LmswSetsButNeverClearsPe) {
    protected_mode();
    cpu.s.gpr[0] = 0xe;
    execute({0x0f, 0x01, 0xf0, 0xf4});
    EXPECT_EQ(cpu.s.cr0 & 0xf, 0xfu);
}

TEST_F(SystemTest, PrivilegedInstructionsAreGpAtCpl3) {
    for (const auto& bytes : {std::initializer_list<int>{0x0f, 0x20, 0xc0},
                              {0x0f, 0x06},
                              {0x0f, 0x32},
                              {0xf4},
                              {0x0f, 0x09},
                              {0x0f, 0x01, 0x38},
                              {0xfa}}) {
        long_mode(3);
        execute(bytes);
        expect_fault64(13, 0, code);
    }
}

TEST_F(SystemTest, DebugRegister4IsUdWithDe) {
    long_mode();
    cpu.s.cr4 |= cr4::de;
    execute({0x0f, 0x21, 0xe0});
    EXPECT_EQ(reached(), 6);
    long_mode();
    execute({0x0f, 0x21, 0xe0, 0xf4}); // DR6 without DE
    EXPECT_EQ(rax(), 0xffff0ff0u);
}

TEST_F(SystemTest, Dr7UpperHalfIsGp) {
    long_mode();
    cpu.s.gpr[0] = u64{1} << 32;
    execute({0x0f, 0x23, 0xf8});
    expect_fault64(13, 0, code);
}

// --- flags --------------------------------------------------------------------------------------

TEST_F(SystemTest, PopfAtCpl3KeepsIfAndIopl) {
    long_mode(3);
    cpu.s.rflags |= rflags::if_;
    write(stack_top - 8, u64{rflags::iopl | rflags::cf});
    cpu.s.gpr[4] = stack_top - 8;
    execute({0x9d}, 1);
    EXPECT_EQ(cpu.s.rflags, rflags::if_ | rflags::cf | 2);
}

TEST_F(SystemTest, StiShadowLastsOneInstruction) {
    long_mode();
    execute({0xfb, 0x90, 0x90}, 1);
    EXPECT_TRUE(cpu.s.blocking_by_sti);
    EXPECT_FALSE(cpu.interruptible());
    stop = cpu.run(1, 1);
    EXPECT_FALSE(cpu.s.blocking_by_sti);
    EXPECT_TRUE(cpu.interruptible());
}

TEST_F(SystemTest, PviStiAtCpl3SetsVif) {
    protected_mode(3);
    cpu.s.cr4 |= cr4::pvi;
    execute({0xfb}, 1);
    EXPECT_NE(cpu.s.rflags & rflags::vif, 0u);
    EXPECT_EQ(cpu.s.rflags & rflags::if_, 0u);
}

TEST_F(SystemTest, StacOpensUserPagesUnderSmap) {
    long_mode();
    // Data must be supervisor pages for the kernel itself: split off one user page.
    write(tables + 0x2000, u64{0x83});
    write(tables + 0x2008, u64{0x200087});
    cpu.s.cr4 |= cr4::smap;
    cpu.rehydrate();
    cpu.s.gpr[0] = 0x200000;
    execute({0x0f, 0x01, 0xcb, 0x8b, 0x08, 0x0f, 0x01, 0xca, 0x8b, 0x08});
    expect_fault64(14, 1, code + 8);
}

// --- MSRs, time, random -------------------------------------------------------------------------

TEST_F(SystemTest, MsrsExitUnlessTheBitmapPassesThem) {
    long_mode();
    cpu.gpr(Gpr::rcx) = 0xc0000102;
    execute({0x0f, 0x32});
    expect_exit(ExitReason::rdmsr);
    std::vector<u8> bitmap(4096);
    long_mode();
    cpu.controls.proc = proc_control::use_msr_bitmaps;
    cpu.controls.own_msr_bitmap = bitmap.data();
    cpu.s.kernel_gs_base = 0x123456789a;
    cpu.gpr(Gpr::rcx) = 0xc0000102;
    execute({0x0f, 0x32, 0xf4});
    EXPECT_EQ(rax(), 0x3456789au);
    EXPECT_EQ(cpu.gpr(Gpr::rdx), 0x12u);
    long_mode();
    bitmap[2048 + 1024 + 0x102 / 8] = 1u << (0x102 & 7);
    cpu.gpr(Gpr::rcx) = 0xc0000102;
    execute({0x0f, 0x30});
    expect_exit(ExitReason::wrmsr);
}

TEST_F(SystemTest, WrmsrChecksCanonicalAndEferBits) {
    long_mode();
    EXPECT_EQ(write_silicon_msr(cpu, 0xc0000082, u64{1} << 63), MsrResult::gp);
    EXPECT_EQ(write_silicon_msr(cpu, 0xc0000080, 0), MsrResult::gp); // LME with paging on
    EXPECT_EQ(write_silicon_msr(cpu, 0xc0000080, bit(1)), MsrResult::gp);
    EXPECT_EQ(write_silicon_msr(cpu, 0x277, 2), MsrResult::gp);
    EXPECT_EQ(write_silicon_msr(cpu, 0x1b, 0), MsrResult::not_silicon);
    EXPECT_EQ(write_silicon_msr(cpu, 0xc0000080, efer::lme | efer::lma), MsrResult::ok);
    EXPECT_EQ(cpu.s.efer, efer::lme | efer::lma);
}

TEST_F(SystemTest, RdtscCountsInstructions) {
    long_mode();
    cpu.controls.tsc_offset = 1000;
    execute({0x90, 0x90, 0x90, 0x0f, 0x31, 0xf4});
    EXPECT_EQ(rax(), 1003u);
}

TEST_F(SystemTest, TsdMakesRdtscGpAtCpl3) {
    long_mode(3);
    cpu.s.cr4 |= cr4::tsd;
    execute({0x0f, 0x31});
    expect_fault64(13, 0, code);
}

TEST_F(SystemTest, RdrandComesFromState) {
    long_mode();
    cpu.s.random = {1, 2, 3, 4};
    execute({0x48, 0x0f, 0xc7, 0xf0, 0xf4});
    EXPECT_EQ(rax(), 41943041u); // first output of xoshiro256++ with seed 1, 2, 3, 4
    EXPECT_EQ(cpu.s.rflags & rflags::arithmetic, rflags::cf);
}

// --- ports and exits ----------------------------------------------------------------------------

TEST_F(SystemTest, PortAccessExitsWithQualification) {
    long_mode();
    cpu.controls.proc = proc_control::unconditional_io_exiting;
    cpu.gpr(Gpr::rdx) = 0x3f8;
    execute({0xee}); // out dx, al
    expect_exit(ExitReason::io_instruction, 0x3f80000);
    long_mode();
    execute({0xe5, 0x40}); // in eax, 0x40
    expect_exit(ExitReason::io_instruction, 0x40004b);
}

TEST_F(SystemTest, CountsOutsideLevelZeroIncludeTheDeliveryThatLeavesIt) {
    protected_mode(3);
    execute({0x40, 0x40, 0x40, 0x0f, 0x0b}); // inc eax thrice, ud2: the handler halts
    EXPECT_EQ(reached(), 6);
    EXPECT_EQ(cpu.retired_in_run(), 5u);
    EXPECT_EQ(cpu.retired_outside_cpl0(), 4u);
}

TEST_F(SystemTest, PortWithoutExitIsAnAccessThatStartsAgain) {
    long_mode();
    execute({0xe4, 0x60, 0xf4});
    ASSERT_EQ(stop, Cpu::Stop::access);
    EXPECT_EQ(cpu.access.kind, PendingAccess::Kind::port);
    EXPECT_EQ(cpu.access.address, 0x60u);
    cpu.answer_access(0xab);
    stop = cpu.run(0, 10);
    EXPECT_EQ(rax(), 0xabu);
    EXPECT_EQ(cpu.s.rip, code + 3);
}

TEST_F(SystemTest, IoBitmapDecidesAboveIopl) {
    long_mode(3);
    write(tss + 102, u16{0x68});
    cpu.s.tr.limit = 0x68 + 0x2000;
    for (unsigned i = 0; i < 0x20; ++i) {
        write(tss + 0x68 + i, u8{0});
    }
    write(tss + 0x68 + 0x60 / 8, u8{0x01}); // port 0x60 is closed
    cpu.controls.proc = proc_control::unconditional_io_exiting;
    execute({0xe4, 0x61});
    expect_exit(ExitReason::io_instruction, 0x610048);
    cpu.s.rip = code;
    execute({0xe4, 0x60});
    expect_fault64(13, 0, code);
}

TEST_F(SystemTest, HltHaltsOrExits) {
    long_mode();
    execute({0xf4});
    EXPECT_EQ(stop, Cpu::Stop::inactive);
    EXPECT_EQ(cpu.s.rip, code + 1);
    long_mode();
    cpu.controls.proc = proc_control::hlt_exiting;
    execute({0xf4});
    expect_exit(ExitReason::hlt);
    EXPECT_EQ(cpu.s.rip, code);
    cpu.complete_instruction(cpu.exit.instruction_length);
    EXPECT_EQ(cpu.s.rip, code + 1);
}

TEST_F(SystemTest, VmxInstructionsExitWithOperandDescription) {
    long_mode();
    execute({0xf3, 0x0f, 0xc7, 0x74, 0x88, 0x10}); // vmxon [rax + rcx*4 + 16]
    expect_exit(ExitReason::vmxon, 0x10);
    EXPECT_EQ(cpu.exit.instruction_info, 2u | 2u << 7 | 3u << 15 | 1u << 18 | 0u << 23);
    long_mode();
    execute({0x0f, 0x78, 0xd8}); // vmread rax, rbx
    expect_exit(ExitReason::vmread);
    EXPECT_EQ(cpu.exit.instruction_info, 1u << 10 | 3u << 28);
}

TEST_F(SystemTest, RsmOutsideSmmIsUd) {
    long_mode();
    execute({0x0f, 0xaa});
    EXPECT_EQ(reached(), 6);
    long_mode();
    cpu.s.in_smm = true;
    execute({0x0f, 0xaa});
    expect_exit(ExitReason::rsm);
}

TEST_F(SystemTest, InvpcidChecksTypeAndDescriptor) {
    long_mode();
    cpu.controls.proc2 = proc2_control::enable_invpcid;
    write(data, u64{5}); // PCID 5 with CR4.PCIDE clear
    write(data + 8, u64{0});
    cpu.gpr(Gpr::rcx) = data;
    cpu.gpr(Gpr::rax) = 1;
    execute({0x66, 0x0f, 0x38, 0x82, 0x01});
    expect_fault64(13, 0, code);
}

TEST_F(SystemTest, AnUndefinedInstructionIsDecodedAnewWhenAnyOfItsBytesChanges) {
    long_mode();
    execute({0xff, 0xff, 0x90}); // FF /7
    EXPECT_EQ(reached(), 6);
    write(code + 1, u8{0xc0}); // INC EAX
    cpu.s.rip = code;
    cpu.s.activity = state::ActivityState::active;
    ASSERT_EQ(cpu.run(0, 1), Cpu::Stop::count);
    EXPECT_EQ(cpu.s.rip, code + 2);
}

} // namespace nestor::cpu
