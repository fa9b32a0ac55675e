// Stores that someone or something has changed: a flipped bit anywhere, files cut at any length,
// files missing or exchanged. A load is bit-exact or corrupt, never anything else.
#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include "src/base/log.hpp"

#include "snapshot/lmdb_check.hpp"
#include "tests/snapshot/machine.hpp"

namespace nestor::snapshot::testing {
namespace {

#ifdef __SANITIZE_ADDRESS__
constexpr std::size_t thin_out = 10; // of everything that is done bit by bit
#else
constexpr std::size_t thin_out = 1;
#endif

/// A store with two small snapshots that share pages.
class HostileStore : public ::testing::Test {
protected:
    void SetUp() override {
        set_log_level(LogLevel::error);
        machine_ = Machine::blank(200, 70);
        std::mt19937_64 random(5);
        machine_.fill(0, 3, 1);
        machine_.fill(0, 70, 2);
        machine_.fill(0, 199, 3);
        machine_.fill(1, 69, 4);
        machine_.add_images(5);
        Machine other = machine_;
        other.fill(0, 4, 9);
        other.add_images(6);
        Store store = make_store(path_);
        ASSERT_TRUE(save(store, other, "other"));
        const auto report = save(store, machine_, "a");
        ASSERT_TRUE(report);
        digest_ = report->machine_digest;
        ASSERT_TRUE(exact());
    }
    void TearDown() override { set_log_level(LogLevel::warning); }

    /// Whether the load fails as corrupt; a wrong byte or another error fails the test.
    [[nodiscard]] bool corrupt(const std::string& what) {
        const auto restored = restore(path_, "a", machine_);
        if (!restored) {
            EXPECT_EQ(restored.error().code, ErrorCode::corrupt)
                << what << ": " << restored.error().message;
            return true;
        }
        EXPECT_TRUE(restored->same_memory(machine_)) << what << ": a wrong byte";
        EXPECT_EQ(restored->units, sorted_units(machine_.units)) << what << ": a wrong unit";
        EXPECT_EQ(restored->contract, machine_.contract) << what;
        return false;
    }
    [[nodiscard]] bool exact() { return !corrupt("an unharmed store"); }

    [[nodiscard]] std::vector<std::string> files_read_by_load() const {
        std::vector<std::string> files;
        for (const std::string& file : all_files(path_)) {
            if (!file.ends_with("index.mdb") && !file.ends_with("writer.lock")) {
                files.push_back(file);
            }
        }
        EXPECT_GE(files.size(), 7u); // store, 2 packs, 2 manifests, 2 references
        return files;
    }

    /// Whether the load of "a" needs this file.
    [[nodiscard]] bool is_read(const std::string& file) {
        const std::string away = dir_ / "away";
        std::filesystem::rename(file, away);
        const bool read = !restore(path_, "a", machine_);
        std::filesystem::rename(away, file);
        return read;
    }

