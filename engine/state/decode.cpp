// Cap'n Proto bytes to live state, for bytes from anywhere.
//
// Everything read is taken out of a copy of its section: known bits and pointers become zero, so
// whatever is left over afterwards is what a newer writer added (DESIGN.md, rule 1). message.hpp
// sees to it that no word is read twice. That bounds time and memory by the size of the message,
// apart from the factor between a word and the live struct it may stand for, which has a budget.
#include <bit>
#include <cstring>
#include <utility>

#include <fmt/format.h>

#include "engine/state/codec.hpp"
#include "engine/state/info.hpp"
#include "engine/state/message.hpp"
#include "src/base/types.hpp"

namespace nestor::state::erased {

namespace {

/// Most live bytes that the lists of one message may take.
constexpr u64 live_budget = u64{1} << 30;
u32 code_of(unsigned bits) {
    switch (bits) {
    case 1:
        return 1;
    case 8:
        return 2;
    case 16:
        return 3;
    case 32:
        return 4;
    default:
        return 5;
    }
}

class Decoder final {
public:
    explicit Decoder(std::span<const std::byte> bytes) : message_(bytes) {}

    Result<> message(void* value, const StructInfo& info) {
        path_ = info.name;
        TRY(message_.open(), path_);
        TRY(structure(value, info, message_.word(0), 0));
        TRY(message_.tile(), path_);
        return {};
    }

private:
    /// A struct's sections, copied out. Indices are into scratch_, which grows and shrinks with
    /// the depth of structs, so that no struct costs an allocation of its own.
    struct Sections {
        std::size_t base;
        u32 data;
        u32 pointers;
        u64 first_pointer; ///< where the pointer section lies in the message
    };

    [[nodiscard]] Failure corrupt(std::string_view what) const {
        return fail(ErrorCode::corrupt, fmt::format("{}: {}", path_, what));
    }

    [[nodiscard]] Failure newer(std::string_view what) const {
        return fail(
            ErrorCode::incompatible,
            fmt::format("{}: {} is not known here: written by a newer version", path_, what),
            "use the version that wrote it, or a newer one");
    }

    /// Appends to the path for as long as it lives.
    class Step final {
    public:
        Step(Decoder& decoder, std::string_view name) : Step(decoder) {
            if (!name.empty()) {
                path_ += '.';
                path_ += name;
            }
        }
        Step(Decoder& decoder, u64 index) : Step(decoder) { path_ += fmt::format("[{}]", index); }
        ~Step() { path_.resize(size_); }
        Step(const Step&) = delete;
        Step& operator=(const Step&) = delete;

    private:
        explicit Step(Decoder& decoder) : path_(decoder.path_), size_(decoder.path_.size()) {}
        std::string& path_;
        std::size_t size_;
    };

    Result<> structure(void* value, const StructInfo& info, u64 pointer, u64 at) {
        const StructPointer found = TRY(message_.struct_pointer(pointer, at), path_);
        return body(value, info, found);
    }

    /// A struct whose words are claimed already.
    Result<> body(void* value, const StructInfo& info, const StructPointer& at) {
        const Sections sections{scratch_.size(), at.data, at.pointers, at.start + at.data};
        scratch_.resize(sections.base + at.data + at.pointers);
        if (at.data + at.pointers != 0) {
            std::memcpy(scratch_.data() + sections.base, message_.at(at.start),
                        (at.data + at.pointers) * sizeof(u64));
        }
        TRY(fields(value, info, sections));
        TRY(nothing_left(sections));
        scratch_.resize(sections.base);
        return {};
    }

    Result<> nothing_left(const Sections& sections) const {
        for (u32 i = 0; i < sections.data + sections.pointers; ++i) {
            const u64 left = scratch_[sections.base + i];
            if (left == 0) {
                continue;
            }
            if (i < sections.data) {
                return newer(fmt::format("bit {} of its data", i * 64 + std::countr_zero(left)));
            }
            return newer(fmt::format("pointer {}", i - sections.data));
        }
        return {};
    }

    /// Bits of the data section, which are zero from then on; zero beyond its end.
    u64 take_bits(const Sections& sections, u32 slot, unsigned bits) {
        if (slot / 64 >= sections.data) {
            return 0;
        }
        u64& word = scratch_[sections.base + slot / 64];
        const u64 mask = (bits == 64 ? ~u64{0} : (u64{1} << bits) - 1) << slot % 64;
        const u64 value = (word & mask) >> slot % 64;
        word &= ~mask;
        return value;
    }

    u64 take_pointer(const Sections& sections, u32 slot) {
        if (slot >= sections.pointers) {
            return 0;
        }
        return std::exchange(scratch_[sections.base + sections.data + slot], 0);
    }

    Result<> fields(void* value, const StructInfo& info, const Sections& sections) {
        for (const FieldInfo& field : info.fields) {
            TRY(this->field(static_cast<std::byte*>(value) + field.offset, field, sections));
        }
        return {};
    }

    Result<> field(std::byte* at, const FieldInfo& field, const Sections& sections) {
        if (field.is_pointer()) {
            const u64 pointer = take_pointer(sections, field.slot);
            if (pointer == 0) {
                return {};
            }
            const Step step(*this, field.name);
            return target_of(at, field, pointer, sections.first_pointer + field.slot);
        }
        switch (field.kind) {
        case Kind::nothing:
            return {};
        case Kind::group: {
            const Step step(*this, field.name);
            return fields(at, *field.type, sections);
        }
        case Kind::variant: {
            const Step step(*this, field.name);
            return variant(at, *field.variant, sections);
        }
        default:
            return scalar(at, field,
                          take_bits(sections, field.slot, field.bits) ^ field.default_bits);
        }
    }

