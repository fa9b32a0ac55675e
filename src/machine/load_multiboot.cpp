// Loads kernels with a multiboot 1 header (GNU Multiboot Specification 0.6.96).
//
// Owns nothing. The header is searched in the first 8 KiB; a kernel with the address fields is
// loaded by them, any other must be ELF. As in QEMU, the command line starts with the kernel's file
// name and modules follow the kernel in memory. Video modes are not offered: a kernel that asks
// for one is loaded and finds no frame buffer in its information.
#include "src/base/bits.hpp"
#include "src/machine/loading.hpp"
#include "src/machine/memory.hpp"

namespace nestor::machine {
namespace {

constexpr u32 header_magic = 0x1badb002;
constexpr u32 loader_magic = 0x2badb002;
constexpr u64 search_limit = 8192;

constexpr u32 wants_known = bit<u32>(0) | bit<u32>(1) | bit<u32>(2);
constexpr u32 wants_must_understand = 0xffff;
constexpr u32 has_addresses = bit<u32>(16);

struct MultibootHeader {
    u64 offset = 0;
    u32 flags = 0;
};

struct Addresses {
    u32 header = 0;
    u32 load = 0;
    u32 load_end = 0;
    u32 bss_end = 0;
    u32 entry = 0;
};

struct Information { // multiboot information, section 3.3, as far as it is filled in
    u32 flags = 0;
    u32 mem_lower = 0; ///< KiB
    u32 mem_upper = 0; ///< KiB from 1 MiB
    u32 boot_device = 0;
    u32 command_line = 0;
    u32 module_count = 0;
    u32 modules = 0;
    u32 symbols[4] = {};
    u32 memory_map_length = 0;
    u32 memory_map = 0;
    u32 drives[2] = {};
    u32 config_table = 0;
    u32 loader_name = 0;
};

constexpr u32 info_memory = bit<u32>(0);
constexpr u32 info_command_line = bit<u32>(2);
constexpr u32 info_modules = bit<u32>(3);
constexpr u32 info_memory_map = bit<u32>(6);
constexpr u32 info_loader_name = bit<u32>(9);

struct Module {
    u32 start = 0;
    u32 end = 0;
    u32 command_line = 0;
    u32 reserved = 0;
};
static_assert(max_modules * sizeof(Module) <= BootArea::strings - BootArea::modules);

struct [[gnu::packed]] MultibootMapEntry {
    u32 size = 20; ///< of the rest
    u64 address = 0;
    u64 length = 0;
    u32 type = 0;
};

std::optional<MultibootHeader> find_header(std::span<const u8> image) {
    const ImageReader reader(image);
    for (u64 at = 0; at + 12 <= std::min<u64>(image.size(), search_limit); at += 4) {
        const u32 flags = *reader.at<u32>(at + 4);
        if (*reader.at<u32>(at) == header_magic &&
            header_magic + flags + *reader.at<u32>(at + 8) == 0) {
            return MultibootHeader{at, flags};
        }
    }
    return std::nullopt;
}

/// Loads by the header's own addresses (section 3.1.3).
Result<LoadedElf> load_by_addresses(Placement& placement, const BootFile& file, u64 header_at) {
    const ImageReader image(file.bytes);
    const auto fields = image.at<Addresses>(header_at + 12);
    if (!fields) {
        return bad_image(file, "truncated: the multiboot header is cut off");
    }
    const Addresses& a = *fields;
    if (a.header < a.load || a.header - a.load > header_at) {
        return bad_image(file, "the multiboot load address lies outside the file");
    }
    const u64 offset = header_at - (a.header - a.load);
    const u64 size = a.load_end != 0 ? u64{a.load_end} - a.load : image.size() - offset;
    const auto bytes =
        a.load_end != 0 && a.load_end < a.load ? std::nullopt : image.range(offset, size);
    if (!bytes) {
        return bad_image(file, "truncated: the multiboot load range is cut off");
    }
    u64 memory_size = size;
    if (a.bss_end != 0) {
        if (a.bss_end < a.load || a.bss_end - a.load < size) {
            return bad_image(file, "the multiboot bss ends before the loaded part");
        }
        memory_size = a.bss_end - a.load;
    }
    TRY(placement.claim(a.load, memory_size, file.name));
    TRY(placement.write(a.load, *bytes));
    return LoadedElf{.entry = a.entry, .end = a.load + memory_size, .pvh_entry = std::nullopt};
}

Result<> put_modules(Placement& placement, const BootImages& images, u64 from, Information& info) {
    u64 next = from;
    for (u64 i = 0; i < images.modules.size(); ++i) {
        const BootFile& file = images.modules[i];
        const u64 at = TRY(placement.claim_low(file.bytes.size(), next, file.name));
        TRY(placement.write(at, file.bytes));
        next = at + file.bytes.size();
        const Module module{
            .start = static_cast<u32>(at),
            .end = static_cast<u32>(next),
            .command_line =
                static_cast<u32>(TRY(placement.write_string(file.name, "a module's name"))),
        };
        TRY(placement.write_object(BootArea::modules + i * sizeof(module), module));
    }
    info.flags |= info_modules;
    info.module_count = static_cast<u32>(images.modules.size());
    info.modules = BootArea::modules;
    return {};
}

Result<> put_memory_map(Placement& placement, u64 memory, Information& info) {
    u64 at = BootArea::memory_map;
    for (const device::E820Entry& range : memory_map(memory)) {
        MultibootMapEntry entry;
        entry.address = range.start;
        entry.length = range.size;
        entry.type = static_cast<u32>(range.type);
        TRY(placement.write_object(at, entry));
        at += sizeof(entry);
    }
    info.flags |= info_memory | info_memory_map;
    info.memory_map = BootArea::memory_map;
    info.memory_map_length = static_cast<u32>(at - BootArea::memory_map);
    info.mem_lower = ebda_start >> 10;
    info.mem_upper = static_cast<u32>((memory_below_4g(memory) - bios_end) >> 10);
    return {};
}

} // namespace

bool is_multiboot(std::span<const u8> image) { return find_header(image).has_value(); }

Result<Entry> load_multiboot(cpu::GuestMemory& guest, u64 memory, const BootImages& images) {
    const BootFile& file = images.kernel;
    const std::optional<MultibootHeader> header = find_header(file.bytes);
    if (!header) {
        return bad_image(file, "no multiboot header");
    }
    if ((header->flags & wants_must_understand & ~wants_known) != 0) {
        return bad_image(file, "the multiboot header asks for features that nobody defined");
    }
    if (images.modules.size() > max_modules) {
        return fail(ErrorCode::usage, "more than " + std::to_string(max_modules) + " modules");
    }
    Placement placement(guest, memory);
    const bool by_addresses = (header->flags & has_addresses) != 0;
    if (!by_addresses && !is_elf(file.bytes)) {
        return bad_image(file, "a multiboot kernel that is not ELF and gives no load address");
    }
    const LoadedElf kernel = by_addresses ? TRY(load_by_addresses(placement, file, header->offset))
                                          : TRY(load_elf(placement, file));
    if (kernel.entry >= four_gib) {
        return bad_image(file, "the entry point lies above 4 GiB");
    }
    Information info;
    const std::string command_line =
        images.command_line.empty() ? file.name : file.name + " " + images.command_line;
    info.flags = info_command_line | info_loader_name;
    info.command_line =
        static_cast<u32>(TRY(placement.write_string(command_line, "the command line")));
    info.loader_name = static_cast<u32>(TRY(placement.write_string("nestor", "the loader's name")));
    if (!images.modules.empty()) {
        TRY(put_modules(placement, images, kernel.end, info));
    }
    TRY(put_memory_map(placement, memory, info));
    TRY(placement.write_object(BootArea::boot_params, info));
    return Entry{.rip = kernel.entry, .rax = loader_magic, .rbx = BootArea::boot_params};
}

} // namespace nestor::machine
