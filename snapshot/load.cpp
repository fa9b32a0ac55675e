// Reading a snapshot back. Owns: that nothing reaches a caller that was not compared with its
// digest, from the manifest down: the manifest names the roots, a node its children, a leaf its
// pages. Locations are only where to look.
//
// read_all works through windows of 16 MiB (one node of level 2), each sorted by where its pages
// lie, so an extent is decoded once or twice however the pages are spread.
#include "snapshot/load.hpp"

#include <algorithm>
#include <cstring>

#include "snapshot/format.hpp"
#include "snapshot/parallel.hpp"

namespace nestor::snapshot {

namespace {

/// A subtree that a thread reads at once, or a run of zero pages (level 0).
struct Window {
    std::size_t map = 0;
    unsigned level = 0;
    u64 index = 0; ///< of the node in its level; of the first page, for a run
    u64 pages = 0; ///< of the run, or of the subtree
    Location location;
    Digest digest;
};

struct PageTask {
    Location location;
    u64 page = 0;
    Digest digest;
};

constexpr unsigned window_level = 2;
constexpr u64 zero_run = 4096; // pages

class MapReader final {
public:
    MapReader(const Packs& packs, const std::string& tag, const MapTargets& targets)
        : packs_(packs), tag_(tag), maps_(targets.maps), hosts_(targets.hosts),
          target_is_zero_(targets.zero) {}

    Result<> run(unsigned threads, const Progress& progress) {
        u64 total = 0;
        RecordCache nodes(packs_, RecordKind::nodes, 8);
        for (std::size_t i = 0; i < maps_.size(); ++i) {
            const PlacedMap& map = maps_[i];
            total += map.pages << page_shift;
            const unsigned levels = map_levels(map.pages);
            TRY(split(nodes, {i, levels, 0, map.pages, map.location, map.root}));
        }
        std::vector<std::unique_ptr<Worker>> workers;
        for (unsigned i = 0; i < std::max(1u, threads); ++i) {
            workers.push_back(std::make_unique<Worker>(packs_));
        }
        ProgressMeter meter(progress, total);
        return parallel_chunks(windows_.size(), static_cast<unsigned>(workers.size()),
                               [&](unsigned worker, u64 i) -> Result<> {
                                   TRY(read_window(*workers[worker], windows_[i]));
                                   return meter.add(windows_[i].pages << page_shift);
                               });
    }

private:
    struct Worker {
        explicit Worker(const Packs& packs)
            : nodes(packs, RecordKind::nodes, 4), pages(packs, RecordKind::pages, 2) {}
        RecordCache nodes;
        RecordCache pages;
        std::vector<PageTask> tasks;
    };

    /// Descends to window_level and notes what is to be read.
    Result<> split(RecordCache& nodes, const Window& window) {
        if (window.digest == zero_digest) {
            const u64 first = window.index << (fanout_shift * window.level);
            // Nothing to do is one window, however large a forged manifest makes the region.
            const bool nothing = target_is_zero_ || hosts_[window.map] == nullptr;
            const u64 run = nothing ? window.pages : zero_run;
            for (u64 at = 0; at < window.pages; at += run) {
                const u64 pages = std::min(run, window.pages - at);
                windows_.push_back({window.map, 0, first + at, pages, {}, {}});
            }
            return {};
        }
        if (window.level <= window_level) {
            windows_.push_back(window);
            return {};
        }
        const u64 pages = maps_[window.map].pages;
        MapNode node;
        TRY(read_node(nodes, window.location, window.digest, pages, window.level, window.index,
                      node),
            describe(window));
        const unsigned level = window.level - 1;
        for (u64 i = 0; i < fanout; ++i) {
            const u64 index = (window.index << fanout_shift) + i;
            const u64 first = index << (fanout_shift * level);
            if (first >= pages) {
                break;
            }
            const u64 count = std::min(u64{1} << (fanout_shift * level), pages - first);
            TRY(split(nodes,
                      {window.map, level, index, count, node.locations[i], node.digests[i]}));
        }
        return {};
    }

