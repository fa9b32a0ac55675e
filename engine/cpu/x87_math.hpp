// x87 transcendental functions in software: the same result on every host.
//
// Evaluated with 113 bits and rounded once, so the error is below 0.5001 ulp; the argument of the
// trigonometric functions is reduced with an exact pi (Intel processors use 66 bits of it). Special
// operands as in the tables of SDM 2A. Where the SDM leaves a result undefined, nestor-v1 says:
// F2XM1 outside [-1, 1] returns its operand, FYL2XP1 outside its range computes log2(1 + x), C1 is
// clear after FSINCOS and FPTAN.
#pragma once

#include "engine/cpu/x87.hpp"

namespace nestor::cpu::x87 {

// As the host functions of x87_host.hpp: result by reference, returns exception flags and C1 in
// their status-word places. C2 set: the operand is out of range and there is no result. When a flag
// of `before_result` is returned that `control` does not mask, the result is not to be used.
u16 math_f2xm1(const Extended& x, Extended& result, u16 control);
u16 math_sin(const Extended& x, Extended& result, u16 control);
u16 math_cos(const Extended& x, Extended& result, u16 control);
u16 math_sincos(const Extended& x, Extended& sine, Extended& cosine, u16 control);
/// The tangent; `one` is 1.0 or, for NaN operands, the same NaN.
u16 math_tan(const Extended& x, Extended& tangent, Extended& one, u16 control);
/// atan(st1 / st0) in the quadrant of the point (st0, st1).
u16 math_atan(const Extended& st0, const Extended& st1, Extended& result, u16 control);
u16 math_yl2x(const Extended& st0, const Extended& st1, Extended& result, u16 control);
u16 math_yl2xp1(const Extended& st0, const Extended& st1, Extended& result, u16 control);

} // namespace nestor::cpu::x87
