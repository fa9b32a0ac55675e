// Facade of floor 6, snapshot: the store of machine states (DESIGN.md, rule 8).
//
// It knows nothing of the engine. A machine is a list of units (a name, a schema type, bytes), a
// list of memory regions and a contract. A saved one is found again by its tag.
//
// What holds for all of it:
// - Pages, map nodes and units are found by SHA-256 and compared with it whenever they are read.
//   A store with flipped bits or cut files gives ErrorCode::corrupt, never a wrong byte.
// - The reference (tag) is written last and is the only commit point. Whatever fails, is
//   interrupted or dies before that leaves the earlier snapshots as they were.
// - Readers take no lock and never open the index. One process at a time may write.
// README.md has the file formats and the argument why a crash does no harm.
#pragma once

#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "snapshot/digests.hpp"
#include "snapshot/images.hpp"
#include "snapshot/reports.hpp"
#include "snapshot/restore.hpp"
#include "snapshot/save_request.hpp"
#include "snapshot/types.hpp"

namespace nestor::snapshot {

/// A directory of snapshots. Opening is cheap and locks nothing, except after the host went down
/// with deferred saves not on disk: then these are looked through first. What changes the store
/// takes the writer lock while it runs and fails with "held by pid N" where another process has it.
/// Any number of Store objects and processes may read.
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

    // ---- Snapshots

    /// Saves a machine under a tag. Errors: usage (tag, regions, units), failed (tag taken, parent
    /// missing, no space, another writer, interrupted), corrupt (parent).
    [[nodiscard]] Result<SaveReport> save(const SaveRequest& request);

    /// Loads manifest and units. Errors: failed where there is no such tag, corrupt,
    /// incompatible where a newer format is found.
    [[nodiscard]] Result<Snapshot> load(std::string_view tag) const;

    /// Whether there is such a tag, damaged or not.
    [[nodiscard]] bool has(std::string_view tag) const;

    /// All tags, sorted; damaged ones too.
    [[nodiscard]] Result<std::vector<ListEntry>> list() const;

    /// The snapshot and its ancestors, as far as the store has their manifests.
    [[nodiscard]] Result<std::vector<LogEntry>> log(std::string_view tag) const;

    // ---- Tags

    /// Removes a tag. Its space is reclaimed by gc.
    [[nodiscard]] Result<> remove(std::string_view tag);
    /// Gives the snapshot `from` another tag. An existing tag `to` is moved only with `replace`.
    [[nodiscard]] Result<> tag(std::string_view from, std::string_view to, bool replace = false);
    /// The same, and `from` goes. A crash in between leaves both.
    [[nodiscard]] Result<> rename(std::string_view from, std::string_view to, bool replace = false);

    // ---- Between stores

    /// Writes snapshots as one stream, each page once; equal stores give equal streams. Errors:
    /// failed (no such tag, writing), corrupt: nothing damaged leaves a store.
    [[nodiscard]] Result<ExportReport> export_to(std::span<const std::string> tags, int fd,
                                                 const ExportOptions& options = {}) const;
    /// Takes in such a stream, from anywhere: pages that are here already cost nothing, and a
    /// snapshot keeps its digests. A stream that is cut, damaged or lies is corrupt and changes
    /// nothing. Errors as in save besides.
    [[nodiscard]] Result<ImportReport> import_from(int fd, const ImportOptions& options = {});

    // ---- The one machine of a snapshot

    /// Takes the right to resume the machine of a snapshot that was loaded from this store, durably
    /// and for one caller only: whatever tag it was found by and wherever that has moved. Errors:
    /// incompatible where it was claimed already or where the machine went on after the save
    /// (Tier::clone).
    [[nodiscard]] Result<> claim(const Snapshot& snapshot, std::string_view by);
    /// Gives the right back, when the machine did not get as far as to run.
    [[nodiscard]] Result<> release(const Snapshot& snapshot);
    [[nodiscard]] Result<std::optional<Claim>> claim_of(const Snapshot& snapshot) const;

    // ---- Keeping house

    /// Puts all snapshots that were saved with Durability::deferred on disk. Everything but another
    /// deferred save does so too before it writes.
    [[nodiscard]] Result<> sync();

    [[nodiscard]] Result<StoreStat> stat() const;
    /// What each snapshot costs, or that of one tag. Reads all memory maps of the store, parts that
    /// are shared once. Passes over damaged snapshots, unless one is asked for.
    [[nodiscard]] Result<std::vector<SnapshotSize>> sizes(std::string_view only = {},
                                                          const Progress& progress = {}) const;

    /// Removes what no tag leads to and no reader holds, with little room to work in. Snapshots can
    /// be read and saved meanwhile. May be interrupted and run again. Corrupt, and nothing is
    /// removed, where a snapshot is damaged so that what belongs to it is not known.
    [[nodiscard]] Result<GcReport> gc(const GcOptions& options = {});

    /// Puts the order in which a restore touched the snapshot's pages beside it, for the next one.
    /// Replaces an earlier record. No part of the snapshot.
    [[nodiscard]] Result<> record_order(const Snapshot& snapshot, std::span<const Gfn> order);

    /// Reads all of the store and compares all of it with its digests.
    [[nodiscard]] Result<FsckReport> fsck(const FsckOptions& options = {}) const;

    struct Impl; ///< for snapshot/*.cpp only

private:
    explicit Store(std::unique_ptr<Impl> impl);
    std::unique_ptr<Impl> impl_;
};

/// Whether `tag` may name a snapshot: 1 to 100 of [A-Za-z0-9._-], not beginning with a dot or a
/// hyphen, and neither "auto" nor "none".
[[nodiscard]] bool is_valid_tag(std::string_view tag);

} // namespace nestor::snapshot
