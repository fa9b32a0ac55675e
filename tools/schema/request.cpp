// Names and comments out of the compiler's CodeGeneratorRequest.
//
// Owns nothing but readers into the request, which has to live as long. A node names its own scope
// only, so names are put together on the way up to the file.
#include "tools/schema/request.hpp"

#include <algorithm>
#include <stdexcept>

namespace nestor::schema {

namespace {

std::string one_line(std::string text) {
    std::replace(text.begin(), text.end(), '\n', ' ');
    while (!text.empty() && text.back() == ' ') {
        text.pop_back();
    }
    return text;
}

} // namespace

Request::Request(capnp::schema::CodeGeneratorRequest::Reader request) {
    for (auto node : request.getNodes()) {
        nodes_.emplace(node.getId(), node);
    }
    for (auto info : request.getSourceInfo()) {
        infos_.emplace(info.getId(), info);
    }
}

capnp::schema::Node::Reader Request::node(std::uint64_t id) const {
    const auto found = nodes_.find(id);
    if (found == nodes_.end()) {
        throw std::runtime_error("node " + std::to_string(id) +
                                 " is not in the compiler's request");
    }
    return found->second;
}

/// Names of the scopes around a node, outermost first, without the file.
std::vector<std::string> Request::scopes(std::uint64_t id) const {
    const auto n = node(id);
    if (n.isFile()) {
        return {};
    }
    auto names = scopes(n.getScopeId());
    names.emplace_back(n.getDisplayName().cStr() + n.getDisplayNamePrefixLength());
    return names;
}

std::string Request::cpp_name(std::uint64_t id) const {
    std::string name;
    for (const auto& part : scopes(id)) {
        name += camel_case(part);
    }
    return name;
}

std::string Request::dotted_name(std::uint64_t id) const {
    std::string name;
    for (const auto& part : scopes(id)) {
        name += (name.empty() ? "" : ".") + part;
    }
    return name;
}

std::uint64_t Request::file_of(std::uint64_t id) const {
    const auto n = node(id);
    return n.isFile() ? id : file_of(n.getScopeId());
}

std::string Request::comment_of(std::uint64_t id) const {
    const auto found = infos_.find(id);
    return found == infos_.end() ? "" : one_line(found->second.getDocComment().cStr());
}

std::string Request::member_comment(std::uint64_t id, unsigned index) const {
    const auto found = infos_.find(id);
    if (found == infos_.end() || index >= found->second.getMembers().size()) {
        return "";
    }
    return one_line(found->second.getMembers()[index].getDocComment().cStr());
}

} // namespace nestor::schema
