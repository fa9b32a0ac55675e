// Reads the compiler's CodeGeneratorRequest into the model of model.hpp.
//
// Cap'n Proto spreads a struct's groups and unions over nodes of their own that share the parent's
// data and pointer sections; each becomes a Struct with is_part set. A node with discriminants has
// its union split off: a named union is nothing but that union, an anonymous one becomes the last
// member, `value`.
#include "tools/schema/model.hpp"

#include <algorithm>

#include "tools/schema/request.hpp"
#include "tools/schema/values.hpp"

namespace nestor::schema {

namespace {

using capnp::schema::Node;
using capnp::schema::Type;

// Annotations of schema/annotations.capnp.
constexpr std::uint64_t fixed_id = 0xd1d3f5a1c0e44a01;
constexpr std::uint64_t unit_id = 0xd1d3f5a1c0e44a02;
constexpr std::uint64_t vmcs_id = 0xd1d3f5a1c0e44a03;
constexpr std::uint64_t rank_id = 0xd1d3f5a1c0e44a04;
constexpr std::uint64_t policy_id = 0xd1d3f5a1c0e44a05;
constexpr std::uint64_t hex_id = 0xd1d3f5a1c0e44a06;

std::string stem_of(std::string path) {
    path = path.substr(path.rfind('/') + 1);
    return path.substr(0, path.rfind('.'));
}

class Reader final {
public:
    Reader(capnp::schema::CodeGeneratorRequest::Reader request,
           capnp::schema::CodeGeneratorRequest::RequestedFile::Reader requested)
        : request_(request) {
        file_.path = requested.getFilename().cStr();
        file_.stem = stem_of(file_.path);
        file_id_ = requested.getId();
        const auto folder = file_.path.substr(0, file_.path.rfind('/') + 1);
        for (auto import : requested.getImports()) {
            const std::string name = import.getName().cStr();
            if (!name.starts_with('/')) { // the compiler's own files do not change
                file_.imports.push_back(folder + name);
            }
        }
    }

    File read() {
        read_scope(file_id_);
        order_structs(file_);
        return std::move(file_);
    }

private:
    [[noreturn]] void refuse(const std::string& where, const std::string& why) const {
        file_.refuse(where, why);
    }

    void use_type(std::uint64_t id) {
        const auto other = request_.file_of(id);
        if (other != file_id_) {
            file_.used_stems.insert(stem_of(request_.node(other).getDisplayName().cStr()));
        }
    }

    void read_scope(std::uint64_t id) {
        for (auto nested : request_.node(id).getNestedNodes()) {
            const auto n = request_.node(nested.getId());
            switch (n.which()) {
            case Node::STRUCT:
                read_scope(n.getId());
                read_struct(n);
                break;
            case Node::ENUM:
                read_enum(n);
                break;
            case Node::CONST:
                read_constant(n);
                break;
            case Node::ANNOTATION:
                break;
            default:
                refuse(request_.dotted_name(n.getId()),
                       "only structs, enums and constants hold state");
            }
        }
    }

    void read_enum(Node::Reader n) {
        Enum out;
        out.name = request_.cpp_name(n.getId());
        out.schema_name = request_.dotted_name(n.getId());
        out.id = n.getId();
        out.comment = request_.comment_of(n.getId());
        unsigned index = 0;
        for (auto enumerant : n.getEnum().getEnumerants()) {
            out.enumerants.emplace_back(enumerant.getName().cStr());
            out.comments.push_back(request_.member_comment(n.getId(), index++));
        }
        file_.enums.push_back(std::move(out));
    }

    void read_constant(Node::Reader n) {
        const auto scalar = scalar_of(n.getConst().getType());
        const auto where = request_.dotted_name(n.getId());
        Constant out;
        out.name = snake_case(where);
        std::replace(out.name.begin(), out.name.end(), '.', '_');
        out.comment = request_.comment_of(n.getId());
        const auto value = n.getConst().getValue();
        if (scalar.kind == Kind::unsigned_integer) {
            out.type = "std::uint" + std::to_string(scalar.bits) + "_t";
            out.value = std::to_string(default_bits(value)) + "u";
        } else if (value.isText()) {
            out.type = "std::string_view";
            out.value = "\"" + std::string(value.getText().cStr()) + "\"";
        } else {
            refuse(where, "a constant is an unsigned integer or a text");
        }
        file_.constants.push_back(std::move(out));
    }

