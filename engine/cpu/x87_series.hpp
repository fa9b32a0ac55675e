// Series and argument reduction in 113 bits, for x87_math.cpp.
#pragma once

#include "engine/cpu/x87_quad.hpp"

namespace nestor::cpu::x87 {

/// v * 2^exponent, for results that are normal.
inline Quad scale(Quad v, int exponent) {
    const u64 biased = static_cast<u64>(16383 + exponent);
    return v * quad(biased << 48, 0);
}
inline Quad value(const Scaled& v) { return scale(v.fraction, v.exponent); }

/// exp(v) - 1 for |v| <= 0.7.
Quad exp_minus_one(Quad v);
/// 2 * atanh(s) / ln 2 for |s| <= 0.18.
Quad log2_of_ratio(Quad s);
/// atan(v) for 0 <= v <= 1.
Quad arctangent(Quad v);

/// The argument of a trigonometric function, reduced by pi/2; finite and not tiny, |x| < 2^63.
class Angle final {
public:
    explicit Angle(const Extended& x);
    [[nodiscard]] Quad sin() const {
        const Quad v = in_quadrant(quadrant_);
        return negative_ ? -v : v;
    }
    [[nodiscard]] Quad cos() const { return in_quadrant(quadrant_ + 1); }

private:
    /// sin(remainder + quadrant * pi/2)
    [[nodiscard]] Quad in_quadrant(unsigned quadrant) const;

    bool negative_;
    unsigned quadrant_ = 0;
    Quad remainder_ = 0; ///< in [-pi/4, pi/4]; not zero
};

} // namespace nestor::cpu::x87
