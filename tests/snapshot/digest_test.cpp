// What the digests cover, and that keeping page digests gives what computing them afresh gives.
#include <algorithm>
#include <cstring>
#include <filesystem>

#include <gtest/gtest.h>

#include "snapshot/memory_map.hpp"
#include "src/base/digest_pages.hpp"
#include "tests/snapshot/machine.hpp"

namespace nestor::snapshot::testing {
namespace {

Digest machine_digest_of(const Machine& machine) {
    return machine_digest(machine.contract, machine.units, *memory_root(machine.regions()));
}

TEST(Digest, RunsDigestedTogetherHaveTheDigestsThatTheyHaveAlone) {
    std::vector<std::byte> bytes(5 * page_size);
    for (std::size_t i = 0; i < bytes.size(); ++i) {
        bytes[i] = static_cast<std::byte>(i * i >> 7 ^ i);
    }
    for (const std::size_t size : {std::size_t{0}, std::size_t{64}, std::size_t{192}, page_size}) {
        for (std::size_t count = 0; count <= 5; ++count) {
            std::vector<const std::byte*> runs;
            for (std::size_t i = 0; i < count; ++i) {
                runs.push_back(bytes.data() + i * (page_size - 7));
            }
            std::vector<Digest> together(count);
            sha256_each(runs, size, together);
            for (std::size_t i = 0; i < count; ++i) {
                EXPECT_EQ(together[i], sha256({runs[i], size})) << i << " of " << size;
            }
        }
    }
}

TEST(Digest, TheMachineDigestDoesNotDependOnTheOrderOfUnitsAndRegions) {
    Machine machine = Machine::blank(10, 10);
    machine.fill(1, 3, 5);
    const Digest digest = machine_digest_of(machine);
    std::reverse(machine.units.begin(), machine.units.end());
    std::reverse(machine.memory.begin(), machine.memory.end());
    EXPECT_EQ(machine_digest_of(machine), digest);
}

TEST(Digest, TheMachineDigestCoversContractUnitsAndMemory) {
    const Machine machine = Machine::blank(100, 10);
    const Digest digest = machine_digest_of(machine);
    Machine other = machine;
    other.contract.bytes[0] = std::byte{9};
    EXPECT_NE(machine_digest_of(other), digest);
    other = machine;
    other.contract.type += 1;
    EXPECT_NE(machine_digest_of(other), digest);
    other = machine;
    other.units[1].bytes[39] = std::byte{1};
    EXPECT_NE(machine_digest_of(other), digest);
    other = machine;
    other.units[1].name += "x";
    EXPECT_NE(machine_digest_of(other), digest);
    other = machine;
    other.units[1].type += 1;
    EXPECT_NE(machine_digest_of(other), digest);
    other = machine;
    other.page(1, 9)[4095] = 1;
    EXPECT_NE(machine_digest_of(other), digest);
    other = machine;
    other.memory[1].bytes.resize(11 * page_size);
    EXPECT_NE(machine_digest_of(other), digest);
    other = machine;
    other.memory[1].start = Gpa(u64{2} << 32);
    EXPECT_NE(machine_digest_of(other), digest);
}

TEST(Digest, APageThatMovesChangesTheRoot) {
    Machine a = Machine::blank(10000);
    Machine b = a;
    a.fill(0, 63, 1);
    b.fill(0, 64, 1);
    EXPECT_NE(*memory_root(a.regions()), *memory_root(b.regions()));
}

TEST(Digest, KeptDigestsAgreeWithFreshOnesAfterRandomWrites) {
    Machine machine = Machine::blank(9000, 70);
    MemoryDigester digester;
    std::mt19937_64 random(11);
    for (int round = 0; round < 30; ++round) {
        for (u64 i = random() % 400; i > 0; --i) {
            const std::size_t region = random() % 8 == 0 ? 1 : 0;
            const u64 page = random() % (region == 0 ? 9000 : 70);
            if (random() % 4 == 0) {
                std::memset(machine.page(region, page), 0, page_size);
            } else {
                machine.fill(region, page, static_cast<u32>(random()));
            }
            digester.mark_dirty(gfn_of(machine.memory[region].start) + page);
        }
        const auto root = digester.root(machine.regions());
        ASSERT_TRUE(root);
        ASSERT_EQ(*root, *memory_root(machine.regions(), 1)) << "round " << round;
    }
}

TEST(Digest, RunsOfDirtyPagesAreCutToTheRegions) {
    Machine machine = Machine::blank(130, 70);
    MemoryDigester digester;
    ASSERT_TRUE(digester.root(machine.regions()));
    machine.fill(0, 129, 1);
    machine.fill(1, 0, 1);
    digester.mark_dirty(Gfn(100), u64{1} << 40);
    EXPECT_EQ(*digester.root(machine.regions()), *memory_root(machine.regions()));
}

TEST(Digest, ADigesterRefusesRegionsOfAnotherShape) {
    MemoryDigester digester;
    ASSERT_TRUE(digester.root(Machine::blank(10).regions()));
    const auto root = digester.root(Machine::blank(11).regions());
    ASSERT_FALSE(root);
    EXPECT_EQ(root.error().code, ErrorCode::usage);
}

TEST(Digest, ASaveWithKeptDigestsIsTheSameAsOneWithout) {
    const TempDir dir;
    Store store = make_store(dir / "store");
    Machine machine = Machine::blank(3000);
    for (u64 i = 0; i < 3000; i += 2) {
        machine.fill(0, i, static_cast<u32>(i + 1));
    }
    MemoryDigester digester;
    ASSERT_TRUE(digester.root(machine.regions()));
    machine.fill(0, 1234, 42);
    digester.mark_dirty(Gfn(1234));
    const auto kept =
        save(store, machine, "a", [&](SaveRequest& request) { request.digester = &digester; });
    ASSERT_TRUE(kept) << kept.error().message;
    const auto fresh = save(store, machine, "b");
    ASSERT_TRUE(fresh);
    EXPECT_EQ(kept->machine_digest, fresh->machine_digest);
    const auto restored = restore(store.directory(), "a", machine);
    ASSERT_TRUE(restored);
    EXPECT_TRUE(restored->same_memory(machine));
}

TEST(Digest, ADigesterSeededFromASnapshotKnowsItsPages) {
    const TempDir dir;
    Store store = make_store(dir / "store");
    Machine machine = Machine::blank(9000, 70);
    for (u64 i = 0; i < 9000; i += 7) {
        machine.fill(0, i, static_cast<u32>(i + 1));
    }
    machine.fill(1, 69, 5);
    const auto first = save(store, machine, "a");
    ASSERT_TRUE(first);
    MemoryDigester digester;
    ASSERT_TRUE(store.load("a")->seed(digester));
    // The pages are not looked at: garbage in their place goes unnoticed.
    const Machine garbage = machine.garbled();
    EXPECT_EQ(*digester.root(garbage.regions()), first->memory_root);
    machine.fill(0, 8999, 77);
    digester.mark_dirty(Gfn(8999));
    EXPECT_EQ(*digester.root(machine.regions()), *memory_root(machine.regions()));
}

TEST(Digest, ASaveRefersToPagesThatWereNeverReadByTheirDigest) {
    const TempDir dir;
    Store store = make_store(dir / "store");
    Machine machine = Machine::blank(3000);
    for (u64 i = 0; i < 3000; i += 2) {
        machine.fill(0, i, static_cast<u32>(i + 1));
    }
    ASSERT_TRUE(save(store, machine, "a"));
    MemoryDigester digester;
    ASSERT_TRUE(store.load("a")->seed(digester));
    machine.fill(0, 5, 99999);
    Machine absent = machine.garbled();
    std::memcpy(absent.page(0, 5), machine.page(0, 5), page_size);
    digester.mark_dirty(Gfn(5));
    const auto report =
        save(store, absent, "b", [&](SaveRequest& request) { request.digester = &digester; });
    ASSERT_TRUE(report) << report.error().message;
    EXPECT_EQ(report->new_pages, 1u);
    const auto restored = restore(store.directory(), "b", machine);
    ASSERT_TRUE(restored);
    EXPECT_TRUE(restored->same_memory(machine));
}

TEST(Digest, ASaveThatNeedsAPageThatIsNowhereFails) {
    const TempDir dir;
    Store store = make_store(dir / "store");
    Machine machine = Machine::blank(100);
    machine.fill(0, 7, 1);
    ASSERT_TRUE(save(store, machine, "a"));
    MemoryDigester digester;
    ASSERT_TRUE(store.load("a")->seed(digester));
    std::filesystem::remove(store.directory() + "/packs/00000001.pack");
    Store fresh = make_store(store.directory());
    const auto report = save(fresh, machine.garbled(), "b",
                             [&](SaveRequest& request) { request.digester = &digester; });
    ASSERT_FALSE(report);
    EXPECT_EQ(report.error().code, ErrorCode::corrupt);
}

TEST(Digest, TreesHaveTheRightNumberOfLevels) {
    EXPECT_EQ(map_levels(1), 1u);
    EXPECT_EQ(map_levels(64), 1u);
    EXPECT_EQ(map_levels(65), 2u);
    EXPECT_EQ(map_levels(64 * 64), 2u);
    EXPECT_EQ(map_levels(64 * 64 + 1), 3u);
    EXPECT_EQ(map_levels(u64{1} << 40), 7u);
    EXPECT_EQ(map_width(65, 1), 2u);
    EXPECT_EQ(map_width(64 * 64 + 1, 2), 2u);
}

} // namespace
} // namespace nestor::snapshot::testing