    Struct begin_struct(Node::Reader n) const {
        if (n.getIsGeneric()) {
            refuse(request_.dotted_name(n.getId()), "generic structs do not hold state");
        }
        Struct out;
        out.name = request_.cpp_name(n.getId());
        out.schema_name = request_.dotted_name(n.getId());
        out.id = n.getId();
        out.comment = request_.comment_of(n.getId());
        out.data_words = n.getStruct().getDataWordCount();
        out.pointer_count = n.getStruct().getPointerCount();
        out.is_part = n.getStruct().getIsGroup();
        for (auto annotation : n.getAnnotations()) {
            if (annotation.getId() == rank_id) {
                out.rank = annotation.getValue().getUint16();
            }
        }
        for (auto nested : n.getNestedNodes()) {
            if (!request_.node(nested.getId()).isConst()) {
                out.aliases.emplace_back(nested.getName().cStr(),
                                         request_.cpp_name(nested.getId()));
            }
        }
        return out;
    }

    /// `is_arm`: the node is a member of a union, so even a bare union needs a struct around it.
    void read_struct(Node::Reader n, bool is_arm = false) {
        auto out = begin_struct(n);
        const auto schema = n.getStruct();
        std::vector<unsigned> order(schema.getFields().size());
        for (unsigned i = 0; i < order.size(); ++i) {
            order[i] = i;
        }
        std::sort(order.begin(), order.end(), [&](unsigned a, unsigned b) {
            return schema.getFields()[a].getCodeOrder() < schema.getFields()[b].getCodeOrder();
        });
        for (const unsigned i : order) {
            const auto field = schema.getFields()[i];
            if (field.getDiscriminantValue() == capnp::schema::Field::NO_DISCRIMINANT) {
                out.fields.push_back(read_field(out, field, request_.member_comment(n.getId(), i)));
            }
        }
        if (schema.getDiscriminantCount() > 0) {
            const bool named = out.is_part && out.fields.empty() && !is_arm;
            const std::string name = named ? out.name : out.name + "Value";
            read_union(n, name);
            if (named) {
                return; // the group is nothing but its union
            }
            Field field;
            field.live_name = "value";
            field.kind = Kind::variant;
            field.type = name;
            field.type_id = n.getId();
            out.fields.push_back(std::move(field));
        }
        file_.structs.push_back(std::move(out));
    }

    void read_union(Node::Reader n, const std::string& name) {
        auto out = begin_struct(n);
        const auto prefix = out.name;
        out.name = name;
        out.aliases.clear();
        out.is_union = true;
        out.is_part = true;
        out.tag_slot = n.getStruct().getDiscriminantOffset() * 16;
        out.fields.resize(n.getStruct().getDiscriminantCount());
        unsigned index = 0;
        for (auto field : n.getStruct().getFields()) {
            const auto comment = request_.member_comment(n.getId(), index++);
            const auto tag = field.getDiscriminantValue();
            if (tag != capnp::schema::Field::NO_DISCRIMINANT) {
                out.fields.at(tag) = read_arm(out, prefix, field, comment);
            }
        }
        file_.structs.push_back(std::move(out));
    }

    /// Each arm is a struct of its own: the group itself, or a wrapper with the member `value`.
    Field read_arm(const Struct& owner, const std::string& prefix,
                   capnp::schema::Field::Reader field, const std::string& comment) {
        auto arm = read_field(owner, field, comment);
        if (arm.kind == Kind::group) {
            return arm;
        }
        Struct wrapper;
        wrapper.name = prefix + camel_case(arm.name);
        wrapper.schema_name = owner.schema_name + "." + arm.name;
        wrapper.comment = comment;
        wrapper.is_part = true;
        wrapper.data_words = owner.data_words;
        wrapper.pointer_count = owner.pointer_count;
        if (arm.kind != Kind::nothing) {
            auto member = arm;
            member.live_name = "value";
            member.name.clear(); // in paths and JSON the arm's own name says it
            wrapper.fields.push_back(std::move(member));
        }
        Field out;
        out.name = arm.name;
        out.ordinal = arm.ordinal;
        out.policy = arm.policy;
        out.kind = Kind::group;
        out.type = wrapper.name;
        file_.structs.push_back(std::move(wrapper));
        return out;
    }

    Field read_field(const Struct& owner, capnp::schema::Field::Reader field,
                     const std::string& comment) {
        Field out;
        out.name = field.getName().cStr();
        out.live_name = snake_case(out.name);
        out.comment = comment;
        if (field.getOrdinal().isExplicit()) {
            out.ordinal = "@" + std::to_string(field.getOrdinal().getExplicit());
        }
        const auto where = owner.schema_name + "." + out.name;
        const bool fixed = read_annotations(out, field);
        if (field.isGroup()) {
            const bool is_arm =
                field.getDiscriminantValue() != capnp::schema::Field::NO_DISCRIMINANT;
            read_group(out, request_.node(field.getGroup().getTypeId()), is_arm);
        } else {
            read_slot(out, field.getSlot(), where, fixed);
        }
        if (fixed && out.shape != Shape::array && out.kind != Kind::fixed_data) {
            refuse(where, "$fixed is for lists and Data");
        }
        if (fixed && out.count == 0) {
            refuse(where, "$fixed(0) holds nothing");
        }
        check_vmcs(out, where);
        return out;
    }

