// 113-bit arithmetic for x87_math.cpp: conversion from and to extended precision.
#pragma once

#include "engine/cpu/x87.hpp"

namespace nestor::cpu::x87 {

/// IEEE binary128, computed by the compiler's run-time library: the same on every host.
using Quad = __float128;

/// A quad from its bits, high word first.
constexpr Quad quad(u64 high, u64 low) {
    return __builtin_bit_cast(Quad, static_cast<u128>(high) << 64 | low);
}
inline constexpr Quad quad_pi = quad(0x4000921fb54442d1, 0x8469898cc51701b8);
inline constexpr Quad quad_ln2 = quad(0x3ffe62e42fefa39e, 0xf35793c7673007e6);
inline constexpr Quad quad_log2e = quad(0x3fff71547652b82f, 0xe1777d0ffda0d23a);

/// A finite nonzero value as fraction * 2^exponent with 1 <= |fraction| < 2.
struct Scaled {
    Quad fraction;
    int exponent;
};

Scaled split(const Extended& v);
Scaled split(Quad v);

/// Rounds fraction * 2^exponent as `control` asks. Adds OE, UE, PE and C1 to `sw`. Unless `exact`,
/// the value stands for one that is not representable.
Extended round_to_extended(Scaled v, bool exact, u16 control, u16& sw);
/// The same for a value that is `v` plus (away_from_zero) or minus an arbitrarily small amount.
Extended round_near(const Extended& v, bool away_from_zero, u16 control, u16& sw);

} // namespace nestor::cpu::x87
