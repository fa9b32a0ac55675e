// The generated source: one constant table per struct (engine/state/info.hpp), and the text of
// the frozen layout, in which one line is one promise to whoever reads old snapshots.
#include "tools/schema/model.hpp"

#include <fmt/format.h>

namespace nestor::schema {

namespace {

const char* kind_name(Kind kind) {
    constexpr const char* names[] = {
        "nothing", "boolean",    "unsigned_integer", "signed_integer", "enumeration", "text",
        "data",    "fixed_data", "structure",        "group",          "variant"};
    return names[static_cast<unsigned>(kind)];
}

const char* shape_name(Shape shape) {
    constexpr const char* names[] = {"one", "array", "list"};
    return names[static_cast<unsigned>(shape)];
}

std::string escaped(const std::string& text) {
    std::string out;
    for (const char c : text) {
        if (c == '"' || c == '\\') {
            out += '\\';
        }
        out += c == '\n' ? std::string("\\n") : std::string(1, c);
    }
    return out;
}

/// decltype of a member's element, for sizeof and the list operations.
std::string element_expression(const Struct& s, const Field& field) {
    const auto member = fmt::format("decltype({}::{})", s.name, field.live_name);
    return field.shape == Shape::one ? member : member + "::value_type";
}

std::string emit_field(const Struct& s, const Field& field, const std::set<std::string>& enums) {
    std::string out = fmt::format("    {{.name = \"{}\", ", field.name);
    if (!field.unit.empty()) {
        out += fmt::format(".unit = \"{}\", ", escaped(field.unit));
    }
    out += fmt::format(".kind = Kind::{}, .shape = Shape::{}", kind_name(field.kind),
                       shape_name(field.shape));
    const auto add = [&](const char* name, std::uint64_t value) {
        if (value != 0) {
            out += fmt::format(", .{} = {}", name, value);
        }
    };
    add("bits", field.bits);
    out += field.hex ? ", .hex = true" : "";
    out += field.policy ? ", .policy = true" : "";
    if (!field.ordinal.empty()) {
        out += ", .ordinal = " + field.ordinal.substr(1);
    }
    add("slot", field.slot);
    if (s.is_union) {
        out += fmt::format(", .element_size = sizeof({})", field.type);
    } else {
        out += fmt::format(", .offset = offsetof({}, {})", s.name, field.live_name);
        add("count", field.count);
        out += fmt::format(", .element_size = sizeof({})", element_expression(s, field));
    }
    if (field.bits_default != 0) {
        out += fmt::format(", .default_bits = {:#x}", field.bits_default);
    }
    if (!field.text_default.empty()) {
        out += fmt::format(", .default_text = \"{}\"", escaped(field.text_default));
    }
    if (field.kind == Kind::structure) {
        out += fmt::format(", .type = &Meta<{}>::info", field.type);
    } else if (field.kind == Kind::group) {
        out += fmt::format(", .type = &{}_info", field.type);
    } else if (field.kind == Kind::enumeration) {
        const bool local = enums.contains(field.type);
        out += fmt::format(", .enumeration = {}{}_info", local ? "&" : "&detail::", field.type);
    } else if (field.kind == Kind::variant) {
        out += fmt::format(", .variant = &{}_info", field.type);
    }
    if (field.shape == Shape::list) {
        out += fmt::format(", .list = &make::list_ops<{}>", element_expression(s, field));
    }
    return out + "},\n";
}

std::string emit_info(const Struct& s, const std::set<std::string>& enums) {
    std::string out;
    std::string fields = "{}";
    if (!s.fields.empty()) {
        out += fmt::format("constexpr FieldInfo {}_fields[] = {{\n", s.name);
        for (const auto& field : s.fields) {
            out += emit_field(s, field, enums);
        }
        out += "};\n";
        fields = s.name + "_fields";
    }
    if (s.is_union) {
        return out + fmt::format("constexpr VariantInfo {0}_info =\n    make::variant<{0}>({1}, "
                                 "{2});\n\n",
                                 s.name, s.tag_slot, fields);
    }
    if (s.standard_layout) {
        out += fmt::format("static_assert(std::is_standard_layout_v<{}>);\n", s.name);
    }
    if (s.is_part) {
        return out + fmt::format("constexpr StructInfo {0}_info{{0, \"{1}\", 0, {2}, {3}, "
                                 "sizeof({0}), {4}, nullptr, nullptr, nullptr}};\n\n",
                                 s.name, s.schema_name, s.data_words, s.pointer_count, fields);
    }
    return out + fmt::format("}} // namespace\n\nconstinit const StructInfo Meta<{0}>::info{{\n"
                             "    Meta<{0}>::id, \"{1}\", {2}, {3}, {4}, sizeof({0}), {5},\n"
                             "    make::create<{0}>, make::destroy<{0}>, make::equal<{0}>}};\n\n"
                             "namespace {{\n\n",
                             s.name, s.schema_name, s.rank, s.data_words, s.pointer_count, fields);
}

/// Enums have their names with external linkage, since other files' tables point at them.
std::string emit_enum_info(const Enum& e) {
    std::string names;
    for (const auto& name : e.enumerants) {
        names += fmt::format("\"{}\", ", name);
    }
    return fmt::format("constexpr const char* {0}_names[] = {{{1}}};\n"
                       "extern const EnumInfo {0}_info;\n"
                       "constinit const EnumInfo {0}_info{{\"{2}\", {0}_names}};\n\n",
                       e.name, names, e.schema_name);
}

std::string declare_foreign_enums(const File& file, const std::set<std::string>& local) {
    std::set<std::string> foreign;
    for (const auto& s : file.structs) {
        for (const auto& field : s.fields) {
            if (field.kind == Kind::enumeration && !local.contains(field.type)) {
                foreign.insert(field.type);
            }
        }
    }
    std::string out;
    for (const auto& name : foreign) {
        out += fmt::format("extern const EnumInfo {}_info;\n", name);
    }
    return out;
}

std::string layout_type(const Field& field) {
    std::string type = kind_name(field.kind);
    if (field.bits > 1) {
        type += std::to_string(field.bits);
    }
    if (!field.type.empty() && field.kind != Kind::variant) {
        type += " " + field.type;
    }
    if (field.shape == Shape::array || field.kind == Kind::fixed_data) {
        type += fmt::format(" x{}", field.count);
    } else if (field.shape == Shape::list) {
        type += " list";
    }
    return type;
}

std::string layout_line(const Struct& s, const Field& field, std::size_t tag) {
    const auto name = field.name.empty() ? field.live_name : field.name;
    std::string out = fmt::format("field {} {}", s.name, name);
    if (!field.ordinal.empty()) {
        out += " " + field.ordinal;
    }
    out += " : " + layout_type(field);
    if (field.kind != Kind::group && field.kind != Kind::variant && field.kind != Kind::nothing) {
        out += fmt::format(" at {} {}", field.is_pointer() ? "pointer" : "bit", field.slot);
    }
    if (field.bits_default != 0) {
        out += fmt::format(" default {:#x}", field.bits_default);
    }
    if (!field.text_default.empty()) {
        out += fmt::format(" default \"{}\"", escaped(field.text_default));
    }
    return s.is_union ? fmt::format("{} tag {}\n", out, tag) : out + "\n";
}

} // namespace

std::string emit_source(const File& file) {
    std::set<std::string> enums;
    for (const auto& e : file.enums) {
        enums.insert(e.name);
    }
    auto out = fmt::format("// Generated by capnpc-nestor from {0}: tables.\n"
                           "#include \"{1}/{2}.hpp\"\n\n"
                           "#include <cstddef>\n#include <type_traits>\n\n"
                           "#include \"engine/state/info_make.hpp\"\n\n"
                           "#pragma GCC diagnostic ignored \"-Winvalid-offsetof\"\n\n"
                           "namespace nestor::state {{\n\nnamespace detail {{\n\n",
                           file.path, file.folder, file.stem);
    out += declare_foreign_enums(file, enums);
    for (const auto& e : file.enums) {
        out += emit_enum_info(e);
    }
    out += "} // namespace detail\n\n";
    if (!file.enums.empty()) {
        out += "using namespace detail;\n\n";
    }
    out += "namespace {\n\n";
    for (const auto& s : file.structs) {
        out += emit_info(s, enums);
    }
    return out + "} // namespace\n\n} // namespace nestor::state\n";
}

std::string emit_layout(const File& file) {
    std::string out;
    for (const auto& e : file.enums) {
        out += fmt::format("enum {} {:#x}\n", e.name, e.id);
        for (std::size_t i = 0; i < e.enumerants.size(); ++i) {
            out += fmt::format("enumerant {} {} = {}\n", e.name, e.enumerants[i], i);
        }
    }
    for (const auto& s : file.structs) {
        if (s.is_union) {
            out += fmt::format("union {} tag at bit {}\n", s.name, s.tag_slot);
        } else {
            out +=
                fmt::format("struct {}{}\n", s.name, s.is_part ? "" : fmt::format(" {:#x}", s.id));
        }
        for (std::size_t i = 0; i < s.fields.size(); ++i) {
            out += layout_line(s, s.fields[i], i);
        }
    }
    return out;
}

} // namespace nestor::schema
