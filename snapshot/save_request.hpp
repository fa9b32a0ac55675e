// What a save is asked for and what it tells afterwards. Part of the facade snapshot.hpp.
#pragma once

#include <chrono>
#include <span>
#include <string>

#include "snapshot/digests.hpp"
#include "snapshot/images.hpp"
#include "snapshot/types.hpp"

namespace nestor::snapshot {

/// Gives a save the pages of a machine that runs on meanwhile, as they were at one moment.
class PageSource {
public:
    PageSource() = default;
    PageSource(const PageSource&) = delete;
    PageSource& operator=(const PageSource&) = delete;
    virtual ~PageSource() = default;

    /// Copies one page. Called by several threads at once, at most once for a page. An error fails
    /// the save.
    [[nodiscard]] virtual Result<> read(Gfn page, std::span<std::byte, page_size> into) = 0;

    /// The save will not ask for the pages [first, first + count) any more. Called by several
    /// threads, for every page of the machine once, unless the save fails.
    virtual void passed(Gfn first, u64 count) {
        (void)first;
        (void)count;
    }
};

enum class Durability {
    commit,   ///< on disk when the save reports success
    deferred, ///< visible at once, on disk with the next commit or Store::sync. A crash of the host
              ///< before that loses such snapshots as wholes, and nothing else.
};

struct SaveRequest {
    std::string tag;
    /// The snapshot that this one continues: a tag; "auto" for the one that `digester` was last
    /// saved to or seeded from, if this store has it; "none" or empty.
    std::string parent;
    bool replace = false; ///< move an existing tag; otherwise an existing tag fails the save
    std::span<const Unit> units;
    std::span<const Region> regions; ///< must not change during the save, unless `source` is set
    Contract contract;
    Digest schema_set;
    u32 engine_semantics = 0;
    Tier tier = Tier::resume;
    bool clone_forbidden = false;
    Provenance provenance;
    Durability durability = Durability::commit;
    /// Page digests known already. It stays right when the save fails: what the save has not come
    /// to stays dirty in it. After a save or Snapshot::seed from this store it also knows where
    /// everything lies, and a save costs what is dirty. Pages that are clean in it are not read,
    /// unless the store does not have them.
    MemoryDigester* digester = nullptr;
    /// What a reset boots again; null or empty: nothing can. Stays right when the save fails.
    Images* images = nullptr;
    PageSource* source = nullptr; ///< where pages come from instead of the regions' `host`
    unsigned threads = 2;
    std::chrono::milliseconds wait_for_writer{0}; ///< how long another writer is waited for
    Progress progress;
};

struct SaveReport {
    Digest manifest;
    Digest machine_digest;
    Digest memory_root;
    std::string parent;      ///< tag of the parent that was recorded, or empty
    u64 pages = 0;           ///< all pages of the machine
    u64 zero_pages = 0;      ///< of these, what is zero
    u64 dirty_pages = 0;     ///< what was digested
    u64 new_pages = 0;       ///< what the store did not have yet
    u64 new_image_pages = 0; ///< the same of boot images
    u64 bytes_written = 0;   ///< to packs: extents, map nodes, units
    u64 index_bytes = 0;     ///< size of the index file afterwards
    double pages_ms = 0;     ///< digesting, looking up, compressing, writing
    double map_ms = 0;       ///< map nodes and units
    double sync_ms = 0;      ///< until the packs are on disk
    double index_ms = 0;     ///< opening, checking and committing the index
    double commit_ms = 0;    ///< manifest and reference
    double total_ms = 0;
};

} // namespace nestor::snapshot
