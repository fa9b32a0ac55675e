// The 8254 at register level. Ticks are 1 GHz, so a PIT clock is 838.1 ticks.
#include "src/device/pit.hpp"

#include <gtest/gtest.h>

#include <vector>

namespace nestor::device {
namespace {

constexpr u64 ticks_per_second = 1000000000;
constexpr Oscillator oscillator(Pit::hz, ticks_per_second);

/// The first tick at which `clock` PIT clocks have passed.
Ticks at(u64 clock) { return oscillator.tick_of(clock); }

void program(Pit& pit, unsigned channel, unsigned mode, u16 count, u64 clock = 0) {
    pit.write(0x43, static_cast<u8>(channel << 6 | 0x30 | mode << 1), at(clock));
    pit.write(static_cast<u16>(0x40 + channel), static_cast<u8>(count), at(clock));
    pit.write(static_cast<u16>(0x40 + channel), static_cast<u8>(count >> 8), at(clock));
}

u16 latched(Pit& pit, unsigned channel, u64 clock) {
    pit.write(0x43, static_cast<u8>(channel << 6), at(clock));
    const u8 low = pit.read(static_cast<u16>(0x40 + channel), at(clock));
    const u8 high = pit.read(static_cast<u16>(0x40 + channel), at(clock));
    return static_cast<u16>(high << 8 | low);
}

/// Follows channel 0 deadline by deadline; the clocks of rising edges up to `until`.
std::vector<u64> rising_edges(Pit& pit, u64 until) {
    std::vector<u64> edges;
    bool before = pit.irq();
    while (pit.next_deadline() <= at(until)) {
        const Ticks now = pit.next_deadline();
        pit.advance(now);
        if (pit.irq() && !before) {
            edges.push_back(oscillator.cycles(now));
        }
        before = pit.irq();
    }
    return edges;
}

TEST(PitTest, Mode0RaisesItsOutputOnceAtTheEndOfTheCount) {
    Pit pit(ticks_per_second);
    program(pit, 0, 0, 1000);
    EXPECT_FALSE(pit.irq());
    EXPECT_EQ(latched(pit, 0, 400), 600);
    EXPECT_EQ(rising_edges(pit, 100000), std::vector<u64>{1000});
    EXPECT_EQ(pit.next_deadline(), no_deadline);
    EXPECT_EQ(latched(pit, 0, 100000), static_cast<u16>(1000 - 100000)); // it counts on
}

TEST(PitTest, Mode2GivesAnEdgeEachPeriodExactly) {
    Pit pit(ticks_per_second);
    program(pit, 0, 2, 1193);
    std::vector<u64> expected;
    for (u64 i = 1; i <= 50; ++i) {
        expected.push_back(1193 * i);
    }
    EXPECT_EQ(rising_edges(pit, 1193 * 50), expected);
}

TEST(PitTest, Mode2CountsDownToOneAndReloads) {
    Pit pit(ticks_per_second);
    program(pit, 0, 2, 100);
    EXPECT_EQ(latched(pit, 0, 0), 100);
    EXPECT_EQ(latched(pit, 0, 99), 1);
    EXPECT_EQ(latched(pit, 0, 100), 100);
    EXPECT_EQ(latched(pit, 0, 1030), 70);
}

TEST(PitTest, Mode2TakesANewCountAtTheEndOfThePeriod) {
    Pit pit(ticks_per_second);
    program(pit, 0, 2, 100);
    pit.write(0x40, 50, at(30));
    pit.write(0x40, 0, at(30));
    EXPECT_EQ(latched(pit, 0, 99), 1);
    EXPECT_EQ(rising_edges(pit, 210), (std::vector<u64>{100, 150, 200}));
}

TEST(PitTest, Mode3IsASquareWaveThatCountsByTwo) {
    Pit pit(ticks_per_second);
    program(pit, 0, 3, 100);
    EXPECT_TRUE(pit.irq());
    EXPECT_EQ(latched(pit, 0, 10), 80);
    EXPECT_EQ(latched(pit, 0, 60), 80);
    EXPECT_EQ(rising_edges(pit, 300), (std::vector<u64>{100, 200, 300}));
}

TEST(PitTest, Mode3WithAnOddCountIsHighForOneClockMore) {
    Pit pit(ticks_per_second);
    program(pit, 0, 3, 5);
    std::vector<bool> wave;
    for (u64 clock = 0; clock < 10; ++clock) {
        pit.advance(at(clock));
        wave.push_back(pit.irq());
    }
    EXPECT_EQ(wave, (std::vector<bool>{1, 1, 1, 0, 0, 1, 1, 1, 0, 0}));
}

TEST(PitTest, Mode3TakesANewCountAtTheEndOfTheHalfCycle) {
    Pit pit(ticks_per_second);
    program(pit, 0, 3, 100);
    pit.write(0x40, 40, at(10));
    pit.write(0x40, 0, at(10));
    EXPECT_EQ(rising_edges(pit, 120), (std::vector<u64>{70, 110})); // low half is 20 long
}

TEST(PitTest, Mode4StrobesForOneClock) {
    Pit pit(ticks_per_second);
    program(pit, 0, 4, 10);
    EXPECT_TRUE(pit.irq());
    EXPECT_EQ(rising_edges(pit, 1000), std::vector<u64>{11});
}

TEST(PitTest, GatePausesMode0AndPort61ShowsTheOutput) {
    Pit pit(ticks_per_second);
    pit.write(0x61, 1, at(0));
    program(pit, 2, 0, 100);
    pit.write(0x61, 0, at(40));
    EXPECT_EQ(latched(pit, 2, 1000), 60);
    pit.write(0x61, 1, at(1000));
    EXPECT_EQ(pit.read(0x61, at(1059)) & 0x20, 0);
    EXPECT_EQ(pit.read(0x61, at(1060)) & 0x20, 0x20);
}

TEST(PitTest, GateTriggersMode1AndRetriggersIt) {
    Pit pit(ticks_per_second);
    program(pit, 2, 1, 100);
    EXPECT_EQ(pit.read(0x61, at(10)) & 0x20, 0x20);
    pit.write(0x61, 1, at(10));
    EXPECT_EQ(pit.read(0x61, at(109)) & 0x20, 0);
    EXPECT_EQ(pit.read(0x61, at(110)) & 0x20, 0x20);
    pit.write(0x61, 0, at(200));
    pit.write(0x61, 1, at(200));
    EXPECT_EQ(pit.read(0x61, at(250)) & 0x20, 0);
}

TEST(PitTest, GateReloadsMode2) {
    Pit pit(ticks_per_second);
    pit.write(0x61, 1, at(0));
    program(pit, 2, 2, 100);
    pit.write(0x61, 0, at(30));
    pit.write(0x61, 1, at(50));
    EXPECT_EQ(latched(pit, 2, 60), 90);
}

TEST(PitTest, RefreshBitTogglesBetweenReads) {
    Pit pit(ticks_per_second);
    EXPECT_NE(pit.read(0x61, at(0)) & 0x10, pit.read(0x61, at(18)) & 0x10);
}

TEST(PitTest, LatchHoldsTheCountUntilBothBytesAreRead) {
    Pit pit(ticks_per_second);
    program(pit, 0, 0, 0x1234);
    pit.write(0x43, 0x00, at(4));
    EXPECT_EQ(pit.read(0x40, at(100)), 0x30);
    EXPECT_EQ(pit.read(0x40, at(5000)), 0x12);
    EXPECT_EQ(pit.read(0x40, at(0x10034)), 0x00); // live again
}

TEST(PitTest, ReadBackLatchesStatusThenCount) {
    Pit pit(ticks_per_second);
    program(pit, 0, 2, 100);
    pit.write(0x43, 0xc2, at(10));           // count and status of channel 0
    EXPECT_EQ(pit.read(0x40, at(50)), 0xb4); // out, both bytes, mode 2
    EXPECT_EQ(pit.read(0x40, at(50)), 90);
    EXPECT_EQ(pit.read(0x40, at(50)), 0);
}

TEST(PitTest, StatusShowsThatNoCountWasWritten) {
    Pit pit(ticks_per_second);
    pit.write(0x43, 0x34, at(0));
    pit.write(0x43, 0xe2, at(0));
    EXPECT_EQ(pit.read(0x40, at(0)) & 0x40, 0x40);
}

TEST(PitTest, BcdCountsInDecimal) {
    Pit pit(ticks_per_second);
    pit.write(0x43, 0x35, at(0)); // mode 2, BCD
    pit.write(0x40, 0x00, at(0));
    pit.write(0x40, 0x10, at(0)); // 1000
    EXPECT_EQ(latched(pit, 0, 1), 0x0999);
    EXPECT_EQ(latched(pit, 0, 1001), 0x0999);
}

TEST(PitTest, ZeroIsTheLargestCount) {
    Pit pit(ticks_per_second);
    program(pit, 0, 2, 0);
    EXPECT_EQ(rising_edges(pit, 200000), (std::vector<u64>{65536, 131072, 196608}));
}

TEST(PitTest, SavedAndLoadedItGoesOnIdentically) {
    Pit one(ticks_per_second);
    program(one, 0, 3, 777);
    one.advance(at(5000));
    Pit two(ticks_per_second);
    ASSERT_TRUE(two.load(one.save()));
    EXPECT_EQ(rising_edges(one, 20000), rising_edges(two, 20000));
}

TEST(PitTest, LoadRefusesACountThatCannotBe) {
    state::Pit bad;
    bad.channels[0].count = 0;
    Pit pit(ticks_per_second);
    EXPECT_FALSE(pit.load(bad));
}

TEST(PitTest, CountsThatAreNoDecimalNumbersCanBeSaved) {
    Pit pit(ticks_per_second);
    pit.write(0x43, 0x31, at(0)); // channel 0, both bytes, mode 0, BCD: the count stays 65536
    Pit other(ticks_per_second);
    EXPECT_TRUE(other.load(pit.save()));
    pit.write(0x40, 0xff, at(0));
    pit.write(0x40, 0xff, at(0));
    EXPECT_TRUE(other.load(pit.save()));
    EXPECT_EQ(latched(other, 0, 10), latched(pit, 0, 10));
}

} // namespace
} // namespace nestor::device
