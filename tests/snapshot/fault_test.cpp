// Every call that changes the disk fails once: with an error, from there on for good, without room,
// or by writing half. And the power is lost after every change, with what was not synced gone,
// there, partly there or torn. Whatever was promised by then holds, and the store is as good as
// new.
#include <algorithm>
#include <filesystem>

#include <unistd.h>

#include "src/base/log.hpp"

#include "snapshot/deferred.hpp"
#include "tests/snapshot/fault_disk.hpp"
#include "tests/snapshot/fault_scenario.hpp"

namespace nestor::snapshot::testing {
namespace {

class Faults : public ::testing::Test {
protected:
    void SetUp() override {
        set_log_level(LogLevel::error);
        boot_id_file = dir_ / "boot_id";
        start_host("one");
    }
    void TearDown() override {
        boot_id_file = usual_;
        set_log_level(LogLevel::warning);
    }
    void start_host(const std::string& id) {
        const std::string line = id + "\n";
        write_file(dir_ / "boot_id", {line.begin(), line.end()});
    }

    std::string usual_ = boot_id_file;
    TempDir dir_{true};
};

/// Runs the scenario with a fault at one call; how many calls there were.
std::size_t run_with(const std::string& directory, std::size_t call, Fault fault,
                     Expectation& expected) {
    Store store = make_store(directory);
    FaultDisk disk(directory);
    disk.fail_at(call, fault);
    Expectation durable;
    Scenario(store, expected, durable, [] {}).run();
    return disk.calls();
}

class FailingCalls : public Faults, public ::testing::WithParamInterface<Fault> {};

TEST_P(FailingCalls, EachOfThemHarmsNothing) {
    std::size_t calls = 1;
    for (std::size_t call = 0; call < calls; ++call) {
        const std::string directory = dir_ / "store";
        std::filesystem::remove_all(directory);
        Expectation expected;
        const std::size_t made = run_with(directory, call, GetParam(), expected);
        calls = std::max(call == 0 ? std::size_t{0} : calls, made);
        check_store(directory, expected);
        ASSERT_FALSE(HasFailure()) << "call " << call << " of " << calls;
    }
    EXPECT_GT(calls, 200u);
    RecordProperty("calls", static_cast<int>(calls));
}

INSTANTIATE_TEST_SUITE_P(Disk, FailingCalls,
                         ::testing::Values(Fault::io_error, Fault::no_space, Fault::dead,
                                           Fault::short_write, Fault::short_then_full));

class PowerLoss : public Faults, public ::testing::WithParamInterface<Loss> {};

TEST_P(PowerLoss, AfterEachChangeLosesNothingThatWasPromised) {
    const std::string directory = dir_ / "store";
    Store store = make_store(directory);
    FaultDisk disk(directory);
    std::vector<Expectation> promises(1);
    Expectation now;
    Expectation durable;
    Scenario(store, now, durable, [&] {
        disk.note(static_cast<int>(promises.size()));
        promises.push_back(durable);
    }).run();
    disk.stop();
    start_host("two");
    std::mt19937_64 random(17);
    std::size_t promise = 0;
    const std::string target = dir_ / "after";
    for (std::size_t count = 0; count <= disk.ops().size(); ++count) {
        if (count > 0 && disk.ops()[count - 1].kind == DiskOp::Kind::note) {
            promise = static_cast<std::size_t>(disk.ops()[count - 1].note);
            continue;
        }
        disk.crash(count, GetParam(), random, target);
        check_store(target, promises[promise]);
        ASSERT_FALSE(HasFailure()) << "power lost after " << count << " of " << disk.ops().size();
    }
    EXPECT_GT(disk.ops().size(), 200u);
}

INSTANTIATE_TEST_SUITE_P(Disk, PowerLoss,
                         ::testing::Values(Loss::all, Loss::nothing, Loss::some, Loss::torn));

} // namespace
} // namespace nestor::snapshot::testing
