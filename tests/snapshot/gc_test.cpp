// Collecting: what goes, what stays, and who may be at work meanwhile.
#include <atomic>
#include <chrono>
#include <cstring>
#include <thread>

#include <gtest/gtest.h>

#include "snapshot/save.hpp"
#include "tests/snapshot/machine.hpp"

namespace nestor::snapshot::testing {
namespace {

class Gc : public ::testing::Test {
protected:
    void SetUp() override {
        for (u64 i = 0; i < 600; ++i) {
            machine_.fill_noise(0, i, random_);
        }
        ASSERT_TRUE(save(store_, machine_, "a"));
    }

    GcReport collect(const GcOptions& options = {}) {
        auto report = store_.gc(options);
        EXPECT_TRUE(report) << report.error().message;
        return report ? *report : GcReport{};
    }
    void expect_restores(const std::string& tag, const Machine& machine) {
        const auto restored = restore(store_.directory(), tag, machine);
        ASSERT_TRUE(restored) << restored.error().message;
        EXPECT_TRUE(restored->same_memory(machine));
        EXPECT_EQ(restored->units, sorted_units(machine.units));
    }
    void expect_sound() {
        const auto report = store_.fsck();
        ASSERT_TRUE(report) << report.error().message;
        for (const auto& finding : report->findings) {
            ADD_FAILURE() << finding.where << ": " << finding.what;
        }
    }
    [[nodiscard]] std::size_t files(const std::string& directory) const {
        return all_files(store_.directory() + "/" + directory).size();
    }

