// Coherence of what is derived from memory: decoded code and cached translations.
//
// A guest need not tell us about self-modifying code or about changed page tables (DESIGN.md,
// rule 1): every write to a page that either was made from comes through before_write. A table
// entry that was not present was never cached, so filling in page tables costs nothing here;
// clearing or changing one drops the single page it maps where that is known, and everything
// otherwise.
#include "engine/cpu/package.hpp"

#include <algorithm>
#include <cstring>

#include "engine/cpu/code_cache.hpp"

namespace nestor::cpu {

namespace {

/// Linear page of the running block.
u64 running_page(const Cpu& cpu) {
    if (cpu.mode.is64()) {
        return cpu.s.rip & ~page_mask;
    }
    const u64 base = cpu.s.segments[static_cast<unsigned>(arch::Seg::cs)].base;
    return static_cast<u32>(base + cpu.s.rip) & ~page_mask;
}

/// Takes away what says that something is derived from the pages. Eight states at a time, and those
/// that say nothing are not written: millions of them may share a few pages of the host while a
/// large machine is restored.
void forget_derived(std::span<u8> states) {
    constexpr u8 derived = page_state::code | page_state::walked;
    constexpr u64 derived_in_eight = u64{derived} * 0x0101010101010101;
    std::size_t i = 0;
    for (u64 eight = 0; i + sizeof eight <= states.size(); i += sizeof eight) {
        std::memcpy(&eight, &states[i], sizeof eight);
        if ((eight & derived_in_eight) != 0) {
            eight &= ~derived_in_eight;
            std::memcpy(&states[i], &eight, sizeof eight);
        }
    }
    for (; i < states.size(); ++i) {
        states[i] &= static_cast<u8>(~derived);
    }
}

} // namespace

Package::Package(GuestMemory& memory, const Config& config)
    : memory_(memory), features_(config.features), tlb_entries_(config.tlb_entries),
      code_(std::make_unique<CodeCache>()) {
    memory_.set_watcher(this);
}

Package::~Package() { memory_.set_watcher(nullptr); }

void Package::set_features(const Features& features) {
    features_ = features;
    forget_all();
}

void Package::forget_all() {
    const bool derived = !code_->empty() || !tables_.empty();
    code_->reset();
    tables_.clear();
    noted_ = {};
    ept_noted_ = {};
    for (Cpu* cpu : cpus_) {
        cpu->flush_all_translations();
        cpu->forget_jumps();
    }
    if (!derived) {
        return; // no state says otherwise, and a large machine has millions of them
    }
    for (const GuestMemory::Region& region : memory_.regions()) {
        forget_derived({region.state, region.size >> page_shift});
    }
}

void Package::note_walk(u64 entry, unsigned span_shift, unsigned entry_size, u64 linear) {
    const u64 gfn = entry >> page_shift;
    const u64 index = (entry & page_mask) / entry_size;
    // The linear address of entry 0 of this table; the table covers one aligned range.
    const u64 table_linear = (linear & ~((u64{1} << span_shift) - 1)) - (index << span_shift);
    Noted& noted = noted_[span_shift >> 3 & (noted_.size() - 1)];
    if (noted.gfn == gfn && noted.linear == table_linear && noted.generation == generation_) {
        return;
    }
    noted = {gfn, table_linear, generation_};
    auto [it, fresh] = tables_.try_emplace(gfn);
    TablePage& table = it->second;
    if (fresh) {
        table = {
            table_linear, generation_, static_cast<u8>(span_shift), static_cast<u8>(entry_size),
            true,         true};
        memory_.set_state(Gfn(gfn), page_state::walked);
        return;
    }
    table.generation = generation_;
    table.linear_walks = true;
    if (table.linear != table_linear || table.span_shift != span_shift ||
        table.entry_size != entry_size) {
        table.unique = false;
        table.entry_size = std::min(table.entry_size, static_cast<u8>(entry_size));
    }
}

void Package::note_ept_walk(u64 entry, unsigned level) {
    const u64 gfn = entry >> page_shift;
    Noted& noted = ept_noted_[(level - 1) & (ept_noted_.size() - 1)];
    if (noted.gfn == gfn && noted.generation == generation_) {
        return;
    }
    noted = {gfn, 0, generation_};
    auto [it, fresh] = tables_.try_emplace(gfn);
    if (fresh) {
        memory_.set_state(Gfn(gfn), page_state::walked);
    }
    it->second.generation = generation_;
    it->second.unique = false;
    it->second.ept = true;
}

void Package::before_write(Gpa address, const u8* data, unsigned size) {
    const GuestMemory::Page page = memory_.page(gfn_of(address));
    if ((*page.state & page_state::walked) != 0) {
        table_changes(address, data, size);
    }
    if ((*page.state & page_state::code) != 0 && !code_->invalidate(address.value(), size)) {
        *page.state &= static_cast<u8>(~page_state::code);
    }
    if ((*page.state & page_state::watched) != 0) {
        disarm(address, size);
    }
}

void Package::watch(Gfn page) {
    if (memory_.page(page).host != nullptr) {
        memory_.set_state(page, page_state::watched);
    }
}

/// The trigger of MONITOR (SDM 3A 9.10.4): it does not matter who writes or what.
void Package::disarm(Gpa address, unsigned size) {
    const u64 first = address.value();
    bool others = false;
    for (Cpu* cpu : cpus_) {
        state::Cpu& s = cpu->s;
        if (!s.monitor_armed || s.monitor_address >> page_shift != first >> page_shift) {
            continue;
        }
        if (s.monitor_address + Cpu::monitor_line <= first || first + size <= s.monitor_address) {
            others = true;
            continue;
        }
        s.monitor_armed = false;
        if (s.activity == state::ActivityState::hlt) {
            s.activity = state::ActivityState::active;
        }
    }
    if (!others) {
        *memory_.page(gfn_of(address)).state &= static_cast<u8>(~page_state::watched);
    }
}

void Package::table_changes(Gpa address, const u8* data, unsigned size) {
    const u64 gfn = gfn_of(address).value();
    const auto it = tables_.find(gfn);
    const GuestMemory::Page page = memory_.page(gfn_of(address));
    const bool unused =
        it == tables_.end() || std::all_of(cpus_.begin(), cpus_.end(), [&](const Cpu* cpu) {
            return !cpu->translations.depend_on(it->second.generation, it->second.ept);
        });
    if (unused) {
        // Every TLB was flushed since the table was last walked: nothing depends on it any more.
        tables_.erase(gfn);
        noted_ = {};
        ept_noted_ = {};
        *page.state &= static_cast<u8>(~page_state::walked);
        return;
    }
    const TablePage table = it->second;
    const unsigned offset = static_cast<unsigned>(address.value() & page_mask);
    const unsigned first = offset / table.entry_size;
    const unsigned last = (offset + size - 1) / table.entry_size;
    for (unsigned i = first; i <= last; ++i) {
        const unsigned begin = i * table.entry_size;
        const u8* old_entry = page.host + begin;
        bool changed = false;
        for (unsigned b = 0; b < table.entry_size; ++b) {
            const unsigned at = begin + b;
            changed |= at >= offset && at < offset + size && old_entry[b] != data[at - offset];
        }
        // Only present entries are cached: P, or any of an EPT entry's rights (bits 2:0 and 10).
        const bool present = (old_entry[0] & 1) != 0 ||
                             (table.ept && ((old_entry[0] & 7) | (old_entry[1] & 4)) != 0);
        if (changed && present) {
            entry_changed(table, i);
        }
    }
}

void Package::entry_changed(const TablePage& table, unsigned entry) {
    const u64 first = table.linear + (u64{entry} << table.span_shift);
    const u64 size = u64{1} << table.span_shift;
    const bool one_page = table.unique && table.span_shift == page_shift;
    for (Cpu* cpu : cpus_) {
        if (one_page) {
            cpu->flush_tlb_page(first);
        } else if (table.linear_walks) {
            cpu->flush_all_translations();
        } else {
            cpu->translations.flush_nested(++generation_);
        }
        // The running instruction may have unmapped the page it is in: then the next one must be
        // fetched anew.
        const bool concerned = table.linear_walks || !cpu->controls.assisted;
        const bool here = !table.unique || running_page(*cpu) - first < size;
        if (cpu->block != nullptr && concerned && here) {
            code_->kill(cpu->block);
            cpu->raise_attention(0);
        }
    }
}

void Package::drop_all_fast_paths() {
    for (Cpu* cpu : cpus_) {
        cpu->flush_all_translations();
    }
}

void Package::drop_fast_paths(Gfn gfn) {
    const GuestMemory::Page page = memory_.page(gfn);
    const bool all = (*page.state & page_state::absent) != 0;
    for (Cpu* cpu : cpus_) {
        cpu->translations.drop_host_page(page.host, all);
    }
}

} // namespace nestor::cpu
