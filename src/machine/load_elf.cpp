// Loads ELF images, and starts them by the PVH protocol (Xen docs/misc/pvh.pandoc).
//
// Owns nothing. Segments go to their physical addresses. Memory is all zero when a kernel is
// loaded, so what a segment has beyond its file contents is left alone. Both ELF classes are
// taken: a PVH kernel is entered in 32-bit mode whatever its class says.
#include <elf.h>

#include <array>

#include "src/base/bits.hpp"
#include "src/machine/loading.hpp"
#include "src/machine/memory.hpp"

namespace nestor::machine {
namespace {

constexpr u32 note_phys32_entry = 18; // XEN_ELFNOTE_PHYS32_ENTRY
constexpr u64 max_program_headers = 256;

/// The few fields of a program header that are used, whatever the class.
struct Segment {
    u32 type = 0;
    u64 offset = 0;
    u64 address = 0;
    u64 file_size = 0;
    u64 memory_size = 0;
};

struct ElfHeader {
    u64 entry = 0;
    std::vector<Segment> segments;
};

template <class Ehdr, class Phdr>
Result<ElfHeader> read_class(const BootFile& file, const ImageReader& image) {
    const auto header = image.at<Ehdr>(0);
    if (!header) {
        return bad_image(file, "truncated: the ELF header is cut off");
    }
    if (header->e_machine != EM_386 && header->e_machine != EM_X86_64) {
        return bad_image(file, "an ELF image for another processor");
    }
    if (header->e_phnum == 0 || header->e_phnum > max_program_headers ||
        header->e_phentsize != sizeof(Phdr)) {
        return bad_image(file, "no usable ELF program headers");
    }
    ElfHeader out{.entry = header->e_entry, .segments = {}};
    for (u64 i = 0; i < header->e_phnum; ++i) {
        const u64 table = header->e_phoff;
        const auto ph =
            table <= image.size() ? image.at<Phdr>(table + i * sizeof(Phdr)) : std::nullopt;
        if (!ph) {
            return bad_image(file, "truncated: the ELF program headers are cut off");
        }
        out.segments.push_back({ph->p_type, ph->p_offset, ph->p_paddr, ph->p_filesz, ph->p_memsz});
    }
    return out;
}

Result<ElfHeader> read_elf_header(const BootFile& file) {
    const ImageReader image(file.bytes);
    const auto ident = image.at<std::array<u8, EI_NIDENT>>(0);
    if (!ident) {
        return bad_image(file, "truncated: the ELF header is cut off");
    }
    if ((*ident)[EI_DATA] != ELFDATA2LSB) {
        return bad_image(file, "an ELF image of the wrong byte order");
    }
    return (*ident)[EI_CLASS] == ELFCLASS64 ? read_class<Elf64_Ehdr, Elf64_Phdr>(file, image)
                                            : read_class<Elf32_Ehdr, Elf32_Phdr>(file, image);
}

/// The PVH entry point among the notes of one PT_NOTE segment.
std::optional<u32> find_pvh_entry(std::span<const u8> notes) {
    const ImageReader reader(notes);
    u64 at = 0;
    while (const auto note = reader.at<Elf64_Nhdr>(at)) {
        const u64 name_at = at + sizeof(Elf64_Nhdr);
        const u64 desc_at = name_at + align_up(note->n_namesz, 4);
        const auto name = reader.range(name_at, note->n_namesz);
        if (!name || !reader.range(desc_at, note->n_descsz)) {
            return std::nullopt;
        }
        const bool xen = name->size() == 4 && std::memcmp(name->data(), "Xen", 4) == 0;
        if (xen && note->n_type == note_phys32_entry && note->n_descsz >= 4) {
            return reader.at<u32>(desc_at);
        }
        at = desc_at + align_up(note->n_descsz, 4);
    }
    return std::nullopt;
}

struct StartInfo { // struct hvm_start_info, version 1
    u32 magic = 0x336ec578;
    u32 version = 1;
    u32 flags = 0;
    u32 module_count = 0;
    u64 modules = 0;
    u64 command_line = 0;
    u64 rsdp = acpi_start;
    u64 memory_map = 0;
    u32 memory_map_entries = 0;
    u32 reserved = 0;
};
static_assert(sizeof(StartInfo) == 56);

struct ModuleEntry {
    u64 address = 0;
    u64 size = 0;
    u64 command_line = 0;
    u64 reserved = 0;
};
static_assert(max_modules * sizeof(ModuleEntry) <= BootArea::strings - BootArea::modules);

struct MapEntry {
    u64 address = 0;
    u64 size = 0;
    u32 type = 0;
    u32 reserved = 0;
};

} // namespace

bool is_elf(std::span<const u8> image) {
    return image.size() >= SELFMAG && std::memcmp(image.data(), ELFMAG, SELFMAG) == 0;
}

Result<LoadedElf> load_elf(Placement& placement, const BootFile& file) {
    const ElfHeader header = TRY(read_elf_header(file));
    const ImageReader image(file.bytes);
    LoadedElf out{.entry = header.entry, .end = 0, .pvh_entry = std::nullopt};
    for (const Segment& segment : header.segments) {
        if (segment.type != PT_LOAD && segment.type != PT_NOTE) {
            continue;
        }
        const auto bytes = image.range(segment.offset, segment.file_size);
        if (!bytes) {
            return bad_image(file, "truncated: a segment of " + std::to_string(segment.file_size) +
                                       " bytes is cut off");
        }
        if (segment.type == PT_NOTE) {
            if (!out.pvh_entry) {
                out.pvh_entry = find_pvh_entry(*bytes);
            }
            continue;
        }
        if (segment.file_size > segment.memory_size) {
            return bad_image(file, "a segment is larger in the file than in memory");
        }
        TRY(placement.claim(segment.address, segment.memory_size, file.name));
        TRY(placement.write(segment.address, *bytes));
        out.end = std::max(out.end, segment.address + segment.memory_size);
    }
    if (out.end == 0) {
        return bad_image(file, "an ELF image with nothing to load");
    }
    return out;
}

Result<Entry> load_pvh(cpu::GuestMemory& guest, u64 memory, const BootImages& images) {
    Placement placement(guest, memory);
    const LoadedElf elf = TRY(load_elf(placement, images.kernel));
    if (!elf.pvh_entry) {
        return bad_image(images.kernel, "an ELF image without a PVH entry note");
    }
    if (images.modules.size() > max_modules) {
        return fail(ErrorCode::usage, "more than " + std::to_string(max_modules) + " modules");
    }
    StartInfo info;
    info.command_line = TRY(placement.write_string(images.command_line, "the command line"));
    info.module_count = static_cast<u32>(images.modules.size());
    info.modules = images.modules.empty() ? 0 : BootArea::modules;
    for (u64 i = 0; i < images.modules.size(); ++i) {
        const BootFile& module = images.modules[i];
        ModuleEntry entry;
        entry.size = module.bytes.size();
        entry.address = TRY(placement.claim_high(entry.size, four_gib, module.name));
        entry.command_line = TRY(placement.write_string(module.name, "a module's name"));
        TRY(placement.write(entry.address, module.bytes));
        TRY(placement.write_object(BootArea::modules + i * sizeof(entry), entry));
    }
    info.memory_map = BootArea::memory_map;
    for (const device::E820Entry& range : memory_map(memory)) {
        const MapEntry entry{range.start, range.size, static_cast<u32>(range.type), 0};
        TRY(placement.write_object(info.memory_map + info.memory_map_entries * sizeof(entry),
                                   entry));
        ++info.memory_map_entries;
    }
    TRY(placement.write_object(BootArea::boot_params, info));
    return Entry{.rip = *elf.pvh_entry, .rbx = BootArea::boot_params};
}

} // namespace nestor::machine
