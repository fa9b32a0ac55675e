// A set of places in packs. Internal to snapshot.
#pragma once

#include <unordered_map>
#include <vector>

#include "snapshot/pack.hpp"

namespace nestor::snapshot {

/// About 60 bytes for each record that something lies in.
class ItemSet final {
public:
    /// Whether it is new.
    bool add(Location location) {
        Bits& bits = records_[location.extent()];
        u64& word = bits.word(location.slot() / 64);
        const u64 bit = u64{1} << (location.slot() % 64);
        const bool fresh = (word & bit) == 0;
        word |= bit;
        return fresh;
    }
    [[nodiscard]] bool has(Location location) const {
        const auto found = records_.find(location.extent());
        return found != records_.end() &&
               (found->second.word(location.slot() / 64) >> (location.slot() % 64) & 1) != 0;
    }
    /// Whether anything in that record is in the set.
    [[nodiscard]] bool has_record(Location location) const {
        return records_.contains(location.extent());
    }

private:
    struct Bits {
        u64 first = 0;
        std::vector<u64> more;

        u64& word(u32 index) {
            if (index == 0) {
                return first;
            }
            if (more.size() < index) {
                more.resize(index);
            }
            return more[index - 1];
        }
        [[nodiscard]] u64 word(u32 index) const {
            return index == 0 ? first : index <= more.size() ? more[index - 1] : 0;
        }
    };
    std::unordered_map<u64, Bits> records_;
};

} // namespace nestor::snapshot
