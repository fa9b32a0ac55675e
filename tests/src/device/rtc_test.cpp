// The real-time clock at register level. Ticks are 1 GHz.
#include "src/device/rtc.hpp"

#include <gtest/gtest.h>

namespace nestor::device {
namespace {

constexpr u64 second = 1000000000;
constexpr i64 start = 951782399; // 2000-02-28 23:59:59, a Monday before a leap day

class RtcTest : public testing::Test {
protected:
    u8 read(u8 reg, u64 now = 0) {
        rtc_.write(0x70, reg, Ticks(now));
        return rtc_.read(0x71, Ticks(now));
    }
    void write(u8 reg, u8 value, u64 now = 0) {
        rtc_.write(0x70, reg, Ticks(now));
        rtc_.write(0x71, value, Ticks(now));
    }

    Rtc rtc_{{.tick_hz = second,
              .start_time = start,
              .memory_below_4g = u64{512} << 20,
              .memory_above_4g = u64{1} << 30,
              .cpus = 4}};
};

TEST_F(RtcTest, ShowsTheStartTimeInBcd) {
    EXPECT_EQ(read(0), 0x59);
    EXPECT_EQ(read(2), 0x59);
    EXPECT_EQ(read(4), 0x23);
    EXPECT_EQ(read(6), 0x02);
    EXPECT_EQ(read(7), 0x28);
    EXPECT_EQ(read(8), 0x02);
    EXPECT_EQ(read(9), 0x00);
    EXPECT_EQ(read(0x32), 0x20);
}

TEST_F(RtcTest, CarriesIntoTheLeapDay) {
    EXPECT_EQ(read(0, second), 0x00);
    EXPECT_EQ(read(4, second), 0x00);
    EXPECT_EQ(read(7, second), 0x29);
    EXPECT_EQ(read(8, second), 0x02);
}

TEST_F(RtcTest, ShowsBinaryAndTwelveHoursOnRequest) {
    write(11, 0x04);
    EXPECT_EQ(read(0), 59);
    EXPECT_EQ(read(4), 0x80 | 11);
    EXPECT_EQ(read(4, second), 12); // midnight
}

TEST_F(RtcTest, StopsWhileSetAndGoesOnFromWhatWasWritten) {
    write(11, 0x82);
    write(0, 0x10, 5 * second);
    write(2, 0x20, 5 * second);
    write(4, 0x03, 5 * second);
    EXPECT_EQ(read(0, 9 * second), 0x10);
    write(11, 0x02, 9 * second);
    EXPECT_EQ(read(0, 10 * second), 0x11);
    EXPECT_EQ(read(4, 10 * second), 0x03);
}

TEST_F(RtcTest, DividerResetMakesTheNextUpdateHalfASecondLater) {
    write(10, 0x70, 100);
    write(10, 0x26, second);
    EXPECT_EQ(read(0, second + second / 2 - 1), 0x59);
    EXPECT_EQ(read(0, second + second / 2), 0x00);
}

TEST_F(RtcTest, UpdateInProgressPrecedesEachSecond) {
    EXPECT_EQ(read(10, second / 2) & 0x80, 0);
    EXPECT_EQ(read(10, second - 1000) & 0x80, 0x80);
    EXPECT_EQ(read(10, second) & 0x80, 0);
}

TEST_F(RtcTest, UpdateInterruptComesEachSecondUntilRead) {
    write(11, 0x12);
    EXPECT_EQ(rtc_.next_deadline(), Ticks(second));
    rtc_.advance(Ticks(second));
    EXPECT_TRUE(rtc_.irq());
    EXPECT_EQ(read(12, second) & 0x90, 0x90);
    EXPECT_FALSE(rtc_.irq());
    EXPECT_EQ(rtc_.next_deadline(), Ticks(2 * second));
}

TEST_F(RtcTest, AlarmMatchesTheTimeAndItsWildcards) {
    write(1, 0x05);
    write(3, 0xff);
    write(5, 0xc0);
    write(11, 0x22);
    EXPECT_EQ(rtc_.next_deadline(), Ticks(6 * second));
    rtc_.advance(Ticks(6 * second));
    EXPECT_TRUE(rtc_.irq());
    EXPECT_EQ(read(12, 6 * second) & 0xb0, 0xb0);
    EXPECT_EQ(rtc_.next_deadline(), Ticks(66 * second));
}

TEST_F(RtcTest, AlarmThatNeverMatchesIsNoDeadline) {
    write(1, 0x75);
    write(11, 0x22);
    EXPECT_EQ(rtc_.next_deadline(), no_deadline);
}

TEST_F(RtcTest, PeriodicInterruptHasTheExactRate) {
    write(10, 0x26); // unchanged: 1024 Hz from tick 0
    write(11, 0x42);
    u64 interrupts = 0;
    while (rtc_.next_deadline() <= Ticks(second)) {
        const Ticks now = rtc_.next_deadline();
        rtc_.advance(now);
        EXPECT_EQ(read(12, now.value()) & 0xc0, 0xc0);
        ++interrupts;
    }
    EXPECT_EQ(interrupts, 1024u);
}

TEST_F(RtcTest, FlagsAreSetForPollingToo) {
    EXPECT_EQ(read(12, 100), 0);
    EXPECT_EQ(read(12, second) & 0x50, 0x50);
    EXPECT_EQ(read(12, second), 0);
}

TEST_F(RtcTest, TellsMemorySizesAndProcessors) {
    EXPECT_EQ(read(0x15) | read(0x16) << 8, 640);
    EXPECT_EQ(read(0x34) | read(0x35) << 8, (512 - 16) * 16);
    EXPECT_EQ(read(0x5b) | read(0x5c) << 8, (1 << 30) >> 16);
    EXPECT_EQ(read(0x5f), 3);
}

TEST_F(RtcTest, CmosRamKeepsWhatIsWritten) {
    write(0x40, 0x77);
    EXPECT_EQ(read(0x40 | 0x80), 0x77); // bit 7 of the index masks NMI
    EXPECT_EQ(rtc_.read(0x70, Ticks(0)), 0xff);
}

TEST_F(RtcTest, SavedAndLoadedItShowsTheSameTime) {
    write(11, 0x12);
    rtc_.advance(Ticks(second));
    Rtc other({.tick_hz = second, .start_time = 0});
    ASSERT_TRUE(other.load(rtc_.save()));
    EXPECT_TRUE(other.irq());
    EXPECT_EQ(other.next_deadline(), rtc_.next_deadline());
    other.write(0x70, 7, Ticks(second));
    EXPECT_EQ(other.read(0x71, Ticks(second)), 0x29);
}

TEST_F(RtcTest, LoadRefusesTimesOutOfRange) {
    state::Rtc bad = rtc_.save();
    bad.base_seconds = std::numeric_limits<i64>::max();
    EXPECT_FALSE(rtc_.load(bad));
}

} // namespace
} // namespace nestor::device
