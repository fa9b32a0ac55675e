// x87 transcendental functions: series in 113-bit arithmetic, special operands, exceptions.
//
// Each function first deals with NaNs and unsupported encodings by letting the host add the
// operands, which applies the x87's own NaN rules; then with zeros and infinities by the tables of
// SDM 2A; what remains is finite and nonzero and is computed. Tiny arguments, where a function
// differs from its argument by less than 113 bits can hold, are rounded on the known side.
#include "engine/cpu/x87_math.hpp"

#include <array>
#include <bit>
#include <utility>

#include "engine/cpu/x87_host.hpp"
#include "engine/cpu/x87_quad.hpp"

namespace nestor::cpu::x87 {

namespace {

constexpr Extended one{u64{1} << 63, 0x3fff};
constexpr int tiny_exponent = -40; ///< below it, sin, tan and 1 - cos are next to their arguments

Extended zero(bool sign) { return {0, static_cast<u16>(sign ? 0x8000 : 0)}; }
Extended infinity(bool sign) { return {u64{1} << 63, static_cast<u16>(sign ? 0xffff : 0x7fff)}; }

bool is_zero(const Extended& v) { return v.exponent() == 0 && v.significand == 0; }
bool is_infinite(const Extended& v) {
    return v.exponent() == 0x7fff && v.significand == u64{1} << 63;
}
/// NaN or an encoding that the x87 does not support (SDM 1 8.2.2).
bool is_strange(const Extended& v) {
    return (v.exponent() == 0x7fff && !is_infinite(v)) ||
           (v.exponent() != 0 && (v.significand >> 63) == 0);
}
u16 denormal_flag(const Extended& v) {
    return v.exponent() == 0 && v.significand != 0 ? status::de : u16{0};
}
bool stops(u16 sw, u16 control) { return (sw & ~control & before_result) != 0; }

u16 invalid(Extended& result) {
    result = indefinite;
    return status::ie;
}

Quad magnitude(Quad v) { return v < 0 ? -v : v; }

Quad scale(Quad v, int exponent) {
    const u64 biased = static_cast<u64>(16383 + exponent);
    return v * quad(biased << 48, 0);
}
Quad value(const Scaled& v) { return scale(v.fraction, v.exponent); }

// --- series, for arguments of moderate size
// ---------------------------------------------------------

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

/// exp(v) - 1 for |v| <= 0.7.
Quad exp_minus_one(Quad v) {
    Quad sum = inverse_factorials[33];
    for (unsigned n = 32; n >= 1; --n) {
        sum = inverse_factorials[n] + v * sum;
    }
    return v * sum;
}

/// 2 * atanh(s) / ln 2 for |s| <= 0.18.
Quad log2_of_ratio(Quad s) {
    const Quad z = s * s;
    Quad sum = 0;
    for (unsigned k = 49; k >= 3; k -= 2) {
        sum = z * (inverses[k] + sum);
    }
    return 2 * s * (1 + sum) * quad_log2e;
}

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

/// atan(v) for 0 <= v <= 1.
Quad arctangent(Quad v) {
    const int k = static_cast<int>(v * 16 + Quad(0.5));
    const Quad c = Quad(k) / 16;
    return atan_table[static_cast<unsigned>(k)] + atan_small((v - c) / (1 + v * c));
}

// --- reduction by pi / 2
// ------------------------------------------------------------------------------

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

/// The argument of a trigonometric function, reduced; finite and not tiny, |x| < 2^63.
class Angle final {
public:
    explicit Angle(const Extended& x) : negative_(x.sign()) {
        const Extended positive{x.significand, static_cast<u16>(x.sign_exponent & 0x7fff)};
        if (x.exponent() < 16383 - 1) {
            reduced_ = {0, value(split(positive))};
        } else {
            reduced_ = reduce(positive);
        }
    }
    [[nodiscard]] Quad sin() const {
        const Quad v = in_quadrant(reduced_.quadrant);
        return negative_ ? -v : v;
    }
    [[nodiscard]] Quad cos() const { return in_quadrant(reduced_.quadrant + 1); }

private:
    /// sin(r + quadrant * pi/2)
    [[nodiscard]] Quad in_quadrant(unsigned quadrant) const {
        const Quad r = reduced_.remainder;
        const Quad v = (quadrant & 1) != 0 ? cosine(r) : sine(r);
        return (quadrant & 2) != 0 ? -v : v;
    }

