// Frozen pages: what a save reads while the machine writes.
#include "src/control/frozen_pages.hpp"

#include <gtest/gtest.h>

#include <thread>

namespace nestor::control {
namespace {

using namespace std::chrono_literals;

class FrozenPagesTest : public testing::Test {
protected:
    FrozenPagesTest() {
        memory_.add_region({Gpa(0), bytes_.size(), bytes_.data(), states_.data()});
        for (u64 i = 0; i < pages; ++i) {
            bytes_[i << page_shift] = static_cast<u8>(i);
        }
    }
    u8 first_byte(FrozenPages& frozen, u64 page) {
        std::array<std::byte, page_size> out{};
        EXPECT_TRUE(frozen.read(Gfn(page), out).has_value());
        return static_cast<u8>(out[0]);
    }
    void write(u64 page, u8 value) { bytes_[page << page_shift] = value; }

    static constexpr u64 pages = 64;
    std::vector<u8> bytes_ = std::vector<u8>(pages << page_shift);
    std::vector<u8> states_ = std::vector<u8>(pages);
    cpu::GuestMemory memory_;
    std::vector<cpu::PageRun> all_{{Gfn(0), pages}};
};

TEST_F(FrozenPagesTest, ReleasedPagesAreReadAsTheyWere) {
    FrozenPages frozen(memory_, all_, 10);
    EXPECT_TRUE(frozen.release(Gfn(7), 0ms));
    write(7, 0xff);
    EXPECT_EQ(first_byte(frozen, 7), 7);
    EXPECT_EQ(first_byte(frozen, 8), 8);
    EXPECT_EQ(frozen.copied(), 1u);
}

TEST_F(FrozenPagesTest, PagesThatWereReadOrPassedNeedNoCopy) {
    FrozenPages frozen(memory_, all_, 10);
    (void)first_byte(frozen, 3);
    frozen.passed(Gfn(0), 3);
    for (u64 page = 0; page < 4; ++page) {
        EXPECT_TRUE(frozen.release(Gfn(page), 0ms));
    }
    EXPECT_EQ(frozen.copied(), 0u);
}

TEST_F(FrozenPagesTest, WithoutRoomAPageStaysFrozenUntilACopyIsTaken) {
    FrozenPages frozen(memory_, all_, 2);
    EXPECT_TRUE(frozen.release(Gfn(1), 0ms));
    EXPECT_TRUE(frozen.release(Gfn(2), 0ms));
    EXPECT_TRUE(frozen.release(Gfn(2), 0ms)) << "released already";
    EXPECT_FALSE(frozen.release(Gfn(3), 1ms));
    EXPECT_EQ(first_byte(frozen, 2), 2);
    EXPECT_TRUE(frozen.release(Gfn(3), 0ms));
    EXPECT_FALSE(frozen.release(Gfn(4), 1ms));
    frozen.passed(Gfn(0), 2);
    EXPECT_TRUE(frozen.release(Gfn(4), 0ms));
}

TEST_F(FrozenPagesTest, ClosingLetsEveryPageGo) {
    FrozenPages frozen(memory_, all_, 0);
    EXPECT_FALSE(frozen.release(Gfn(5), 1ms));
    std::thread closer([&] { frozen.close(); });
    EXPECT_TRUE(frozen.release(Gfn(5), 100s));
    closer.join();
}

TEST_F(FrozenPagesTest, APageThatIsNotFrozenCannotBeRead) {
    const std::vector<cpu::PageRun> some{{Gfn(4), 2}};
    FrozenPages frozen(memory_, some, 10);
    EXPECT_TRUE(frozen.release(Gfn(9), 0ms));
    std::array<std::byte, page_size> out{};
    const auto done = frozen.read(Gfn(9), out);
    ASSERT_FALSE(done.has_value());
    EXPECT_NE(done.error().message.find("page 9"), std::string::npos);
}

TEST_F(FrozenPagesTest, AReaderAndAWriterNeverMeetInAPage) {
    for (int round = 0; round < 200; ++round) {
        for (u64 page = 0; page < pages; ++page) {
            std::fill_n(bytes_.begin() + static_cast<i64>(page << page_shift), page_size,
                        static_cast<u8>(page));
        }
        FrozenPages frozen(memory_, all_, 4);
        std::thread reader([&] {
            for (u64 page = 0; page < pages; ++page) {
                std::array<std::byte, page_size> out{};
                ASSERT_TRUE(frozen.read(Gfn(page), out).has_value());
                for (const std::byte b : out) {
                    ASSERT_EQ(static_cast<u8>(b), page);
                }
            }
            frozen.close();
        });
        for (u64 page = pages; page-- != 0;) {
            while (!frozen.release(Gfn(page), 5ms)) {
            }
            std::fill_n(bytes_.begin() + static_cast<i64>(page << page_shift), page_size, u8{0xee});
        }
        reader.join();
    }
}

} // namespace
} // namespace nestor::control
