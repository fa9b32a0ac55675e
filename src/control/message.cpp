// Encodes and decodes control messages.
//
// Owns nothing. The JSON library stays in this file and host_offer.cpp; it parses without
// exceptions and without recursion, so the length limit bounds what a peer can make it do.
#include "src/control/message.hpp"

#include <cmath>
#include <cstdio>

#include "src/control/json.hpp"

namespace nestor::control {
namespace {

using nlohmann::json;

template <class... F>
struct Overloaded : F... {
    using F::operator()...;
};

std::string to_text(const Value& value) {
    return std::visit(Overloaded{
                          [](bool v) { return std::string(v ? "true" : "false"); },
                          [](u64 v) { return std::to_string(v); },
                          [](double v) {
                              if (!std::isfinite(v)) {
                                  return std::string("null");
                              }
                              char text[40];
                              std::snprintf(text, sizeof(text), "%.6g", v);
                              return std::string(text);
                          },
                          [](const std::string& v) { return json_string(v); },
                          [](const RawJson& v) { return v.text; },
                      },
                      value);
}

Object object_of(const json& from) {
    Object object;
    for (const auto& [key, value] : from.items()) {
        if (value.is_boolean()) {
            object.add(key, value.get<bool>());
        } else if (value.is_number_unsigned()) {
            object.add(key, value.get<u64>());
        } else if (value.is_number()) {
            object.add(key, value.get<double>());
        } else if (value.is_string()) {
            object.add(key, value.get<std::string>());
        }
    }
    return object;
}

Result<json> parse(std::string_view text) {
    json parsed = parse_json(text);
    if (!parsed.is_object()) {
        return fail(ErrorCode::corrupt, "control message: it is not a JSON object");
    }
    return parsed;
}

} // namespace

json parse_json(std::string_view text) { return json::parse(text, nullptr, false); }

Object& Object::add(std::string key, Value value) {
    members_.emplace_back(std::move(key), std::move(value));
    return *this;
}

const Value* Object::find(std::string_view key) const {
    for (const auto& [name, value] : members_) {
        if (name == key) {
            return &value;
        }
    }
    return nullptr;
}

std::string Object::text(std::string_view key) const {
    const Value* const value = find(key);
    const auto* const text = value == nullptr ? nullptr : std::get_if<std::string>(value);
    return text == nullptr ? std::string() : *text;
}

u64 Object::number(std::string_view key) const {
    const Value* const value = find(key);
    const auto* const number = value == nullptr ? nullptr : std::get_if<u64>(value);
    return number == nullptr ? 0 : *number;
}

double Object::real(std::string_view key) const {
    const Value* const value = find(key);
    const auto* const real = value == nullptr ? nullptr : std::get_if<double>(value);
    return real == nullptr ? static_cast<double>(number(key)) : *real;
}

bool Object::flag(std::string_view key) const {
    const Value* const value = find(key);
    const auto* const flag = value == nullptr ? nullptr : std::get_if<bool>(value);
    return flag != nullptr && *flag;
}

std::string Object::to_json() const {
    std::string out = "{";
    for (const auto& [key, value] : members_) {
        out += (out.size() > 1 ? "," : "") + json_string(key) + ":" + to_text(value);
    }
    return out + "}";
}

std::string json_string(std::string_view text) {
    return json(text).dump(-1, ' ', true, json::error_handler_t::replace);
}

std::string json_array(std::span<const std::string> elements) {
    std::string out = "[";
    for (const std::string& element : elements) {
        out += (out.size() > 1 ? "," : "") + element;
    }
    return out + "]";
}

Object error_object(const Error& error) {
    Object object;
    object.add("code", u64{static_cast<u8>(error.code)}).add("message", error.message);
    if (!error.remedy.empty()) {
        object.add("remedy", error.remedy);
    }
    return object;
}

std::string encode(const Request& request) {
    Object whole;
    whole.add("verb", request.verb).add("arguments", RawJson{request.arguments.to_json()});
    return whole.to_json();
}

std::string encode(const Reply& reply) {
    constexpr const char* names[] = {"progress", "ok", "error"};
    Object whole;
    whole.add(names[static_cast<std::size_t>(reply.kind)], RawJson{reply.body.to_json()});
    return whole.to_json();
}

Result<Request> decode_request(std::string_view text) {
    const json parsed = TRY(parse(text));
    const auto verb = parsed.find("verb");
    if (verb == parsed.end() || !verb->is_string()) {
        return fail(ErrorCode::corrupt, "control message: there is no verb");
    }
    Request request{.verb = verb->get<std::string>(), .arguments = {}};
    if (const auto found = parsed.find("arguments"); found != parsed.end()) {
        if (!found->is_object()) {
            return fail(ErrorCode::corrupt, "control message: arguments are not an object");
        }
        request.arguments = object_of(*found);
    }
    return request;
}

Result<Reply> decode_reply(std::string_view text) {
    const json parsed = TRY(parse(text));
    constexpr std::pair<const char*, Reply::Kind> kinds[] = {{"progress", Reply::Kind::progress},
                                                             {"ok", Reply::Kind::ok},
                                                             {"error", Reply::Kind::error}};
    for (const auto& [name, kind] : kinds) {
        if (const auto found = parsed.find(name); found != parsed.end() && found->is_object()) {
            return Reply{kind, object_of(*found)};
        }
    }
    return fail(ErrorCode::corrupt, "control message: it is no answer");
}

Error error_of(const Reply& reply) {
    const u64 code = reply.body.number("code");
    const bool known = code == 2 || code == 4 || code == 6 || code == 8;
    return {known ? static_cast<ErrorCode>(code) : ErrorCode::failed, reply.body.text("message"),
            reply.body.text("remedy")};
}

} // namespace nestor::control
