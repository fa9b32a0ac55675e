// The compiler's request as a table of nodes: names, files and comments by id.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "tools/schema/model.hpp"

namespace nestor::schema {

class Request final {
public:
    explicit Request(capnp::schema::CodeGeneratorRequest::Reader request);

    /// Throws for an id that the compiler did not send.
    [[nodiscard]] capnp::schema::Node::Reader node(std::uint64_t id) const;
    /// The file that a node is in.
    [[nodiscard]] std::uint64_t file_of(std::uint64_t id) const;
    /// "OuterInner", the name in C++.
    [[nodiscard]] std::string cpp_name(std::uint64_t id) const;
    /// "Outer.Inner", the name in the schema.
    [[nodiscard]] std::string dotted_name(std::uint64_t id) const;
    /// Doc comments on one line; empty where there is none.
    [[nodiscard]] std::string comment_of(std::uint64_t id) const;
    [[nodiscard]] std::string member_comment(std::uint64_t id, unsigned index) const;

private:
    [[nodiscard]] std::vector<std::string> scopes(std::uint64_t id) const;

    std::map<std::uint64_t, capnp::schema::Node::Reader> nodes_;
    std::map<std::uint64_t, capnp::schema::Node::SourceInfo::Reader> infos_;
};

} // namespace nestor::schema
