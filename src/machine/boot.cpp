// Chooses the loader for a kernel, and the processor state that all loaders share.
//
// Owns nothing. The segment registers are loaded with what a descriptor of the GDT at
// BootArea::gdt holds, which the loaders write, so a kernel that reloads them sees the same.
#include "src/machine/boot.hpp"

#include "src/base/bits.hpp"
#include "src/machine/loading.hpp"
#include "src/machine/memory.hpp"

namespace nestor::machine {
namespace {

// Access rights as the VMCS has them (SDM 3C 25.4.1).
constexpr u32 code_64 = 0xa09b;
constexpr u32 code_32 = 0xc09b;
constexpr u32 data_32 = 0xc093;
constexpr u32 tss_busy = 0x008b;
constexpr u32 unusable = 1u << 16;

// The Linux 64-bit boot protocol fixes 0x10 and 0x18 (__BOOT_CS, __BOOT_DS).
constexpr u16 code_selector = 0x10;
constexpr u16 data_selector = 0x18;
constexpr u16 tss_selector = 0x20;
constexpr unsigned gdt_entries = 6;

constexpr u64 cr0_pe = bit(0);
constexpr u64 cr0_et = bit(4);
constexpr u64 cr0_ne = bit(5);
constexpr u64 cr0_pg = bit(31);
constexpr u64 cr4_pae = bit(5);
constexpr u64 efer_lme = bit(8);
constexpr u64 efer_lma = bit(10);

constexpr u64 page_present_writable = 3;
constexpr u64 page_large = bit(7);

/// A segment descriptor (SDM 3A 3.4.5) with base 0 and the given limit field.
constexpr u64 descriptor(u32 access_rights, u32 limit) {
    return bits<u64>(limit, 15, 0) | u64{access_rights & 0xff} << 40 |
           bits<u64>(limit, 19, 16) << 48 | u64{(access_rights >> 12) & 15} << 52;
}

Result<> write_gdt(Placement& placement, bool long_mode) {
    const std::array<u64, gdt_entries> gdt{
        0,
        0,
        descriptor(long_mode ? code_64 : code_32, 0xfffff),
        descriptor(data_32, 0xfffff),
        descriptor(tss_busy, 0x67),
        0, // a TSS descriptor takes two entries in 64-bit mode
    };
    return placement.write_object(BootArea::gdt, gdt);
}

/// Maps the first 4 GiB one to one with 2 MiB pages.
Result<> write_page_tables(Placement& placement) {
    std::vector<u64> tables(6 * 512);
    const u64 base = BootArea::page_tables;
    tables[0] = (base + page_size) | page_present_writable;
    for (u64 i = 0; i < 4; ++i) {
        tables[512 + i] = (base + (2 + i) * page_size) | page_present_writable;
    }
    for (u64 i = 0; i < 4 * 512; ++i) {
        tables[2 * 512 + i] = i << 21 | page_present_writable | page_large;
    }
    return placement.write(
        base, std::span(reinterpret_cast<const u8*>(tables.data()), tables.size() * sizeof(u64)));
}

state::Segment segment(u16 selector, u32 attributes) {
    return {.base = 0, .limit = 0xffffffff, .attributes = attributes, .selector = selector};
}

} // namespace

bool tells_names(std::span<const u8> kernel) { return !is_bzimage(kernel) && is_multiboot(kernel); }

Result<Entry> load_kernel(cpu::GuestMemory& guest, u64 memory, const BootImages& images) {
    const std::span<const u8> kernel = images.kernel.bytes;
    Result<Entry> entry = [&]() -> Result<Entry> {
        if (is_bzimage(kernel)) {
            return load_bzimage(guest, memory, images);
        }
        if (is_multiboot(kernel)) {
            return load_multiboot(guest, memory, images);
        }
        if (is_elf(kernel)) {
            return load_pvh(guest, memory, images);
        }
        return bad_image(images.kernel,
                         kernel.empty() ? "the file is empty"
                                        : "not a kernel: neither bzImage nor multiboot nor ELF");
    }();
    const Entry loaded = TRY(std::move(entry));
    Placement placement(guest, memory);
    TRY(write_gdt(placement, loaded.long_mode));
    if (loaded.long_mode) {
        TRY(write_page_tables(placement));
    }
    return loaded;
}

void apply_entry(const Entry& entry, state::Cpu& cpu) {
    constexpr unsigned cs = 1;
    cpu.segments.fill(segment(data_selector, data_32));
    cpu.segments[cs] = segment(code_selector, entry.long_mode ? code_64 : code_32);
    cpu.tr = {.base = 0, .limit = 0x67, .attributes = tss_busy, .selector = tss_selector};
    cpu.ldtr = {.base = 0, .limit = 0, .attributes = unusable, .selector = 0};
    cpu.gdtr = {.base = BootArea::gdt, .limit = gdt_entries * 8 - 1};
    cpu.idtr = {.base = 0, .limit = 0};
    cpu.cr0 = cr0_pe | cr0_et | cr0_ne;
    cpu.cr3 = 0;
    cpu.cr4 = 0;
    cpu.efer = 0;
    if (entry.long_mode) {
        cpu.cr0 |= cr0_pg;
        cpu.cr3 = BootArea::page_tables;
        cpu.cr4 = cr4_pae;
        cpu.efer = efer_lme | efer_lma;
    }
    cpu.gpr.fill(0);
    cpu.gpr[0] = entry.rax;
    cpu.gpr[3] = entry.rbx;
    cpu.gpr[6] = entry.rsi;
    cpu.rip = entry.rip;
    cpu.rflags = 2;
    cpu.activity = state::ActivityState::active;
}

} // namespace nestor::machine
