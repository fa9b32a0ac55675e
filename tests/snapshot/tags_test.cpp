// Tags, ancestors, claims, touch orders and the difference of two snapshots.
#include <cstring>

#include <gtest/gtest.h>

#include "tests/snapshot/machine.hpp"

namespace nestor::snapshot::testing {
namespace {

class Tags : public ::testing::Test {
protected:
    void SetUp() override {
        machine_.fill(0, 3, 1);
        machine_.fill(0, 150, 2);
        ASSERT_TRUE(save(store_, machine_, "a"));
    }
    void save_child(const std::string& tag, const std::string& parent, u32 value) {
        machine_.fill(0, 3, value);
        ASSERT_TRUE(
            save(store_, machine_, tag, [&](SaveRequest& request) { request.parent = parent; }));
    }

    TempDir dir_{true};
    Store store_ = make_store(dir_ / "store");
    Machine machine_ = Machine::blank(200, 70);
};

TEST_F(Tags, ASnapshotMayHaveSeveral) {
    ASSERT_TRUE(store_.tag("a", "b"));
    EXPECT_EQ(store_.load("a")->manifest().digest, store_.load("b")->manifest().digest);
    ASSERT_TRUE(store_.remove("a"));
    EXPECT_TRUE(restore(store_.directory(), "b", machine_)->same_memory(machine_));
}

TEST_F(Tags, AnExistingTagIsMovedOnlyWhenAsked) {
    save_child("b", "a", 7);
    EXPECT_FALSE(store_.tag("a", "b"));
    EXPECT_EQ(store_.load("b")->manifest().parent_tag, "a");
    ASSERT_TRUE(store_.tag("a", "b", true));
    EXPECT_EQ(store_.load("b")->manifest().digest, store_.load("a")->manifest().digest);
}

TEST_F(Tags, ARenamedSnapshotIsFoundByItsNewNameOnly) {
    ASSERT_TRUE(store_.rename("a", "b"));
    EXPECT_TRUE(store_.load("b"));
    EXPECT_FALSE(store_.load("a"));
    EXPECT_TRUE(store_.rename("b", "b"));
    EXPECT_TRUE(store_.load("b"));
}

TEST_F(Tags, NonsenseIsRefused) {
    EXPECT_EQ(store_.tag("a", "../b").error().code, ErrorCode::usage);
    EXPECT_EQ(store_.tag("a", "auto").error().code, ErrorCode::usage);
    EXPECT_EQ(store_.tag("nothing", "b").error().code, ErrorCode::failed);
    EXPECT_EQ(store_.rename("nothing", "b").error().code, ErrorCode::failed);
}

TEST_F(Tags, ADamagedReferenceCanBeRemovedAndReplaced) {
    write_file(store_.directory() + "/refs/a", {'x'});
    save_child("b", "", 7);
    EXPECT_FALSE(store_.tag("b", "a"));
    EXPECT_TRUE(store_.tag("b", "a", true));
    write_file(store_.directory() + "/refs/a", {'x'});
    EXPECT_TRUE(store_.remove("a"));
}

TEST_F(Tags, TheLogGoesFromASnapshotToItsFirstAncestor) {
    save_child("b", "a", 7);
    save_child("c", "b", 8);
    ASSERT_TRUE(store_.tag("b", "also-b"));
    const auto log = store_.log("c");
    ASSERT_TRUE(log) << log.error().message;
    ASSERT_EQ(log->size(), 3u);
    EXPECT_EQ((*log)[0].tags, std::vector<std::string>{"c"});
    EXPECT_EQ((*log)[1].tags, (std::vector<std::string>{"also-b", "b"}));
    EXPECT_FALSE((*log)[2].contents->parent);
    ASSERT_TRUE(store_.remove("a"));
    EXPECT_TRUE(store_.log("c")->back().tags.empty());
}

TEST_F(Tags, OneCallerMayResume) {
    EXPECT_FALSE(*store_.claim_of(*store_.load("a")));
    ASSERT_TRUE(store_.claim(*store_.load("a"), "vm one, pid 12"));
    const auto second = store_.claim(*store_.load("a"), "vm two");
    ASSERT_FALSE(second);
    EXPECT_EQ(second.error().code, ErrorCode::incompatible);
    EXPECT_NE(second.error().message.find("vm one, pid 12"), std::string::npos);
    ASSERT_TRUE(store_.tag("a", "b"));
    EXPECT_FALSE(store_.claim(*store_.load("b"), "vm two"))
        << "the same snapshot under another tag";
    EXPECT_EQ((*store_.claim_of(*store_.load("b")))->by, "vm one, pid 12");
    ASSERT_TRUE(store_.release(*store_.load("b")));
    EXPECT_TRUE(store_.claim(*store_.load("a"), "vm three"));
    EXPECT_TRUE(store_.list()->front().claim);
}

TEST_F(Tags, AMachineThatWentOnCannotBeResumed) {
    ASSERT_TRUE(
        save(store_, machine_, "b", [](SaveRequest& request) { request.tier = Tier::clone; }));
    EXPECT_EQ(store_.claim(*store_.load("b"), "vm").error().code, ErrorCode::incompatible);
}

TEST_F(Tags, AClaimIsOfTheSnapshotThatWasLoadedWhereverItsTagHasMoved) {
    const auto loaded = store_.load("a");
    machine_.fill(0, 1, 1000); // another machine
    ASSERT_TRUE(save(store_, machine_, "a", [](SaveRequest& request) { request.replace = true; }));
    ASSERT_TRUE(store_.claim(*loaded, "vm"));
    EXPECT_FALSE(*store_.claim_of(*store_.load("a")))
        << "what the tag names now is another machine";
    EXPECT_EQ((*store_.claim_of(*loaded))->by, "vm");
}

TEST_F(Tags, ASnapshotOfAnotherStoreCannotBeClaimed) {
    Store other = make_store(dir_ / "other");
    ASSERT_TRUE(save(other, machine_, "a"));
    EXPECT_EQ(store_.claim(*other.load("a"), "vm").error().code, ErrorCode::usage);
}

TEST_F(Tags, ADamagedClaimIsStillOne) {
    ASSERT_TRUE(store_.claim(*store_.load("a"), "vm"));
    const auto files = all_files(store_.directory() + "/claims");
    ASSERT_EQ(files.size(), 1u);
    write_file(files[0], {'x'});
    EXPECT_FALSE(store_.claim(*store_.load("a"), "vm"));
}

TEST_F(Tags, ManifestsSayWhetherCloningIsForbidden) {
    ASSERT_TRUE(save(store_, machine_, "b", [](SaveRequest& request) {
        request.clone_forbidden = true;
        request.provenance.pause_ns = 12345;
    }));
    const auto loaded = store_.load("b");
    EXPECT_TRUE(loaded->manifest().clone_forbidden);
    EXPECT_EQ(loaded->manifest().provenance.pause_ns, 12345u);
    EXPECT_GT(loaded->manifest().provenance.save_ns, 0u);
    EXPECT_FALSE(store_.load("a")->manifest().clone_forbidden);
}

TEST_F(Tags, ATouchOrderIsKeptBesideTheSnapshot) {
    const auto loaded = store_.load("a");
    EXPECT_TRUE(loaded->touch_order().empty());
    const std::vector<Gfn> order{Gfn(150), Gfn(3), Gfn(1u << 20)};
    ASSERT_TRUE(store_.record_order(*loaded, order));
    EXPECT_EQ(loaded->touch_order(), order);
    const std::vector<Gfn> outside{Gfn(150), Gfn(200), Gfn(~u64{0})};
    ASSERT_TRUE(store_.record_order(*loaded, outside));
    EXPECT_EQ(loaded->touch_order(), std::vector<Gfn>{Gfn(150)});
    const auto files = all_files(store_.directory() + "/orders");
    ASSERT_EQ(files.size(), 1u);
    std::vector<char> bytes = file_bytes(files[0]);
    bytes[30] ^= 1;
    write_file(files[0], bytes);
    EXPECT_TRUE(loaded->touch_order().empty());
}

std::vector<PageDifference> differences(const Snapshot& a, const Snapshot& b) {
    std::vector<PageDifference> found;
    EXPECT_TRUE(a.diff_pages(b, [&](const PageDifference& d) {
        found.push_back(d);
        return true;
    }));
    return found;
}

TEST_F(Tags, TheDifferenceOfTwoSnapshotsIsTheirPages) {
    const auto a = store_.load("a");
    machine_.fill(0, 3, 9);
    std::memset(machine_.page(0, 150), 0, page_size);
    machine_.fill(1, 69, 4);
    ASSERT_TRUE(save(store_, machine_, "b"));
    const auto b = store_.load("b");
    const auto found = differences(*a, *b);
    ASSERT_EQ(found.size(), 3u);
    EXPECT_EQ(found[0].page, Gfn(3));
    EXPECT_TRUE(found[0].left && found[0].right);
    EXPECT_EQ(found[1].page, Gfn(150));
    EXPECT_TRUE(found[1].left && !found[1].right);
    EXPECT_EQ(found[2].page, Gfn((1u << 20) + 69));
    EXPECT_TRUE(!found[2].left && found[2].right);
    EXPECT_TRUE(differences(*a, *a).empty());
}

TEST_F(Tags, RegionsThatOnlyOneSnapshotHasDifferWhereTheyAreNotZero) {
    const auto a = store_.load("a");
    Machine other = Machine::blank(100);
    other.fill(0, 3, 1);
    ASSERT_TRUE(save(store_, other, "b"));
    const auto found = differences(*a, *store_.load("b"));
    ASSERT_EQ(found.size(), 3u); // pages 3 and 150 of one tree, page 3 of the other
}

TEST_F(Tags, EachPageNamesWhatIsNotZero) {
    std::vector<Gfn> pages;
    ASSERT_TRUE(store_.load("a")->each_page([&](Gfn page, const Digest& digest) {
        EXPECT_NE(digest, Digest{});
        pages.push_back(page);
        return pages.size() < 2;
    }));
    EXPECT_EQ(pages, (std::vector<Gfn>{Gfn(3), Gfn(150)}));
}

} // namespace
} // namespace nestor::snapshot::testing
