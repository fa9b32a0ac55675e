// Covering arrays: few cases that hold every combination of the levels of any `strength` factors,
// and few orders that hold every ordered triple. Deterministic: the same input, the same answer.
#pragma once

#include <functional>
#include <vector>

#include "src/base/types.hpp"

namespace nestor::matrix {

/// One level for each factor; `open` while it is not chosen yet.
using Levels = std::vector<u8>;
inline constexpr u8 open = 0xff;

/// Whether a case in which some levels are still open cannot be, whatever they become.
using Excluded = std::function<bool(const Levels&)>;

/// Which combinations of `strength` factors' levels some cases hold.
class Coverage {
public:
    Coverage(std::vector<u8> level_counts, unsigned strength);

    void add(const Levels& levels);
    /// How many combinations `levels` would add. Open levels are in none.
    [[nodiscard]] std::size_t gain(const Levels& levels) const;
    /// Calls visit(combination) for each that is missing, all other levels open, until it returns
    /// false. A visited combination may be covered or given up meanwhile.
    void each_missing(const std::function<bool(const Levels&)>& visit) const;
    [[nodiscard]] std::size_t covered() const { return covered_; }
    [[nodiscard]] std::size_t all() const { return seen_.size(); }

private:
    template <class Visit>
    void each(const Levels& levels, const Visit& visit) const;

    std::vector<u8> counts_;
    std::vector<std::vector<u8>> sets_; ///< of `strength` factors
    std::vector<std::size_t> first_;    ///< of each set's combinations in seen_
    std::vector<bool> seen_;
    std::size_t covered_ = 0;
};

struct CoveringArray {
    std::vector<Levels> cases;
    std::size_t possible = 0; ///< combinations that some case may hold; all of them are held
};

/// A greedy array: starts from a missing combination and fills the rest with what covers most.
[[nodiscard]] CoveringArray covering_array(const std::vector<u8>& level_counts, unsigned strength,
                                           const Excluded& excluded);

/// Permutations of 0 … n-1 in which every ordered triple of elements occurs somewhere, the first
/// being the sorted one, the second its reverse.
[[nodiscard]] std::vector<std::vector<u8>> sequence_covering_orders(u8 n);

} // namespace nestor::matrix
