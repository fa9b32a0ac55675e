// Software TLB: linear page to host page, one array per way of looking at memory.
//
// A derived structure, so never observable: whatever changes a table entry that a walk used drops
// the translations made from it (Package::before_write). An access compares one tag that already
// means "mapped, permitted, accessed and dirty bits set, and the page's state byte allows it"; a
// page-crossing access never matches, because the tag is compared with its last byte's page.
#pragma once

#include <bit>
#include <vector>

#include "src/base/types.hpp"

namespace nestor::cpu {

/// Aligned, so that no entry lies in two cache lines.
struct alignas(32) TlbEntry {
    static constexpr u64 invalid = ~u64{0};

    u64 read = invalid;  ///< linear page that may be read, or invalid
    u64 write = invalid; ///< ... written
    u64 exec = invalid;  ///< ... executed
    u64 addend = 0;      ///< host address = addend + linear address

    [[nodiscard]] bool reads(u64 linear, u64 size) const { return last_page(linear, size) == read; }
    [[nodiscard]] bool writes(u64 linear, u64 size) const {
        return last_page(linear, size) == write;
    }
    [[nodiscard]] bool executes(u64 linear) const { return last_page(linear, 1) == exec; }
    [[nodiscard]] bool is_empty() const { return (read & write & exec) == invalid; }
    [[nodiscard]] u8* host(u64 linear) const { return reinterpret_cast<u8*>(addend + linear); }

private:
    static u64 last_page(u64 linear, u64 size) { return (linear + (size - 1)) & ~page_mask; }
};

/// One view's entries, as an access looks at them.
struct TlbArray {
    TlbEntry* entries = nullptr;
    u64 mask = 0; ///< of a byte offset in `entries`

    /// The entry in which a translation of `linear` would be.
    [[nodiscard]] TlbEntry& at(u64 linear) const {
        static constexpr unsigned shift = page_shift - std::bit_width(sizeof(TlbEntry) - 1);
        return *reinterpret_cast<TlbEntry*>(reinterpret_cast<u8*>(entries) +
                                            (linear >> shift & mask));
    }
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
        filled_.reserve(slots_ * tlb_views);
    }

    [[nodiscard]] TlbArray view(TlbView v) {
        return {views_[static_cast<unsigned>(v)].data(), (slots_ - 1) * sizeof(TlbEntry)};
    }

    /// The entry to fill for a linear address. A one-entry TLB has two slots, so that an access
    /// that crosses into the cached page cannot match, and drops the other one here.
    [[nodiscard]] TlbEntry& entry(TlbView v, u64 linear) {
        TlbEntry& e = view(v).at(linear);
        if (single_) {
            view(v).at(linear ^ page_size) = TlbEntry{};
        }
        if (e.is_empty()) {
            if (filled_.size() == filled_.capacity()) {
                flush();
            }
            filled_.push_back(&e);
        }
        return e;
    }

    [[nodiscard]] bool empty() const { return filled_.empty(); }

    void flush() {
        for (TlbEntry* e : filled_) {
            *e = TlbEntry{};
        }
        filled_.clear();
    }

    /// Drops every entry for one linear page.
    void flush_page(u64 linear) {
        const u64 page = linear & ~page_mask;
        for (unsigned v = 0; v < tlb_views; ++v) {
            TlbEntry& e = view(static_cast<TlbView>(v)).at(linear);
            if (e.read == page || e.write == page || e.exec == page) {
                e = TlbEntry{};
            }
        }
    }

    /// Drops write rights (and with `all`, every right) of entries that map a host page.
    void drop_host_page(const u8* host, bool all) {
        for (TlbEntry* e : filled_) {
            drop_if_maps(*e, host, all);
        }
    }

private:
    static void drop_if_maps(TlbEntry& e, const u8* host, bool all) {
        const u64 page = e.read != TlbEntry::invalid    ? e.read
                         : e.write != TlbEntry::invalid ? e.write
                                                        : e.exec;
        if (page == TlbEntry::invalid || e.host(page) != host) {
            return;
        }
        e.write = TlbEntry::invalid;
        if (all) {
            e = TlbEntry{};
        }
    }

    u64 slots_;
    bool single_;
    std::vector<TlbEntry> views_[tlb_views];
    /// Entries filled since the last flush: what flushing and dropping have to look at.
    std::vector<TlbEntry*> filled_;
};

} // namespace nestor::cpu
