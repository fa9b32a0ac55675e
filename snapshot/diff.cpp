// Walks of memory maps that read no page: the pages of one snapshot, and where two differ. Subtrees
// with equal digests are equal, whatever store they lie in, so only what differs is read.
#include "snapshot/load.hpp"

namespace nestor::snapshot {

namespace {

constexpr std::size_t diff_cached_records = 8;

/// One side of a comparison: a subtree, absent where its digest is zero.
struct Side {
    Location location;
    Digest digest;
};

/// Walks one or two trees of the same shape at once.
class Walk final {
public:
    using Each = std::function<bool(Gfn page, const Digest& left, const Digest& right)>;

    Walk(const SnapshotData& left, const SnapshotData* right, const Each& each)
        : left_(left), right_(right), each_(each),
          left_cache_(*left.packs, RecordKind::nodes, diff_cached_records),
          right_cache_(*(right != nullptr ? right : &left)->packs, RecordKind::nodes,
                       diff_cached_records) {}

    /// A region that one or both have. False in the result: `each` has seen enough.
    Result<bool> region(Gpa start, u64 size, const Side& left, const Side& right) {
        first_ = gfn_of(start);
        pages_ = size >> page_shift;
        return subtree(map_levels(pages_), 0, left, right);
    }

private:
    Result<> read(RecordCache& cache, const SnapshotData& data, const Side& side, unsigned level,
                  u64 index, MapNode& node) {
        if (side.digest == zero_digest) {
            node.digests.fill(zero_digest);
            return {};
        }
        TRY(read_node(cache, side.location, side.digest, pages_, level, index, node),
            "snapshot " + data.tag + ": memory map");
        return {};
    }

    Result<bool> subtree(unsigned level, u64 index, const Side& left, const Side& right) {
        if (left.digest == right.digest) {
            return true;
        }
        if (level == 0) {
            return each_(first_ + index, left.digest, right.digest);
        }
        MapNode a;
        MapNode b;
        TRY(read(left_cache_, left_, left, level, index, a));
        TRY(read(right_cache_, *(right_ != nullptr ? right_ : &left_), right, level, index, b));
        const u64 width = map_width(pages_, level - 1);
        for (u64 i = 0; i < fanout && (index << fanout_shift) + i < width; ++i) {
            if (!TRY(subtree(level - 1, (index << fanout_shift) + i, {a.locations[i], a.digests[i]},
                             {b.locations[i], b.digests[i]}))) {
                return false;
            }
        }
        return true;
    }

    const SnapshotData& left_;
    const SnapshotData* right_;
    const Each& each_;
    RecordCache left_cache_;
    RecordCache right_cache_;
    Gfn first_{0};
    u64 pages_ = 0;
};

} // namespace

Result<> Snapshot::each_page(const std::function<bool(Gfn, const Digest&)>& each) const {
    const Walk::Each one = [&each](Gfn page, const Digest& digest, const Digest&) {
        return each(page, digest);
    };
    Walk walk(*data_, nullptr, one);
    const auto& regions = manifest().regions;
    for (std::size_t i = 0; i < regions.size(); ++i) {
        const Side side{data_->placed.region_roots[i], regions[i].root};
        if (!TRY(walk.region(regions[i].start, regions[i].size, side, {}))) {
            break;
        }
    }
    return {};
}

Result<> Snapshot::diff_pages(const Snapshot& right,
                              const std::function<bool(const PageDifference&)>& each) const {
    const Walk::Each both = [&each](Gfn page, const Digest& a, const Digest& b) {
        return each({page, a != zero_digest, b != zero_digest});
    };
    Walk walk(*data_, right.data_.get(), both);
    const auto& a = manifest().regions;
    const auto& b = right.manifest().regions;
    std::size_t i = 0;
    std::size_t j = 0;
    while (i < a.size() || j < b.size()) {
        const bool take_left = i < a.size() && (j == b.size() || a[i].start <= b[j].start);
        const bool take_right = j < b.size() && (i == a.size() || b[j].start <= a[i].start);
        const bool same = take_left && take_right && a[i].size == b[j].size;
        Side left;
        Side other;
        // Regions of other shapes have other trees; each then stands against nothing.
        const bool use_left = take_left;
        const bool use_right = same || (take_right && !take_left);
        const RegionEntry& region = use_left ? a[i] : b[j];
        if (use_left) {
            left = {data_->placed.region_roots[i], a[i].root};
            ++i;
        }
        if (use_right) {
            other = {right.data_->placed.region_roots[j], b[j].root};
            ++j;
        }
        if (!TRY(walk.region(region.start, region.size, left, other))) {
            break;
        }
    }
    return {};
}

} // namespace nestor::snapshot