    Result<> scalar(std::byte* at, const FieldInfo& field, u64 value) {
        if (field.kind == Kind::enumeration && value >= field.enumeration->enumerants.size()) {
            const Step step(*this, field.name);
            return newer(fmt::format("enumerant {} of {}", value, field.enumeration->name));
        }
        std::memcpy(at, &value, field.bits == 1 ? 1 : field.bits / 8);
        return {};
    }

    Result<> variant(void* at, const VariantInfo& info, const Sections& sections) {
        const u64 tag = take_bits(sections, info.tag_slot, 16);
        if (tag >= info.arms.size()) {
            return newer(fmt::format("union member {}", tag));
        }
        return field(static_cast<std::byte*>(info.emplace(at, tag)), info.arms[tag], sections);
    }

    Result<> target_of(std::byte* at, const FieldInfo& field, u64 pointer, u64 where) {
        if (field.shape == Shape::one && field.kind == Kind::structure) {
            return structure(at, *field.type, pointer, where);
        }
        const ListPointer list = TRY(message_.list_pointer(pointer, where), path_);
        if (field.shape == Shape::one) {
            return blob(at, field, list);
        }
        switch (field.kind) {
        case Kind::structure:
            return struct_list(at, field, list);
        case Kind::text:
        case Kind::data:
            return blob_list(at, field, list);
        default:
            return scalar_list(at, field, list);
        }
    }

    Result<> blob(void* at, const FieldInfo& field, const ListPointer& list) {
        TRY(message_.check_list(list, 2), path_);
        const auto* from = reinterpret_cast<const u8*>(message_.at(list.start));
        if (field.kind == Kind::text) {
            if (list.count == 0 || from[list.count - 1] != 0) {
                return corrupt("a text without its end");
            }
            static_cast<std::string*>(at)->assign(from, from + list.count - 1);
        } else if (field.kind == Kind::fixed_data) {
            if (list.count != field.count) {
                return corrupt(fmt::format("{} bytes instead of {}", list.count, field.count));
            }
            std::memcpy(at, from, field.count);
        } else {
            static_cast<std::vector<u8>*>(at)->assign(from, from + list.count);
        }
        return {};
    }

    /// Makes room for a list's elements, or compares an array's length.
    Result<> size_list(void* at, const FieldInfo& field, u64 count) {
        if (field.shape == Shape::array) {
            if (count != field.count) {
                return corrupt(fmt::format("{} elements instead of {}", count, field.count));
            }
            return {};
        }
        live_ += count * field.element_size;
        if (live_ > live_budget) {
            return corrupt(fmt::format("a list of {} elements is too long", count));
        }
        field.list->resize(at, count);
        return {};
    }

    static std::byte* element(void* at, const FieldInfo& field, u64 index) {
        return field.shape == Shape::array
                   ? static_cast<std::byte*>(at) + index * field.element_size
                   : static_cast<std::byte*>(field.list->at(at, index));
    }

    Result<> scalar_list(void* at, const FieldInfo& field, const ListPointer& list) {
        TRY(message_.check_list(list, code_of(field.bits)), path_);
        TRY(size_list(at, field, list.count));
        if (list.count == 0) {
            return {};
        }
        const std::byte* from = message_.at(list.start);
        if (field.bits == 1) {
            for (u64 i = 0; i < list.count; ++i) {
                const u8 bit = std::to_integer<u8>(from[i / 8] >> i % 8) & 1;
                std::memcpy(element(at, field, i), &bit, 1);
            }
            return {};
        }
        if (field.kind == Kind::enumeration) {
            for (u64 i = 0; i < list.count; ++i) {
                u16 value = 0;
                std::memcpy(&value, from + i * sizeof value, sizeof value);
                const Step step(*this, i);
                TRY(scalar(element(at, field, i), field, value));
            }
            return {};
        }
        std::memcpy(element(at, field, 0), from, list.count * field.bits / 8);
        return {};
    }

    Result<> blob_list(void* at, const FieldInfo& field, const ListPointer& list) {
        TRY(message_.check_list(list, 6), path_);
        TRY(size_list(at, field, list.count));
        for (u64 i = 0; i < list.count; ++i) {
            const u64 pointer = message_.word(list.start + i);
            if (pointer != 0) {
                const Step step(*this, i);
                const ListPointer found =
                    TRY(message_.list_pointer(pointer, list.start + i), path_);
                TRY(blob(element(at, field, i), field, found));
            }
        }
        return {};
    }

    Result<> struct_list(void* at, const FieldInfo& field, const ListPointer& list) {
        TRY(message_.check_list(list, 7), path_);
        const u64 tag = message_.word(list.start);
        const u64 count = static_cast<u32>(tag) >> 2;
        StructPointer each;
        each.data = static_cast<u16>(tag >> 32);
        each.pointers = static_cast<u16>(tag >> 48);
        const u64 size = u64{each.data} + each.pointers;
        if ((tag & 3) != 0 || count * size != list.count || (size == 0 && count != 0)) {
            return corrupt("a list whose elements do not fill it");
        }
        TRY(size_list(at, field, count));
        each.start = list.start + 1;
        for (u64 i = 0; i < count; ++i) {
            const Step step(*this, i);
            TRY(body(element(at, field, i), *field.type, each));
            each.start += size;
        }
        return {};
    }

    Message message_;
    u64 live_ = 0;
    std::vector<u64> scratch_;
    std::string path_;
};

} // namespace

Result<> decode(void* value, const StructInfo& info, std::span<const std::byte> bytes) {
    return Decoder(bytes).message(value, info);
}

} // namespace nestor::state::erased
