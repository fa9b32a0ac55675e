// Bytes, differences, text and digests of live state: for every struct of schema/*.capnp.
//
// Bytes are one Cap'n Proto message in canonical form: a single segment without segment table, as
// `capnp convert canonical:text` reads it, so equal values have equal bytes and a field at its
// default costs nothing and changes no digest. One difference: an element of a list of structs
// takes at least one word, so a message covers the length of every list in it.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <vector>

#include "engine/state/meta.hpp"
#include "src/base/digest.hpp"
#include "src/base/result.hpp"

namespace nestor::state {

/// One field that differs. Values are as in JSON; "absent" where a list is shorter.
struct Difference {
    std::string path; ///< in schema names: "segments[2].base"
    std::string left;
    std::string right;

    bool operator==(const Difference&) const = default;
};

/// The type-erased codec, by run-time description. `value` points at what `info` describes.
namespace erased {
enum class Scope { all, guest /**< without $policy fields, which stay at their defaults */ };

[[nodiscard]] std::vector<std::byte> encode(const void* value, const StructInfo& info,
                                            Scope scope = Scope::all);
/// Decodes over a default-constructed value; on failure it is left partly written.
[[nodiscard]] Result<> decode(void* value, const StructInfo& info,
                              std::span<const std::byte> bytes);
[[nodiscard]] std::vector<Difference> diff(const void* left, const void* right,
                                           const StructInfo& info);
[[nodiscard]] std::string to_json(const void* value, const StructInfo& info);

/// The description of a struct by its Cap'n Proto id; null for an unknown id.
[[nodiscard]] const StructInfo* find(std::uint64_t type_id);
/// The same by its schema name ("Cpu").
[[nodiscard]] const StructInfo* find(std::string_view name);
/// All state structs of the schema, file by file.
[[nodiscard]] std::span<const StructInfo* const> all();

[[nodiscard]] std::uint64_t id(const StructInfo& info);
[[nodiscard]] std::string_view name(const StructInfo& info);

/// What the bytes of a message of that struct say, as JSON.
[[nodiscard]] Result<std::string> decode_to_json(const StructInfo& info,
                                                 std::span<const std::byte> bytes);
/// Differences between two messages of the same struct.
[[nodiscard]] Result<std::vector<Difference>> diff_bytes(const StructInfo& info,
                                                         std::span<const std::byte> left,
                                                         std::span<const std::byte> right);
} // namespace erased

/// Canonical bytes; a multiple of eight, at least eight.
template <Stateful T>
[[nodiscard]] std::vector<std::byte> encode(const T& value) {
    return erased::encode(&value, Meta<T>::info);
}

/// The value the bytes say. Bytes from anywhere are safe: what is cut off, overlaps, is not covered
/// by the message or has a wrong fixed length is `corrupt`; what this schema does not know (bits,
/// pointers, enumerants, union members) is `incompatible`: written by a newer version. Both name
/// the field. What older bytes do not have takes the schema's default.
template <Stateful T>
[[nodiscard]] Result<T> decode(std::span<const std::byte> bytes) {
    T value;
    if (auto done = erased::decode(&value, Meta<T>::info, bytes); !done) {
        return Failure(std::move(done).error());
    }
    return value;
}

/// Every field that differs, in schema order; empty if and only if left == right.
template <Stateful T>
[[nodiscard]] std::vector<Difference> diff(const T& left, const T& right) {
    return erased::diff(&left, &right, Meta<T>::info);
}

/// One line of JSON. 64-bit integers are plain numbers, $hex fields are strings "0x…", Data is a
/// string of hexadecimal digits, enums are their schema names.
template <Stateful T>
[[nodiscard]] std::string to_json(const T& value) {
    return erased::to_json(&value, Meta<T>::info);
}

/// SHA-256 of the canonical bytes.
template <Stateful T>
[[nodiscard]] Digest digest(const T& value) {
    return sha256(encode(value));
}

/// The same, leaving out fields that are L0's own policy ($policy), which no guest can see.
template <Stateful T>
[[nodiscard]] Digest guest_digest(const T& value) {
    return sha256(erased::encode(&value, Meta<T>::info, erased::Scope::guest));
}

} // namespace nestor::state
