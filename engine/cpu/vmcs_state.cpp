// Registers out of and into a VMCS on VM entry and VM exit (SDM 3C 27.3.2, 28.3, 28.5).
//
// Owns nothing. What the SDM leaves undefined of an unusable segment is kept as it stands, except
// what cannot be in the registers of an Intel 64 processor. CR0.ET, NW and CD belong to no VMCS:
// VM transitions do not change them.
#include "engine/cpu/vmcs_state.hpp"

#include "engine/arch/vmx_control.hpp"
#include "engine/cpu/package.hpp"
#include "engine/cpu/system.hpp"

namespace nestor::cpu {

using namespace arch;
using state::ActivityState;

namespace {

constexpr u64 cr0_kept = cr0::et | cr0::nw | cr0::cd;
constexpr u64 cr0_loaded =
    cr0::pe | cr0::mp | cr0::em | cr0::ts | cr0::ne | cr0::wp | cr0::am | cr0::pg;
/// Bits 63:32, 15:14, 12 and 11 are cleared, bit 10 is set (SDM 3C 27.3.2.1).
constexpr u64 dr7_loaded = 0xffff27ff;
constexpr u32 rights_kept = 0x1f0ff;
constexpr u32 blocking_sti = 1, blocking_mov_ss = 2, blocking_smi = 4, blocking_nmi = 8;

bool has(u32 word, u32 control) { return (word & control) != 0; }

bool secondary(const state::Vmcs& v, u32 control) {
    return has(v.cpu_based_vm_exec_control, proc_control::activate_secondary_controls) &&
           has(v.secondary_vm_exec_control, control);
}

bool pae_paging(const state::Cpu& s) {
    return (s.cr0 & cr0::pg) != 0 && (s.cr4 & cr4::pae) != 0 && (s.efer & efer::lma) == 0;
}

u64 merged_cr0(u64 current, u64 loaded) { return (current & cr0_kept) | (loaded & cr0_loaded); }

/// LMA as a control says it; LME follows while paging is on (SDM 3C 27.3.2.1, 28.5.1).
u64 efer_for(u64 current, bool long_mode, bool paging) {
    const u64 moved = efer::lma | (paging ? efer::lme : 0);
    return long_mode ? current | moved : current & ~moved;
}

/// Each segment register of the VMCS with its register: f(register, selector, base, limit, rights).
template <class State, class V, class F>
void each_segment(State& s, V& v, F f) {
#define NESTOR_SEGMENT(reg, name)                                                                  \
    f(reg, v.guest_##name##_selector, v.guest_##name##_base, v.guest_##name##_limit,               \
      v.guest_##name##_access_rights);
    NESTOR_SEGMENT(s.segments[static_cast<unsigned>(Seg::es)], es)
    NESTOR_SEGMENT(s.segments[static_cast<unsigned>(Seg::cs)], cs)
    NESTOR_SEGMENT(s.segments[static_cast<unsigned>(Seg::ss)], ss)
    NESTOR_SEGMENT(s.segments[static_cast<unsigned>(Seg::ds)], ds)
    NESTOR_SEGMENT(s.segments[static_cast<unsigned>(Seg::fs)], fs)
    NESTOR_SEGMENT(s.segments[static_cast<unsigned>(Seg::gs)], gs)
    NESTOR_SEGMENT(s.ldtr, ldtr)
    NESTOR_SEGMENT(s.tr, tr)
#undef NESTOR_SEGMENT
}

void load_guest_segments(state::Cpu& s, const state::Vmcs& v, unsigned linear_bits) {
    each_segment(s, v, [](state::Segment& to, u16 selector, u64 base, u32 limit, u32 rights) {
        to.selector = selector;
        to.base = base;
        to.limit = limit;
        to.attributes = rights & rights_kept;
    });
    // CS is usable whatever the bit says (SDM 3C 27.3.2.2).
    s.segments[static_cast<unsigned>(Seg::cs)].attributes &= ~seg_attr::unusable;
    for (const Seg r : {Seg::es, Seg::ss, Seg::ds}) {
        s.segments[static_cast<unsigned>(r)].base &= 0xffffffff;
    }
    if (!is_canonical(s.ldtr.base, linear_bits)) {
        s.ldtr.base = 0;
    }
}

void load_guest_controls(state::Cpu& s, const state::Vmcs& v) {
    const u32 entry = v.vm_entry_controls;
    s.cr0 = merged_cr0(s.cr0, v.guest_cr0);
    s.cr3 = v.guest_cr3;
    s.cr4 = v.guest_cr4;
    if (has(entry, entry_control::load_debug_controls)) {
        s.dr7 = (v.guest_dr7 & dr7_loaded) | dr7::fixed1;
        s.debugctl = v.guest_ia32_debugctl;
    }
    s.sysenter_cs = v.guest_ia32_sysenter_cs;
    s.sysenter_esp = v.guest_ia32_sysenter_esp;
    s.sysenter_eip = v.guest_ia32_sysenter_eip;
    if (has(entry, entry_control::load_efer)) {
        s.efer = v.guest_ia32_efer;
    } else {
        s.efer =
            efer_for(s.efer, has(entry, entry_control::ia32e_mode_guest), (s.cr0 & cr0::pg) != 0);
    }
    if (has(entry, entry_control::load_pat)) {
        s.pat = v.guest_ia32_pat;
    }
}

void load_guest_activity(state::Cpu& s, const state::Vmcs& v) {
    const u32 interruptibility = v.guest_interruptibility_state;
    s.blocking_by_sti = has(interruptibility, blocking_sti);
    s.blocking_by_mov_ss = has(interruptibility, blocking_mov_ss);
    s.blocking_by_nmi = has(interruptibility, blocking_nmi);
    s.activity = static_cast<ActivityState>(v.guest_activity_state & 3);
    s.pending_debug = v.guest_pending_debug_exceptions;
    s.monitor_armed = false; // SDM 3C 27.3.3
}

/// A host segment: flat, DPL 0; unusable with a null selector (SDM 3C 28.5.2).
state::Segment host_segment(u16 selector, u64 base, u32 attributes) {
    state::Segment s;
    s.selector = selector;
    s.base = base;
    s.limit = 0xffffffff;
    s.attributes = attributes | (selector == 0 ? seg_attr::unusable : 0);
    return s;
}

void load_host_segments(state::Cpu& s, const state::Vmcs& v, bool long_host) {
    constexpr u32 code = 0x809b, data = 0xc093; // G, P, S, accessed; data B too
    const auto set = [&](Seg r, u16 selector, u64 base, u32 attributes) {
        s.segments[static_cast<unsigned>(r)] = host_segment(selector, base, attributes);
    };
    set(Seg::cs, v.host_cs_selector, 0, code | (long_host ? seg_attr::l : seg_attr::db));
    set(Seg::ss, v.host_ss_selector, 0, data);
    set(Seg::ds, v.host_ds_selector, 0, data);
    set(Seg::es, v.host_es_selector, 0, data);
    set(Seg::fs, v.host_fs_selector, v.host_fs_base, data);
    set(Seg::gs, v.host_gs_selector, v.host_gs_base, data);
    s.tr = host_segment(v.host_tr_selector, v.host_tr_base, 0x8b);
    s.tr.limit = 0x67;
    s.ldtr = host_segment(0, 0, 0x82);
    s.gdtr = {v.host_gdtr_base, 0xffff};
    s.idtr = {v.host_idtr_base, 0xffff};
}

} // namespace

void load_guest(Cpu& cpu, const state::Vmcs& vmcs, const std::array<u64, 4>& pdptes) {
    state::Cpu& s = cpu.s;
    load_guest_controls(s, vmcs);
    load_guest_segments(s, vmcs, cpu.package.features().la57 ? 57 : 48);
    s.gdtr = {vmcs.guest_gdtr_base, static_cast<u16>(vmcs.guest_gdtr_limit)};
    s.idtr = {vmcs.guest_idtr_base, static_cast<u16>(vmcs.guest_idtr_limit)};
    s.rip = vmcs.guest_rip;
    s.gpr[static_cast<unsigned>(Gpr::rsp)] = vmcs.guest_rsp;
    s.rflags = vmcs.guest_rflags;
    if (pae_paging(s)) {
        s.pdptr = secondary(vmcs, proc2_control::enable_ept)
                      ? std::array{vmcs.guest_pdpte0, vmcs.guest_pdpte1, vmcs.guest_pdpte2,
                                   vmcs.guest_pdpte3}
                      : pdptes;
    }
    load_guest_activity(s, vmcs);
    cpu.transition();
}

void save_guest(Cpu& cpu, state::Vmcs& vmcs) {
    cpu.materialize();
    const state::Cpu& s = cpu.s;
    const u32 exit = vmcs.vm_exit_controls;
    vmcs.guest_cr0 = s.cr0;
    vmcs.guest_cr3 = s.cr3;
    vmcs.guest_cr4 = s.cr4;
    vmcs.guest_ia32_sysenter_cs = s.sysenter_cs;
    vmcs.guest_ia32_sysenter_esp = s.sysenter_esp;
    vmcs.guest_ia32_sysenter_eip = s.sysenter_eip;
    if (has(exit, exit_control::save_debug_controls)) {
        vmcs.guest_dr7 = s.dr7;
        vmcs.guest_ia32_debugctl = s.debugctl;
    }
    if (has(exit, exit_control::save_pat)) {
        vmcs.guest_ia32_pat = s.pat;
    }
    if (has(exit, exit_control::save_efer)) {
        vmcs.guest_ia32_efer = s.efer;
    }
    // IA32_VMX_MISC[5]: the mode the guest is in now.
    const bool long_mode = (s.efer & efer::lma) != 0;
    vmcs.vm_entry_controls = (vmcs.vm_entry_controls & ~entry_control::ia32e_mode_guest) |
                             (long_mode ? entry_control::ia32e_mode_guest : 0);
    each_segment(s, vmcs,
                 [](const state::Segment& from, u16& selector, u64& base, u32& limit, u32& rights) {
                     selector = from.selector;
                     base = from.base;
                     limit = from.limit;
                     rights = from.attributes & rights_kept;
                 });
    vmcs.guest_gdtr_base = s.gdtr.base;
    vmcs.guest_gdtr_limit = s.gdtr.limit;
    vmcs.guest_idtr_base = s.idtr.base;
    vmcs.guest_idtr_limit = s.idtr.limit;
    vmcs.guest_rip = s.rip;
    vmcs.guest_rsp = s.gpr[static_cast<unsigned>(Gpr::rsp)];
    vmcs.guest_rflags = s.rflags;
    vmcs.guest_activity_state = static_cast<u32>(s.activity);
    vmcs.guest_interruptibility_state =
        (s.blocking_by_sti ? blocking_sti : 0) | (s.blocking_by_mov_ss ? blocking_mov_ss : 0) |
        (s.in_smm ? blocking_smi : 0) | (s.blocking_by_nmi ? blocking_nmi : 0);
    vmcs.guest_pending_debug_exceptions = s.pending_debug;
    if (pae_paging(s) && secondary(vmcs, proc2_control::enable_ept)) {
        vmcs.guest_pdpte0 = s.pdptr[0];
        vmcs.guest_pdpte1 = s.pdptr[1];
        vmcs.guest_pdpte2 = s.pdptr[2];
        vmcs.guest_pdpte3 = s.pdptr[3];
    }
}

void load_host(Cpu& cpu, const state::Vmcs& vmcs) {
    state::Cpu& s = cpu.s;
    const u32 exit = vmcs.vm_exit_controls;
    const bool long_host = has(exit, exit_control::host_address_space_size);
    s.cr0 = merged_cr0(s.cr0, vmcs.host_cr0);
    s.cr3 = vmcs.host_cr3;
    s.cr4 = long_host ? vmcs.host_cr4 | cr4::pae : vmcs.host_cr4 & ~cr4::pcide;
    s.dr7 = dr7::fixed1;
    s.debugctl = 0;
    s.sysenter_cs = vmcs.host_ia32_sysenter_cs;
    s.sysenter_esp = vmcs.host_ia32_sysenter_esp;
    s.sysenter_eip = vmcs.host_ia32_sysenter_eip;
    s.efer = has(exit, exit_control::load_efer) ? vmcs.host_ia32_efer
                                                : efer_for(s.efer, long_host, true);
    if (has(exit, exit_control::load_pat)) {
        s.pat = vmcs.host_ia32_pat;
    }
    load_host_segments(s, vmcs, long_host);
    s.rip = vmcs.host_rip;
    s.gpr[static_cast<unsigned>(Gpr::rsp)] = vmcs.host_rsp;
    s.rflags = rflags::fixed1;
    s.blocking_by_sti = false;
    s.blocking_by_mov_ss = false;
    s.activity = ActivityState::active;
    s.pending_debug = 0;
    s.monitor_armed = false;
    cpu.transition();
}

} // namespace nestor::cpu
