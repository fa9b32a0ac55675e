// The generated header: plain aggregates, nothing else a user of live state must compile.
//
// Nested schema types and groups become namespace-level types with their scopes' names run
// together, and aliases inside: a nested class with default member initialisers cannot be used in
// a std::variant or std::array of the class around it.
#include "tools/schema/model.hpp"

#include <algorithm>
#include <stdexcept>

#include <fmt/format.h>

namespace nestor::schema {

namespace {

std::string comment_lines(const std::string& indent, const std::string& text) {
    std::string out;
    std::string line;
    std::size_t at = 0;
    while (at < text.size()) {
        const auto end = std::min(text.find(' ', at), text.size());
        const auto word = text.substr(at, end - at);
        if (!line.empty() && indent.size() + 5 + line.size() + word.size() > 100) {
            out += indent + "/// " + line + "\n";
            line.clear();
        }
        line += (line.empty() ? "" : " ") + word;
        at = end + 1;
    }
    return line.empty() ? out : out + indent + "/// " + line + "\n";
}

std::string element_type(const Field& field) {
    switch (field.kind) {
    case Kind::boolean:
        return "bool";
    case Kind::unsigned_integer:
        return fmt::format("std::uint{}_t", field.bits);
    case Kind::signed_integer:
        return fmt::format("std::int{}_t", field.bits);
    case Kind::text:
        return "std::string";
    case Kind::data:
        return "std::vector<std::uint8_t>";
    case Kind::fixed_data:
        return fmt::format("std::array<std::uint8_t, {}>", field.count);
    default:
        return field.type;
    }
}

std::string member_type(const Field& field) {
    switch (field.shape) {
    case Shape::array:
        return fmt::format("std::array<{}, {}>", element_type(field), field.count);
    case Shape::list:
        return fmt::format("std::vector<{}>", element_type(field));
    default:
        return element_type(field);
    }
}

std::string quoted(const std::string& text) {
    std::string out = "\"";
    for (const char c : text) {
        if (c == '"' || c == '\\') {
            out += '\\';
        }
        if (c == '\n') {
            out += "\\n";
        } else {
            out += c;
        }
    }
    return out + "\"";
}

std::string signed_literal(const Field& field) {
    const unsigned shift = 64 - field.bits;
    const auto value = static_cast<std::int64_t>(field.bits_default << shift) >> shift;
    if (value == INT64_MIN) {
        return "INT64_MIN";
    }
    return fmt::format("{}", value);
}

std::string initializer(const Field& field, const File& file) {
    if (field.shape == Shape::list || field.kind == Kind::data || field.kind == Kind::structure ||
        field.kind == Kind::group || field.kind == Kind::variant) {
        return field.shape == Shape::array ? "{}" : "";
    }
    if (field.shape == Shape::array || field.kind == Kind::fixed_data) {
        return "{}";
    }
    switch (field.kind) {
    case Kind::boolean:
        return field.bits_default != 0 ? " = true" : " = false";
    case Kind::unsigned_integer:
        return field.hex ? fmt::format(" = {:#x}", field.bits_default)
                         : fmt::format(" = {}{}", field.bits_default,
                                       field.bits_default >> 63 != 0 ? "u" : "");
    case Kind::signed_integer:
        return " = " + signed_literal(field);
    case Kind::enumeration:
        for (const auto& e : file.enums) {
            if (e.id == field.type_id && field.bits_default < e.enumerants.size()) {
                return fmt::format(" = {}::{}", field.type,
                                   snake_case(e.enumerants[field.bits_default]));
            }
        }
        return fmt::format("{{{}}}", field.bits_default);
    case Kind::text:
        return field.text_default.empty() ? "" : " = " + quoted(field.text_default);
    default:
        return "";
    }
}

std::string emit_enum(const Enum& e) {
    auto out = comment_lines("", e.comment);
    out += fmt::format("enum class {} : std::uint16_t {{\n", e.name);
    for (std::size_t i = 0; i < e.enumerants.size(); ++i) {
        out += comment_lines("    ", e.comments[i]);
        out += fmt::format("    {} = {},\n", snake_case(e.enumerants[i]), i);
    }
    return out + "};\n\n";
}

std::string emit_union(const Struct& s) {
    std::string arms;
    for (const auto& arm : s.fields) {
        arms += (arms.empty() ? "" : ", ") + arm.type;
    }
    return fmt::format("{}using {} = std::variant<{}>;\n\n", comment_lines("", s.comment), s.name,
                       arms);
}

std::string field_comment(const Field& field) {
    std::string text = field.comment;
    if (!field.unit.empty()) {
        text += fmt::format("{}[{}]", text.empty() ? "" : " ", field.unit);
    }
    return comment_lines("    ", text);
}

std::string emit_struct(const Struct& s, const File& file) {
    auto out = comment_lines("", s.comment);
    out += fmt::format("struct {} {{\n", s.name);
    for (const auto& [nested, name] : s.aliases) {
        out += fmt::format("    using {} = {};\n", nested, name);
    }
    if (!s.aliases.empty() && !s.fields.empty()) {
        out += "\n";
    }
    for (const auto& field : s.fields) {
        out += field_comment(field);
        out += fmt::format("    {} {}{};\n", member_type(field), field.live_name,
                           initializer(field, file));
    }
    out += fmt::format("\n    bool operator==(const {}&) const = default;\n}};\n\n", s.name);
    return out;
}

std::string emit_meta(const Struct& s) {
    return fmt::format("template <>\n"
                       "struct Meta<{0}> {{\n"
                       "    static constexpr std::uint64_t id = {1:#x};\n"
                       "    static constexpr std::string_view name = \"{2}\";\n"
                       "    static constexpr std::uint16_t rank = {3};\n"
                       "    static const StructInfo info;\n"
                       "}};\n\n",
                       s.name, s.id, s.schema_name, s.rank);
}

std::string emit_vmcs(const Struct& s) {
    std::vector<const Field*> rows;
    for (const auto& field : s.fields) {
        if (field.is_vmcs) {
            rows.push_back(&field);
        }
    }
    if (rows.empty()) {
        return "";
    }
    if (!s.standard_layout) {
        throw std::runtime_error(s.schema_name + ": a struct with $vmcs fields holds only scalars, "
                                                 "fixed lists and structs of such");
    }
    std::sort(rows.begin(), rows.end(), [](auto* a, auto* b) { return a->vmcs < b->vmcs; });
    auto out = fmt::format("/// The VMCS fields of {0}, by encoding.\ntemplate <>\n"
                           "inline constexpr std::array<VmcsRow, {1}> vmcs_rows<{0}>{{{{\n",
                           s.name, rows.size());
    for (const auto* row : rows) {
        out += fmt::format("    {{{:#06x}, {}, offsetof({}, {}), \"{}\"}},\n", row->vmcs,
                           row->bits / 8, s.name, row->live_name, row->live_name);
    }
    out += fmt::format("}}}};\nstatic_assert(vmcs_rows_are_ordered(vmcs_rows<{}>));\n\n", s.name);
    return out;
}

bool any_field(const File& file, bool (*test)(const Field&)) {
    return std::any_of(file.structs.begin(), file.structs.end(), [&](const Struct& s) {
        return std::any_of(s.fields.begin(), s.fields.end(), test);
    });
}

std::string includes(const File& file) {
    std::string out;
    const bool vmcs = any_field(file, [](const Field& f) { return f.is_vmcs; });
    if (any_field(file, [](const Field& f) {
            return f.shape == Shape::array || f.kind == Kind::fixed_data;
        })) {
        out += "#include <array>\n";
    }
    out += "#include <cstdint>\n";
    if (any_field(file, [](const Field& f) { return f.kind == Kind::text; })) {
        out += "#include <string>\n";
    }
    out += "#include <string_view>\n";
    if (any_field(file, [](const Field& f) { return f.kind == Kind::variant; })) {
        out += "#include <variant>\n";
    }
    if (any_field(file,
                  [](const Field& f) { return f.shape == Shape::list || f.kind == Kind::data; })) {
        out += "#include <vector>\n";
    }
    out += "\n#include \"engine/state/meta.hpp\"\n";
    for (const auto& stem : file.used_stems) {
        out += fmt::format("#include \"{}/{}.hpp\"\n", file.folder, stem);
    }
    return out + (vmcs ? "#include \"engine/state/vmcs_row.hpp\"\n" : "") + "\n";
}

} // namespace

std::string emit_header(const File& file) {
    auto out = fmt::format("// Generated by capnpc-nestor from {}: live state.\n"
                           "#pragma once\n\n{}namespace nestor::state {{\n\n",
                           file.path, includes(file));
    for (const auto& c : file.constants) {
        out += comment_lines("", c.comment);
        out += fmt::format("inline constexpr {} {} = {};\n\n", c.type, c.name, c.value);
    }
    for (const auto& e : file.enums) {
        out += emit_enum(e);
    }
    std::string list;
    for (const auto& s : file.structs) {
        out += s.is_union ? emit_union(s) : emit_struct(s, file);
        if (!s.is_part) {
            out += emit_meta(s) + emit_vmcs(s);
            list += (list.empty() ? "" : ", ") + s.name;
        }
    }
    out += fmt::format("/// Every state struct of this file.\nusing {}_types = TypeList<{}>;\n\n",
                       file.stem, list);
    return out + "} // namespace nestor::state\n";
}

} // namespace nestor::schema
