// JSON from outside, for the sources of this layer that know the JSON library.
#pragma once

#include <string_view>

#include <nlohmann/json.hpp>

namespace nestor::control {

/// Throws nothing: what is no JSON gives a value that is_discarded(). The parser takes long to
/// compile, so only message.cpp does.
[[nodiscard]] nlohmann::json parse_json(std::string_view text);

} // namespace nestor::control
