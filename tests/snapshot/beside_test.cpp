// Processes side by side on one store: savers that wait for each other, readers, and a collector
// that removes what has no tag any more. Nobody meets a snapshot that is half there.
#include <chrono>
#include <cstdlib>

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/snapshot/machine.hpp"

namespace nestor::snapshot::testing {
namespace {

constexpr u32 saves = 12;
constexpr auto patience = std::chrono::seconds(60);

/// The machine that saver `who` stores as number n: a third common to all, a third of its own.
Machine machine_of(u32 who, u32 n) {
    Machine machine = Machine::blank(240);
    for (u32 i = 0; i < 240; i += 3) {
        machine.fill(0, i, i + 1);
        machine.fill(0, i + 1, 1'000'000 * (who + 1) + 1000 * n + i);
    }
    machine.add_images(1000 * who + n / 4);
    return machine;
}

std::string tag_of(u32 who, u32 n) { return "s" + std::to_string(who) + "." + std::to_string(n); }

/// Exit statuses of the children; 0 is good.
constexpr int save_failed = 1, wrong_byte = 2, remove_failed = 3, gc_failed = 4, read_failed = 5;

/// Saves, restores what it saved, and removes all but every third.
int saver(const std::string& directory, u32 who) {
    Store store = make_store(directory);
    const auto wait = [](SaveRequest& request) { request.wait_for_writer = patience; };
    for (u32 n = 0; n < saves; ++n) {
        const Machine machine = machine_of(who, n);
        if (const auto done = save(store, machine, tag_of(who, n), wait); !done) {
            std::fprintf(stderr, "save: %s\n", done.error().message.c_str());
            return save_failed;
        }
        const auto restored = restore(directory, tag_of(who, n), machine);
        if (!restored || !restored->same_memory(machine)) {
            return wrong_byte;
        }
        if (n % 3 != 0 && !store.remove(tag_of(who, n))) {
            return remove_failed;
        }
    }
    return 0;
}

int collector(const std::string& directory) {
    Store store = make_store(directory);
    for (u32 i = 0; i < saves; ++i) {
        GcOptions options;
        options.wait_for_writer = patience;
        if (const auto done = store.gc(options); !done) {
            std::fprintf(stderr, "gc: %s\n", done.error().message.c_str());
            return gc_failed;
        }
    }
    return 0;
}

/// Opens a snapshot, waits for its tag to go and the collector to run, and still reads all of it.
int reader(const std::string& directory) {
    Store store = make_store(directory);
    const auto snapshot = store.load("read");
    if (!snapshot || !store.remove("read")) {
        return read_failed;
    }
    for (u32 i = 0; i < 20; ++i) {
        GcOptions options;
        options.wait_for_writer = patience;
        if (!store.gc(options)) {
            return gc_failed;
        }
        Machine machine = machine_of(9, 9).garbled();
        if (const auto done = snapshot->read_all(machine.targets()); !done) {
            std::fprintf(stderr, "read: %s\n", done.error().message.c_str());
            return read_failed;
        }
        if (!machine.take_images(*snapshot) || !machine.same_memory(machine_of(9, 9))) {
            return wrong_byte;
        }
    }
    return 0;
}

TEST(Beside, SavesRestoresAndGcDoEachOtherNoHarm) {
    const TempDir dir;
    const std::string directory = dir / "store";
    {
        Store store = make_store(directory);
        ASSERT_TRUE(save(store, machine_of(9, 9), "read"));
        ASSERT_TRUE(save(store, machine_of(8, 8), "kept"));
    }
    std::vector<pid_t> children;
    for (u32 i = 0; i < 4; ++i) {
        children.push_back(::fork());
        if (children.back() == 0) {
            ::_exit(i < 2    ? saver(directory, i)
                    : i == 2 ? collector(directory)
                             : reader(directory));
        }
    }
    for (const pid_t child : children) {
        int status = 0;
        ::waitpid(child, &status, 0);
        EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << "status " << status;
    }
    Store store = make_store(directory);
    for (u32 who = 0; who < 2; ++who) {
        for (u32 n = 0; n < saves; n += 3) {
            const Machine machine = machine_of(who, n);
            const auto restored = restore(directory, tag_of(who, n), machine);
            ASSERT_TRUE(restored) << tag_of(who, n) << ": " << restored.error().message;
            EXPECT_TRUE(restored->same_memory(machine)) << tag_of(who, n);
        }
    }
    ASSERT_TRUE(store.gc());
    const auto report = store.fsck();
    ASSERT_TRUE(report) << report.error().message;
    for (const auto& finding : report->findings) {
        ADD_FAILURE() << finding.where << ": " << finding.what;
    }
}

TEST(Beside, ASecondWriterIsToldWhoWrites) {
    const TempDir dir;
    const std::string directory = dir / "store";
    Store store = make_store(directory);
    std::string message;
    const auto while_saving = [&](SaveRequest& request) {
        request.progress = [&](u64, u64) {
            if (message.empty()) {
                Store other = make_store(directory);
                const auto second = save(other, machine_of(1, 1), "second");
                message = second ? "it was not refused" : second.error().message;
            }
            return true;
        };
    };
    ASSERT_TRUE(save(store, machine_of(0, 0), "first", while_saving));
    EXPECT_NE(message.find(std::to_string(::getpid())), std::string::npos) << message;
}

} // namespace
} // namespace nestor::snapshot::testing
