// Live state as one line of JSON, for people and scripts (`vm state decode`, diff).
//
// A union is the name of its active member with its value: inline among the struct's own keys where
// the schema's union has no name, else as an object. Text may hold bytes that are not UTF-8; they
// become U+FFFD, so the output is always valid JSON.
#include <fmt/format.h>

#include <iterator>

#include "engine/state/codec.hpp"
#include "engine/state/walk.hpp"
#include "src/base/types.hpp"

namespace nestor::state {

namespace walk {

namespace {

void append_hex(std::string& out, const u8* data, std::size_t size) {
    constexpr char digits[] = "0123456789abcdef";
    out += '"';
    for (std::size_t i = 0; i < size; ++i) {
        out += digits[data[i] >> 4];
        out += digits[data[i] & 15];
    }
    out += '"';
}

/// Length of the UTF-8 sequence at text[i...], 0 if it is none (overlong and surrogates included).
std::size_t utf8_length(std::string_view text, std::size_t i) {
    const auto at = [&](std::size_t k) { return static_cast<u8>(text[k]); };
    const u8 first = at(i);
    const std::size_t length = first < 0x80   ? 1
                               : first < 0xc2 ? 0
                               : first < 0xe0 ? 2
                               : first < 0xf0 ? 3
                               : first < 0xf5 ? 4
                                              : 0;
    if (length == 0 || i + length > text.size()) {
        return 0;
    }
    for (std::size_t k = 1; k < length; ++k) {
        if ((at(i + k) & 0xc0) != 0x80) {
            return 0;
        }
    }
    const bool overlong =
        (first == 0xe0 && at(i + 1) < 0xa0) || (first == 0xf0 && at(i + 1) < 0x90);
    const bool outside = (first == 0xed && at(i + 1) > 0x9f) || (first == 0xf4 && at(i + 1) > 0x8f);
    return overlong || outside ? 0 : length;
}

void append_text(std::string& out, std::string_view text) {
    out += '"';
    for (std::size_t i = 0; i < text.size();) {
        const std::size_t length = utf8_length(text, i);
        const char c = text[i];
        if (length == 0) {
            out += "\\ufffd";
        } else if (c == '"' || c == '\\') {
            out += '\\';
            out += c;
        } else if (static_cast<u8>(c) < 0x20) {
            fmt::format_to(std::back_inserter(out), "\\u{:04x}", static_cast<u8>(c));
        } else {
            out += text.substr(i, length);
        }
        i += length == 0 ? 1 : length;
    }
    out += '"';
}

void append_scalar(std::string& out, const void* at, const FieldInfo& field) {
    const u64 value = load(at, field.bits);
    if (field.kind == Kind::boolean) {
        out += value != 0 ? "true" : "false";
    } else if (field.kind == Kind::enumeration && value < field.enumeration->enumerants.size()) {
        fmt::format_to(std::back_inserter(out), "\"{}\"", field.enumeration->enumerants[value]);
    } else if (field.hex) {
        fmt::format_to(std::back_inserter(out), "\"{:#x}\"", value);
    } else if (field.kind == Kind::signed_integer) {
        const unsigned shift = 64 - field.bits;
        fmt::format_to(std::back_inserter(out), "{}", static_cast<i64>(value << shift) >> shift);
    } else {
        fmt::format_to(std::back_inserter(out), "{}", value);
    }
}

void append_members(std::string& out, const void* value, const StructInfo& info, bool& first);

void append_key(std::string& out, std::string_view name, bool& first) {
    out += first ? "" : ",";
    first = false;
    fmt::format_to(std::back_inserter(out), "\"{}\":", name);
}

/// An arm's value: null, its one unnamed member, or an object.
void append_arm(std::string& out, const void* at, const StructInfo& info) {
    if (info.fields.empty()) {
        out += "null";
    } else if (info.fields[0].name[0] == '\0' && info.fields[0].kind != Kind::variant) {
        append_json(out, member(at, info.fields[0]), info.fields[0]);
    } else {
        bool first = true;
        out += '{';
        append_members(out, at, info, first);
        out += '}';
    }
}

void append_variant(std::string& out, const void* at, const VariantInfo& info, bool& first) {
    const FieldInfo& active = info.arms[info.index(at)];
    append_key(out, active.name, first);
    append_arm(out, arm(at, info), *active.type);
}

void append_members(std::string& out, const void* value, const StructInfo& info, bool& first) {
    for (const FieldInfo& field : info.fields) {
        const void* at = member(value, field);
        if (field.kind == Kind::variant && field.name[0] == '\0') {
            append_variant(out, at, *field.variant, first);
        } else {
            append_key(out, field.name, first);
            append_json(out, at, field);
        }
    }
}

} // namespace

void append_json_element(std::string& out, const void* at, const FieldInfo& field) {
    bool first = true;
    switch (field.kind) {
    case Kind::nothing:
        out += "null";
        break;
    case Kind::text:
        append_text(out, *static_cast<const std::string*>(at));
        break;
    case Kind::data: {
        const auto& data = *static_cast<const std::vector<u8>*>(at);
        append_hex(out, data.data(), data.size());
        break;
    }
    case Kind::fixed_data:
        append_hex(out, static_cast<const u8*>(at), field.count);
        break;
    case Kind::structure:
    case Kind::group:
        out += '{';
        append_members(out, at, *field.type, first);
        out += '}';
        break;
    case Kind::variant:
        out += '{';
        append_variant(out, at, *field.variant, first);
        out += '}';
        break;
    default:
        append_scalar(out, at, field);
    }
}

void append_json(std::string& out, const void* at, const FieldInfo& field) {
    if (field.shape == Shape::one) {
        append_json_element(out, at, field);
        return;
    }
    out += '[';
    for (std::size_t i = 0; i < list_size(at, field); ++i) {
        out += i == 0 ? "" : ",";
        append_json_element(out, element(at, field, i), field);
    }
    out += ']';
}

} // namespace walk

namespace erased {

std::string to_json(const void* value, const StructInfo& info) {
    FieldInfo root;
    root.kind = Kind::structure;
    root.type = &info;
    std::string out;
    walk::append_json_element(out, value, root);
    return out;
}

} // namespace erased

} // namespace nestor::state
