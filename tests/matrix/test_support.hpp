// What the tests of the matrix share: their environment, the guest's image, the cases.
#pragma once

#include <cstdlib>
#include <string>
#include <vector>

#include "src/base/fd.hpp"
#include "tests/matrix/situation.hpp"

namespace nestor::matrix {

inline std::string variable(const char* name, const char* otherwise) {
    const char* const value = std::getenv(name);
    return value != nullptr ? value : otherwise;
}

/// The file that GUEST names; empty when there is none.
inline std::vector<u8> guest_image() {
    const auto bytes = read_file(variable("GUEST", ""), 1 << 20);
    if (!bytes) {
        return {};
    }
    const auto* const data = reinterpret_cast<const u8*>(bytes->data());
    return {data, data + bytes->size()};
}

inline CoveringArray array_of(unsigned strength) {
    return covering_array(level_counts(), strength,
                          [](const Levels& levels) { return excluded(levels) != nullptr; });
}

inline std::vector<Levels> all_pairs() { return array_of(2).cases; }

} // namespace nestor::matrix
