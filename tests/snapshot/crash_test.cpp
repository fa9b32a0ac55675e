// Saves that die or meet a limit of file sizes: whatever was reported as saved restores bit for
// bit, nothing half-made can be loaded, and the next save works.
//
// NESTOR_KILLS=N in the environment sets how many times a saving process is killed.
#include <chrono>
#include <csignal>
#include <cstdlib>

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "src/base/log.hpp"

#include "snapshot/save.hpp"
#include "tests/snapshot/machine.hpp"

namespace nestor::snapshot::testing {
namespace {

/// The machine that save number n of a run stores.
Machine machine_number(u32 n) {
    Machine machine = Machine::blank(600);
    for (u32 i = 0; i < 300; ++i) {
        // Half of it common to all, half of its own.
        machine.fill(0, i * 2, i % 2 == 0 ? i + 1 : 1000 * n + i);
    }
    machine.add_images(n);
    return machine;
}

std::string tag_number(u32 n) { return "t" + std::to_string(n); }

void expect_number(const std::string& store, u32 n) {
    const Machine machine = machine_number(n);
    const auto restored = restore(store, tag_number(n), machine);
    ASSERT_TRUE(restored) << tag_number(n) << ": " << restored.error().message;
    EXPECT_TRUE(restored->same_memory(machine)) << tag_number(n);
}

void expect_sound(const std::string& directory) {
    const Store store = make_store(directory);
    const auto report = store.fsck();
    ASSERT_TRUE(report) << report.error().message;
    for (const auto& finding : report->findings) {
        ADD_FAILURE() << finding.where << ": " << finding.what;
    }
}

/// Saves number after number and tells the pipe which ones are done, until killed.
[[noreturn]] void save_for_ever(const std::string& directory, u32 first, int pipe) {
    Store store = make_store(directory);
    for (u32 n = first;; ++n) {
        if (!save(store, machine_number(n), tag_number(n))) {
            ::_exit(1);
        }
        if (::write(pipe, &n, sizeof(n)) != sizeof(n)) {
            ::_exit(2);
        }
    }
}

TEST(Crash, AKilledSaveLosesNothingThatWasSaved) {
    const TempDir dir;
    const std::string directory = dir / "store";
    const u64 limit = std::exchange(SaveJob::pack_limit, u64{64} << 10);
    const auto begin = std::chrono::steady_clock::now();
    {
        Store store = make_store(directory);
        ASSERT_TRUE(save(store, machine_number(0), tag_number(0)));
    }
    const auto one_save = std::chrono::duration_cast<std::chrono::microseconds>(
        std::chrono::steady_clock::now() - begin);
    const char* const wanted = std::getenv("NESTOR_KILLS");
    const int kills = wanted != nullptr ? std::atoi(wanted) : 40;
    std::mt19937_64 random(1);
    u32 next = 1;
    for (int kill = 0; kill < kills; ++kill) {
        int pipe[2];
        ASSERT_EQ(::pipe(pipe), 0);
        const pid_t child = ::fork();
        if (child == 0) {
            ::close(pipe[0]);
            save_for_ever(directory, next, pipe[1]);
        }
        ::close(pipe[1]);
        // Up to three saves long, however busy the host is.
        ::usleep(static_cast<useconds_t>(random() % (3 * one_save.count() + 1000)));
        ::kill(child, SIGKILL);
        int status = 0;
        ::waitpid(child, &status, 0);
        ASSERT_TRUE(WIFSIGNALED(status)) << "the child failed by itself: " << status;
        u32 done = 0;
        std::vector<u32> finished;
        while (::read(pipe[0], &done, sizeof(done)) == sizeof(done)) {
            finished.push_back(done);
        }
        ::close(pipe[0]);
        for (const u32 n : finished) {
            expect_number(directory, n);
        }
        if (!finished.empty()) {
            next = finished.back() + 1;
        }
        // The one under way is there as a whole or not at all.
        const Store store = make_store(directory);
        if (const auto loaded = store.load(tag_number(next)); loaded) {
            expect_number(directory, next);
            ++next;
        } else {
            EXPECT_EQ(loaded.error().code, ErrorCode::failed) << loaded.error().message;
        }
        ASSERT_FALSE(::testing::Test::HasFailure()) << "kill " << kill;
    }
    SaveJob::pack_limit = limit;
    Store store = make_store(directory);
    ASSERT_TRUE(save(store, machine_number(next), tag_number(next)));
    expect_sound(directory);
    EXPECT_GT(next, 1u);
    expect_number(directory, 0);
    for (const std::string& file : all_files(directory)) {
        EXPECT_FALSE(file.ends_with(".part") || file.ends_with(".tmp")) << file;
    }
}

TEST(Crash, AFileSizeLimitIsAClearErrorAndTheOldSnapshotStays) {
    const TempDir dir;
    const std::string directory = dir / "store";
    Store store = make_store(directory);
    ASSERT_TRUE(save(store, machine_number(0), tag_number(0)));
    int failures = 0;
    u32 n = 1;
    for (u64 limit = 0; limit < (u64{96} << 10); limit += 3000) {
        const pid_t child = ::fork();
        if (child == 0) {
            ::signal(SIGXFSZ, SIG_IGN);
            const rlimit sizes{limit, limit};
            ::setrlimit(RLIMIT_FSIZE, &sizes);
            const auto report = save(store, machine_number(n), tag_number(n));
            ::_exit(report ? 0 : static_cast<int>(report.error().code));
        }
        int status = 0;
        ::waitpid(child, &status, 0);
        ASSERT_TRUE(WIFEXITED(status)) << "limit " << limit << ": status " << status;
        if (WEXITSTATUS(status) == 0) {
            expect_number(directory, n);
            ++n;
        } else {
            EXPECT_EQ(WEXITSTATUS(status), static_cast<int>(ErrorCode::failed));
            ++failures;
        }
        expect_number(directory, 0);
    }
    EXPECT_GT(failures, 3);
    EXPECT_GT(n, 1u);
    ASSERT_TRUE(save(store, machine_number(n), tag_number(n)));
    expect_sound(directory);
}

} // namespace
} // namespace nestor::snapshot::testing
