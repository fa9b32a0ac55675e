// Fields of state as text: their types, and where a path of a difference leads.
#pragma once

#include <string>
#include <string_view>

#include "engine/state/codec.hpp"
#include "engine/state/info.hpp"

namespace nestor::cli {

/// "UInt64", "List(Segment)", "Data[64]".
[[nodiscard]] std::string type_text(const state::FieldInfo& field);

/// The field that a path like "lapic.page[3]" names in a struct; null where there is none.
[[nodiscard]] const state::FieldInfo* find_field(const state::StructInfo& info,
                                                 std::string_view path);

} // namespace nestor::cli