    std::mt19937_64 random_{11};
    TempDir dir_{true};
    Store store_ = make_store(dir_ / "store");
    Machine machine_ = Machine::blank(1000);
};

TEST_F(Gc, NothingGoesThatATagLeadsTo) {
    const auto report = collect();
    EXPECT_EQ(report.snapshots, 1u);
    EXPECT_EQ(report.packs_removed + report.packs_rewritten + report.manifests_removed, 0u);
    EXPECT_EQ(report.bytes_before, report.bytes_after);
    // The rest are headers and directories of packs.
    EXPECT_LE(report.live_bytes, report.bytes_after);
    EXPECT_GT(report.live_bytes, report.bytes_after - report.bytes_after / 100);
    expect_restores("a", machine_);
}

TEST_F(Gc, EverythingGoesWithTheLastTag) {
    ASSERT_TRUE(store_.claim(*store_.load("a"), "vm"));
    ASSERT_TRUE(store_.record_order(*store_.load("a"), std::vector{Gfn(1)}));
    ASSERT_TRUE(store_.remove("a"));
    const auto report = collect();
    EXPECT_EQ(report.packs_removed, 1u);
    EXPECT_EQ(report.bytes_after, 0u);
    for (const char* const directory : {"packs", "manifests", "claims", "orders", "refs"}) {
        EXPECT_EQ(files(directory), 0u) << directory;
    }
    ASSERT_TRUE(save(store_, machine_, "a"));
    expect_restores("a", machine_);
    expect_sound();
}

TEST_F(Gc, APackThatIsMostlyDeadIsRewrittenInItsPlace) {
    Machine small = Machine::blank(1000);
    std::memcpy(small.page(0, 10), machine_.page(0, 10), 5 * page_size);
    std::memcpy(small.page(0, 300), machine_.page(0, 300), page_size);
    ASSERT_TRUE(save(store_, small, "b"));
    expect_restores("b", small); // opens the pack
    ASSERT_TRUE(store_.remove("a"));
    const auto report = collect();
    EXPECT_EQ(report.packs_rewritten, 1u);
    EXPECT_LT(report.bytes_after, report.bytes_before / 20);
    expect_restores("b", small);
    EXPECT_TRUE(store_.load("b")->verify());
    expect_sound();
    EXPECT_EQ(collect().packs_rewritten, 0u);
    ASSERT_TRUE(save(store_, machine_, "again"));
    expect_restores("again", machine_);
    expect_restores("b", small);
    expect_sound();
}

TEST_F(Gc, WhatAReaderHoldsStays) {
    {
        const auto snapshot = store_.load("a");
        ASSERT_TRUE(store_.remove("a"));
        EXPECT_EQ(collect().leased, 1u);
        Machine copy = machine_.garbled();
        EXPECT_TRUE(snapshot->read_all(copy.targets()));
        EXPECT_TRUE(copy.same_memory(machine_));
    }
    EXPECT_EQ(collect().leased, 0u);
    EXPECT_EQ(files("packs"), 0u);
    EXPECT_EQ(files("leases"), 0u);
}

TEST_F(Gc, ALeaseOfADeadProcessIsNone) {
    write_file(
        store_.directory() + "/leases/" + to_hex(store_.load("a")->manifest().digest) + ".1.1", {});
    ASSERT_TRUE(store_.remove("a"));
    EXPECT_EQ(collect().leased, 0u);
    EXPECT_EQ(files("leases"), 0u);
}

TEST_F(Gc, AMachineGoesOnFromItsLastSaveWhoseTagIsGone) {
    MemoryDigester digester;
    const auto save_it = [&](const std::string& tag) {
        return save(store_, machine_, tag, [&](SaveRequest& request) {
            request.digester = &digester;
            request.parent = "auto";
        });
    };
    ASSERT_TRUE(save_it("b"));
    ASSERT_TRUE(store_.remove("a"));
    ASSERT_TRUE(store_.remove("b"));
    collect();
    machine_.fill(0, 700, 1);
    digester.mark_dirty(Gfn(700));
    const auto report = save_it("c");
    ASSERT_TRUE(report);
    EXPECT_EQ(report->new_pages, 1u);
    expect_restores("c", machine_);
    expect_sound();
}

TEST_F(Gc, AParentThatIsGoneEndsTheLog) {
    ASSERT_TRUE(save(store_, machine_, "b", [](SaveRequest& request) { request.parent = "a"; }));
    ASSERT_TRUE(store_.remove("a"));
    collect();
    const auto log = store_.log("b");
    ASSERT_TRUE(log);
    ASSERT_EQ(log->size(), 2u);
    EXPECT_FALSE(log->back().contents);
    expect_restores("b", machine_);
}

TEST_F(Gc, ADryRunChangesNothing) {
    ASSERT_TRUE(store_.remove("a"));
    const auto before = all_files(store_.directory());
    GcOptions options;
    options.dry_run = true;
    EXPECT_EQ(collect(options).packs_removed, 1u);
    EXPECT_EQ(all_files(store_.directory()), before);
}

TEST_F(Gc, AnInterruptedOneCanBeRunAgain) {
    const u64 limit = std::exchange(SaveJob::pack_limit, u64{100} << 10);
    Machine other = Machine::blank(1000);
    for (u64 i = 0; i < 600; ++i) {
        other.fill_noise(0, i, random_);
    }
    ASSERT_TRUE(save(store_, other, "b"));
    SaveJob::pack_limit = limit;
    ASSERT_TRUE(store_.remove("b"));
    const std::size_t before = files("packs");
    GcOptions options;
    int calls = 0;
    options.progress = [&](u64, u64) { return ++calls < 5; };
    EXPECT_NE(store_.gc(options).error().message.find("interrupted"), std::string::npos);
    EXPECT_LT(files("packs"), before);
    expect_restores("a", machine_);
    expect_sound();
    collect();
    EXPECT_EQ(files("packs"), 1u);
    expect_sound();
}

TEST_F(Gc, ADamagedSnapshotStopsItAndIsNamed) {
    ASSERT_TRUE(save(store_, machine_, "b"));
    ASSERT_TRUE(store_.remove("a"));
    write_file(store_.directory() + "/refs/b", {'x'});
    const auto report = store_.gc();
    ASSERT_FALSE(report);
    EXPECT_EQ(report.error().code, ErrorCode::corrupt);
    EXPECT_NE(report.error().message.find("snapshot b"), std::string::npos);
    EXPECT_EQ(files("packs"), 2u);
    ASSERT_TRUE(store_.remove("b"));
    EXPECT_EQ(collect().packs_removed, 2u);
}

TEST_F(Gc, EntriesOfTheIndexThatLeadNowhereGo) {
    Machine other = Machine::blank(1000);
    for (u64 i = 0; i < 900; ++i) {
        other.fill_noise(0, i, random_);
    }
    ASSERT_TRUE(save(store_, other, "b"));
    ASSERT_TRUE(store_.remove("b"));
    collect();
    EXPECT_TRUE(store_.fsck()->findings.empty());
    // The pages are really looked up: saved again, they are written again.
    EXPECT_EQ(save(store_, other, "b")->new_pages, 900u);
    expect_restores("b", other);
}

TEST_F(Gc, SavesAndRestoresGoOnBesideIt) {
    std::atomic<bool> stop{false};
    std::thread collector([&] {
        while (!stop) {
            GcOptions options;
            options.wait_for_writer = std::chrono::seconds(20);
            const auto report = store_.gc(options);
            ASSERT_TRUE(report) << report.error().message;
            std::this_thread::sleep_for(std::chrono::milliseconds(10)); // or saves starve
        }
    });
    Store other = make_store(store_.directory());
    Machine machine = machine_;
    for (u32 i = 0; i < 25; ++i) {
        machine.fill(0, i * 7, 5000 + i);
        const std::string tag = "s" + std::to_string(i);
        const auto report = save(other, machine, tag, [](SaveRequest& request) {
            request.wait_for_writer = std::chrono::seconds(20);
        });
        ASSERT_TRUE(report) << report.error().message;
        expect_restores(tag, machine);
        const auto held = other.load(tag);
        ASSERT_TRUE(held);
        // Another process may hold the lock for longer than remove() waits.
        while (!other.remove(tag)) {
        }
        Machine copy = machine.garbled();
        ASSERT_TRUE(held->read_all(copy.targets()));
        ASSERT_TRUE(copy.same_memory(machine));
    }
    stop = true;
    collector.join();
    collect();
    expect_restores("a", machine_);
    expect_sound();
}

} // namespace
} // namespace nestor::snapshot::testing