    void zero(std::size_t map, u64 page, u64 pages) const {
        u8* const host = hosts_[map];
        if (host == nullptr || target_is_zero_) {
            return;
        }
        for (u64 i = page; i < page + pages; ++i) {
            u8* const at = host + (i << page_shift);
            if (!is_zero_page(at)) {
                std::memset(at, 0, page_size);
            }
        }
    }

    Result<> collect_leaf(Worker& worker, std::size_t map, u64 leaf, Location location,
                          const Digest& digest) {
        const u64 pages = maps_[map].pages;
        const u64 first = leaf << fanout_shift;
        const u64 count = std::min(fanout, pages - first);
        if (digest == zero_digest) {
            zero(map, first, count);
            return {};
        }
        MapNode node;
        TRY(read_node(worker.nodes, location, digest, pages, 1, leaf, node));
        for (u64 i = 0; i < count; ++i) {
            if (node.digests[i] == zero_digest) {
                zero(map, first + i, 1);
            } else {
                worker.tasks.push_back({node.locations[i], first + i, node.digests[i]});
            }
        }
        return {};
    }

    Result<> collect(Worker& worker, const Window& window) {
        if (window.level == 1) {
            return collect_leaf(worker, window.map, window.index, window.location, window.digest);
        }
        const u64 pages = maps_[window.map].pages;
        const u64 leaves = map_width(pages, 1);
        MapNode node;
        TRY(read_node(worker.nodes, window.location, window.digest, pages, 2, window.index, node));
        for (u64 i = 0; i < fanout; ++i) {
            const u64 leaf = (window.index << fanout_shift) + i;
            if (leaf < leaves) {
                TRY(collect_leaf(worker, window.map, leaf, node.locations[i], node.digests[i]));
            }
        }
        return {};
    }

    Result<> read_window(Worker& worker, const Window& window) {
        if (window.level == 0) {
            zero(window.map, window.index, window.pages);
            return {};
        }
        worker.tasks.clear();
        TRY(collect(worker, window), describe(window));
        std::sort(worker.tasks.begin(), worker.tasks.end(),
                  [](const PageTask& a, const PageTask& b) { return a.location < b.location; });
        u8* const host = hosts_[window.map];
        for (const PageTask& task : worker.tasks) {
            const auto bytes = read_page(worker.pages, task.location, task.digest);
            if (!bytes) {
                return Failure(with_context(bytes.error(), describe(window.map, task.page)));
            }
            if (host != nullptr) {
                std::memcpy(host + (task.page << page_shift), bytes->data(), page_size);
            }
        }
        return {};
    }

    [[nodiscard]] std::string describe(std::size_t map, u64 page) const {
        return "snapshot " + tag_ + ": " + maps_[map].describe(page);
    }
    [[nodiscard]] std::string describe(const Window& window) const {
        return describe(window.map, window.index << (fanout_shift * window.level)) + " and after";
    }

