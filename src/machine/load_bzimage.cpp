// Loads a Linux bzImage by the 64-bit boot protocol (Linux Documentation/arch/x86/boot.rst).
//
// Owns nothing. The protected-mode part goes to its preferred address; boot_params get the setup
// header, the memory map, initrd, command line and the address of the RSDP. A protected-mode part
// cut short is found by the header's syssize; what follows it, such as a signature, is let be.
#include <array>

#include "src/base/bits.hpp"
#include "src/machine/loading.hpp"
#include "src/machine/memory.hpp"

namespace nestor::machine {
namespace {

// Offsets in the setup header, which sits at the same place in boot_params.
constexpr u64 header_start = 0x1f1; // setup_sects
constexpr u64 off_syssize = 0x1f4;
constexpr u64 off_vid_mode = 0x1fa;
constexpr u64 off_boot_flag = 0x1fe;
constexpr u64 off_jump_length = 0x201;
constexpr u64 off_magic = 0x202;
constexpr u64 off_version = 0x206;
constexpr u64 off_type_of_loader = 0x210;
constexpr u64 off_ramdisk_image = 0x218;
constexpr u64 off_ramdisk_size = 0x21c;
constexpr u64 off_cmd_line_ptr = 0x228;
constexpr u64 off_initrd_addr_max = 0x22c;
constexpr u64 off_xloadflags = 0x236;
constexpr u64 off_cmdline_size = 0x238;
constexpr u64 off_pref_address = 0x258;
constexpr u64 off_init_size = 0x260;
constexpr u64 header_limit = 0x280;

// Offsets in boot_params outside the header.
constexpr u64 params_rsdp = 0x070;
constexpr u64 params_e820_count = 0x1e8;
constexpr u64 params_e820 = 0x2d0;

constexpr u32 magic = 0x53726448; // "HdrS"
constexpr u16 boot_flag = 0xaa55;
constexpr u16 oldest_version = 0x020c; // the first with xloadflags
constexpr u16 xlf_kernel_64 = 1;
constexpr u8 undefined_loader = 0xff;
constexpr u16 vid_mode_normal = 0xffff;
constexpr u64 entry_64 = 0x200;
constexpr u64 sector = 512;

struct Header {
    u64 setup_size = 0;
    u64 code_size = 0;
    u64 end = 0;
    u32 initrd_addr_max = 0;
    u32 cmdline_size = 0;
    u64 pref_address = 0;
    u32 init_size = 0;
};

Result<Header> read_header(const BootFile& file) {
    const ImageReader image(file.bytes);
    const auto version = image.at<u16>(off_version);
    const auto xloadflags = image.at<u16>(off_xloadflags);
    const auto init_size = image.at<u32>(off_init_size);
    if (!version || !xloadflags || !init_size) {
        return bad_image(file, "truncated: the setup header is cut off");
    }
    if (*version < oldest_version || (*xloadflags & xlf_kernel_64) == 0) {
        return bad_image(file, "no 64-bit entry point (boot protocol 2.12 with XLF_KERNEL_64)");
    }
    Header header;
    const u8 setup_sects = *image.at<u8>(header_start);
    header.setup_size = (u64{setup_sects == 0 ? u8{4} : setup_sects} + 1) * sector;
    header.code_size = u64{*image.at<u32>(off_syssize)} * 16;
    header.end = std::min<u64>(off_magic + *image.at<u8>(off_jump_length), header_limit);
    header.initrd_addr_max = *image.at<u32>(off_initrd_addr_max);
    header.cmdline_size = *image.at<u32>(off_cmdline_size);
    header.pref_address = *image.at<u64>(off_pref_address);
    header.init_size = *init_size;
    const u64 rest = image.size() - std::min(image.size(), header.setup_size);
    // The build rounds syssize up to 16 bytes.
    if (header.code_size == 0 || rest + 15 < header.code_size) {
        return bad_image(file, "truncated: " + std::to_string(rest) + " bytes of kernel code of " +
                                   std::to_string(header.code_size));
    }
    header.code_size = std::min(header.code_size, rest);
    return header;
}

template <class T>
void put(std::span<u8> params, u64 offset, T value) {
    std::memcpy(params.data() + offset, &value, sizeof(value));
}

void put_memory_map(std::span<u8> params, u64 memory) {
    const auto map = memory_map(memory);
    params[params_e820_count] = static_cast<u8>(map.size());
    u64 at = params_e820;
    for (const device::E820Entry& entry : map) {
        put(params, at, entry.start);
        put(params, at + 8, entry.size);
        put(params, at + 16, static_cast<u32>(entry.type));
        at += 20;
    }
}

} // namespace

bool is_bzimage(std::span<const u8> image) {
    const ImageReader reader(image);
    return reader.at<u16>(off_boot_flag) == boot_flag && reader.at<u32>(off_magic) == magic;
}

Result<Entry> load_bzimage(cpu::GuestMemory& guest, u64 memory, const BootImages& images) {
    const BootFile& file = images.kernel;
    const Header header = TRY(read_header(file));
    if (images.command_line.size() > header.cmdline_size) {
        return fail(ErrorCode::usage, "the command line has " +
                                          std::to_string(images.command_line.size()) +
                                          " characters; " + file.name + " takes " +
                                          std::to_string(header.cmdline_size));
    }
    if (images.modules.size() > 1) {
        return fail(ErrorCode::usage, "a Linux kernel takes one initrd");
    }

    Placement placement(guest, memory);
    const u64 size = std::max<u64>(header.init_size, header.code_size);
    TRY(placement.claim(header.pref_address, size, file.name));
    TRY(placement.write(header.pref_address,
                        file.bytes.subspan(header.setup_size, header.code_size)));

    std::array<u8, page_size> params{};
    const auto setup_header = file.bytes.subspan(header_start, header.end - header_start);
    std::copy(setup_header.begin(), setup_header.end(), params.begin() + header_start);
    put(params, off_vid_mode, vid_mode_normal);
    put(params, off_type_of_loader, undefined_loader);
    put(params, off_cmd_line_ptr,
        static_cast<u32>(TRY(placement.write_string(images.command_line, "the command line"))));
    put(params, off_ramdisk_image, u32{0});
    put(params, off_ramdisk_size, u32{0});
    if (!images.modules.empty()) {
        const BootFile& initrd = images.modules.front();
        const u64 limit = u64{header.initrd_addr_max} + 1;
        const u64 at = TRY(placement.claim_high(initrd.bytes.size(), limit, initrd.name));
        TRY(placement.write(at, initrd.bytes));
        put(params, off_ramdisk_image, static_cast<u32>(at));
        put(params, off_ramdisk_size, static_cast<u32>(initrd.bytes.size()));
    }
    put(params, params_rsdp, acpi_start);
    put_memory_map(params, memory);
    TRY(placement.write(BootArea::boot_params, params));
    return Entry{
        .long_mode = true, .rip = header.pref_address + entry_64, .rsi = BootArea::boot_params};
}

} // namespace nestor::machine
