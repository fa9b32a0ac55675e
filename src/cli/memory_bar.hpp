// A machine's memory in one line of text.
#pragma once

#include <string>
#include <vector>

#include "snapshot/snapshot.hpp"

namespace nestor::cli {

/// Counts pages of a machine's regions, laid end to end, into a number of cells.
class MemoryBar final {
public:
    static constexpr std::size_t cells = 64;

    explicit MemoryBar(const std::vector<snapshot::RegionEntry>& regions);

    /// A page outside all regions is passed over.
    void add(Gfn page);
    /// One character for each cell: a blank where no page was added, then more and more ink.
    [[nodiscard]] std::string text() const;
    /// Pages added to each region.
    [[nodiscard]] const std::vector<u64>& by_region() const { return by_region_; }

private:
    std::vector<snapshot::RegionEntry> regions_;
    std::vector<u64> first_; ///< number of a region's first page among all
    u64 pages_ = 0;
    std::vector<u64> counts_;
    std::vector<u64> by_region_;
};

} // namespace nestor::cli
