// A loaded snapshot and the ways to read it. Part of the facade snapshot.hpp.
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "snapshot/digests.hpp"
#include "snapshot/images.hpp"
#include "snapshot/types.hpp"

namespace nestor::snapshot {

struct SnapshotData; // internal

/// Reads single pages, each verified when read. Keeps some decoded extents and map nodes.
/// Use one per thread.
class PageReader final {
public:
    ~PageReader();
    PageReader(PageReader&&) noexcept;
    PageReader& operator=(PageReader&&) noexcept;

    /// The bytes of one page, valid until the next call. The page must be part of a region
    /// (usage). About 60 us where its extent was not decoded yet. A damaged or missing page is
    /// corrupt, and the message names snapshot, page and extent.
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

/// A page in which two snapshots differ.
struct PageDifference {
    Gfn page;
    bool left = false;  ///< whether it is there and not zero
    bool right = false; ///< the same for the other snapshot
};

/// A loaded snapshot: manifest and units verified; memory is read on demand. Copies are cheap and
/// share what is open. While one exists the snapshot stays readable, also when its tag is removed
/// and the store is collected: a lease file in the store says so, which ends with the process.
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
    /// Reads and verifies every map node and page, of boot images too, without keeping them.
    [[nodiscard]] Result<> verify(unsigned threads = 2, const Progress& progress = {}) const;
    [[nodiscard]] PageReader page_reader() const;
    /// What a reset boots again, none of it read yet; empty where the snapshot names nothing. It
    /// keeps the snapshot readable as the snapshot itself does.
    [[nodiscard]] Images images() const;
    /// Gives `digester` the digests of all pages as the snapshot has them, all of them clean: mark
    /// what is written from here on. Reads the memory map (about 5 us for 64 pages that are not all
    /// zero) and no page, so a save or digest after that needs no page that is not there yet, as
    /// long as the save goes to the same store.
    [[nodiscard]] Result<> seed(MemoryDigester& digester) const;

    /// Calls `each` for the pages that are not zero, in order, with their digests, until it returns
    /// false. Reads the memory map only.
    [[nodiscard]] Result<>
    each_page(const std::function<bool(Gfn page, const Digest& digest)>& each) const;
    /// Calls `each` for every page in which `right` differs from this one, in order, until it
    /// returns false. Reads those parts of both memory maps that differ. A page that only one of
    /// them has counts when it is not zero.
    [[nodiscard]] Result<> diff_pages(const Snapshot& right,
                                      const std::function<bool(const PageDifference&)>& each) const;

    /// The pages that an earlier restore touched first, in that order; empty where none was
    /// recorded (Store::record_order) or the record is damaged. A hint, no part of the snapshot.
    [[nodiscard]] std::vector<Gfn> touch_order() const;

private:
    friend class Store;
    explicit Snapshot(std::shared_ptr<const SnapshotData> data);
    std::shared_ptr<const SnapshotData> data_;
};

} // namespace nestor::snapshot
