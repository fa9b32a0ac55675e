// The tables behind RCPPS and RSQRTPS, made at compile time from integers only.
//
// Entries are 13-bit fractions 4096..8191 that stand for a value in [0.5, 1).
#include "engine/cpu/simd_math.hpp"

#include <array>

namespace nestor::cpu {

namespace {

constexpr u32 sign_bit = 0x80000000;
constexpr u32 infinity = 0x7f800000;
constexpr u32 indefinite = 0xffc00000;
constexpr u32 quiet_bit = 0x00400000;

constexpr u64 integer_sqrt(u64 v) {
    u64 r = 0;
    for (u64 bit = u64{1} << 20; bit != 0; bit >>= 1) {
        if ((r + bit) * (r + bit) <= v) {
            r += bit;
        }
    }
    return r;
}

/// 2^13 / y for y in the middle of [1 + k/2048, 1 + (k+1)/2048].
constexpr auto reciprocals = [] {
    std::array<u16, 2048> table{};
    for (u64 k = 0; k < table.size(); ++k) {
        table[k] = static_cast<u16>(((u64{1} << 26) / (4097 + 2 * k) + 1) / 2);
    }
    return table;
}();

/// 2^13 / sqrt(y), y in the middle of [1 + k/1024, ...] and, from entry 1024 on, twice that.
constexpr auto reciprocal_roots = [] {
    std::array<u16, 2048> table{};
    for (u64 k = 0; k < table.size(); ++k) {
        const u64 numerator = u64{1} << (k < 1024 ? 39 : 38);
        table[k] = static_cast<u16>((integer_sqrt(numerator / (2049 + 2 * (k & 1023))) + 1) / 2);
    }
    return table;
}();

static_assert(reciprocals[0] == 8190 && reciprocals[2047] == 4097);
static_assert(reciprocal_roots[0] == 8190 && reciprocal_roots[2047] == 4097);

/// A table entry times 2^exponent (biased) as a single; zero when tiny.
u32 assemble(u32 sign, int exponent, u16 entry) {
    if (exponent <= 0) {
        return sign;
    }
    return sign | static_cast<u32>(exponent) << 23 | static_cast<u32>(entry - 4096) << 11;
}

bool is_nan(u32 x) { return (x & ~sign_bit) > infinity; }

} // namespace

u32 approximate_reciprocal(u32 x) {
    const u32 sign = x & sign_bit;
    const int exponent = static_cast<int>(x >> 23 & 0xff);
    if (is_nan(x)) {
        return x | quiet_bit;
    }
    if (exponent == 0) {
        return sign | infinity;
    }
    if (exponent == 0xff) {
        return sign;
    }
    // 1/x has exponent -(e - 127), and the entry's own weight is 2^-1.
    return assemble(sign, 253 - exponent, reciprocals[x >> 12 & 2047]);
}

u32 approximate_reciprocal_sqrt(u32 x) {
    const u32 sign = x & sign_bit;
    const int exponent = static_cast<int>(x >> 23 & 0xff);
    if (is_nan(x)) {
        return x | quiet_bit;
    }
    if (exponent == 0) {
        return sign | infinity;
    }
    if (sign != 0) {
        return indefinite;
    }
    if (exponent == 0xff) {
        return 0;
    }
    const int e = exponent - 127;
    const u32 odd = static_cast<u32>(e) & 1;
    const int half = (e - static_cast<int>(odd)) / 2;
    return assemble(0, 126 - half, reciprocal_roots[odd << 10 | (x >> 13 & 1023)]);
}

} // namespace nestor::cpu
