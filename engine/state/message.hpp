// The words of a message from anywhere, and who has claimed them.
//
// Every object's words are noted when a pointer to it is taken, and in the end they must tile the
// message: no overlap, no alias, no word that belongs to nothing. That bounds the time to read a
// message by its size. For decode.cpp only; errors are `corrupt` and name no path.
#pragma once

#include <cstddef>
#include <cstring>
#include <span>
#include <vector>

#include "src/base/result.hpp"

namespace nestor::state::erased {

struct StructPointer {
    u64 start = 0;
    u32 data = 0;
    u32 pointers = 0;
};

struct ListPointer {
    u64 start = 0;
    u32 code = 0;  ///< of the elements: 1 to 5 for 1 to 64 bits, 6 pointers, 7 structs
    u64 count = 0; ///< elements; words for a list of structs
};

class Message final {
public:
    explicit Message(std::span<const std::byte> bytes)
        : bytes_(bytes), words_(bytes.size() / sizeof(u64)) {}

    /// Claims the root pointer, which is word 0.
    [[nodiscard]] Result<> open();

    /// `index` lies in what was claimed.
    [[nodiscard]] u64 word(u64 index) const {
        u64 value = 0;
        std::memcpy(&value, at(index), sizeof value);
        return value;
    }
    [[nodiscard]] const std::byte* at(u64 index) const {
        return bytes_.data() + index * sizeof(u64);
    }

    /// What the pointer in word `where` points at, whose words are claimed with it.
    [[nodiscard]] Result<StructPointer> struct_pointer(u64 pointer, u64 where);
    [[nodiscard]] Result<ListPointer> list_pointer(u64 pointer, u64 where);
    /// The element code must be `code`, and the last word's padding zero.
    [[nodiscard]] Result<> check_list(const ListPointer& list, u32 code) const;

    /// All objects together are the message, each word once.
    [[nodiscard]] Result<> tile();

private:
    struct Extent {
        u64 start;
        u64 size;
    };

    void note(Extent extent);
    [[nodiscard]] Result<> claim(i64 start, u64 size);

    std::span<const std::byte> bytes_;
    u64 words_;
    u64 covered_ = 0;
    std::vector<Extent> extents_;
};

} // namespace nestor::state::erased
