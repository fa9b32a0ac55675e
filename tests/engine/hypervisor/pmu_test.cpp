// Performance counters: where the USR and OS bits let them count, and when they overflow.
#include "engine/hypervisor/pmu.hpp"

#include <gtest/gtest.h>

namespace nestor::hv {
namespace {

using arch::Msr;

constexpr u64 enable = u64{1} << 22, user = u64{1} << 16, os = u64{1} << 17, instructions = 0xc0,
              cache_misses = 0x412e;
constexpr u64 top = (u64{1} << 48) - 1;

class PmuTest : public ::testing::Test {
protected:
    void write(Msr msr, u64 value) { ASSERT_EQ(pmu.write(msr, value), Pmu::Write::done); }
    void select(u64 event) {
        write(Msr::perf_evt_sel0, event);
        write(Msr::perf_global_ctrl, 1);
    }
    void select_fixed(u64 control) {
        write(Msr::fixed_ctr_ctrl, control);
        write(Msr::perf_global_ctrl, u64{1} << 32);
    }

    Pmu pmu;
};

TEST_F(PmuTest, CountsBothLevelsWhenBothAreAskedFor) {
    select(enable | user | os | instructions);
    pmu.advance({100, 30});
    EXPECT_EQ(pmu.rdpmc(0), 100u);
}

TEST_F(PmuTest, CountsUserLevelsOnly) {
    select(enable | user | instructions);
    pmu.advance({100, 30});
    pmu.advance({150, 30});
    pmu.advance({160, 35});
    EXPECT_EQ(pmu.rdpmc(0), 35u);
}

TEST_F(PmuTest, CountsLevelZeroOnly) {
    select(enable | os | instructions);
    pmu.advance({100, 30});
    EXPECT_EQ(pmu.rdpmc(0), 70u);
}

TEST_F(PmuTest, CountsNothingWhereNoLevelIsAskedFor) {
    select(enable | instructions);
    pmu.advance({100, 30});
    EXPECT_EQ(pmu.rdpmc(0), 0u);
    EXPECT_EQ(pmu.until_overflow(), ~u64{0});
}

TEST_F(PmuTest, CountsNothingForAnotherEvent) {
    select(enable | user | os | cache_misses);
    pmu.advance({100, 30});
    EXPECT_EQ(pmu.rdpmc(0), 0u);
}

TEST_F(PmuTest, FixedCountersFilterByTheirEnableField) {
    constexpr u32 fixed0 = u32{1} << 30;
    select_fixed(1);
    pmu.advance({100, 30});
    EXPECT_EQ(pmu.rdpmc(fixed0), 70u);
    select_fixed(2);
    pmu.advance({200, 50});
    EXPECT_EQ(pmu.rdpmc(fixed0), 90u);
    select_fixed(3);
    pmu.advance({300, 60});
    EXPECT_EQ(pmu.rdpmc(fixed0), 190u);
}

TEST_F(PmuTest, NoOverflowIsMissedWhenCountsAreTakenInWhereItMayCome) {
    select_fixed(8 | 2); // interrupt, CPL 1 to 3
    write(Msr::fixed_ctr0, top - 9);
    Retired now;
    unsigned stops = 0;
    bool due = false;
    while (!due) {
        const u64 step = pmu.until_overflow();
        ASSERT_GT(step, 0u);
        now.all += step;
        now.outside_cpl0 += step / 2 + step % 2;
        due = pmu.advance(now);
        ASSERT_LT(++stops, 10u);
    }
    EXPECT_EQ(now.outside_cpl0, 10u);
    EXPECT_EQ(pmu.read(Msr::perf_global_status), u64{1} << 32);
}

TEST_F(PmuTest, WithoutInterruptAnOverflowOnlySetsItsStatus) {
    select(enable | user | os | instructions);
    write(Msr::pmc0, 0xffffffff); // sign-extended
    EXPECT_EQ(pmu.until_overflow(), ~u64{0});
    EXPECT_FALSE(pmu.advance({1, 1}));
    EXPECT_EQ(pmu.read(Msr::perf_global_status), 1u);
    EXPECT_EQ(pmu.rdpmc(0), 0u);
}

} // namespace
} // namespace nestor::hv
