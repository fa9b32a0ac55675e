// Bit fields and power-of-two arithmetic on plain integers.
#pragma once

#include <concepts>

#include "src/base/types.hpp"

namespace nestor {

/// Bit n as a mask of type T.
template <std::unsigned_integral T = u64>
constexpr T bit(unsigned n) {
    return static_cast<T>(T{1} << n);
}

/// Bits high..low (both included) of v, moved down to bit 0.
template <std::unsigned_integral T>
constexpr T bits(T v, unsigned high, unsigned low) {
    const unsigned width = high - low + 1;
    const T mask =
        width >= sizeof(T) * 8 ? static_cast<T>(~T{0}) : static_cast<T>((T{1} << width) - 1);
    return static_cast<T>((v >> low) & mask);
}

/// A mask with bits high..low set.
template <std::unsigned_integral T = u64>
constexpr T mask(unsigned high, unsigned low) {
    return static_cast<T>(bits(static_cast<T>(~T{0}), high - low, 0) << low);
}

template <std::unsigned_integral T>
constexpr bool is_power_of_two(T v) {
    return v != 0 && (v & (v - 1)) == 0;
}

constexpr u64 align_down(u64 v, u64 alignment) { return v & ~(alignment - 1); }
constexpr u64 align_up(u64 v, u64 alignment) { return (v + alignment - 1) & ~(alignment - 1); }

/// Sign-extends the low `width` bits of v to 64.
constexpr u64 sign_extend(u64 v, unsigned width) {
    const unsigned shift = 64 - width;
    return static_cast<u64>(static_cast<i64>(v << shift) >> shift);
}

/// Whether v is canonical for a linear-address width of 48 or 57 bits (SDM 1 3.3.7.1).
constexpr bool is_canonical(u64 v, unsigned width) { return sign_extend(v, width) == v; }

} // namespace nestor
