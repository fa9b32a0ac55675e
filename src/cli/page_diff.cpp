// The pages of `vm snap diff`. Only those parts of the memory maps are read that differ.
#include "src/cli/page_diff.hpp"

#include <cstdio>

#include "src/cli/verbs.hpp"

namespace nestor::cli {
namespace {

using How = PageDiff::Run::How;

constexpr const char* how_names[] = {"changed", "appeared", "vanished"};

How how_of(const snapshot::PageDifference& d) {
    return d.left && d.right ? How::changed : d.right ? How::appeared : How::vanished;
}

} // namespace

Result<PageDiff> PageDiff::of(const snapshot::Snapshot& left, const snapshot::Snapshot& right) {
    PageDiff diff;
    for (const snapshot::RegionEntry& region : left.manifest().regions) {
        diff.regions_.push_back({region.start, region.size >> page_shift, 0});
    }
    diff.regions_.push_back({});
    TRY(left.diff_pages(right, [&diff](const snapshot::PageDifference& difference) {
        diff.add(difference);
        return true;
    }));
    return diff;
}

void PageDiff::add(const snapshot::PageDifference& d) {
    const How how = how_of(d);
    ++counts_[static_cast<std::size_t>(how)];
    std::size_t i = 0;
    while (i + 1 < regions_.size() &&
           (d.page < gfn_of(regions_[i].start) ||
            d.page.value() - gfn_of(regions_[i].start).value() >= regions_[i].pages)) {
        ++i;
    }
    ++regions_[i].different;
    if (!runs_.empty() && runs_.back().how == how &&
        runs_.back().first + runs_.back().count == d.page) {
        ++runs_.back().count;
    } else {
        runs_.push_back({d.page, 1, how});
    }
}

u64 PageDiff::total() const { return counts_[0] + counts_[1] + counts_[2]; }

void PageDiff::print(bool list) const {
    std::printf("%s of memory (%s): %llu changed, %llu appeared, %llu vanished\n",
                count_text(total(), "page").c_str(), size_text(total() << page_shift).c_str(),
                static_cast<unsigned long long>(counts_[0]),
                static_cast<unsigned long long>(counts_[1]),
                static_cast<unsigned long long>(counts_[2]));
    for (const RegionCount& region : regions_) {
        if (region.different != 0 && region.pages != 0) {
            std::printf("  region 0x%llx: %llu of %llu pages\n",
                        static_cast<unsigned long long>(region.start.value()),
                        static_cast<unsigned long long>(region.different),
                        static_cast<unsigned long long>(region.pages));
        } else if (region.different != 0) {
            std::printf("  elsewhere: %llu pages\n",
                        static_cast<unsigned long long>(region.different));
        }
    }
    for (std::size_t i = 0; list && i < runs_.size(); ++i) {
        const Run& run = runs_[i];
        std::printf(
            "  0x%llx-0x%llx %llu %s\n",
            static_cast<unsigned long long>(run.first.value() << page_shift),
            static_cast<unsigned long long>(((run.first.value() + run.count) << page_shift) - 1),
            static_cast<unsigned long long>(run.count),
            how_names[static_cast<std::size_t>(run.how)]);
    }
}

std::string PageDiff::to_json(bool list) const {
    control::Object whole;
    whole.add("different", total());
    for (std::size_t how = 0; how < 3; ++how) {
        whole.add(how_names[how], counts_[how]);
    }
    std::vector<std::string> regions;
    for (const RegionCount& region : regions_) {
        if (region.pages != 0) {
            control::Object line;
            line.add("start", region.start.value())
                .add("pages", region.pages)
                .add("different", region.different);
            regions.push_back(line.to_json());
        }
    }
    whole.add("regions", control::RawJson{control::json_array(regions)});
    if (list) {
        std::vector<std::string> runs;
        for (const Run& run : runs_) {
            control::Object line;
            line.add("address", run.first.value() << page_shift)
                .add("pages", run.count)
                .add("how", how_names[static_cast<std::size_t>(run.how)]);
            runs.push_back(line.to_json());
        }
        whole.add("runs", control::RawJson{control::json_array(runs)});
    }
    return whole.to_json();
}

} // namespace nestor::cli
