// Restoring machines: lazily, with damaged stores, as the one machine or as clones.
#include "tests/src/control/keeper_fixture.hpp"

#include <thread>

namespace nestor::control {
namespace {

class RestoreTest : public KeeperTest {
protected:
    void save(u64 count, const SaveOptions& options) {
        auto keeper = booted(count);
        auto s = store();
        const auto report = keeper->save(s, options);
        ASSERT_TRUE(report) << report.error().message;
    }
    std::string digest_of(Keeper& keeper) { return to_hex(keeper.digest()->machine); }
    Error load_error(const std::string& tag, RestoreTier tier) {
        const auto s = store();
        const auto keeper = Keeper::load(s, *s.load(tag), {.lazy = true, .tier = tier});
        EXPECT_FALSE(keeper.has_value());
        return keeper ? Error{} : keeper.error();
    }
};

TEST_F(KeeperTest, AMachineWhoseMemoryBeganAsZeroHasTheSameDigests) {
    state::MachineConfig config;
    config.memory = u64{4} << 20;
    Keeper keeper(*machine::Machine::create(config));
    ASSERT_TRUE(keeper.begin_zero());
    ASSERT_TRUE(keeper.boot(files()));
    run_to(keeper, 5000);
    const auto looked_at_all = booted(5000)->digest();
    const auto digests = keeper.digest();
    ASSERT_TRUE(digests && looked_at_all);
    EXPECT_EQ(digests->memory_root, looked_at_all->memory_root);
    EXPECT_EQ(digests->machine, looked_at_all->machine);
}

TEST_F(RestoreTest, ASaveAfterAResetLooksAtWhatWasWrittenSince) {
    save(20'000, as("base"));
    const auto begin_again = [](Keeper& keeper) {
        ASSERT_TRUE(keeper.reset());
        run_to(keeper, keeper.machine().count().value() + 500);
    };
    auto loaded = booted(20'000);
    begin_again(*loaded);
    const auto digests = loaded->digest();
    ASSERT_TRUE(digests);
    std::vector<snapshot::Region> regions;
    for (const cpu::GuestMemory::Region& region : loaded->machine().memory().regions()) {
        regions.push_back({region.start, region.size, region.host});
    }
    EXPECT_EQ(*snapshot::memory_root(regions), digests->memory_root) << "digested afresh";
    auto keeper = restored("base"); // most of its pages are not there when it is reset
    begin_again(*keeper);
    auto s = store();
    const auto report = keeper->save(s, as("again"));
    ASSERT_TRUE(report) << report.error().message;
    EXPECT_EQ(report->memory_root, digests->memory_root);
    EXPECT_EQ(report->parent, "base");
    EXPECT_LT(report->dirty_pages, 300u);
    EXPECT_EQ(digest_of(*restored("again")), to_hex(report->machine_digest));
}

TEST_F(RestoreTest, ALazyMachineGoesOnAsTheUnbrokenOneDoes) {
    save(20'000, as("base"));
    auto keeper = restored("base");
    EXPECT_TRUE(keeper->lazy());
    run_to(*keeper, 60'000);
    EXPECT_EQ(digest_of(*keeper), digest_at(60'000));
}

TEST_F(RestoreTest, BackgroundReadingEndsInAMachineThatIsAllThere) {
    save(20'000, as("base"));
    auto keeper = restored("base");
    for (u64 count = 20'100; keeper->lazy(); count += 100) {
        run_to(*keeper, count);
        ASSERT_TRUE(keeper->prefetch().has_value());
        std::this_thread::yield();
    }
    const u64 now = keeper->machine().count().value();
    for (const auto& region : keeper->machine().memory().regions()) {
        for (u64 i = 0; i < region.size >> page_shift; ++i) {
            ASSERT_EQ(region.state[i] & cpu::page_state::absent, 0);
        }
    }
    EXPECT_EQ(digest_of(*keeper), digest_at(now));
}

TEST_F(RestoreTest, AnEagerMachineNeedsNoPage) {
    save(20'000, as("base"));
    auto keeper = restored("base", {});
    EXPECT_FALSE(keeper->lazy());
    run_to(*keeper, 30'000);
    EXPECT_EQ(digest_of(*keeper), digest_at(30'000));
}

TEST_F(RestoreTest, SavingAMachineThatIsNotAllLoadedRefersToWhatTheStoreHas) {
    save(20'000, as("base"));
    auto keeper = restored("base");
    run_to(*keeper, 20'100);
    auto s = store();
    const auto report = keeper->save(s, as("early"));
    ASSERT_TRUE(report) << report.error().message;
    EXPECT_EQ(to_hex(report->machine_digest), digest_at(20'100));
    EXPECT_LT(report->dirty_pages, 64u);
    EXPECT_TRUE(keeper->lazy());
    auto again = restored("early");
    run_to(*again, 30'000);
    EXPECT_EQ(digest_of(*again), digest_at(30'000));
}

TEST_F(RestoreTest, TheOrderOfFirstTouchesIsRecordedForTheNextRestore) {
    save(20'000, as("base"));
    auto first = restored("base");
    std::vector<u64> touched;
    for (bool more = true; more;) {
        const auto stop = first->machine().run({.until = Icount(30'000)});
        more = stop.kind == machine::Stop::Kind::page_needed;
        if (more) {
            touched.push_back(stop.page.value());
            ASSERT_TRUE(first->fill_page(stop.page).has_value());
        }
    }
    ASSERT_GT(touched.size(), 10u);
    first.reset();
    std::vector<u64> recorded;
    for (const Gfn page : store().load("base")->touch_order()) {
        recorded.push_back(page.value());
    }
    EXPECT_EQ(recorded, touched);
}

TEST_F(RestoreTest, ManyMachinesRunFromOneSnapshot) {
    save(20'000, as("base"));
    std::vector<std::unique_ptr<Keeper>> machines;
    for (int i = 0; i < 5; ++i) {
        machines.push_back(restored("base"));
    }
    for (auto& keeper : machines) {
        run_to(*keeper, 25'000);
    }
    for (auto& keeper : machines) {
        EXPECT_EQ(digest_of(*keeper), digest_at(25'000));
    }
}

TEST_F(RestoreTest, ABadPageStopsTheMachineAndIsNamed) {
    save(20'000, as("base"));
    auto keeper = restored("base");
    damage_packs();
    const auto done = run(*keeper, 1'000'000);
    ASSERT_FALSE(done.has_value());
    EXPECT_EQ(done.error().code, ErrorCode::corrupt);
    EXPECT_NE(done.error().message.find("base"), std::string::npos) << done.error().message;
    EXPECT_NE(done.error().message.find("page"), std::string::npos) << done.error().message;
}

TEST_F(RestoreTest, ABadPageThatNobodyTouchesIsFoundInTheBackground) {
    save(20'000, as("base"));
    auto keeper = restored("base");
    damage_packs();
    Result<> looked;
    while (looked && keeper->lazy()) {
        looked = keeper->prefetch();
        std::this_thread::yield();
    }
    ASSERT_FALSE(looked.has_value());
    EXPECT_EQ(looked.error().code, ErrorCode::corrupt);
}

TEST_F(RestoreTest, ClonesDifferFromEachOtherInIdentityAndEntropyOnly) {
    SaveOptions options = as("base");
    options.goes_on = false;
    save(20'000, options);
    auto one = restored("base", {.lazy = true, .tier = RestoreTier::clone});
    auto two = restored("base", {.lazy = true, .tier = RestoreTier::clone});
    const auto units_one = one->machine().units();
    const auto units_two = two->machine().units();
    std::vector<std::string> different;
    for (std::size_t i = 0; i < units_one.size(); ++i) {
        if (units_one[i] != units_two[i]) {
            different.push_back(units_one[i].name);
        }
    }
    EXPECT_EQ(different, (std::vector<std::string>{"vcpu[0].cpu", "vm_generation"}));
    EXPECT_TRUE(one->take_over("a clone needs no right").has_value());
    EXPECT_TRUE(two->take_over("a clone needs no right").has_value());
    EXPECT_EQ(one->digest()->memory_root, two->digest()->memory_root);
}

TEST_F(RestoreTest, TheOneMachineIsResumedOnce) {
    SaveOptions options = as("base");
    options.goes_on = false;
    save(20'000, options);
    auto first = restored("base", {.lazy = true, .tier = RestoreTier::resume});
    auto second = restored("base", {.lazy = true, .tier = RestoreTier::resume});
    ASSERT_TRUE(first->take_over("first").has_value());
    const auto refused = second->take_over("second");
    ASSERT_FALSE(refused.has_value());
    EXPECT_EQ(refused.error().code, ErrorCode::incompatible);
    EXPECT_NE(refused.error().message.find("first"), std::string::npos);
    EXPECT_FALSE(refused.error().remedy.empty());
    run_to(*first, 30'000);
    EXPECT_EQ(digest_of(*first), digest_at(30'000));
}

TEST_F(RestoreTest, AMachineThatWentOnCannotBeResumed) {
    save(20'000, as("base"));
    const Error error = load_error("base", RestoreTier::resume);
    EXPECT_EQ(error.code, ErrorCode::incompatible);
    EXPECT_NE(error.remedy.find("--tier clone"), std::string::npos);
}

TEST_F(RestoreTest, ASnapshotThatForbidsClonesAllowsNothingButToResume) {
    SaveOptions options = as("one");
    options.goes_on = false;
    options.clone_forbidden = true;
    save(20'000, options);
    EXPECT_EQ(load_error("one", RestoreTier::clone).code, ErrorCode::incompatible);
    EXPECT_EQ(load_error("one", RestoreTier::again).code, ErrorCode::incompatible);
    EXPECT_TRUE(restored("one", {.lazy = true, .tier = RestoreTier::resume}) != nullptr);
}

TEST_F(RestoreTest, TheChoiceOfClockIsRecordedInLaterSaves) {
    save(20'000, as("base"));
    auto keeper = restored("base", {.lazy = true, .clock = {ClockChoice::Kind::at, 4'000'000'000}});
    EXPECT_EQ(keeper->machine().clock_seconds(), 4'000'000'000);
    auto s = store();
    ASSERT_TRUE(keeper->save(s, as("later")));
    EXPECT_EQ(s.load("later")->manifest().provenance.restored,
              "again, clock advanced to 4000000000");
}

} // namespace
} // namespace nestor::control
