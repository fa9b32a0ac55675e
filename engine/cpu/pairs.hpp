// Two instructions in one handler (ops_pairs.cpp).
#pragma once

#include <span>

#include "engine/cpu/op.hpp"

namespace nestor::cpu {

/// Gives Ops of a block that is not exact handlers that do the next one as well, where there are
/// such. Comes after everything else that chooses handlers.
void pair_up(std::span<Op> ops);

} // namespace nestor::cpu
