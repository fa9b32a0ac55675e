// What all loaders share: bounded reading of images and bounded writing of guest memory.
#pragma once

#include <cstring>
#include <optional>
#include <string>
#include <type_traits>
#include <vector>

#include "src/machine/boot.hpp"

namespace nestor::machine {

/// Reads little-endian values out of an image; nothing outside it.
class ImageReader final {
public:
    explicit ImageReader(std::span<const u8> bytes) : bytes_(bytes) {}

    [[nodiscard]] u64 size() const { return bytes_.size(); }
    /// The value at `offset`, or nothing where the image ends before its last byte.
    template <class T>
    [[nodiscard]] std::optional<T> at(u64 offset) const {
        static_assert(std::is_trivially_copyable_v<T>);
        if (offset > bytes_.size() || bytes_.size() - offset < sizeof(T)) {
            return std::nullopt;
        }
        T value;
        std::memcpy(&value, bytes_.data() + offset, sizeof(T));
        return value;
    }
    /// `size` bytes at `offset`, or nothing where the image ends before the last of them.
    [[nodiscard]] std::optional<std::span<const u8>> range(u64 offset, u64 size) const {
        if (offset > bytes_.size() || bytes_.size() - offset < size) {
            return std::nullopt;
        }
        return bytes_.subspan(offset, size);
    }

private:
    std::span<const u8> bytes_;
};

/// Hands out RAM below 4 GiB while a kernel is loaded, and sees to it that nothing overlaps.
class Placement final {
public:
    Placement(cpu::GuestMemory& guest, u64 memory);

    /// Claims [start, start + size) for `what`; it must be RAM that is free.
    [[nodiscard]] Result<> claim(u64 start, u64 size, const std::string& what);
    /// Claims `size` bytes at the highest page below `limit` where they fit.
    [[nodiscard]] Result<u64> claim_high(u64 size, u64 limit, const std::string& what);
    /// Claims `size` bytes at the lowest page from `from` on where they fit.
    [[nodiscard]] Result<u64> claim_low(u64 size, u64 from, const std::string& what);
    /// Writes to RAM that is claimed, or to the boot area.
    [[nodiscard]] Result<> write(u64 start, std::span<const u8> bytes);
    template <class T>
    [[nodiscard]] Result<> write_object(u64 start, const T& object) {
        static_assert(std::is_trivially_copyable_v<T>);
        return write(start, std::span(reinterpret_cast<const u8*>(&object), sizeof(T)));
    }
    /// Writes `text` and its terminating zero among the strings of the boot area.
    [[nodiscard]] Result<u64> write_string(const std::string& text, const std::string& what);

private:
    struct Range {
        u64 start;
        u64 end;
    };
    [[nodiscard]] const Range* first_overlap(u64 start, u64 end) const;

    cpu::GuestMemory& guest_;
    u64 top_; ///< end of RAM below 4 GiB
    u64 next_string_ = BootArea::strings;
    std::vector<Range> claimed_;
};

/// "FILE: PROBLEM" as an error about the contents of a file.
[[nodiscard]] Failure bad_image(const BootFile& file, const std::string& problem);

/// Loads the PT_LOAD segments of an ELF32 or ELF64 image at their physical addresses.
struct LoadedElf {
    u64 entry = 0;
    u64 end = 0;                  ///< first address after the last segment
    std::optional<u32> pvh_entry; ///< XEN_ELFNOTE_PHYS32_ENTRY
};
[[nodiscard]] Result<LoadedElf> load_elf(Placement& placement, const BootFile& file);

} // namespace nestor::machine
