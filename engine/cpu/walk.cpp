// Paging: linear to guest-physical (SDM 3A chapter 4), with exact #PF error codes.
//
// Owns no state. All checks come before any accessed or dirty bit is set, and the bits are set with
// the page mechanism's rules, so a walk that meets an absent page leaves nothing half done. The
// walk tells the package which entries it used; that is what keeps the TLB unobservable.
#include <array>

#include "engine/cpu/ept.hpp"
#include "engine/cpu/package.hpp"
#include "engine/cpu/vmx_memory.hpp"

namespace nestor::cpu {

namespace {

using namespace arch;

/// How one paging mode is laid out (SDM 3A table 4-1).
struct Layout {
    unsigned levels;
    unsigned index_bits;
    unsigned entry_size;
};

/// One used table entry.
struct Step : TableEntry {
    u64 guest_address = 0; ///< before EPT
    unsigned span_shift = 0;
    bool writable = true; ///< as far as EPT goes
};

struct Walk {
    Cpu& cpu;
    u64 address;
    Access kind;
    bool user;     ///< user-mode access (CPL 3 and explicit)
    bool implicit; ///< implicit supervisor access: EFLAGS.AC does not help (SDM 3A 4.6.1)
    Layout layout;
    std::array<Step, 5> steps{};
    unsigned used = 0;

    [[nodiscard]] bool fault(u32 error) const {
        error |= kind == Access::write ? pf_error::w : 0;
        error |= user ? pf_error::u : 0;
        const bool fetch_bit = (cpu.s.efer & efer::nxe) != 0 || (cpu.s.cr4 & cr4::smep) != 0;
        error |= kind == Access::exec && fetch_bit ? pf_error::i : 0;
        return cpu.set_fault(Exception::pf, error, address);
    }

    /// A paging-structure access, as EPT sees it.
    [[nodiscard]] EptAccess table_access(bool write) const {
        EptAccess a;
        a.read = true;
        a.write = write;
        a.linear_valid = true;
        a.linear = address;
        return a;
    }

    bool read_entry(u64 entry_address) {
        Step& step = steps[used++];
        step.guest_address = entry_address;
        if (ept_enabled(cpu)) {
            EptTranslation t;
            if (!ept_translate(cpu, entry_address, table_access(false), t)) {
                return false;
            }
            entry_address = t.physical;
            step.writable = t.writable;
            if (entry_address >> page_shift == cpu.controls.apic_access_page >> page_shift) {
                // A guest-physical access to the APIC-access page (SDM 3C table 28-6).
                cpu.set_exit(ExitReason::apic_access, (cpu.delivering ? u64{10} : u64{15}) << 12);
                return false;
            }
        }
        // Where no RAM answers: all ones, whose reserved bits fault.
        return read_table_entry(cpu, entry_address, layout.entry_size, step);
    }

