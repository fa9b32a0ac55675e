// The slow side of the page mechanism: what happens when a state byte is not zero.
//
// Owns nothing but the list of regions; bytes and state bytes belong to the machine. The order in
// prepare_write matters: a page that is absent or must be copied first leaves the access undone, so
// nobody may have been told about a write that has not happened.
#include "engine/cpu/guest_memory.hpp"

#include <algorithm>
#include <cstring>

#include "src/base/check.hpp"

namespace nestor::cpu {

namespace {

/// From so many pages on, dropping all fast paths at once is cheaper than page by page.
constexpr u64 many_pages = 16;

/// First index from `i` on whose byte is not clean. Looks at eight bytes at a time.
u64 next_written(const u8* state, u64 i, u64 end) {
    constexpr u64 all_clean = page_state::clean * 0x0101010101010101;
    while (i < end) {
        u64 word = 0;
        if (i + sizeof word <= end) {
            std::memcpy(&word, state + i, sizeof word);
            if ((word & all_clean) == all_clean) {
                i += sizeof word;
                continue;
            }
        }
        if ((state[i] & page_state::clean) == 0) {
            return i;
        }
        ++i;
    }
    return end;
}

} // namespace

void GuestMemory::add_region(const Region& region) {
    CHECK(((region.start.value() | region.size) & page_mask) == 0);
    for (const Region& other : regions_) {
        CHECK(region.start.value() + region.size <= other.start.value() ||
              other.start.value() + other.size <= region.start.value());
    }
    regions_.push_back(region);
}

void GuestMemory::set_state(Gfn gfn, u8 state_bits) {
    const Page p = page(gfn);
    CHECK(p.host != nullptr, {gfn.value()});
    const u8 before = *p.state;
    *p.state = before | state_bits;
    const bool newly_unreadable = (state_bits & ~before & page_state::absent) != 0;
    if (watcher_ != nullptr && (before == 0 || newly_unreadable)) {
        watcher_->drop_fast_paths(gfn);
    }
}

std::vector<PageRun> GuestMemory::take_written() {
    std::vector<PageRun> written;
    std::vector<Gfn> restricted; // had fast paths for writing
    for (const Region& region : regions_) {
        const u64 pages = region.size >> page_shift;
        const Gfn base = gfn_of(region.start);
        for (u64 i = next_written(region.state, 0, pages); i < pages;) {
            const u64 first = i;
            for (; i < pages && (region.state[i] & page_state::clean) == 0; ++i) {
                if (region.state[i] == 0 && restricted.size() < many_pages) {
                    restricted.push_back(base + i);
                }
                region.state[i] |= page_state::clean;
            }
            written.push_back({base + first, i - first});
            i = next_written(region.state, i, pages);
        }
    }
    if (watcher_ == nullptr) {
        return written;
    }
    if (restricted.size() == many_pages) {
        watcher_->drop_all_fast_paths();
    } else {
        for (const Gfn gfn : restricted) {
            watcher_->drop_fast_paths(gfn);
        }
    }
    return written;
}

std::span<u8> GuestMemory::states(const PageRun& run) const {
    const Region* const region = find(gpa_of(run.first));
    CHECK(region != nullptr, {run.first.value()});
    const u64 offset = run.first - gfn_of(region->start);
    CHECK(run.count <= (region->size >> page_shift) - offset, {run.first.value(), run.count});
    return {region->state + offset, run.count};
}

void GuestMemory::freeze(std::span<const PageRun> pages) {
    for (const PageRun& run : pages) {
        for (u8& state : states(run)) {
            state |= page_state::cow;
        }
    }
    if (watcher_ != nullptr && !pages.empty()) {
        watcher_->drop_all_fast_paths();
    }
}

void GuestMemory::thaw(std::span<const PageRun> pages) {
    for (const PageRun& run : pages) {
        for (u8& state : states(run)) {
            state &= static_cast<u8>(~page_state::cow);
        }
    }
}

MemoryStatus GuestMemory::prepare_write_slow(Gpa address, const u8* data, unsigned size,
                                             Page page) {
    const u8 state = *page.state;
    if ((state & page_state::absent) != 0) {
        return MemoryStatus::page_needed;
    }
    if ((state & page_state::cow) != 0) {
        return MemoryStatus::copy_needed;
    }
    constexpr u8 told = page_state::code | page_state::walked | page_state::watched;
    if ((state & told) != 0 && watcher_ != nullptr) {
        watcher_->before_write(address, data, size);
    }
    *page.state &= static_cast<u8>(~page_state::clean);
    return MemoryStatus::ok;
}

MemoryStatus GuestMemory::read(Gpa address, std::span<u8> out, Gpa* stopped_at) const {
    while (!out.empty()) {
        const Page p = page(gfn_of(address));
        MemoryStatus status = MemoryStatus::ok;
        if (p.host == nullptr) {
            status = MemoryStatus::no_ram;
        } else if ((*p.state & page_state::absent) != 0) {
            status = MemoryStatus::page_needed;
        }
        if (status != MemoryStatus::ok) {
            if (stopped_at != nullptr) {
                *stopped_at = address;
            }
            return status;
        }
        const u64 offset = address.value() & page_mask;
        const std::size_t n = std::min<std::size_t>(out.size(), page_size - offset);
        std::memcpy(out.data(), p.host + offset, n);
        out = out.subspan(n);
        address += n;
    }
    return MemoryStatus::ok;
}

MemoryStatus GuestMemory::write(Gpa address, std::span<const u8> in, Gpa* stopped_at) {
    while (!in.empty()) {
        const Page p = page(gfn_of(address));
        const u64 offset = address.value() & page_mask;
        const std::size_t n = std::min<std::size_t>(in.size(), page_size - offset);
        const MemoryStatus status =
            p.host == nullptr ? MemoryStatus::no_ram
                              : prepare_write(address, in.data(), static_cast<unsigned>(n), p);
        if (status != MemoryStatus::ok) {
            if (stopped_at != nullptr) {
                *stopped_at = address;
            }
            return status;
        }
        std::memcpy(p.host + offset, in.data(), n);
        in = in.subspan(n);
        address += n;
    }
    return MemoryStatus::ok;
}

} // namespace nestor::cpu
