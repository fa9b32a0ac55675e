// The values of CR0, CR3 and CR4: what a write of them checks and sets off (SDM
// 3A 2.5, 4.4.1, 4.10.1, 10.8.5). Owns nothing. Who may write, and which writes exit, is its
// caller's business (ops_system_control.cpp).
#include "engine/cpu/package.hpp"
#include "engine/cpu/system.hpp"

namespace nestor::cpu {

using namespace arch;

namespace {

constexpr u64 cr0_known = cr0::pe | cr0::mp | cr0::em | cr0::ts | cr0::et | cr0::ne | cr0::wp |
                          cr0::am | cr0::nw | cr0::cd | cr0::pg;
constexpr u64 cr4_paging = cr4::pse | cr4::pae | cr4::pge | cr4::pcide | cr4::smep | cr4::smap |
                           cr4::pke | cr4::la57 | cr4::pks;

/// Turning paging on or off in IA-32e terms (SDM 3A 10.8.5). False: #GP(0).
bool check_paging_change(const Site& site, u64 value) {
    const Cpu& cpu = site.cpu;
    const state::Cpu& s = cpu.s;
    const state::Segment& cs = s.segments[static_cast<unsigned>(Seg::cs)];
    const bool on = (value & cr0::pg) != 0;
    if (on == ((s.cr0 & cr0::pg) != 0)) {
        return true;
    }
    if (!on) {
        return (!cpu.mode.is64() && (s.cr4 & cr4::pcide) == 0) || site.gp(0);
    }
    if ((s.efer & efer::lme) == 0) {
        return true;
    }
    const bool tss16 = (s.tr.attributes & (seg_attr::unusable | 8)) == 0;
    return ((s.cr4 & cr4::pae) != 0 && (cs.attributes & seg_attr::l) == 0 && !tss16) || site.gp(0);
}

/// Bits that VMX non-root operation keeps at 1 (SDM 3D A.7, A.8; SDM 3C 24.8). L0's own guest may
/// be outside VMX operation as far as it knows, so there L0 sees to them with the masks.
u64 cr0_fixed(const Cpu& cpu) {
    if (cpu.controls.assisted) {
        return 0;
    }
    const bool unrestricted = (cpu.controls.proc2 & proc2_control::unrestricted_guest) != 0;
    return cr0::ne | (unrestricted ? 0 : cr0::pe | cr0::pg);
}
u64 cr4_fixed(const Cpu& cpu) { return cpu.controls.assisted ? 0 : cr4::vmxe; }

bool pae_paging(u64 cr0_value, u64 cr4_value, u64 efer_value) {
    return (cr0_value & cr0::pg) != 0 && (cr4_value & cr4::pae) != 0 &&
           (efer_value & efer::lme) == 0;
}

} // namespace

bool write_cr0(const Site& site, u64 value) {
    Cpu& cpu = site.cpu;
    state::Cpu& s = cpu.s;
    if (value >> 32 != 0) {
        return site.gp(0);
    }
    value = (value & cr0_known) | cr0::et;
    if (((value & cr0::pg) != 0 && (value & cr0::pe) == 0) ||
        ((value & cr0::nw) != 0 && (value & cr0::cd) == 0) || (~value & cr0_fixed(cpu)) != 0) {
        return site.gp(0);
    }
    if ((value & cr0::wp) == 0 && (s.cr4 & cr4::cet) != 0) {
        return site.gp(0);
    }
    if (!check_paging_change(site, value)) {
        return false;
    }
    const u64 changed = s.cr0 ^ value;
    // SDM 3A 4.4.1: PDPTEs are loaded when CD, NW or PG changes with PAE paging.
    if ((changed & (cr0::cd | cr0::nw | cr0::pg)) != 0 && pae_paging(value, s.cr4, s.efer) &&
        !cpu.load_pdptrs(site.op, s.cr3)) {
        return false;
    }
    s.cr0 = value;
    if ((changed & cr0::pg) != 0) {
        const bool lma = (value & cr0::pg) != 0 && (s.efer & efer::lme) != 0;
        s.efer = lma ? s.efer | efer::lma : s.efer & ~efer::lma;
    }
    if ((changed & (cr0::pg | cr0::wp | cr0::pe)) != 0) {
        cpu.flush_tlb();
    }
    cpu.update_mode();
    return true;
}

bool write_cr3(const Site& site, u64 value) {
    Cpu& cpu = site.cpu;
    state::Cpu& s = cpu.s;
    if (ia32e(cpu)) {
        if ((s.cr4 & cr4::pcide) != 0) {
            value &= ~bit(63); // "do not flush": nothing to keep (derived structures are coherent)
        }
        if ((value & ~mask(cpu.package.features().physical_bits - 1, 0)) != 0) {
            return site.gp(0);
        }
    } else {
        value = static_cast<u32>(value);
        if (pae_paging(s.cr0, s.cr4, s.efer) && !cpu.load_pdptrs(site.op, value)) {
            return false;
        }
    }
    s.cr3 = value;
    cpu.flush_tlb();
    return true;
}

bool write_cr4(const Site& site, u64 value) {
    Cpu& cpu = site.cpu;
    state::Cpu& s = cpu.s;
    const u64 changed = s.cr4 ^ value;
    if ((value & cpu.package.features().cr4_reserved) != 0 || (~value & cr4_fixed(cpu)) != 0) {
        return site.gp(0);
    }
    const bool lma = ia32e(cpu);
    if (lma && ((value & cr4::pae) == 0 || (changed & cr4::la57) != 0)) {
        return site.gp(0);
    }
    // SDM 3A 4.10.1: PCIDE only in IA-32e mode, with PCID 0 at the time.
    if ((changed & value & cr4::pcide) != 0 && (!lma || (s.cr3 & mask(11, 0)) != 0)) {
        return site.gp(0);
    }
    if ((value & cr4::cet) != 0 && (s.cr0 & cr0::wp) == 0) {
        return site.gp(0);
    }
    if ((changed & (cr4::pae | cr4::pge | cr4::pse | cr4::smep)) != 0 &&
        pae_paging(s.cr0, value, s.efer) && !cpu.load_pdptrs(site.op, s.cr3)) {
        return false;
    }
    s.cr4 = value;
    if ((changed & cr4_paging) != 0) {
        cpu.flush_tlb();
    }
    cpu.update_mode();
    return true;
}

} // namespace nestor::cpu
