// The EPT walk: rights, accessed and dirty flags, the page-modification log, violations,
// misconfigurations and #VE (SDM 3C 29.3).
//
// Owns nothing. Entries are read in L1's memory, whose addresses are the silicon's physical ones.
// Like the walk of a linear address it tells the package which entries it used, so that
// translations may be cached without anybody noticing. An accessed flag that was set stays set when
// the access then waits for a page: it starts again and finds it.
#include "engine/cpu/ept.hpp"

#include <array>

#include "engine/cpu/package.hpp"
#include "engine/cpu/system.hpp"
#include "engine/cpu/vmx_memory.hpp"

namespace nestor::cpu {

using namespace arch;

namespace {

/// Bits of an EPT entry (SDM 3C tables 29-1 to 29-7).
namespace entry {
constexpr u64 r = bit(0), w = bit(1), x = bit(2), type = mask(5, 3), page = bit(7), a = bit(8),
              d = bit(9), user_x = bit(10), suppress_ve = bit(63);
} // namespace entry

constexpr unsigned levels = 4;

/// Under which Translations keeps the last-level table that maps an address, and the rights above
/// it: a key that no guest-physical page has.
u64 leaf_table_key(u64 address) { return bit(62) | address >> 21 << page_shift; }

/// An access, before anything is walked for it.
struct EptRequest {
    Cpu& cpu;
    u64 address; ///< guest-physical
    const EptAccess& access;

    [[nodiscard]] bool mode_based() const {
        return (cpu.controls.proc2 & proc2_control::mode_based_execute) != 0;
    }
    [[nodiscard]] u64 execute_right() const {
        return mode_based() && access.user ? entry::user_x : entry::x;
    }
    /// Paging-structure accesses are writes while EPT has accessed and dirty flags
    /// (SDM 3C 29.3.3.2).
    [[nodiscard]] bool counts_as_write() const {
        return access.write ||
               (access.linear_valid && !access.translation && ept_accessed_dirty(cpu));
    }

    /// Rights without which the access is a violation.
    [[nodiscard]] u64 needed() const {
        return (access.read ? entry::r : 0) | (counts_as_write() ? entry::w : 0) |
               (access.exec ? execute_right() : 0);
    }

    bool through(const EptEntry& e, EptTranslation& out) const;
};

/// What the access meets in a page whose walk succeeded. False: it needs a walk, which may fail.
bool EptRequest::through(const EptEntry& e, EptTranslation& out) const {
    const u64 rights = needed();
    if ((e.rights & rights) != rights || (counts_as_write() && !e.dirty)) {
        return false;
    }
    out.physical = e.physical | (address & page_mask);
    out.readable = (e.rights & entry::r) != 0;
    out.writable = (e.rights & entry::w) != 0;
    out.executable = (e.rights & execute_right()) != 0;
    out.dirty = e.dirty;
    return true;
}

struct EptWalk : EptRequest {
    std::array<TableEntry, levels> steps{};
    unsigned used = 0;
    unsigned top = levels; ///< the first step's level: 1 where the last table was kept
    u64 leaf_table = 0;    ///< of a walk through all levels
    u64 rights_above = 0;  ///< AND over the entries above it
    u64 rights = entry::r | entry::w | entry::x | entry::user_x; ///< AND over the entries
    unsigned span = 0;                                           ///< log2 of the mapped page

    [[nodiscard]] TableEntry& last() { return steps[used - 1]; }

