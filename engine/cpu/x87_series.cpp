// Power series for the x87's transcendental functions, and reduction by pi / 2.
//
// Coefficients are made at compile time. What has to be exact is the reduction: an argument of 64
// bits can be so close to a multiple of pi / 2 that 66 bits cancel, so the product with 2 / pi is
// taken with 320 bits.
#include "engine/cpu/x87_series.hpp"

#include <array>
#include <bit>

namespace nestor::cpu::x87 {

namespace {

constexpr unsigned terms = 40;

/// 1 / n!
constexpr auto inverse_factorials = [] {
    std::array<Quad, terms> table{};
    Quad factorial = 1;
    for (unsigned n = 0; n < terms; ++n) {
        factorial *= n == 0 ? 1 : Quad(n);
        table[n] = 1 / factorial;
    }
    return table;
}();

/// 1 / n, n odd; entry 0 is not used.
constexpr auto inverses = [] {
    std::array<Quad, 52> table{};
    for (unsigned n = 1; n < table.size(); ++n) {
        table[n] = 1 / Quad(n);
    }
    return table;
}();

/// first - z * second + ... over every other inverse factorial from `from` on.
Quad alternating(Quad z, unsigned from, unsigned last) {
    Quad sum = inverse_factorials[last];
    for (unsigned n = last; n > from; n -= 2) {
        sum = inverse_factorials[n - 2] - z * sum;
    }
    return sum;
}

/// sin(r) and cos(r) for |r| <= pi/4.
Quad sine(Quad r) { return r * alternating(r * r, 1, 31); }
Quad cosine(Quad r) { return alternating(r * r, 0, 30); }

/// atan(v) for |v| <= 1/32, by its power series; for larger ones by Euler's, which is slower.
constexpr Quad atan_small(Quad v) {
    const Quad z = v * v;
    Quad sum = 0;
    for (unsigned k = 25; k >= 3; k -= 2) {
        sum = z * (inverses[k] - sum);
    }
    return v * (1 - sum);
}
constexpr Quad atan_euler(Quad v) {
    const Quad ratio = v * v / (1 + v * v);
    Quad sum = 1;
    for (int k = 125; k >= 1; --k) {
        sum = 1 + sum * ratio * (2 * k) / (2 * k + 1);
    }
    return v / (1 + v * v) * sum;
}

/// atan(k / 16).
constexpr auto atan_table = [] {
    std::array<Quad, 17> table{};
    for (int k = 0; k <= 16; ++k) {
        table[static_cast<unsigned>(k)] = atan_euler(Quad(k) / 16);
    }
    return table;
}();

struct Reduced {
    unsigned quadrant = 0;
    Quad remainder = 0; ///< in [-pi/4, pi/4]; not zero
};

/// x = quadrant * pi/2 + remainder for |x| < 2^63, from the product with 320 bits of 2/pi.
Reduced reduce(const Extended& x) {
    static constexpr u64 two_over_pi[5] = {0xb7246e3a424dd2e0, 0xfe5163abdebbc561,
                                           0xdb6295993c439041, 0xfc2757d1f534ddc0,
                                           0xa2f9836e4e441529};
    const int exponent = x.exponent() - 16383;
    u64 product[6] = {};
    u64 carry = 0;
    for (unsigned i = 0; i < 5; ++i) {
        const u128 p = static_cast<u128>(x.significand) * two_over_pi[i] + carry;
        product[i] = static_cast<u64>(p);
        carry = static_cast<u64>(p >> 64);
    }
    product[5] = carry;
    // The point lies 320 + 63 - exponent bits from the right; move it to 384 bits, dropping what is
    // above quadrants: afterwards product[] is the fraction.
    const unsigned left = static_cast<unsigned>(exponent + 1); // 0 for exponent -1
    const auto bit_at = [&](unsigned from_top) -> unsigned {
        return static_cast<unsigned>(product[5 - from_top / 64] >> (63 - from_top % 64) & 1);
    };
    unsigned quadrant = 0;
    if (left >= 1) {
        quadrant |= bit_at(left - 1);
    }
    if (left >= 2) {
        quadrant |= bit_at(left - 2) << 1;
    }
    u64 fraction[6];
    for (unsigned i = 6; i-- > 0;) {
        const u64 low = i > 0 ? product[i - 1] : 0;
        fraction[i] = left == 0 ? product[i] : product[i] << left | low >> (64 - left);
    }
    // To the nearest multiple: a fraction of one half or more counts back from the next quadrant.
    const bool negative = (fraction[5] >> 63) != 0;
    if (negative) {
        ++quadrant;
        for (u64& word : fraction) {
            word = ~word;
        }
    }
    unsigned top = 5;
    int down = 0;
    while (top > 2 && fraction[top] == 0) {
        --top;
        down += 64;
    }
    const int zeros = std::countl_zero(fraction[top]);
    u128 significand = static_cast<u128>(fraction[top]) << 64 | fraction[top - 1];
    if (zeros != 0) {
        significand = significand << zeros | fraction[top - 2] >> (64 - zeros);
    }
    const u128 bits = static_cast<u128>(16383 - 1 - down - zeros) << 112 | (significand << 1 >> 16);
    const Quad r = __builtin_bit_cast(Quad, bits) * (quad_pi / 2);
    return {quadrant & 3, negative ? -r : r};
}

} // namespace

Quad exp_minus_one(Quad v) {
    Quad sum = inverse_factorials[33];
    for (unsigned n = 32; n >= 1; --n) {
        sum = inverse_factorials[n] + v * sum;
    }
    return v * sum;
}

Quad log2_of_ratio(Quad s) {
    const Quad z = s * s;
    Quad sum = 0;
    for (unsigned k = 49; k >= 3; k -= 2) {
        sum = z * (inverses[k] + sum);
    }
    return 2 * s * (1 + sum) * quad_log2e;
}

Quad arctangent(Quad v) {
    const int k = static_cast<int>(v * 16 + Quad(0.5));
    const Quad c = Quad(k) / 16;
    return atan_table[static_cast<unsigned>(k)] + atan_small((v - c) / (1 + v * c));
}

Angle::Angle(const Extended& x) : negative_(x.sign()) {
    const Extended positive{x.significand, static_cast<u16>(x.sign_exponent & 0x7fff)};
    if (x.exponent() < 16383 - 1) {
        remainder_ = value(split(positive));
    } else {
        const Reduced r = reduce(positive);
        quadrant_ = r.quadrant;
        remainder_ = r.remainder;
    }
}

Quad Angle::in_quadrant(unsigned quadrant) const {
    const Quad v = (quadrant & 1) != 0 ? cosine(remainder_) : sine(remainder_);
    return (quadrant & 2) != 0 ? -v : v;
}

} // namespace nestor::cpu::x87
