// Which of a processor's TLBs is in use, and what drops it.
//
// A guest-physical page outlives the flushes of its guest: CR3 changes have nothing to do with EPT.
// So a linear translation may be newer than the EPT walk behind it; the EPT pages count as one more
// TLB for the package, and where they go, the linear translations through them go too.
#include "engine/cpu/translations.hpp"

#include "engine/cpu/system.hpp"

namespace nestor::cpu {

using namespace arch;

Translations::Key Translations::key_of(const Cpu& cpu) {
    constexpr u64 paging =
        cr4::pse | cr4::pae | cr4::pcide | cr4::smep | cr4::smap | cr4::pke | cr4::la57 | cr4::pks;
    const state::Cpu& s = cpu.s;
    const Controls& c = cpu.controls;
    const bool pae = (s.cr4 & cr4::pae) != 0 && (s.efer & efer::lma) == 0;
    Key key{};
    key.cr0 = s.cr0 & (cr0::pe | cr0::wp | cr0::pg);
    key.cr3 = s.cr3;
    key.cr4 = s.cr4 & paging;
    key.efer = s.efer & (efer::lma | efer::nxe);
    key.eptp = c.eptp;
    key.controls = c.proc2 & proc2_control::mode_based_execute;
    key.apic_access_page = c.apic_access_page;
    key.lapic_page = c.lapic_page;
    key.pdptr = pae ? s.pdptr : std::array<u64, 4>{};
    key.pkru = s.pkru;
    return key;
}

void Translations::leave(u64 generation) {
    tlbs_[spare].flush();
    flushed_[spare] = generation;
    current_ = spare;
}

void Translations::choose(const Cpu& cpu, u64 generation) {
    leave(generation);
    current_ = cpu.controls.assisted ? own : nested;
    const Key key = key_of(cpu);
    if (key == keys_[current_]) {
        return;
    }
    const Key& old = keys_[current_];
    if (current_ == nested && (key.eptp != old.eptp || key.controls != old.controls)) {
        flush_ept(generation);
    }
    flush(generation);
}

void Translations::remember(const Cpu& cpu) {
    if (!between()) {
        keys_[current_] = key_of(cpu);
    }
}

void Translations::flush(u64 generation) {
    tlbs_[current_].flush();
    flushed_[current_] = generation;
}

void Translations::flush_all(u64 generation) {
    for (Tlb& tlb : tlbs_) {
        tlb.flush();
    }
    flushed_.fill(generation);
    flush_ept(generation);
}

void Translations::flush_nested(u64 generation) {
    for (const Which which : {nested, spare}) {
        tlbs_[which].flush();
        flushed_[which] = generation;
    }
    flush_ept(generation);
}

void Translations::flush_ept(u64 generation) {
    ept_.reset();
    ept_flushed_ = generation;
}

void Translations::flush_page(u64 linear) {
    for (Tlb& tlb : tlbs_) {
        tlb.flush_page(linear);
    }
}

void Translations::drop_host_page(const u8* host, bool all) {
    for (Tlb& tlb : tlbs_) {
        tlb.drop_host_page(host, all);
    }
}

bool Translations::depend_on(u64 generation, bool ept) const {
    for (unsigned i = 0; i < tlbs_.size(); ++i) {
        if (!tlbs_[i].empty() && flushed_[i] <= generation) {
            return true;
        }
    }
    return ept && ept_ != nullptr && ept_flushed_ <= generation;
}

const EptEntry* Translations::find_ept(u64 guest_physical) const {
    if (ept_ == nullptr) {
        return nullptr;
    }
    const EptEntry& e = (*ept_)[slot(guest_physical)];
    return e.page == (guest_physical & ~page_mask) ? &e : nullptr;
}

void Translations::keep_ept(const EptEntry& entry) {
    if (ept_ == nullptr) {
        ept_ = std::make_unique<std::array<EptEntry, ept_entries>>();
    }
    (*ept_)[slot(entry.page)] = entry;
}

} // namespace nestor::cpu
