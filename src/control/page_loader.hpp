// Fills the memory of a machine from a snapshot while the machine runs.
#pragma once

#include <condition_variable>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

#include "engine/cpu/guest_memory.hpp"
#include "snapshot/snapshot.hpp"
#include "src/control/page_marks.hpp"

namespace nestor::control {

/// All pages of `memory` are absent at first. A page becomes present when the machine asks for it,
/// and all of them do when a thread of this class has read everything: first what an earlier
/// restore touched, in that order, then the rest. Every page is verified. Only that thread and
/// what it needs are shared; all public functions belong to the thread that runs the machine.
class PageLoader final {
public:
    PageLoader(const snapshot::Snapshot& snapshot, cpu::GuestMemory& memory);
    /// Gives up what is not read yet.
    ~PageLoader();
    PageLoader(const PageLoader&) = delete;
    PageLoader& operator=(const PageLoader&) = delete;

    /// Makes an absent page present. Errors name page, extent and snapshot.
    [[nodiscard]] Result<> need(Gfn page);
    /// Starts reading in the background, or looks how it went: fails as soon as a bad page was
    /// found; true once all pages are present.
    [[nodiscard]] Result<bool> look();
    /// Makes all pages present before it returns.
    [[nodiscard]] Result<> finish();

    /// Pages that the machine asked for, in that order.
    [[nodiscard]] std::span<const Gfn> touched() const { return touched_; }

private:
    enum Mark : u8 { untouched, claimed, filled };

    void read_all();
    [[nodiscard]] Result<> bring(Gfn page);
    [[nodiscard]] static Result<> copy(snapshot::PageReader& reader, Gfn page, u8* host);

    snapshot::Snapshot snapshot_;
    cpu::GuestMemory& memory_;
    snapshot::PageReader reader_; ///< of the machine's thread
    std::vector<Gfn> touched_;
    PageMarks marks_;

    std::mutex mutex_;
    std::condition_variable changed_;
    std::optional<Error> error_;        ///< of the background thread; under mutex_
    std::atomic<bool> ended_ = false;   ///< the background thread has read all, or has failed
    std::atomic<bool> stop_ = false;    ///< the background thread shall end
    std::atomic<bool> waiting_ = false; ///< the machine waits for a page that is being read
    std::thread thread_;
};

} // namespace nestor::control
