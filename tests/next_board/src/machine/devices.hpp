// Tomorrow's devices: today's and the lamp. Found before the header of the same path.
#pragma once

#include "../../../../src/machine/devices.hpp"
#include "src/machine/aml.hpp"
#include "tests/next_board/src/device/lamp.hpp"

namespace nestor::machine::wiring {

struct lamp {
    static constexpr PortRange ports[] = {{0xd00, 1}};
    static constexpr u64 mmio = 0xfed50000;
    static u8 read(const device::Lamp& d, const Access&) { return d.level(); }
    static BoardEvent write(device::Lamp& d, const Access& a, u8 value) {
        d.light(value, a.now);
        return {};
    }
    static u64 read_mmio(const device::Lamp& d, u32, unsigned) { return d.label(); }
    static void write_mmio(device::Lamp& d, u32, u64 value) {
        d.set_label(static_cast<u32>(value));
    }
    static u32 levels(const device::Lamp& d) { return u32{d.level() != 0} << 12; }
    static aml::Term acpi() {
        return aml::device("LAMP", {aml::name("_HID", aml::string("NSTR0001"))});
    }
};

} // namespace nestor::machine::wiring
