// What a device's wiring may say: how one row of devices.def hangs on the board.
//
// A wiring is a struct of static members in namespace machine::wiring, named like the row's member.
// Each of them is optional; what a wiring does not say, the device does not have. One of another
// form than below does not compile:
//
//   make(config, sink) -> Device                     how it is constructed, if not by default
//   PortRange ports[]                                what it claims; no two rows may overlap
//   read(device, access) -> u8                       a byte from one of its ports
//   write(device, access, u8) -> BoardEvent
//   read_wide(device, port, size) -> optional<u32>   an access that begins at one of its ports, as
//   write_wide(device, port, size, value)            a whole; nothing: it goes byte by byte
//       -> optional<BoardEvent>
//   u64 mmio                                         the page it claims outside RAM
//   read_mmio(device, offset, size) -> u64
//   write_mmio(device, offset, value)
//   levels(device) -> u32                            ISA interrupt lines that it drives, a bit each
//   bool stays_on_reset                              instead of Device::reset()
//   acpi() -> aml::Term                              its ACPI device, in \_SB
#pragma once

#include <optional>
#include <span>
#include <vector>

#include "src/base/types.hpp"
#include "src/device/fw_cfg.hpp"
#include "src/device/vm_generation.hpp"

namespace nestor::machine {

/// What a write asked of the machine as a whole.
struct BoardEvent {
    enum class Kind : u8 { none, power_off, debug_exit, reset };
    Kind kind = Kind::none;
    u8 value = 0; ///< what was written to the debug-exit port
};

struct BoardConfig {
    u32 board = 1; ///< revision
    u64 tick_hz = 0;
    i64 start_time = 0;
    u64 memory = 0;
    u16 cpus = 1;
    device::VmGeneration::Id generation{}; ///< until Board::set_generation()
    std::span<const device::E820Entry> memory_map;
};

struct PortRange {
    u16 first;
    u16 count;
};

/// One byte of an access to a port.
struct Access {
    u16 port;
    Ticks now;
    std::vector<u8>& serial_output; ///< takes what the guest sends
};

} // namespace nestor::machine
