// x87 transcendental functions: special operands, exceptions, rounding.
//
// Each function first deals with NaNs and unsupported encodings by letting the host add the
// operands, which applies the x87's own NaN rules; then with zeros and infinities by the tables of
// SDM 2A; what remains is finite and nonzero and is computed. Tiny arguments, where a function
// differs from its argument by less than 113 bits can hold, are rounded on the known side.
#include "engine/cpu/x87_math.hpp"

#include <bit>
#include <utility>

#include "engine/cpu/x87_host.hpp"
#include "engine/cpu/x87_series.hpp"

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
