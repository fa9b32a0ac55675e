// The cached translations of one processor: a TLB for L0's own guest, one for the guest of an L1,
// and guest-physical pages of the latter.
//
// A VM transition changes everything that translations were made under, and most of it changes back
// with the next. So each of the two TLBs is kept with what it was made under (its key), and used
// again if that is what holds when the processor runs. In between, while registers are being
// replaced, a spare TLB serves. Which entries depend on which tables, the package knows.
#pragma once

#include <array>
#include <memory>

#include "engine/cpu/tlb.hpp"

namespace nestor::cpu {

class Cpu;

/// A guest-physical page as the EPT maps it, walked with the accessed flag set.
struct EptEntry {
    u64 page = ~u64{0};
    u64 physical = 0;
    u64 rights = 0; ///< AND of the entries that map it
    bool dirty = false;
};

class Translations final {
public:
    explicit Translations(unsigned entries)
        : tlbs_{Tlb(entries), Tlb(entries), Tlb(spare_entries)} {}

    [[nodiscard]] Tlb& current() { return tlbs_[current_]; }
    /// A VM transition began and the processor has not run since.
    [[nodiscard]] bool between() const { return current_ == spare; }

    // `generation`: the package's, newly counted up.

    /// Registers and controls are about to be, or were, replaced: nothing cached may be used.
    void leave(u64 generation);
    /// The processor runs with what it has now.
    void choose(const Cpu& cpu, u64 generation);
    /// The end of a run: under what the current TLB was made.
    void remember(const Cpu& cpu);

    /// What a guest's change of paging drops: the current TLB.
    void flush(u64 generation);
    void flush_all(u64 generation);
    /// What a change of an EPT entry drops.
    void flush_nested(u64 generation);
    void flush_page(u64 linear);
    void drop_host_page(const u8* host, bool all);
    /// Whether anything cached may come from a table that was last walked in `generation`.
    [[nodiscard]] bool depend_on(u64 generation, bool ept) const;

    [[nodiscard]] const EptEntry* find_ept(u64 guest_physical) const;
    void keep_ept(const EptEntry& entry);

private:
    enum Which : u8 { own, nested, spare };
    static constexpr unsigned spare_entries = 16;
    static constexpr unsigned ept_entries = 512;

    /// Registers and controls that a translation depends on, but for privilege and RFLAGS.AC, which
    /// views are for.
    struct Key {
        u64 cr0, cr3, cr4, efer, eptp, controls, apic_access_page, lapic_page;
        std::array<u64, 4> pdptr;
        u32 pkru;
        bool operator==(const Key&) const = default;
    };
    static Key key_of(const Cpu& cpu);
    void flush_ept(u64 generation);
    static u64 slot(u64 guest_physical) { return guest_physical >> page_shift & (ept_entries - 1); }

    std::array<Tlb, 3> tlbs_;
    std::array<u64, 3> flushed_{}; ///< generation of each one's last flush
    std::array<Key, 2> keys_{};
    Which current_ = spare;
    std::unique_ptr<std::array<EptEntry, ept_entries>> ept_; ///< null while empty
    u64 ept_flushed_ = 0;
};

} // namespace nestor::cpu
