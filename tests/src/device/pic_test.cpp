// The 8259A pair at register level.
#include "src/device/pic.hpp"

#include <gtest/gtest.h>

namespace nestor::device {
namespace {

/// Both chips initialised as Linux does it: vectors 0x30 and 0x38, nothing masked.
Pic initialised(u8 icw4 = 1) {
    Pic pic;
    for (const u16 base : {0x20, 0xa0}) {
        pic.write(base, 0x11);
        pic.write(base + 1, base == 0x20 ? 0x30 : 0x38);
        pic.write(base + 1, base == 0x20 ? 4 : 2);
        pic.write(base + 1, icw4);
        pic.write(base + 1, 0);
    }
    return pic;
}

void pulse(Pic& pic, unsigned irq) {
    pic.set_line(irq, true);
    pic.set_line(irq, false);
}

u8 isr(Pic& pic, u16 base = 0x20) {
    pic.write(base, 0x0b);
    return pic.read(base);
}

TEST(PicTest, EdgeIsDeliveredOnceWithItsVector) {
    Pic pic = initialised();
    pulse(pic, 4);
    ASSERT_TRUE(pic.output());
    EXPECT_EQ(pic.acknowledge(), Vector(0x34));
    EXPECT_FALSE(pic.output());
    EXPECT_EQ(isr(pic), 0x10);
    pic.write(0x20, 0x20);
    EXPECT_EQ(isr(pic), 0);
}

TEST(PicTest, MaskHoldsARequestBack) {
    Pic pic = initialised();
    pic.write(0x21, 0x10);
    EXPECT_EQ(pic.read(0x21), 0x10);
    pulse(pic, 4);
    EXPECT_FALSE(pic.output());
    pic.write(0x21, 0);
    EXPECT_TRUE(pic.output());
}

TEST(PicTest, LowerPriorityWaitsForEndOfInterrupt) {
    Pic pic = initialised();
    pulse(pic, 3);
    EXPECT_EQ(pic.acknowledge(), Vector(0x33));
    pulse(pic, 5);
    EXPECT_FALSE(pic.output());
    pulse(pic, 1);
    EXPECT_EQ(pic.acknowledge(), Vector(0x31));
    pic.write(0x20, 0x20); // ends 1
    EXPECT_EQ(isr(pic), 0x08);
    pic.write(0x20, 0x63); // specific: ends 3
    EXPECT_EQ(pic.acknowledge(), Vector(0x35));
}

TEST(PicTest, SlaveRequestComesThroughTheCascade) {
    Pic pic = initialised();
    pulse(pic, 12);
    EXPECT_EQ(pic.acknowledge(), Vector(0x3c));
    EXPECT_EQ(isr(pic), 0x04);
    EXPECT_EQ(isr(pic, 0xa0), 0x10);
    pulse(pic, 9); // higher on the slave, but the master's input 2 is in service
    EXPECT_FALSE(pic.output());
    pic.write(0xa0, 0x20);
    pic.write(0x20, 0x20);
    EXPECT_EQ(pic.acknowledge(), Vector(0x39));
}

TEST(PicTest, SpecialFullyNestedModeLetsAHigherSlaveRequestThrough) {
    Pic pic = initialised(0x11);
    pulse(pic, 12);
    EXPECT_EQ(pic.acknowledge(), Vector(0x3c));
    pulse(pic, 9);
    EXPECT_EQ(pic.acknowledge(), Vector(0x39));
}

TEST(PicTest, AcknowledgeWithoutRequestIsSpurious) {
    Pic pic = initialised();
    EXPECT_EQ(pic.acknowledge(), Vector(0x37));
    EXPECT_EQ(isr(pic), 0);
}

TEST(PicTest, LevelInputRequestsAsLongAsItIsHigh) {
    Pic pic = initialised();
    pic.write(0x4d0, 0xff);
    EXPECT_EQ(pic.read(0x4d0), 0xf8); // the system's own inputs stay edge triggered
    pic.set_line(5, true);
    EXPECT_EQ(pic.acknowledge(), Vector(0x35));
    pic.write(0x20, 0x20);
    EXPECT_TRUE(pic.output());
    pic.set_line(5, false);
    EXPECT_FALSE(pic.output());
}

TEST(PicTest, AutomaticEoiLeavesNothingInService) {
    Pic pic = initialised(3);
    pulse(pic, 3);
    EXPECT_EQ(pic.acknowledge(), Vector(0x33));
    EXPECT_EQ(isr(pic), 0);
}

TEST(PicTest, RotationOnEoiMakesTheServedInputTheLowest) {
    Pic pic = initialised();
    pulse(pic, 3);
    EXPECT_EQ(pic.acknowledge(), Vector(0x33));
    pic.write(0x20, 0xa0); // rotate on non-specific EOI
    pulse(pic, 3);
    pulse(pic, 6);
    EXPECT_EQ(pic.acknowledge(), Vector(0x36));
}

TEST(PicTest, RotationOnAutomaticEoiFollowsItsSwitch) {
    Pic pic = initialised(3);
    pic.write(0x20, 0x80);
    pulse(pic, 0);
    EXPECT_EQ(pic.acknowledge(), Vector(0x30));
    pulse(pic, 0);
    pulse(pic, 7);
    EXPECT_EQ(pic.acknowledge(), Vector(0x37));
}

TEST(PicTest, SetPriorityChoosesTheLowestInput) {
    Pic pic = initialised();
    pic.write(0x20, 0xc4); // 4 is lowest, 5 highest
    pulse(pic, 0);
    pulse(pic, 5);
    EXPECT_EQ(pic.acknowledge(), Vector(0x35));
}

TEST(PicTest, SpecialMaskModeLetsLowerPrioritiesThrough) {
    Pic pic = initialised();
    pulse(pic, 1);
    EXPECT_EQ(pic.acknowledge(), Vector(0x31));
    pulse(pic, 6);
    EXPECT_FALSE(pic.output());
    pic.write(0x21, 0x02);
    pic.write(0x20, 0x68); // special mask
    EXPECT_EQ(pic.acknowledge(), Vector(0x36));
    pic.write(0x20, 0x20); // non-specific EOI spares the masked one
    EXPECT_EQ(isr(pic), 0x02);
}

TEST(PicTest, PollAcknowledgesAndTellsTheInput) {
    Pic pic = initialised();
    pic.write(0x20, 0x0c);
    EXPECT_EQ(pic.read(0x20), 0x07);
    pulse(pic, 5);
    pic.write(0x20, 0x0c);
    EXPECT_EQ(pic.read(0x20), 0x85);
    EXPECT_EQ(isr(pic), 0x20);
}

TEST(PicTest, CommandWordChoosesWhichRegisterIsRead) {
    Pic pic = initialised();
    pulse(pic, 6);
    pic.write(0x20, 0x0a);
    EXPECT_EQ(pic.read(0x20), 0x40);
    EXPECT_EQ(isr(pic), 0);
}

TEST(PicTest, InitialisationClearsMaskAndService) {
    Pic pic = initialised();
    pulse(pic, 2 + 1);
    EXPECT_EQ(pic.acknowledge(), Vector(0x33));
    pic.write(0x21, 0xff);
    pic.write(0x20, 0x11);
    EXPECT_EQ(pic.save().chips[0].imr, 0);
    EXPECT_EQ(pic.save().chips[0].isr, 0);
}

TEST(PicTest, WithdrawnSlaveRequestLeavesNothingOnTheMaster) {
    Pic pic = initialised();
    pic.write(0x4d1, 0x04);
    pic.set_line(10, true);
    EXPECT_TRUE(pic.output());
    pic.set_line(10, false);
    EXPECT_FALSE(pic.output());
}

TEST(PicTest, LoadRefusesAPriorityOutOfRange) {
    state::Pic bad;
    bad.chips[1].lowest_priority = 8;
    Pic pic;
    EXPECT_FALSE(pic.load(bad));
}

} // namespace
} // namespace nestor::device
