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

MemoryStatus GuestMemory::prepare_write_slow(Gpa address, const u8* data, unsigned size,
                                             Page page) {
    const u8 state = *page.state;
    if ((state & page_state::absent) != 0) {
        return MemoryStatus::page_needed;
    }
    if ((state & page_state::cow) != 0) {
        return MemoryStatus::copy_needed;
    }
    if ((state & (page_state::code | page_state::walked)) != 0 && watcher_ != nullptr) {
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
