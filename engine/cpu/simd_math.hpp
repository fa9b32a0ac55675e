// RCPPS and RSQRTPS in software: hosts differ in them, guests must not see it.
//
// nestor-v1: the significand's leading 11 bits (RSQRT: the exponent's parity and 10 bits) choose an
// interval, and the result is the function at its middle, rounded to 12 significant bits. That
// keeps the architectural bound, a relative error of 1.5 * 2^-12, and gives RCP(1) = 0x3f7ff000, as
// Intel processors do. Denormal operands count as zero and tiny results are zero (SDM 2B RCPPS,
// RSQRTPS).
#pragma once

#include "src/base/types.hpp"

namespace nestor::cpu {

/// Bits of the approximate reciprocal of a single-precision value. MXCSR has no part in it.
[[nodiscard]] u32 approximate_reciprocal(u32 x);
/// Bits of the approximate reciprocal square root.
[[nodiscard]] u32 approximate_reciprocal_sqrt(u32 x);

} // namespace nestor::cpu
