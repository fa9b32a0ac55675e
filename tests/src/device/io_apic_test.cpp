// The 82093AA at register level.
#include "src/device/io_apic.hpp"

#include <gtest/gtest.h>

#include <vector>

namespace nestor::device {
namespace {

using Message = hv::InterruptMessage;

class IoApicTest : public testing::Test, public MessageSink {
protected:
    void send(const Message& message) override { sent_.push_back(message); }

    void write(u8 reg, u32 value) {
        io_apic_.write(0x00, reg);
        io_apic_.write(0x10, value);
    }
    u32 read(u8 reg) {
        io_apic_.write(0x00, reg);
        return io_apic_.read(0x10);
    }
    void program(unsigned pin, u32 low, u32 high = 0) {
        write(static_cast<u8>(0x11 + 2 * pin), high);
        write(static_cast<u8>(0x10 + 2 * pin), low);
    }

    std::vector<Message> sent_;
    IoApic io_apic_{*this};
};

constexpr u32 level_triggered = 1 << 15;
constexpr u32 masked = 1 << 16;
constexpr u32 remote_irr = 1 << 14;

TEST_F(IoApicTest, VersionTellsOfTwentyFourInputs) { EXPECT_EQ(read(1), 0x00170020u); }

TEST_F(IoApicTest, IdentifierKeepsFourBits) {
    write(0, 0xffffffff);
    EXPECT_EQ(read(0), 0x0f000000u);
    EXPECT_EQ(read(2), 0x0f000000u);
}

TEST_F(IoApicTest, AllInputsAreMaskedAtReset) {
    for (unsigned pin = 0; pin < 24; ++pin) {
        io_apic_.set_line(pin, true);
        EXPECT_EQ(read(static_cast<u8>(0x10 + 2 * pin)), masked);
    }
    EXPECT_TRUE(sent_.empty());
}

TEST_F(IoApicTest, EdgeSendsOneMessageWithTheEntrysFields) {
    program(4, 0x0000'0900 | 0x41, 0x0300'0000); // logical, lowest priority
    io_apic_.set_line(4, true);
    io_apic_.set_line(4, true);
    ASSERT_EQ(sent_.size(), 1u);
    EXPECT_EQ(sent_[0].vector, Vector(0x41));
    EXPECT_EQ(sent_[0].destination, 3u);
    EXPECT_TRUE(sent_[0].logical);
    EXPECT_EQ(sent_[0].delivery, Message::Delivery::lowest_priority);
    EXPECT_FALSE(sent_[0].level_triggered);
    io_apic_.set_line(4, false);
    io_apic_.set_line(4, true);
    EXPECT_EQ(sent_.size(), 2u);
}

TEST_F(IoApicTest, EdgeOnAMaskedInputIsLost) {
    program(4, masked | 0x41);
    io_apic_.set_line(4, true);
    program(4, 0x41);
    EXPECT_TRUE(sent_.empty());
}

TEST_F(IoApicTest, LevelOnAMaskedInputIsSentWhenUnmasked) {
    program(9, masked | level_triggered | 0x50);
    io_apic_.set_line(9, true);
    EXPECT_TRUE(sent_.empty());
    program(9, level_triggered | 0x50);
    EXPECT_EQ(sent_.size(), 1u);
}

TEST_F(IoApicTest, LevelIsSentAgainAfterItsEoiWhileAsserted) {
    program(9, level_triggered | 0x50);
    io_apic_.set_line(9, true);
    EXPECT_EQ(read(0x10 + 18) & remote_irr, remote_irr);
    EXPECT_EQ(sent_.size(), 1u);
    io_apic_.end_of_interrupt(Vector(0x51)); // another vector
    EXPECT_EQ(sent_.size(), 1u);
    io_apic_.end_of_interrupt(Vector(0x50));
    EXPECT_EQ(sent_.size(), 2u);
    io_apic_.set_line(9, false);
    io_apic_.end_of_interrupt(Vector(0x50));
    EXPECT_EQ(sent_.size(), 2u);
    EXPECT_EQ(read(0x10 + 18) & remote_irr, 0u);
}

TEST_F(IoApicTest, EoiRegisterEndsLikeABroadcast) {
    program(9, level_triggered | 0x50);
    io_apic_.set_line(9, true);
    io_apic_.write(0x40, 0x50);
    EXPECT_EQ(sent_.size(), 2u);
}

TEST_F(IoApicTest, SwitchingToEdgeClearsRemoteIrr) {
    program(9, level_triggered | 0x50);
    io_apic_.set_line(9, true);
    program(9, masked | 0x50);
    EXPECT_EQ(read(0x10 + 18) & remote_irr, 0u);
}

TEST_F(IoApicTest, ReadOnlyBitsOfAnEntryAreNotWritable) {
    program(3, 0xffffffff, 0xffffffff);
    EXPECT_EQ(read(0x10 + 6), 0x0001afffu);
    EXPECT_EQ(read(0x10 + 7), 0xff000000u);
}

TEST_F(IoApicTest, RegistersThatDoNotExistReadAsZero) {
    EXPECT_EQ(read(0x40), 0u);
    EXPECT_EQ(read(0x05), 0u);
    EXPECT_EQ(io_apic_.read(0x20), 0u);
}

TEST_F(IoApicTest, LoadRefusesRemoteIrrOnAnEdge) {
    state::IoApic bad = io_apic_.save();
    bad.redirection[3] |= remote_irr;
    EXPECT_FALSE(io_apic_.load(bad));
    bad.redirection[3] |= level_triggered;
    EXPECT_TRUE(io_apic_.load(bad));
}

} // namespace
} // namespace nestor::device