    static bool read_annotations(Field& out, capnp::schema::Field::Reader field) {
        bool fixed = false;
        for (auto annotation : field.getAnnotations()) {
            const auto value = annotation.getValue();
            switch (annotation.getId()) {
            case fixed_id:
                fixed = true;
                out.count = value.getUint32();
                break;
            case unit_id:
                out.unit = value.getText().cStr();
                break;
            case vmcs_id:
                out.is_vmcs = true;
                out.vmcs = value.getUint32();
                break;
            case policy_id:
                out.policy = true;
                break;
            case hex_id:
                out.hex = true;
                break;
            default:
                break;
            }
        }
        return fixed;
    }

    void read_group(Field& out, Node::Reader group, bool is_arm) {
        read_scope(group.getId());
        read_struct(group, is_arm);
        const auto schema = group.getStruct();
        const bool all_arms = schema.getDiscriminantCount() > 0 &&
                              schema.getDiscriminantCount() == schema.getFields().size();
        out.kind = all_arms && !is_arm ? Kind::variant : Kind::group;
        out.type = request_.cpp_name(group.getId());
        out.type_id = group.getId();
    }

    void read_slot(Field& out, capnp::schema::Field::Slot::Reader slot, const std::string& where,
                   bool fixed) {
        const auto type = slot.getType();
        read_type(out, type, where);
        out.slot = slot.getOffset();
        if (type.isData() && fixed) {
            out.kind = Kind::fixed_data;
        } else if (type.isList()) {
            if (type.getList().getElementType().isList()) {
                refuse(where, "lists of lists: put the inner list into a struct");
            }
            read_type(out, type.getList().getElementType(), where);
            out.shape = fixed ? Shape::array : Shape::list;
            if (out.kind == Kind::boolean && !fixed) {
                refuse(where, "a List(Bool) needs $fixed; a variable one is a List(UInt8)");
            }
            if (out.kind == Kind::nothing) {
                refuse(where, "a list of Void is a number");
            }
        }
        read_default(out, slot, where);
        if (!out.is_pointer()) {
            out.slot *= out.bits;
        }
    }

    void read_default(Field& out, capnp::schema::Field::Slot::Reader slot,
                      const std::string& where) const {
        const auto value = slot.getDefaultValue();
        if (!out.is_pointer()) {
            out.bits_default = default_bits(value);
        } else if (value.isText()) {
            out.text_default = value.getText().cStr();
        } else if (slot.getHadExplicitDefault()) {
            refuse(where, "lists, Data and structs have no default of their own here");
        }
    }

    void read_type(Field& out, Type::Reader type, const std::string& where) {
        const auto scalar = scalar_of(type);
        out.kind = scalar.kind;
        out.bits = scalar.bits;
        switch (type.which()) {
        case Type::TEXT:
            out.kind = Kind::text;
            break;
        case Type::DATA:
            out.kind = Kind::data;
            break;
        case Type::STRUCT:
            out.kind = Kind::structure;
            out.type_id = type.getStruct().getTypeId();
            break;
        case Type::ENUM:
            out.type_id = type.getEnum().getTypeId();
            break;
        case Type::VOID:
        case Type::LIST:
            break;
        default:
            if (scalar.bits == 0) {
                refuse(where, "floats, interfaces and AnyPointer do not hold state "
                              "(a float's bits are an unsigned integer)");
            }
        }
        if (out.type_id != 0) {
            out.type = request_.cpp_name(out.type_id);
            use_type(out.type_id);
        }
    }

    /// SDM 3D appendix B: bits 14:13 of an encoding give the field's width.
    void check_vmcs(const Field& field, const std::string& where) const {
        if (!field.is_vmcs) {
            return;
        }
        constexpr unsigned widths[] = {16, 64, 32, 64};
        if (field.kind != Kind::unsigned_integer || field.shape != Shape::one ||
            field.bits != widths[field.vmcs >> 13 & 3]) {
            refuse(where, "the type does not have the width that the VMCS encoding says");
        }
    }

    Request request_;
    std::uint64_t file_id_ = 0;
    File file_;
};

} // namespace

bool Field::is_pointer() const {
    return shape != Shape::one || kind == Kind::text || kind == Kind::data ||
           kind == Kind::fixed_data || kind == Kind::structure;
}

File read_file(capnp::schema::CodeGeneratorRequest::Reader request,
               capnp::schema::CodeGeneratorRequest::RequestedFile::Reader file,
               const std::string& folder) {
    File out = Reader(request, file).read();
    out.folder = folder;
    return out;
}

} // namespace nestor::schema
