// Resets: of booted and restored machines, with pages that are not loaded yet, beside and between
// saves. What a machine is after them does not depend on what was done to it in between.
#include "tests/src/control/keeper_fixture.hpp"

#include <thread>

namespace nestor::control {
namespace {

class ResetTest : public KeeperTest {
protected:
    static void reset(Keeper& keeper) {
        const auto done = keeper.reset();
        ASSERT_TRUE(done) << done.error().message;
    }
    static std::string digest_of(Keeper& keeper) { return to_hex(keeper.digest()->machine); }
    /// What a machine has at `count` that was reset at each of these counts, and else let alone.
    static std::string digest_at(u64 count, const std::vector<u64>& resets) {
        auto keeper = booted(resets.empty() ? count : resets.front());
        for (std::size_t i = 0; i < resets.size(); ++i) {
            reset(*keeper);
            run_to(*keeper, i + 1 < resets.size() ? resets[i + 1] : count);
        }
        return digest_of(*keeper);
    }
    void save_base(u64 count) {
        auto keeper = booted(count);
        auto s = store();
        ASSERT_TRUE(keeper->save(s, as("base")));
    }
};

TEST_F(ResetTest, ARestoredMachineIsResetAsTheUnbrokenOneIs) {
    save_base(20'000);
    for (const bool lazy : {true, false}) {
        auto keeper = restored("base", {.lazy = lazy});
        run_to(*keeper, 21'000);
        reset(*keeper);
        EXPECT_FALSE(keeper->lazy());
        run_to(*keeper, 30'000);
        EXPECT_EQ(digest_of(*keeper), digest_at(30'000, {21'000}));
    }
}

TEST_F(ResetTest, PagesOnTheirWayDoNotComeAfterIt) {
    save_base(20'000);
    for (int attempt = 0; attempt < 30; ++attempt) {
        auto keeper = restored("base");
        ASSERT_TRUE(keeper->prefetch()); // the reader is at work
        for (int i = 0; i < attempt; ++i) {
            std::this_thread::yield();
        }
        reset(*keeper);
        const Digest root = keeper->digest()->memory_root;
        std::vector<snapshot::Region> regions;
        for (const cpu::GuestMemory::Region& region : keeper->machine().memory().regions()) {
            regions.push_back({region.start, region.size, region.host});
        }
        ASSERT_EQ(*snapshot::memory_root(regions), root) << "digested afresh";
        ASSERT_EQ(digest_of(*keeper), digest_at(20'000, {20'000}));
    }
}

TEST_F(ResetTest, ALiveSaveBesideItIsOfTheMomentOfItsCommand) {
    save_base(20'000);
    for (const bool is_restored : {false, true}) {
        const std::string tag = is_restored ? "restored" : "booted";
        auto keeper = is_restored ? restored("base") : booted(20'000);
        run_to(*keeper, 20'100);
        ASSERT_TRUE(keeper->begin_live_save(store().directory(), as(tag)));
        run_to(*keeper, 20'300);
        reset(*keeper);
        run_to(*keeper, 20'900);
        const auto report = keeper->finish_live_save();
        ASSERT_TRUE(report) << report.error().message;
        EXPECT_EQ(to_hex(report->machine_digest), digest_at(20'100, {}));
        EXPECT_EQ(digest_of(*keeper), digest_at(20'900, {20'300}));
        auto s = store();
        EXPECT_TRUE(s.load(tag)->verify());
        const auto next = keeper->save(s, as(tag + "-next"));
        ASSERT_TRUE(next) << next.error().message;
        EXPECT_EQ(next->parent, tag);
        EXPECT_EQ(to_hex(next->machine_digest), digest_at(20'900, {20'300}));
        EXPECT_EQ(digest_of(*restored(tag + "-next")), to_hex(next->machine_digest));
    }
}

TEST_F(ResetTest, ManyInARowWithSavesAndRestoresInBetween) {
    save_base(20'000);
    std::vector<u64> resets;
    std::string tag = "base";
    u64 count = 20'000;
    for (int round = 0; round < 4; ++round) {
        auto keeper = restored(tag, {.lazy = round % 2 == 0});
        for (int again = 0; again < 2; ++again) {
            count += 700;
            run_to(*keeper, count);
            reset(*keeper);
            resets.push_back(count);
            auto s = store();
            if (again == 0) { // nothing has run since
                const std::string at = "at" + std::to_string(count);
                ASSERT_TRUE(keeper->save(s, as(at)));
                auto copy = restored(at);
                run_to(*copy, count + 1); // the first run brings vmcs01 up to date
                EXPECT_EQ(digest_of(*copy), digest_at(count + 1, resets));
            }
            count += 300;
            run_to(*keeper, count);
        }
        tag = "round" + std::to_string(round);
        ASSERT_TRUE(keeper->begin_live_save(store().directory(), as(tag)));
        const auto report = keeper->finish_live_save();
        ASSERT_TRUE(report) << report.error().message;
        EXPECT_EQ(to_hex(report->machine_digest), digest_at(count, resets));
    }
}

TEST_F(ResetTest, ADamagedImageIsNamedAndTheMachineIsAsItWas) {
    save_base(20'000);
    auto keeper = restored("base", {});
    damage_packs();
    const std::string before = digest_of(*booted(20'000));
    const auto done = keeper->reset();
    ASSERT_FALSE(done);
    EXPECT_EQ(done.error().code, ErrorCode::corrupt);
    for (const char* const word : {"base", "boot image page_writer", "pack"}) {
        EXPECT_NE(done.error().message.find(word), std::string::npos) << done.error().message;
    }
    std::filesystem::remove_all(directory_ + "/store"); // whose map is damaged too
    run_to(*keeper, 21'000);
    auto other = store("other");
    EXPECT_FALSE(keeper->save(other, as("half"))) << "without its images it would be another";
}

TEST_F(ResetTest, AfterItsFirstResetAMachineNeedsItsStoreNoMoreForThat) {
    save_base(20'000);
    auto keeper = restored("base", {});
    reset(*keeper);
    std::filesystem::remove_all(directory_ + "/store");
    run_to(*keeper, 21'000);
    reset(*keeper);
    run_to(*keeper, 22'000);
    EXPECT_EQ(digest_of(*keeper), digest_at(22'000, {20'000, 21'000}));
    auto other = store("other");
    const auto report = keeper->save(other, as("moved"));
    ASSERT_TRUE(report) << report.error().message;
    EXPECT_TRUE(other.load("moved")->verify());
}

TEST_F(ResetTest, ASnapshotWithoutImagesCannotBeReset) {
    auto keeper = booted(20'000);
    const auto units = to_snapshot(keeper->machine().units());
    std::vector<snapshot::Region> regions;
    for (const cpu::GuestMemory::Region& region : keeper->machine().memory().regions()) {
        regions.push_back({region.start, region.size, region.host});
    }
    snapshot::SaveRequest request;
    request.tag = "old";
    request.contract = keeper->contract();
    request.units = units;
    request.regions = regions;
    auto s = store();
    ASSERT_TRUE(s.save(request));
    EXPECT_EQ(s.load("old")->manifest().format, 1u);
    auto old = restored("old");
    EXPECT_FALSE(old->can_reset());
    run_to(*old, 21'000);
    // Saved again it is what it was: nothing is made up.
    ASSERT_TRUE(old->save(s, as("older")));
    EXPECT_EQ(s.load("older")->manifest().format, 1u);
}

TEST_F(ResetTest, WhatTheGuestIsToldIsKeptAndPathsAreNotOtherwise) {
    const auto names_of = [this](machine::Image kernel) {
        auto bytes = *snapshot::ImageBytes::make(kernel.size());
        std::copy(kernel.begin(), kernel.end(), bytes->data());
        state::MachineConfig config;
        config.memory = u64{64} << 20;
        Keeper keeper(*machine::Machine::create(config));
        const auto done = keeper.boot(
            {{snapshot::ImageKind::kernel, "/some/where/kernel", false, "", std::move(bytes)}});
        EXPECT_TRUE(done) << done.error().message;
        auto s = store();
        SaveOptions options = as("a");
        options.replace = true;
        EXPECT_TRUE(keeper.save(s, options));
        const auto image = s.load("a")->manifest().images.at(0);
        return std::pair(image.name, image.named);
    };
    EXPECT_EQ(names_of(machine::make_bzimage()), std::pair(std::string("kernel"), false));
    EXPECT_EQ(names_of(machine::make_multiboot(page_writer)),
              std::pair(std::string("/some/where/kernel"), true));
}

} // namespace
} // namespace nestor::control
