// The codec on the sample schema: what each kind of field becomes, and what each kind of bad or
// foreign bytes is answered with.
#include <gtest/gtest.h>

#include <cstring>

#include "engine/state/codec.hpp"
#include "tests/tools/schema/random_state.hpp"
#include "tests/tools/schema/sample.hpp"

namespace nestor::state {
namespace {

using Bytes = std::vector<std::byte>;

Bytes from_words(std::initializer_list<u64> words) {
    Bytes bytes(words.size() * 8);
    std::memcpy(bytes.data(), std::data(words), bytes.size());
    return bytes;
}

template <class To, class From>
Result<To> convert(const From& value) {
    return decode<To>(encode(value));
}

template <class T>
void expect_error(const Result<T>& result, ErrorCode code, const std::string& message) {
    ASSERT_FALSE(result.has_value());
    EXPECT_EQ(static_cast<int>(result.error().code), static_cast<int>(code));
    EXPECT_EQ(result.error().message, message);
}

TEST(StateCodec, MembersHaveTheSchemasDefaults) {
    const Scalars s;
    EXPECT_TRUE(s.on);
    EXPECT_EQ(s.tiny, -1);
    EXPECT_EQ(s.medium, -70000);
    EXPECT_EQ(s.large, INT64_MIN);
    EXPECT_EQ(s.byte, 200);
    EXPECT_EQ(s.dword, 0xdeadbeefu);
    EXPECT_EQ(s.mode, Mode::protected_mode);
    EXPECT_EQ(s.top, UINT64_MAX);
    EXPECT_EQ(Lists{}.motto, "save \"it\"");
    EXPECT_EQ(Unions{}.nested.kind, UnionsNestedKind::second);
    EXPECT_EQ(static_cast<int>(Mode::default_), 2);
    EXPECT_EQ(page_limit, 4096u);
    EXPECT_EQ(greeting, "hello");
}

TEST(StateCodec, AllDefaultsAreOneWord) {
    EXPECT_EQ(encode(Scalars{}).size(), 8u);
    EXPECT_EQ(encode(Lists{}).size(), 8u);
    EXPECT_EQ(encode(Unions{}).size(), 8u);
    EXPECT_EQ(encode(Nothing{}), from_words({0xfffffffc}));
}

TEST(StateCodec, OldBytesWithoutAnyFieldTakeTheDefaults) {
    const auto empty = from_words({0xfffffffc});
    EXPECT_EQ(decode<Scalars>(empty).value(), Scalars{});
    EXPECT_EQ(decode<Lists>(empty).value(), Lists{});
    EXPECT_EQ(decode<Unions>(empty).value(), Unions{});
}

TEST(StateCodec, BytesAreCapnProtosCanonicalForm) {
    Point p{.x = 1, .y = 2};
    // One struct pointer (offset 0, one data word, no pointers); x is XORed with its default.
    EXPECT_EQ(encode(p), from_words({u64{1} << 32, u64{2} << 32 | (1u ^ 0xfffffffbu)}));
}

TEST(StateCodec, UnionsKeepTheirMember) {
    Unions u;
    u.event = UnionsEventAt{{.x = 3, .y = 4}};
    u.value = UnionsUntil{99};
    const auto back = decode<Unions>(encode(u));
    ASSERT_TRUE(back);
    EXPECT_EQ(std::get<UnionsEventAt>(back->event).value.y, 4);
    EXPECT_EQ(std::get<UnionsUntil>(back->value).value, 99u);
    EXPECT_EQ(*back, u);
}

TEST(StateCodec, ListsOfDefaultElementsKeepTheirLength) {
    Lists lists;
    lists.points.resize(3);
    lists.names.resize(2);
    lists.blobs.resize(4);
    lists.words.resize(5);
    const auto back = decode<Lists>(encode(lists));
    ASSERT_TRUE(back);
    EXPECT_EQ(*back, lists);
}

TEST(StateCodec, NewerBytesOfKnownContentDecode) {
    Newer newer;
    newer.a = 5;
    newer.bits = 77;
    newer.value = NewerTwo{12};
    newer.points.resize(2);
    newer.points[1].x = 8;
    const auto older = convert<Older>(newer);
    ASSERT_TRUE(older);
    EXPECT_EQ(older->a, 5u);
    EXPECT_EQ(std::get<OlderTwo>(older->value).value, 12);
    EXPECT_EQ(older->points[1].x, 8);
}

TEST(StateCodec, OlderBytesTakeTheNewFieldsDefaults) {
    Older older;
    older.a = 5;
    older.points.resize(1);
    older.points[0].x = 3;
    const auto newer = convert<Newer>(older);
    ASSERT_TRUE(newer);
    EXPECT_EQ(newer->a, 5u);
    EXPECT_EQ(newer->bits, 77u);
    EXPECT_EQ(newer->text, "new");
    EXPECT_TRUE(newer->flag);
    EXPECT_EQ(newer->points[0].x, 3);
    EXPECT_EQ(newer->points[0].more, 0u);
}

TEST(StateCodec, ANewFieldAtItsDefaultChangesNoDigest) {
    EXPECT_EQ(digest(Newer{}), digest(Older{}));
}

TEST(StateCodec, BitsOfANewerFieldAreNamed) {
    Newer newer;
    newer.bits = 76;
    expect_error(convert<Older>(newer), ErrorCode::incompatible,
                 "Older: bit 128 of its data is not known here: written by a newer version");
}

TEST(StateCodec, APointerOfANewerFieldIsNamed) {
    Newer newer;
    newer.text = "x";
    expect_error(convert<Older>(newer), ErrorCode::incompatible,
                 "Older: pointer 1 is not known here: written by a newer version");
}

TEST(StateCodec, ANewerFieldInsideAListIsNamedWithItsPath) {
    Newer newer;
    newer.points.resize(3);
    newer.points[2].more = 1;
    expect_error(convert<Older>(newer), ErrorCode::incompatible,
                 "Older.points[2]: bit 64 of its data is not known here: written by a newer "
                 "version");
    newer.points[2].more = 0;
    newer.points[1].name = "n";
    expect_error(convert<Older>(newer), ErrorCode::incompatible,
                 "Older.points[1]: pointer 0 is not known here: written by a newer version");
}

TEST(StateCodec, ANewerEnumerantIsNamed) {
    Newer newer;
    newer.mode = NewerMode::on;
    expect_error(convert<Older>(newer), ErrorCode::incompatible,
                 "Older.mode: enumerant 1 of OlderMode is not known here: written by a newer "
                 "version");
}

TEST(StateCodec, ANewerUnionMemberIsNamed) {
    Newer newer;
    newer.value = NewerThree{};
    expect_error(convert<Older>(newer), ErrorCode::incompatible,
                 "Older: union member 2 is not known here: written by a newer version");
}

TEST(StateCodec, ANewerWriterComesWithARemedy) {
    Newer newer;
    newer.flag = false;
    EXPECT_FALSE(convert<Older>(newer).error().remedy.empty());
}

TEST(StateCodec, AFixedListOfAnotherLengthIsCorrupt) {
    // One pointer to a list of three eight-byte elements where four are due.
    const auto bytes = from_words({u64{1} << 48, u64{3} << 35 | u64{5} << 32 | 1, 1, 2, 3});
    expect_error(decode<Lists>(bytes), ErrorCode::corrupt,
                 "Lists.fixedWords: 3 elements instead of 4");
}

TEST(StateCodec, ATextWithoutItsEndIsCorrupt) {
    Lists lists;
    lists.name = "abcdefg";
    auto bytes = encode(lists);
    bytes.back() = std::byte{'h'};
    expect_error(decode<Lists>(bytes), ErrorCode::corrupt, "Lists.name: a text without its end");
}

TEST(StateCodec, AHugeListInAShortMessageIsRefused) {
    const auto bytes = from_words(
        {u64{9} << 48, 0, 0, 0, 0, 0, u64{0x1fffffff} << 35 | u64{3} << 32 | 1, 0, 0, 0});
    expect_error(decode<Lists>(bytes), ErrorCode::corrupt,
                 "Lists.words: points outside the message");
}

TEST(StateCodec, AListOfSizelessStructsIsRefused) {
    // Pointer 7 (points) to a list with 100 million elements of no size.
    const auto bytes =
        from_words({u64{8} << 48, 0, 0, 0, 0, 0, 0, 0, u64{7} << 32 | 1, u64{100'000'000} << 2});
    expect_error(decode<Lists>(bytes), ErrorCode::corrupt,
                 "Lists.points: a list whose elements do not fill it");
}

TEST(StateCodec, WordsThatTwoFieldsShareAreRefused) {
    // `words` and `blob` point at the same word; the last word belongs to nobody.
    const u64 words = u64{4} << 35 | u64{3} << 32 | 1;
    const u64 blob = u64{8} << 35 | u64{2} << 32 | 1;
    const auto bytes =
        from_words({u64{9} << 48, 0, 0, 0, 0, 0, words | 3 << 2, 0, 0, blob, 0x1234, 0});
    expect_error(decode<Lists>(bytes), ErrorCode::corrupt,
                 "Lists: word 10 of the message belongs to two fields");
}

TEST(StateCodec, WordsThatBelongToNothingAreRefused) {
    auto bytes = encode(Point{.x = 1, .y = 2});
    bytes.resize(bytes.size() + 8);
    expect_error(decode<Point>(bytes), ErrorCode::corrupt,
                 "Point: the message has 3 words, 2 of them used");
}

TEST(StateCodec, EveryCutIsRefused) {
    test::Rng rng(11);
    Lists lists;
    test::randomize(lists, rng);
    const auto bytes = encode(lists);
    for (std::size_t size = 0; size < bytes.size(); ++size) {
        const auto cut = decode<Lists>(std::span(bytes).first(size));
        ASSERT_FALSE(cut.has_value()) << size;
        EXPECT_EQ(static_cast<int>(cut.error().code), static_cast<int>(ErrorCode::corrupt)) << size;
    }
}

TEST(StateCodec, TypesAreFoundByIdAndName) {
    EXPECT_EQ(type_name<Scalars>(), "Scalars");
    EXPECT_EQ(type_name<UnionsNested>(), "Unions.Nested");
    for (const StructInfo* info : erased::all()) {
        EXPECT_EQ(erased::find(erased::id(*info)), info);
        EXPECT_EQ(erased::find(erased::name(*info)), info);
    }
    EXPECT_EQ(erased::find(u64{1}), nullptr);
}

} // namespace
} // namespace nestor::state
