// Live saves: the machine runs on, and the snapshot is the machine at the moment of the command.
#include "tests/src/control/keeper_fixture.hpp"

namespace nestor::control {
namespace {

class LiveSaveTest : public KeeperTest {
protected:
    /// Begins a live save, lets the machine run on and takes the result.
    Result<snapshot::SaveReport> save_live(Keeper& keeper, const SaveOptions& options) {
        TRY(keeper.begin_live_save(store().directory(), options));
        const u64 count = keeper.machine().count().value();
        for (u64 step = 1; !keeper.live()->ended(); ++step) {
            run_to(keeper, count + step * 500);
        }
        return keeper.finish_live_save();
    }
    /// Runs for as long as it takes to write every page once; gives the count.
    static u64 run_on(Keeper& keeper) {
        const u64 count = keeper.machine().count().value() + 2'000;
        run_to(keeper, count);
        return count;
    }
    static std::string machine_digest(const Result<snapshot::SaveReport>& report) {
        return report ? to_hex(report->machine_digest) : report.error().message;
    }
};

TEST_F(LiveSaveTest, TheSnapshotIsTheMachineAtTheMomentOfTheCommand) {
    auto keeper = booted(20'000);
    EXPECT_EQ(machine_digest(save_live(*keeper, as("first"))), digest_at(20'000));
    const u64 now = keeper->machine().count().value();
    EXPECT_GT(now, 20'000u);
    EXPECT_EQ(to_hex(keeper->digest()->machine), digest_at(now));
}

TEST_F(LiveSaveTest, ASecondSaveWritesWhatChangedSinceAndIsRightToo) {
    auto keeper = booted(20'000);
    ASSERT_TRUE(save_live(*keeper, as("first")));
    const u64 then = run_on(*keeper);
    const auto second = save_live(*keeper, as("second"));
    EXPECT_EQ(machine_digest(second), digest_at(then));
    EXPECT_EQ(second->parent, "first");
    EXPECT_LT(second->dirty_pages, second->pages / 2);
    const u64 now = keeper->machine().count().value();
    auto s = store();
    EXPECT_EQ(machine_digest(keeper->save(s, as("third"))), digest_at(now));
}

TEST_F(LiveSaveTest, RoomForOneCopyIsEnough) {
    auto keeper = booted(20'000);
    SaveOptions options = as("narrow");
    options.max_copies = 1;
    EXPECT_EQ(machine_digest(save_live(*keeper, options)), digest_at(20'000));
}

TEST_F(LiveSaveTest, ASnapshotTakenLiveRestoresAndGoesOn) {
    auto keeper = booted(20'000);
    ASSERT_TRUE(save_live(*keeper, as("live")));
    auto copy = restored("live");
    run_to(*copy, 40'000);
    EXPECT_EQ(to_hex(copy->digest()->machine), digest_at(40'000));
}

TEST_F(LiveSaveTest, ASecondSaveMeanwhileIsRefused) {
    auto keeper = booted(20'000);
    ASSERT_TRUE(keeper->begin_live_save(store().directory(), as("one")).has_value());
    auto s = store();
    for (const Error& error : {keeper->begin_live_save(s.directory(), as("two")).error(),
                               keeper->save(s, as("three")).error()}) {
        EXPECT_EQ(error.code, ErrorCode::failed);
        EXPECT_NE(error.message.find("live save"), std::string::npos);
    }
    EXPECT_EQ(machine_digest(keeper->finish_live_save()), digest_at(20'000));
}

TEST_F(LiveSaveTest, AFailureLosesNoPageThatWasWritten) {
    auto keeper = booted(20'000);
    ASSERT_TRUE(save_live(*keeper, as("taken")));
    (void)run_on(*keeper);
    EXPECT_FALSE(save_live(*keeper, as("taken"))) << "the tag exists";
    const u64 then = run_on(*keeper);
    EXPECT_EQ(machine_digest(save_live(*keeper, as("after"))), digest_at(then));
}

TEST_F(LiveSaveTest, AnInterruptionLosesNoPageThatWasWritten) {
    auto keeper = booted(2'000'000);
    for (int attempt = 0; attempt < 5; ++attempt) {
        ASSERT_TRUE(keeper->begin_live_save(store().directory(), as("cut")).has_value());
        keeper->live()->interrupt();
        run_to(*keeper, keeper->machine().count().value() + 10'000);
        const auto report = keeper->finish_live_save();
        if (report) { // it was faster
            ASSERT_TRUE(store().remove("cut"));
        }
    }
    const u64 now = keeper->machine().count().value();
    auto s = store();
    EXPECT_EQ(machine_digest(keeper->save(s, as("after"))), digest_at(now));
}

TEST_F(LiveSaveTest, DestroyingTheMachineEndsTheSave) {
    auto keeper = booted(20'000);
    ASSERT_TRUE(keeper->begin_live_save(store().directory(), as("lost")).has_value());
    keeper.reset();
    const auto list = store().list();
    EXPECT_TRUE(list.has_value());
}

TEST_F(LiveSaveTest, AMachineThatIsNotAllLoadedIsSavedLive) {
    auto keeper = booted(20'000);
    auto s = store();
    ASSERT_TRUE(keeper->save(s, as("base")));
    auto copy = restored("base");
    run_to(*copy, 20'100);
    ASSERT_TRUE(copy->lazy());
    const auto report = save_live(*copy, as("early"));
    EXPECT_EQ(machine_digest(report), digest_at(20'100));
    EXPECT_LT(report->dirty_pages, 64u);
}

TEST_F(LiveSaveTest, AnotherStoreGetsEverything) {
    auto keeper = booted(20'000);
    auto s = store();
    ASSERT_TRUE(keeper->save(s, as("base")));
    auto copy = restored("base");
    run_to(*copy, 30'000);
    auto other = store("other");
    ASSERT_TRUE(copy->begin_live_save(other.directory(), as("moved")).has_value());
    run_to(*copy, 40'000);
    EXPECT_EQ(machine_digest(copy->finish_live_save()), digest_at(30'000));
    EXPECT_TRUE(other.load("moved")->verify().has_value());
}

} // namespace
} // namespace nestor::control
