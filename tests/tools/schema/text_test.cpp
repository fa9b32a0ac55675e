// Diff, JSON and digests on the sample schema.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "engine/state/codec.hpp"
#include "tests/tools/schema/random_state.hpp"
#include "tests/tools/schema/sample.hpp"

namespace nestor::state {
namespace {

using nlohmann::json;

template <class T>
Difference only(const T& a, const T& b) {
    const auto found = diff(a, b);
    EXPECT_EQ(found.size(), 1u);
    return found.empty() ? Difference{} : found[0];
}

TEST(StateDiff, EqualValuesHaveNoDifference) {
    test::Rng rng(5);
    Lists a;
    test::randomize(a, rng);
    EXPECT_TRUE(diff(a, a).empty());
}

TEST(StateDiff, PathsAreInSchemaNames) {
    Unions a;
    Unions b;
    b.pending.apicv_update = true;
    EXPECT_EQ(only(a, b), (Difference{"pending.apicvUpdate", "false", "true"}));
}

TEST(StateDiff, AnElementOfAListHasItsIndex) {
    Lists a;
    Lists b;
    b.fixed_points[2].y = -3;
    EXPECT_EQ(only(a, b), (Difference{"fixedPoints[2].y", "0", "-3"}));
    b = a;
    b.fixed_words[1] = 0x10;
    EXPECT_EQ(only(a, b), (Difference{"fixedWords[1]", "\"0x0\"", "\"0x10\""}));
}

TEST(StateDiff, ASurplusElementIsAbsentOnTheOtherSide) {
    Lists a;
    Lists b;
    b.words = {7};
    EXPECT_EQ(only(a, b), (Difference{"words[0]", "absent", "7"}));
    EXPECT_EQ(only(b, a), (Difference{"words[0]", "7", "absent"}));
}

TEST(StateDiff, DataGivesItsFirstDifference) {
    Lists a;
    Lists b;
    a.blob = {1, 2, 3};
    b.blob = {1, 9, 3, 4};
    EXPECT_EQ(only(a, b), (Difference{"blob[1]", "0203", "090304"}));
}

TEST(StateDiff, AnotherUnionMemberIsOneDifference) {
    Unions a;
    Unions b;
    b.event = UnionsEventVector{32};
    EXPECT_EQ(only(a, b), (Difference{"event", "{\"none\":null}", "{\"vector\":32}"}));
}

TEST(StateDiff, TheSameUnionMemberIsComparedInside) {
    Unions a;
    Unions b;
    a.event = UnionsEventDebug{.dr6 = 1, .cause = "x"};
    b.event = UnionsEventDebug{.dr6 = 3, .cause = "x"};
    EXPECT_EQ(only(a, b), (Difference{"event.debug.dr6", "\"0x1\"", "\"0x3\""}));
}

TEST(StateJson, ShowsValuesAsTheSchemaSays) {
    const auto j = json::parse(to_json(Scalars{}));
    EXPECT_EQ(j["guestRip"], "0xfff0");
    EXPECT_EQ(j["mode"], "protectedMode");
    EXPECT_EQ(j["medium"], -70000);
    EXPECT_EQ(j["large"], INT64_MIN);
    EXPECT_EQ(j["top"], UINT64_MAX);
    EXPECT_EQ(j["on"], true);
    EXPECT_EQ(j.size(), 12u);
}

TEST(StateJson, AUnionIsItsActiveMember) {
    Unions u;
    u.event = UnionsEventNote{"hi"};
    u.value = UnionsList{{1, 2}};
    const auto j = json::parse(to_json(u));
    EXPECT_EQ(j["event"]["note"], "hi");
    EXPECT_EQ(j["list"], (json{1, 2}));
    EXPECT_FALSE(j.contains("until"));
}

TEST(StateJson, IsValidWhateverTheTextHolds) {
    Lists lists;
    lists.name = std::string("a\"\\\n\0\xff\xc3\xa9\xed\xa0\x80", 11);
    const auto j = json::parse(to_json(lists));
    EXPECT_EQ(j["name"], json::parse(R"("a\"\\\n\u0000\ufffdé\ufffd\ufffd\ufffd")"));
}

TEST(StateJson, OfTheBytesEqualsThatOfTheValue) {
    test::Rng rng(9);
    const StructInfo* info = erased::all().front();
    EXPECT_FALSE(erased::decode_to_json(*info, {}).has_value());
    const auto bytes = encode(Nothing{});
    EXPECT_TRUE(json::accept(erased::decode_to_json(*info, bytes).value()));
}

TEST(StateDigest, SeesEveryField) {
    Policies a;
    Policies b;
    b.hidden = 4;
    EXPECT_NE(digest(a), digest(b));
}

TEST(StateDigest, OfTheGuestLeavesOutPolicy) {
    Policies a;
    Policies b;
    b.hidden = 4;
    b.hidden_list = {1, 2, 3};
    b.inner.secret = 5;
    EXPECT_EQ(guest_digest(a), guest_digest(b));
    b.inner.shown = 1;
    EXPECT_NE(guest_digest(a), guest_digest(b));
}

TEST(StateVmcs, RowsFollowTheAnnotations) {
    constexpr const auto& rows = vmcs_rows<Fields>;
    static_assert(rows.size() == 4);
    static_assert(rows[0].encoding == 0x0000 && rows[0].size == 2);
    static_assert(rows[1].encoding == 0x2804 && rows[1].size == 8);
    static_assert(rows[2].encoding == 0x4402 && rows[2].size == 4);
    static_assert(rows[3].encoding == 0x681e && rows[3].size == 8);
    static_assert(rows[3].offset == offsetof(Fields, guest_rip));
    EXPECT_STREQ(rows[1].name, "guest_ia32_pat");
    EXPECT_TRUE(vmcs_rows<Scalars>.empty());
}

} // namespace
} // namespace nestor::state
