// What another version's schemas have no place for. The judge is that version's own decoder: it
// refuses exactly the bytes of values that have a surplus.
#include <gtest/gtest.h>

#include <fstream>
#include <regex>
#include <sstream>

#include "engine/state/codec.hpp"
#include "engine/state/known.hpp"
#include "tests/tools/schema/random_state.hpp"
#include "tests/tools/schema/sample.hpp"

namespace nestor::state {
namespace {

std::string sample_layout() {
    std::ifstream in(NESTOR_SAMPLE_LAYOUT);
    std::stringstream text;
    text << in.rdbuf();
    return text.str();
}

/// The layout of a version whose Newer was Older.
KnownSchema make_older() {
    std::istringstream lines(sample_layout());
    std::string text;
    for (std::string line; std::getline(lines, line);) {
        if (line.find(" Newer") == std::string::npos && line.find(" Large") == std::string::npos) {
            line = std::regex_replace(line, std::regex("Older"), "Newer");
            text += std::regex_replace(line, std::regex("Small"), "Large") + "\n";
        }
    }
    return KnownSchema(text);
}

const KnownSchema older = make_older();

std::vector<std::string> paths(const Newer& value) {
    std::vector<std::string> out;
    for (const Surplus& one : erased::surplus(&value, Meta<Newer>::info, older)) {
        out.push_back(one.path + " " + one.value);
    }
    return out;
}

TEST(KnownSchema, HasTheNamesOfALayout) {
    const KnownSchema known(sample_layout());
    EXPECT_TRUE(known.has_field("Point", "x"));
    EXPECT_FALSE(known.has_field("Point", "z"));
    EXPECT_TRUE(known.has_struct("UnionsEventDebug"));
    EXPECT_EQ(known.enumerants("Mode"), 3u);
    EXPECT_EQ(known.enumerants("None"), 0u);
}

TEST(KnownSchema, DefaultsAreNoSurplus) {
    Newer value;
    EXPECT_EQ(paths(value), std::vector<std::string>());
    value.a = 3;
    value.points.resize(2);
    value.points[1].x = 1;
    EXPECT_EQ(paths(value), std::vector<std::string>());
}

TEST(KnownSchema, EverySurplusHasItsPath) {
    Newer value;
    value.mode = NewerMode::on;
    value.points.resize(3);
    value.points[2].more = 5;
    value.bits = 0;
    value.text = "old";
    value.flag = false;
    value.value = NewerThree{9};
    const auto found = paths(value);
    ASSERT_EQ(found.size(), 6u);
    EXPECT_EQ(found[0], "mode \"on\"");
    EXPECT_EQ(found[1], "points[2].more 5");
    EXPECT_EQ(found[2], "bits 0");
    EXPECT_EQ(found[3], "text \"old\"");
    EXPECT_EQ(found[4], "flag false");
}

TEST(KnownSchema, TheOlderDecoderRefusesWhatHasASurplusAndNothingElse) {
    test::Rng rng(11);
    unsigned read = 0;
    unsigned refused = 0;
    for (int i = 0; i < 4000; ++i) {
        // Now and then a field of a default value, so that both kinds come.
        Newer random;
        test::randomize(random, rng);
        Newer value;
        value.a = random.a;
        value.points.resize(random.points.size());
        for (std::size_t n = 0; n < value.points.size(); ++n) {
            value.points[n].x = random.points[n].x;
        }
        switch (i % 8) {
        case 0:
            value = random;
            break;
        case 1:
            value.mode = random.mode;
            break;
        case 2:
            value.points = random.points;
            break;
        case 3:
            value.bits = i % 16 < 8 ? value.bits : random.bits;
            break;
        case 4:
            value.flag = random.flag;
            break;
        case 5:
            value.value = random.value;
            break;
        case 6:
            value.text = random.text;
            break;
        default:
            break;
        }
        const bool readable = decode<Older>(encode(value)).has_value();
        EXPECT_EQ(readable, paths(value).empty()) << to_json(value);
        ++(readable ? read : refused);
    }
    EXPECT_GT(read, 500u);
    EXPECT_GT(refused, 500u);
}

TEST(KnownSchema, UnionsAndGroupsAreFollowed) {
    std::string layout = sample_layout();
    layout = std::regex_replace(layout, std::regex("field UnionsEventDebug cause[^\n]*\n"), "");
    const KnownSchema known(layout);
    Unions value;
    value.event = UnionsEventDebug{.dr6 = 1, .cause = ""};
    EXPECT_TRUE(erased::surplus(&value, Meta<Unions>::info, known).empty());
    value.event = UnionsEventDebug{.dr6 = 1, .cause = "why"};
    const auto found = erased::surplus(&value, Meta<Unions>::info, known);
    ASSERT_EQ(found.size(), 1u);
    EXPECT_EQ(found[0].path, "event.debug.cause");
    EXPECT_EQ(found[0].value, "\"why\"");
}

} // namespace
} // namespace nestor::state
