// Facade of floor 6, snapshot: the store of machine states (design.md, "The snapshot").
//
// It knows nothing of the engine. A machine is a list of units (a name, a schema type, bytes), a
// list of memory regions and a contract. A saved one is found again by its tag.
//
// What holds for all of it:
// - Pages, map nodes and units are found by SHA-256 and compared with it whenever they are read.
//   A store with flipped bits or cut files gives ErrorCode::corrupt, never a wrong byte.
// - The reference (tag) is written last and is the only commit point. A save that fails, is
//   interrupted or dies leaves the earlier snapshots as they were.
// - Readers take no lock and never open the index. One process at a time may write.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "src/base/digest.hpp"
#include "src/base/result.hpp"
#include "src/base/types.hpp"

namespace nestor::snapshot {

/// Version of manifest, maps, packs and references together.
inline constexpr u32 format_version = 1;

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
    const u8* host = nullptr; ///< `size` readable bytes
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
    u64 count = 0; ///< machine-wide position, design rule 2
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

/// What a snapshot says about itself.
struct Manifest {
    Digest digest; ///< of the manifest's bytes: the identity of the snapshot
    u32 format = format_version;
    Digest schema_set;
    u32 engine_semantics = 0;
    Contract contract;
    std::vector<UnitEntry> units;     ///< sorted by name
    std::vector<RegionEntry> regions; ///< sorted by start
    Digest memory_root;
    Digest machine_digest;
    std::optional<Digest> parent;
    std::string parent_tag;
    Tier tier = Tier::resume;
    Provenance provenance;
};

// ---- Digests -------------------------------------------------------------------------------

/// Page digests of a machine's memory, kept from call to call, so that a digest after a short run
/// costs what was written meanwhile. All pages count as dirty at first. Memory: 0.8 % of the
/// guest's. Not thread-safe; the regions given must have the shape of the first ones.
class MemoryDigester final {
public:
    MemoryDigester();
    ~MemoryDigester();
    MemoryDigester(MemoryDigester&&) noexcept;
    MemoryDigester& operator=(MemoryDigester&&) noexcept;

    /// The pages [first, first + count) were written. Pages outside all regions are ignored.
    void mark_dirty(Gfn first, u64 count = 1);
    void mark_all_dirty();

    /// Root of the memory map, digesting dirty pages only, which are clean afterwards. Fails
    /// (usage) on regions that overlap or are not page aligned.
    [[nodiscard]] Result<Digest> root(std::span<const Region> regions, unsigned threads = 2);

    struct Impl;
    [[nodiscard]] Impl& impl() { return *impl_; } ///< for snapshot/*.cpp only

private:
    std::unique_ptr<Impl> impl_;
};

/// Root of the memory map of `regions`, which may come in any order.
[[nodiscard]] Result<Digest> memory_root(std::span<const Region> regions, unsigned threads = 2);

/// Digest of contract, units and memory root: equal for equal machines, whatever the order of the
/// units, whenever and wherever they were saved.
[[nodiscard]] Digest machine_digest(const Contract& contract, std::span<const Unit> units,
                                    const Digest& memory_root);

/// The same from unit digests (UnitEntry::digest), of whatever kind they are: `vm digest` gives it
/// those that leave out L0's policy to get the guest digest.
[[nodiscard]] Digest machine_digest(const Contract& contract, std::span<const UnitEntry> units,
                                    const Digest& memory_root);

// ---- Saving --------------------------------------------------------------------------------

/// Called now and then with what is done, in bytes of guest memory. false stops the work, which
/// then fails with "interrupted". May be called on any thread, one call at a time.
using Progress = std::function<bool(u64 done, u64 total)>;

struct SaveRequest {
    std::string tag;
    std::string parent;   ///< tag of the snapshot this one continues, or empty
    bool replace = false; ///< move an existing tag; otherwise an existing tag fails the save
    std::span<const Unit> units;
    std::span<const Region> regions; ///< must not change during the save
    Contract contract;
    Digest schema_set;
    u32 engine_semantics = 0;
    Tier tier = Tier::resume;
    Provenance provenance;
    /// Page digests known already. It stays right when the save fails: what it has not come to
    /// stays dirty in it. Clean pages that the store has are not read.
    MemoryDigester* digester = nullptr;
    unsigned threads = 2;
    std::chrono::milliseconds wait_for_writer{0}; ///< how long another writer is waited for
    Progress progress;
};

struct SaveReport {
    Digest manifest;
    Digest machine_digest;
    Digest memory_root;
    u64 pages = 0;         ///< all pages of the machine
    u64 zero_pages = 0;    ///< of these, what is zero
    u64 new_pages = 0;     ///< what the store did not have yet
    u64 bytes_written = 0; ///< to packs: extents, map nodes, units
    u64 index_bytes = 0;   ///< size of the index file afterwards
    double pages_ms = 0;   ///< digesting, looking up, compressing, writing
    double map_ms = 0;     ///< map nodes and units
    double sync_ms = 0;    ///< until the packs are on disk
    double index_ms = 0;   ///< opening, checking and committing the index
    double commit_ms = 0;  ///< manifest and reference
    double total_ms = 0;
};

// ---- Loading -------------------------------------------------------------------------------

struct SnapshotData; // internal

/// Reads single pages, each verified when read. Keeps some decoded extents and map nodes.
/// Use one per thread.
class PageReader final {
public:
    ~PageReader();
    PageReader(PageReader&&) noexcept;
    PageReader& operator=(PageReader&&) noexcept;

