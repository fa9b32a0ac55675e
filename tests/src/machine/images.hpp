// Kernel images made in memory, for the loader tests and the loader fuzzer's corpus.
#pragma once

#include <elf.h>

#include <cstring>
#include <string>
#include <vector>

#include "src/base/types.hpp"

namespace nestor::machine {

using Image = std::vector<u8>;

template <class T>
void put(Image& image, std::size_t at, T value) {
    if (image.size() < at + sizeof(T)) {
        image.resize(at + sizeof(T));
    }
    std::memcpy(image.data() + at, &value, sizeof(T));
}

/// A bzImage of boot protocol 2.15 with `code` bytes of 0x90 as its protected-mode part.
inline Image make_bzimage(u32 code = 0x4000, u64 address = 0x1000000) {
    Image image(1024);
    put<u8>(image, 0x1f1, 1);
    put<u32>(image, 0x1f4, code / 16);
    put<u16>(image, 0x1fe, 0xaa55);
    put<u8>(image, 0x201, 0x6a);
    put<u32>(image, 0x202, 0x53726448);
    put<u16>(image, 0x206, 0x020f);
    put<u32>(image, 0x22c, 0x7fffffff);
    put<u16>(image, 0x236, 1);
    put<u32>(image, 0x238, 2047);
    put<u64>(image, 0x258, address);
    put<u32>(image, 0x260, code + 0x10000);
    image.resize(1024 + code, 0x90);
    return image;
}

/// An ELF64 with one loadable segment of `code` at `address` and a Xen note naming `entry`.
inline Image make_pvh(const Image& code, u64 address = 0x100000, u32 entry = 0x100000) {
    Image image;
    Elf64_Ehdr header{};
    std::memcpy(header.e_ident, ELFMAG, SELFMAG);
    header.e_ident[EI_CLASS] = ELFCLASS64;
    header.e_ident[EI_DATA] = ELFDATA2LSB;
    header.e_type = ET_EXEC;
    header.e_machine = EM_X86_64;
    header.e_entry = address;
    header.e_phoff = sizeof(header);
    header.e_phentsize = sizeof(Elf64_Phdr);
    header.e_phnum = 2;
    put(image, 0, header);
    const u64 note_at = sizeof(header) + 2 * sizeof(Elf64_Phdr);
    const u64 code_at = note_at + 20;
    Elf64_Phdr load{};
    load.p_type = PT_LOAD;
    load.p_offset = code_at;
    load.p_paddr = address;
    load.p_filesz = code.size();
    load.p_memsz = code.size() + 4096;
    put(image, sizeof(header), load);
    Elf64_Phdr note{};
    note.p_type = PT_NOTE;
    note.p_offset = note_at;
    note.p_filesz = note.p_memsz = 20;
    put(image, sizeof(header) + sizeof(load), note);
    put<u32>(image, note_at, 4);
    put<u32>(image, note_at + 4, 4);
    put<u32>(image, note_at + 8, 18);
    put<u32>(image, note_at + 12, 0x006e6558); // "Xen"
    put<u32>(image, note_at + 16, entry);
    image.insert(image.end(), code.begin(), code.end());
    return image;
}

/// A multiboot kernel with address fields: header, then `code`, loaded at `address`.
inline Image make_multiboot(const Image& code, u32 address = 0x100000) {
    constexpr u32 header_size = 32;
    Image image;
    const u32 flags = 0x10003;
    put<u32>(image, 0, 0x1badb002);
    put<u32>(image, 4, flags);
    put<u32>(image, 8, 0u - 0x1badb002u - flags);
    put<u32>(image, 12, address);
    put<u32>(image, 16, address);
    put<u32>(image, 20, 0);
    put<u32>(image, 24, 0);
    put<u32>(image, 28, address + header_size);
    image.insert(image.end(), code.begin(), code.end());
    return image;
}

} // namespace nestor::machine
