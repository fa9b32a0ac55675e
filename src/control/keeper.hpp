// A machine together with what is known about its pages: their digests since the last look, and
// where the ones come from that are not loaded yet. Saves it, digests it, restores it.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "snapshot/snapshot.hpp"
#include "src/machine/machine.hpp"

namespace nestor::control {

struct SaveOptions {
    std::string tag;
    std::string machine;  ///< its name, for people
    bool replace = false; ///< move an existing tag
    bool goes_on = true;  ///< the machine runs on afterwards: keep track of what it writes
    snapshot::Progress progress;
};

struct LoadOptions {
    bool lazy = false; ///< read pages when they are needed, or by prefetch()
    machine::MachineOptions machine;
    snapshot::Progress progress;
};

struct Digests {
    Digest machine;
    Digest memory_root;
};

/// Not thread-safe: the thread that runs the machine calls it.
class Keeper final {
public:
    explicit Keeper(std::unique_ptr<machine::Machine> machine);

    /// Makes a machine from a snapshot. The caller has asked findings() first.
    [[nodiscard]] static Result<std::unique_ptr<Keeper>> load(const snapshot::Store& store,
                                                              const snapshot::Snapshot& snapshot,
                                                              const LoadOptions& options);

    [[nodiscard]] machine::Machine& machine() { return *machine_; }
    /// Whether prefetch() has anything left to do.
    [[nodiscard]] bool lazy() const { return reader_.has_value(); }

    /// Loads one absent page: the answer to Stop::page_needed.
    [[nodiscard]] Result<> fill_page(Gfn page);
    /// Loads up to `pages` more absent pages.
    [[nodiscard]] Result<> prefetch(u64 pages);

    /// The machine digest, as a snapshot taken here would have it. Costs what was written since
    /// the last digest, save or restore; pages may be absent.
    [[nodiscard]] Result<Digests> digest();
    [[nodiscard]] Result<snapshot::SaveReport> save(snapshot::Store& store,
                                                    const SaveOptions& options);

private:
    [[nodiscard]] Result<> fill(u8* host, u8* state, Gfn page);
    [[nodiscard]] Result<> fill_all();
    [[nodiscard]] std::vector<snapshot::Region> regions();
    [[nodiscard]] Result<> note_written();

    std::unique_ptr<machine::Machine> machine_;
    snapshot::MemoryDigester digester_;
    bool tracked_ = false; ///< pages without the clean state are all that digester_ has to redo
    std::optional<snapshot::Snapshot> source_;   ///< of a restored machine, until it is digested
    std::string source_store_;                   ///< where absent pages come from
    std::optional<snapshot::PageReader> reader_; ///< while pages are absent
    std::size_t next_region_ = 0;                ///< where prefetch() goes on
    u64 next_page_ = 0;
};

/// Units of a machine as the store takes them, and back.
[[nodiscard]] std::vector<snapshot::Unit> to_snapshot(std::span<const machine::Unit> units);
[[nodiscard]] std::vector<machine::Unit> to_machine(std::span<const snapshot::Unit> units);

/// The machine digest with L0's own policy left out.
[[nodiscard]] Result<Digest> guest_digest(const snapshot::Contract& contract,
                                          std::span<const snapshot::Unit> units,
                                          const Digest& memory_root);

} // namespace nestor::control
