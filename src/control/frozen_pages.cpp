// Pages of a running machine as they were at one moment.
//
// Owns a mark for each page and the copies. A page goes from `frozen` to `free` by way of
// `being_read`, when a thread of the save copies it out of memory, or of `copied_aside`, when the
// machine was first. Both ways begin with a compare-and-exchange, so a page is never read while it
// changes. The state byte that sends the machine here is not touched: it stays until the save ends,
// and a page that is `free` by then costs one more look.
#include "src/control/frozen_pages.hpp"

#include <cstring>
#include <thread>

namespace nestor::control {

FrozenPages::FrozenPages(const cpu::GuestMemory& memory, std::span<const cpu::PageRun> pages,
                         u64 max_copies)
    : memory_(memory), marks_(memory.regions()), max_copies_(max_copies) {
    for (const cpu::PageRun& run : pages) {
        for (u64 i = 0; i < run.count; ++i) {
            marks_[run.first + i].store(frozen, std::memory_order_relaxed);
        }
    }
}

Result<> FrozenPages::read(Gfn page, std::span<std::byte, page_size> into) {
    const auto mark = marks_[page];
    u8 seen = frozen;
    if (mark.compare_exchange_strong(seen, being_read)) {
        std::memcpy(into.data(), memory_.page(page).host, page_size);
        mark.store(free);
        wake();
        return {};
    }
    if (seen == copied_aside) {
        std::unique_ptr<Copy> copy;
        {
            const std::lock_guard lock(mutex_);
            copy = std::move(copies_.extract(page.value()).mapped());
            mark.store(free);
        }
        wake();
        std::memcpy(into.data(), copy->data(), page_size);
        return {};
    }
    return fail(ErrorCode::failed,
                "page " + std::to_string(page.value()) +
                    " was saved before, but the store has it no more, and the machine runs on",
                "save with --mode stop");
}

void FrozenPages::passed(Gfn first, u64 count) {
    for (u64 i = 0; i < count; ++i) {
        if (marks_[first + i].load(std::memory_order_relaxed) != free) {
            let_go(first + i);
        }
    }
    wake();
}

void FrozenPages::let_go(Gfn page) {
    const auto mark = marks_[page];
    u8 seen = frozen;
    if (!mark.compare_exchange_strong(seen, free) && seen == copied_aside) {
        const std::lock_guard lock(mutex_);
        copies_.erase(page.value());
        mark.store(free);
    }
}

void FrozenPages::wake() {
    if (waiting_) {
        const std::lock_guard lock(mutex_);
        changed_.notify_all();
    }
}

bool FrozenPages::release(Gfn page, std::chrono::milliseconds patience) {
    const auto mark = marks_[page];
    while (mark.load() == being_read) {
        std::this_thread::yield(); // a copy of 4 KiB
    }
    if (mark.load() != frozen) {
        return true;
    }
    std::unique_lock lock(mutex_);
    waiting_ = true;
    const bool go = changed_.wait_for(lock, patience, [&] {
        return copies_.size() < max_copies_ || mark.load() == free || closed_;
    });
    waiting_ = false;
    if (!go) {
        return false;
    }
    if (closed_ || mark.load() == free) {
        return true;
    }
    auto copy = std::make_unique<Copy>();
    std::memcpy(copy->data(), memory_.page(page).host, page_size);
    copies_.emplace(page.value(), std::move(copy));
    u8 seen = frozen;
    if (!mark.compare_exchange_strong(seen, copied_aside)) {
        copies_.erase(page.value());
        lock.unlock();
        while (mark.load() == being_read) {
            std::this_thread::yield();
        }
        return true;
    }
    ++copied_;
    return true;
}

void FrozenPages::close() {
    const std::lock_guard lock(mutex_);
    closed_ = true;
    copies_.clear();
    changed_.notify_all();
}

} // namespace nestor::control
