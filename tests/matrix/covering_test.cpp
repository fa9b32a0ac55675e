// The generators: what they promise holds by counting, independently of how they work.
#include "tests/matrix/covering.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>

namespace nestor::matrix {
namespace {

const std::vector<u8> some_counts{2, 3, 4, 2, 5};

bool nothing_excluded(const Levels&) { return false; }

/// Every pair of levels of any two factors, by brute force.
std::set<std::array<u8, 4>> pairs_of(const std::vector<Levels>& cases) {
    std::set<std::array<u8, 4>> pairs;
    for (const Levels& levels : cases) {
        for (u8 a = 0; a < levels.size(); ++a) {
            for (u8 b = static_cast<u8>(a + 1); b < levels.size(); ++b) {
                pairs.insert({a, levels[a], b, levels[b]});
            }
        }
    }
    return pairs;
}

TEST(Covering, EveryPairIsInSomeCase) {
    const CoveringArray array = covering_array(some_counts, 2, nothing_excluded);
    EXPECT_EQ(pairs_of(array.cases).size(), 6u + 8 + 4 + 10 + 12 + 6 + 15 + 8 + 20 + 10);
    EXPECT_EQ(array.possible, pairs_of(array.cases).size());
    EXPECT_LT(array.cases.size(), 30u);
}

TEST(Covering, EveryTripleIsInSomeCase) {
    const CoveringArray array = covering_array(some_counts, 3, nothing_excluded);
    Coverage coverage(some_counts, 3);
    for (const Levels& levels : array.cases) {
        coverage.add(levels);
    }
    EXPECT_EQ(coverage.covered(), coverage.all());
    EXPECT_EQ(coverage.all(), 24u + 12 + 30 + 16 + 40 + 20 + 24 + 60 + 30 + 40);
}

TEST(Covering, NoCaseIsAnExcludedOneAndOnlyPairsWithoutACaseAreMissing) {
    // The third factor's last level wants the first factor's last, which the fourth's last forbids.
    const auto excluded = [](const Levels& l) {
        return (l[2] == 3 && l[0] == 0) || (l[0] == 1 && l[3] == 1);
    };
    const CoveringArray array = covering_array(some_counts, 2, excluded);
    EXPECT_TRUE(std::none_of(array.cases.begin(), array.cases.end(), excluded));
    // Without the two pairs themselves and (third's last, fourth's last), which follows.
    EXPECT_EQ(array.possible, covering_array(some_counts, 2, nothing_excluded).possible - 3);
    EXPECT_EQ(pairs_of(array.cases).size(), array.possible);
}

TEST(Covering, TheOrdersHoldEveryOrderedTriple) {
    const auto orders = sequence_covering_orders(8);
    std::set<std::array<u8, 3>> seen;
    for (const auto& order : orders) {
        auto sorted = order;
        std::sort(sorted.begin(), sorted.end());
        EXPECT_EQ(sorted, orders[0]);
        for (std::size_t i = 0; i < 8; ++i) {
            for (std::size_t j = i + 1; j < 8; ++j) {
                for (std::size_t k = j + 1; k < 8; ++k) {
                    seen.insert({order[i], order[j], order[k]});
                }
            }
        }
    }
    EXPECT_EQ(seen.size(), 8u * 7 * 6);
    EXPECT_LE(orders.size(), 16u);
}

} // namespace
} // namespace nestor::matrix
