// What the store's interface is made of: units, regions, manifests. Part of the facade
// snapshot.hpp.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "src/base/digest.hpp"
#include "src/base/result.hpp"
#include "src/base/types.hpp"

namespace nestor::snapshot {

/// Version of manifest, maps, packs and references together: of a snapshot that names boot images,
/// and of one that does not and is what it always was.
inline constexpr u32 format_version = 2;
inline constexpr u32 format_without_images = 1;

/// One state unit of a machine. `bytes` are the canonical message of schema struct `type`.
struct Unit {
    std::string name; ///< "vcpu[0].cpu"; unique within a machine
    u64 type = 0;     ///< Cap'n Proto id of the struct
    std::vector<std::byte> bytes;
    bool operator==(const Unit&) const = default;
};

/// What the machine needs from whoever runs it; opaque here, part of the machine digest.
struct Contract {
    u64 type = 0;
    std::vector<std::byte> bytes;
    bool operator==(const Contract&) const = default;
};

/// A run of guest memory. `start` and `size` are multiples of page_size, size is not 0.
struct Region {
    Gpa start;
    u64 size = 0;
    const u8* host = nullptr; ///< `size` readable bytes; unused by a save with a PageSource
};

/// Where restored memory goes.
struct RegionTarget {
    Gpa start;
    u64 size = 0;
    u8* host = nullptr; ///< `size` writable bytes
};

enum class Tier : u16 { resume, clone };

/// For people and tools; no part of the machine digest.
struct Provenance {
    i64 created_unix_ns = 0; ///< 0 in a SaveRequest: the time of the save
    std::string host;        ///< empty in a SaveRequest: this host's name
    std::string creator;
    std::string machine;
    u64 count = 0;        ///< machine-wide position (DESIGN.md, rule 2)
    u64 pause_ns = 0;     ///< how long the machine stood still for it, as the saver says
    u64 save_ns = 0;      ///< from the start of the save to its manifest; set by the save
    std::string restored; ///< tier and clock chosen when the machine was restored; or empty
};

struct UnitEntry {
    std::string name;
    u64 type = 0;
    u64 size = 0;
    Digest digest;
};

struct RegionEntry {
    Gpa start;
    u64 size = 0;
    Digest root; ///< all zero bits: the whole region is zero
};

enum class ImageKind : u16 { kernel, module };

/// A file that a machine is booted from again when it is reset.
struct ImageEntry {
    ImageKind kind = ImageKind::kernel; ///< of the first; all others are modules
    std::string name;                   ///< what errors call it
    bool named = false;                 ///< the guest is told the name
    std::string arguments;              ///< of a kernel its command line
    u64 size = 0;
    Digest root; ///< of a tree like a region's; all zero bits: all of it is zero
    bool operator==(const ImageEntry&) const = default;
};

/// Of one snapshot, at most.
inline constexpr std::size_t max_images = 1024;
inline constexpr u64 max_image_bytes = u64{4} << 30; ///< all together

/// What a snapshot says about itself.
struct Manifest {
    Digest digest; ///< of the manifest's bytes: the identity of the snapshot
    u32 format = format_without_images;
    Digest schema_set;
    u32 engine_semantics = 0;
    Contract contract;
    std::vector<UnitEntry> units;     ///< sorted by name
    std::vector<RegionEntry> regions; ///< sorted by start
    std::vector<ImageEntry> images;   ///< empty: a reset cannot boot the machine again
    Digest memory_root;
    Digest machine_digest;
    std::optional<Digest> parent;
    std::string parent_tag;
    Tier tier = Tier::resume;
    bool clone_forbidden = false; ///< restoring it as a clone is to be refused
    Provenance provenance;
};

/// Called now and then with what is done, in bytes of guest memory or of files. false stops the
/// work, which then fails with "interrupted". May be called on any thread, one call at a time.
using Progress = std::function<bool(u64 done, u64 total)>;

} // namespace nestor::snapshot