    TempDir dir_{true};
    std::string path_ = dir_ / "store";
    Machine machine_;
    Digest digest_;
};

TEST_F(HostileStore, EveryFlippedBitIsBitExactOrCorrupt) {
    std::size_t detected = 0;
    std::size_t harmless = 0;
    for (const std::string& file : files_read_by_load()) {
        const std::vector<char> original = file_bytes(file);
        // Of a file that this load does not read, a sample is enough.
        const std::size_t step = is_read(file) ? thin_out : 7 * thin_out;
        std::fstream out(file, std::ios::binary | std::ios::in | std::ios::out);
        for (std::size_t i = 0; i < original.size(); i += step) {
            for (int bit = 0; bit < 8; ++bit) {
                const auto put = [&](char c) {
                    out.seekp(static_cast<std::streamoff>(i));
                    out.put(c);
                    out.flush();
                };
                put(static_cast<char>(original[i] ^ (1 << bit)));
                (corrupt(file + " byte " + std::to_string(i) + " bit " + std::to_string(bit))
                     ? detected
                     : harmless) += 1;
                put(original[i]);
            }
        }
        ASSERT_FALSE(HasFailure());
    }
    EXPECT_GT(detected, 10000u / thin_out);
    RecordProperty("detected", static_cast<int>(detected));
    RecordProperty("harmless", static_cast<int>(harmless));
    EXPECT_TRUE(exact());
}

/// Whether fsck names "a" exactly when it cannot be restored, for a store that was harmed; whether
/// it found anything.
bool fsck_agrees(const std::string& path, bool a_is_corrupt, const std::string& what) {
    const auto store = Store::open(path, Store::Mode::existing);
    if (!store) {
        EXPECT_EQ(store.error().code, ErrorCode::corrupt) << what;
        return true;
    }
    const auto report = store->fsck();
    EXPECT_TRUE(report) << what << ": " << report.error().message;
    if (!report) {
        return false;
    }
    const auto& tags = report->damaged_tags;
    const bool named = std::find(tags.begin(), tags.end(), "a") != tags.end();
    EXPECT_EQ(named, a_is_corrupt) << what;
    bool blamed = !named;
    for (const auto& finding : report->findings) {
        blamed = blamed ||
                 std::find(finding.tags.begin(), finding.tags.end(), "a") != finding.tags.end();
    }
    EXPECT_TRUE(blamed) << what << ": no finding names the snapshot";
    return !report->findings.empty();
}

TEST_F(HostileStore, FsckFindsFlippedBitsAndNamesTheSnapshotsTheyTouch) {
    for (const std::string& file : files_read_by_load()) {
        const std::vector<char> original = file_bytes(file);
        // Every seventh byte at a bit that differs from byte to byte, or every bit.
        const bool all = std::getenv("NESTOR_EXHAUSTIVE") != nullptr;
        const std::size_t step = all ? 1 : 57 * thin_out;
        for (std::size_t i = 0; i < 8 * original.size(); i += step) {
            std::vector<char> bytes = original;
            bytes[i / 8] = static_cast<char>(bytes[i / 8] ^ (1 << i % 8));
            write_file(file, bytes);
            const std::string what = file + " bit " + std::to_string(i);
            ASSERT_TRUE(fsck_agrees(path_, corrupt(what), what)) << what;
            ASSERT_FALSE(HasFailure());
        }
        write_file(file, original);
    }
    EXPECT_TRUE(make_store(path_).fsck()->findings.empty());
}

TEST_F(HostileStore, FsckSaysWhichSnapshotsAreDamaged) {
    std::vector<char> bytes = file_bytes(path_ + "/refs/a");
    bytes[40] ^= 1;
    write_file(path_ + "/refs/a", bytes);
    const auto report = make_store(path_).fsck();
    ASSERT_TRUE(report);
    EXPECT_EQ(report->damaged_tags, std::vector<std::string>{"a"});
}

TEST_F(HostileStore, FsckBlamesALostPackForAllThatNeedIt) {
    std::filesystem::remove(path_ + "/packs/00000001.pack");
    const auto report = make_store(path_).fsck();
    ASSERT_TRUE(report);
    EXPECT_EQ(report->damaged_tags, (std::vector<std::string>{"a", "other"}));
    ASSERT_FALSE(report->findings.empty());
    EXPECT_NE(report->findings[0].what.find("missing"), std::string::npos);
    EXPECT_EQ(report->findings[0].tags, (std::vector<std::string>{"a", "other"}));
}

TEST_F(HostileStore, FsckMakesABrokenOrLostIndexAgain) {
    const std::string index = path_ + "/index.mdb";
    std::vector<char> bytes = file_bytes(index);
    std::fill(bytes.begin() + 4096, bytes.begin() + 4200, '\x55');
    for (const bool lost : {false, true}) {
        if (lost) {
            std::filesystem::remove(index);
        } else {
            write_file(index, bytes);
            EXPECT_FALSE(make_store(path_).fsck()->findings.empty());
        }
        FsckOptions options;
        options.repair = true;
        const auto report = make_store(path_).fsck(options);
        ASSERT_TRUE(report);
        ASSERT_EQ(report->findings.size(), 1u);
        EXPECT_TRUE(report->findings[0].repaired);
        EXPECT_TRUE(make_store(path_).fsck()->findings.empty());
        Store store = make_store(path_);
        EXPECT_EQ(save(store, machine_, lost ? "y" : "x")->new_pages, 0u);
    }
}

TEST_F(HostileStore, AFileCutAtAnyLengthIsCorrupt) {
    for (const std::string& file : files_read_by_load()) {
        const std::vector<char> original = file_bytes(file);
        bool needed = false;
        for (std::size_t length = 0; length < original.size(); length += thin_out) {
            write_file(file,
                       {original.begin(), original.begin() + static_cast<std::ptrdiff_t>(length)});
            const bool detected = corrupt(file + " cut to " + std::to_string(length));
            if (length == 0) {
                needed = detected;
            }
            ASSERT_EQ(detected, needed) << file << " cut to " << length;
        }
        write_file(file, original);
    }
    EXPECT_TRUE(exact());
}

TEST_F(HostileStore, AFileThatGrewIsCorruptOrUnread) {
    for (const std::string& file : files_read_by_load()) {
        const std::vector<char> original = file_bytes(file);
        std::vector<char> longer = original;
        longer.insert(longer.end(), 100, 'x');
        write_file(file, longer);
        (void)corrupt(file + " with a tail");
        write_file(file, original);
    }
    EXPECT_TRUE(exact());
}

TEST_F(HostileStore, AMissingFileIsCorruptOrUnread) {
    for (const std::string& file : files_read_by_load()) {
        if (file.ends_with("/store") || file.ends_with("/refs/a")) {
            continue; // then there is no store or no such snapshot, which is another error
        }
        const std::vector<char> original = file_bytes(file);
        std::filesystem::remove(file);
        (void)corrupt(file + " missing");
        write_file(file, original);
    }
    EXPECT_TRUE(exact());
}

TEST_F(HostileStore, AReferenceUnderAnotherNameIsCorrupt) {
    std::filesystem::copy_file(path_ + "/refs/other", path_ + "/refs/a",
                               std::filesystem::copy_options::overwrite_existing);
    EXPECT_TRUE(corrupt("an exchanged reference"));
}

TEST_F(HostileStore, AManifestUnderAnotherNameIsCorrupt) {
    const auto manifests = all_files(path_ + "/manifests");
    ASSERT_EQ(manifests.size(), 2u);
    const auto first = file_bytes(manifests[0]);
    write_file(manifests[0], file_bytes(manifests[1]));
    write_file(manifests[1], first);
    EXPECT_TRUE(corrupt("an exchanged manifest"));
}

TEST_F(HostileStore, ABitFlippedInThePagesIsFoundByThePageReaderToo) {
    const auto packs = all_files(path_ + "/packs");
    for (const std::string& file : packs) {
        std::vector<char> bytes = file_bytes(file);
        for (std::size_t i = 100; i + 200 < bytes.size(); i += 37) {
            bytes[i] ^= 16;
        }
        write_file(file, bytes);
    }
    const Store store = make_store(path_);
    const auto snapshot = store.load("a");
    if (!snapshot) {
        EXPECT_EQ(snapshot.error().code, ErrorCode::corrupt);
        return;
    }
    PageReader reader = snapshot->page_reader();
    const auto page = reader.page(Gfn(3));
    ASSERT_FALSE(page);
    EXPECT_EQ(page.error().code, ErrorCode::corrupt);
}

/// Runs `body` in a child process and says whether it ended with status 0.
bool survives(const std::function<bool()>& body) {
    const pid_t child = ::fork();
    if (child == 0) {
        ::_exit(body() ? 0 : 1);
    }
    int status = 0;
    ::waitpid(child, &status, 0);
    return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

/// Saves into the store, then restores what was there before and what is new.
bool save_and_restore(const std::string& path, const Machine& machine) {
    Store store = make_store(path);
    Machine next = machine;
    next.fill(0, 100, 4242);
    if (!save(store, next, "new")) {
        return false;
    }
    const auto old_one = restore(path, "a", machine);
    const auto new_one = restore(path, "new", machine);
    return old_one && new_one && old_one->same_memory(machine) && new_one->same_memory(next);
}

TEST_F(HostileStore, AFlippedBitInTheIndexHarmsNoSave) {
    const std::string index = path_ + "/index.mdb";
    const std::vector<char> original = file_bytes(index);
    const auto as_bytes = [](const std::vector<char>& v) { return std::as_bytes(std::span(v)); };
    ASSERT_TRUE(check_lmdb(as_bytes(original)));
    // What the walk lets pass is where the library could still go wrong; of the rest, a sample.
    std::vector<std::size_t> passed;
    std::vector<std::size_t> sample;
    std::vector<char> bytes = original;
    for (std::size_t i = 0; i < bytes.size() * 8; ++i) {
        bytes[i / 8] ^= static_cast<char>(1 << i % 8);
        if (check_lmdb(as_bytes(bytes))) {
            passed.push_back(i);
        } else {
            sample.push_back(i);
        }
        bytes[i / 8] = original[i / 8];
    }
    ASSERT_FALSE(sample.empty());
    std::mt19937_64 random(2);
    std::shuffle(passed.begin(), passed.end(), random);
    std::shuffle(sample.begin(), sample.end(), random);
    passed.resize(std::min<std::size_t>(passed.size(), 250 / thin_out));
    sample.resize(std::min<std::size_t>(sample.size(), 50 / thin_out));
    sample.insert(sample.end(), passed.begin(), passed.end());
    for (const std::size_t i : sample) {
        const std::string copy = dir_ / "copy";
        std::filesystem::copy(path_, copy, std::filesystem::copy_options::recursive);
        bytes[i / 8] ^= static_cast<char>(1 << i % 8);
        write_file(copy + "/index.mdb", bytes);
        bytes[i / 8] = original[i / 8];
        EXPECT_TRUE(survives([&] { return save_and_restore(copy, machine_); }))
            << "index byte " << i / 8 << " bit " << i % 8;
        std::filesystem::remove_all(copy);
    }
}

TEST_F(HostileStore, AnIndexCutAtAnyPageHarmsNoSave) {
    const std::vector<char> original = file_bytes(path_ + "/index.mdb");
    for (std::size_t length = 0; length < original.size(); length += 1024) {
        const std::string copy = dir_ / "copy";
        std::filesystem::copy(path_, copy, std::filesystem::copy_options::recursive);
        write_file(copy + "/index.mdb",
                   {original.begin(), original.begin() + static_cast<long>(length)});
        EXPECT_TRUE(survives([&] { return save_and_restore(copy, machine_); })) << length;
        std::filesystem::remove_all(copy);
    }
}

TEST_F(HostileStore, FlippedBitsInALargeIndexAreFoundOrHarmNothing) {
    // Enough entries for branch pages, free lists and overflow pages.
    Machine machine = Machine::blank(6000);
    for (u64 i = 0; i < 6000; ++i) {
        machine.fill(0, i, static_cast<u32>(i + 10));
    }
    Store store = make_store(path_);
    ASSERT_TRUE(save(store, machine, "x0"));
    for (u32 round = 1; round < 6; ++round) {
        for (u32 i = 0; i < 300; ++i) {
            machine.fill(0, (i * 17) % 6000, 100000 * round + i);
        }
        ASSERT_TRUE(save(store, machine, "x" + std::to_string(round)));
    }
    const std::string index = path_ + "/index.mdb";
    std::vector<char> bytes = file_bytes(index);
    ASSERT_TRUE(check_lmdb(std::as_bytes(std::span(bytes))));
    std::mt19937_64 random(3);
    std::size_t found = 0;
    int saves = 0;
    for (int i = 0; i < 4000; ++i) {
        const std::size_t bit = random() % (bytes.size() * 8);
        bytes[bit / 8] ^= static_cast<char>(1 << bit % 8);
        if (!check_lmdb(std::as_bytes(std::span(bytes)))) {
            ++found;
        } else if (saves * 200 < i) {
            ++saves;
            const std::string copy = dir_ / "copy";
            std::filesystem::copy(path_, copy, std::filesystem::copy_options::recursive);
            write_file(copy + "/index.mdb", bytes);
            EXPECT_TRUE(survives([&] { return save_and_restore(copy, machine_); }))
                << "index bit " << bit;
            std::filesystem::remove_all(copy);
        }
        bytes[bit / 8] ^= static_cast<char>(1 << bit % 8);
    }
    EXPECT_GT(found, 50u);
    EXPECT_GT(saves, 5);
}

} // namespace
} // namespace nestor::snapshot::testing
