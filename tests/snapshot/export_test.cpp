// Snapshots as streams: they arrive as they were, cost nothing that is there already, and what is
// cut, damaged or lies is refused before a tag says anything.
#include <algorithm>
#include <cstring>

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include "src/base/fd.hpp"

#include "tests/snapshot/machine.hpp"
#include "tests/snapshot/stream_parts.hpp"

namespace nestor::snapshot::testing {
namespace {

Machine small_machine(u32 n) {
    Machine machine = Machine::blank(70, 5);
    std::mt19937_64 random(n);
    for (u32 i = 0; i < 6; ++i) {
        machine.fill(0, i * 13, i + 1);
    }
    machine.fill(1, 4, 1000 + n);
    machine.units[1].bytes[9] = static_cast<std::byte>(n);
    machine.add_images(77);
    return machine;
}

class ExportTest : public ::testing::Test {
protected:
    /// A stream of these tags of the first store.
    Bytes exported(const std::vector<std::string>& tags) {
        const std::string path = dir_ / "stream";
        {
            const Fd file(::open(path.c_str(), O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC, 0644));
            const auto report = store_.export_to(tags, file.get());
            EXPECT_TRUE(report) << report.error().message;
        }
        return file_bytes(path);
    }
    Result<ImportReport> import(Store& store, const Bytes& stream, const ImportOptions& o = {}) {
        const std::string path = dir_ / "import";
        write_file(path, stream);
        const Fd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
        return store.import_from(file.get(), o);
    }
    void expect_refused(const Bytes& stream, const std::string& what) {
        Store other = make_store(dir_ / "refused");
        const auto report = import(other, stream);
        ASSERT_FALSE(report) << what;
        EXPECT_EQ(report.error().code, ErrorCode::corrupt) << what << report.error().message;
        EXPECT_TRUE(other.list()->empty()) << what;
        EXPECT_EQ(other.stat()->packs, 0U) << what;
    }

