// The factors of the matrix (factors.def) as types, and cases as texts.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "tests/matrix/covering.hpp"

namespace nestor::matrix {

/// A level is an enumerator of its factor's type: event::nmi.
#define FACTOR(name, ...) enum class name : u8 { __VA_ARGS__ };
#define EXCLUSION(reason, ...)
#include "tests/matrix/factors.def"
#undef FACTOR

/// The factors' places in Levels.
enum class Factor : u8 {
#define FACTOR(name, ...) name,
#include "tests/matrix/factors.def"
#undef FACTOR
#undef EXCLUSION
};

struct FactorInfo {
    std::string_view name;
    std::vector<std::string> levels;
};

/// By Factor. The levels of `order` are numbers.
[[nodiscard]] const std::vector<FactorInfo>& factors();
[[nodiscard]] std::vector<u8> level_counts();
/// Orders of a vCPU's units, by the level of `order`.
[[nodiscard]] const std::vector<std::vector<u8>>& orders();

/// The reason why there is no such case; null when there is. Open levels exclude nothing.
[[nodiscard]] const char* excluded(const Levels& levels);

/// "ept=on unrestricted=off …", and back. None: the text is not that of a case.
[[nodiscard]] std::string to_text(const Levels& levels);
[[nodiscard]] std::optional<Levels> levels_of(std::string_view text);

[[nodiscard]] inline u8 level(const Levels& levels, Factor factor) {
    return levels[static_cast<std::size_t>(factor)];
}
#define FACTOR(name, ...)                                                                          \
    [[nodiscard]] inline bool is(const Levels& levels, name one) {                                 \
        return level(levels, Factor::name) == static_cast<u8>(one);                                \
    }
#define EXCLUSION(reason, ...)
#include "tests/matrix/factors.def"
#undef FACTOR
#undef EXCLUSION

} // namespace nestor::matrix
