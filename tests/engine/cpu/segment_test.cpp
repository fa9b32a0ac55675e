// Segment loads, rights and limits; LGDT, LIDT, LTR and the like.
#include "tests/engine/cpu/system_fixture.hpp"

namespace nestor::cpu {

using namespace arch;

// --- segments -----------------------------------------------------------------------------------

TEST_F(SystemTest, LoadingSegmentSetsAccessedBit) {
    protected_mode();
    descriptor(free_selector, 0x1000, 0xfff, 0x4092);
    cpu.s.gpr[0] = free_selector;
    execute({0x8e, 0xc0, 0xf4});
    EXPECT_EQ(cpu.seg(Seg::es).base, 0x1000u);
    EXPECT_EQ(cpu.seg(Seg::es).limit, 0xfffu);
    EXPECT_EQ(read<u8>(gdt + free_selector + 5), 0x93);
}

TEST_F(SystemTest, AbsentSegmentIsNpAndAbsentStackIsSs) {
    protected_mode();
    descriptor(free_selector, 0, 0xfff, 0x4012);
    cpu.s.gpr[0] = free_selector;
    execute({0x8e, 0xc0});
    expect_fault32(11, free_selector, code);
    protected_mode();
    descriptor(free_selector, 0, 0xfff, 0x4012);
    cpu.s.gpr[0] = free_selector;
    execute({0x8e, 0xd0});
    expect_fault32(12, free_selector, code);
}

TEST_F(SystemTest, MovSsHoldsOffTheSingleStepTrap) {
    protected_mode();
    cpu.s.rflags |= rflags::tf;
    cpu.rehydrate();
    cpu.s.gpr[0] = data0;
    execute({0x8e, 0xd0, 0x90, 0x90});
    EXPECT_EQ(reached(), 1);
    EXPECT_EQ(read<u32>(rsp()), code + 3);
}

TEST_F(SystemTest, NullSelectorInDsFaultsOnUse) {
    protected_mode();
    cpu.s.gpr[0] = 0;
    execute({0x8e, 0xd8, 0xa1, 0, 0, 0, 0});
    expect_fault32(13, 0, code + 2);
}

TEST_F(SystemTest, PushOfSegmentWithDwordOperandWritesTwoBytes) {
    protected_mode();
    write(stack_top - 4, u32{0xdeadbeef});
    execute({0x1e, 0xf4});
    EXPECT_EQ(read<u32>(stack_top - 4), 0xdead0000u | data0);
}

TEST_F(SystemTest, LarAndLslReportRightsAndLimit) {
    protected_mode();
    descriptor(free_selector, 0, 0x12345, 0xc0f2);
    cpu.s.gpr[1] = free_selector;
    execute({0x0f, 0x02, 0xc1, 0x0f, 0x03, 0xd1, 0xf4});
    EXPECT_EQ(rax(), 0x00c0f200u);
    EXPECT_EQ(cpu.gpr(Gpr::rdx), 0x12345fffu);
    EXPECT_NE(cpu.s.rflags & rflags::zf, 0u);
}

TEST_F(SystemTest, VerwOfCodeClearsZf) {
    protected_mode();
    cpu.s.gpr[0] = code0;
    cpu.s.rflags |= rflags::zf;
    execute({0x0f, 0x00, 0xe8, 0xf4});
    EXPECT_EQ(cpu.s.rflags & rflags::zf, 0u);
}

TEST_F(SystemTest, ArplRaisesRpl) {
    protected_mode();
    cpu.s.gpr[0] = 0x10;
    cpu.s.gpr[1] = 3;
    execute({0x63, 0xc8, 0xf4});
    EXPECT_EQ(rax(), 0x13u);
    EXPECT_NE(cpu.s.rflags & rflags::zf, 0u);
}

// --- tables -------------------------------------------------------------------------------------

TEST_F(SystemTest, LgdtInLongModeTakesTenBytes) {
    long_mode();
    write(data, u16{0x1234});
    write(data + 2, u64{0xffff800000001000});
    cpu.s.gpr[0] = data;
    execute({0x0f, 0x01, 0x10, 0xf4});
    EXPECT_EQ(cpu.s.gdtr.base, 0xffff800000001000u);
    EXPECT_EQ(cpu.s.gdtr.limit, 0x1234);
}

TEST_F(SystemTest, LidtWithNonCanonicalBaseIsGp) {
    long_mode();
    write(data + 2, u64{0x0080000000000000});
    cpu.s.gpr[0] = data;
    execute({0x0f, 0x01, 0x18});
    expect_fault64(13, 0, code);
}

TEST_F(SystemTest, UmipMakesSidtGpAtCpl3) {
    long_mode(3);
    cpu.s.cr4 |= cr4::umip;
    cpu.s.gpr[0] = data;
    execute({0x0f, 0x01, 0x08});
    expect_fault64(13, 0, code);
}

TEST_F(SystemTest, LtrSetsBusyAndRefusesBusy) {
    long_mode();
    descriptor(free_selector, tss, 0x67, 0x0089);
    write(gdt + free_selector + 8, u64{0});
    cpu.s.gpr[0] = free_selector;
    execute({0x0f, 0x00, 0xd8, 0xf4});
    EXPECT_EQ(cpu.s.tr.selector, free_selector);
    EXPECT_EQ(read<u8>(gdt + free_selector + 5), 0x8b);
    EXPECT_EQ(cpu.s.tr.attributes & 0xffu, 0x8bu);
    cpu.s.activity = state::ActivityState::active;
    cpu.s.rip = code;
    stop = cpu.run(0, 10);
    expect_fault64(13, free_selector, code);
}

} // namespace nestor::cpu
