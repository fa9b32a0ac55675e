// Saves that do not wait for the disk, and what is left of them when the host goes down.
#include <algorithm>
#include <cstring>
#include <filesystem>

#include <gtest/gtest.h>

#include "src/base/log.hpp"

#include "snapshot/deferred.hpp"
#include "snapshot/files.hpp"
#include "snapshot/format.hpp"
#include "snapshot/manifest.hpp"
#include "tests/snapshot/machine.hpp"

namespace nestor::snapshot::testing {
namespace {

class Deferred : public ::testing::Test {
protected:
    void SetUp() override {
        set_log_level(LogLevel::error);
        start_host("one");
        boot_id_file = dir_ / "boot_id";
        machine_.fill(0, 3, 1);
        ASSERT_TRUE(save(store_, machine_, "a"));
        machine_.fill(0, 4, 2);
        ASSERT_TRUE(save_deferred("b"));
    }
    void TearDown() override {
        boot_id_file = usual_;
        set_log_level(LogLevel::warning);
    }

    void start_host(const std::string& id) {
        const std::string line = id + "\n";
        write_file(dir_ / "boot_id", {line.begin(), line.end()});
    }
    Result<SaveReport> save_deferred(const std::string& tag, bool replace = false) {
        return save(store_, machine_, tag, [&](SaveRequest& request) {
            request.durability = Durability::deferred;
            request.replace = replace;
        });
    }
    [[nodiscard]] std::vector<std::string> tags() const {
        std::vector<std::string> tags;
        const auto list = Store::open(store_.directory(), Store::Mode::existing)->list();
        for (const auto& entry : *list) {
            tags.push_back(entry.tag);
        }
        return tags;
    }
    /// The manifest of `tag` as a later version would write it, beside the old one.
    Digest put_newer(const std::string& tag) {
        const Digest digest = store_.load(tag)->manifest().digest;
        const auto file = file_bytes(store_.directory() + "/manifests/" + to_hex(digest));
        PlacedManifest newer = *decode_manifest(std::as_bytes(std::span(file)), digest);
        newer.manifest.format = format_version + 1;
        const auto bytes = encode_manifest(newer);
        const Layout layout(store_.directory());
        EXPECT_TRUE(replace_file(layout.manifests(), to_hex(newer.manifest.digest), bytes));
        return newer.manifest.digest;
    }
    void expect_restores(const std::string& tag) {
        const auto restored = restore(store_.directory(), tag, machine_);
        ASSERT_TRUE(restored) << restored.error().message;
        EXPECT_TRUE(restored->same_memory(machine_));
    }
    /// The newest pack, which only "b" needs.
    [[nodiscard]] std::string last_pack() const {
        return all_files(store_.directory() + "/packs").back();
    }

