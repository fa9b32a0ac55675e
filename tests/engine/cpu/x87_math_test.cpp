// Transcendental functions against MPFR: within 0.501 ulp, rounded as RC asks, flags and C1 right.
#include "engine/cpu/x87_math.hpp"

#include <cmath>
#include <functional>

#include <gtest/gtest.h>
#include <mpfr.h>

#include "tests/engine/cpu/simd_forms.hpp"

namespace nestor::cpu::x87 {

namespace {

using test::SplitMix;

class Real final {
public:
    Real() { mpfr_init2(v, 400); }
    ~Real() { mpfr_clear(v); }
    Real(const Real&) = delete;
    Real& operator=(const Real&) = delete;
    mpfr_t v;
};

void set(Real& r, const Extended& x) {
    mpfr_set_uj(r.v, x.significand, MPFR_RNDN);
    const int biased = x.exponent() == 0 ? 1 : x.exponent();
    mpfr_mul_2si(r.v, r.v, biased - 16383 - 63, MPFR_RNDN);
    if (x.sign()) {
        mpfr_neg(r.v, r.v, MPFR_RNDN);
    }
}

/// What a value rounds to, exponent unbounded; normal results only.
Extended rounded(const Real& r, unsigned rc, bool& up) {
    static constexpr mpfr_rnd_t modes[] = {MPFR_RNDN, MPFR_RNDD, MPFR_RNDU, MPFR_RNDZ};
    mpfr_t v;
    mpfr_init2(v, 64);
    const int ternary = mpfr_set(v, r.v, modes[rc]);
    const bool negative = mpfr_signbit(v) != 0;
    up = negative ? ternary < 0 : ternary > 0;
    const long exponent = mpfr_get_exp(v);
    mpfr_abs(v, v, MPFR_RNDN);
    mpfr_mul_2si(v, v, 64 - exponent, MPFR_RNDN);
    const Extended e{mpfr_get_uj(v, MPFR_RNDN),
                     static_cast<u16>((negative ? 0x8000 : 0) | (exponent - 1 + 16383))};
    mpfr_clear(v);
    return e;
}

Extended random_value(SplitMix& random, int lowest, int highest) {
    const int exponent =
        lowest + static_cast<int>(random.below(static_cast<u64>(highest - lowest + 1)));
    u64 significand = random.next() | u64{1} << 63;
    if (random.below(4) == 0) {
        significand &= ~u64{0} << random.below(64);
    }
    return {significand | u64{1} << 63,
            static_cast<u16>((random.below(2) << 15) | static_cast<unsigned>(exponent + 16383))};
}

constexpr int rounds = 4000;
constexpr u16 control_for(unsigned rc) { return static_cast<u16>(0x37f | rc << 10); }

using Reference = std::function<void(Real&, const Real&)>;

void check_unary(u16 (*function)(const Extended&, Extended&, u16), const Reference& reference,
                 int lowest, int highest) {
    SplitMix random(static_cast<u64>(highest));
    for (int n = 0; n < rounds; ++n) {
        const Extended x = random_value(random, lowest, highest);
        const unsigned rc = random.below(4);
        Real in;
        Real out;
        set(in, x);
        reference(out, in);
        bool up;
        const Extended expected = rounded(out, rc, up);
        Extended result;
        const u16 sw = function(x, result, control_for(rc));
        ASSERT_EQ(result.significand, expected.significand)
            << std::hex << x.sign_exponent << ":" << x.significand << " rc " << rc;
        ASSERT_EQ(result.sign_exponent, expected.sign_exponent);
        ASSERT_EQ(sw, status::pe | (up ? status::c1 : 0));
    }
}

void check_binary(u16 (*function)(const Extended&, const Extended&, Extended&, u16),
                  const std::function<void(Real&, const Real&, const Real&)>& reference,
                  const std::function<void(Extended&, SplitMix&)>& restrict_x) {
    SplitMix random(7);
    for (int n = 0; n < rounds; ++n) {
        Extended x = random_value(random, -70, 70);
        const Extended y = random_value(random, -70, 70);
        restrict_x(x, random);
        const unsigned rc = random.below(4);
        Real in_x;
        Real in_y;
        Real out;
        set(in_x, x);
        set(in_y, y);
        reference(out, in_x, in_y);
        bool up;
        const Extended expected = rounded(out, rc, up);
        Extended result;
        function(x, y, result, control_for(rc));
        ASSERT_EQ(result, expected)
            << std::hex << x.sign_exponent << ":" << x.significand << ", " << y.sign_exponent << ":"
            << y.significand << " rc " << rc << " got " << result.sign_exponent << ":"
            << result.significand << " not " << expected.sign_exponent << ":"
            << expected.significand;
    }
}

TEST(X87Math, SineIsRoundedFromTheExactValue) {
    const auto f = [](Real& out, const Real& in) { mpfr_sin(out.v, in.v, MPFR_RNDN); };
    check_unary(math_sin, f, -80, 62);
    check_unary(math_sin, f, -3, 5);
}

TEST(X87Math, CosineIsRoundedFromTheExactValue) {
    const auto f = [](Real& out, const Real& in) { mpfr_cos(out.v, in.v, MPFR_RNDN); };
    check_unary(math_cos, f, -80, 62);
    check_unary(math_cos, f, -3, 5);
}

TEST(X87Math, TangentIsRoundedFromTheExactValue) {
    SplitMix random(3);
    for (int n = 0; n < rounds; ++n) {
        const Extended x = random_value(random, -70, 62);
        Real in;
        Real out;
        set(in, x);
        mpfr_tan(out.v, in.v, MPFR_RNDN);
        bool up;
        const Extended expected = rounded(out, n & 3, up);
        Extended result;
        Extended one;
        math_tan(x, result, one, control_for(n & 3));
        ASSERT_EQ(result, expected) << std::hex << x.sign_exponent << ":" << x.significand;
    }
}

TEST(X87Math, MultiplesOfHalfPiKeepTheirPrecision) {
    // The extended values nearest to n * pi/2: the worst cases of the reduction.
    for (unsigned n = 1; n < 3000; ++n) {
        Real multiple;
        mpfr_const_pi(multiple.v, MPFR_RNDN);
        mpfr_mul_ui(multiple.v, multiple.v, n, MPFR_RNDN);
        mpfr_div_2ui(multiple.v, multiple.v, 1, MPFR_RNDN);
        bool up;
        const Extended x = rounded(multiple, 0, up);
        Real in;
        Real out;
        set(in, x);
        mpfr_sin(out.v, in.v, MPFR_RNDN);
        const Extended expected = rounded(out, 0, up);
        Extended result;
        math_sin(x, result, control_for(0));
        ASSERT_EQ(result, expected) << n;
    }
}

TEST(X87Math, F2xm1IsRoundedFromTheExactValue) {
    check_unary(
        math_f2xm1,
        [](Real& out, const Real& in) {
            Real ln2;
            mpfr_const_log2(ln2.v, MPFR_RNDN);
            mpfr_mul(ln2.v, ln2.v, in.v, MPFR_RNDN);
            mpfr_expm1(out.v, ln2.v, MPFR_RNDN);
        },
        -200, -1);
}

TEST(X87Math, ArctangentIsRoundedFromTheExactValue) {
    check_binary(
        math_atan,
        [](Real& out, const Real& x, const Real& y) { mpfr_atan2(out.v, y.v, x.v, MPFR_RNDN); },
        [](Extended&, SplitMix&) {});
}

TEST(X87Math, Fyl2xIsRoundedFromTheExactValue) {
    check_binary(
        math_yl2x,
        [](Real& out, const Real& x, const Real& y) {
            mpfr_log2(out.v, x.v, MPFR_RNDN);
            mpfr_mul(out.v, out.v, y.v, MPFR_RNDN);
        },
        [](Extended& x, SplitMix& random) {
            x.sign_exponent &= 0x7fff;
            if (random.below(3) == 0) { // close to one, on both sides
                x = random.below(2) != 0 ? Extended{u64{1} << 63 | random.next() >> 30, 0x3fff}
                                         : Extended{~(random.next() >> 30), 0x3ffe};
            }
        });
}

TEST(X87Math, Fyl2xp1IsRoundedFromTheExactValue) {
    check_binary(
        math_yl2xp1,
        [](Real& out, const Real& x, const Real& y) {
            Real ln2;
            mpfr_log1p(out.v, x.v, MPFR_RNDN);
            mpfr_const_log2(ln2.v, MPFR_RNDN);
            mpfr_div(out.v, out.v, ln2.v, MPFR_RNDN);
            mpfr_mul(out.v, out.v, y.v, MPFR_RNDN);
        },
        [](Extended& x, SplitMix& random) { x = random_value(random, -160, -3); });
}

TEST(X87Math, OperandsOutOfRangeSetC2) {
    Extended result{1, 2};
    EXPECT_EQ(math_sin({u64{1} << 63, 16383 + 63}, result, 0x37f), status::c2);
    EXPECT_EQ(result, (Extended{1, 2}));
}

TEST(X87Math, InfinitiesOfTrigonometricFunctionsAreInvalid) {
    Extended result;
    EXPECT_EQ(math_cos({u64{1} << 63, 0x7fff}, result, 0x37f), status::ie);
    EXPECT_EQ(result, indefinite);
}

TEST(X87Math, LogarithmOfZeroDividesByZero) {
    Extended result;
    EXPECT_EQ(math_yl2x({0, 0}, {u64{1} << 63, 0x3fff}, result, 0x37f), status::ze);
    EXPECT_EQ(result, (Extended{u64{1} << 63, 0xffff}));
}

TEST(X87Math, PowersOfTwoHaveExactLogarithms) {
    Extended result;
    EXPECT_EQ(math_yl2x({u64{1} << 63, 16383 + 10}, {u64{3} << 62, 0x3fff}, result, 0x37f), 0);
    EXPECT_EQ(result, (Extended{u64{0xf} << 60, 16383 + 3})) << "1.5 * 10";
}

TEST(X87Math, DenormalResultsUnderflow) {
    Extended result;
    const Extended smallest_normal{u64{1} << 63, 1};
    EXPECT_EQ(math_f2xm1(smallest_normal, result, 0x37f) & status::exceptions,
              status::ue | status::pe);
    EXPECT_EQ(result.exponent(), 0);
}

} // namespace

} // namespace nestor::cpu::x87
