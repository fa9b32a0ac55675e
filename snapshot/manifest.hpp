// Manifests as bytes. Internal to snapshot.
//
// A manifest file is "nestmani", u32 version, u32 words of the manifest, u32 words of the
// placement, u32 zero; both messages (canonical, single segment, no table); SHA-256 of all before.
#pragma once

#include <span>
#include <vector>

#include "src/base/result.hpp"

#include "snapshot/pack.hpp"
#include "snapshot/snapshot.hpp"

namespace nestor::snapshot {

/// A manifest and where what it names lies in this store.
struct PlacedManifest {
    Manifest manifest;
    std::vector<Location> units;        ///< in the order of manifest.units
    std::vector<Location> region_roots; ///< in the order of manifest.regions; 0 for zero regions
    std::vector<Location> image_roots;  ///< in the order of manifest.images; the same
};

[[nodiscard]] constexpr u64 image_pages(u64 size) {
    return (size >> page_shift) + ((size & page_mask) != 0 ? 1 : 0);
}

/// One of the maps that a snapshot refers to: of a region of memory or of a boot image.
struct PlacedMap {
    u64 pages = 0;
    Digest root;
    Location location;
    Gfn first;         ///< of the region; page 0 of an image
    std::string image; ///< its name; empty for memory

    /// "page 17", "boot image vmlinuz, page 17"
    [[nodiscard]] std::string describe(u64 page) const;
};
/// All of them: the regions' first, then the images'. An image without bytes has no pages.
[[nodiscard]] std::vector<PlacedMap> maps_of(const PlacedManifest& placed);

/// Makes it what a version that does not know of boot images would have written: of format 1, with
/// the machine digest that goes with that. A machine restored from it ends at its first reset.
void drop_images(PlacedManifest& placed);

/// The bytes of a manifest file. Sets manifest.digest.
[[nodiscard]] std::vector<std::byte> encode_manifest(PlacedManifest& placed);

/// The inverse, for hostile bytes: everything a caller relies on is checked, the manifest's and the
/// machine's digest included.
[[nodiscard]] Result<PlacedManifest> decode_manifest(std::span<const std::byte> file,
                                                     const Digest& expected);

/// Largest manifest file that is read.
inline constexpr std::size_t max_manifest_file = 64u << 20;

} // namespace nestor::snapshot