    std::string usual_ = boot_id_file;
    TempDir dir_{true};
    Store store_ = make_store(dir_ / "store");
    Machine machine_ = Machine::blank(200);
};

TEST_F(Deferred, ADeferredSnapshotIsThereAtOnce) {
    EXPECT_EQ(tags(), (std::vector<std::string>{"a", "b"}));
    const auto list = *store_.list();
    EXPECT_FALSE(list[0].deferred);
    EXPECT_TRUE(list[1].deferred);
    expect_restores("b");
    EXPECT_FALSE(save_deferred("b")) << "its tag is taken";
}

TEST_F(Deferred, SyncMakesItLikeAnyOther) {
    ASSERT_TRUE(store_.sync());
    EXPECT_FALSE((*store_.list())[1].deferred);
    EXPECT_FALSE(std::filesystem::exists(store_.directory() + "/unsynced"));
    start_host("two");
    expect_restores("b");
}

TEST_F(Deferred, ALaterCommitMakesItDurableToo) {
    ASSERT_TRUE(save(store_, machine_, "c"));
    const auto list = store_.list();
    for (const auto& entry : *list) {
        EXPECT_FALSE(entry.deferred) << entry.tag;
    }
}

TEST_F(Deferred, WhatSurvivedTheHostStays) {
    start_host("two");
    EXPECT_EQ(tags(), (std::vector<std::string>{"a", "b"}));
    expect_restores("b");
    EXPECT_FALSE(std::filesystem::exists(store_.directory() + "/unsynced"));
    EXPECT_TRUE(store_.fsck()->findings.empty());
}

TEST_F(Deferred, ATornPackTakesItsSnapshotAndNoOther) {
    std::vector<char> bytes = file_bytes(last_pack());
    std::fill(bytes.begin() + 100, bytes.begin() + 300, '\0');
    write_file(last_pack(), bytes);
    start_host("two");
    EXPECT_EQ(tags(), std::vector<std::string>{"a"});
    Machine first = machine_;
    std::memset(first.page(0, 4), 0, page_size);
    EXPECT_TRUE(restore(store_.directory(), "a", machine_)->same_memory(first));
    EXPECT_TRUE(store_.fsck()->findings.empty());
    ASSERT_TRUE(save(store_, machine_, "c"));
    expect_restores("c");
}

TEST_F(Deferred, TheOldSnapshotOfAReplacedTagSurvives) {
    machine_.fill(0, 5, 9);
    ASSERT_TRUE(save_deferred("a", true));
    expect_restores("a");
    EXPECT_EQ(tags().size(), 2u);
    write_file(store_.directory() + "/deferred/a", {'x'});
    start_host("two");
    ASSERT_EQ(tags(), (std::vector<std::string>{"a", "b"}));
    Machine first = Machine::blank(200);
    first.fill(0, 3, 1);
    EXPECT_TRUE(restore(store_.directory(), "a", machine_)->same_memory(first));
}

TEST_F(Deferred, OneOfANewerVersionIsNotLostToAnOlderOne) {
    const std::string text = encode_reference({"b", put_newer("b")});
    write_file(Layout(store_.directory()).deferred("b"), {text.begin(), text.end()});
    start_host("two");
    const auto before = all_files(store_.directory());
    EXPECT_EQ(save(store_, machine_, "c").error().code, ErrorCode::incompatible);
    EXPECT_EQ(all_files(store_.directory()), before);
    const auto report = store_.fsck();
    ASSERT_TRUE(report) << report.error().message;
    EXPECT_TRUE(report->damaged_tags.empty());
}

TEST_F(Deferred, AManifestOfANewerVersionIsNotTornAlsoWhereNothingNamesIt) {
    const Digest newer = put_newer("b");
    std::filesystem::remove(Layout(store_.directory()).deferred("b"));
    start_host("two");
    EXPECT_EQ(store_.sync().error().code, ErrorCode::incompatible);
    EXPECT_TRUE(std::filesystem::exists(Layout(store_.directory()).manifest(newer)));
}

TEST_F(Deferred, ASnapshotOfANewerVersionIsToldAsSuchAndNotAsDamaged) {
    ASSERT_TRUE(store_.sync());
    ASSERT_TRUE(write_reference(Layout(store_.directory()), {"b", put_newer("b")}));
    const auto report = store_.fsck();
    ASSERT_TRUE(report) << report.error().message;
    EXPECT_TRUE(report->damaged_tags.empty());
    EXPECT_EQ(report->newer_tags, std::vector<std::string>{"b"});
    ASSERT_FALSE(report->findings.empty());
    for (const auto& finding : report->findings) {
        EXPECT_TRUE(finding.newer) << finding.where << ": " << finding.what;
    }
    const auto collected = store_.gc();
    ASSERT_FALSE(collected) << "what belongs to it is not known";
    EXPECT_EQ(collected.error().code, ErrorCode::incompatible);
    EXPECT_EQ(collected.error().remedy.find("rm"), std::string::npos) << collected.error().remedy;
    EXPECT_NE(collected.error().remedy.find("newer vm"), std::string::npos);
}

TEST_F(Deferred, WithoutAnIdOfTheHostsStartItIsRefused) {
    ASSERT_TRUE(store_.sync());
    boot_id_file = dir_ / "nothing";
    EXPECT_EQ(save_deferred("c").error().code, ErrorCode::failed);
}

TEST_F(Deferred, RemovingRenamingAndCollectingWork) {
    ASSERT_TRUE(store_.rename("b", "z"));
    expect_restores("z");
    ASSERT_TRUE(save_deferred("y"));
    ASSERT_TRUE(store_.remove("z"));
    ASSERT_TRUE(store_.gc());
    expect_restores("y");
}

} // namespace
} // namespace nestor::snapshot::testing
