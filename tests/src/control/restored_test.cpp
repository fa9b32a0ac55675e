// Tiers and clocks of a restore.
#include "src/control/restored.hpp"

#include <gtest/gtest.h>

#include "engine/state/board.hpp"
#include "engine/state/codec.hpp"

namespace nestor::control {
namespace {

constexpr i64 second = 1'000'000'000;

std::unique_ptr<machine::Machine> fresh() {
    state::MachineConfig config;
    config.memory = u64{4} << 20;
    config.start_time = 1'000'000;
    return *machine::Machine::create(config);
}

state::VmGeneration generation(const machine::Machine& machine) {
    for (const machine::Unit& unit : machine.units()) {
        if (unit.name == "vm_generation") {
            return *state::decode<state::VmGeneration>(unit.bytes);
        }
    }
    return {};
}

TEST(RestoredTest, TiersAndClocksAreParsedAndAnythingElseIsAUsageError) {
    EXPECT_EQ(*parse_tier("resume"), RestoreTier::resume);
    EXPECT_EQ(*parse_tier("clone"), RestoreTier::clone);
    EXPECT_EQ(parse_tier("again").error().code, ErrorCode::usage);
    EXPECT_EQ(parse_clock("resume")->kind, ClockChoice::Kind::resume);
    EXPECT_EQ(parse_clock("advance")->kind, ClockChoice::Kind::advance);
    EXPECT_EQ(parse_clock("at=1772366400")->seconds, 1772366400);
    EXPECT_EQ(parse_clock("at=2026-03-01T12:00:00Z")->seconds, 1772366400);
    EXPECT_EQ(parse_clock("at=2026-03-01T12:00:00")->seconds, 1772366400);
    for (const char* const text : {"", "at", "at=", "at=soon", "at=-1", "at=99999999999999999999",
                                   "at=2026-03-01", "at=2026-03-01T12:00:00Zulu", "stopped"}) {
        EXPECT_EQ(parse_clock(text).error().code, ErrorCode::usage) << text;
    }
}

TEST(RestoredTest, AResumedClockStaysWhereItStood) {
    auto machine = fresh();
    (void)set_clock(*machine, {}, 0, 100 * second);
    EXPECT_EQ(machine->ticks(), Ticks(0));
    EXPECT_EQ(machine->clock_seconds(), 1'000'000);
}

TEST(RestoredTest, AnAdvancedClockMovesByWhatPassedSinceTheSave) {
    auto machine = fresh();
    EXPECT_EQ(set_clock(*machine, {ClockChoice::Kind::advance}, 5 * second, 17 * second),
              "clock advanced by 12.000 s");
    EXPECT_EQ(machine->ticks(), Ticks(12 * second));
    EXPECT_EQ(machine->clock_seconds(), 1'000'012);
}

TEST(RestoredTest, AHostClockThatWentBackAdvancesNothing) {
    auto machine = fresh();
    (void)set_clock(*machine, {ClockChoice::Kind::advance}, 17 * second, 5 * second);
    EXPECT_EQ(machine->ticks(), Ticks(0));
}

TEST(RestoredTest, ALaterTimePassesInTheGuestAndAnEarlierOneIsShown) {
    auto machine = fresh();
    (void)set_clock(*machine, {ClockChoice::Kind::at, 1'000'030}, 0, 0);
    EXPECT_EQ(machine->clock_seconds(), 1'000'030);
    EXPECT_EQ(machine->ticks(), Ticks(30 * second));
    (void)set_clock(*machine, {ClockChoice::Kind::at, 500}, 0, 0);
    EXPECT_EQ(machine->clock_seconds(), 500);
    EXPECT_EQ(machine->ticks(), Ticks(30 * second));
}

TEST(RestoredTest, EveryCloneGetsAnIdentityOfItsOwn) {
    auto first = fresh();
    auto second_one = fresh();
    const auto before = generation(*first);
    ASSERT_EQ(before, generation(*second_one));
    ASSERT_TRUE(make_clone(*first).has_value());
    ASSERT_TRUE(make_clone(*second_one).has_value());
    EXPECT_NE(generation(*first), before);
    EXPECT_NE(generation(*first), generation(*second_one));
}

} // namespace
} // namespace nestor::control
