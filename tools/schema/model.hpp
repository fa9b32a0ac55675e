// What a schema file says, in the terms of the live state it becomes.
//
// Read once from the compiler's CodeGeneratorRequest; everything the language offers and Nestor's
// state does not use (floats, generics, interfaces, nested lists, recursion) is refused here, with
// the place in the schema, so the emitters have no error paths.
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "tools/schema/libcapnp.hpp"

#include <capnp/schema.capnp.h>

namespace nestor::schema {

/// What a field holds; the same list as state::Kind in engine/state/info.hpp.
enum class Kind {
    nothing,
    boolean,
    unsigned_integer,
    signed_integer,
    enumeration,
    text,
    data,
    fixed_data,
    structure,
    group,
    variant,
};

enum class Shape { one, array, list };

struct Field {
    std::string name;      ///< as in the schema; empty for an anonymous union
    std::string live_name; ///< the C++ member
    Kind kind = Kind::nothing;
    Shape shape = Shape::one;
    unsigned bits = 0;       ///< width of a scalar, or of a list's elements
    std::uint32_t slot = 0;  ///< first bit in the data section, or pointer index
    std::uint32_t count = 0; ///< elements of an array, bytes of fixed data
    std::uint64_t bits_default = 0;
    std::string text_default;
    std::string type;          ///< C++ name of an enum, struct, group or variant
    std::uint64_t type_id = 0; ///< node of the same
    std::string comment;
    std::string unit;
    bool hex = false;
    bool policy = false;
    bool is_vmcs = false;
    std::uint32_t vmcs = 0;
    std::string ordinal; ///< "@3", or empty for groups and unions

    [[nodiscard]] bool is_pointer() const;
};

/// A struct, a group, a union's arm, or (is_union) the union itself, whose fields are its arms.
struct Struct {
    std::string name;        ///< C++ name: enclosing names run together
    std::string schema_name; ///< dotted, without the file
    std::uint64_t id = 0;
    std::string comment;
    unsigned data_words = 0;
    unsigned pointer_count = 0;
    std::uint32_t tag_slot = 0; ///< of a union: first bit of the discriminant
    bool is_union = false;
    bool is_part = false; ///< a group, union or arm: lives in its parent's sections
    bool standard_layout = true;
    unsigned rank = 0;
    std::vector<Field> fields;
    std::vector<std::pair<std::string, std::string>> aliases; ///< nested name, C++ name
};

struct Enum {
    std::string name;
    std::string schema_name;
    std::uint64_t id = 0;
    std::string comment;
    std::vector<std::string> enumerants; ///< by value
    std::vector<std::string> comments;
};

struct Constant {
    std::string name;
    std::string type;
    std::string value;
    std::string comment;
};

/// One requested schema file, in an order in which C++ can declare it.
struct File {
    std::string stem;                 ///< "cpu" for schema/cpu.capnp
    std::string path;                 ///< as the compiler was given it
    std::string folder;               ///< of the generated files, as #include names it
    std::vector<std::string> imports; ///< paths, relative to where the compiler ran
    std::set<std::string> used_stems; ///< imported files whose types are used
    std::vector<Enum> enums;
    std::vector<Struct> structs;
    std::vector<Constant> constants;

    /// Throws: what is at that place of the schema cannot be state.
    [[noreturn]] void refuse(const std::string& where, const std::string& why) const;
};

/// Puts every struct behind those it contains, decides on standard layout, and refuses cycles and
/// names that are taken twice.
void order_structs(File& file);

/// Throws std::runtime_error with the place and the reason for what Nestor's state cannot hold.
File read_file(capnp::schema::CodeGeneratorRequest::Reader request,
               capnp::schema::CodeGeneratorRequest::RequestedFile::Reader file,
               const std::string& folder);

/// "guestRip" -> "guest_rip", with an underscore behind what C++ reserves.
std::string snake_case(const std::string& name);
/// "guestRip" -> "GuestRip".
std::string camel_case(const std::string& name);

/// The generated header, source and frozen-layout text.
std::string emit_header(const File& file);
std::string emit_source(const File& file);
std::string emit_layout(const File& file);

} // namespace nestor::schema
