// Live state to canonical Cap'n Proto bytes (capnproto.org/encoding.html, "Canonicalization").
//
// One pass, bottom up: what a pointer refers to is encoded into words of its own, and a struct is
// put together from its trimmed data section, its trimmed pointer section and those, in pointer
// order. Offsets inside such a run of words are relative, so it can be moved as it is.
#include <algorithm>
#include <cstring>

#include "engine/state/codec.hpp"
#include "engine/state/walk.hpp"
#include "src/base/check.hpp"
#include "src/base/types.hpp"

namespace nestor::state::erased {

namespace {

using Words = std::vector<u64>;

/// A pointer without its offset (0: null) and what it refers to.
struct Target {
    u64 pointer = 0;
    Words words;
};

/// A struct's two sections before they are trimmed and joined.
struct Sections {
    Words data;
    std::vector<Target> pointers;

    void trim() {
        while (!data.empty() && data.back() == 0) {
            data.pop_back();
        }
        while (!pointers.empty() && pointers.back().pointer == 0) {
            pointers.pop_back();
        }
    }
};

constexpr u64 struct_pointer(std::size_t data, std::size_t pointers) {
    return u64{data} << 32 | u64{pointers} << 48;
}

/// Element size codes of a list pointer.
enum class ListCode : u8 {
    bit = 1,
    byte = 2,
    two = 3,
    four = 4,
    eight = 5,
    pointer = 6,
    structs = 7
};

u64 make_list_pointer(ListCode code, std::size_t count) {
    CHECK(count < std::size_t{1} << 29, {count});
    return 1 | u64{static_cast<u8>(code)} << 32 | u64{count} << 35;
}

ListCode list_code_of(unsigned bits) {
    switch (bits) {
    case 1:
        return ListCode::bit;
    case 8:
        return ListCode::byte;
    case 16:
        return ListCode::two;
    case 32:
        return ListCode::four;
    default:
        return ListCode::eight;
    }
}

/// Writes the pointers into words[at...] and puts their targets behind the words, in order.
void place(Words& words, std::size_t at, std::vector<Target>& targets) {
    for (Target& target : targets) {
        if (target.pointer != 0) {
            const u64 offset = words.size() - at - 1;
            words[at] = target.pointer | (offset & 0x3fffffff) << 2;
            words.insert(words.end(), target.words.begin(), target.words.end());
        }
        ++at;
    }
}

class Encoder final {
public:
    explicit Encoder(Scope scope) : scope_(scope) {}

    [[nodiscard]] Target structure(const void* value, const StructInfo& info) const {
        Sections sections = sections_of(value, info);
        Target out;
        out.pointer = struct_pointer(sections.data.size(), sections.pointers.size());
        if (out.pointer != 0) {
            out.words = std::move(sections.data);
            const std::size_t at = out.words.size();
            out.words.resize(at + sections.pointers.size());
            place(out.words, at, sections.pointers);
        }
        return out;
    }

private:
    [[nodiscard]] Sections sections_of(const void* value, const StructInfo& info) const {
        Sections sections;
        sections.data.resize(info.data_words);
        sections.pointers.resize(info.pointer_count);
        fields(sections, value, info);
        sections.trim();
        return sections;
    }

    void fields(Sections& out, const void* value, const StructInfo& info) const {
        for (const FieldInfo& field : info.fields) {
            this->field(out, walk::member(value, field), field);
        }
    }

    void field(Sections& out, const void* at, const FieldInfo& field) const {
        if (field.policy && scope_ == Scope::guest) {
            return;
        }
        if (field.is_pointer()) {
            out.pointers[field.slot] = pointer(at, field);
            return;
        }
        switch (field.kind) {
        case Kind::nothing:
            break;
        case Kind::group:
            fields(out, at, *field.type);
            break;
        case Kind::variant:
            variant(out, at, *field.variant);
            break;
        default:
            out.data[field.slot / 64] |= (walk::load(at, field.bits) ^ field.default_bits)
                                         << field.slot % 64;
        }
    }

    void variant(Sections& out, const void* at, const VariantInfo& info) const {
        const std::size_t index = info.index(at);
        CHECK(index < info.arms.size(), {index});
        out.data[info.tag_slot / 64] |= u64{index} << info.tag_slot % 64;
        field(out, walk::arm(at, info), info.arms[index]);
    }

    [[nodiscard]] Target pointer(const void* at, const FieldInfo& field) const {
        if (field.shape != Shape::one) {
            return list(at, field);
        }
        return field.kind == Kind::structure ? structure(at, *field.type) : blob(at, field);
    }

