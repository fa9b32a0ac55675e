// Field-by-field differences of two values of one struct, with paths in schema names.
//
// A difference is reported at the innermost field: a changed element of a list of structs gives
// its own fields, a list that is longer on one side gives each surplus element once, and Data gives
// one entry with the first differing stretch, since a byte-per-line list helps nobody.
#include <algorithm>

#include <fmt/format.h>

#include "engine/state/codec.hpp"
#include "engine/state/walk.hpp"
#include "src/base/types.hpp"

namespace nestor::state::erased {

namespace {

using namespace walk;

constexpr std::string_view absent = "absent";
/// Bytes of Data shown on each side.
constexpr std::size_t shown_bytes = 32;

std::string json_of(const void* at, const FieldInfo& field) {
    std::string out;
    append_json_element(out, at, field);
    return out;
}

std::string joined(const std::string& path, std::string_view name) {
    if (name.empty()) {
        return path;
    }
    return path.empty() ? std::string(name) : fmt::format("{}.{}", path, name);
}

std::span<const u8> bytes_of(const void* at, const FieldInfo& field) {
    if (field.kind == Kind::fixed_data) {
        return {static_cast<const u8*>(at), field.count};
    }
    return *static_cast<const std::vector<u8>*>(at);
}

std::string hex_of(std::span<const u8> bytes) {
    std::string out;
    for (const u8 b : bytes.first(std::min(bytes.size(), shown_bytes))) {
        out += fmt::format("{:02x}", b);
    }
    return bytes.empty() ? std::string(absent) : out + (bytes.size() > shown_bytes ? "…" : "");
}

class Differ final {
public:
    [[nodiscard]] std::vector<Difference> take() { return std::move(out_); }

    void members(const std::string& path, const void* a, const void* b, const StructInfo& info) {
        for (const FieldInfo& field : info.fields) {
            this->field(joined(path, field.name), member(a, field), member(b, field), field);
        }
    }

private:
    void add(std::string path, std::string left, std::string right) {
        out_.push_back({std::move(path), std::move(left), std::move(right)});
    }

    void field(const std::string& path, const void* a, const void* b, const FieldInfo& field) {
        if (field.shape != Shape::one) {
            list(path, a, b, field);
        } else {
            element_of(path, a, b, field);
        }
    }

    void element_of(const std::string& path, const void* a, const void* b, const FieldInfo& field) {
        switch (field.kind) {
        case Kind::nothing:
            break;
        case Kind::structure:
        case Kind::group:
            members(path, a, b, *field.type);
            break;
        case Kind::variant:
            variant(path, a, b, field);
            break;
        case Kind::data:
        case Kind::fixed_data:
            data(path, bytes_of(a, field), bytes_of(b, field));
            break;
        case Kind::text:
            if (*static_cast<const std::string*>(a) != *static_cast<const std::string*>(b)) {
                add(path, json_of(a, field), json_of(b, field));
            }
            break;
        default:
            if (load(a, field.bits) != load(b, field.bits)) {
                add(path, json_of(a, field), json_of(b, field));
            }
        }
    }

    void data(const std::string& path, std::span<const u8> a, std::span<const u8> b) {
        const auto [left, right] = std::ranges::mismatch(a, b);
        if (left == a.end() && right == b.end()) {
            return;
        }
        const auto at = static_cast<std::size_t>(left - a.begin());
        add(fmt::format("{}[{}]", path, at), hex_of(a.subspan(at)), hex_of(b.subspan(at)));
    }

    void variant(const std::string& path, const void* a, const void* b, const FieldInfo& field) {
        const VariantInfo& info = *field.variant;
        const std::size_t index = info.index(a);
        if (index != info.index(b)) {
            add(path.empty() ? "(union)" : path, json_of(a, field), json_of(b, field));
            return;
        }
        const FieldInfo& active = info.arms[index];
        members(joined(path, active.name), arm(a, info), arm(b, info), *active.type);
    }

    void list(const std::string& path, const void* a, const void* b, const FieldInfo& field) {
        const std::size_t left = list_size(a, field);
        const std::size_t right = list_size(b, field);
        for (std::size_t i = 0; i < std::max(left, right); ++i) {
            const auto at = fmt::format("{}[{}]", path, i);
            if (i < left && i < right) {
                element_of(at, element(a, field, i), element(b, field, i), field);
            } else {
                add(at, i < left ? json_of(element(a, field, i), field) : std::string(absent),
                    i < right ? json_of(element(b, field, i), field) : std::string(absent));
            }
        }
    }

    std::vector<Difference> out_;
};

} // namespace

std::vector<Difference> diff(const void* left, const void* right, const StructInfo& info) {
    Differ differ;
    differ.members("", left, right, info);
    return differ.take();
}

} // namespace nestor::state::erased