    bool negative_;
    Reduced reduced_{};
};

Extended round_quad(Quad v, u16 control, u16& sw) {
    return round_to_extended(split(v), false, control, sw);
}

/// What FSIN, FCOS, FSINCOS and FPTAN have in common. True: `sw` (and for invalid operands the
/// results) are final.
bool trigonometric_special(const Extended& x, Extended& a, Extended& b, u16& sw) {
    if (is_strange(x)) {
        sw = host_add(x, x, a, control_initial) & before_result;
        b = a;
        return true;
    }
    if (is_infinite(x)) {
        sw = invalid(a);
        b = a;
        return true;
    }
    if (x.exponent() >= 16383 + 63) {
        sw = status::c2;
        return true;
    }
    sw = denormal_flag(x);
    return false;
}

bool is_tiny(const Extended& x) { return x.exponent() < 16383 + tiny_exponent; }

} // namespace

u16 math_sincos(const Extended& x, Extended& sine_result, Extended& cosine_result, u16 control) {
    u16 sw;
    if (trigonometric_special(x, sine_result, cosine_result, sw) || stops(sw, control)) {
        return sw;
    }
    if (is_zero(x)) {
        sine_result = x;
        cosine_result = one;
        return sw;
    }
    if (is_tiny(x)) {
        sine_result = round_near(x, false, control, sw);
        cosine_result = round_near(one, false, control, sw);
    } else {
        const Angle angle(x);
        sine_result = round_quad(angle.sin(), control, sw);
        cosine_result = round_quad(angle.cos(), control, sw);
    }
    return sw & static_cast<u16>(~status::c1);
}

u16 math_sin(const Extended& x, Extended& result, u16 control) {
    u16 sw;
    Extended unused;
    if (trigonometric_special(x, result, unused, sw) || stops(sw, control)) {
        return sw;
    }
    if (is_zero(x)) {
        result = x;
    } else if (is_tiny(x)) {
        result = round_near(x, false, control, sw);
    } else {
        result = round_quad(Angle(x).sin(), control, sw);
    }
    return sw;
}

u16 math_cos(const Extended& x, Extended& result, u16 control) {
    u16 sw;
    Extended unused;
    if (trigonometric_special(x, result, unused, sw) || stops(sw, control)) {
        return sw;
    }
    if (is_zero(x)) {
        result = one;
    } else if (is_tiny(x)) {
        result = round_near(one, false, control, sw);
    } else {
        result = round_quad(Angle(x).cos(), control, sw);
    }
    return sw;
}

u16 math_tan(const Extended& x, Extended& tangent, Extended& one_result, u16 control) {
    u16 sw;
    if (trigonometric_special(x, tangent, one_result, sw) || stops(sw, control)) {
        return sw;
    }
    one_result = one;
    if (is_zero(x)) {
        tangent = x;
    } else if (is_tiny(x)) {
        tangent = round_near(x, true, control, sw);
    } else {
        const Angle angle(x);
        tangent = round_quad(angle.sin() / angle.cos(), control, sw);
    }
    return sw & static_cast<u16>(~status::c1);
}

u16 math_f2xm1(const Extended& x, Extended& result, u16 control) {
    if (is_strange(x)) {
        return host_add(x, x, result, control_initial) & before_result;
    }
    u16 sw = denormal_flag(x);
    if (stops(sw, control)) {
        return sw;
    }
    constexpr Extended minus_half{u64{1} << 63, 0xbffe};
    result = x;
    if (is_zero(x) || x == one) {
        return sw;
    }
    if (x.exponent() >= 16383) {
        if (x.exponent() == 16383 && x.significand == u64{1} << 63) {
            result = minus_half;
        } else if (is_infinite(x)) {
            result = x.sign() ? Extended{u64{1} << 63, 0xbfff} : x;
        } else {
            sw |= status::pe; // out of range: the operand itself
        }
        return sw;
    }
    Scaled v = split(x);
    if (v.exponent < -120) {
        v.fraction *= quad_ln2;
    } else {
        v = split(exp_minus_one(value(v) * quad_ln2));
    }
    result = round_to_extended(v, false, control, sw);
    return sw;
}

namespace {

/// Whether st1 / st0 needs no more than 128 bits.
bool divides(const Extended& st0, const Extended& st1) {
    const u64 divisor = st0.significand << std::countl_zero(st0.significand);
    const u64 dividend = st1.significand << std::countl_zero(st1.significand);
    return (static_cast<u128>(dividend) << 64) % divisor == 0;
}

/// atan of the ratio of two finite nonzero magnitudes, in [0, pi/2], and the directed result.
Extended arctangent_of(const Extended& st0, const Extended& st1, u16 control, u16& sw) {
    Scaled x = split(st0);
    Scaled y = split(st1);
    x.fraction = magnitude(x.fraction);
    y.fraction = magnitude(y.fraction);
    const bool swapped =
        y.exponent > x.exponent || (y.exponent == x.exponent && y.fraction > x.fraction);
    if (swapped) {
        std::swap(x, y);
    }
    Scaled ratio = split(y.fraction / x.fraction);
    ratio.exponent += y.exponent - x.exponent;
    const bool negative = st1.sign();
    if (!swapped && !st0.sign() && ratio.exponent < -56) {
        // atan(t) is t less an amount that the quotient cannot show.
        if (divides(st0, st1)) {
            ratio.fraction -= quad(u64{16383 - 112} << 48, 0);
        }
        ratio.fraction = negative ? -ratio.fraction : ratio.fraction;
        return round_to_extended(ratio, false, control, sw);
    }
    const Quad a = ratio.exponent < -130 ? scale(1, -130) : arctangent(value(ratio));
    Quad angle =
        swapped ? (st0.sign() ? quad_pi / 2 + a : quad_pi / 2 - a) : (st0.sign() ? quad_pi - a : a);
    angle = negative ? -angle : angle;
    return round_quad(angle, control, sw);
}

} // namespace

u16 math_atan(const Extended& st0, const Extended& st1, Extended& result, u16 control) {
    if (is_strange(st0) || is_strange(st1)) {
        return host_add(st0, st1, result, control_initial) & before_result;
    }
    u16 sw = denormal_flag(st0) | denormal_flag(st1);
    if (stops(sw, control)) {
        return sw;
    }
    const bool flat = is_zero(st1) || (is_infinite(st0) && !is_infinite(st1));
    if (flat && !st0.sign()) {
        result = zero(st1.sign());
        return sw;
    }
    Quad angle;
    if (flat) {
        angle = quad_pi;
    } else if (is_infinite(st0)) {
        angle = st0.sign() ? quad_pi * 3 / 4 : quad_pi / 4;
    } else if (is_infinite(st1) || is_zero(st0)) {
        angle = quad_pi / 2;
    } else {
        result = arctangent_of(st0, st1, control, sw);
        return sw;
    }
    result = round_quad(st1.sign() ? -angle : angle, control, sw);
    return sw;
}

namespace {

/// y * log for a finite nonzero y; `log` is not zero.
Extended multiply(const Extended& y, Quad log, bool exact, u16 control, u16& sw) {
    const Scaled a = split(y);
    const Scaled b = split(log);
    return round_to_extended({a.fraction * b.fraction, a.exponent + b.exponent}, exact, control,
                             sw);
}

/// log2 of a positive finite value.
Quad log2_of(Scaled v) {
    Quad m = v.fraction;
    int exponent = v.exponent;
    if (m > Quad(1.4142135)) {
        m /= 2;
        ++exponent;
    }
    return exponent + log2_of_ratio((m - 1) / (m + 1));
}

} // namespace

u16 math_yl2x(const Extended& st0, const Extended& st1, Extended& result, u16 control) {
    if (is_strange(st0) || is_strange(st1)) {
        return host_add(st0, st1, result, control_initial) & before_result;
    }
    u16 sw = denormal_flag(st0) | denormal_flag(st1);
    if (is_zero(st0)) {
        if (is_zero(st1)) {
            return invalid(result);
        }
        result = infinity(!st1.sign());
        return is_infinite(st1) ? u16{0} : status::ze; // before any denormal operand (SDM 1 4.9.2)
    }
    if (st0.sign()) {
        return invalid(result);
    }
    const bool above = st0.exponent() >= 16383;
    const bool is_one = st0 == one;
    if ((is_infinite(st1) && is_one) || (is_zero(st1) && is_infinite(st0))) {
        return invalid(result);
    }
    if (stops(sw, control)) {
        return sw;
    }
    if (is_zero(st1) || is_one) {
        result = zero(st1.sign() == above);
        return sw;
    }
    if (is_infinite(st0) || is_infinite(st1)) {
        result = infinity(st1.sign() == above);
        return sw;
    }
    const Scaled x = split(st0);
    const bool exact = x.fraction == 1;
    result = multiply(st1, exact ? Quad(x.exponent) : log2_of(x), exact, control, sw);
    return sw;
}

u16 math_yl2xp1(const Extended& st0, const Extended& st1, Extended& result, u16 control) {
    if (is_strange(st0) || is_strange(st1)) {
        return host_add(st0, st1, result, control_initial) & before_result;
    }
    u16 sw = denormal_flag(st0) | denormal_flag(st1);
    const bool at_most_minus_one = st0.sign() && st0.exponent() >= 16383;
    if (at_most_minus_one || (is_zero(st0) && is_infinite(st1)) ||
        (is_infinite(st0) && is_zero(st1))) {
        return invalid(result);
    }
    if (stops(sw, control)) {
        return sw;
    }
    const bool negative = st0.sign() != st1.sign();
    if (is_zero(st0) || is_zero(st1)) {
        result = zero(negative);
        return sw;
    }
    if (is_infinite(st0) || is_infinite(st1)) {
        result = infinity(negative);
        return sw;
    }
    const Scaled x = split(st0);
    if (x.exponent < -120) {
        const Scaled y = split(st1);
        result = round_to_extended({x.fraction * quad_log2e * y.fraction, x.exponent + y.exponent},
                                   false, control, sw);
        return sw;
    }
    Quad log;
    if (x.exponent < -2) {
        const Quad v = value(x);
        log = log2_of_ratio(v / (2 + v));
    } else {
        log = x.exponent > 120 ? log2_of(x) : log2_of(split(1 + value(x)));
    }
    result = multiply(st1, log, false, control, sw);
    return sw;
}

} // namespace nestor::cpu::x87
