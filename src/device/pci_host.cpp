// PCI configuration mechanism #1, a host bridge at 00:00.0, and the reset control register.
//
// Owns CONFIG_ADDRESS and the register at 0xcf9 (ICH9 data sheet, 13.7.5), which is a byte inside
// CONFIG_ADDRESS's range and is told from it by the size of the access. Reset happens when RST_CPU
// goes from zero to one, whatever SYS_RST says.
#include "src/device/pci_host.hpp"

#include <array>

namespace nestor::device {
namespace {

constexpr u16 config_address = 0xcf8;
constexpr u16 reset_port = 0xcf9;
constexpr u16 config_data = 0xcfc;
constexpr u32 address_bits = 0x80fffffc;
constexpr u8 reset_cpu = 1 << 2;
constexpr u8 reset_bits = 0x0e;

/// Configuration space of the host bridge: a Q35 MCH, which has no SMRAM control in the i440FX's
/// place. Nothing in it can be written. Memory access and bus mastering are on; class 06:00; header
/// type 0 (PCI 2.3, 6.1).
constexpr std::array<u32, 4> host_bridge = {0x29c0'8086, 0x0000'0006, 0x0600'0002, 0};

/// One register of the function that `address` selects.
u32 config_register(u32 address) {
    constexpr u32 enable = 1u << 31;
    constexpr u32 function_bits = 0x00ffff00;
    if ((address & (enable | function_bits)) != enable) {
        return ~u32{0};
    }
    const u32 index = (address & 0xff) / 4;
    return index < host_bridge.size() ? host_bridge[index] : 0;
}

} // namespace

u32 PciHost::read(u16 port, unsigned size) const {
    if (port == config_address && size == 4) {
        return s_.address;
    }
    if (port == reset_port && size == 1) {
        return s_.reset_control;
    }
    if (port >= config_data) {
        return config_register(s_.address) >> (8 * (port - config_data));
    }
    return ~u32{0};
}

bool PciHost::write(u16 port, unsigned size, u32 value) {
    if (port == config_address && size == 4) {
        s_.address = value & address_bits;
    } else if (port == reset_port && size == 1) {
        const u8 before = s_.reset_control;
        s_.reset_control = static_cast<u8>(value) & reset_bits;
        return (s_.reset_control & ~before & reset_cpu) != 0;
    }
    return false;
}

} // namespace nestor::device
