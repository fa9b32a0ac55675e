// Loaders: they put a kernel into guest memory as firmware and a boot loader would have.
//
// Images come from anywhere: every offset and size in them is checked before it is used, and what
// is wrong is told with the file's name.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "engine/cpu/guest_memory.hpp"
#include "engine/state/cpu.hpp"
#include "src/base/result.hpp"
#include "src/base/types.hpp"

namespace nestor::machine {

/// A file to be loaded; `name` is what errors call it.
struct BootFile {
    std::string name;
    std::span<const u8> bytes;
};

struct BootImages {
    BootFile kernel;
    std::vector<BootFile> modules; ///< initrd; Linux takes one, multiboot and PVH any number
    std::string command_line;
};

/// How vCPU 0 starts. Either flat 32-bit protected mode without paging, or 64-bit mode with the
/// first 4 GiB mapped one to one.
struct Entry {
    bool long_mode = false;
    u64 rip = 0;
    u64 rax = 0;
    u64 rbx = 0;
    u64 rsi = 0;
};

/// Where loaders put what they hand over, below conventional memory's end. Kernels may be loaded
/// anywhere else in RAM.
struct BootArea {
    static constexpr u64 start = 0x1000;
    static constexpr u64 gdt = 0x1000;
    static constexpr u64 boot_params = 0x2000; ///< or hvm_start_info, or multiboot information
    static constexpr u64 memory_map = 0x3000;
    static constexpr u64 modules = 0x4000;
    static constexpr u64 strings = 0x6000; ///< command lines
    static constexpr u64 page_tables = 0x18000;
    static constexpr u64 end = 0x20000;
};
/// Modules that a kernel can be given; what the area above has room for.
inline constexpr u64 max_modules = 64;

/// Recognises the kernel (bzImage with 64-bit entry, multiboot 1, ELF with a PVH note), loads it
/// with its modules and writes the tables it expects. `memory` is the size of RAM. On failure
/// guest memory may be partly written.
[[nodiscard]] Result<Entry> load_kernel(cpu::GuestMemory& guest, u64 memory,
                                        const BootImages& images);

/// Whether a guest of that kernel is told the images' names: multiboot has them in its strings.
[[nodiscard]] bool tells_names(std::span<const u8> kernel);

/// Puts the processor into the state that `entry` describes.
void apply_entry(const Entry& entry, state::Cpu& cpu);

/// The format-specific loaders behind load_kernel. `is_…` looks at a few bytes only.
[[nodiscard]] bool is_bzimage(std::span<const u8> image);
[[nodiscard]] Result<Entry> load_bzimage(cpu::GuestMemory& guest, u64 memory,
                                         const BootImages& images);
[[nodiscard]] bool is_multiboot(std::span<const u8> image);
[[nodiscard]] Result<Entry> load_multiboot(cpu::GuestMemory& guest, u64 memory,
                                           const BootImages& images);
[[nodiscard]] bool is_elf(std::span<const u8> image);
[[nodiscard]] Result<Entry> load_pvh(cpu::GuestMemory& guest, u64 memory, const BootImages& images);

} // namespace nestor::machine