    /// Text or Data.
    [[nodiscard]] static Target blob(const void* at, const FieldInfo& field) {
        if (field.kind == Kind::text) {
            const auto& text = *static_cast<const std::string*>(at);
            return text == field.default_text ? Target{} : bytes(text.data(), text.size(), 1);
        }
        if (field.kind == Kind::fixed_data) {
            const auto* data = static_cast<const u8*>(at);
            const bool zero = std::all_of(data, data + field.count, [](u8 b) { return b == 0; });
            return zero ? Target{} : bytes(data, field.count, 0);
        }
        const auto& data = *static_cast<const std::vector<u8>*>(at);
        return data.empty() ? Target{} : bytes(data.data(), data.size(), 0);
    }

    [[nodiscard]] static Target bytes(const void* from, std::size_t size, std::size_t terminator) {
        Target out;
        out.pointer = make_list_pointer(ListCode::byte, size + terminator);
        out.words.resize((size + terminator + 7) / 8);
        if (size != 0) {
            std::memcpy(out.words.data(), from, size);
        }
        return out;
    }

    [[nodiscard]] Target list(const void* at, const FieldInfo& field) const {
        const std::size_t size = walk::list_size(at, field);
        if (size == 0) {
            return {};
        }
        switch (field.kind) {
        case Kind::structure:
            return struct_list(at, field, size);
        case Kind::text:
        case Kind::data:
            return blob_list(at, field, size);
        default:
            return scalar_list(at, field, size);
        }
    }

    [[nodiscard]] static Target scalar_list(const void* at, const FieldInfo& field,
                                            std::size_t size) {
        Target out;
        out.pointer = make_list_pointer(list_code_of(field.bits), size);
        out.words.resize((size * field.bits + 63) / 64);
        if (field.bits == 1) {
            for (std::size_t i = 0; i < size; ++i) {
                out.words[i / 64] |= walk::load(walk::element(at, field, i), 1) << i % 64;
            }
        } else {
            std::memcpy(out.words.data(), walk::element(at, field, 0), size * field.bits / 8);
        }
        return default_array(out, field) ? Target{} : out;
    }

    /// An array of nothing but zeroes is what an absent one decodes to.
    [[nodiscard]] static bool default_array(const Target& target, const FieldInfo& field) {
        return field.shape == Shape::array &&
               std::ranges::all_of(target.words, [](u64 word) { return word == 0; });
    }

    [[nodiscard]] Target blob_list(const void* at, const FieldInfo& field, std::size_t size) const {
        std::vector<Target> targets;
        bool any = field.shape == Shape::list;
        for (std::size_t i = 0; i < size; ++i) {
            targets.push_back(blob(walk::element(at, field, i), field));
            any = any || targets.back().pointer != 0;
        }
        Target out;
        if (any) {
            out.pointer = make_list_pointer(ListCode::pointer, size);
            out.words.resize(size);
            place(out.words, 0, targets);
        }
        return out;
    }

    [[nodiscard]] Target struct_list(const void* at, const FieldInfo& field,
                                     std::size_t size) const {
        std::vector<Sections> elements;
        std::size_t data = 0;
        std::size_t pointers = 0;
        for (std::size_t i = 0; i < size; ++i) {
            elements.push_back(sections_of(walk::element(at, field, i), *field.type));
            data = std::max(data, elements.back().data.size());
            pointers = std::max(pointers, elements.back().pointers.size());
        }
        if (data + pointers == 0) {
            if (field.shape == Shape::array) {
                return {};
            }
            data = 1;
        }
        Target out;
        out.pointer = make_list_pointer(ListCode::structs, size * (data + pointers));
        out.words.resize(1 + size * (data + pointers));
        out.words[0] = u64{size} << 2 | struct_pointer(data, pointers);
        std::size_t start = 1;
        for (Sections& sections : elements) {
            std::ranges::copy(sections.data, out.words.begin() + static_cast<i64>(start));
            place(out.words, start + data, sections.pointers);
            start += data + pointers;
        }
        return out;
    }

    Scope scope_;
};

} // namespace

std::vector<std::byte> encode(const void* value, const StructInfo& info, Scope scope) {
    std::vector<Target> root;
    root.push_back(Encoder(scope).structure(value, info));
    Words words(1);
    if (root[0].pointer == 0) {
        // A struct without sections: offset -1, so that it is not a null pointer.
        words[0] = 0xfffffffc;
    } else {
        place(words, 0, root);
    }
    std::vector<std::byte> bytes(words.size() * sizeof(u64));
    std::memcpy(bytes.data(), words.data(), bytes.size());
    return bytes;
}

} // namespace nestor::state::erased
