// The bar of `vm snap show`: where a machine's memory is in use, and where it changed.
#include "src/cli/memory_bar.hpp"

#include <algorithm>

namespace nestor::cli {
namespace {

constexpr std::string_view ink = ".:-=+*%#";

} // namespace

MemoryBar::MemoryBar(const std::vector<snapshot::RegionEntry>& regions)
    : regions_(regions), counts_(cells), by_region_(regions.size()) {
    for (const snapshot::RegionEntry& region : regions_) {
        first_.push_back(pages_);
        pages_ += region.size >> page_shift;
    }
}

void MemoryBar::add(Gfn page) {
    for (std::size_t i = 0; i < regions_.size(); ++i) {
        const u64 start = gfn_of(regions_[i].start).value();
        if (page.value() < start || page.value() - start >= regions_[i].size >> page_shift) {
            continue;
        }
        const u64 number = first_[i] + (page.value() - start);
        ++counts_[static_cast<std::size_t>(number * cells / pages_)];
        ++by_region_[i];
        return;
    }
}

std::string MemoryBar::text() const {
    std::string text;
    for (std::size_t cell = 0; cell < cells; ++cell) {
        const u64 first = (pages_ * cell + cells - 1) / cells;
        const u64 end = (pages_ * (cell + 1) + cells - 1) / cells;
        const u64 size = std::max<u64>(end - first, 1);
        const u64 step = counts_[cell] * ink.size() / (size + 1);
        text += counts_[cell] == 0 ? ' ' : ink[static_cast<std::size_t>(step)];
    }
    return text;
}

} // namespace nestor::cli
