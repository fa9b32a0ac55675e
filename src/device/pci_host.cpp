// PCI configuration mechanism #1 in front of an empty bus, and the reset control register.
//
// Owns CONFIG_ADDRESS and the register at 0xcf9 (ICH9 data sheet, 13.7.5), which is a byte inside
// CONFIG_ADDRESS's range and is told from it by the size of the access. Reset happens when RST_CPU
// goes from zero to one, whatever SYS_RST says.
#include "src/device/pci_host.hpp"

namespace nestor::device {
namespace {

constexpr u16 config_address = 0xcf8;
constexpr u16 reset_port = 0xcf9;
constexpr u32 address_bits = 0x80fffffc;
constexpr u8 reset_cpu = 1 << 2;
constexpr u8 reset_bits = 0x0e;

} // namespace

u32 PciHost::read(u16 port, unsigned size) const {
    if (port == config_address && size == 4) {
        return s_.address;
    }
    if (port == reset_port && size == 1) {
        return s_.reset_control;
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
