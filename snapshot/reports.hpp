// Options and reports of the store's housekeeping. Part of the facade snapshot.hpp.
#pragma once

#include <chrono>
#include <optional>
#include <string>
#include <vector>

#include "snapshot/types.hpp"

namespace nestor::snapshot {

/// Who resumed the one machine of a snapshot.
struct Claim {
    std::string by;
    i64 at_unix_ns = 0;
};

/// One line of Store::list. A damaged one has an error in place of the manifest.
struct ListEntry {
    std::string tag;
    std::optional<Manifest> manifest;
    std::optional<Error> error;
    std::optional<Claim> claim;
    bool deferred = false; ///< not known to be on disk yet
};

/// One line of Store::log, from the snapshot to its first ancestor.
struct LogEntry {
    Digest manifest;
    std::vector<std::string> tags;    ///< that name it now, sorted; empty where all were removed
    std::optional<Manifest> contents; ///< nothing where the store does not have it any more
};

struct StoreStat {
    u64 snapshots = 0;
    u64 packs = 0;
    u64 pack_bytes = 0;
    u64 extents = 0;
    u64 pages = 0; ///< distinct pages held
    u64 map_nodes = 0;
    u64 index_bytes = 0;
    u64 manifest_bytes = 0;
    u64 logical_bytes = 0; ///< memory of all snapshots that can be read, each counted in full
};

/// What a snapshot costs. Stored bytes are compressed; an extent's are divided among its pages.
struct SnapshotSize {
    std::string tag;
    u64 logical_bytes = 0; ///< of memory
    u64 nonzero_pages = 0; ///< pages of memory that are not zero
    u64 distinct_pages = 0;
    u64 image_bytes = 0;  ///< of boot images, as files; what they cost is in the following
    u64 unique_bytes = 0; ///< stored for this tag alone: what goes when it is removed
    u64 shared_bytes = 0; ///< stored for this and other tags
};

struct GcOptions {
    bool dry_run = false; ///< find out what would go
    std::chrono::milliseconds wait_for_writer{0};
    Progress progress; ///< in bytes of packs looked at
};

struct GcReport {
    u64 snapshots = 0; ///< that were kept
    u64 leased = 0;    ///< kept for a running machine or reader only
    u64 manifests_removed = 0;
    u64 packs_removed = 0;
    u64 packs_rewritten = 0;
    u64 packs_without_room = 0; ///< not rewritten because the disk is full
    u64 bytes_before = 0;       ///< of packs, as StoreStat::pack_bytes
    u64 bytes_after = 0;
    u64 live_bytes = 0; ///< of bytes_after, what snapshots refer to: SnapshotSize without repeats
    double mark_ms = 0;
    double total_ms = 0;
};

struct FsckOptions {
    bool repair = false; ///< make a lost or damaged index anew from the packs
    std::chrono::milliseconds wait_for_writer{0};
    Progress progress; ///< in bytes of packs
};

struct FsckReport {
    struct Finding {
        std::string where; ///< a file of the store, or "snapshot TAG"
        std::string what;
        std::vector<std::string> tags; ///< snapshots that cannot be restored because of it, sorted
        bool repaired = false;
        bool newer = false; ///< no damage: written by a newer version
    };
    std::vector<Finding> findings; ///< empty: the store is sound
    std::vector<std::string> damaged_tags;
    std::vector<std::string> newer_tags; ///< that only a newer version can look at
    u64 records = 0;
    u64 snapshots = 0;
};

/// How manifests are written for a version that knows less.
struct WriteAs {
    u32 format = format_version;
    Digest schema_set;
    u32 engine_semantics = 0;
};

struct ExportOptions {
    /// Each snapshot becomes one that this version could have written, without what else it says of
    /// itself; it has no parent then, because that is another one. Whether units and contract say
    /// something to that version is the caller's affair.
    std::optional<WriteAs> write_as;
    Progress progress; ///< in bytes of memory of the snapshots
};

struct ExportReport {
    u64 snapshots = 0;
    u64 pages = 0; ///< distinct pages written
    u64 bytes = 0;
};

struct ImportOptions {
    std::string as_tag;   ///< instead of the tag in the stream, which then holds one snapshot
    bool replace = false; ///< move existing tags; otherwise an existing tag fails the import
    std::chrono::milliseconds wait_for_writer{0};
    Progress progress; ///< bytes read; the total is 0 where it is not known
};

struct ImportReport {
    std::vector<std::string> tags;
    u64 pages = 0;     ///< in the stream
    u64 new_pages = 0; ///< of these, what the store did not have
    u64 bytes_read = 0;
    u64 bytes_written = 0;
};

} // namespace nestor::snapshot
