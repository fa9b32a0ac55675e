// Expands factors.def: names, levels, exclusions.
#include "tests/matrix/factors.hpp"

#include <algorithm>
#include <sstream>

#include "engine/state/codec.hpp"
#include "engine/state/info.hpp"
#include "engine/state/vcpu.hpp"

namespace nestor::matrix {

namespace {

/// "a, b" as its words.
std::vector<std::string> words(std::string_view list) {
    std::string text(list);
    std::replace(text.begin(), text.end(), ',', ' ');
    std::istringstream in(text);
    std::vector<std::string> out;
    for (std::string word; in >> word;) {
        out.push_back(word);
    }
    return out;
}

std::vector<FactorInfo> make_factors() {
    std::vector<FactorInfo> all{
#define FACTOR(name, ...) {#name, words(#__VA_ARGS__)},
#define EXCLUSION(reason, ...)
#include "tests/matrix/factors.def"
#undef FACTOR
#undef EXCLUSION
    };
    for (std::size_t i = 0; i < orders().size(); ++i) {
        all[static_cast<std::size_t>(Factor::order)].levels.push_back(std::to_string(i));
    }
    return all;
}

} // namespace

const std::vector<FactorInfo>& factors() {
    static const std::vector<FactorInfo> all = make_factors();
    return all;
}

std::vector<u8> level_counts() {
    std::vector<u8> counts;
    for (const FactorInfo& factor : factors()) {
        counts.push_back(static_cast<u8>(factor.levels.size()));
    }
    return counts;
}

const std::vector<std::vector<u8>>& orders() {
    static const auto all =
        sequence_covering_orders(static_cast<u8>(state::Meta<state::Vcpu>::info.fields.size()));
    return all;
}

const char* excluded(const Levels& levels) {
#define FACTOR(name, ...)
#define IS(factor, one) is(levels, factor::one)
#define IS_OPEN(factor) (level(levels, Factor::factor) == open)
#define EXCLUSION(reason, ...)                                                                     \
    if (__VA_ARGS__) {                                                                             \
        return reason;                                                                             \
    }
#include "tests/matrix/factors.def"
#undef FACTOR
#undef IS
#undef IS_OPEN
#undef EXCLUSION
    return nullptr;
}

std::string to_text(const Levels& levels) {
    std::string text;
    for (std::size_t i = 0; i < levels.size(); ++i) {
        text += text.empty() ? "" : " ";
        text += std::string(factors()[i].name) + "=" + factors()[i].levels[levels[i]];
    }
    return text;
}

std::optional<Levels> levels_of(std::string_view text) {
    Levels levels(factors().size(), open);
    for (const std::string& word : words(text)) {
        for (std::size_t i = 0; i < levels.size(); ++i) {
            const auto& names = factors()[i].levels;
            const std::string prefix = std::string(factors()[i].name) + "=";
            const auto found = word.starts_with(prefix) ? std::find(names.begin(), names.end(),
                                                                    word.substr(prefix.size()))
                                                        : names.end();
            if (found != names.end()) {
                levels[i] = static_cast<u8>(found - names.begin());
            }
        }
    }
    const bool whole = std::find(levels.begin(), levels.end(), open) == levels.end();
    return whole && excluded(levels) == nullptr ? std::optional(levels) : std::nullopt;
}

} // namespace nestor::matrix
