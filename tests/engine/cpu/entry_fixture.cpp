// Builds VMCSs that pass every check of VM entry, for tests to break.
#include "entry_fixture.hpp"

#include <cstring>

#include "engine/cpu/entry_view.hpp"

namespace nestor::cpu {

using namespace arch;

namespace {

constexpr u64 cr4_allowed = cr4::vme | cr4::pvi | cr4::tsd | cr4::de | cr4::pse | cr4::pae |
                            cr4::mce | cr4::pge | cr4::pce | cr4::osfxsr | cr4::osxmmexcpt |
                            cr4::umip | cr4::la57 | cr4::vmxe | cr4::fsgsbase | cr4::pcide |
                            cr4::osxsave | cr4::smep | cr4::smap | cr4::pke;

void put(EntryRam& ram, u64 at, u64 value) { std::memcpy(ram.data() + at, &value, sizeof value); }

void set_host(state::Vmcs& v) {
    v.host_cr0 = 0x80050033;
    v.host_cr3 = 0x1000;
    v.host_cr4 = cr4::pae | cr4::vmxe;
    v.host_es_selector = v.host_ss_selector = v.host_ds_selector = 0x18;
    v.host_cs_selector = 0x10;
    v.host_tr_selector = 0x40;
    v.host_fs_base = 0x7f0000001000;
    v.host_gs_base = 0xffff888000000000;
    v.host_tr_base = v.host_gdtr_base = v.host_idtr_base = 0xfffffe0000000000;
    v.host_ia32_sysenter_esp = v.host_ia32_sysenter_eip = 0xffffffff81000000;
    v.host_rsp = 0xffffc90000000000;
    v.host_rip = 0xffffffff81001000;
    v.host_ia32_pat = 0x0007040600070406;
    v.host_ia32_efer = efer::sce | efer::lme | efer::lma | efer::nxe;
}

void set_data_segments(state::Vmcs& v, u16 selector, u32 rights) {
    v.guest_es_selector = v.guest_ss_selector = v.guest_ds_selector = selector;
    v.guest_fs_selector = v.guest_gs_selector = selector;
    v.guest_es_access_rights = v.guest_ss_access_rights = v.guest_ds_access_rights = rights;
    v.guest_fs_access_rights = v.guest_gs_access_rights = rights;
}

void set_limits(state::Vmcs& v, u32 limit) {
    v.guest_cs_limit = v.guest_ss_limit = v.guest_ds_limit = limit;
    v.guest_es_limit = v.guest_fs_limit = v.guest_gs_limit = limit;
}

void set_guest64(state::Vmcs& v) {
    v.guest_cr0 = 0x80050033;
    v.guest_cr3 = 0x2000;
    v.guest_cr4 = cr4::pae | cr4::vmxe;
    v.guest_cs_selector = 0x10;
    v.guest_cs_access_rights = 0xa09b;
    set_data_segments(v, 0x18, 0xc093);
    set_limits(v, 0xffffffff);
    v.guest_tr_selector = 0x40;
    v.guest_tr_access_rights = 0x8b;
    v.guest_tr_limit = 0x67;
    v.guest_ldtr_selector = 0x50;
    v.guest_ldtr_access_rights = 0x82;
    v.guest_ldtr_limit = 0xf;
    v.guest_gdtr_limit = v.guest_idtr_limit = 0xffff;
    v.guest_rflags = rflags::fixed1 | rflags::if_;
    v.guest_rip = 0xffffffff80000000;
    v.guest_rsp = 0xffffffff80010000;
    v.guest_dr7 = dr7::fixed1;
    v.guest_ia32_pat = 0x0007040600070406;
    v.guest_ia32_efer = efer::lme | efer::lma;
    v.vmcs_link_pointer = ~u64{0};
}

/// Addresses of everything that a control may ask for; valid whether it does or not.
void set_structures(state::Vmcs& v) {
    v.io_bitmap_a = 0x6000;
    v.io_bitmap_b = 0x7000;
    v.msr_bitmap = 0x8000;
    v.virtual_apic_page_addr = virtual_apic;
    v.apic_access_addr = 0xfee00000;
    v.posted_intr_desc_addr = 0x9040;
    v.posted_interrupt_notification_vector = 0xf2;
    v.ept_pointer = 0xa000 | 6 | 3 << 3 | eptp::accessed_dirty;
    v.virtual_processor_id = 1;
    v.pml_address = 0xb000;
    v.vm_function_controls = vmfunc::eptp_switching;
    v.eptp_list_address = 0xc000;
    v.vmread_bitmap = 0xd000;
    v.vmwrite_bitmap = 0xe000;
    v.ve_information_address = 0xf000;
    v.tsc_multiplier = u64{1} << 48;
}

void set_minimal_controls(Entry& e) {
    const VmxCapabilities& k = e.c.capabilities;
    e.v.pin_based_vm_exec_control = k.must_be_1(ControlWord::pin) |
                                    pin_control::external_interrupt_exiting |
                                    pin_control::nmi_exiting | pin_control::virtual_nmis;
    e.v.cpu_based_vm_exec_control = k.must_be_1(ControlWord::proc);
    e.v.vm_exit_controls = k.must_be_1(ControlWord::exit) | exit_control::host_address_space_size;
    e.v.vm_entry_controls = k.must_be_1(ControlWord::entry) | entry_control::ia32e_mode_guest;
}

void set_all_controls(Entry& e) {
    const VmxCapabilities& k = e.c.capabilities;
    e.v.pin_based_vm_exec_control = k.may_be_1(ControlWord::pin);
    e.v.cpu_based_vm_exec_control = k.may_be_1(ControlWord::proc);
    e.v.secondary_vm_exec_control =
        k.may_be_1(ControlWord::proc2) & ~proc2_control::virtualize_x2apic_mode;
    e.v.vm_exit_controls = k.may_be_1(ControlWord::exit);
    e.v.vm_entry_controls = k.may_be_1(ControlWord::entry);
    e.v.vmcs_link_pointer = shadow_vmcs;
}

void to_pae32(state::Vmcs& v) {
    v.vm_entry_controls &= ~entry_control::ia32e_mode_guest;
    v.guest_cr3 = pdpt;
    v.guest_cs_selector = 0x1b;
    v.guest_cs_access_rights = 0xc0fb;
    set_data_segments(v, 0x23, 0xc0f3);
    v.guest_tr_access_rights = 0x83;
    v.guest_rip = 0x8048000;
    v.guest_rsp = 0xbffff000;
}

void to_real(state::Vmcs& v) {
    v.vm_entry_controls &= ~entry_control::ia32e_mode_guest;
    activate(v, proc2_control::enable_ept | proc2_control::unrestricted_guest);
    v.guest_cr0 = cr0::ne | cr0::et;
    v.guest_cr4 = cr4::vmxe;
    v.guest_cs_selector = 0xf000;
    v.guest_cs_base = 0xf0000;
    v.guest_cs_access_rights = 0x93;
    set_data_segments(v, 0, 0x93);
    set_limits(v, 0xffff);
    v.guest_rip = 0xfff0;
    v.guest_rsp = 0x7000;
}

void to_v8086(state::Vmcs& v) {
    v.vm_entry_controls &= ~entry_control::ia32e_mode_guest;
    v.guest_cr4 = cr4::vmxe;
    v.guest_rflags |= rflags::vm | rflags::iopl;
    v.guest_cs_selector = 0x1000;
    v.guest_cs_access_rights = 0xf3;
    set_data_segments(v, 0x2000, 0xf3);
    set_limits(v, 0xffff);
    v.guest_cs_base = 0x10000;
    v.guest_es_base = v.guest_ss_base = v.guest_ds_base = 0x20000;
    v.guest_fs_base = v.guest_gs_base = 0x20000;
    v.guest_rip = 0x100;
    v.guest_rsp = 0xfffe;
}

void to_host32(Entry& e) {
    e.c.long_mode = false;
    e.v.vm_exit_controls &= ~exit_control::host_address_space_size;
    e.v.host_rip = 0xc0100000;
    e.v.host_rsp = 0xc0200000;
    e.v.guest_tr_access_rights = 0x8b;
}

} // namespace

void activate(state::Vmcs& v, u32 controls) {
    v.cpu_based_vm_exec_control |= proc_control::activate_secondary_controls;
    v.secondary_vm_exec_control |= controls;
}

void allow_smm(EntryContext& c) {
    c.capabilities.true_entry_ctls |=
        u64{entry_control::entry_to_smm | entry_control::deactivate_dual_monitor} << 32;
}

Entry valid_entry(ValidEntry kind) {
    Entry e;
    VmxModel model;
    model.cr4_allowed = cr4_allowed;
    e.c.capabilities = vmx_capabilities(model);
    e.c.linear_bits = 57;
    e.c.efer_allowed = efer::sce | efer::lme | efer::lma | efer::nxe;
    e.c.debugctl_allowed = 3;
    e.c.perf_global_allowed = 0x70000000f;
    e.c.current_vmcs = 0x1000;
    for (u64 i = 0; i < 4; ++i) {
        put(e.ram, pdpt + i * 8, 0x6001 + i * page_size);
    }
    put(e.ram, shadow_vmcs, vmx_basic::revision | bit(31));
    set_structures(e.v);
    set_host(e.v);
    set_guest64(e.v);
    set_minimal_controls(e);
    switch (kind) {
    case ValidEntry::long64:
        break;
    case ValidEntry::pae32_ept:
        activate(e.v, proc2_control::enable_ept);
        e.v.guest_pdpte0 = 0x6001;
        [[fallthrough]];
    case ValidEntry::pae32:
        to_pae32(e.v);
        break;
    case ValidEntry::real:
        to_real(e.v);
        break;
    case ValidEntry::v8086:
        to_v8086(e.v);
        break;
    case ValidEntry::host32:
        to_pae32(e.v);
        to_host32(e);
        break;
    case ValidEntry::everything:
        set_all_controls(e);
        break;
    }
    return e;
}

void edit_field(state::Vmcs& v, const u8* bytes) {
    u16 where;
    u64 value;
    std::memcpy(&where, bytes, sizeof where);
    std::memcpy(&value, bytes + 3, sizeof value);
    const auto& row = state::vmcs_rows<state::Vmcs>[where % state::vmcs_rows<state::Vmcs>.size()];
    u8* const field = reinterpret_cast<u8*>(&v) + row.offset;
    u64 now = 0;
    std::memcpy(&now, field, row.size);
    constexpr u64 edges[] = {0,       1,       0xfff,   0xffff,  0x10000,
                             0xfffff, bit(31), bit(32), bit(46), (bit(46) - 0x1000),
                             bit(47), ~u64{0}};
    switch (bytes[2] % 4) {
    case 0:
    case 1:
        now ^= bit(value % (row.size * 8u));
        break;
    case 2:
        now = edges[value % std::size(edges)];
        break;
    default:
        now = value;
    }
    std::memcpy(field, &now, row.size);
}

std::optional<EntryFailure> answer(Entry& e, EntryCheckKind kind) {
    std::vector<u8> states(EntryRam::size >> page_shift);
    GuestMemory memory;
    memory.add_region({Gpa(0), EntryRam::size, e.ram.data(), states.data()});
    switch (kind) {
    case EntryCheckKind::controls:
        return check_controls(e.v, e.c);
    case EntryCheckKind::controls_memory:
        return check_controls_memory(e.v, e.c, memory).failure;
    case EntryCheckKind::host:
        return check_host(e.v, e.c);
    case EntryCheckKind::guest:
        return check_guest(e.v, e.c);
    case EntryCheckKind::guest_memory:
        return check_guest_memory(e.v, e.c, memory).failure;
    case EntryCheckKind::msr_load:
        return check_msr_load(e.msr, e.c);
    case EntryCheckKind::msr_store:
        return check_msr_store(e.msr, e.c);
    }
    return std::nullopt;
}

std::vector<EntryCheckId> broken_rows(Entry& entry) {
    std::vector<EntryCheckId> broken;
    const EntryView view{entry.v, entry.c, 0, 0, {}, entry.msr};
    for (const EntryCheck& check : entry_checks()) {
        const bool in_memory = check.kind == EntryCheckKind::controls_memory ||
                               check.kind == EntryCheckKind::guest_memory;
        if (!in_memory && !check.holds(view)) {
            broken.push_back(check.id);
        }
    }
    if (broken.empty()) {
        for (const auto kind : {EntryCheckKind::controls_memory, EntryCheckKind::guest_memory}) {
            if (const auto failure = answer(entry, kind)) {
                broken.push_back(failure->id);
            }
        }
    }
    return broken;
}

} // namespace nestor::cpu
