// What SIMD, x87 and state-saving instructions do when their unit is off (SDM 3A 14.1, tables 2-1
// and 2-2; SDM 2A 2.5), and the pointers x87 instructions leave behind.
#include <gtest/gtest.h>

#include "tests/engine/cpu/oracle/harness.hpp"

namespace nestor::test {

namespace {

using arch::Exception;
using Bytes = std::vector<u8>;

const Bytes paddd_mmx{0x0f, 0xfe, 0xc1};
const Bytes paddd_sse{0x66, 0x0f, 0xfe, 0xc1};
const Bytes vpaddd{0xc5, 0xf1, 0xfe, 0xc1};
const Bytes cvttsd2si_memory{0xf2, 0x0f, 0x2c, 0x03};
const Bytes fld1{0xd9, 0xe8};
const Bytes fwait{0x9b};
const Bytes ldmxcsr{0x0f, 0xae, 0x13};
const Bytes fxsave{0x0f, 0xae, 0x03};
const Bytes xsave{0x0f, 0xae, 0x23};
const Bytes emms{0x0f, 0x77};

class SimdFault : public testing::Test {
protected:
    /// Vector that the instruction ends with; 3 when it runs.
    unsigned vector_of(const Bytes& code) {
        Case c;
        c.code = code;
        c.start.rip = code_address;
        c.start.gpr[3] = data_address;
        return harness.run_guest(c).vector;
    }
    void set(u64 cr0_bits, u64 cr4_clear) {
        cpu::Cpu& cpu = harness.cpu();
        cpu.s.cr0 |= cr0_bits;
        cpu.s.cr4 &= ~cr4_clear;
        cpu.update_mode();
    }

    Harness harness;
};

constexpr unsigned ud = static_cast<unsigned>(Exception::ud);
constexpr unsigned nm = static_cast<unsigned>(Exception::nm);
constexpr unsigned runs = static_cast<unsigned>(Exception::bp);

TEST_F(SimdFault, EverythingRunsWhenAllUnitsAreOn) {
    for (const Bytes& code :
         {paddd_mmx, paddd_sse, vpaddd, cvttsd2si_memory, fld1, fwait, fxsave, xsave, emms}) {
        EXPECT_EQ(vector_of(code), runs);
    }
}

TEST_F(SimdFault, TaskSwitchedGivesDeviceNotAvailable) {
    set(arch::cr0::ts, 0);
    for (const Bytes& code : {paddd_mmx, paddd_sse, vpaddd, cvttsd2si_memory, fld1, fwait, ldmxcsr,
                              fxsave, xsave, emms}) {
        EXPECT_EQ(vector_of(code), nm);
    }
}

TEST_F(SimdFault, EmulationMakesMmxAndSseUndefined) {
    set(arch::cr0::em, 0);
    for (const Bytes& code : {paddd_mmx, paddd_sse, cvttsd2si_memory, ldmxcsr, emms}) {
        EXPECT_EQ(vector_of(code), ud);
    }
    EXPECT_EQ(vector_of(fld1), nm);
    EXPECT_EQ(vector_of(fxsave), nm);
    EXPECT_EQ(vector_of(vpaddd), runs) << "VEX instructions do not look at CR0.EM";
    EXPECT_EQ(vector_of(fwait), runs);
}

TEST_F(SimdFault, SseNeedsOsfxsrAndAvxNeedsOsxsave) {
    set(0, arch::cr4::osfxsr);
    EXPECT_EQ(vector_of(paddd_sse), ud);
    EXPECT_EQ(vector_of(ldmxcsr), ud);
    EXPECT_EQ(vector_of(paddd_mmx), runs);
    set(0, arch::cr4::osxsave);
    EXPECT_EQ(vector_of(vpaddd), ud);
    EXPECT_EQ(vector_of(xsave), ud);
}

TEST_F(SimdFault, AvxNeedsItsStateEnabled) {
    harness.cpu().s.xcr0 = 3;
    harness.cpu().update_mode();
    EXPECT_EQ(vector_of(vpaddd), ud);
    EXPECT_EQ(vector_of(paddd_sse), runs);
}

TEST_F(SimdFault, UnmaskedSimdExceptionsWithoutOsxmmexcptAreUndefinedOpcodes) {
    set(0, arch::cr4::osxmmexcpt);
    Case c;
    c.vector = true;
    c.code = {0xf3, 0x0f, 0x5e, 0xc1}; // divss xmm0, xmm1: 0 / 0
    c.start.rip = code_address;
    c.start.mxcsr = 0x1f00;
    const Result r = harness.run_guest(c);
    EXPECT_EQ(r.vector, ud);
    EXPECT_EQ(r.end.mxcsr, 0x1f01u);
}

TEST_F(SimdFault, PendingX87ExceptionsReachMmxAndWaitingInstructions) {
    for (const Bytes& code : {paddd_mmx, fld1, fwait, emms}) {
        harness.cpu().s.x87.control = 0x37e;
        harness.cpu().s.x87.status = 0x8081;
        EXPECT_EQ(vector_of(code), static_cast<unsigned>(Exception::mf));
    }
    EXPECT_EQ(vector_of({0xdb, 0xe2}), runs) << "FNCLEX does not wait";
    EXPECT_EQ(harness.cpu().s.x87.status, 0);
}

TEST_F(SimdFault, PointersAreThoseOfTheLastNonControlInstruction) {
    // fld dword [rbx + 4]; fstcw [rbx + 8]
    EXPECT_EQ(vector_of({0xd9, 0x43, 4, 0xd9, 0x7b, 8}), runs);
    const state::X87& f = harness.cpu().s.x87;
    EXPECT_EQ(f.instruction_pointer, code_address);
    EXPECT_EQ(f.data_pointer, data_address + 4);
    EXPECT_EQ(f.opcode, 0x143);
    EXPECT_EQ(f.instruction_selector, 0);
}

TEST_F(SimdFault, TheDataPointerLeavesOutTheSegmentBase) {
    harness.cpu().seg(arch::Seg::fs).base = data_address;
    Case c;
    c.code = {0x64, 0xd9, 0x43, 4}; // fld dword fs:[rbx + 4]
    c.start.rip = code_address;
    c.start.gpr[3] = 0x10;
    EXPECT_EQ(harness.run_guest(c).vector, runs);
    EXPECT_EQ(harness.cpu().s.x87.data_pointer, 0x14u);
}

} // namespace

} // namespace nestor::test
