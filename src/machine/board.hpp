// All devices of the machine, their ports and their interrupt lines.
#pragma once

#include <span>
#include <vector>

#include "src/base/result.hpp"
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

namespace nestor::machine {

/// What a write asked of the machine as a whole.
struct BoardEvent {
    enum class Kind : u8 { none, power_off, debug_exit, reset };
    Kind kind = Kind::none;
    u8 value = 0; ///< what was written to the debug-exit port
};

/// State of every device, unit by unit.
struct BoardState {
    state::AcpiPm acpi_pm;
    state::FwCfg fw_cfg;
    state::IoApic io_apic;
    state::Keyboard keyboard;
    state::PciHost pci_host;
    state::Pic pic;
    state::Pit pit;
    state::Rtc rtc;
    state::TestDevice test_device;
    state::Uart uart;
    state::VmGeneration vm_generation;
};

class Board final {
public:
    struct Config {
        u64 tick_hz = 0;
        i64 start_time = 0;
        u64 memory = 0;
        u16 cpus = 1;
        device::VmGeneration::Id generation{}; ///< until set_generation()
        std::span<const device::E820Entry> memory_map;
    };

    /// `sink` takes the interrupt messages of the I/O APIC.
    Board(const Config& config, device::MessageSink& sink);

    /// Accesses of 1, 2 or 4 bytes. Ports that nothing claims read as all ones and ignore writes.
    [[nodiscard]] u32 read_port(u16 port, unsigned size, Ticks now);
    BoardEvent write_port(u16 port, unsigned size, u32 value, Ticks now);
    /// Accesses of up to 8 bytes to addresses without RAM.
    [[nodiscard]] u64 read_mmio(Gpa address, unsigned size) const;
    void write_mmio(Gpa address, unsigned size, u64 value);

    /// The earliest tick at which a device does something by itself.
    [[nodiscard]] Ticks next_deadline() const;
    /// Lets devices do what is due at `now`. Call it for every deadline in turn.
    void advance(Ticks now);

    void end_of_interrupt(Vector vector) { io_apic_.end_of_interrupt(vector); }
    [[nodiscard]] bool pic_output() const { return pic_.output(); }
    Vector acknowledge_pic() { return pic_.acknowledge(); }

    void receive_serial(std::span<const u8> bytes);
    /// Bytes received that the guest has not read yet.
    [[nodiscard]] u64 serial_input_waiting() const {
        return uart_.save().fifo.size() + uart_.save().wire.size();
    }
    /// Bytes the guest sent since this was last cleared, oldest first.
    [[nodiscard]] std::vector<u8>& serial_output() { return serial_output_; }
    void press_power_button();
    /// The machine became another one: sets the generation ID and says so.
    void set_generation(const device::VmGeneration::Id& id);
    /// What the real-time clock shows, in seconds since 1970.
    [[nodiscard]] i64 clock_seconds(Ticks now) const { return rtc_.seconds(now); }
    void set_clock(i64 seconds, Ticks now);

    void reset(Ticks now);
    /// Leaves the PIC pair as PC firmware does, vectors 0x08 and 0x70, but with every input masked.
    void set_up_as_firmware();
    [[nodiscard]] BoardState save() const;
    /// Checks each unit and takes it over. On failure the board is partly loaded.
    [[nodiscard]] Result<> load(const BoardState& from);

private:
    [[nodiscard]] u8 read_byte(u16 port, Ticks now);
    BoardEvent write_byte(u16 port, u8 value, Ticks now);
    void update_lines();

    device::AcpiPm acpi_pm_;
    device::FwCfg fw_cfg_;
    device::IoApic io_apic_;
    device::Keyboard keyboard_;
    device::PciHost pci_host_;
    device::Pic pic_;
    device::Pit pit_;
    device::Rtc rtc_;
    device::TestDevice test_device_;
    device::Uart uart_;
    device::VmGeneration vm_generation_;
    std::vector<u8> serial_output_;
};

} // namespace nestor::machine
