// What the copies that instrument.py makes ask at each statement of code_mutants.list.
#pragma once

#include <string_view>

namespace nestor::matrix {

/// Whether the mutant of that name is the one that runs. Defined by the test.
[[nodiscard]] bool left_out(std::string_view mutant);

} // namespace nestor::matrix
