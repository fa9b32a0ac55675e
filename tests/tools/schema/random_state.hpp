// Random values of any state struct, for tests: reproducible from a seed.
#pragma once

#include <cstdint>

#include "engine/state/meta.hpp"

namespace nestor::test {

/// SplitMix64.
class Rng final {
public:
    explicit Rng(std::uint64_t seed) : state_(seed) {}

    std::uint64_t operator()() {
        std::uint64_t z = state_ += 0x9e3779b97f4a7c15;
        z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
        z = (z ^ z >> 27) * 0x94d049bb133111eb;
        return z ^ z >> 31;
    }
    /// Uniform enough in [0, bound); bound is not 0.
    std::uint64_t below(std::uint64_t bound) { return (*this)() % bound; }

private:
    std::uint64_t state_;
};

/// Fills the value with random content its schema allows: known enumerants and union members, lists
/// of up to five elements. Zeroes, ones and extremes are as likely as all other integers together.
void randomize(void* value, const state::StructInfo& info, Rng& rng);

template <state::Stateful T>
void randomize(T& value, Rng& rng) {
    randomize(&value, state::Meta<T>::info, rng);
}

} // namespace nestor::test