    /// The bytes of one page, valid until the next call. The page must be part of a region
    /// (usage). About 60 us where its extent was not decoded yet.
    [[nodiscard]] Result<std::span<const std::byte, page_size>> page(Gfn gfn);
    /// The same, copied to `into`.
    [[nodiscard]] Result<> read(Gfn gfn, std::span<std::byte, page_size> into);

private:
    friend class Snapshot;
    struct Impl;
    explicit PageReader(std::unique_ptr<Impl> impl);
    std::unique_ptr<Impl> impl_;
};

struct ReadOptions {
    bool target_is_zero = false; ///< fresh memory: zero pages need no write
    unsigned threads = 2;
    Progress progress;
};

/// A loaded snapshot: manifest and units verified; memory is read on demand. Copies are cheap and
/// share what is open. It stays readable when its tag is removed meanwhile.
class Snapshot final {
public:
    [[nodiscard]] const Manifest& manifest() const;
    [[nodiscard]] std::span<const Unit> units() const;
    /// nullptr where there is no unit of that name.
    [[nodiscard]] const Unit* find_unit(std::string_view name) const;

    /// Fills the targets, which must have exactly the shape of the snapshot's regions (usage).
    /// On an error the contents of the targets are unspecified.
    [[nodiscard]] Result<> read_all(std::span<const RegionTarget> targets,
                                    const ReadOptions& options = {}) const;
    /// Reads and verifies every map node and page without keeping them.
    [[nodiscard]] Result<> verify(unsigned threads = 2, const Progress& progress = {}) const;
    [[nodiscard]] PageReader page_reader() const;
    /// Gives `digester` the digests of all pages as the snapshot has them, all of them clean: mark
    /// what is written from here on. Reads the memory map (about 5 us for 64 pages that are not all
    /// zero) and no page, so a save or digest after that needs no page that is not there yet, as
    /// long as the save goes to the same store.
    [[nodiscard]] Result<> seed(MemoryDigester& digester) const;

private:
    friend class Store;
    explicit Snapshot(std::shared_ptr<const SnapshotData> data);
    std::shared_ptr<const SnapshotData> data_;
};

// ---- The store -----------------------------------------------------------------------------

/// One line of Store::list. A damaged one has an error in place of the manifest.
struct ListEntry {
    std::string tag;
    std::optional<Manifest> manifest;
    std::optional<Error> error;
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
};

struct FsckReport {
    struct Finding {
        std::string where; ///< a file of the store, or "snapshot TAG"
        std::string what;
    };
    std::vector<Finding> findings; ///< empty: the store is sound
    std::vector<std::string> damaged_tags;
    u64 records = 0;
    u64 snapshots = 0;
};

/// A directory of snapshots. Opening is cheap and locks nothing; save and remove take the writer
/// lock while they run. Any number of Store objects and processes may read.
class Store final {
public:
    enum class Mode {
        existing, ///< fail where there is no store
        create,   ///< make the directory and an empty store where there is none
    };
    [[nodiscard]] static Result<Store> open(std::string directory, Mode mode);

    ~Store();
    Store(Store&&) noexcept;
    Store& operator=(Store&&) noexcept;

    [[nodiscard]] const std::string& directory() const;

    /// Saves a machine under a tag. Errors: usage (tag, regions, units), failed (tag taken, parent
    /// missing, no space, another writer: "held by pid N", interrupted), corrupt (parent).
    [[nodiscard]] Result<SaveReport> save(const SaveRequest& request);

    /// Loads manifest and units. Errors: failed where there is no such tag, corrupt,
    /// incompatible where a newer format is found.
    [[nodiscard]] Result<Snapshot> load(std::string_view tag) const;

    /// All tags, sorted; damaged ones too.
    [[nodiscard]] Result<std::vector<ListEntry>> list() const;

    /// Removes a tag. Its space is reclaimed by gc.
    [[nodiscard]] Result<> remove(std::string_view tag);

    [[nodiscard]] Result<StoreStat> stat() const;

    /// Reads all of the store and compares all of it with its digests.
    [[nodiscard]] Result<FsckReport> fsck(const Progress& progress = {}) const;

    struct Impl; ///< for snapshot/*.cpp only

private:
    explicit Store(std::unique_ptr<Impl> impl);
    std::unique_ptr<Impl> impl_;
};

/// Whether `tag` may name a snapshot: 1 to 100 of [A-Za-z0-9._-], not beginning with a dot or a
/// hyphen.
[[nodiscard]] bool is_valid_tag(std::string_view tag);

} // namespace nestor::snapshot
