// Event delivery: frames, gates, faults inside a delivery, double and triple faults.
#include "tests/engine/cpu/system_fixture.hpp"

namespace nestor::cpu {

using namespace arch;

TEST_F(SystemTest, RealModeInterruptPushesThreeWordsAndClearsIf) {
    real_mode();
    cpu.s.rflags |= rflags::if_;
    execute({0xcd, 0x21});
    EXPECT_EQ(reached(), 0x21);
    EXPECT_EQ(rsp(), stack_top - 6);
    EXPECT_EQ(read<u16>(stack_top - 6), code + 2);
    EXPECT_EQ(read<u16>(stack_top - 2) & rflags::if_, rflags::if_);
    EXPECT_EQ(cpu.s.rflags & rflags::if_, 0u);
}

TEST_F(SystemTest, RealModeFaultPushesNoErrorCode) {
    real_mode();
    cpu.s.idtr.limit = 0x7f; // vector 0x21 is outside
    execute({0xcd, 0x21});
    EXPECT_EQ(reached(), 13);
    EXPECT_EQ(rsp(), stack_top - 6);
    EXPECT_EQ(read<u16>(rsp()), code);
}

TEST_F(SystemTest, ProtectedModeSoftwareInterruptChecksGateDpl) {
    protected_mode(3);
    execute({0xcd, 0x40});
    EXPECT_EQ(reached(), 13);
    EXPECT_EQ(read<u32>(rsp()), 0x40u * 8 + 2);
    EXPECT_EQ(rsp(), inner_stack_top - 24);
}

TEST_F(SystemTest, ProtectedModeInterruptFromUserPushesTheOuterStack) {
    protected_mode(3);
    gate32(idt + 0x40 * 8, code0, static_cast<u32>(handler(0x40)), 0xee);
    cpu.s.rflags |= rflags::if_;
    execute({0xcd, 0x40});
    EXPECT_EQ(reached(), 0x40);
    EXPECT_EQ(rsp(), inner_stack_top - 20);
    EXPECT_EQ(read<u32>(rsp()), code + 2);
    EXPECT_EQ(read<u32>(rsp() + 4), code3);
    EXPECT_EQ(read<u32>(rsp() + 12), stack_top);
    EXPECT_EQ(read<u32>(rsp() + 16), data3);
    EXPECT_EQ(cpu.cpl, 0);
    EXPECT_EQ(cpu.seg(Seg::ss).selector, data0);
}

TEST_F(SystemTest, FaultsPushRfAndSoftwareInterruptsDoNot) {
    protected_mode();
    execute({0x0f, 0x0b}); // UD2
    EXPECT_EQ(reached(), 6);
    EXPECT_NE(read<u32>(rsp() + 8) & rflags::rf, 0u);
    EXPECT_EQ(cpu.s.rflags & rflags::rf, 0u);
    protected_mode();
    execute({0xcc});
    EXPECT_EQ(reached(), 3);
    EXPECT_EQ(read<u32>(rsp()), code + 1);
    EXPECT_EQ(read<u32>(rsp() + 8) & rflags::rf, 0u);
}

TEST_F(SystemTest, GateThatIsNotPresentIsNpWithIdtBit) {
    protected_mode();
    gate32(idt + 6 * 8, code0, 0, 0x0e);
    execute({0x0f, 0x0b});
    expect_fault32(11, 6 * 8 + 3, code); // EXT: the UD is what was being delivered
}

TEST_F(SystemTest, InnerStackOutsideTssLimitIsTs) {
    protected_mode(3);
    cpu.s.tr.limit = 8;
    gate32(idt + 0x40 * 8, code0, static_cast<u32>(handler(0x40)), 0xee);
    // #TS needs the inner stack too, and so does #DF: a triple fault.
    execute({0xcd, 0x40});
    expect_exit(ExitReason::triple_fault);
    EXPECT_EQ(cpu.s.rip, code);
}

TEST_F(SystemTest, ContributoryFaultInContributoryDeliveryIsDoubleFault) {
    protected_mode();
    gate32(idt + 13 * 8, 0, 0, 0x8e); // null code selector
    execute({0x8e, 0xd0});            // mov ss, eax (eax = 0): #GP(0)
    expect_fault32(8, 0, code);
}

TEST_F(SystemTest, BenignThenContributoryIsServedInSeries) {
    protected_mode();
    gate32(idt + 6 * 8, 0, 0, 0x8e);
    execute({0x0f, 0x0b});
    expect_fault32(13, 1, code); // null selector with EXT
}

TEST_F(SystemTest, FaultInDoubleFaultDeliveryIsTripleFault) {
    protected_mode();
    cpu.s.idtr.limit = 0;
    execute({0x0f, 0x0b});
    expect_exit(ExitReason::triple_fault);
}

TEST_F(SystemTest, LongModeFrameIsAlignedAndHasStackAlways) {
    long_mode();
    cpu.s.gpr[4] = stack_top - 3;
    execute({0x0f, 0x0b});
    EXPECT_EQ(reached(), 6);
    EXPECT_EQ(rsp(), ((stack_top - 3) & ~u64{15}) - 40);
    EXPECT_EQ(read<u64>(rsp() + 24), stack_top - 3);
    EXPECT_EQ(read<u64>(rsp() + 32), data0);
    EXPECT_EQ(cpu.seg(Seg::ss).selector, data0);
}

TEST_F(SystemTest, LongModeInterruptFromUserLoadsNullSs) {
    long_mode(3);
    execute({0x0f, 0x0b});
    EXPECT_EQ(reached(), 6);
    EXPECT_EQ(rsp(), inner_stack_top - 40);
    EXPECT_EQ(cpu.seg(Seg::ss).selector, 0);
    EXPECT_EQ(cpu.cpl, 0);
}

TEST_F(SystemTest, IstIsUsedWithoutPrivilegeChange) {
    long_mode();
    write(tss + 36 + 8, u64{0x9f00}); // IST2
    gate64(6, code0, handler(6), 0x8e, 2);
    execute({0x0f, 0x0b});
    EXPECT_EQ(reached(), 6);
    EXPECT_EQ(rsp(), 0x9f00u - 40);
}

TEST_F(SystemTest, PageFaultSetsCr2AndErrorCode) {
    long_mode();
    cpu.s.gpr[0] = 0x40000000;
    execute({0x89, 0x00}); // mov [rax], eax
    expect_fault64(14, 2, code);
    EXPECT_EQ(cpu.s.cr2, 0x40000000u);
}

TEST_F(SystemTest, PageFaultOnStackPushNamesTheFirstPush) {
    long_mode();
    cpu.s.gpr[4] = 0x40000008; // 0x40000000 rounds to this page, the frame to the one below
    gate64(14, code0, handler(14), 0x8e, 1);
    gate64(8, code0, handler(8), 0x8e, 1);
    write(tss + 36, u64{0x9f00});
    execute({0x0f, 0x0b}); // #UD without IST: its frame is not mapped
    expect_fault64(14, 2, code);
    EXPECT_EQ(cpu.s.cr2, 0x3ffffff8u);
}

TEST_F(SystemTest, MissingPageLeavesDeliveryUndone) {
    long_mode();
    cpu.s.gpr[4] = 0x3ff000;
    cpu.s.gpr[0] = 0x40000000;
    memory_.set_state(Gfn(0x3fe), page_state::absent);
    execute({0x89, 0x00});
    EXPECT_EQ(stop, Cpu::Stop::page_needed);
    EXPECT_EQ(cpu.wanted_page, 0x3feu);
    EXPECT_EQ(cpu.s.cr2, 0u);
    EXPECT_EQ(cpu.s.rip, code);
    state_[0x3fe] = 0;
    cpu.flush_tlb();
    stop = cpu.run(0, 100);
    EXPECT_EQ(reached(), 14);
    EXPECT_EQ(cpu.s.cr2, 0x40000000u);
}

TEST_F(SystemTest, ExceptionBitmapExitsWithInformation) {
    long_mode();
    cpu.controls.exception_bitmap = 1u << 14;
    cpu.s.gpr[0] = 0x40000000;
    execute({0x89, 0x00});
    expect_exit(ExitReason::exception_or_nmi, 0x40000000);
    EXPECT_EQ(cpu.exit.interruption_info, 0x80000b0eu);
    EXPECT_EQ(cpu.exit.interruption_error, 2u);
    EXPECT_EQ(cpu.s.cr2, 0u);
}

TEST_F(SystemTest, ExitInsideDeliveryHasIdtVectoring) {
    long_mode();
    cpu.controls.exception_bitmap = 1u << 14;
    cpu.s.gpr[4] = 0x40000000;
    execute({0xcd, 0x40});
    EXPECT_EQ(cpu.exit.idt_vectoring_info, 0x80000440u);
    EXPECT_EQ(cpu.exit.interruption_info, 0x80000b0eu);
}

TEST_F(SystemTest, InjectedInterruptWakesAndClearsIf) {
    long_mode();
    cpu.s.rflags |= rflags::if_;
    Event e;
    e.type = EventType::external_interrupt;
    e.vector = 0x55;
    cpu.inject(e);
    execute({0x90});
    EXPECT_EQ(reached(), 0x55);
    EXPECT_EQ(read<u64>(rsp()), code);
}

TEST_F(SystemTest, SingleStepTrapsAfterTheInstruction) {
    long_mode();
    cpu.s.rflags |= rflags::tf;
    cpu.rehydrate();
    execute({0x90, 0x90});
    EXPECT_EQ(reached(), 1);
    EXPECT_EQ(read<u64>(rsp()), code + 1);
    EXPECT_EQ(cpu.s.dr6, 0xffff4ff0u);
}

TEST_F(SystemTest, InstructionBreakpointFaultsOnceAndRfPasses) {
    long_mode();
    cpu.s.dr[1] = code + 1;
    cpu.s.dr7 |= 4; // L1, execute
    cpu.rehydrate();
    execute({0x90, 0x90, 0xf4});
    EXPECT_EQ(reached(), 1);
    EXPECT_EQ(read<u64>(rsp()), code + 1);
    EXPECT_EQ(cpu.s.dr6 & 15, 2u);
}

TEST_F(SystemTest, GeneralDetectStopsMovDr) {
    long_mode();
    cpu.s.dr7 |= dr7::gd;
    execute({0x0f, 0x21, 0xf8}); // mov rax, dr7
    EXPECT_EQ(reached(), 1);
    EXPECT_EQ(read<u64>(rsp()), code);
    EXPECT_NE(cpu.s.dr6 & dr6::bd, 0u);
    EXPECT_EQ(cpu.s.dr7 & dr7::gd, 0u);
}

TEST_F(SystemTest, NmiBlocksNmisUntilIret) {
    long_mode();
    poke(handler(2), {0x48, 0xcf}); // iretq
    Event e;
    e.type = EventType::nmi;
    e.vector = 2;
    cpu.inject(e);
    execute({0xf4}, 1);
    EXPECT_TRUE(cpu.s.blocking_by_nmi);
    stop = cpu.run(1, 100);
    EXPECT_FALSE(cpu.s.blocking_by_nmi);
    EXPECT_EQ(cpu.s.rip, code + 1);
}

} // namespace nestor::cpu
