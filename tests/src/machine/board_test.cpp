// The wiring of the board: ports, sizes of accesses, interrupt lines.
#include "src/machine/board.hpp"

#include <gtest/gtest.h>

#include "src/machine/memory.hpp"

namespace nestor::machine {
namespace {

class BoardTest : public testing::Test, public device::MessageSink {
protected:
    void send(const hv::InterruptMessage& message) override { sent_.push_back(message); }

    u32 in(u16 port, unsigned size = 1) { return board_.read_port(port, size, now_); }
    BoardEvent out(u16 port, u32 value, unsigned size = 1) {
        return board_.write_port(port, size, value, now_);
    }
    void program_pin(unsigned pin, u32 low) {
        board_.write_mmio(Gpa(device::IoApic::base), 4, 0x10 + 2 * pin);
        board_.write_mmio(Gpa(device::IoApic::base + 0x10), 4, low);
    }

    bool pin(unsigned n) { return (board_.save().io_apic.lines >> n & 1) != 0; }

    std::vector<device::E820Entry> map_ = memory_map(u64{64} << 20);
    std::vector<hv::InterruptMessage> sent_;
    Board board_{{.tick_hz = 1000000000,
                  .start_time = 0,
                  .memory = u64{64} << 20,
                  .cpus = 1,
                  .memory_map = map_},
                 *this};
    Ticks now_{0};
};

TEST_F(BoardTest, UnclaimedPortsReadAsOnesAndIgnoreWrites) {
    for (const u16 port : {0x80, 0xed, 0x2f8, 0x1234, 0xffff}) {
        EXPECT_EQ(out(port, 0x55).kind, BoardEvent::Kind::none);
        EXPECT_EQ(in(port), 0xffu);
        EXPECT_EQ(in(port, 4), 0xffffffffu);
    }
}

TEST_F(BoardTest, WideAccessesReachNeighbouringRegisters) {
    out(0xe0, 0x11223344, 4);
    EXPECT_EQ(in(0xe0, 4), 0x11223344u);
    EXPECT_EQ(in(0xe1, 2), 0x2233u);
    out(0xe8, 0xaa);
    EXPECT_EQ(in(0xe0, 4), 0x112233aau);
}

TEST_F(BoardTest, PciConfigurationSpaceHoldsAHostBridgeOnly) {
    out(0xcf8, 0x80000000, 4);
    EXPECT_EQ(in(0xcf8, 4), 0x80000000u);
    EXPECT_EQ(in(0xcfc, 2), 0x8086u);
    out(0xcf8, 0x80000800, 4);
    EXPECT_EQ(in(0xcfc, 4), 0xffffffffu);
    EXPECT_EQ(in(0xcfc, 2), 0xffffu);
}

TEST_F(BoardTest, ANewGenerationIsReadAtItsPageAndRaisesItsEvent) {
    device::VmGeneration::Id id{};
    id.front() = 0x11;
    id.back() = 0x22;
    out(0x60d, 1); // GPE0_EN
    EXPECT_FALSE(pin(device::AcpiPm::sci_irq));
    board_.set_generation(id);
    EXPECT_TRUE(pin(device::AcpiPm::sci_irq));
    EXPECT_EQ(board_.read_mmio(Gpa(device::VmGeneration::base), 8), 0x11u);
    EXPECT_EQ(board_.read_mmio(Gpa(device::VmGeneration::base + 8), 8), u64{0x22} << 56);
    out(0x60c, 1);
    EXPECT_FALSE(pin(device::AcpiPm::sci_irq));
    board_.reset(now_);
    EXPECT_EQ(board_.save().vm_generation.id, id);
}

TEST_F(BoardTest, ASetClockShowsTheNewTimeAndGoesOnFromThere) {
    board_.set_clock(1'000'000'000, now_);
    EXPECT_EQ(board_.clock_seconds(now_), 1'000'000'000);
    EXPECT_EQ(board_.clock_seconds(now_ + 5'000'000'000), 1'000'000'005);
}

TEST_F(BoardTest, ResetComesFromThreePlaces) {
    EXPECT_EQ(out(0xcf9, 0x06).kind, BoardEvent::Kind::reset);
    EXPECT_EQ(out(0x64, 0xfe).kind, BoardEvent::Kind::reset);
    EXPECT_EQ(out(0x92, 0x01).kind, BoardEvent::Kind::reset);
    EXPECT_EQ(out(0x92, 0x02).kind, BoardEvent::Kind::none);
}

TEST_F(BoardTest, PowerOffTakesAWordOrItsHighByte) {
    EXPECT_EQ(out(0x604, 0x3400, 2).kind, BoardEvent::Kind::power_off);
    EXPECT_EQ(out(0x605, 0x34).kind, BoardEvent::Kind::power_off);
}

TEST_F(BoardTest, DebugExitTakesTheLowByteOfAnySize) {
    const BoardEvent event = out(0xf4, 0x12345610, 4);
    EXPECT_EQ(event.kind, BoardEvent::Kind::debug_exit);
    EXPECT_EQ(event.value, 0x10);
}

TEST_F(BoardTest, FirmwareConfigurationIsReadThroughItsPorts) {
    out(0x510, 0x0000, 2);
    std::string signature;
    for (int i = 0; i < 4; ++i) {
        signature += static_cast<char>(in(0x511));
    }
    EXPECT_EQ(signature, "QEMU");
}

TEST_F(BoardTest, TestDeviceRaisesLinesOfBothControllers) {
    program_pin(11, 0x51);
    out(0x2000 + 11, 1);
    ASSERT_EQ(sent_.size(), 1u);
    EXPECT_EQ(sent_[0].vector, Vector(0x51));
    const state::Pic pic = board_.save().pic;
    EXPECT_EQ(pic.chips[1].lines, 1 << 3);
    out(0x2000 + 11, 0);
    EXPECT_EQ(board_.save().pic.chips[1].lines, 0);
    EXPECT_FALSE(pin(11));
}

TEST_F(BoardTest, TimerArrivesAtInputTwoOfTheIoApic) {
    program_pin(2, 0x30);
    out(0x43, 0x30); // mode 0
    out(0x40, 100);
    out(0x40, 0);
    now_ = board_.next_deadline();
    board_.advance(now_);
    ASSERT_EQ(sent_.size(), 1u);
    EXPECT_EQ(sent_[0].vector, Vector(0x30));
    EXPECT_EQ(board_.save().pic.chips[0].irr & 1, 1);
}

TEST_F(BoardTest, SerialInputRaisesItsLine) {
    out(0x3f9, 1);
    const u8 byte[] = {'x'};
    board_.receive_serial(byte);
    EXPECT_TRUE(pin(4));
    EXPECT_EQ(in(0x3f8), u32{'x'});
    EXPECT_FALSE(pin(4));
}

TEST_F(BoardTest, FirmwareLeavesThePicInitialisedAndMasked) {
    board_.set_up_as_firmware();
    EXPECT_EQ(in(0x21), 0xffu);
    EXPECT_EQ(in(0xa1), 0xffu);
    EXPECT_EQ(board_.save().pic.chips[1].vector_base, 0x70);
    EXPECT_FALSE(board_.pic_output());
}

TEST_F(BoardTest, MemoryWithoutDeviceReadsAsOnes) {
    EXPECT_EQ(board_.read_mmio(Gpa(0xfd000000), 4), 0xffffffffu);
    EXPECT_EQ(board_.read_mmio(Gpa(0xfd000000), 8), ~u64{0});
}

TEST_F(BoardTest, SavedAndLoadedItIsTheSame) {
    out(0x3ff, 0x77);
    out(0xe0, 0x99);
    out(0x21, 0xfb);
    const BoardState saved = board_.save();
    Board other({.tick_hz = 1000000000, .memory = u64{64} << 20, .cpus = 1, .memory_map = map_},
                *this);
    ASSERT_TRUE(other.load(saved).has_value());
    EXPECT_EQ(other.read_port(0x3ff, 1, now_), 0x77u);
    EXPECT_EQ(other.read_port(0xe0, 1, now_), 0x99u);
    EXPECT_EQ(other.read_port(0x21, 1, now_), 0xfbu);
}

} // namespace
} // namespace nestor::machine
