// Single pages, for a machine that starts before its memory is there. Owns: the last node of every
// level, since neighbouring pages share them, and a few decoded records.
#include "snapshot/load.hpp"

#include <array>
#include <cstring>

namespace nestor::snapshot {

namespace {

constexpr std::size_t cached_node_records = 8;
constexpr std::size_t cached_extents = 32;
constexpr std::array<std::byte, page_size> zero_page{};

} // namespace

struct PageReader::Impl {
    explicit Impl(std::shared_ptr<const SnapshotData> snapshot)
        : data(std::move(snapshot)), nodes(*data->packs, RecordKind::nodes, cached_node_records),
          pages(*data->packs, RecordKind::pages, cached_extents) {}

    struct Step {
        bool valid = false;
        std::size_t region = 0;
        u64 index = 0;
        MapNode node;
    };

    /// The node of a level above a page, from the path or read into it.
    Result<const MapNode*> node(std::size_t region, unsigned level, u64 page, Location location,
                                const Digest& digest) {
        Step& step = path[level];
        const u64 index = page >> (fanout_shift * level);
        if (!step.valid || step.region != region || step.index != index) {
            step.valid = false;
            const u64 count = data->placed.manifest.regions[region].size >> page_shift;
            TRY(read_node(nodes, location, digest, count, level, index, step.node));
            step.valid = true;
            step.region = region;
            step.index = index;
        }
        return &step.node;
    }

    Result<std::span<const std::byte, page_size>> find(std::size_t region, u64 page) {
        const RegionEntry& entry = data->placed.manifest.regions[region];
        Location location = data->placed.region_roots[region];
        Digest digest = entry.root;
        for (unsigned level = map_levels(entry.size >> page_shift); level >= 1; --level) {
            if (digest == zero_digest) {
                break;
            }
            const MapNode* const at = TRY(node(region, level, page, location, digest));
            const u64 child = page >> (fanout_shift * (level - 1)) & (fanout - 1);
            location = at->locations[child];
            digest = at->digests[child];
        }
        if (digest == zero_digest) {
            return std::span(zero_page);
        }
        return read_page(pages, location, digest);
    }

    std::shared_ptr<const SnapshotData> data;
    RecordCache nodes;
    RecordCache pages;
    std::array<Step, 9> path;
};

PageReader::PageReader(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
PageReader::~PageReader() = default;
PageReader::PageReader(PageReader&&) noexcept = default;
PageReader& PageReader::operator=(PageReader&&) noexcept = default;

Result<std::span<const std::byte, page_size>> PageReader::page(Gfn gfn) {
    const auto& regions = impl_->data->placed.manifest.regions;
    for (std::size_t i = 0; i < regions.size(); ++i) {
        const u64 first = gfn_of(regions[i].start).value();
        if (gfn.value() < first || gfn.value() - first >= regions[i].size >> page_shift) {
            continue;
        }
        auto bytes = impl_->find(i, gfn.value() - first);
        if (!bytes) {
            return Failure(with_context(bytes.error(), "snapshot " + impl_->data->tag + ": page " +
                                                           std::to_string(gfn.value())));
        }
        return *bytes;
    }
    return fail(ErrorCode::usage,
                "page " + std::to_string(gfn.value()) + " is not part of the snapshot's memory");
}

Result<> PageReader::read(Gfn gfn, std::span<std::byte, page_size> into) {
    const auto bytes = TRY(page(gfn));
    std::memcpy(into.data(), bytes.data(), page_size);
    return {};
}

PageReader Snapshot::page_reader() const {
    return PageReader(std::make_unique<PageReader::Impl>(data_));
}

} // namespace nestor::snapshot
