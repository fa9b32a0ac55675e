// Far transfers, returns, task switches, SYSCALL and SYSENTER.
#include "tests/engine/cpu/system_fixture.hpp"

namespace nestor::cpu {

using namespace arch;

TEST_F(SystemTest, RealModeFarJumpLoadsParagraph) {
    real_mode();
    poke(0x6010, {0xf4});
    execute({0xea, 0x10, 0x00, 0x00, 0x06}); // jmp 0x0600:0x0010
    EXPECT_EQ(cpu.s.rip, 0x11u);
    EXPECT_EQ(cpu.seg(Seg::cs).base, 0x6000u);
}

TEST_F(SystemTest, FarCallAndReturnKeepStackAndSelector) {
    protected_mode();
    poke(0x6000, {0xcb}); // retf
    execute({0x9a, 0x00, 0x60, 0x00, 0x00, 0x08, 0x00, 0xf4});
    EXPECT_EQ(cpu.s.rip, code + 8);
    EXPECT_EQ(rsp(), stack_top);
}

TEST_F(SystemTest, FarJumpToNullIsGpZero) {
    protected_mode();
    execute({0xea, 0x00, 0x60, 0x00, 0x00, 0x00, 0x00});
    expect_fault32(13, 0, code);
}

TEST_F(SystemTest, FarJumpOutsideTableIsGpSelector) {
    protected_mode();
    execute({0xea, 0x00, 0x60, 0x00, 0x00, 0xf8, 0x0f});
    expect_fault32(13, 0xff8, code);
}

TEST_F(SystemTest, CallGateCopiesParametersToInnerStack) {
    protected_mode(3);
    gate32(gdt + free_selector, code0, 0x6000, 0xec, 2);
    poke(0x6000, {0xf4});
    write(stack_top - 8, u32{0x11});
    write(stack_top - 4, u32{0x22});
    cpu.s.gpr[4] = stack_top - 8;
    execute({0x9a, 0, 0, 0, 0, free_selector | 3, 0});
    EXPECT_EQ(cpu.s.rip, 0x6001u);
    EXPECT_EQ(rsp(), inner_stack_top - 24);
    EXPECT_EQ(read<u32>(rsp()), code + 7);
    EXPECT_EQ(read<u32>(rsp() + 4), code3);
    EXPECT_EQ(read<u32>(rsp() + 8), 0x11u);
    EXPECT_EQ(read<u32>(rsp() + 12), 0x22u);
    EXPECT_EQ(read<u32>(rsp() + 16), stack_top - 8);
    EXPECT_EQ(read<u32>(rsp() + 20), data3);
}

TEST_F(SystemTest, ReturnToOuterLevelDropsPrivilegedSegments) {
    protected_mode();
    for (const u32 v : {u32{data3}, u32{0x6f00}, u32{code3}, u32{0x6000}}) {
        cpu.s.gpr[4] -= 4;
        write(cpu.s.gpr[4], v);
    }
    poke(0x6000, {0xf4}); // HLT at CPL 3: #GP
    execute({0xcb});
    EXPECT_EQ(reached(), 13);
    EXPECT_EQ(read<u32>(rsp() + 4), 0x6000u);
    EXPECT_EQ(cpu.seg(Seg::ds).selector, 0);
    EXPECT_NE(cpu.seg(Seg::ds).attributes & seg_attr::unusable, 0u);
}

TEST_F(SystemTest, IretToVirtual8086ModeAndBackByFault) {
    protected_mode();
    const u32 frame[] = {
        0x100, 0x600, static_cast<u32>(rflags::vm) | 2, 0x80, 0x50, 0x1111, 0x2222, 0x3333, 0x4444};
    cpu.s.gpr[4] -= sizeof frame;
    for (unsigned i = 0; i < 9; ++i) {
        write(cpu.s.gpr[4] + i * 4, frame[i]);
    }
    poke(0x6100, {0xf4}); // HLT in v86: #GP(0)
    execute({0xcf});
    EXPECT_EQ(reached(), 13);
    EXPECT_EQ(rsp(), inner_stack_top - 40);
    EXPECT_EQ(read<u32>(rsp() + 4), 0x100u);
    EXPECT_EQ(read<u32>(rsp() + 8), 0x600u);
    EXPECT_NE(read<u32>(rsp() + 12) & rflags::vm, 0u);
    EXPECT_EQ(read<u32>(rsp() + 24), 0x1111u); // ES
    EXPECT_EQ(read<u32>(rsp() + 36), 0x4444u); // GS
    EXPECT_EQ(cpu.s.rflags & rflags::vm, 0u);
}

TEST_F(SystemTest, IretqSameLevelTakesStackPointer) {
    long_mode();
    const u64 frame[] = {0x6000, code0, 2, 0x6f00, 0};
    cpu.s.gpr[4] -= sizeof frame;
    for (unsigned i = 0; i < 5; ++i) {
        write(cpu.s.gpr[4] + i * 8, frame[i]);
    }
    poke(0x6000, {0xf4});
    execute({0x48, 0xcf});
    EXPECT_EQ(cpu.s.rip, 0x6001u);
    EXPECT_EQ(rsp(), 0x6f00u);
    EXPECT_EQ(cpu.seg(Seg::ss).selector, 0);
}

TEST_F(SystemTest, IretqNullSsToUserIsGp) {
    long_mode();
    const u64 frame[] = {0x6000, code3, 2, 0x6f00, 3};
    cpu.s.gpr[4] -= sizeof frame;
    for (unsigned i = 0; i < 5; ++i) {
        write(cpu.s.gpr[4] + i * 8, frame[i]);
    }
    execute({0x48, 0xcf});
    expect_fault64(13, 0, code);
}

TEST_F(SystemTest, IretWithNtInLongModeIsGp) {
    long_mode();
    cpu.s.rflags |= rflags::nt;
    execute({0x48, 0xcf});
    expect_fault64(13, 0, code);
}

TEST_F(SystemTest, SyscallAndSysretRoundTrip) {
    long_mode(3);
    cpu.s.star = u64{code0} << 32 | u64{0x10} << 48 | 3ull << 48;
    cpu.s.lstar = 0x6000;
    cpu.s.fmask = rflags::if_ | rflags::tf;
    cpu.s.rflags |= rflags::if_;
    poke(0x6000, {0xf4});
    execute({0x0f, 0x05});
    EXPECT_EQ(cpu.s.rip, 0x6001u);
    EXPECT_EQ(cpu.cpl, 0);
    EXPECT_EQ(cpu.gpr(Gpr::rcx), code + 2);
    EXPECT_EQ(cpu.gpr(Gpr::r11), rflags::if_ | 2);
    EXPECT_EQ(cpu.s.rflags, 2u);
    EXPECT_EQ(cpu.seg(Seg::ss).selector, code0 + 8);

    cpu.s.activity = state::ActivityState::active;
    cpu.s.rip = 0x6010;
    poke(0x6010, {0x48, 0x0f, 0x07}); // sysretq
    stop = cpu.run(0, 1);
    EXPECT_EQ(cpu.s.rip, code + 2);
    EXPECT_EQ(cpu.cpl, 3);
    EXPECT_EQ(cpu.seg(Seg::cs).selector, 0x23);
    EXPECT_EQ(cpu.seg(Seg::ss).selector, 0x1b);
    EXPECT_EQ(cpu.s.rflags, rflags::if_ | 2);
}

TEST_F(SystemTest, SyscallOutside64BitModeIsUd) {
    protected_mode();
    cpu.s.efer = efer::sce;
    execute({0x0f, 0x05});
    EXPECT_EQ(reached(), 6);
}

TEST_F(SystemTest, SysretqToNonCanonicalFaultsAtCpl0) {
    long_mode();
    cpu.gpr(Gpr::rcx) = u64{1} << 63;
    execute({0x48, 0x0f, 0x07});
    expect_fault64(13, 0, code);
    EXPECT_EQ(cpu.seg(Seg::cs).selector, code0);
}

TEST_F(SystemTest, SysenterWithoutSelectorIsGp) {
    protected_mode();
    execute({0x0f, 0x34});
    expect_fault32(13, 0, code);
}

// --- task switch --------------------------------------------------------------------------------

class TaskTest : public SystemTest {
protected:
    static constexpr u64 other_tss = 0x4000;
    static constexpr u16 other = 0x50;

