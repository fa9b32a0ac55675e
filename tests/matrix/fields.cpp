// Walks the description of state::Vcpu. Everything in it lies in the struct itself except lists,
// which are reset as a whole.
#include "tests/matrix/fields.hpp"

#include <cstring>

#include "engine/state/codec.hpp"
#include "engine/state/info.hpp"
#include "src/base/check.hpp"

namespace nestor::matrix {

namespace {

using state::FieldInfo;
using state::Kind;
using state::Shape;
using state::StructInfo;

class Walk {
public:
    std::vector<Field> fields;

    void structure(const StructInfo& info, const std::string& path, const std::string& schema_path,
                   std::size_t offset) {
        for (const FieldInfo& field : info.fields) {
            const auto under = [&](const std::string& parent) {
                return parent.empty() ? field.name : parent + "." + field.name;
            };
            one_field(field, under(path), under(schema_path), offset + field.offset);
        }
    }

private:
    void one_field(const FieldInfo& field, const std::string& path, const std::string& schema_path,
                   std::size_t offset) {
        if (field.shape == Shape::list) {
            fields.push_back({path, schema_path, offset, 0, field.list->resize, field.list->size});
            return;
        }
        const bool array = field.shape == Shape::array;
        for (std::size_t i = 0; i < (array ? field.count : 1); ++i) {
            element(field, array ? path + "[" + std::to_string(i) + "]" : path, schema_path,
                    offset + i * field.element_size);
        }
    }

    void element(const FieldInfo& field, const std::string& path, const std::string& schema_path,
                 std::size_t offset) {
        CHECK(field.kind != Kind::variant && field.kind != Kind::text && field.kind != Kind::data);
        if (field.kind == Kind::structure || field.kind == Kind::group) {
            structure(*field.type, path, schema_path, offset);
        } else {
            fields.push_back({path, schema_path, offset, field.element_size, nullptr, nullptr});
        }
    }
};

const std::byte* at(const state::Vcpu& vcpu, const Field& field) {
    return reinterpret_cast<const std::byte*>(&vcpu) + field.offset;
}

const state::Vcpu& fresh() {
    static const state::Vcpu vcpu;
    return vcpu;
}

} // namespace

const std::vector<Field>& vcpu_fields() {
    static const std::vector<Field> all = [] {
        Walk walk;
        walk.structure(state::Meta<state::Vcpu>::info, "", "", 0);
        return walk.fields;
    }();
    return all;
}

bool is_default(const state::Vcpu& vcpu, const Field& field) {
    if (field.size == 0) {
        return field.length(at(vcpu, field)) == 0;
    }
    return std::memcmp(at(vcpu, field), at(fresh(), field), field.size) == 0;
}

void reset(state::Vcpu& vcpu, const Field& field) {
    auto* const place = reinterpret_cast<std::byte*>(&vcpu) + field.offset;
    if (field.size == 0) {
        field.resize(place, 0);
    } else {
        std::memcpy(place, at(fresh(), field), field.size);
    }
}

} // namespace nestor::matrix
