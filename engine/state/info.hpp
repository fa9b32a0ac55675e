// Run-time description of state structs: what the generated tables say and the codec walks.
//
// One table per struct, generated from the schema, serves encode, decode, diff, JSON, digests and
// the tests' random values. All of it is constant-initialised.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace nestor::state {

enum class Kind : std::uint8_t {
    nothing,
    boolean,
    unsigned_integer,
    signed_integer,
    enumeration,
    text,       ///< std::string
    data,       ///< std::vector<std::uint8_t>
    fixed_data, ///< std::array<std::uint8_t, count>
    structure,  ///< another struct, behind a pointer on the wire
    group,      ///< a struct that shares its parent's sections on the wire
    variant,    ///< a union: std::variant of groups
};

enum class Shape : std::uint8_t {
    one,
    array, ///< std::array<T, count>
    list,  ///< std::vector<T>
};

struct EnumInfo {
    const char* name;
    std::span<const char* const> enumerants; ///< schema names, by value
};

/// How to handle a std::vector<T> without knowing T.
struct ListOps {
    std::size_t (*size)(const void* list);
    void (*resize)(void* list, std::size_t size);
    void* (*at)(void* list, std::size_t index);
};

/// How to handle a std::variant without knowing its arms, which are groups.
struct VariantInfo;

struct FieldInfo {
    const char* name = ""; ///< schema name; empty for an anonymous union or an arm's only value
    const char* unit = "";
    Kind kind = Kind::nothing;
    Shape shape = Shape::one;
    std::uint8_t bits = 0; ///< 1, 8, 16, 32, 64: a scalar, or each element of a list
    bool hex = false;
    bool policy = false;
    std::uint16_t ordinal = 0xffff; ///< 0xffff for groups and unions
    std::uint32_t slot = 0;         ///< first bit in the data section, or pointer index
    std::uint32_t offset = 0;       ///< of the member in the live struct
    std::uint32_t count = 0;        ///< elements of an array, bytes of fixed data
    std::uint32_t element_size = 0; ///< sizeof one element (or of the member itself)
    std::uint64_t default_bits = 0; ///< scalars: XORed on the wire
    const char* default_text = "";
    const StructInfo* type = nullptr;
    const EnumInfo* enumeration = nullptr;
    const VariantInfo* variant = nullptr;
    const ListOps* list = nullptr;

    /// Whether the wire has it behind a pointer.
    [[nodiscard]] constexpr bool is_pointer() const {
        return shape != Shape::one || kind == Kind::text || kind == Kind::data ||
               kind == Kind::fixed_data || kind == Kind::structure;
    }
};

struct StructInfo {
    std::uint64_t id;
    const char* name;
    std::uint16_t rank;
    std::uint16_t data_words;
    std::uint16_t pointer_count;
    std::uint32_t live_size;
    std::span<const FieldInfo> fields;
    void* (*create)();      ///< a default value on the heap; null for groups
    void (*destroy)(void*); ///< its end
    bool (*equal)(const void*, const void*);
};

struct VariantInfo {
    std::uint32_t tag_slot;          ///< first bit of the 16-bit discriminant in the data section
    std::span<const FieldInfo> arms; ///< by discriminant, which is the variant's index
    std::size_t (*index)(const void* variant);
    void* (*get)(void* variant); ///< the active arm
    void* (*emplace)(void* variant, std::size_t index);
};

} // namespace nestor::state
