// The machine's ACPI tables.
//
// Builds what a PC without PCI needs: fixed hardware at the ports of device::AcpiPm, reset through
// 0xcf9, one I/O APIC, a serial port, the VM generation ID with its event and S5. The FADT says
// that there is no 8042, no VGA and no SMI command port, so operating systems neither probe for
// those nor switch modes. There is no HPET and no PCI root: nothing in the DSDT claims one. Devices
// of later board revisions stand behind those of the first, each with what its wiring says.
#include "src/machine/acpi.hpp"

#include <algorithm>
#include <string_view>

#include "src/base/bits.hpp"
#include "src/base/check.hpp"
#include "src/device/acpi_pm.hpp"
#include "src/device/io_apic.hpp"
#include "src/device/vm_generation.hpp"
#include "src/machine/aml.hpp"
#include "src/machine/devices.hpp"

namespace nestor::machine {
namespace {

using Bytes = std::vector<u8>;

constexpr std::size_t header_size = 36;
constexpr std::size_t rsdp_size = 36;
constexpr std::size_t fadt_size = 268; // revision 5
constexpr std::size_t facs_size = 64;
constexpr u64 local_apic_base = 0xfee00000;

void put(Bytes& out, std::size_t at, u64 value, unsigned bytes) {
    for (unsigned i = 0; i < bytes; ++i) {
        out[at + i] = static_cast<u8>(value >> (8 * i));
    }
}

void put(Bytes& out, std::size_t at, std::string_view text) {
    std::copy(text.begin(), text.end(), out.begin() + static_cast<std::ptrdiff_t>(at));
}

/// Makes the bytes [first, first + size) sum to zero through the byte at `at`.
void put_checksum(Bytes& out, std::size_t at, std::size_t first, std::size_t size) {
    out[at] = 0;
    u8 sum = 0;
    for (std::size_t i = 0; i < size; ++i) {
        sum = static_cast<u8>(sum + out[first + i]);
    }
    out[at] = static_cast<u8>(-sum);
}

/// A table with its header (5.2.6); `finish` sets length and checksum.
Bytes table(std::string_view signature, u8 revision, std::size_t size) {
    Bytes out(size);
    put(out, 0, signature);
    out[8] = revision;
    put(out, 10, "NESTOR");
    put(out, 16, "NESTORPC");
    put(out, 24, 1, 4);
    put(out, 28, "NSTR");
    put(out, 32, 1, 4);
    return out;
}

Bytes finish(Bytes out) {
    put(out, 4, out.size(), 4);
    put_checksum(out, 9, 0, out.size());
    return out;
}

void append(Bytes& out, const Bytes& more) { out.insert(out.end(), more.begin(), more.end()); }

/// As Microsoft's specification has it; Linux finds it by either name.
aml::Term generation_device() {
    using namespace aml;
    const u64 at = device::VmGeneration::base;
    return aml::device("VGEN",
                       {name("_HID", string("VMGENCTR")), name("_CID", string("VM_Gen_Counter")),
                        name("_DDN", string("VM_Gen_Counter")),
                        name("ADDR", package({integer(at & 0xffffffff), integer(at >> 32)}))});
}

/// ACPI devices of the rows of devices.def that this revision of the board has.
std::vector<aml::Term> wired_devices(u32 board) {
    std::vector<aml::Term> terms;
    const auto add = [&]<class W>(W, u32 since) {
        if constexpr (requires { &W::acpi; }) {
            if (since <= board) {
                terms.push_back(W::acpi());
            }
        }
    };
#define NESTOR_DEVICE(member, Type, unit, revision) add(wiring::member{}, revision);
#include "src/machine/devices.def"
#undef NESTOR_DEVICE
    return terms;
}

Bytes dsdt(u32 board) {
    using namespace aml;
    static_assert(device::VmGeneration::event == 0);
    constexpr const char* event_method = "_E00"; // edge: the status is cleared before it runs
    Bytes out = table("DSDT", 2, header_size);
    append(out,
           name("_S5", package({integer(device::AcpiPm::sleep_type_s5),
                                integer(device::AcpiPm::sleep_type_s5), integer(0), integer(0)})));
    const Term present = name("_STA", integer(0x0f));
    std::vector<Term> devices{
        aml::device("COM1", {name("_HID", eisa_id("PNP0501")), name("_UID", integer(1)), present,
                             name("_CRS", resource_template({io_ports(0x3f8, 8), irq(4)}))}),
        aml::device("RTC0", {name("_HID", eisa_id("PNP0B00")), present,
                             name("_CRS", resource_template({io_ports(0x70, 2), irq(8)}))}),
        generation_device(),
    };
    for (Term& term : wired_devices(board)) {
        devices.push_back(std::move(term));
    }
    append(out, scope("_SB", devices));
    append(out, scope("_GPE", {method(event_method, {notify("_SB", "VGEN", 0x80)})}));
    return finish(std::move(out));
}

Bytes madt(u16 cpus) {
    Bytes out = table("APIC", 4, header_size + 8);
    put(out, 36, local_apic_base, 4);
    put(out, 40, 1, 4); // a PIC pair is there too
    for (u16 i = 0; i < cpus; ++i) {
        const u8 id = static_cast<u8>(i);
        append(out, {0, 8, id, id, 1, 0, 0, 0}); // local APIC, enabled (5.2.12.2)
    }
    Bytes io_apic{1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}; // ID 0, inputs from 0 (5.2.12.3)
    put(io_apic, 4, device::IoApic::base, 4);
    append(out, io_apic);
    // Interrupt source overrides (5.2.12.5): the timer is on input 2; the SCI is level, active
    // high.
    append(out, {2, 10, 0, 0, 2, 0, 0, 0, 0, 0});
    append(out, {2, 10, 0, device::AcpiPm::sci_irq, device::AcpiPm::sci_irq, 0, 0, 0, 0x0d, 0});
    append(out, {4, 6, 0xff, 0, 0, 1}); // NMI on LINT1 of all processors (5.2.12.7)
    return finish(std::move(out));
}

/// A generic address structure (5.2.3.2) in I/O space.
void put_port(Bytes& out, std::size_t at, u16 port, u8 width, u8 access) {
    out[at] = 1;
    out[at + 1] = width;
    out[at + 3] = access;
    put(out, at + 4, port, 8);
}

Bytes fadt(u64 facs, u64 dsdt_at) {
    using device::AcpiPm;
    Bytes out = table("FACP", 5, fadt_size);
    put(out, 36, facs, 4);
    put(out, 40, dsdt_at, 4);
    put(out, 46, AcpiPm::sci_irq, 2);
    put(out, 56, AcpiPm::port, 4);       // PM1a_EVT_BLK
    put(out, 64, AcpiPm::port + 4, 4);   // PM1a_CNT_BLK
    put(out, 76, AcpiPm::port + 8, 4);   // PM_TMR_BLK
    out[88] = 4;                         // PM1_EVT_LEN
    out[89] = 2;                         // PM1_CNT_LEN
    out[91] = 4;                         // PM_TMR_LEN
    put(out, 80, AcpiPm::event_port, 4); // GPE0_BLK
    out[92] = 2;                         // GPE0_BLK_LEN: a byte of status, a byte of enables
    put(out, 96, 0xfff, 2);              // no C2
    put(out, 98, 0xfff, 2);              // no C3
    out[108] = 0x32;                     // century byte in CMOS RAM
    put(out, 109, bit(0) | bit(2), 2);   // legacy devices, no VGA, no 8042
    // WBINVD, C1 on all processors, no sleep button, no RTC wake, reset register.
    put(out, 112, bit(0) | bit(2) | bit(5) | bit(6) | bit(10), 4);
    put_port(out, 116, 0xcf9, 8, 1);
    out[128] = 0x06; // reset value
    out[131] = 1;    // minor version
    put(out, 140, dsdt_at, 8);
    put_port(out, 148, AcpiPm::port, 32, 2);
    put_port(out, 172, AcpiPm::port + 4, 16, 2);
    put_port(out, 208, AcpiPm::port + 8, 32, 3);
    put_port(out, 220, AcpiPm::event_port, 16, 1);
    return finish(std::move(out));
}

Bytes facs() {
    Bytes out(facs_size);
    put(out, 0, "FACS");
    put(out, 4, facs_size, 4);
    out[32] = 2; // version
    return out;
}

Bytes xsdt(std::initializer_list<u64> tables) {
    Bytes out = table("XSDT", 1, header_size + 8 * tables.size());
    std::size_t at = header_size;
    for (const u64 address : tables) {
        put(out, at, address, 8);
        at += 8;
    }
    return finish(std::move(out));
}

Bytes rsdp(u64 xsdt_at) {
    Bytes out(rsdp_size);
    put(out, 0, "RSD PTR ");
    put(out, 9, "NESTOR");
    out[15] = 2; // ACPI 2.0 and later; there is no RSDT
    put(out, 20, rsdp_size, 4);
    put(out, 24, xsdt_at, 8);
    put_checksum(out, 8, 0, 20);
    put_checksum(out, 32, 0, rsdp_size);
    return out;
}

} // namespace

std::vector<u8> acpi_tables(u64 base, u16 cpus, u32 board) {
    CHECK(base % 64 == 0 && base < (u64{1} << 32), {base});
    Bytes block(rsdp_size);
    const auto place = [&block, base](const Bytes& bytes) {
        block.resize(align_up(block.size(), 64));
        const u64 at = base + block.size();
        append(block, bytes);
        return at;
    };
    const u64 facs_at = place(facs());
    const u64 dsdt_at = place(dsdt(board));
    const u64 fadt_at = place(fadt(facs_at, dsdt_at));
    const u64 madt_at = place(madt(cpus));
    const u64 xsdt_at = place(xsdt({fadt_at, madt_at}));
    const Bytes pointer = rsdp(xsdt_at);
    std::copy(pointer.begin(), pointer.end(), block.begin());
    return block;
}

} // namespace nestor::machine
