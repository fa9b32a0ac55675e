// ACPI power management, 8042, PCI host, fw_cfg and the test device at register level.
#include <gtest/gtest.h>

#include "src/device/acpi_pm.hpp"
#include "src/device/fw_cfg.hpp"
#include "src/device/keyboard.hpp"
#include "src/device/pci_host.hpp"
#include "src/device/test_device.hpp"
#include "src/device/vm_generation.hpp"

namespace nestor::device {
namespace {

constexpr u64 device_ticks_per_second = 1000000000;

u32 timer(AcpiPm& pm, Ticks now) {
    u32 value = 0;
    for (unsigned i = 0; i < 4; ++i) {
        value |= u32{pm.read(8 + i, now)} << (8 * i);
    }
    return value;
}

TEST(AcpiPmTest, TimerRunsAtItsFrequencyWithTwentyFourBits) {
    AcpiPm pm(device_ticks_per_second);
    EXPECT_EQ(timer(pm, Ticks(0)), 0u);
    EXPECT_EQ(timer(pm, Ticks(device_ticks_per_second)), 3579545u);
    EXPECT_EQ(timer(pm, Ticks(10 * device_ticks_per_second)), 35795450u % (1u << 24));
}

TEST(AcpiPmTest, SleepTypeFiveWithSleepEnableAsksForPowerOff) {
    AcpiPm pm(device_ticks_per_second);
    EXPECT_FALSE(pm.write(5, 5 << 2, Ticks(0)));
    EXPECT_FALSE(pm.write(5, 1 << 5 | 3 << 2, Ticks(0)));
    EXPECT_TRUE(pm.write(5, 1 << 5 | 5 << 2, Ticks(0)));
}

TEST(AcpiPmTest, SciEnableIsAlwaysSet) {
    AcpiPm pm(device_ticks_per_second);
    pm.write(4, 0, Ticks(0));
    EXPECT_EQ(pm.read(4, Ticks(0)), 1);
}

TEST(AcpiPmTest, PowerButtonInterruptsUntilItsStatusIsCleared) {
    AcpiPm pm(device_ticks_per_second);
    pm.press_power_button();
    EXPECT_FALSE(pm.irq());
    pm.write(3, 1, Ticks(0));
    EXPECT_TRUE(pm.irq());
    EXPECT_EQ(pm.read(1, Ticks(0)), 1);
    pm.write(1, 1, Ticks(0));
    EXPECT_FALSE(pm.irq());
}

TEST(AcpiPmTest, TimerStatusComesWhenTheTopBitChanges) {
    AcpiPm pm(device_ticks_per_second);
    EXPECT_EQ(pm.next_deadline(), no_deadline);
    pm.write(2, 1, Ticks(0));
    const Ticks half = pm.next_deadline();
    EXPECT_EQ(Oscillator(AcpiPm::timer_hz, device_ticks_per_second).cycles(half), u64{1} << 23);
    pm.advance(half);
    EXPECT_TRUE(pm.irq());
    EXPECT_EQ(pm.next_deadline(), no_deadline);
    pm.write(0, 1, half);
    EXPECT_FALSE(pm.irq());
    EXPECT_GT(pm.next_deadline(), half);
}

TEST(AcpiPmTest, GeneralPurposeEventInterruptsOnceEnabledUntilItsStatusIsCleared) {
    AcpiPm pm(device_ticks_per_second);
    pm.raise_event(3);
    EXPECT_EQ(pm.read(12, Ticks(0)), 8);
    EXPECT_FALSE(pm.irq());
    pm.write(13, 8, Ticks(0));
    EXPECT_TRUE(pm.irq());
    EXPECT_EQ(pm.read(13, Ticks(0)), 8);
    pm.write(12, 4, Ticks(0));
    EXPECT_TRUE(pm.irq());
    pm.write(12, 8, Ticks(0));
    EXPECT_FALSE(pm.irq());
}

TEST(VmGenerationTest, IdIsReadInAnyPieces) {
    VmGeneration device;
    VmGeneration::Id id{};
    for (unsigned i = 0; i < id.size(); ++i) {
        id[i] = static_cast<u8>(0x10 + i);
    }
    device.set(id);
    EXPECT_EQ(device.read(0, 8), 0x1716151413121110u);
    EXPECT_EQ(device.read(8, 8), 0x1f1e1d1c1b1a1918u);
    EXPECT_EQ(device.read(5, 1), 0x15u);
    EXPECT_EQ(device.read(14, 4), 0x1f1eu);
    EXPECT_EQ(device.read(16, 8), 0u);
}

TEST(KeyboardTest, SelfTestAnswersAndPortsAreEmpty) {
    Keyboard keyboard;
    EXPECT_EQ(keyboard.read(0x64) & 3, 0);
    EXPECT_FALSE(keyboard.write(0x64, 0xaa));
    EXPECT_EQ(keyboard.read(0x64) & 1, 1);
    EXPECT_EQ(keyboard.read(0x60), 0x55);
    EXPECT_EQ(keyboard.read(0x64) & 1, 0);
    keyboard.write(0x64, 0xab);
    EXPECT_NE(keyboard.read(0x60), 0);
}

TEST(KeyboardTest, BytesForTheKeyboardGetNoAnswer) {
    Keyboard keyboard;
    EXPECT_FALSE(keyboard.write(0x60, 0xff));
    EXPECT_EQ(keyboard.read(0x64) & 1, 0);
}

TEST(KeyboardTest, ConfigurationIsKept) {
    Keyboard keyboard;
    keyboard.write(0x64, 0x60);
    keyboard.write(0x60, 0x75);
    keyboard.write(0x64, 0x20);
    EXPECT_TRUE(keyboard.irq());
    EXPECT_EQ(keyboard.read(0x60), 0x75);
    EXPECT_FALSE(keyboard.irq());
}

TEST(KeyboardTest, PulseAndOutputPortPullTheResetLine) {
    Keyboard keyboard;
    EXPECT_TRUE(keyboard.write(0x64, 0xfe));
    EXPECT_FALSE(keyboard.write(0x64, 0xff));
    keyboard.write(0x64, 0xd1);
    EXPECT_FALSE(keyboard.write(0x60, 0x03));
    keyboard.write(0x64, 0xd1);
    EXPECT_TRUE(keyboard.write(0x60, 0x02));
}

TEST(PciHostTest, FunctionZeroIsAHostBridgeThatCannotBeWritten) {
    PciHost pci;
    pci.write(0xcf8, 4, 0x80000008);
    EXPECT_EQ(pci.read(0xcfe, 2) & 0xffff, 0x0600u); // class
    pci.write(0xcf8, 4, 0x80000000);
    EXPECT_EQ(pci.read(0xcfc, 2) & 0xffff, 0x8086u);
    pci.write(0xcfc, 4, 0);
    EXPECT_EQ(pci.read(0xcfc, 4), 0x29c08086u);
    pci.write(0xcf8, 4, 0x80000010);
    pci.write(0xcfc, 4, 0xffffffff);
    EXPECT_EQ(pci.read(0xcfc, 4), 0u); // no base address
}

TEST(PciHostTest, EveryOtherFunctionIsAbsent) {
    PciHost pci;
    for (const u32 address : {0x80000800u, 0x80000100u, 0x80010000u, 0x00000000u}) {
        EXPECT_FALSE(pci.write(0xcf8, 4, address));
        EXPECT_EQ(pci.read(0xcf8, 4), address);
        EXPECT_EQ(pci.read(0xcfc, 4), 0xffffffffu);
        EXPECT_EQ(pci.read(0xcfe, 2) & 0xffff, 0xffffu);
    }
}

TEST(PciHostTest, ResetNeedsAZeroToOneChange) {
    PciHost pci;
    EXPECT_FALSE(pci.write(0xcf9, 1, 0x02));
    EXPECT_TRUE(pci.write(0xcf9, 1, 0x06));
    EXPECT_FALSE(pci.write(0xcf9, 1, 0x06));
    EXPECT_EQ(pci.read(0xcf9, 1), 0x06u);
    EXPECT_EQ(pci.read(0xcf8, 4), 0u);
}

u64 read_number(FwCfg& device, u16 key, unsigned bytes) {
    device.select(key);
    u64 value = 0;
    for (unsigned i = 0; i < bytes; ++i) {
        value |= u64{device.read_data()} << (8 * i);
    }
    return value;
}

TEST(FwCfgTest, TellsSignatureMemoryAndProcessors) {
    FwCfg device({.memory = u64{5} << 30, .cpus = 3, .memory_map = {}});
    EXPECT_EQ(read_number(device, 0x00, 4), 0x554d4551u);
    EXPECT_EQ(read_number(device, 0x01, 4), 1u);
    EXPECT_EQ(read_number(device, 0x03, 8), u64{5} << 30);
    EXPECT_EQ(read_number(device, 0x05, 2), 3u);
}

TEST(FwCfgTest, DirectoryNamesTheMemoryMap) {
    const E820Entry map[] = {{0x1000, 0x2000, E820Entry::Type::ram}};
    FwCfg device({.memory = 1, .cpus = 1, .memory_map = map});
    EXPECT_EQ(read_number(device, 0x19, 4), 0x01000000u); // big endian
    EXPECT_EQ(read_number(device, 0x19, 8) >> 32, 0x14000000u);
    EXPECT_EQ(read_number(device, 0x20, 8), 0x1000u);
}

TEST(FwCfgTest, UnknownItemsAndTheEndReadAsZero) {
    FwCfg device({.memory = 1, .cpus = 1, .memory_map = {}});
    EXPECT_EQ(read_number(device, 0x7777, 4), 0u);
    EXPECT_EQ(read_number(device, 0x00, 8), 0x554d4551u);
}

TEST(TestDeviceTest, EchoPortsKeepBytesInPlace) {
    TestDevice device;
    device.write(0, 0x11);
    device.write(3, 0x44);
    EXPECT_EQ(device.read(0), 0x11);
    EXPECT_EQ(device.read(1), 0);
    EXPECT_EQ(device.read(3), 0x44);
}

TEST(TestDeviceTest, LinesAreLevels) {
    TestDevice device;
    device.set_line(23, true);
    device.set_line(4, true);
    device.set_line(4, false);
    EXPECT_EQ(device.levels(), u32{1} << 23);
}

} // namespace
} // namespace nestor::device