    bool descend();
    bool misconfigured(u64 value, bool leaf) const;
    bool violation();
    bool mark();
    bool log();
};

/// SDM 3C 29.3.3.1. The value is present.
bool EptWalk::misconfigured(u64 value, bool leaf) const {
    const unsigned width = cpu.package.features().physical_bits;
    if ((value & (entry::r | entry::w)) == entry::w || (value & mask(51, width)) != 0) {
        return true;
    }
    if (!leaf) {
        return (value & (used == 1 ? mask(7, 3) : mask(6, 3))) != 0;
    }
    const u64 memory_type = (value & entry::type) >> 3;
    return memory_type == 2 || memory_type == 3 || memory_type == 7 ||
           (span > page_shift && (value & mask(span - 1, page_shift)) != 0);
}

bool EptWalk::descend() {
    u64 table = cpu.controls.eptp & mask(51, page_shift);
    const u64 any = entry::r | entry::w | entry::x | (mode_based() ? entry::user_x : 0);
    if (const EptEntry* kept = cpu.translations.find_ept(leaf_table_key(address))) {
        top = 1;
        table = kept->physical;
        rights = kept->rights;
    }
    for (unsigned level = top; level >= 1; --level) {
        span = page_shift + 9 * (level - 1);
        const u64 index = address >> span & 511;
        ++used;
        if (!read_table_entry(cpu, table + index * 8, 8, last())) {
            return false;
        }
        const u64 value = last().value;
        if ((value & any) == 0) {
            rights = 0;
            return violation();
        }
        const bool leaf = level == 1 || (level <= 3 && (value & entry::page) != 0);
        if (misconfigured(value, leaf)) {
            cpu.set_exit(ExitReason::ept_misconfiguration);
            cpu.exit.guest_physical = address;
            return false;
        }
        rights_above = rights;
        rights &= value;
        if (leaf) {
            return true;
        }
        table = leaf_table = value & mask(51, page_shift);
    }
    return true;
}

/// Stores what #VE says in the information area (SDM 3C 26.5.7.2). False: outcome is page_needed or
/// copy_needed; or no #VE, with `busy` set.
bool store_ve(Cpu& cpu, u64 qualification, u64 linear, u64 physical, bool& busy) {
    const u64 area = cpu.controls.ve_information;
    u32 in_use = 0;
    if (!read_structure(cpu, area + 4, &in_use, 4)) {
        return false;
    }
    if (in_use != 0) {
        busy = true;
        return false;
    }
    struct {
        u32 reason = static_cast<u32>(ExitReason::ept_violation);
        u32 in_use = ~u32{0};
        u64 qualification, linear, physical;
        u16 eptp_index;
    } info;
    info.qualification = qualification;
    info.linear = linear;
    info.physical = physical;
    info.eptp_index = cpu.controls.eptp_index;
    return write_structure(cpu, area, &info, 34);
}

/// Exit qualification of SDM 3C table 28-7; or #VE where the entry lets it (SDM 3C 26.5.7.1).
bool EptWalk::violation() {
    const bool as_write = counts_as_write();
    u64 q = u64{access.read || (as_write && !access.translation)} | u64{as_write} << 1 |
            u64{access.exec} << 2;
    q |= (rights & (entry::r | entry::w | entry::x)) << 3;
    q |= mode_based() && (rights & entry::user_x) != 0 ? bit(6) : 0;
    q |= u64{access.linear_valid} << 7 | u64{access.linear_valid && access.translation} << 8;
    const bool convertible = cpu.controls.ve_information != Controls::none &&
                             (last().value & entry::suppress_ve) == 0 && access.linear_valid &&
                             !cpu.delivering && (cpu.s.cr0 & cr0::pe) != 0;
    if (convertible) {
        bool busy = false;
        if (store_ve(cpu, q, access.linear, address, busy)) {
            return cpu.set_fault(Exception::ve, 0);
        }
        if (!busy) {
            return false;
        }
    }
    cpu.set_exit(ExitReason::ept_violation, q);
    cpu.exit.guest_physical = address;
    cpu.exit.guest_linear = access.linear_valid ? access.linear : 0;
    return false;
}

/// SDM 3C 29.3.6. False: the log is full (an exit), or its page is in the way.
bool EptWalk::log() {
    Controls& c = cpu.controls;
    if (c.pml_index > 511) {
        cpu.set_exit(ExitReason::page_modification_log_full);
        return false;
    }
    const u64 page = address & ~page_mask;
    if (!write_structure(cpu, c.pml_address + c.pml_index * 8u, &page, 8)) {
        return false;
    }
    c.pml_index = static_cast<u16>(c.pml_index - 1);
    return true;
}

/// Accessed and dirty flags (SDM 3C 29.3.5).
bool EptWalk::mark() {
    const bool dirties = counts_as_write();
    for (unsigned i = 0; i + 1 < used; ++i) {
        if (!set_entry_bits(cpu, steps[i], entry::a, 8)) {
            return false;
        }
    }
    TableEntry& leaf = last();
    const u64 set = entry::a | (dirties ? entry::d : 0);
    if (dirties && (leaf.value & entry::d) == 0 && cpu.controls.pml_address != Controls::none) {
        // The flag must not fail once the log is written.
        if (leaf.host != nullptr && !structure_writable(cpu, leaf.address)) {
            return false;
        }
        if (!log()) {
            return false;
        }
    }
    return set_entry_bits(cpu, leaf, set, 8);
}

} // namespace

bool ept_translate(Cpu& cpu, u64 guest_physical, const EptAccess& access, EptTranslation& out) {
    const EptRequest request{cpu, guest_physical, access};
    const EptEntry* kept = cpu.translations.find_ept(guest_physical);
    if (kept != nullptr && request.through(*kept, out)) {
        return true;
    }
    EptWalk w{request};
    if (!w.descend()) {
        return false;
    }
    if ((w.rights & w.needed()) != w.needed()) {
        return w.violation();
    }
    const bool flags = ept_accessed_dirty(cpu);
    if (flags && !w.mark()) {
        return false;
    }
    for (unsigned i = 0; i < w.used; ++i) {
        cpu.package.note_ept_walk(w.steps[i].address, w.top - i);
    }
    if (w.used == levels) {
        EptEntry table;
        table.page = leaf_table_key(guest_physical);
        table.physical = w.leaf_table;
        table.rights = w.rights_above;
        cpu.translations.keep_ept(table);
    }
    const u64 leaf = w.last().value;
    const u64 offset_mask = (u64{1} << w.span) - 1;
    EptEntry e;
    e.page = guest_physical & ~page_mask;
    e.physical = (leaf & mask(51, page_shift) & ~offset_mask) | (e.page & offset_mask);
    e.rights = w.rights;
    e.dirty = !flags || (leaf & entry::d) != 0;
    cpu.translations.keep_ept(e);
    return request.through(e, out);
}

void take_back_ve(Cpu& cpu) {
    constexpr u32 free = 0;
    static_cast<void>(write_structure(cpu, cpu.controls.ve_information + 4, &free, sizeof free));
}

bool read_table_entry(Cpu& cpu, u64 address, unsigned size, TableEntry& out) {
    out.address = address;
    const auto page = cpu.package.memory().page(gfn_of(Gpa(address)));
    if (page.host == nullptr) {
        out.value = ~u64{0};
        return true;
    }
    if ((*page.state & page_state::absent) != 0) {
        cpu.outcome = Outcome::page_needed;
        cpu.wanted_page = address >> page_shift;
        return false;
    }
    out.host = page.host + (address & page_mask);
    out.state = page.state;
    // Sizes that the compiler knows: a call of memcpy is half of a walk.
    if (size == 8) {
        std::memcpy(&out.value, out.host, 8);
    } else {
        u32 value = 0;
        std::memcpy(&value, out.host, 4);
        out.value = value;
    }
    return true;
}

bool set_entry_bits(Cpu& cpu, TableEntry& entry, u64 set, unsigned size) {
    if ((entry.value & set) == set || entry.host == nullptr) {
        return true;
    }
    const u8 state = *entry.state;
    if ((state & page_state::cow) != 0) {
        cpu.outcome = Outcome::copy_needed;
        cpu.wanted_page = entry.address >> page_shift;
        return false;
    }
    const u64 value = entry.value | set;
    if ((state & page_state::code) != 0) {
        *entry.state &= static_cast<u8>(~page_state::walked);
        const auto page = cpu.package.memory().page(gfn_of(Gpa(entry.address)));
        cpu.package.memory().prepare_write(Gpa(entry.address), reinterpret_cast<const u8*>(&value),
                                           size, page);
        *entry.state |= static_cast<u8>(state & page_state::walked);
    }
    log_own_write(cpu, entry.address, *entry.state);
    *entry.state &= static_cast<u8>(~page_state::clean);
    std::memcpy(entry.host, &value, size);
    entry.value = value;
    return true;
}

} // namespace nestor::cpu
