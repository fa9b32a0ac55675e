// Saves that know what was written since the last one, and saves of memory that changes meanwhile.
#include <algorithm>
#include <atomic>
#include <cstring>

#include <gtest/gtest.h>

#include "tests/snapshot/machine.hpp"

namespace nestor::snapshot::testing {
namespace {

/// Counts who asks for what.
class CountingSource final : public PageSource {
public:
    explicit CountingSource(const Machine& machine) : machine_(machine) {}

    Result<> read(Gfn page, std::span<std::byte, page_size> into) override {
        if (fail_at_ != 0 && reads_ + 1 >= fail_at_) {
            return fail(ErrorCode::failed, "the source is dry");
        }
        ++reads_;
        std::memcpy(into.data(), machine_.memory[0].bytes.data() + (page.value() << page_shift),
                    page_size);
        return {};
    }
    void passed(Gfn, u64 count) override { passed_ += count; }

    const Machine& machine_;
    std::atomic<u64> reads_{0};
    std::atomic<u64> passed_{0};
    u64 fail_at_ = 0;
};

class Incremental : public ::testing::Test {
protected:
    void SetUp() override {
        for (u64 i = 0; i < 2000; i += 2) {
            machine_.fill(0, i, static_cast<u32>(i + 1));
        }
    }

    Result<SaveReport> save_with(const std::string& tag, PageSource* source = nullptr,
                                 const std::string& parent = "auto") {
        return save(store_, machine_, tag, [&](SaveRequest& request) {
            request.digester = &digester_;
            request.source = source;
            request.parent = parent;
        });
    }
    void write(u64 page, u32 value) {
        machine_.fill(0, page, value);
        digester_.mark_dirty(Gfn(page));
    }
    void reset() {
        for (auto& memory : machine_.memory) {
            std::fill(memory.bytes.begin(), memory.bytes.end(), u8{0});
        }
        ASSERT_TRUE(digester_.assume_zero(machine_.regions()));
    }
    void expect_restores(const std::string& tag, const Machine& machine) {
        const auto restored = restore(store_.directory(), tag, machine);
        ASSERT_TRUE(restored) << restored.error().message;
        EXPECT_TRUE(restored->same_memory(machine));
    }

