// Greedy generators of covering arrays and of sequence covering arrays.
//
// Owns nothing. Ties go to the lowest level and to the first candidate, and the candidates of
// orders come from a fixed generator, so nothing depends on the host.
#include "tests/matrix/covering.hpp"

#include <algorithm>
#include <array>
#include <numeric>
#include <random>
#include <set>

namespace nestor::matrix {

Coverage::Coverage(std::vector<u8> level_counts, unsigned strength)
    : counts_(std::move(level_counts)) {
    std::vector<bool> chosen(counts_.size());
    std::fill(chosen.begin(), chosen.begin() + strength, true);
    std::size_t combinations = 0;
    do {
        std::vector<u8> set;
        std::size_t size = 1;
        for (u8 i = 0; i < counts_.size(); ++i) {
            if (chosen[i]) {
                set.push_back(i);
                size *= counts_[i];
            }
        }
        sets_.push_back(set);
        first_.push_back(combinations);
        combinations += size;
    } while (std::prev_permutation(chosen.begin(), chosen.end()));
    seen_.resize(combinations);
}

template <class Visit>
void Coverage::each(const Levels& levels, const Visit& visit) const {
    for (std::size_t i = 0; i < sets_.size(); ++i) {
        std::size_t at = 0;
        bool whole = true;
        for (const u8 factor : sets_[i]) {
            whole = whole && levels[factor] != open;
            at = at * counts_[factor] + levels[factor];
        }
        if (whole) {
            visit(first_[i] + at);
        }
    }
}

void Coverage::add(const Levels& levels) {
    each(levels, [&](std::size_t at) {
        covered_ += seen_[at] ? 0 : 1;
        seen_[at] = true;
    });
}

std::size_t Coverage::gain(const Levels& levels) const {
    std::size_t sum = 0;
    each(levels, [&](std::size_t at) { sum += seen_[at] ? 0 : 1; });
    return sum;
}

void Coverage::each_missing(const std::function<bool(const Levels&)>& visit) const {
    for (std::size_t i = 0; i < sets_.size(); ++i) {
        const std::size_t end = i + 1 < sets_.size() ? first_[i + 1] : seen_.size();
        for (std::size_t at = first_[i]; at < end; ++at) {
            if (seen_[at]) {
                continue;
            }
            Levels levels(counts_.size(), open);
            std::size_t rest = at - first_[i];
            for (auto factor = sets_[i].rbegin(); factor != sets_[i].rend(); ++factor) {
                levels[*factor] = static_cast<u8>(rest % counts_[*factor]);
                rest /= counts_[*factor];
            }
            if (!visit(levels)) {
                return;
            }
        }
    }
}

namespace {

class Completion {
public:
    Completion(const Coverage& coverage, const std::vector<u8>& counts, const Excluded& excluded)
        : coverage_(coverage), excluded_(excluded) {
        for (const u8 count : counts) {
            used_.emplace_back(count);
        }
    }

    /// Chooses what is open: what covers most, then what was chosen least. False: there is no such
    /// case, and `levels` is as it was.
    bool complete(Levels& levels) const {
        if (excluded_(levels)) {
            return false;
        }
        const auto factor = std::find(levels.begin(), levels.end(), open);
        if (factor == levels.end()) {
            return true;
        }
        const auto& used = used_[static_cast<std::size_t>(factor - levels.begin())];
        std::vector<Choice> choices;
        for (u8 level = 0; level < used.size(); ++level) {
            *factor = level;
            choices.push_back({coverage_.gain(levels), used[level], level});
        }
        std::stable_sort(choices.begin(), choices.end(), [](const Choice& a, const Choice& b) {
            return a.gain != b.gain ? a.gain > b.gain : a.used < b.used;
        });
        for (const Choice& choice : choices) {
            *factor = choice.level;
            if (complete(levels)) {
                return true;
            }
        }
        *factor = open;
        return false;
    }

    void note(const Levels& levels) {
        for (std::size_t i = 0; i < levels.size(); ++i) {
            ++used_[i][levels[i]];
        }
    }

private:
    struct Choice {
        std::size_t gain;
        unsigned used;
        u8 level;
    };
    const Coverage& coverage_;
    const Excluded& excluded_;
    std::vector<std::vector<unsigned>> used_; ///< how often each level was chosen
};

using Order = std::vector<u8>;
using Triple = std::array<u8, 3>;

std::vector<Triple> triples_of(const Order& order) {
    std::vector<Triple> out;
    for (std::size_t i = 0; i < order.size(); ++i) {
        for (std::size_t j = i + 1; j < order.size(); ++j) {
            for (std::size_t k = j + 1; k < order.size(); ++k) {
                out.push_back({order[i], order[j], order[k]});
            }
        }
    }
    return out;
}

} // namespace

CoveringArray covering_array(const std::vector<u8>& level_counts, unsigned strength,
                             const Excluded& excluded) {
    CoveringArray array;
    Coverage coverage(level_counts, strength);
    Completion completion(coverage, level_counts, excluded);
    std::set<Levels> impossible;
    for (bool more = true; more;) {
        more = false;
        coverage.each_missing([&](const Levels& missing) {
            if (impossible.contains(missing)) {
                return true;
            }
            Levels levels = missing;
            if (!completion.complete(levels)) {
                impossible.insert(missing);
                return true;
            }
            coverage.add(levels);
            completion.note(levels);
            array.cases.push_back(std::move(levels));
            more = true;
            return true;
        });
    }
    array.possible = coverage.covered();
    return array;
}

std::vector<std::vector<u8>> sequence_covering_orders(u8 n) {
    constexpr unsigned candidates = 400;
    Order sorted(n);
    std::iota(sorted.begin(), sorted.end(), u8{0});
    std::vector<Order> orders{sorted, Order(sorted.rbegin(), sorted.rend())};
    std::set<Triple> seen;
    for (const Order& order : orders) {
        for (const Triple& triple : triples_of(order)) {
            seen.insert(triple);
        }
    }
    std::minstd_rand random; // its sequence is the standard's
    const auto missing = [&](const Order& order) {
        const auto triples = triples_of(order);
        return std::count_if(triples.begin(), triples.end(),
                             [&](const Triple& t) { return !seen.contains(t); });
    };
    while (seen.size() < std::size_t{n} * (n - 1u) * (n - 2u)) {
        Order best;
        for (unsigned i = 0; i < candidates; ++i) {
            Order order = sorted;
            for (std::size_t k = order.size() - 1; k > 0; --k) {
                std::swap(order[k], order[random() % (k + 1)]);
            }
            if (best.empty() || missing(order) > missing(best)) {
                best = order;
            }
        }
        for (const Triple& triple : triples_of(best)) {
            seen.insert(triple);
        }
        orders.push_back(best);
    }
    return orders;
}

} // namespace nestor::matrix
