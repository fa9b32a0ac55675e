// The 16550A at register level, as a driver sees it.
#include "src/device/uart.hpp"

#include <gtest/gtest.h>

#include <string_view>

namespace nestor::device {
namespace {

void receive(Uart& uart, std::string_view text) {
    uart.receive(std::span(reinterpret_cast<const u8*>(text.data()), text.size()));
}

TEST(UartTest, SendsAByteAtOnceAndIsEmptyAgain) {
    Uart uart;
    EXPECT_EQ(uart.write(0, 'x'), u8{'x'});
    EXPECT_EQ(uart.read(5) & 0x60, 0x60);
}

TEST(UartTest, DivisorLatchHidesDataAndInterruptEnable) {
    Uart uart;
    uart.write(3, 0x83);
    EXPECT_EQ(uart.write(0, 1), std::nullopt);
    uart.write(1, 2);
    EXPECT_EQ(uart.save().divisor, 0x201);
    EXPECT_EQ(uart.read(0), 1);
    EXPECT_EQ(uart.read(1), 2);
    uart.write(3, 0x03);
    EXPECT_EQ(uart.read(1), 0);
}

TEST(UartTest, ScratchRegisterKeepsItsValue) {
    Uart uart;
    uart.write(7, 0xa5);
    EXPECT_EQ(uart.read(7), 0xa5);
}

TEST(UartTest, ReceivedBytesComeInOrderAndClearDataReady) {
    Uart uart;
    uart.write(2, 1);
    receive(uart, "ab");
    EXPECT_EQ(uart.read(5) & 1, 1);
    EXPECT_EQ(uart.read(0), 'a');
    EXPECT_EQ(uart.read(0), 'b');
    EXPECT_EQ(uart.read(5) & 1, 0);
}

TEST(UartTest, WhatTheFifoCannotHoldWaitsOnTheWire) {
    Uart uart;
    uart.write(2, 1);
    const std::string text(100, 'q');
    receive(uart, text);
    EXPECT_EQ(uart.save().fifo.size(), 16u);
    EXPECT_EQ(uart.save().wire.size(), 84u);
    for (int i = 0; i < 100; ++i) {
        EXPECT_EQ(uart.read(0), 'q');
    }
    EXPECT_EQ(uart.read(5) & 3, 0); // nothing left, no overrun
}

TEST(UartTest, ReceiveInterruptNamesTriggerLevelOrTimeout) {
    Uart uart;
    uart.write(2, 0x41); // trigger at 4
    uart.write(1, 1);
    EXPECT_FALSE(uart.irq());
    receive(uart, "abc");
    EXPECT_TRUE(uart.irq());
    EXPECT_EQ(uart.read(2), 0xcc);
    receive(uart, "d");
    EXPECT_EQ(uart.read(2), 0xc4);
}

TEST(UartTest, EnablingTheTransmitInterruptRaisesItOnce) {
    Uart uart;
    uart.write(1, 2);
    EXPECT_TRUE(uart.irq());
    EXPECT_EQ(uart.read(2), 0x02);
    EXPECT_EQ(uart.read(2), 0x01);
    EXPECT_FALSE(uart.irq());
    uart.write(0, 'x');
    EXPECT_TRUE(uart.irq());
}

TEST(UartTest, LoopbackFeedsTheReceiverAndTheModemLines) {
    Uart uart;
    uart.write(4, 0x1a); // loop, OUT2, RTS: what Linux probes with
    EXPECT_EQ(uart.read(6) & 0xf0, 0x90);
    EXPECT_EQ(uart.write(0, 'z'), std::nullopt);
    EXPECT_EQ(uart.read(0), 'z');
}

TEST(UartTest, LoopbackOverrunIsReportedOnceAndInterrupts) {
    Uart uart;
    uart.write(1, 4);
    uart.write(4, 0x10);
    uart.write(0, '1');
    uart.write(0, '2');
    EXPECT_EQ(uart.read(2), 0x06);
    EXPECT_EQ(uart.read(5) & 2, 2);
    EXPECT_EQ(uart.read(5) & 2, 0);
    EXPECT_EQ(uart.read(0), '2'); // without FIFO the newer byte stays
}

TEST(UartTest, ModemStatusDeltaInterruptsUntilRead) {
    Uart uart;
    uart.write(1, 8);
    uart.write(4, 0x10); // the four lines fall or stay
    EXPECT_TRUE(uart.irq());
    EXPECT_NE(uart.read(6) & 0x0f, 0);
    EXPECT_FALSE(uart.irq());
}

TEST(UartTest, SwitchingTheFifoClearsIt) {
    Uart uart;
    receive(uart, "a");
    uart.write(2, 1);
    EXPECT_EQ(uart.read(5) & 1, 0);
    EXPECT_EQ(uart.read(2) & 0xc0, 0xc0);
}

TEST(UartTest, LoadRefusesMoreBytesThanTheFifoHolds) {
    state::Uart bad;
    bad.fifo.assign(2, 0);
    Uart uart;
    EXPECT_FALSE(uart.load(bad));
    bad.fifo_control = 1;
    EXPECT_TRUE(uart.load(bad));
    EXPECT_EQ(uart.save(), bad);
}

} // namespace
} // namespace nestor::device
