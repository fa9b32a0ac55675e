// L2 before the first run: every pair of factors' levels, or every triple (MATRIX_STRENGTH=3).
// MATRIX_CASE runs one case alone. GUEST is the image of tests/guests/l2_matrix.asm.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>

#include "tests/matrix/test_support.hpp"

namespace nestor::matrix {
namespace {

constexpr unsigned most_failures_told = 5;

/// How often each level was run.
void print_levels(const std::vector<Levels>& cases) {
    for (std::size_t f = 0; f < factors().size(); ++f) {
        std::vector<unsigned> runs(factors()[f].levels.size());
        for (const Levels& levels : cases) {
            ++runs[levels[f]];
        }
        std::printf("  %-13s", std::string(factors()[f].name).c_str());
        for (std::size_t i = 0; i < runs.size(); ++i) {
            std::printf(" %s:%u", factors()[f].levels[i].c_str(), runs[i]);
        }
        std::printf("\n");
    }
}

TEST(Matrix, L2GoesOnAsIfItHadNeverBeenStopped) {
    const unsigned strength = static_cast<unsigned>(std::stoul(variable("MATRIX_STRENGTH", "2")));
    const std::string only = variable("MATRIX_CASE", "");
    CoveringArray array;
    if (only.empty()) {
        array = array_of(strength);
    } else {
        const auto levels = levels_of(only);
        ASSERT_TRUE(levels.has_value()) << "there is no such case: " << only;
        array.cases = {*levels};
    }
    const std::vector<u8> guest = guest_image();
    ASSERT_FALSE(guest.empty()) << "GUEST names no image";
    Situations situations(guest);
    Coverage coverage(level_counts(), strength);
    std::vector<Levels> passed;
    unsigned failures = 0;
    for (const Levels& levels : array.cases) {
        const auto differences = situations.differences(levels);
        if (differences && differences->empty()) {
            coverage.add(levels);
            passed.push_back(levels);
        } else if (++failures <= most_failures_told) {
            std::string what = differences ? "" : differences.error().message;
            for (std::size_t i = 0;
                 differences && i < std::min<std::size_t>(8, differences->size()); ++i) {
                what += "\n  " + (*differences)[i];
            }
            ADD_FAILURE() << what << "\nalone: MATRIX_CASE='" << to_text(levels) << "'";
        }
    }
    std::printf("%zu cases, %u failed; combinations of %u factors: %zu of %zu possible covered\n",
                array.cases.size(), failures, strength, coverage.covered(), array.possible);
    print_levels(passed);
    EXPECT_EQ(failures, 0u);
    EXPECT_FALSE(passed.empty());
    if (only.empty()) {
        EXPECT_EQ(coverage.covered(), array.possible);
    }
}

} // namespace
} // namespace nestor::matrix
