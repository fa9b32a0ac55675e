// All devices of the machine, their ports and their interrupt lines.
//
// Owns the devices, and wires them: which port belongs to whom, and which output drives which input
// of the PIC pair and of the I/O APIC. Outputs are levels that are looked at after every access and
// every deadline, so a device needs to know nothing about interrupt controllers. A line shared by
// several outputs is their OR. ISA line 0 arrives at the I/O APIC's input 2, as the MADT says.
#include "src/machine/board.hpp"

#include <algorithm>
#include <array>

#include "src/base/bits.hpp"
#include "src/machine/memory.hpp"

namespace nestor::machine {
namespace {

using device::TestDevice;

enum class PortOwner : u8 {
    none,
    pic,
    pit,
    keyboard,
    system_control,
    rtc,
    echo,
    debug_exit,
    uart,
    fw_cfg,
    acpi_pm,
    pci_host,
    line,
};

constexpr u16 uart_port = 0x3f8;
constexpr u16 fw_cfg_select_port = 0x510;
constexpr u16 fw_cfg_data_port = 0x511;
constexpr u16 pci_port = 0xcf8;

struct PortRange {
    u16 first;
    u16 count;
    PortOwner owner;
};

constexpr PortRange port_ranges[] = {
    {0x20, 2, PortOwner::pic},
    {0x40, 4, PortOwner::pit},
    {0x60, 1, PortOwner::keyboard},
    {0x61, 1, PortOwner::pit},
    {0x64, 1, PortOwner::keyboard},
    {0x70, 2, PortOwner::rtc},
    {0x92, 1, PortOwner::system_control},
    {0xa0, 2, PortOwner::pic},
    {TestDevice::echo_port, 4, PortOwner::echo},
    {TestDevice::echo_byte_port, 4, PortOwner::echo},
    {0xf4, 1, PortOwner::debug_exit},
    {uart_port, 8, PortOwner::uart},
    {0x4d0, 2, PortOwner::pic},
    {fw_cfg_select_port, 2, PortOwner::fw_cfg},
    {device::AcpiPm::port, 16, PortOwner::acpi_pm},
    {pci_port, 8, PortOwner::pci_host},
    {TestDevice::line_port, TestDevice::lines, PortOwner::line},
};

constexpr std::array<PortOwner, 65536> port_table = [] {
    std::array<PortOwner, 65536> table{};
    for (const PortRange& range : port_ranges) {
        for (unsigned i = 0; i < range.count; ++i) {
            table[range.first + i] = range.owner;
        }
    }
    return table;
}();

constexpr unsigned irq_timer = 0;
constexpr unsigned irq_keyboard = 1;
constexpr unsigned irq_cascade = 2;
constexpr unsigned irq_serial = 4;
constexpr unsigned irq_rtc = 8;

constexpr u8 system_control_reset = 1;
constexpr u8 system_control_a20 = 2;

BoardEvent reset_if(bool asked) {
    return {asked ? BoardEvent::Kind::reset : BoardEvent::Kind::none};
}

u64 low_bytes(unsigned size) { return size >= 8 ? ~u64{0} : bit(8 * size) - 1; }

} // namespace

Board::Board(const Config& config, device::MessageSink& sink)
    : acpi_pm_(config.tick_hz), fw_cfg_({config.memory, config.cpus, config.memory_map}),
      io_apic_(sink), pit_(config.tick_hz), rtc_({.tick_hz = config.tick_hz,
                                                  .start_time = config.start_time,
                                                  .memory_below_4g = memory_below_4g(config.memory),
                                                  .memory_above_4g = memory_above_4g(config.memory),
                                                  .cpus = config.cpus}) {
    vm_generation_.set(config.generation);
}

u8 Board::read_byte(u16 port, Ticks now) {
    switch (port_table[port]) {
    case PortOwner::pic:
        return pic_.read(port);
    case PortOwner::pit:
        return pit_.read(port, now);
    case PortOwner::keyboard:
        return keyboard_.read(port);
    case PortOwner::system_control:
        return system_control_a20; // A20 is always on
    case PortOwner::rtc:
        return rtc_.read(port, now);
    case PortOwner::echo:
        return test_device_.read(port);
    case PortOwner::uart:
        return uart_.read(port - uart_port);
    case PortOwner::fw_cfg:
        return port == fw_cfg_data_port ? fw_cfg_.read_data() : 0;
    case PortOwner::acpi_pm:
        return acpi_pm_.read(port - device::AcpiPm::port, now);
    default:
        return 0xff;
    }
}

BoardEvent Board::write_byte(u16 port, u8 value, Ticks now) {
    switch (port_table[port]) {
    case PortOwner::pic:
        pic_.write(port, value);
        return {};
    case PortOwner::pit:
        pit_.write(port, value, now);
        return {};
    case PortOwner::keyboard:
        return reset_if(keyboard_.write(port, value));
    case PortOwner::system_control:
        return reset_if((value & system_control_reset) != 0);
    case PortOwner::rtc:
        rtc_.write(port, value, now);
        return {};
    case PortOwner::echo:
        test_device_.write(port, value);
        return {};
    case PortOwner::debug_exit:
        return {BoardEvent::Kind::debug_exit, value};
    case PortOwner::uart:
        if (const auto sent = uart_.write(port - uart_port, value)) {
            serial_output_.push_back(*sent);
        }
        return {};
    case PortOwner::acpi_pm:
        return {acpi_pm_.write(port - device::AcpiPm::port, value, now)
                    ? BoardEvent::Kind::power_off
                    : BoardEvent::Kind::none};
    case PortOwner::line:
        test_device_.set_line(port - TestDevice::line_port, value != 0);
        return {};
    default:
        return {};
    }
}

u32 Board::read_port(u16 port, unsigned size, Ticks now) {
    u32 value = 0;
    if (port_table[port] == PortOwner::pci_host) {
        value = pci_host_.read(port, size);
    } else {
        for (unsigned i = 0; i < size; ++i) {
            value |= u32{read_byte(static_cast<u16>(port + i), now)} << (8 * i);
        }
    }
    update_lines();
    return value & static_cast<u32>(low_bytes(size));
}

BoardEvent Board::write_port(u16 port, unsigned size, u32 value, Ticks now) {
    BoardEvent event;
    if (port_table[port] == PortOwner::pci_host) {
        event = reset_if(pci_host_.write(port, size, value));
    } else if (port == fw_cfg_select_port && size == 2) {
        fw_cfg_.select(static_cast<u16>(value));
    } else {
        for (unsigned i = 0; i < size; ++i) {
            const BoardEvent more =
                write_byte(static_cast<u16>(port + i), static_cast<u8>(value >> (8 * i)), now);
            if (more.kind != BoardEvent::Kind::none) {
                event = more;
            }
        }
    }
    update_lines();
    return event;
}

u64 Board::read_mmio(Gpa address, unsigned size) const {
    u64 value = ~u64{0};
    if (const u64 at = address.value() - device::IoApic::base; at < page_size) {
        value = io_apic_.read(static_cast<u32>(at));
    } else if (const u64 id = address.value() - device::VmGeneration::base; id < page_size) {
        value = vm_generation_.read(static_cast<u32>(id), size);
    }
    return value & low_bytes(size);
}

void Board::write_mmio(Gpa address, unsigned size, u64 value) {
    const u64 offset = address.value() - device::IoApic::base;
    if (offset < page_size) {
        io_apic_.write(static_cast<u32>(offset), static_cast<u32>(value & low_bytes(size)));
    }
}

Ticks Board::next_deadline() const {
    return std::min({pit_.next_deadline(), rtc_.next_deadline(), acpi_pm_.next_deadline()});
}

void Board::advance(Ticks now) {
    // In the order of the units' ranks.
    if (pit_.next_deadline() <= now) {
        pit_.advance(now);
    }
    if (rtc_.next_deadline() <= now) {
        rtc_.advance(now);
    }
    if (acpi_pm_.next_deadline() <= now) {
        acpi_pm_.advance(now);
    }
    update_lines();
}

/// Carries the levels of all outputs to the inputs that they drive.
void Board::update_lines() {
    u32 levels = test_device_.levels();
    levels |= u32{pit_.irq()} << irq_timer;
    levels |= u32{keyboard_.irq()} << irq_keyboard;
    levels |= u32{uart_.irq()} << irq_serial;
    levels |= u32{rtc_.irq()} << irq_rtc;
    levels |= u32{acpi_pm_.irq()} << device::AcpiPm::sci_irq;

    const auto& chips = pic_.save().chips;
    const u32 pic_before = u32{chips[0].lines} | u32{chips[1].lines} << 8;
    for (u32 changed = (levels ^ pic_before) & 0xffff & ~bit<u32>(irq_cascade); changed != 0;
         changed &= changed - 1) {
        const unsigned irq = static_cast<unsigned>(std::countr_zero(changed));
        pic_.set_line(irq, (levels & bit<u32>(irq)) != 0);
    }

    const u32 timer = bit<u32>(irq_timer);
    const u32 pins = (levels & ~timer) | (levels & timer) << 2;
    for (u32 changed = pins ^ io_apic_.save().lines; changed != 0; changed &= changed - 1) {
        const unsigned pin = static_cast<unsigned>(std::countr_zero(changed));
        io_apic_.set_line(pin, (pins & bit<u32>(pin)) != 0);
    }
}

void Board::receive_serial(std::span<const u8> bytes) {
    uart_.receive(bytes);
    update_lines();
}

void Board::press_power_button() {
    acpi_pm_.press_power_button();
    update_lines();
}

void Board::set_generation(const device::VmGeneration::Id& id) {
    vm_generation_.set(id);
    acpi_pm_.raise_event(device::VmGeneration::event);
    update_lines();
}

void Board::set_clock(i64 seconds, Ticks now) {
    rtc_.set_seconds(seconds, now);
    update_lines();
}

/// The generation ID stays: the machine is the same one.
void Board::reset(Ticks now) {
    acpi_pm_.reset(now);
    fw_cfg_.reset();
    keyboard_.reset();
    pci_host_.reset();
    pit_.reset(now);
    rtc_.reset();
    test_device_.reset();
    uart_.reset();
    io_apic_.reset();
    pic_.reset();
    update_lines();
}

void Board::set_up_as_firmware() {
    struct Chip {
        u16 port;
        u8 vector;
        u8 wiring;
    };
    for (const Chip& chip : {Chip{0x20, 0x08, 4}, Chip{0xa0, 0x70, 2}}) {
        const u16 data = chip.port + 1;
        pic_.write(chip.port, 0x11); // ICW1: edge triggered, cascaded, ICW4 follows
        pic_.write(data, chip.vector);
        pic_.write(data, chip.wiring);
        pic_.write(data, 0x01); // ICW4: 8086 mode
        pic_.write(data, 0xff);
    }
    update_lines();
}

BoardState Board::save() const {
    return {.acpi_pm = acpi_pm_.save(),
            .fw_cfg = fw_cfg_.save(),
            .io_apic = io_apic_.save(),
            .keyboard = keyboard_.save(),
            .pci_host = pci_host_.save(),
            .pic = pic_.save(),
            .pit = pit_.save(),
            .rtc = rtc_.save(),
            .test_device = test_device_.save(),
            .uart = uart_.save(),
            .vm_generation = vm_generation_.save()};
}

Result<> Board::load(const BoardState& from) {
    TRY(acpi_pm_.load(from.acpi_pm), "acpi_pm");
    fw_cfg_.load(from.fw_cfg);
    TRY(io_apic_.load(from.io_apic), "io_apic");
    TRY(keyboard_.load(from.keyboard), "keyboard");
    pci_host_.load(from.pci_host);
    TRY(pic_.load(from.pic), "pic");
    TRY(pit_.load(from.pit), "pit");
    TRY(rtc_.load(from.rtc), "rtc");
    TRY(test_device_.load(from.test_device), "test_device");
    TRY(uart_.load(from.uart), "uart");
    vm_generation_.load(from.vm_generation);
    return {};
}

} // namespace nestor::machine
