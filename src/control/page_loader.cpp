// Fills the memory of a machine from a snapshot while the machine runs.
//
// Owns the background thread and a mark for each page: whoever moves it from `untouched` to
// `claimed` fills the page's bytes. The state byte stays with the machine's thread, which alone
// takes `absent` away; until then nobody reads those bytes, so filling them needs no lock. Pages
// read in the background stay absent until they are touched or until all are there. That costs an
// exit for each first touch and gives the exact order of them.
#include "src/control/page_loader.hpp"

#include <cstring>

#include "src/base/check.hpp"

namespace nestor::control {
namespace {

namespace page_state = cpu::page_state;

bool is_zero(std::span<const std::byte, page_size> page) {
    return page[0] == std::byte{} && std::memcmp(page.data(), page.data() + 1, page_size - 1) == 0;
}

} // namespace

PageLoader::PageLoader(const snapshot::Snapshot& snapshot, cpu::GuestMemory& memory)
    : snapshot_(snapshot), memory_(memory), reader_(snapshot.page_reader()),
      marks_(memory.regions()) {}

PageLoader::~PageLoader() {
    stop_ = true;
    if (thread_.joinable()) {
        thread_.join();
    }
}

Result<> PageLoader::copy(snapshot::PageReader& reader, Gfn page, u8* host) {
    const auto bytes = TRY(reader.page(page));
    if (!is_zero(bytes)) {
        std::memcpy(host, bytes.data(), page_size);
    }
    return {};
}

Result<> PageLoader::need(Gfn page) {
    touched_.push_back(page);
    return bring(page);
}

Result<> PageLoader::bring(Gfn page) {
    const cpu::GuestMemory::Page p = memory_.page(page);
    CHECK(p.host != nullptr && (*p.state & page_state::absent) != 0, {page.value()});
    const auto mark = marks_[page];
    u8 seen = untouched;
    if (mark.compare_exchange_strong(seen, claimed)) {
        if (Result<> done = copy(reader_, page, p.host); !done) {
            mark.store(untouched);
            return done;
        }
        mark.store(filled);
    } else if (seen == claimed) {
        // Another thread reads it now: a matter of microseconds, unless it fails.
        waiting_ = true;
        std::unique_lock lock(mutex_);
        changed_.wait(lock, [&] { return mark.load() == filled || error_.has_value(); });
        waiting_ = false;
        if (mark.load() != filled) {
            return Failure(*error_);
        }
    }
    *p.state &= static_cast<u8>(~page_state::absent);
    return {};
}

Result<bool> PageLoader::look() {
    if (!thread_.joinable()) {
        thread_ = std::thread([this] { read_all(); });
    }
    if (!ended_) {
        return false;
    }
    if (const std::lock_guard lock(mutex_); error_) {
        return Failure(*error_);
    }
    for (const cpu::GuestMemory::Region& region : memory_.regions()) {
        for (u8& state : std::span(region.state, region.size >> page_shift)) {
            state &= static_cast<u8>(~page_state::absent);
        }
    }
    return true;
}

Result<> PageLoader::finish() {
    for (const cpu::GuestMemory::Region& region : memory_.regions()) {
        for (u64 i = 0; i < region.size >> page_shift; ++i) {
            if ((region.state[i] & page_state::absent) != 0) {
                TRY(bring(gfn_of(region.start) + i));
            }
        }
    }
    return {};
}

void PageLoader::read_all() {
    snapshot::PageReader reader = snapshot_.page_reader();
    const auto read = [&](Gfn page) -> Result<> {
        const cpu::GuestMemory::Page p = memory_.page(page);
        if (p.host == nullptr) {
            return {}; // the recorded order is a hint, and may be of another machine
        }
        const auto mark = marks_[page];
        u8 seen = untouched;
        if (mark.compare_exchange_strong(seen, claimed)) {
            TRY(copy(reader, page, p.host));
            mark.store(filled);
            if (waiting_) {
                const std::lock_guard lock(mutex_);
                changed_.notify_all();
            }
        }
        return {};
    };
    const auto all = [&]() -> Result<> {
        const std::vector<Gfn> order = snapshot_.touch_order();
        for (std::size_t i = 0; i < order.size() && !stop_; ++i) {
            TRY(read(order[i]));
        }
        for (const cpu::GuestMemory::Region& region : memory_.regions()) {
            for (u64 i = 0; i < region.size >> page_shift && !stop_; ++i) {
                TRY(read(gfn_of(region.start) + i));
            }
        }
        return {};
    };
    if (const Result<> done = all(); !done) {
        const std::lock_guard lock(mutex_);
        error_ = done.error();
        changed_.notify_all();
    }
    ended_ = true;
}

} // namespace nestor::control
