// Software TLB: linear page to host page, one array per way of looking at memory.
//
// A derived structure, so never observable: whatever changes a table entry that a walk used drops
// the translations made from it (Package::before_write). An access compares one tag that already
// means "mapped, permitted, accessed and dirty bits set, and the page's state byte allows it"; a
// page-crossing access never matches, because the tag is compared with its last byte's page.
#pragma once

#include <array>
#include <vector>

#include "src/base/types.hpp"

namespace nestor::cpu {

struct TlbEntry {
    static constexpr u64 invalid = ~u64{0};

    u64 read = invalid;  ///< linear page that may be read, or invalid
    u64 write = invalid; ///< ... written
    u64 exec = invalid;  ///< ... executed
    u64 addend = 0;      ///< host address = addend + linear address
};

/// Which rights an array's entries were made with. `checked` is never filled: every access takes
/// the slow path, which is how alignment checks and data breakpoints are seen.
enum class TlbView : u8 { user, supervisor, supervisor_ac, checked };
inline constexpr unsigned tlb_views = 4;

class Tlb final {
public:
    /// `entries` is a power of two.
    explicit Tlb(unsigned entries) : slots_(entries < 2 ? 2 : entries), single_(entries < 2) {
        for (auto& view : views_) {
            view.resize(slots_);
        }
    }

    [[nodiscard]] TlbEntry* view(TlbView v) { return views_[static_cast<unsigned>(v)].data(); }
    [[nodiscard]] u64 slot_mask() const { return slots_ - 1; }

    /// The entry to fill for a linear address. A one-entry TLB has two slots, so that an access
    /// that crosses into the cached page cannot match, and drops the other one here.
    [[nodiscard]] TlbEntry& entry(TlbView v, u64 linear) {
        const u64 slot = (linear >> page_shift) & slot_mask();
        auto& entries = views_[static_cast<unsigned>(v)];
        if (single_) {
            entries[slot ^ 1] = TlbEntry{};
        }
        if (filled_count_ < max_filled) {
            filled_[filled_count_++] = {static_cast<u16>(v), static_cast<u16>(slot)};
        }
        return entries[slot];
    }

    void flush() {
        if (filled_count_ < max_filled) {
            for (unsigned i = 0; i < filled_count_; ++i) {
                views_[filled_[i].view][filled_[i].slot] = TlbEntry{};
            }
        } else {
            for (auto& view : views_) {
                view.assign(slots_, TlbEntry{});
            }
        }
        filled_count_ = 0;
    }

    /// Drops every entry for one linear page.
    void flush_page(u64 linear) {
        const u64 page = linear & ~page_mask;
        for (auto& view : views_) {
            TlbEntry& e = view[(linear >> page_shift) & slot_mask()];
            if (e.read == page || e.write == page || e.exec == page) {
                e = TlbEntry{};
            }
        }
    }

    /// Drops write rights (and with `all`, every right) of entries that map a host page.
    void drop_host_page(const u8* host, bool all) {
        for (auto& view : views_) {
            for (TlbEntry& e : view) {
                drop_if_maps(e, host, all);
            }
        }
    }

private:
    static void drop_if_maps(TlbEntry& e, const u8* host, bool all) {
        const u64 page = e.read != TlbEntry::invalid    ? e.read
                         : e.write != TlbEntry::invalid ? e.write
                                                        : e.exec;
        if (page == TlbEntry::invalid || e.addend + page != reinterpret_cast<u64>(host)) {
            return;
        }
        e.write = TlbEntry::invalid;
        if (all) {
            e = TlbEntry{};
        }
    }

    struct Filled {
        u16 view;
        u16 slot;
    };
    /// Slots filled since the last flush, so that flushing a hardly used TLB is cheap.
    static constexpr unsigned max_filled = 512;

    unsigned slots_;
    bool single_;
    unsigned filled_count_ = 0;
    std::array<Filled, max_filled> filled_;
    std::vector<TlbEntry> views_[tlb_views];
};

} // namespace nestor::cpu
