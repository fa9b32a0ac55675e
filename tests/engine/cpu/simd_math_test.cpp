// RCPPS and RSQRTPS: the architectural error bound, special operands, monotony of the table.
#include "engine/cpu/simd_math.hpp"

#include <bit>
#include <cmath>

#include <gtest/gtest.h>

namespace nestor::cpu {

namespace {

constexpr double bound = 1.5 / 4096;

float reciprocal(float x) {
    return std::bit_cast<float>(approximate_reciprocal(std::bit_cast<u32>(x)));
}
float root(float x) {
    return std::bit_cast<float>(approximate_reciprocal_sqrt(std::bit_cast<u32>(x)));
}

TEST(SimdMath, ReciprocalsKeepTheErrorBoundForEverySignificand) {
    for (u32 m = 0; m < 1u << 23; m += 7) {
        const float x = std::bit_cast<float>(0x3f800000 | m);
        ASSERT_LE(std::abs(double{reciprocal(x)} * x - 1), bound) << x;
    }
}

TEST(SimdMath, ReciprocalRootsKeepTheErrorBoundForBothParities) {
    for (u32 m = 0; m < 1u << 24; m += 7) {
        const float x = std::bit_cast<float>(0x3f800000 + m);
        ASSERT_LE(std::abs(double{root(x)} * std::sqrt(double{x}) - 1), bound) << x;
    }
}

TEST(SimdMath, TheKnownValueOfIntelProcessorsForOne) {
    EXPECT_EQ(approximate_reciprocal(0x3f800000), 0x3f7ff000u);
    EXPECT_EQ(approximate_reciprocal_sqrt(0x3f800000), 0x3f7ff000u);
}

TEST(SimdMath, ExponentsScale) {
    for (int e = -120; e <= 120; ++e) {
        EXPECT_EQ(reciprocal(std::ldexp(1.3f, e)), std::ldexp(reciprocal(1.3f), -e));
        EXPECT_EQ(root(std::ldexp(1.3f, 2 * (e / 2))), std::ldexp(root(1.3f), -(e / 2)));
    }
}

TEST(SimdMath, SpecialOperandsOfReciprocal) {
    EXPECT_EQ(approximate_reciprocal(0), 0x7f800000u);
    EXPECT_EQ(approximate_reciprocal(0x80000000), 0xff800000u);
    EXPECT_EQ(approximate_reciprocal(0x807fffff), 0xff800000u) << "denormals count as zero";
    EXPECT_EQ(approximate_reciprocal(0x7f800000), 0u);
    EXPECT_EQ(approximate_reciprocal(0xff800000), 0x80000000u);
    EXPECT_EQ(approximate_reciprocal(0x7f000001), 0u) << "tiny results are zero";
    EXPECT_EQ(approximate_reciprocal(0x7fa00001), 0x7fe00001u) << "NaNs become quiet";
}

TEST(SimdMath, SpecialOperandsOfReciprocalRoot) {
    EXPECT_EQ(approximate_reciprocal_sqrt(0), 0x7f800000u);
    EXPECT_EQ(approximate_reciprocal_sqrt(0x80000001), 0xff800000u);
    EXPECT_EQ(approximate_reciprocal_sqrt(0xbf800000), 0xffc00000u);
    EXPECT_EQ(approximate_reciprocal_sqrt(0xff800000), 0xffc00000u);
    EXPECT_EQ(approximate_reciprocal_sqrt(0x7f800000), 0u);
    EXPECT_EQ(approximate_reciprocal_sqrt(0xff812345), 0xffc12345u);
}

} // namespace

} // namespace nestor::cpu
