// State as text for people.
#pragma once

#include <string>
#include <string_view>

namespace nestor::cli {

/// The members of a JSON object as the state codec writes it, each on a line of its own below its
/// struct's name, indented by `indent` more. Lists of plain values stay on one line.
[[nodiscard]] std::string indented(std::string_view json, unsigned indent);

} // namespace nestor::cli
