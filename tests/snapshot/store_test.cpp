// Saving, loading and keeping house in a store that nobody harms.
#include <atomic>
#include <chrono>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <thread>

#include <gtest/gtest.h>
#include <sys/file.h>
#include <sys/wait.h>
#include <unistd.h>

#include "snapshot/files.hpp"
#include "snapshot/index.hpp"
#include "snapshot/save.hpp"
#include "tests/snapshot/machine.hpp"

namespace nestor::snapshot::testing {
namespace {

class StoreTest : public ::testing::Test {
protected:
    TempDir dir_;
    Store store_ = make_store(dir_ / "store");

    void expect_restores(const std::string& tag, const Machine& machine) {
        const auto restored = restore(store_.directory(), tag, machine);
        ASSERT_TRUE(restored) << restored.error().message;
        EXPECT_TRUE(restored->same_memory(machine));
        EXPECT_EQ(restored->units, sorted_units(machine.units));
        EXPECT_EQ(restored->contract, machine.contract);
    }
};

Machine mixed_machine(u64 low, u64 high) {
    Machine machine = Machine::blank(low, high);
    std::mt19937_64 random(7);
    for (u64 i = 0; i < low; i += 3) {
        machine.fill(0, i, static_cast<u32>(i + 1));
    }
    for (u64 i = 0; i < high; i += 5) {
        machine.fill_noise(1, i, random);
    }
    return machine;
}

TEST_F(StoreTest, ASavedMachineIsRestoredBitForBit) {
    const Machine machine = mixed_machine(5000, 900);
    const auto report = save(store_, machine, "a");
    ASSERT_TRUE(report) << report.error().message;
    EXPECT_EQ(report->pages, 5900u);
    EXPECT_EQ(report->new_pages, 5900u - report->zero_pages);
    expect_restores("a", machine);
}

TEST_F(StoreTest, AMachineOfOnePageIsRestored) {
    Machine machine = Machine::blank(1);
    machine.fill(0, 0, 9);
    ASSERT_TRUE(save(store_, machine, "a"));
    expect_restores("a", machine);
}

TEST_F(StoreTest, AMachineWithoutMemoryAndWithAnEmptyUnitIsRestored) {
    Machine machine;
    machine.units.push_back({"empty", 5, {}});
    ASSERT_TRUE(save(store_, machine, "a"));
    expect_restores("a", machine);
}

TEST_F(StoreTest, SaveRestoreSaveGivesTheSameDigests) {
    const Machine machine = mixed_machine(700, 100);
    const auto first = save(store_, machine, "a");
    const auto restored = restore(store_.directory(), "a", machine);
    ASSERT_TRUE(first && restored);
    const auto second = save(store_, *restored, "b");
    ASSERT_TRUE(second);
    EXPECT_EQ(first->machine_digest, second->machine_digest);
    EXPECT_EQ(first->memory_root, second->memory_root);
    EXPECT_EQ(second->new_pages, 0u);
}

TEST_F(StoreTest, ZeroPagesCostNothing) {
    const Machine machine = Machine::blank(20000);
    const auto report = save(store_, machine, "a");
    ASSERT_TRUE(report);
    EXPECT_EQ(report->zero_pages, 20000u);
    EXPECT_LT(report->bytes_written, 1000u);
    expect_restores("a", machine);
}

TEST_F(StoreTest, EqualPagesAreStoredOnce) {
    Machine machine = Machine::blank(1000);
    for (u64 i = 0; i < 1000; ++i) {
        machine.fill(0, i, static_cast<u32>(1 + i % 3));
    }
    const auto report = save(store_, machine, "a");
    ASSERT_TRUE(report);
    EXPECT_EQ(report->new_pages, 3u);
    EXPECT_EQ(store_.stat()->pages, 3u);
    expect_restores("a", machine);
}

TEST_F(StoreTest, ASecondSaveStoresOnlyWhatIsNew) {
    Machine machine = mixed_machine(3000, 0);
    ASSERT_TRUE(save(store_, machine, "a"));
    const Machine before = machine;
    machine.fill(0, 17, 0xabcdef);
    const auto report =
        save(store_, machine, "b", [](SaveRequest& request) { request.parent = "a"; });
    ASSERT_TRUE(report) << report.error().message;
    EXPECT_EQ(report->new_pages, 1u);
    expect_restores("a", before);
    expect_restores("b", machine);
    const auto a = store_.load("a");
    const auto b = store_.load("b");
    EXPECT_EQ(b->manifest().parent, a->manifest().digest);
    EXPECT_EQ(b->manifest().parent_tag, "a");
}

TEST_F(StoreTest, SinglePagesAreReadAndVerifiedOnDemand) {
    Machine machine = mixed_machine(5000, 300);
    ASSERT_TRUE(save(store_, machine, "a"));
    const auto snapshot = store_.load("a");
    ASSERT_TRUE(snapshot);
    PageReader reader = snapshot->page_reader();
    std::mt19937_64 random(3);
    for (int i = 0; i < 3000; ++i) {
        const std::size_t region = random() % 2;
        const u64 index = random() % (region == 0 ? 5000 : 300);
        const Gfn gfn = gfn_of(machine.memory[region].start) + index;
        const auto page = reader.page(gfn);
        ASSERT_TRUE(page) << page.error().message;
        ASSERT_EQ(std::memcmp(page->data(), machine.page(region, index), page_size), 0);
    }
    const auto outside = reader.page(Gfn(5000));
    ASSERT_FALSE(outside);
    EXPECT_EQ(outside.error().code, ErrorCode::usage);
}

TEST_F(StoreTest, ASnapshotStaysReadableWhenItsTagIsRemoved) {
    Machine machine = mixed_machine(400, 0);
    ASSERT_TRUE(save(store_, machine, "a"));
    const auto snapshot = store_.load("a");
    ASSERT_TRUE(store_.remove("a"));
    Machine copy = machine.garbled();
    EXPECT_TRUE(snapshot->read_all(copy.targets()));
    EXPECT_TRUE(copy.same_memory(machine));
    EXPECT_EQ(store_.load("a").error().code, ErrorCode::failed);
}

TEST_F(StoreTest, ATakenTagIsRefusedUnlessItIsToBeReplaced) {
    Machine machine = mixed_machine(100, 0);
    ASSERT_TRUE(save(store_, machine, "a"));
    const auto again = save(store_, machine, "a");
    ASSERT_FALSE(again);
    EXPECT_NE(again.error().message.find("already"), std::string::npos);
    machine.fill(0, 1, 77);
    ASSERT_TRUE(save(store_, machine, "a", [](SaveRequest& request) { request.replace = true; }));
    expect_restores("a", machine);
}

TEST_F(StoreTest, NonsenseIsAUsageError) {
    Machine machine = Machine::blank(4);
    for (const char* const tag : {"", ".", "../x", "a/b", "-x", "a b"}) {
        EXPECT_EQ(save(store_, machine, tag).error().code, ErrorCode::usage) << tag;
        EXPECT_EQ(store_.load(tag).error().code, ErrorCode::usage) << tag;
    }
    Machine twice = machine;
    twice.units.push_back(twice.units[0]);
    EXPECT_EQ(save(store_, twice, "a").error().code, ErrorCode::usage);
    Machine overlapping = machine;
    overlapping.memory.push_back({Gpa(page_size), std::vector<u8>(page_size)});
    EXPECT_EQ(save(store_, overlapping, "a").error().code, ErrorCode::usage);
    Machine odd = machine;
    odd.memory[0].bytes.resize(5000);
    EXPECT_EQ(save(store_, odd, "a").error().code, ErrorCode::usage);
    EXPECT_TRUE(store_.list()->empty());
}

TEST_F(StoreTest, MissingThingsAreNamed) {
    const auto none = store_.load("nothing");
    ASSERT_FALSE(none);
    EXPECT_EQ(none.error().code, ErrorCode::failed);
    EXPECT_NE(none.error().message.find("nothing"), std::string::npos);
    EXPECT_EQ(store_.remove("nothing").error().code, ErrorCode::failed);
    const auto no_store = Store::open(dir_ / "elsewhere", Store::Mode::existing);
    ASSERT_FALSE(no_store);
    EXPECT_NE(no_store.error().message.find("elsewhere"), std::string::npos);
    const auto no_parent =
        save(store_, Machine::blank(4), "a", [](SaveRequest& request) { request.parent = "lost"; });
    EXPECT_NE(no_parent.error().message.find("lost"), std::string::npos);
}

TEST_F(StoreTest, ListNamesAllSnapshotsAndWhatIsWrongWithDamagedOnes) {
    Machine machine = mixed_machine(10, 0);
    ASSERT_TRUE(save(store_, machine, "b"));
    machine.fill(0, 2, 4);
    ASSERT_TRUE(save(store_, machine, "a"));
    write_file(store_.directory() + "/refs/c", {'x'});
    const auto list = store_.list();
    ASSERT_TRUE(list);
    ASSERT_EQ(list->size(), 3u);
    EXPECT_EQ((*list)[0].tag, "a");
    EXPECT_EQ((*list)[1].manifest->provenance.creator, "test");
    EXPECT_FALSE((*list)[2].manifest);
    EXPECT_EQ((*list)[2].error->code, ErrorCode::corrupt);
}

TEST_F(StoreTest, ASecondWriterIsToldWhoHoldsTheStore) {
    const int fd = ::open((store_.directory() + "/writer.lock").c_str(), O_RDWR | O_CREAT, 0644);
    ASSERT_EQ(::flock(fd, LOCK_EX), 0);
    ASSERT_EQ(::write(fd, "pid 4711\n", 9), 9);
    const auto report = save(store_, Machine::blank(4), "a");
    ASSERT_FALSE(report);
    EXPECT_EQ(report.error().code, ErrorCode::failed);
    EXPECT_NE(report.error().message.find("held by pid 4711"), std::string::npos);
    EXPECT_FALSE(store_.remove("a"));
    EXPECT_TRUE(store_.list());
    ::close(fd);
    EXPECT_TRUE(save(store_, Machine::blank(4), "a"));
}

TEST_F(StoreTest, ACopyWithoutItsEmptyDirectoriesWorks) {
    const Machine machine = mixed_machine(100, 0);
    ASSERT_TRUE(save(store_, machine, "a"));
    for (const char* const directory : {"claims", "orders", "leases", "deferred"}) {
        std::filesystem::remove_all(store_.directory() + "/" + directory);
    }
    expect_restores("a", machine);
    EXPECT_TRUE(store_.gc());
    EXPECT_TRUE(store_.fsck()->findings.empty());
    EXPECT_TRUE(store_.claim(*store_.load("a"), "vm"));
}

TEST_F(StoreTest, AWriterWaitsWhenAskedTo) {
    const int fd = ::open((store_.directory() + "/writer.lock").c_str(), O_RDWR | O_CREAT, 0644);
    ASSERT_EQ(::flock(fd, LOCK_EX), 0);
    std::thread releaser([fd] {
        std::this_thread::sleep_for(std::chrono::milliseconds(50));
        ::close(fd);
    });
    const auto report = save(store_, Machine::blank(4), "a", [](SaveRequest& request) {
        request.wait_for_writer = std::chrono::seconds(20);
    });
    releaser.join();
    EXPECT_TRUE(report);
}

TEST_F(StoreTest, AnInterruptedSaveLeavesNothing) {
    const Machine machine = mixed_machine(20000, 0);
    const auto before = all_files(store_.directory());
    const auto report = save(store_, machine, "a", [](SaveRequest& request) {
        request.progress = [](u64 done, u64 total) { return done < total / 2; };
    });
    ASSERT_FALSE(report);
    EXPECT_NE(report.error().message.find("interrupted"), std::string::npos);
    EXPECT_TRUE(std::filesystem::is_empty(store_.directory() + "/packs"));
    EXPECT_TRUE(std::filesystem::is_empty(store_.directory() + "/refs"));
    EXPECT_TRUE(std::filesystem::is_empty(store_.directory() + "/manifests"));
}

TEST_F(StoreTest, ProgressEndsAtTheTotal) {
    const Machine machine = mixed_machine(3000, 200);
    u64 last = 0;
    u64 all = 0;
    ASSERT_TRUE(save(store_, machine, "a", [&](SaveRequest& request) {
        request.progress = [&](u64 done, u64 total) {
            EXPECT_GT(done, last);
            last = done;
            all = total;
            return true;
        };
    }));
    EXPECT_EQ(last, 3200 * page_size);
    EXPECT_EQ(last, all);
    last = 0;
    Machine copy = machine;
    ReadOptions options;
    options.progress = [&](u64 done, u64) { return (last = done) != 0; };
    ASSERT_TRUE(store_.load("a")->read_all(copy.targets(), options));
    EXPECT_EQ(last, 3200 * page_size);
}

TEST_F(StoreTest, ManySmallPacksAndAGrowingIndexHoldTheSame) {
    const u64 limit = std::exchange(SaveJob::pack_limit, u64{200} << 10);
    const u64 map = std::exchange(Index::initial_map_size, u64{32} << 10);
    const Machine machine = mixed_machine(2000, 600);
    const auto report = save(store_, machine, "a");
    ASSERT_TRUE(report) << report.error().message;
    ASSERT_TRUE(save(store_, machine, "b"));
    SaveJob::pack_limit = limit;
    Index::initial_map_size = map;
    EXPECT_GT(store_.stat()->packs, 2u);
    EXPECT_GT(report->index_bytes, u64{32} << 10);
    expect_restores("a", machine);
    expect_restores("b", machine);
    EXPECT_TRUE(store_.fsck()->findings.empty());
}

/// What LMDB calls MDB_MAP_RESIZED: a process whose map is smaller than another one has made it.
TEST_F(StoreTest, AnIndexThatAnotherProcessGrewIsReadAndGrownOn) {
    const u64 map = std::exchange(Index::initial_map_size, u64{32} << 10);
    const Machine mine = mixed_machine(300, 0);
    const Machine others = mixed_machine(4000, 600);
    ASSERT_TRUE(save(store_, mine, "before"));
    const u64 small = store_.stat()->index_bytes;
    const pid_t child = ::fork();
    if (child == 0) {
        Store other = make_store(store_.directory());
        ::_exit(save(other, others, "other") ? 0 : 1);
    }
    int status = -1;
    ::waitpid(child, &status, 0);
    ASSERT_EQ(status, 0);
    ASSERT_GT(store_.stat()->index_bytes, 2 * small);
    const auto known = save(store_, others, "known");
    ASSERT_TRUE(known) << known.error().message;
    EXPECT_EQ(known->new_pages, 0u);
    const Machine more = mixed_machine(9000, 2000);
    const auto grown = save(store_, more, "more");
    Index::initial_map_size = map;
    ASSERT_TRUE(grown) << grown.error().message;
    EXPECT_GT(grown->new_pages, 0u);
    expect_restores("before", mine);
    expect_restores("other", others);
    expect_restores("more", more);
    EXPECT_TRUE(store_.fsck()->findings.empty());
}

TEST_F(StoreTest, ALostIndexIsMadeAgainFromThePacks) {
    const Machine machine = mixed_machine(2000, 0);
    ASSERT_TRUE(save(store_, machine, "a"));
    std::filesystem::remove(store_.directory() + "/index.mdb");
    expect_restores("a", machine);
    const auto report = save(store_, machine, "b");
    ASSERT_TRUE(report);
    EXPECT_EQ(report->new_pages, 0u);
    EXPECT_TRUE(store_.fsck()->findings.empty());
}

/// Rewrites a file and counts the version at `at` up; `seal` puts its digest right again.
void count_version_up(const std::string& path, std::size_t at,
                      const std::function<void(std::string&)>& seal) {
    std::ifstream in(path, std::ios::binary);
    std::string bytes(std::istreambuf_iterator<char>(in), {});
    ASSERT_GT(bytes.size(), at);
    ++bytes[at];
    seal(bytes);
    std::ofstream(path, std::ios::binary) << bytes;
}

void seal_at(std::string& bytes, std::size_t at) {
    const Digest digest = sha256(std::as_bytes(std::span(bytes).first(at)));
    std::memcpy(bytes.data() + at, digest.bytes.data(), digest.bytes.size());
}

TEST_F(StoreTest, WhatANewerVersionWroteIsRefusedAsThat) {
    const auto saved = save(store_, mixed_machine(500, 0), "a");
    ASSERT_TRUE(saved);
    const auto text = [](std::string& bytes) {
        bytes = seal_text(bytes.substr(0, bytes.rfind("sha256 ")));
    };
    const auto last = [](std::string& bytes) { seal_at(bytes, bytes.size() - sizeof(Digest)); };
    const auto header = [](std::string& bytes) { seal_at(bytes, 32); };
    const struct {
        std::string path;
        std::size_t version;
        std::function<void(std::string&)> seal;
    } files[] = {
        {"/store", std::strlen("nestor store "), text},
        {"/refs/a", std::strlen("nestor reference "), text},
        {"/manifests/" + to_hex(saved->manifest), 8, last},
        {"/packs/00000001.pack", 8, header},
    };
    for (const auto& file : files) {
        const std::string copy = dir_ / "copy";
        std::filesystem::remove_all(copy);
        std::filesystem::copy(store_.directory(), copy, std::filesystem::copy_options::recursive);
        count_version_up(copy + file.path, file.version, file.seal);
        const auto restored = restore(copy, "a", Machine::blank(500));
        ASSERT_FALSE(restored) << file.path;
        EXPECT_EQ(restored.error().code, ErrorCode::incompatible) << restored.error().message;
        EXPECT_NE(restored.error().message.find("newer"), std::string::npos) << file.path;
        EXPECT_NE(restored.error().remedy.find("newer"), std::string::npos) << file.path;
    }
}

TEST_F(StoreTest, ALostPackIsCorruptAndDoesNotSpoilLaterSaves) {
    const Machine machine = mixed_machine(500, 0);
    ASSERT_TRUE(save(store_, machine, "a"));
    std::filesystem::remove(store_.directory() + "/packs/00000001.pack");
    Store fresh = make_store(store_.directory());
    EXPECT_EQ(fresh.load("a").error().code, ErrorCode::corrupt);
    ASSERT_TRUE(save(fresh, machine, "b"));
    expect_restores("b", machine);
}

TEST_F(StoreTest, ANodeThatReferredToALostPackIsNotUsedAgain) {
    Machine machine = mixed_machine(500, 0);
    ASSERT_TRUE(save(store_, machine, "a"));
    machine.fill(0, 3, 4711);
    ASSERT_TRUE(save(store_, machine, "b"));
    std::filesystem::remove(store_.directory() + "/packs/00000001.pack");
    for (const bool index_too : {false, true}) {
        if (index_too) {
            std::filesystem::remove(store_.directory() + "/index.mdb");
        }
        Store fresh = make_store(store_.directory());
        const std::string tag = index_too ? "d" : "c";
        ASSERT_TRUE(save(fresh, machine, tag));
        expect_restores(tag, machine);
    }
}

TEST_F(StoreTest, OtherRegionsThanTheSnapshotsAreAUsageError) {
    const Machine machine = mixed_machine(100, 20);
    ASSERT_TRUE(save(store_, machine, "a"));
    Machine smaller = Machine::blank(50, 20);
    EXPECT_EQ(store_.load("a")->read_all(smaller.targets()).error().code, ErrorCode::usage);
    Machine fewer = Machine::blank(100);
    EXPECT_EQ(store_.load("a")->read_all(fewer.targets()).error().code, ErrorCode::usage);
}

TEST_F(StoreTest, SeveralThreadsMayReadWhileOneSaves) {
    const Machine machine = mixed_machine(3000, 0);
    ASSERT_TRUE(save(store_, machine, "base"));
    std::atomic<bool> stop{false};
    std::atomic<int> reads{0};
    std::vector<std::thread> readers;
    for (int i = 0; i < 2; ++i) {
        readers.emplace_back([&] {
            while (!stop) {
                const auto restored = restore(store_.directory(), "base", machine);
                ASSERT_TRUE(restored);
                ASSERT_TRUE(restored->same_memory(machine));
                ++reads;
            }
        });
    }
    Machine changing = machine;
    for (u32 i = 0; i < 8; ++i) {
        changing.fill(0, i, 1000000 + i);
        EXPECT_TRUE(save(store_, changing, "s" + std::to_string(i)));
    }
    while (reads < 4) {
        std::this_thread::yield();
    }
    stop = true;
    for (std::thread& reader : readers) {
        reader.join();
    }
}

} // namespace
} // namespace nestor::snapshot::testing