    /// Sets A (and D) in one entry. False: the page must be copied first, or EPT forbids it.
    bool touch(Step& step, u64 set) const {
        if (!step.writable && (step.value & set) != set) {
            EptTranslation t;
            return ept_translate(cpu, step.guest_address, table_access(true), t);
        }
        return set_entry_bits(cpu, step, set, layout.entry_size);
    }
};

Layout layout_of(const state::Cpu& s) {
    if ((s.cr4 & cr4::pae) == 0) {
        return {2, 10, 4};
    }
    if ((s.efer & efer::lma) == 0) {
        return {2, 9, 8}; // below the PDPTE registers
    }
    return {(s.cr4 & cr4::la57) != 0 ? 5u : 4u, 9, 8};
}

/// Reserved bits of an entry (SDM 3A tables 4-4 to 4-20). `large`: it maps a page of 1 << span.
u64 reserved_bits(const Cpu& cpu, const Layout& layout, unsigned span, bool large) {
    const Features& features = cpu.package.features();
    if (layout.entry_size == 4) {
        // PSE-36: bits 20:13 hold address bits 39:32; above MAXPHYADDR and bit 21 are reserved.
        if (!large || span == page_shift) {
            return 0;
        }
        const unsigned width = features.physical_bits < 40 ? features.physical_bits : 40;
        return bit(21) | (width < 40 ? mask(20, 13 + (width - 32)) : 0);
    }
    u64 reserved = mask(51, features.physical_bits);
    if ((cpu.s.efer & efer::nxe) == 0) {
        reserved |= pte::nx;
    }
    if ((cpu.s.efer & efer::lma) == 0) {
        reserved |= mask(62, 52); // PAE entries have no ignored bits there
    }
    if (large && span > page_shift) {
        reserved |= mask(span - 1, 13); // PAT is bit 12
    }
    return reserved;
}

/// Descends to the leaf. False: outcome is set. `span` is log2 of the page size.
bool descend(Walk& w, u64 table, unsigned& span) {
    Cpu& cpu = w.cpu;
    span = page_shift + w.layout.levels * w.layout.index_bits;
    for (unsigned level = w.layout.levels; level >= 1; --level) {
        span -= w.layout.index_bits;
        const u64 index = w.address >> span & ((u64{1} << w.layout.index_bits) - 1);
        if (!w.read_entry(table + index * w.layout.entry_size)) {
            return false;
        }
        Step& step = w.steps[w.used - 1];
        step.span_shift = span;
        if ((step.value & pte::p) == 0) {
            return w.fault(0);
        }
        const bool ps = level > 1 && (step.value & pte::ps) != 0;
        const bool ps_means_page =
            w.layout.entry_size == 4
                ? level == 2 && (cpu.s.cr4 & cr4::pse) != 0
                : level == 2 || (level == 3 && cpu.package.features().gigabyte_pages);
        const bool large = ps && ps_means_page;
        u64 reserved = reserved_bits(cpu, w.layout, span, large || level == 1);
        if (ps && !ps_means_page && w.layout.entry_size == 8) {
            reserved |= pte::ps; // levels 3 (without 1 GiB pages), 4 and 5
        }
        if ((step.value & reserved) != 0) {
            return w.fault(pf_error::p | pf_error::rsvd);
        }
        if (level == 1 || large) {
            return true;
        }
        table = step.value & mask(51, page_shift);
        if (w.layout.entry_size == 4) {
            table &= 0xffffffff;
        }
    }
    return true;
}

/// Access rights (SDM 3A 4.6). False: #PF.
bool permitted(const Walk& w, Translation& out) {
    const state::Cpu& s = w.cpu.s;
    bool writable = true;
    bool user = true;
    bool executable = true;
    for (unsigned i = 0; i < w.used; ++i) {
        const u64 e = w.steps[i].value;
        writable &= (e & pte::w) != 0;
        user &= (e & pte::u) != 0;
        executable &= (s.efer & efer::nxe) == 0 || w.layout.entry_size == 4 || (e & pte::nx) == 0;
    }
    const u64 leaf = w.steps[w.used - 1].value;
    const bool wp = (s.cr0 & cr0::wp) != 0;
    const bool smap_blocks =
        user && !w.user && (s.cr4 & cr4::smap) != 0 && (w.implicit || (s.rflags & rflags::ac) == 0);
    const bool smep_blocks = user && !w.user && (s.cr4 & cr4::smep) != 0;
    out.user = user;
    out.writable = writable || (!w.user && !wp);
    out.executable = executable && (w.user ? user : !smep_blocks);
    out.dirty = (leaf & pte::d) != 0;
    bool readable = (user || !w.user) && !smap_blocks;
    bool write_ok = readable && out.writable;
    u32 key_error = 0;
    if (user && (s.cr4 & cr4::pke) != 0 && (s.efer & efer::lma) != 0) {
        const unsigned key = static_cast<unsigned>(leaf >> 59 & 15);
        const u32 rights = s.pkru >> (2 * key) & 3; // AD, WD (SDM 3A 4.6.2)
        const bool read_denied = (rights & 1) != 0;
        const bool write_denied = read_denied || ((rights & 2) != 0 && (w.user || wp));
        if (w.kind == Access::read ? read_denied : w.kind == Access::write && write_denied) {
            key_error = pf_error::pk;
        }
        readable &= !read_denied;
        write_ok &= !write_denied;
    }
    const bool ok = w.kind == Access::exec    ? out.executable
                    : w.kind == Access::write ? write_ok
                                              : readable;
    out.writable = write_ok;
    out.readable = readable;
    return ok || w.fault(pf_error::p | key_error);
}

/// The second half of a translation, whose first half put the guest-physical address in `t`.
bool through_ept(Cpu& cpu, u64 linear, Access kind, Translation& t) {
    EptAccess access;
    access.read = kind == Access::read;
    access.write = kind == Access::write;
    access.exec = kind == Access::exec;
    access.user = t.user;
    access.linear_valid = true;
    access.translation = true;
    access.linear = linear;
    EptTranslation e;
    if (!ept_translate(cpu, t.physical, access, e)) {
        return false;
    }
    t.physical = e.physical;
    t.readable &= e.readable;
    t.writable &= e.writable;
    t.executable &= e.executable;
    t.dirty &= e.dirty;
    return true;
}

} // namespace

bool Cpu::translate(u64 address, Access kind, bool user, bool implicit, Translation& out) {
    out = Translation{};
    if ((s.cr0 & cr0::pg) == 0) {
        out.physical = static_cast<u32>(address);
        out.user = out.writable = out.dirty = out.executable = out.readable = true;
    } else {
        Walk w{*this, address, kind, user, implicit, layout_of(s)};
        u64 table = s.cr3 & mask(51, page_shift);
        if (w.layout.entry_size == 4) {
            table &= 0xffffffff;
        } else if ((s.efer & efer::lma) == 0) {
            const u64 pdpte = s.pdptr[address >> 30 & 3];
            if ((pdpte & pte::p) == 0) {
                return w.fault(0);
            }
            table = pdpte & mask(51, page_shift);
        }
        unsigned span = 0;
        if (!descend(w, table, span) || !permitted(w, out)) {
            return false;
        }
        for (unsigned i = 0; i < w.used; ++i) {
            const bool leaf = i + 1 == w.used;
            const u64 set = pte::a | (leaf && kind == Access::write ? pte::d : 0);
            if (!w.touch(w.steps[i], set)) {
                return false;
            }
            if (w.steps[i].host != nullptr) { // what is no RAM never changes
                package.note_walk(w.steps[i].address, w.steps[i].span_shift, w.layout.entry_size,
                                  address);
            }
        }
        out.dirty |= kind == Access::write;
        const u64 leaf = w.steps[w.used - 1].value;
        const u64 offset = address & ((u64{1} << span) - 1);
        u64 frame = leaf & mask(51, page_shift) & ~((u64{1} << span) - 1);
        if (w.layout.entry_size == 4) {
            frame &= 0xffffffff;
            if (span == 22) {
                frame |= (leaf >> 13 & 0xff) << 32;
            }
        }
        out.physical = frame | offset;
    }
    if (ept_enabled(*this) && !through_ept(*this, address, kind, out)) {
        return false;
    }
    const u64 frame = out.physical >> page_shift;
    if (frame == controls.lapic_page >> page_shift ||
        frame == controls.apic_access_page >> page_shift) {
        return true; // no RAM: the APIC page answers
    }
    const auto page = package.memory().page(gfn_of(Gpa(out.physical)));
    if (page.host != nullptr) {
        if ((*page.state & page_state::absent) != 0) {
            outcome = Outcome::page_needed;
            wanted_page = out.physical >> page_shift;
            return false;
        }
        out.host = page.host + (out.physical & page_mask);
        out.state = page.state;
        if (kind == Access::write) {
            log_own_write(*this, out.physical, *page.state);
        }
    }
    return true;
}

bool Cpu::load_pdptrs(const Op*, u64 cr3_value) {
    u64 base = cr3_value & 0xffffffe0;
    if (ept_enabled(*this)) {
        EptAccess reads;
        reads.read = true;
        EptTranslation t;
        if (!ept_translate(*this, base, reads, t)) {
            return false;
        }
        base = t.physical;
    }
    std::array<u64, 4> entries{};
    Gpa stopped;
    const MemoryStatus status = package.memory().read(
        Gpa(base), {reinterpret_cast<u8*>(entries.data()), sizeof entries}, &stopped);
    if (status == MemoryStatus::page_needed) {
        outcome = Outcome::page_needed;
        wanted_page = gfn_of(stopped).value();
        return false;
    }
    if (status != MemoryStatus::ok) {
        entries.fill(~u64{0});
    }
    // SDM 3A 4.4.1: bits 2:1, 8:5 and those above MAXPHYADDR are reserved.
    const u64 reserved = mask(2, 1) | mask(8, 5) | mask(63, package.features().physical_bits);
    for (const u64 entry : entries) {
        if ((entry & pte::p) != 0 && (entry & reserved) != 0) {
            return set_fault(Exception::gp, 0);
        }
    }
    std::copy(entries.begin(), entries.end(), s.pdptr.begin());
    return true;
}

void Cpu::flush_tlb() { translations.flush(++package.generation_); }
void Cpu::flush_all_translations() { translations.flush_all(++package.generation_); }
void Cpu::leave_translations() {
    translations.leave(++package.generation_);
    tlb = translations.current().view(view);
}
void Cpu::flush_tlb_page(u64 address) { translations.flush_page(address); }

} // namespace nestor::cpu
