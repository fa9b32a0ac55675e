// Hosts that lack SIMD which guests are offered are refused, with what they lack.
#include "engine/hypervisor/host_simd.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/hypervisor/cpu_offer.hpp"

namespace nestor::hv {
namespace {

using arch::CpuidWord;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

HostProcessor everything() {
    HostProcessor host;
    host.words.fill(~u32{0});
    host.xcr0 = 7;
    return host;
}

u32 engine_word(CpuidWord word) { return engine_offer().features[static_cast<std::size_t>(word)]; }

constexpr u32 avx2 = u32{1} << 5;
constexpr auto word_7 = static_cast<std::size_t>(CpuidWord::leaf_7_ebx);

TEST(HostSimd, AHostThatHasAllIsAccepted) {
    EXPECT_TRUE(check_simd(everything()));
    EXPECT_EQ(offered_word(everything(), CpuidWord::leaf_7_ebx),
              engine_word(CpuidWord::leaf_7_ebx));
}

TEST(HostSimd, ThisHostRunsTheTests) { EXPECT_THAT(simd_lacking(this_processor()), ElementsAre()); }

TEST(HostSimd, WhatIsLackingIsNamedAndTheRemedyTold) {
    HostProcessor host = everything();
    host.words[word_7] &= ~(avx2 | u32{1} << 29);
    const auto refused = check_simd(host);
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, ErrorCode::incompatible);
    EXPECT_EQ(refused.error().message, "this host's processor lacks avx2, sha");
    EXPECT_THAT(refused.error().remedy, HasSubstr("x86-64-v3"));
}

TEST(HostSimd, WhatIsLackingIsNotOffered) {
    HostProcessor host = everything();
    host.words[word_7] &= ~avx2;
    EXPECT_EQ(offered_word(host, CpuidWord::leaf_7_ebx),
              engine_word(CpuidWord::leaf_7_ebx) & ~avx2);
    EXPECT_EQ(offered_word(host, CpuidWord::leaf_1_edx), engine_word(CpuidWord::leaf_1_edx));
}

TEST(HostSimd, ASystemThatDoesNotSwitchYmmRegistersLacksAvx) {
    HostProcessor host = everything();
    host.xcr0 = 3;
    EXPECT_THAT(simd_lacking(host), ElementsAre("fma", "avx", "f16c", "avx2"));
}

TEST(HostSimd, FeaturesOfTheEnginesOwnCodeAreNotAskedOfTheHost) {
    HostProcessor host = everything();
    host.words[word_7] &= ~(u32{1} << 3 | u32{1} << 8 | u32{1} << 19); // BMI1, BMI2, ADX
    EXPECT_TRUE(check_simd(host));
}

} // namespace
} // namespace nestor::hv
