// The devices of devices.def and their wiring: which ports, which memory and which lines are whose.
//
// Seen by the board and by what builds the ACPI tables only. wiring.hpp says what may stand here.
#pragma once

#include "src/device/acpi_pm.hpp"
#include "src/device/fw_cfg.hpp"
#include "src/device/io_apic.hpp"
#include "src/device/keyboard.hpp"
#include "src/device/pci_host.hpp"
#include "src/device/pic.hpp"
#include "src/device/pit.hpp"
#include "src/device/rtc.hpp"
#include "src/device/test_device.hpp"
#include "src/device/uart.hpp"
#include "src/device/vm_generation.hpp"
#include "src/machine/memory.hpp"
#include "src/machine/wiring.hpp"

namespace nestor::machine::wiring {

using device::MessageSink;

/// ISA interrupt lines of the devices; 2 is the PIC pair's own.
inline constexpr unsigned irq_timer = 0;
inline constexpr unsigned irq_keyboard = 1;
inline constexpr unsigned irq_cascade = 2;
inline constexpr unsigned irq_serial = 4;
inline constexpr unsigned irq_rtc = 8;

constexpr BoardEvent reset_if(bool asked) {
    return {asked ? BoardEvent::Kind::reset : BoardEvent::Kind::none};
}

struct pit {
    static constexpr PortRange ports[] = {{0x40, 4}, {0x61, 1}};
    static device::Pit make(const BoardConfig& config, MessageSink&) {
        return device::Pit(config.tick_hz);
    }
    static u8 read(device::Pit& d, const Access& a) { return d.read(a.port, a.now); }
    static BoardEvent write(device::Pit& d, const Access& a, u8 value) {
        d.write(a.port, value, a.now);
        return {};
    }
    static u32 levels(const device::Pit& d) { return u32{d.irq()} << irq_timer; }
};

struct rtc {
    static constexpr PortRange ports[] = {{0x70, 2}};
    static device::Rtc make(const BoardConfig& config, MessageSink&) {
        return device::Rtc({.tick_hz = config.tick_hz,
                            .start_time = config.start_time,
                            .memory_below_4g = memory_below_4g(config.memory),
                            .memory_above_4g = memory_above_4g(config.memory),
                            .cpus = config.cpus});
    }
    static u8 read(device::Rtc& d, const Access& a) { return d.read(a.port, a.now); }
    static BoardEvent write(device::Rtc& d, const Access& a, u8 value) {
        d.write(a.port, value, a.now);
        return {};
    }
    static u32 levels(const device::Rtc& d) { return u32{d.irq()} << irq_rtc; }
};

struct acpi_pm {
    static constexpr PortRange ports[] = {{device::AcpiPm::port, 16}};
    static device::AcpiPm make(const BoardConfig& config, MessageSink&) {
        return device::AcpiPm(config.tick_hz);
    }
    static u8 read(device::AcpiPm& d, const Access& a) {
        return d.read(a.port - device::AcpiPm::port, a.now);
    }
    static BoardEvent write(device::AcpiPm& d, const Access& a, u8 value) {
        const bool off = d.write(a.port - device::AcpiPm::port, value, a.now);
        return {off ? BoardEvent::Kind::power_off : BoardEvent::Kind::none};
    }
    static u32 levels(const device::AcpiPm& d) { return u32{d.irq()} << device::AcpiPm::sci_irq; }
};

struct vm_generation {
    static constexpr u64 mmio = device::VmGeneration::base;
    static constexpr bool stays_on_reset = true; // the machine is the same one
    static device::VmGeneration make(const BoardConfig& config, MessageSink&) {
        device::VmGeneration d;
        d.set(config.generation);
        return d;
    }
    static u64 read_mmio(const device::VmGeneration& d, u32 offset, unsigned size) {
        return d.read(offset, size);
    }
};

struct uart {
    static constexpr u16 first = 0x3f8;
    static constexpr PortRange ports[] = {{first, 8}};
    static u8 read(device::Uart& d, const Access& a) { return d.read(a.port - first); }
    static BoardEvent write(device::Uart& d, const Access& a, u8 value) {
        if (const auto sent = d.write(a.port - first, value)) {
            a.serial_output.push_back(*sent);
        }
        return {};
    }
    static u32 levels(const device::Uart& d) { return u32{d.irq()} << irq_serial; }
};

struct keyboard {
    static constexpr PortRange ports[] = {{0x60, 1}, {0x64, 1}};
    static u8 read(device::Keyboard& d, const Access& a) { return d.read(a.port); }
    static BoardEvent write(device::Keyboard& d, const Access& a, u8 value) {
        return reset_if(d.write(a.port, value));
    }
    static u32 levels(const device::Keyboard& d) { return u32{d.irq()} << irq_keyboard; }
};

struct test_device {
    using D = device::TestDevice;
    static constexpr u16 debug_exit = 0xf4;
    static constexpr PortRange ports[] = {
        {D::echo_port, 4}, {D::echo_byte_port, 4}, {debug_exit, 1}, {D::line_port, D::lines}};
    static u8 read(const D& d, const Access& a) {
        const bool echoes = a.port < debug_exit;
        return echoes ? d.read(a.port) : 0xff;
    }
    static BoardEvent write(D& d, const Access& a, u8 value) {
        if (a.port == debug_exit) {
            return {BoardEvent::Kind::debug_exit, value};
        }
        if (a.port >= D::line_port) {
            d.set_line(a.port - D::line_port, value != 0);
        } else {
            d.write(a.port, value);
        }
        return {};
    }
    static u32 levels(const D& d) { return d.levels(); }
};

struct io_apic {
    static constexpr u64 mmio = device::IoApic::base;
    static device::IoApic make(const BoardConfig&, MessageSink& sink) {
        return device::IoApic(sink);
    }
    static u64 read_mmio(const device::IoApic& d, u32 offset, unsigned) { return d.read(offset); }
    static void write_mmio(device::IoApic& d, u32 offset, u64 value) {
        d.write(offset, static_cast<u32>(value));
    }
};

struct pic {
    static constexpr PortRange ports[] = {{0x20, 2}, {0xa0, 2}, {0x4d0, 2}};
    static u8 read(device::Pic& d, const Access& a) { return d.read(a.port); }
    static BoardEvent write(device::Pic& d, const Access& a, u8 value) {
        d.write(a.port, value);
        return {};
    }
};

/// Configuration space, and the chip set's fast A20 and reset at port 0x92.
struct pci_host {
    static constexpr u16 configuration = 0xcf8;
    static constexpr u16 system_control = 0x92;
    static constexpr u8 control_reset = 1;
    static constexpr u8 control_a20 = 2;
    static constexpr PortRange ports[] = {{configuration, 8}, {system_control, 1}};

