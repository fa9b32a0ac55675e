// Pages of a running machine as they were at one moment.
#pragma once

#include <array>
#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <unordered_map>

#include "engine/cpu/guest_memory.hpp"
#include "snapshot/snapshot.hpp"
#include "src/control/page_marks.hpp"

namespace nestor::control {

/// What a live save reads. The pages given are those of that moment until the save has read or
/// passed them: before the machine changes one it has to release() it, which keeps a copy where the
/// save has not come to it. At most `max_copies` pages are kept at a time.
class FrozenPages final : public snapshot::PageSource {
public:
    FrozenPages(const cpu::GuestMemory& memory, std::span<const cpu::PageRun> pages,
                u64 max_copies);

    // The save's threads.
    [[nodiscard]] Result<> read(Gfn page, std::span<std::byte, page_size> into) override;
    void passed(Gfn first, u64 count) override;

    // The machine's thread.
    /// Afterwards the page may change. False where there is no room for another copy, after waiting
    /// for it as long as `patience`.
    [[nodiscard]] bool release(Gfn page, std::chrono::milliseconds patience);
    /// How many pages had to be copied.
    [[nodiscard]] u64 copied() const { return copied_; }

    /// Nobody reads any more: every page may change. Any thread.
    void close();

private:
    enum Mark : u8 { free, frozen, being_read, copied_aside };
    using Copy = std::array<std::byte, page_size>;

    void let_go(Gfn page);
    void wake();

    const cpu::GuestMemory& memory_;
    PageMarks marks_;
    const u64 max_copies_;
    u64 copied_ = 0; ///< of the machine's thread

    std::mutex mutex_;
    std::condition_variable changed_;
    bool closed_ = false;
    std::unordered_map<u64, std::unique_ptr<Copy>> copies_; ///< by page
    std::atomic<bool> waiting_ = false;                     ///< the machine waits in release()
};

} // namespace nestor::control
