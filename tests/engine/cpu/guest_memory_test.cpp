// The page mechanism: who is told of writes, and what take_written() sees.
#include "engine/cpu/guest_memory.hpp"

#include <gtest/gtest.h>

#include <array>

namespace nestor::cpu {
namespace {

class GuestMemoryTest : public testing::Test, public GuestMemory::Watcher {
protected:
    GuestMemoryTest() {
        memory_.add_region({Gpa(0), low_.size(), low_.data(), low_state_.data()});
        memory_.add_region({high_, high_bytes_.size(), high_bytes_.data(), high_state_.data()});
        memory_.set_watcher(this);
    }
    void before_write(Gpa, const u8*, unsigned) override { ++told_; }
    void drop_fast_paths(Gfn page) override { dropped_.push_back(page.value()); }
    void drop_all_fast_paths() override { ++dropped_all_; }

    MemoryStatus write(u64 address, std::size_t size = 1) {
        const std::vector<u8> bytes(size, 0x5a);
        return memory_.write(Gpa(address), bytes);
    }
    std::vector<std::pair<u64, u64>> written() {
        std::vector<std::pair<u64, u64>> runs;
        for (const PageRun& run : memory_.take_written()) {
            runs.emplace_back(run.first.value(), run.count);
        }
        return runs;
    }

    using Runs = std::vector<std::pair<u64, u64>>;
    static constexpr u64 low_pages = 37;
    static constexpr Gpa high_{u64{4} << 30};
    std::vector<u8> low_ = std::vector<u8>(low_pages << page_shift);
    std::vector<u8> high_bytes_ = std::vector<u8>(3 << page_shift);
    std::array<u8, low_pages> low_state_{};
    std::array<u8, 3> high_state_{};
    GuestMemory memory_;
    unsigned told_ = 0;
    std::vector<u64> dropped_;
    unsigned dropped_all_ = 0;
};

TEST_F(GuestMemoryTest, EveryPageCountsAsWrittenAtFirst) {
    EXPECT_EQ(written(), (Runs{{0, low_pages}, {gfn_of(high_).value(), 3}}));
    EXPECT_EQ(written(), Runs{});
}

TEST_F(GuestMemoryTest, OnlyPagesWrittenSinceAreTaken) {
    (void)written();
    EXPECT_EQ(write(5 << page_shift), MemoryStatus::ok);
    EXPECT_EQ(write((8 << page_shift) - 1, 2), MemoryStatus::ok);
    EXPECT_EQ(write(36 << page_shift), MemoryStatus::ok);
    EXPECT_EQ(write(high_.value() + 2 * page_size), MemoryStatus::ok);
    EXPECT_EQ(written(), (Runs{{5, 1}, {7, 2}, {36, 1}, {gfn_of(high_).value() + 2, 1}}));
    EXPECT_EQ(written(), Runs{});
}

TEST_F(GuestMemoryTest, ManyPagesDropFastPathsOnceAndFewDropThemSingly) {
    (void)written();
    EXPECT_EQ(dropped_all_, 1u);
    EXPECT_TRUE(dropped_.empty());
    (void)write(5 << page_shift);
    (void)write(9 << page_shift);
    (void)written();
    EXPECT_EQ(dropped_all_, 1u);
    EXPECT_EQ(dropped_, (std::vector<u64>{5, 9}));
}

TEST_F(GuestMemoryTest, AFrozenPageHoldsAWriteUpUntilItIsThawed) {
    (void)written();
    (void)write(3 << page_shift);
    const auto runs = memory_.take_written();
    ASSERT_EQ(runs.size(), 1u);
    memory_.freeze(runs);
    EXPECT_EQ(dropped_all_, 2u);
    low_[3 << page_shift] = 1;
    EXPECT_EQ(write(3 << page_shift), MemoryStatus::copy_needed);
    EXPECT_EQ(low_[3 << page_shift], 1);
    EXPECT_EQ(write(4 << page_shift), MemoryStatus::ok);
    memory_.thaw(runs);
    EXPECT_EQ(write(3 << page_shift), MemoryStatus::ok);
    EXPECT_EQ(written(), (Runs{{3, 2}}));
}

TEST_F(GuestMemoryTest, AnAbsentCleanPageIsNotTaken) {
    low_state_.fill(page_state::clean | page_state::absent);
    high_state_.fill(page_state::clean);
    EXPECT_EQ(write(3 << page_shift), MemoryStatus::page_needed);
    EXPECT_EQ(written(), Runs{});
}

TEST_F(GuestMemoryTest, OtherBitsStayWhenAPageIsTaken) {
    low_state_[2] = page_state::code;
    (void)written();
    EXPECT_EQ(low_state_[2], page_state::code | page_state::clean);
    EXPECT_EQ(write(2 << page_shift), MemoryStatus::ok);
    EXPECT_EQ(told_, 1u);
    EXPECT_EQ(low_state_[2], page_state::code);
}

} // namespace
} // namespace nestor::cpu
