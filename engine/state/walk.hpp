// Read access to live state by its description; shared by the codec's sources,
// and by tests that look at state by paths.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>

#include "engine/state/info.hpp"

namespace nestor::state::walk {

/// A scalar's bits, zero-extended.
inline std::uint64_t load(const void* at, unsigned bits) {
    std::uint64_t value = 0;
    std::memcpy(&value, at, bits == 1 ? 1 : bits / 8);
    return value;
}

inline std::size_t list_size(const void* at, const FieldInfo& field) {
    return field.shape == Shape::array ? field.count : field.list->size(at);
}

/// The const_casts here and below: ListOps and VariantInfo hand out mutable parts for decode's
/// sake, and reading does not write.
inline const void* element(const void* at, const FieldInfo& field, std::size_t index) {
    return field.shape == Shape::array
               ? static_cast<const std::byte*>(at) + index * field.element_size
               : field.list->at(const_cast<void*>(at), index);
}

inline const void* arm(const void* at, const VariantInfo& info) {
    return info.get(const_cast<void*>(at));
}

inline const void* member(const void* value, const FieldInfo& field) {
    return static_cast<const std::byte*>(value) + field.offset;
}

/// The field as JSON, whatever its kind and shape.
void append_json(std::string& out, const void* at, const FieldInfo& field);
/// One element of a list, or a field of Shape::one.
void append_json_element(std::string& out, const void* at, const FieldInfo& field);

} // namespace nestor::state::walk
