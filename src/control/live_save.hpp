// A save that goes on while the machine runs.
#pragma once

#include <functional>
#include <optional>
#include <thread>
#include <vector>

#include "src/base/fd.hpp"
#include "src/control/frozen_pages.hpp"

namespace nestor::control {

/// Runs one save on a thread of its own, over pages frozen at the moment of construction. All
/// functions belong to the thread that runs the machine.
class LiveSave final {
public:
    using Clock = std::chrono::steady_clock;
    using Job = std::function<Result<snapshot::SaveReport>(snapshot::PageSource& pages,
                                                           const snapshot::Progress& progress)>;
    struct Progress {
        u64 done = 0;
        u64 total = 0; ///< bytes; 0 before the first page
    };

    /// Freezes `pages` of `memory` and starts `job`.
    [[nodiscard]] static Result<std::unique_ptr<LiveSave>>
    start(cpu::GuestMemory& memory, std::vector<cpu::PageRun> pages, u64 max_copies, Job job);
    /// Interrupts the save and waits for its end.
    ~LiveSave();
    LiveSave(const LiveSave&) = delete;
    LiveSave& operator=(const LiveSave&) = delete;

    /// Lets the machine change a page: the answer to Stop::copy_needed. Where there is no room for
    /// a copy it waits a few milliseconds and leaves the page frozen; the machine asks again.
    void release(Gfn page);

    /// Becomes readable when the save has ended.
    [[nodiscard]] int fd() const { return ended_fd_.get(); }
    [[nodiscard]] bool ended() const { return ended_; }
    [[nodiscard]] Progress progress() const { return {done_, total_}; }
    /// Makes the save fail with "interrupted" soon.
    void interrupt() { interrupted_ = true; }
    /// Waits for the end and thaws all pages.
    void wait();
    /// Waits for the end and tells the result. Once.
    [[nodiscard]] Result<snapshot::SaveReport> finish();

    [[nodiscard]] u64 copied_pages() const { return frozen_.copied(); }
    /// How long the machine had to wait for room.
    [[nodiscard]] Clock::duration stalled() const { return stalled_; }

private:
    LiveSave(cpu::GuestMemory& memory, std::vector<cpu::PageRun> pages, u64 max_copies, Fd ended);
    void run(const Job& job);

    cpu::GuestMemory& memory_;
    const std::vector<cpu::PageRun> pages_;
    FrozenPages frozen_;
    Fd ended_fd_;
    Clock::duration stalled_{};
    std::atomic<bool> interrupted_ = false;
    std::atomic<bool> ended_ = false;
    std::atomic<u64> done_ = 0;
    std::atomic<u64> total_ = 0;
    std::optional<Result<snapshot::SaveReport>> result_; ///< of the thread, until it has ended
    std::thread thread_;
};

} // namespace nestor::control