    static std::optional<u32> read_wide(const device::PciHost& d, u16 port, unsigned size) {
        return port == system_control ? std::nullopt : std::optional(d.read(port, size));
    }
    static std::optional<BoardEvent> write_wide(device::PciHost& d, u16 port, unsigned size,
                                                u32 value) {
        return port == system_control ? std::nullopt
                                      : std::optional(reset_if(d.write(port, size, value)));
    }
    static u8 read(const device::PciHost&, const Access& a) {
        return a.port == system_control ? control_a20 : 0xff; // A20 is always on
    }
    static BoardEvent write(device::PciHost&, const Access& a, u8 value) {
        return reset_if(a.port == system_control && (value & control_reset) != 0);
    }
};

struct fw_cfg {
    static constexpr u16 select = 0x510;
    static constexpr u16 data = 0x511;
    static constexpr PortRange ports[] = {{select, 2}};
    static device::FwCfg make(const BoardConfig& config, MessageSink&) {
        return device::FwCfg({config.memory, config.cpus, config.memory_map});
    }
    static u8 read(device::FwCfg& d, const Access& a) { return a.port == data ? d.read_data() : 0; }
    static std::optional<BoardEvent> write_wide(device::FwCfg& d, u16 port, unsigned size,
                                                u32 value) {
        if (port != select || size != 2) {
            return std::nullopt; // byte by byte it is ignored
        }
        d.select(static_cast<u16>(value));
        return BoardEvent{};
    }
};

} // namespace nestor::machine::wiring