    const Packs& packs_;
    const std::string& tag_;
    const std::vector<PlacedMap>& maps_;
    const std::vector<u8*>& hosts_;
    bool target_is_zero_;
    std::vector<Window> windows_;
};

} // namespace

Result<std::span<const std::byte>> RecordCache::item(Location location) {
    Slot* oldest = &slots_[0];
    for (Slot& slot : slots_) {
        if (slot.extent == location.extent()) {
            slot.used = ++clock_;
            if (location.slot() >= slot.buffer->count()) {
                return fail(ErrorCode::corrupt, to_string(location) + " does not exist",
                            damage_remedy);
            }
            return slot.buffer->item(location.slot());
        }
        if (slot.used < oldest->used) {
            oldest = &slot;
        }
    }
    oldest->extent = ~u64{0};
    if (!oldest->buffer) {
        oldest->buffer = std::make_unique<RecordBuffer>();
    }
    TRY(packs_.read(location, kind_, *oldest->buffer));
    oldest->extent = location.extent();
    oldest->used = ++clock_;
    return oldest->buffer->item(location.slot());
}

Result<> read_node(RecordCache& cache, Location location, const Digest& digest, u64 pages,
                   unsigned level, u64 index, MapNode& into) {
    const auto bytes = TRY(cache.item(location));
    const u64 children = std::min(fanout, map_width(pages, level - 1) - (index << fanout_shift));
    TRY(decode_node(bytes, digest, level, children, into), to_string(location));
    return {};
}

Result<std::span<const std::byte, page_size>> read_page(RecordCache& cache, Location location,
                                                        const Digest& digest) {
    const auto bytes = TRY(cache.item(location));
    if (bytes.size() != page_size || sha256(bytes) != digest) {
        return fail(ErrorCode::corrupt, to_string(location) + ": the page does not have its digest",
                    damage_remedy);
    }
    return std::span<const std::byte, page_size>(bytes);
}

Result<std::vector<Unit>> read_units(const PlacedManifest& placed, const Packs& packs) {
    RecordCache cache(packs, RecordKind::units, 1);
    std::vector<Unit> units;
    for (std::size_t i = 0; i < placed.units.size(); ++i) {
        const UnitEntry& entry = placed.manifest.units[i];
        std::span<const std::byte> bytes;
        if (entry.size != 0) {
            bytes = TRY(cache.item(placed.units[i]), "unit " + entry.name);
        }
        if (bytes.size() != entry.size || sha256(bytes) != entry.digest) {
            return fail(ErrorCode::corrupt,
                        "unit " + entry.name + ": " + to_string(placed.units[i]) +
                            ": it does not have its digest",
                        damage_remedy);
        }
        units.push_back({entry.name, entry.type, {bytes.begin(), bytes.end()}});
    }
    return units;
}

Snapshot::Snapshot(std::shared_ptr<const SnapshotData> data) : data_(std::move(data)) {}

const Manifest& Snapshot::manifest() const { return data_->placed.manifest; }

std::span<const Unit> Snapshot::units() const { return data_->units; }

const Unit* Snapshot::find_unit(std::string_view name) const {
    const auto found = std::lower_bound(
        data_->units.begin(), data_->units.end(), name,
        [](const Unit& unit, std::string_view wanted) { return unit.name < wanted; });
    return found != data_->units.end() && found->name == name ? &*found : nullptr;
}

Result<> Snapshot::read_all(std::span<const RegionTarget> targets,
                            const ReadOptions& options) const {
    const auto& regions = manifest().regions;
    std::vector<u8*> hosts;
    for (const RegionEntry& region : regions) {
        const auto target =
            std::find_if(targets.begin(), targets.end(), [&](const RegionTarget& t) {
                return t.start == region.start && t.size == region.size;
            });
        if (target == targets.end()) {
            break;
        }
        hosts.push_back(target->host);
    }
    if (hosts.size() != regions.size() || targets.size() != regions.size()) {
        return fail(ErrorCode::usage,
                    "snapshot " + data_->tag + " has other memory regions than the target");
    }
    MapTargets into{maps_of(data_->placed), std::move(hosts), options.target_is_zero};
    into.maps.resize(regions.size());
    return read_maps(*data_->packs, data_->tag, into, options.threads, options.progress);
}

Result<> read_maps(const Packs& packs, const std::string& tag, const MapTargets& targets,
                   unsigned threads, const Progress& progress) {
    return MapReader(packs, tag, targets).run(threads, progress);
}

Result<> verify_maps(const SnapshotData& data, unsigned threads, const Progress& progress) {
    MapTargets into{maps_of(data.placed), {}, true};
    into.hosts.resize(into.maps.size());
    return read_maps(*data.packs, data.tag, into, threads, progress);
}

Result<> Snapshot::verify(unsigned threads, const Progress& progress) const {
    return verify_maps(*data_, threads, progress);
}

} // namespace nestor::snapshot
