// A snapshot that was loaded, and the readers over it. Internal to snapshot.
#pragma once

#include <memory>
#include <vector>

#include "snapshot/lease.hpp"
#include "snapshot/manifest.hpp"
#include "snapshot/memory_map.hpp"
#include "snapshot/snapshot.hpp"

namespace nestor::snapshot {

struct SnapshotData {
    PlacedManifest placed;
    std::vector<Unit> units;
    std::shared_ptr<const Packs> packs;
    std::string tag;
    std::string store; ///< store_identity()
    std::string order; ///< path of the recorded touch order
    std::shared_ptr<const Lease> lease;
};

/// The last records read, decoded. One per thread.
class RecordCache final {
public:
    RecordCache(const Packs& packs, RecordKind kind, std::size_t size)
        : packs_(packs), kind_(kind), slots_(size) {}

    /// The bytes of an item, valid until the next call. Its digest is not compared.
    [[nodiscard]] Result<std::span<const std::byte>> item(Location location);

private:
    struct Slot {
        u64 extent = ~u64{0};
        u64 used = 0;
        std::unique_ptr<RecordBuffer> buffer;
    };
    const Packs& packs_;
    RecordKind kind_;
    std::vector<Slot> slots_;
    u64 clock_ = 0;
};

/// Reads a node and compares it with its digest. `index` is its place in its level.
[[nodiscard]] Result<> read_node(RecordCache& cache, Location location, const Digest& digest,
                                 u64 pages, unsigned level, u64 index, MapNode& into);

/// Reads a page and compares it with its digest.
[[nodiscard]] Result<std::span<const std::byte, page_size>>
read_page(RecordCache& cache, Location location, const Digest& digest);

/// Reads the units a manifest names.
[[nodiscard]] Result<std::vector<Unit>> read_units(const PlacedManifest& placed,
                                                   const Packs& packs);

/// Maps, and where their pages go, one for each; nullptr: they are only verified.
struct MapTargets {
    std::vector<PlacedMap> maps;
    std::vector<u8*> hosts;
    bool zero = false; ///< what hosts point to is zero now
};
/// Errors name `tag` and the page.
[[nodiscard]] Result<> read_maps(const Packs& packs, const std::string& tag,
                                 const MapTargets& targets, unsigned threads,
                                 const Progress& progress);

/// Reads and verifies every node and page of a snapshot and its images.
[[nodiscard]] Result<> verify_maps(const SnapshotData& data, unsigned threads,
                                   const Progress& progress);

} // namespace nestor::snapshot
