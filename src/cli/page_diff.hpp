// Pages in which two snapshots differ, counted and as runs.
#pragma once

#include <string>
#include <vector>

#include "snapshot/snapshot.hpp"

namespace nestor::cli {

class PageDiff final {
public:
    /// Pages in a row that differ in the same way.
    struct Run {
        enum class How : u8 { changed, appeared, vanished };
        Gfn first;
        u64 count = 0;
        How how = How::changed;
    };
    struct RegionCount {
        Gpa start;
        u64 pages = 0;
        u64 different = 0;
    };

    [[nodiscard]] static Result<PageDiff> of(const snapshot::Snapshot& left,
                                             const snapshot::Snapshot& right);

    /// With `list`: the runs too.
    void print(bool list) const;
    [[nodiscard]] std::string to_json(bool list) const;

private:
    void add(const snapshot::PageDifference& difference);
    [[nodiscard]] u64 total() const;

    std::vector<Run> runs_;
    std::vector<RegionCount> regions_; ///< of the left snapshot; the last one is "elsewhere"
    u64 counts_[3] = {};               ///< by Run::How
};

} // namespace nestor::cli
