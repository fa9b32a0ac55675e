// A machine together with what is known about its pages: their digests since the last look, and
// where the ones come from that are not loaded yet. Saves it, digests it, restores it.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "snapshot/snapshot.hpp"
#include "src/control/live_save.hpp"
#include "src/control/page_loader.hpp"
#include "src/control/restored.hpp"
#include "src/machine/machine.hpp"

namespace nestor::control {

struct SaveOptions {
    std::string tag;
    std::string machine;         ///< its name, for people
    std::string parent = "auto"; ///< a tag, "none", or "auto": what this machine was last saved to
    bool replace = false;        ///< move an existing tag
    bool goes_on = true;         ///< the machine runs on afterwards, so nothing can resume it
    bool clone_forbidden = false;
    snapshot::Durability durability = snapshot::Durability::commit;
    snapshot::Progress progress; ///< of save(); a live save tells by live()->progress()
    u64 max_copies = 16384;      ///< pages that a live save keeps copies of at a time
};

struct LoadOptions {
    bool lazy = false; ///< read pages when they are needed, and in the background
    RestoreTier tier = RestoreTier::again;
    ClockChoice clock;
    machine::MachineOptions machine;
    snapshot::Progress progress;
};

struct Digests {
    Digest machine;
    Digest memory_root;
    Digest images; ///< snapshot::images_digest()
};

/// Not thread-safe: the thread that runs the machine calls it.
class Keeper final {
public:
    explicit Keeper(std::unique_ptr<machine::Machine> machine);
    /// For a machine that was just made, before it is booted: its memory is zero, so that digests
    /// and saves look at what is written from here on and touch nothing else, whatever its size.
    [[nodiscard]] Result<> begin_zero();
    /// Boots a machine that was just made, and lets it be reset: the images are part of what is
    /// saved and digested from here on. Names are paths; a guest that is not told them is known by
    /// the last part of each. Errors as Machine::boot().
    [[nodiscard]] Result<> boot(std::vector<snapshot::Images::File> images);
    /// Interrupts what goes on; notes the order in which pages of a restored machine were touched.
    ~Keeper();

    /// Makes a machine from a snapshot. The caller has asked findings() first. Errors:
    /// incompatible where the snapshot does not allow the tier.
    [[nodiscard]] static Result<std::unique_ptr<Keeper>> load(const snapshot::Store& store,
                                                              const snapshot::Snapshot& snapshot,
                                                              const LoadOptions& options);
    /// Once, before the machine first runs: takes the right to resume it, where that was asked for,
    /// in the name of `by`. Errors: incompatible where somebody was first.
    [[nodiscard]] Result<> take_over(const std::string& by);

    [[nodiscard]] machine::Machine& machine() { return *machine_; }

    /// What the machine needs, in the manifest of every save: of a restored machine the saved one,
    /// byte for byte, so that what this build learnt since changes no digest.
    [[nodiscard]] snapshot::Contract contract() const;

    // ---- Pages that are not there yet

    [[nodiscard]] bool lazy() const { return loader_ != nullptr; }
    /// Loads one absent page: the answer to Stop::page_needed.
    [[nodiscard]] Result<> fill_page(Gfn page);
    /// Looks after the background reader, which the first call starts. To be called now and then
    /// while lazy(). Fails as soon as a bad page was found.
    [[nodiscard]] Result<> prefetch();

    // ---- Resets

    /// Whether reset() can boot the machine again: not where it was restored from a snapshot that
    /// names no images.
    [[nodiscard]] bool can_reset() const { return !images_.empty(); }
    /// Resets the machine and boots it again from its images, which a restored one reads from its
    /// store now. Waits for a live save. What is not loaded yet of its memory is not needed any
    /// more, and the next save looks only at what is written from here on. Errors: corrupt where
    /// an image is damaged; then the machine is as it was.
    [[nodiscard]] Result<> reset();
    /// For who resets the machine himself (Machine::reboot), right before it: all memory becomes
    /// zero, so what was known of its pages is forgotten. No live save goes on.
    [[nodiscard]] Result<> forget_memory();

    // ---- Digests and saves

    /// The machine digest, as a snapshot taken here would have it. Costs what was written since
    /// the last digest, save or restore; pages may be absent. Waits for a live save.
    [[nodiscard]] Result<Digests> digest();
    /// Saves while the machine stands still.
    [[nodiscard]] Result<snapshot::SaveReport> save(snapshot::Store& store,
                                                    const SaveOptions& options);

    /// Begins to save the machine as it is now, and comes back at once; the machine may run on.
    /// The store is made where there is none. Errors: failed where a live save goes on.
    [[nodiscard]] Result<> begin_live_save(const std::string& store, const SaveOptions& options);
    /// The live save that goes on, or whose result was not taken yet; null without.
    [[nodiscard]] LiveSave* live() const { return live_.get(); }
    /// Waits for the live save's end and takes its result. There must be one.
    [[nodiscard]] Result<snapshot::SaveReport> finish_live_save();
    /// Pages that L1's vCPUs wrote while the last live save went on, as their logs have it.
    [[nodiscard]] u64 logged_pages() const { return logged_pages_; }
    /// How long the machine stood still for the last save.
    [[nodiscard]] double pause_ms() const { return pause_ms_; }

private:
    struct Prepared;

    [[nodiscard]] Result<> finish_loading();
    [[nodiscard]] std::vector<snapshot::Region> regions() const;
    [[nodiscard]] std::vector<cpu::PageRun> present_pages() const;
    void note_written();
    [[nodiscard]] Result<> apply_written();
    [[nodiscard]] Result<> not_saving() const;
    [[nodiscard]] Result<std::shared_ptr<Prepared>> prepare(const SaveOptions& options) const;
    void end_loading();

    std::unique_ptr<machine::Machine> machine_;
    snapshot::Images images_;

    snapshot::MemoryDigester digester_;
    std::vector<cpu::PageRun> written_;        ///< pages that digester_ has to be told of
    std::optional<snapshot::Snapshot> source_; ///< of a restored machine, until digester_ has it
    std::string settled_; ///< store that has every page but written_, as digester_ knows it

    std::optional<snapshot::Contract> contract_;      ///< of a restored machine
    std::string from_store_;                          ///< of a restored machine
    std::string how_restored_;                        ///< for the provenance of later saves
    std::optional<snapshot::Snapshot> to_be_claimed_; ///< by take_over()
    std::optional<snapshot::Snapshot> restored_from_; ///< while pages are absent
    std::unique_ptr<PageLoader> loader_;              ///< while pages are absent

    double pause_ms_ = 0;
    u64 logged_pages_ = 0;
    bool unsettled_ = false;         ///< digest() found pages, since live_ began, that no store has
    std::string saving_to_;          ///< store of live_
    std::unique_ptr<LiveSave> live_; ///< uses most of the above
};

/// Units of a machine as the store takes them, and back.
[[nodiscard]] std::vector<snapshot::Unit> to_snapshot(std::span<const machine::Unit> units);
[[nodiscard]] std::vector<machine::Unit> to_machine(std::span<const snapshot::Unit> units);

/// The machine digest with L0's own policy left out.
[[nodiscard]] Result<Digest> guest_digest(const snapshot::Contract& contract,
                                          std::span<const snapshot::Unit> units,
                                          const Digest& memory_root, const Digest& images);

} // namespace nestor::control
