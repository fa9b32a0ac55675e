// What `vm` and a running machine say to each other over the control socket.
//
// A message is a little-endian 32-bit length and that many bytes of JSON: one object. A request has
// "verb"; answers are any number of {"progress": …} and at last {"ok": …} or {"error": …}.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "src/base/result.hpp"

namespace nestor::control {

/// No message is longer; a peer that announces more is cut off.
inline constexpr std::size_t max_message = 64 << 10;

/// JSON that is complete already, such as an array.
struct RawJson {
    std::string text;
    bool operator==(const RawJson&) const = default;
};
using Value = std::variant<bool, u64, double, std::string, RawJson>;

/// A JSON object with members in the order of add(). Of what was parsed only booleans, numbers and
/// strings are kept.
class Object final {
public:
    Object& add(std::string key, Value value);
    Object& add(std::string key, const char* value) {
        return add(std::move(key), Value(std::string(value)));
    }
    /// The member, or a default where there is none of that type.
    [[nodiscard]] std::string text(std::string_view key) const;
    [[nodiscard]] u64 number(std::string_view key) const;
    [[nodiscard]] double real(std::string_view key) const; ///< of either kind of number
    [[nodiscard]] bool flag(std::string_view key) const;
    [[nodiscard]] bool has(std::string_view key) const { return find(key) != nullptr; }
    [[nodiscard]] std::string to_json() const;
    bool operator==(const Object&) const = default;

private:
    [[nodiscard]] const Value* find(std::string_view key) const;
    std::vector<std::pair<std::string, Value>> members_;
};

/// A JSON string literal, quoted.
[[nodiscard]] std::string json_string(std::string_view text);
/// "[a,b]" of complete JSON texts.
[[nodiscard]] std::string json_array(std::span<const std::string> elements);
[[nodiscard]] Object error_object(const Error& error);

struct Request {
    std::string verb; ///< "status", "pause", "resume", "stop", "power_button", "save", "digest",
                      ///< "debug"
    Object arguments;
};

struct Reply {
    enum class Kind { progress, ok, error };
    Kind kind = Kind::ok;
    Object body;
};

[[nodiscard]] std::string encode(const Request& request);
[[nodiscard]] std::string encode(const Reply& reply);
/// Bytes from anywhere are safe. What is not such a message is `corrupt`.
[[nodiscard]] Result<Request> decode_request(std::string_view text);
[[nodiscard]] Result<Reply> decode_reply(std::string_view text);
/// The error that a reply of kind `error` carries.
[[nodiscard]] Error error_of(const Reply& reply);

} // namespace nestor::control
