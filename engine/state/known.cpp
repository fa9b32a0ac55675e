// Compares a value with the names that another version's schemas had.
//
// A field at its default is not on the wire (codec.hpp), so a reader that does not know it reads
// what was meant. Anything else that it does not know it would refuse, or worse, pass over.
#include "engine/state/known.hpp"

#include <fmt/format.h>

#include "engine/state/codec.hpp"
#include "engine/state/walk.hpp"

namespace nestor::state {

namespace {

/// Takes the next word off a line.
std::string_view take_word(std::string_view& line) {
    const std::size_t end = std::min(line.find(' '), line.size());
    const std::string_view word = line.substr(0, end);
    line.remove_prefix(std::min(end + 1, line.size()));
    return word;
}

} // namespace

KnownSchema::KnownSchema(std::string_view layouts) {
    while (!layouts.empty()) {
        const std::size_t end = std::min(layouts.find('\n'), layouts.size());
        std::string_view line = layouts.substr(0, end);
        layouts.remove_prefix(std::min(end + 1, layouts.size()));
        const std::string_view what = take_word(line);
        const std::string name(take_word(line));
        if (what == "struct") {
            structs_.insert(name);
        } else if (what == "field") {
            fields_.insert(fmt::format("{}.{}", name, take_word(line)));
        } else if (what == "enumerant") {
            ++enumerants_[name];
        }
    }
}

bool KnownSchema::has_field(std::string_view structure, std::string_view field) const {
    return fields_.contains(fmt::format("{}.{}", structure, field));
}

std::size_t KnownSchema::enumerants(std::string_view enumeration) const {
    const auto found = enumerants_.find(enumeration);
    return found == enumerants_.end() ? 0 : found->second;
}

namespace erased {

namespace {

/// "Unions.event.none" as a layout has it: "UnionsEventNone".
std::string layout_name(std::string_view schema_name) {
    std::string out;
    bool begins = false;
    for (const char c : schema_name) {
        if (c != '.') {
            out += begins && c >= 'a' && c <= 'z' ? static_cast<char>(c - 'a' + 'A') : c;
        }
        begins = c == '.';
    }
    return out;
}

/// As a layout names a field.
std::string_view name_of(const FieldInfo& field) {
    return *field.name == '\0' ? "value" : field.name;
}

class Finder final {
public:
    explicit Finder(const KnownSchema& known) : known_(known) {}

    /// `sections` is `info`, or for a group the struct whose sections it shares.
    void structure(const void* value, const StructInfo& info, const StructInfo& sections,
                   const std::string& path) {
        for (const FieldInfo& field : info.fields) {
            const void* const at = walk::member(value, field);
            const char* const dot = path.empty() || *field.name == '\0' ? "" : ".";
            const std::string inner = fmt::format("{}{}{}", path, dot, field.name);
            if (!known_.has_field(layout_name(info.name), name_of(field))) {
                if (!is_default(value, sections, field)) {
                    std::string text;
                    walk::append_json(text, at, field);
                    found_.push_back({inner, text});
                }
            } else if (field.shape == Shape::one) {
                element(at, field, sections, inner);
            } else {
                for (std::size_t i = 0; i < walk::list_size(at, field); ++i) {
                    element(walk::element(at, field, i), field, sections,
                            fmt::format("{}[{}]", inner, i));
                }
            }
        }
    }

    [[nodiscard]] std::vector<Surplus> take() { return std::move(found_); }

private:
    void element(const void* at, const FieldInfo& field, const StructInfo& sections,
                 const std::string& path) {
        switch (field.kind) {
        case Kind::structure:
            structure(at, *field.type, *field.type, path);
            break;
        case Kind::group:
            structure(at, *field.type, sections, path);
            break;
        case Kind::variant:
            variant(at, field, sections, path);
            break;
        case Kind::enumeration:
            if (walk::load(at, field.bits) >=
                known_.enumerants(layout_name(field.enumeration->name))) {
                add(path, at, field);
            }
            break;
        default:
            break;
        }
    }

    void variant(const void* at, const FieldInfo& field, const StructInfo& sections,
                 const std::string& path) {
        const FieldInfo& arm = field.variant->arms[field.variant->index(at)];
        if (known_.has_struct(layout_name(arm.type->name))) {
            structure(walk::arm(at, *field.variant), *arm.type, sections,
                      fmt::format("{}{}{}", path, path.empty() ? "" : ".", arm.name));
        } else {
            add(path, at, field);
        }
    }

    void add(const std::string& path, const void* at, const FieldInfo& field) {
        std::string text;
        walk::append_json_element(text, at, field);
        found_.push_back({path, text});
    }

    /// Whether the field leaves nothing on the wire: the encoder is asked, of it alone.
    static bool is_default(const void* value, const StructInfo& sections, const FieldInfo& field) {
        StructInfo alone = sections;
        alone.fields = {&field, 1};
        StructInfo nothing = sections;
        nothing.fields = {};
        return encode(value, alone) == encode(value, nothing);
    }

    const KnownSchema& known_;
    std::vector<Surplus> found_;
};

} // namespace

std::vector<Surplus> surplus(const void* value, const StructInfo& info, const KnownSchema& known) {
    Finder finder(known);
    finder.structure(value, info, info, {});
    return finder.take();
}

} // namespace erased

} // namespace nestor::state
