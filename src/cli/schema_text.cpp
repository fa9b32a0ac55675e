// Fields of state as text, for `vm state schema` and `vm snap diff`.
#include "src/cli/schema_text.hpp"

namespace nestor::cli {
namespace {

/// Looks for the member `name`; groups without a name and arms of unions are looked into.
const state::FieldInfo* member(const state::StructInfo& info, std::string_view name) {
    for (const state::FieldInfo& field : info.fields) {
        if (name == field.name) {
            return &field;
        }
        if (field.kind == state::Kind::variant) {
            for (const state::FieldInfo& arm : field.variant->arms) {
                if (name == arm.name) {
                    return &arm;
                }
            }
        }
    }
    return nullptr;
}

} // namespace

std::string type_text(const state::FieldInfo& field) {
    constexpr const char* names[] = {"Void", "Bool", "UInt",   "Int",   "enum", "Text",
                                     "Data", "Data", "struct", "group", "union"};
    std::string text = names[static_cast<std::size_t>(field.kind)];
    if (field.kind == state::Kind::unsigned_integer || field.kind == state::Kind::signed_integer) {
        text += std::to_string(field.bits);
    } else if (field.enumeration != nullptr) {
        text = field.enumeration->name;
    } else if (field.type != nullptr && field.kind == state::Kind::structure) {
        text = field.type->name;
    }
    if (field.kind == state::Kind::fixed_data) {
        text += "[" + std::to_string(field.count) + "]";
    }
    if (field.shape == state::Shape::array) {
        text += "[" + std::to_string(field.count) + "]";
    } else if (field.shape == state::Shape::list) {
        text = "List(" + text + ")";
    }
    return text;
}

const state::FieldInfo* find_field(const state::StructInfo& info, std::string_view path) {
    const state::StructInfo* at = &info;
    const state::FieldInfo* field = nullptr;
    while (!path.empty()) {
        if (at == nullptr) {
            return nullptr;
        }
        const std::size_t dot = path.find('.');
        std::string_view name = path.substr(0, dot);
        path = dot == std::string_view::npos ? std::string_view() : path.substr(dot + 1);
        name = name.substr(0, name.find('['));
        field = member(*at, name);
        if (field == nullptr) {
            return nullptr;
        }
        at = field->type;
    }
    return field;
}

} // namespace nestor::cli
