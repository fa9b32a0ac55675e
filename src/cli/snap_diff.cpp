// vm snap diff: in which fields and pages two snapshots differ.
//
// Fields are compared as the schema types them and named by their path. A unit of a type that this
// build does not know is compared by its bytes.
#include <algorithm>
#include <cstdio>
#include <memory>

#include "engine/state/codec.hpp"
#include "src/cli/page_diff.hpp"
#include "src/cli/schema_text.hpp"
#include "src/cli/snap.hpp"
#include "src/cli/verbs.hpp"

namespace nestor::cli {
namespace {

struct DiffOptions {
    std::string left;
    std::string right;
    std::string store;
    bool pages = false;
    bool json = false;
};

/// One field, or a whole unit, that differs. Values are JSON texts.
struct Line {
    std::string path;
    std::string type;
    std::string unit;
    std::string left;
    std::string right;
};

bool is_data(const state::FieldInfo* field) {
    return field != nullptr &&
           (field->kind == state::Kind::data || field->kind == state::Kind::fixed_data);
}

/// A value of state::Difference as JSON: absent ones are null, Data is a string.
std::string json_value(const std::string& value, const state::FieldInfo* field) {
    if (value == "absent") {
        return "null";
    }
    return is_data(field) ? control::json_string(value) : value;
}

Result<> compare_units(const snapshot::Unit& left, const snapshot::Unit& right,
                       std::vector<Line>& out) {
    const auto* const info = state::erased::find(left.type);
    if (info == nullptr || left.type != right.type) {
        const auto digest = [](const snapshot::Unit& unit) {
            return control::json_string(to_hex(sha256(unit.bytes)));
        };
        out.push_back({left.name, "unknown", "", digest(left), digest(right)});
        return {};
    }
    for (const auto& d : TRY(state::erased::diff_bytes(*info, left.bytes, right.bytes))) {
        const state::FieldInfo* const field = find_field(*info, d.path);
        out.push_back({left.name + "." + d.path, field == nullptr ? "" : type_text(*field),
                       field == nullptr ? "" : field->unit, json_value(d.left, field),
                       json_value(d.right, field)});
    }
    return {};
}

Result<std::vector<Line>> compare_state(const snapshot::Snapshot& left,
                                        const snapshot::Snapshot& right) {
    std::vector<Line> out;
    for (const snapshot::Unit& unit : left.units()) {
        const auto* const other = right.find_unit(unit.name);
        if (other == nullptr) {
            out.push_back({unit.name, "unit", "", "\"present\"", "null"});
        } else if (!(unit == *other)) {
            TRY(compare_units(unit, *other, out), "unit " + unit.name);
        }
    }
    for (const snapshot::Unit& unit : right.units()) {
        if (left.find_unit(unit.name) == nullptr) {
            out.push_back({unit.name, "unit", "", "null", "\"present\""});
        }
    }
    return out;
}

/// What a reset boots again.
void compare_images(const snapshot::Manifest& left, const snapshot::Manifest& right,
                    std::vector<Line>& out) {
    const std::size_t count = std::max(left.images.size(), right.images.size());
    for (std::size_t i = 0; i < count; ++i) {
        const std::string path = "images[" + std::to_string(i) + "]";
        if (i >= left.images.size() || i >= right.images.size()) {
            const bool here = i < left.images.size();
            out.push_back(
                {path, "image", "", here ? "\"present\"" : "null", here ? "null" : "\"present\""});
            continue;
        }
        const snapshot::ImageEntry& a = left.images[i];
        const snapshot::ImageEntry& b = right.images[i];
        const auto text = [&](const char* field, const std::string& x, const std::string& y) {
            if (x != y) {
                out.push_back({path + "." + field, "Text", "", control::json_string(x),
                               control::json_string(y)});
            }
        };
        text("kind", kind_of(a), kind_of(b));
        text("name", a.name, b.name);
        text("arguments", a.arguments, b.arguments);
        if (a.size != b.size) {
            out.push_back({path + ".size", "UInt64", "bytes", std::to_string(a.size),
                           std::to_string(b.size)});
        }
        text("root", to_hex(a.root), to_hex(b.root));
    }
}

/// What a manifest says beside the machine: the machine can be the same all the same.
std::vector<Line> compare_manifests(const snapshot::Manifest& left,
                                    const snapshot::Manifest& right) {
    std::vector<Line> out;
    const auto number = [&out](const char* path, u32 a, u32 b) {
        if (a != b) {
            out.push_back({path, "UInt32", "", std::to_string(a), std::to_string(b)});
        }
    };
    number("format", left.format, right.format);
    number("engineSemantics", left.engine_semantics, right.engine_semantics);
    return out;
}

void print_text(const std::vector<Line>& lines) {
    std::size_t width = 0;
    for (const Line& line : lines) {
        width = std::max(width, std::min<std::size_t>(line.path.size(), 48));
    }
    for (const Line& line : lines) {
        const auto shown = [](const std::string& v) { return v == "null" ? "absent" : v; };
        std::printf("%-*s  %s -> %s%s%s\n", static_cast<int>(width), line.path.c_str(),
                    shown(line.left).c_str(), shown(line.right).c_str(),
                    line.unit.empty() ? "" : " ", line.unit.c_str());
    }
}

std::string lines_json(const std::vector<Line>& lines) {
    std::vector<std::string> out;
    for (const Line& line : lines) {
        control::Object object;
        object.add("path", line.path).add("type", line.type).add("unit", line.unit);
        object.add("left", control::RawJson{line.left}).add("right", control::RawJson{line.right});
        out.push_back(object.to_json());
    }
    return control::json_array(out);
}

Result<int> diff(const DiffOptions& o) {
    const auto store = TRY(open_store(o.store));
    const auto left = TRY(store.load(o.left));
    const auto right = TRY(store.load(o.right));
    std::vector<Line> lines = TRY(compare_state(left, right));
    const std::size_t of_state = lines.size();
    compare_images(left.manifest(), right.manifest(), lines);
    const std::vector<Line> saved = compare_manifests(left.manifest(), right.manifest());
    const PageDiff pages = TRY(PageDiff::of(left, right));
    if (o.json) {
        control::Object whole;
        whole.add("left", o.left).add("right", o.right);
        whole.add("same", left.manifest().machine_digest == right.manifest().machine_digest);
        whole.add("manifest", control::RawJson{lines_json(saved)});
        whole.add("fields", control::RawJson{lines_json(lines)});
        whole.add("pages", control::RawJson{pages.to_json(o.pages)});
        print_line(whole.to_json());
        return 0;
    }
    print_text(saved);
    print_text(lines);
    print_line(count_text(of_state, "field") + " of state");
    if (lines.size() != of_state) {
        print_line(count_text(lines.size() - of_state, "field") + " of boot images");
    }
    pages.print(o.pages);
    return 0;
}

} // namespace

void add_snap_diff(CLI::App& snap, int& status) {
    auto o = std::make_shared<DiffOptions>();
    CLI::App* const verb =
        add_verb(snap, "diff", "Show the fields and pages in which two snapshots differ",
                 "vm snap diff before after --pages", o->json);
    add_argument(verb, "tag", o->left, "Snapshot");
    add_argument(verb, "other", o->right, "The other snapshot");
    add_flag(verb, "--pages", o->pages, "List the pages that differ");
    add_store_option(verb, o->store);
    on_chosen(verb, status, o->json, [o] { return diff(*o); });
}

} // namespace nestor::cli
