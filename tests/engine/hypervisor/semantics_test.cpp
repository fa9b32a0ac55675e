// Engine semantics: the table, and who has to ask it.
#include "engine/hypervisor/semantics.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace nestor::hv {
namespace {

using testing::HasSubstr;
using testing::Not;

TEST(Semantics, NumbersFollowEachOtherFromOne) {
    u32 expected = 0;
    for (const SemanticsChange& change : semantics_changes) {
        EXPECT_EQ(change.number, ++expected);
        EXPECT_FALSE(change.since.empty() || change.what.empty()) << change.number;
    }
    EXPECT_EQ(engine_semantics, expected);
}

TEST(Semantics, WhatAReleaseMeantStays) {
    EXPECT_EQ(semantics_changes[0].since, "0.1.0");
    EXPECT_THAT(std::string(semantics_changes[1].what), HasSubstr("retires before an interrupt"));
}

TEST(Semantics, WhatChangedSinceIsTold) {
    EXPECT_EQ(changed_since(engine_semantics), "");
    EXPECT_EQ(changed_since(engine_semantics + 1), "");
    EXPECT_THAT(changed_since(1), HasSubstr("2: " + std::string(semantics_changes[1].what)));
    EXPECT_THAT(changed_since(1), Not(HasSubstr("first release")));
}

TEST(Semantics, TheSameRunNeedsTheSameNumber) {
    EXPECT_TRUE(same_semantics(engine_semantics));
    for (const u32 other : {u32{0}, engine_semantics - 1, engine_semantics + 1, ~u32{0}}) {
        const auto refused = same_semantics(other);
        ASSERT_FALSE(refused) << other;
        EXPECT_EQ(refused.error().code, ErrorCode::incompatible);
        EXPECT_FALSE(refused.error().remedy.empty());
    }
    EXPECT_THAT(same_semantics(1).error().message, HasSubstr(changed_since(1)));
}

} // namespace
} // namespace nestor::hv
