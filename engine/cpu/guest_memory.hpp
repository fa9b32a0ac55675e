// Guest-physical RAM of L1 and the one page mechanism (DESIGN.md, rule 5).
//
// Each page has a state byte. A fast path (the TLB) may read a page unless it is absent, and may
// write it only while the byte is zero; everything else goes through the slow paths here.
#pragma once

#include <span>
#include <vector>

#include "src/base/types.hpp"

namespace nestor::cpu {

/// Bits of a page's state byte.
namespace page_state {
inline constexpr u8 absent = 1;   ///< content not loaded yet
inline constexpr u8 clean = 2;    ///< not written since the last save
inline constexpr u8 code = 4;     ///< decoded blocks were made from it
inline constexpr u8 walked = 8;   ///< a cached walk read an entry of it
inline constexpr u8 cow = 16;     ///< a live save has to copy it before it changes
inline constexpr u8 watched = 32; ///< MONITOR watches a line of it
} // namespace page_state

/// What stands in the way of an access. `ok` means that the access was done.
enum class MemoryStatus : u8 {
    ok,
    no_ram,      ///< no region covers the address
    page_needed, ///< the page is absent: fill it and try again
    copy_needed, ///< the page is copy-before-write: copy it and try again
};

/// Pages that follow each other.
struct PageRun {
    Gfn first;
    u64 count = 0;
};

class GuestMemory final {
public:
    struct Region {
        Gpa start;
        u64 size = 0;        ///< bytes, a multiple of 4096
        u8* host = nullptr;  ///< backing memory, owned by the caller
        u8* state = nullptr; ///< one byte per page, owned by the caller; all zero is "plain RAM"
    };

    /// Told before a page with `code`, `walked` or `watched` set is written.
    class Watcher {
    public:
        virtual ~Watcher() = default;
        /// Bytes [address, address + size) of one page are about to become `data`.
        virtual void before_write(Gpa address, const u8* data, unsigned size) = 0;
        /// Fast paths to this page must be dropped, because its state byte became non-zero.
        virtual void drop_fast_paths(Gfn page) = 0;
        /// The same for every page. Costs as much as a few of the single ones.
        virtual void drop_all_fast_paths() = 0;
    };

    /// Regions must not overlap. The order of calls is the order of regions().
    void add_region(const Region& region);
    [[nodiscard]] std::span<const Region> regions() const { return regions_; }
    void set_watcher(Watcher* watcher) { watcher_ = watcher; }

    /// The region that covers an address, or null. O(number of regions), which is small.
    [[nodiscard]] const Region* find(Gpa address) const {
        for (const Region& region : regions_) {
            if (address.value() - region.start.value() < region.size) {
                return &region;
            }
        }
        return nullptr;
    }

    /// Host address and state byte of one page; null host when no region covers it.
    struct Page {
        u8* host = nullptr;
        u8* state = nullptr;
    };
    [[nodiscard]] Page page(Gfn gfn) const {
        const Region* region = find(gpa_of(gfn));
        if (region == nullptr) {
            return {};
        }
        const u64 offset = gpa_of(gfn) - region->start;
        return {region->host + offset, region->state + (offset >> page_shift)};
    }

    /// Sets bits of a page's state byte and drops fast paths that the byte now forbids.
    void set_state(Gfn gfn, u8 state_bits);

    /// Every page written since the last call, or without the `clean` state for another reason, in
    /// the order of regions(). Each becomes `clean`, so that writes from here on are seen by the
    /// next call. About 40 us for each GiB that is clean.
    [[nodiscard]] std::vector<PageRun> take_written();

    /// Adds and removes `cow`; each run lies in one region.
    void freeze(std::span<const PageRun> pages);
    void thaw(std::span<const PageRun> pages);

    /// Reads or writes any range through the mechanism; stops at the first page in the way, which
    /// `*stopped_at` names. Bytes before that page have been transferred.
    MemoryStatus read(Gpa address, std::span<u8> out, Gpa* stopped_at = nullptr) const;
    MemoryStatus write(Gpa address, std::span<const u8> in, Gpa* stopped_at = nullptr);

    /// Makes a write of `data` to one page legal: tells the watcher, clears `clean`. Afterwards the
    /// caller stores the bytes itself. `page` must be the page of `address`.
    MemoryStatus prepare_write(Gpa address, const u8* data, unsigned size, Page page) {
        const u8 state = *page.state;
        if (state == 0) [[likely]] {
            return MemoryStatus::ok;
        }
        return prepare_write_slow(address, data, size, page);
    }

private:
    MemoryStatus prepare_write_slow(Gpa address, const u8* data, unsigned size, Page page);
    [[nodiscard]] std::span<u8> states(const PageRun& run) const;

    std::vector<Region> regions_;
    Watcher* watcher_ = nullptr;
};

} // namespace nestor::cpu