    TempDir dir_{true};
    Store store_ = make_store(dir_ / "store");
    Machine machine_ = Machine::blank(5000);
    MemoryDigester digester_;
};

TEST_F(Incremental, TheSecondSaveReadsAndWritesWhatIsDirty) {
    ASSERT_TRUE(save_with("a"));
    const Machine before = machine_;
    write(3, 70077);
    write(4000, 70078);
    CountingSource source(machine_);
    const auto report = save_with("b", &source);
    ASSERT_TRUE(report) << report.error().message;
    EXPECT_EQ(source.reads_, 2u);
    EXPECT_EQ(source.passed_, 5000u);
    EXPECT_EQ(report->dirty_pages, 2u);
    EXPECT_EQ(report->new_pages, 2u);
    EXPECT_EQ(report->parent, "a");
    EXPECT_LT(report->bytes_written, 40000u);
    expect_restores("a", before);
    expect_restores("b", machine_);
}

TEST_F(Incremental, ASeededDigesterNeedsNoPageOfTheSnapshot) {
    ASSERT_TRUE(save_with("a"));
    const auto snapshot = store_.load("a");
    ASSERT_TRUE(snapshot);
    ASSERT_TRUE(snapshot->seed(digester_));
    write(64, 99);
    CountingSource source(machine_);
    const auto report = save_with("b", &source);
    ASSERT_TRUE(report) << report.error().message;
    EXPECT_EQ(source.reads_, 1u);
    EXPECT_EQ(report->parent, "a");
    expect_restores("b", machine_);
}

TEST_F(Incremental, MemoryThatWasNeverWrittenIsNotRead) {
    Machine machine = Machine::blank(3000);
    const auto regions = machine.regions();
    MemoryDigester digester;
    ASSERT_TRUE(digester.assume_zero(regions));
    machine.fill(0, 70, 5);
    digester.mark_dirty(Gfn(70));
    CountingSource source(machine);
    const auto report = save(store_, machine, "a", [&](SaveRequest& request) {
        request.digester = &digester;
        request.source = &source;
    });
    ASSERT_TRUE(report) << report.error().message;
    EXPECT_EQ(source.reads_, 1u);
    EXPECT_EQ(report->memory_root, *memory_root(regions));
    expect_restores("a", machine);
}

TEST_F(Incremental, MemoryThatWasResetIsZeroWithoutALook) {
    ASSERT_TRUE(save_with("a"));
    const Machine before = machine_;
    reset();
    write(6, 7); // as it was: the base has it
    write(4000, 70077);
    CountingSource source(machine_);
    const auto report = save_with("b", &source);
    ASSERT_TRUE(report) << report.error().message;
    EXPECT_EQ(source.reads_, 2u);
    EXPECT_EQ(report->new_pages, 1u);
    EXPECT_EQ(report->zero_pages, 4998u);
    EXPECT_EQ(report->parent, "a");
    expect_restores("a", before);
    expect_restores("b", machine_);
}

TEST_F(Incremental, AutoFindsTheParentUnderItsNewName) {
    ASSERT_TRUE(save_with("a"));
    ASSERT_TRUE(store_.rename("a", "z"));
    write(0, 5);
    EXPECT_EQ(save_with("b")->parent, "z");
    EXPECT_EQ(save_with("c", nullptr, "none")->parent, "");
    EXPECT_EQ(save_with("d", nullptr, "z")->parent, "z");
}

TEST_F(Incremental, AnotherStoreGetsEverything) {
    ASSERT_TRUE(save_with("a"));
    Store other = make_store(dir_ / "other");
    const auto report = save(other, machine_, "a", [&](SaveRequest& request) {
        request.digester = &digester_;
        request.parent = "auto";
    });
    ASSERT_TRUE(report) << report.error().message;
    EXPECT_EQ(report->new_pages, 1000u);
    EXPECT_EQ(report->parent, "");
    const auto restored = restore(other.directory(), "a", machine_);
    ASSERT_TRUE(restored);
    EXPECT_TRUE(restored->same_memory(machine_));
}

TEST_F(Incremental, AFailedSaveLosesNoDirtyPage) {
    ASSERT_TRUE(save_with("a"));
    for (u64 i = 0; i < 3000; i += 7) {
        write(i, static_cast<u32>(i + 50000));
    }
    for (const u64 fail_at : {1u, 2u, 100u, 300u}) {
        CountingSource source(machine_);
        source.fail_at_ = fail_at;
        const auto failed = save_with("b", &source);
        ASSERT_FALSE(failed);
        EXPECT_NE(failed.error().message.find("dry"), std::string::npos);
        EXPECT_EQ(store_.list()->size(), 1u);
    }
    CountingSource source(machine_);
    const auto report = save_with("b", &source);
    ASSERT_TRUE(report) << report.error().message;
    expect_restores("b", machine_);
    EXPECT_EQ(report->memory_root, *memory_root(machine_.regions()));
}

TEST_F(Incremental, AnInterruptedSaveLosesNoDirtyPage) {
    ASSERT_TRUE(save_with("a"));
    for (u64 i = 0; i < 5000; i += 3) {
        write(i, static_cast<u32>(i + 50000));
    }
    const auto interrupted = save(store_, machine_, "b", [&](SaveRequest& request) {
        request.digester = &digester_;
        request.progress = [](u64 done, u64 total) { return done < total / 2; };
    });
    ASSERT_FALSE(interrupted);
    ASSERT_TRUE(save_with("b"));
    expect_restores("b", machine_);
}

TEST_F(Incremental, PagesThatReturnToWhatTheyWereCostNothing) {
    ASSERT_TRUE(save_with("a"));
    write(2, 123);
    ASSERT_TRUE(save_with("b"));
    write(2, 3); // as at first
    const auto report = save_with("c");
    ASSERT_TRUE(report);
    EXPECT_EQ(report->new_pages, 0u);
    expect_restores("c", machine_);
}

TEST_F(Incremental, PagesBecomeZeroAndComeBack) {
    ASSERT_TRUE(save_with("a"));
    for (u64 i = 0; i < 128; ++i) {
        std::memset(machine_.page(0, i), 0, page_size);
        digester_.mark_dirty(Gfn(i));
    }
    ASSERT_TRUE(save_with("b"));
    expect_restores("b", machine_);
    write(70, 4);
    ASSERT_TRUE(save_with("c"));
    expect_restores("c", machine_);
}

TEST_F(Incremental, AnIndexThatWasDamagedSinceTheLastSaveHarmsNone) {
    const std::string index = store_.directory() + "/index.mdb";
    ASSERT_TRUE(save_with("a"));
    for (const char* const tag : {"b", "c"}) {
        std::vector<char> bytes = file_bytes(index);
        for (std::size_t at = 2 * page_size; at < bytes.size(); at += 5) {
            bytes[at] = static_cast<char>(bytes[at] ^ 0x41);
        }
        write_file(index, bytes);
        write(40, static_cast<u32>(tag[0]));
        const auto report = save_with(tag);
        ASSERT_TRUE(report) << report.error().message;
        expect_restores(tag, machine_);
    }
    EXPECT_TRUE(store_.fsck()->findings.empty());
}

TEST_F(Incremental, TheRestOfAChainMayGo) {
    ASSERT_TRUE(save_with("a"));
    for (u32 i = 0; i < 20; ++i) {
        write(i * 100, 60000 + i);
        const std::string tag = "s" + std::to_string(i);
        ASSERT_TRUE(save_with(tag));
        ASSERT_TRUE(store_.remove(i == 0 ? "a" : "s" + std::to_string(i - 1)));
        expect_restores(tag, machine_);
    }
    EXPECT_TRUE(store_.fsck()->findings.empty());
}

} // namespace
} // namespace nestor::snapshot::testing
