// What a snapshot costs: of its own, and together with others.
#include <gtest/gtest.h>

#include "tests/snapshot/machine.hpp"

namespace nestor::snapshot::testing {
namespace {

constexpr u32 common = 40;
constexpr u32 own = 20;

/// 40 pages common to all and 20 of its own, in incompressible bytes.
Machine noise_machine(u32 n) {
    Machine machine = Machine::blank(300);
    std::mt19937_64 shared(0);
    std::mt19937_64 random(n);
    for (u32 i = 0; i < common; ++i) {
        machine.fill_noise(0, i, shared);
    }
    for (u32 i = 0; i < own; ++i) {
        machine.fill_noise(0, 100 + i, random);
    }
    return machine;
}

class SizesTest : public ::testing::Test {
protected:
    SnapshotSize size_of(const std::string& tag) {
        const auto sizes = store_.sizes(tag);
        EXPECT_TRUE(sizes) << sizes.error().message;
        EXPECT_EQ(sizes->size(), 1U);
        return sizes->empty() ? SnapshotSize{} : sizes->front();
    }

    TempDir dir_{true};
    Store store_ = make_store(dir_ / "store");
};

TEST_F(SizesTest, ALoneSnapshotSharesNothing) {
    ASSERT_TRUE(save(store_, noise_machine(1), "one"));
    const SnapshotSize size = size_of("one");
    EXPECT_EQ(size.logical_bytes, 300 * page_size);
    EXPECT_EQ(size.nonzero_pages, common + own);
    EXPECT_EQ(size.distinct_pages, common + own);
    EXPECT_GE(size.unique_bytes, (common + own) * page_size);
    EXPECT_EQ(size.shared_bytes, 0U);
}

TEST_F(SizesTest, WhatSnapshotsHaveInCommonIsShared) {
    ASSERT_TRUE(save(store_, noise_machine(1), "one"));
    ASSERT_TRUE(save(store_, noise_machine(2), "two"));
    for (const char* const tag : {"one", "two"}) {
        const SnapshotSize size = size_of(tag);
        EXPECT_GE(size.shared_bytes, common * page_size) << tag;
        EXPECT_GE(size.unique_bytes, own * page_size) << tag;
        EXPECT_LT(size.unique_bytes, (own + 4) * page_size) << tag;
    }
    EXPECT_EQ(store_.sizes()->size(), 2U);
    ASSERT_TRUE(store_.remove("two"));
    EXPECT_EQ(size_of("one").shared_bytes, 0U);
}

TEST_F(SizesTest, TwoTagsOfOneSnapshotShareAllOfIt) {
    ASSERT_TRUE(save(store_, noise_machine(1), "one"));
    ASSERT_TRUE(store_.tag("one", "same"));
    EXPECT_EQ(size_of("one").unique_bytes, 0U);
    EXPECT_GE(size_of("same").shared_bytes, (common + own) * page_size);
}

TEST_F(SizesTest, APageThatIsThereOftenIsStoredOnce) {
    Machine machine = Machine::blank(4000);
    std::mt19937_64 random(3);
    for (u32 i = 0; i < 4000; ++i) {
        std::mt19937_64 same = random;
        machine.fill_noise(0, i, same);
    }
    ASSERT_TRUE(save(store_, machine, "one"));
    const SnapshotSize size = size_of("one");
    EXPECT_EQ(size.nonzero_pages, 4000U);
    EXPECT_EQ(size.distinct_pages, 1U);
    EXPECT_LT(size.unique_bytes, 16 * page_size);
}

TEST_F(SizesTest, GcAndStatSayTheSameOfTheStore) {
    ASSERT_TRUE(save(store_, noise_machine(1), "one"));
    ASSERT_TRUE(save(store_, noise_machine(2), "two"));
    ASSERT_TRUE(store_.remove("two"));
    const StoreStat before = *store_.stat();
    const SnapshotSize one = size_of("one");
    const auto collected = store_.gc();
    ASSERT_TRUE(collected) << collected.error().message;
    EXPECT_EQ(collected->bytes_before, before.pack_bytes);
    EXPECT_EQ(collected->bytes_after, store_.stat()->pack_bytes);
    EXPECT_LT(collected->bytes_after, collected->bytes_before);
    EXPECT_EQ(collected->live_bytes, one.unique_bytes);
    const SnapshotSize after = size_of("one");
    // A record's head belongs to those that are left in it.
    EXPECT_GE(after.unique_bytes, one.unique_bytes);
    EXPECT_LT(after.unique_bytes, collected->bytes_after);
    EXPECT_EQ(store_.gc()->live_bytes, after.unique_bytes);
}

TEST_F(SizesTest, NoSuchTagIsAnError) {
    ASSERT_TRUE(save(store_, noise_machine(1), "one"));
    EXPECT_EQ(store_.sizes("other").error().code, ErrorCode::failed);
}

} // namespace
} // namespace nestor::snapshot::testing