    TempDir dir_{true};
    Store store_ = make_store(dir_ / "store");
};

TEST_F(ExportTest, SnapshotsArriveAsTheyWere) {
    ASSERT_TRUE(save(store_, small_machine(1), "one"));
    Machine large = Machine::blank(5000, 64);
    std::mt19937_64 random(1);
    for (u32 i = 0; i < 900; ++i) {
        large.fill_noise(0, i * 5, random);
    }
    const auto continues_one = [](SaveRequest& request) { request.parent = "one"; };
    ASSERT_TRUE(save(store_, large, "two", continues_one));
    Store other = make_store(dir_ / "other");
    const auto report = import(other, exported({"one", "two"}));
    ASSERT_TRUE(report) << report.error().message;
    EXPECT_EQ(report->tags, (std::vector<std::string>{"one", "two"}));
    EXPECT_EQ(report->pages, report->new_pages);
    for (const auto& [tag, machine] :
         {std::pair("one", small_machine(1)), std::pair("two", large)}) {
        EXPECT_EQ(other.load(tag)->manifest().digest, store_.load(tag)->manifest().digest);
        const auto restored = restore(dir_ / "other", tag, machine);
        ASSERT_TRUE(restored) << restored.error().message;
        EXPECT_TRUE(restored->same_memory(machine));
        EXPECT_EQ(sorted_units(restored->units), sorted_units(machine.units));
    }
    EXPECT_TRUE(other.fsck()->findings.empty());
}

TEST_F(ExportTest, WhatIsThereAlreadyCostsNothing) {
    ASSERT_TRUE(save(store_, small_machine(1), "one"));
    ASSERT_TRUE(save(store_, small_machine(2), "two"));
    Store other = make_store(dir_ / "other");
    ASSERT_TRUE(import(other, exported({"one"})));
    const auto second = import(other, exported({"two"}));
    ASSERT_TRUE(second);
    EXPECT_EQ(second->new_pages, 1U);
    ImportOptions again;
    again.as_tag = "again";
    const auto third = import(other, exported({"two"}), again);
    ASSERT_TRUE(third) << third.error().message;
    EXPECT_EQ(third->new_pages, 0U);
    EXPECT_EQ(other.load("again")->manifest().digest, store_.load("two")->manifest().digest);
    EXPECT_TRUE(restore(dir_ / "other", "again", small_machine(2))->same_memory(small_machine(2)));
}

TEST_F(ExportTest, EqualSnapshotsGiveEqualStreamsFromAnyStore) {
    ASSERT_TRUE(save(store_, small_machine(2), "before"));
    ASSERT_TRUE(save(store_, small_machine(1), "one"));
    Store other = make_store(dir_ / "other");
    const Bytes stream = exported({"one"});
    ASSERT_TRUE(import(other, stream));
    store_ = std::move(other);
    EXPECT_EQ(exported({"one"}), stream);
}

TEST_F(ExportTest, ATakenTagIsLeftAloneUnlessItIsToBeMoved) {
    ASSERT_TRUE(save(store_, small_machine(1), "tag"));
    const Bytes stream = exported({"tag"});
    Store other = make_store(dir_ / "other");
    ASSERT_TRUE(save(other, small_machine(2), "tag"));
    EXPECT_EQ(import(other, stream).error().code, ErrorCode::failed);
    EXPECT_TRUE(restore(dir_ / "other", "tag", small_machine(2))->same_memory(small_machine(2)));
    ImportOptions replace;
    replace.replace = true;
    ASSERT_TRUE(import(other, stream, replace));
    EXPECT_TRUE(restore(dir_ / "other", "tag", small_machine(1))->same_memory(small_machine(1)));
}

TEST_F(ExportTest, OneTagCannotNameSeveralSnapshots) {
    ASSERT_TRUE(save(store_, small_machine(1), "one"));
    ASSERT_TRUE(save(store_, small_machine(2), "two"));
    ImportOptions as;
    as.as_tag = "x";
    Store other = make_store(dir_ / "other");
    EXPECT_EQ(import(other, exported({"one", "two"}), as).error().code, ErrorCode::usage);
    EXPECT_EQ(store_.export_to(std::vector<std::string>{"one", "one"}, 1).error().code,
              ErrorCode::usage);
}

TEST_F(ExportTest, AStreamThatIsCutAnywhereIsRefused) {
    ASSERT_TRUE(save(store_, small_machine(1), "one"));
    const Bytes whole = exported({"one"});
    for (std::size_t size = 0; size < whole.size(); size += 41) {
        expect_refused(Bytes(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(size)),
                       "cut at " + std::to_string(size) + ": ");
    }
    Bytes longer = whole;
    longer.push_back('x');
    expect_refused(longer, "longer: ");
}

TEST_F(ExportTest, AFlippedBitAnywhereIsRefused) {
    ASSERT_TRUE(save(store_, small_machine(1), "one"));
    const Bytes whole = exported({"one"});
    for (std::size_t bit = 0; bit < 8 * whole.size(); bit += 53) {
        Bytes flipped = whole;
        flipped[bit / 8] = static_cast<char>(flipped[bit / 8] ^ (1 << bit % 8));
        Store other = make_store(dir_ / "refused");
        const auto report = import(other, flipped);
        ASSERT_FALSE(report) << "bit " << bit;
        EXPECT_TRUE(other.list()->empty()) << "bit " << bit;
    }
}

TEST_F(ExportTest, AStreamThatLiesWithRightSealsIsRefused) {
    ASSERT_TRUE(save(store_, small_machine(1), "one"));
    const Bytes whole = exported({"one"});
    const StreamParts parts(whole);
    ASSERT_EQ(parts.joined(), whole);
    // Pages, nodes of level 1, nodes of level 2 (of 70 pages), units.
    ASSERT_GE(parts.records.size(), 3U);
    for (std::size_t i = 0; i < parts.records.size(); ++i) {
        StreamParts without = parts;
        without.records.erase(without.records.begin() + static_cast<std::ptrdiff_t>(i));
        expect_refused(without.joined(), "without record " + std::to_string(i) + ": ");
    }
    StreamParts reversed = parts;
    std::reverse(reversed.records.begin(), reversed.records.end());
    expect_refused(reversed.joined(), "reversed: ");
    for (std::size_t i = 0; i < parts.records.size(); ++i) {
        StreamParts other_bytes = parts;
        other_bytes.change(i, [](auto&, auto& raw) { raw[17] ^= std::byte{1}; });
        expect_refused(other_bytes.joined(), "other bytes in record " + std::to_string(i) + ": ");
        StreamParts other_digest = parts;
        other_digest.change(i, [](auto& items, auto&) { items[0].digest.bytes[3] ^= 1; });
        expect_refused(other_digest.joined(), "other digest in record " + std::to_string(i) + ": ");
    }
    StreamParts zero_page = parts;
    zero_page.change(0, [](auto& items, auto& raw) {
        raw.resize(raw.size() + page_size);
        items.push_back({sha256(std::vector<std::byte>(page_size)), page_size});
    });
    expect_refused(zero_page.joined(), "a zero page: ");
}

TEST_F(ExportTest, AHeaderThatLiesIsRefused) {
    ASSERT_TRUE(save(store_, small_machine(1), "one"));
    const StreamParts parts(exported({"one"}));
    const auto with_count = [&](u32 count) {
        StreamParts lying = parts;
        auto header = StreamParts::load<StreamHeader>(lying.heads, 0);
        header.snapshots = count;
        header.digest = sha256(bytes_of(header).first(sizeof(header) - sizeof(Digest)));
        std::memcpy(lying.heads.data(), &header, sizeof(header));
        return lying.joined();
    };
    for (const u32 count : {0U, 2U, 70'000U, ~0U}) {
        expect_refused(with_count(count), std::to_string(count) + " snapshots: ");
    }
    StreamParts sizes = parts;
    auto entry = StreamParts::load<StreamEntry>(sizes.heads, sizeof(StreamHeader));
    entry.file_size = 60U << 20;
    std::memcpy(sizes.heads.data() + sizeof(StreamHeader), &entry, sizeof(entry));
    expect_refused(sizes.joined(), "a long manifest: ");
    StreamParts tag = parts;
    tag.heads[sizeof(StreamHeader) + sizeof(StreamEntry)] = '/';
    expect_refused(tag.joined(), "a tag with a slash: ");
    StreamParts twice = parts;
    twice.heads.insert(twice.heads.end(), parts.heads.begin() + sizeof(StreamHeader),
                       parts.heads.end());
    auto header = StreamParts::load<StreamHeader>(twice.heads, 0);
    header.snapshots = 2;
    header.digest = sha256(bytes_of(header).first(sizeof(header) - sizeof(Digest)));
    std::memcpy(twice.heads.data(), &header, sizeof(header));
    expect_refused(twice.joined(), "the same tag twice: ");
}

TEST_F(ExportTest, AnInterruptedImportLeavesNothing) {
    ASSERT_TRUE(save(store_, small_machine(1), "one"));
    const Bytes whole = exported({"one"});
    Store other = make_store(dir_ / "other");
    ImportOptions options;
    options.progress = [&](u64 done, u64) { return done < whole.size() / 2; };
    EXPECT_EQ(import(other, whole, options).error().code, ErrorCode::failed);
    EXPECT_TRUE(other.list()->empty());
    EXPECT_EQ(other.stat()->packs, 0U);
    EXPECT_TRUE(import(other, whole));
}

} // namespace
} // namespace nestor::snapshot::testing