    void two_tasks() {
        protected_mode();
        descriptor(other, other_tss, 0x67, 0x0089);
        write(other_tss + 0x20, u32{0x6000});
        write(other_tss + 0x24, u32{2});
        write(other_tss + 0x28, u32{0xaaaa}); // EAX
        write(other_tss + 0x38, u32{0x6f00});
        for (const unsigned offset : {0x48u, 0x50u, 0x54u}) {
            write(other_tss + offset, u32{data0});
        }
        write(other_tss + 0x4c, u32{code0});
        poke(0x6000, {0xf4});
    }
    [[nodiscard]] bool busy(u16 selector) const { return (read<u8>(gdt + selector + 5) & 2) != 0; }
};

TEST_F(TaskTest, JumpSwitchesAndMovesTheBusyBit) {
    two_tasks();
    cpu.s.gpr[3] = 0x1234;
    execute({0xea, 0, 0, 0, 0, other, 0});
    EXPECT_EQ(cpu.s.rip, 0x6001u);
    EXPECT_EQ(rax(), 0xaaaau);
    EXPECT_EQ(read<u32>(tss + 0x20), code + 7);
    EXPECT_EQ(read<u32>(tss + 0x34), 0x1234u);
    EXPECT_FALSE(busy(tss_selector));
    EXPECT_TRUE(busy(other));
    EXPECT_NE(cpu.s.cr0 & cr0::ts, 0u);
    EXPECT_EQ(cpu.s.rflags & rflags::nt, 0u);
}

TEST_F(TaskTest, CallNestsAndIretReturns) {
    two_tasks();
    poke(0x6000, {0xcf, 0xf4});
    execute({0x9a, 0, 0, 0, 0, other, 0, 0xf4});
    EXPECT_EQ(cpu.s.rip, code + 8);
    EXPECT_EQ(read<u16>(other_tss), tss_selector);
    EXPECT_TRUE(busy(tss_selector));
    EXPECT_FALSE(busy(other));
    EXPECT_EQ(read<u32>(other_tss + 0x20), 0x6001u);
    EXPECT_EQ(read<u32>(other_tss + 0x24) & rflags::nt, 0u);
}

TEST_F(TaskTest, BusyTaskIsGp) {
    two_tasks();
    execute({0x9a, 0, 0, 0, 0, tss_selector, 0});
    expect_fault32(13, tss_selector, code);
}

TEST_F(TaskTest, ShortTssIsTs) {
    two_tasks();
    descriptor(other, other_tss, 0x66, 0x0089);
    execute({0x9a, 0, 0, 0, 0, other, 0});
    expect_fault32(10, other, code);
    EXPECT_FALSE(busy(other));
}

TEST_F(TaskTest, BadSegmentFaultsInTheNewTask) {
    two_tasks();
    write(other_tss + 0x54, u32{0x0ff8}); // DS outside the GDT
    execute({0x9a, 0, 0, 0, 0, other, 0});
    expect_fault32(10, 0xff8, 0x6000);
    EXPECT_EQ(cpu.s.tr.selector, other);
    EXPECT_EQ(rsp(), 0x6f00u - 16);
}

TEST_F(TaskTest, TaskGatePushesErrorCodeOnNewStack) {
    two_tasks();
    gate32(idt + 13 * 8, other, 0, 0x85);
    execute({0x8e, 0xd0}); // mov ss, eax: #GP(0)
    EXPECT_EQ(cpu.s.rip, 0x6001u);
    EXPECT_EQ(rsp(), 0x6f00u - 4);
    EXPECT_EQ(read<u32>(rsp()), 0u);
    EXPECT_EQ(read<u32>(tss + 0x20), code);
    EXPECT_NE(cpu.s.rflags & rflags::nt, 0u);
}

TEST_F(TaskTest, TrapFlagOfTssIsDebugException) {
    two_tasks();
    write(other_tss + 0x64, u16{1});
    execute({0xea, 0, 0, 0, 0, other, 0});
    EXPECT_EQ(reached(), 1);
    EXPECT_NE(cpu.s.dr6 & dr6::bt, 0u);
    EXPECT_EQ(read<u32>(rsp()), 0x6000u);
}

TEST_F(TaskTest, MissingPageUndoesTheSwitch) {
    two_tasks();
    // The LDT selector names the last GDT page entry, which lies in an absent page.
    cpu.s.gdtr = {gdt, 0xffff};
    write(other_tss + 0x60, u16{0xf000});
    memory_.set_state(Gfn((gdt + 0xf000) >> page_shift), page_state::absent);
    execute({0xea, 0, 0, 0, 0, other, 0});
    EXPECT_EQ(stop, Cpu::Stop::page_needed);
    EXPECT_EQ(cpu.s.rip, code);
    EXPECT_EQ(cpu.s.tr.selector, tss_selector);
    EXPECT_FALSE(busy(other));
    EXPECT_EQ(cpu.s.cr0 & cr0::ts, 0u);
}

} // namespace nestor::cpu
