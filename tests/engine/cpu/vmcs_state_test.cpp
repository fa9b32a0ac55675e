// Registers to and from a VMCS: random guest states, controls, what the SDM normalises.
#include <gtest/gtest.h>

#include "engine/arch/vmx_control.hpp"
#include "engine/cpu/package.hpp"
#include "engine/cpu/vmcs_state.hpp"
#include "engine/state/codec.hpp"
#include "entry_fixture.hpp"

namespace nestor::cpu {
namespace {

using namespace arch;

/// SplitMix64.
struct Random {
    u64 s;
    u64 next() {
        u64 z = s += 0x9e3779b97f4a7c15;
        z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
        z = (z ^ z >> 27) * 0x94d049bb133111eb;
        return z ^ z >> 31;
    }
    u32 next32() { return static_cast<u32>(next()); }
};

constexpr u64 cr0_of_vmcs =
    cr0::pe | cr0::mp | cr0::em | cr0::ts | cr0::ne | cr0::wp | cr0::am | cr0::pg;

class VmcsState : public ::testing::Test {
protected:
    VmcsState()
        : states_(EntryRam::size >> page_shift),
          package_(
              (memory_.add_region({Gpa(0), EntryRam::size, ram_.data(), states_.data()}), memory_),
              {Features{}, 64}),
          cpu(package_, 0, 64) {}

    /// A guest of some mode with random contents wherever the mode leaves them free.
    static state::Vmcs random_guest(ValidEntry kind, Random& r) {
        state::Vmcs v = valid_entry(kind).v;
        v.guest_cr0 ^= r.next() & (cr0::mp | cr0::ts | cr0::am);
        v.guest_cr3 = r.next() & 0xfffff000;
        v.guest_ia32_sysenter_cs = r.next32();
        v.guest_ia32_sysenter_esp = r.next32();
        v.guest_ia32_sysenter_eip = r.next32();
        v.guest_rip = r.next() & 0x7fff;
        v.guest_rsp = r.next();
        v.guest_rflags ^= r.next() & rflags::arithmetic;
        v.guest_dr7 = (r.next() & 0xffff03ff) | dr7::fixed1;
        v.guest_ia32_debugctl = r.next() & 3;
        v.guest_fs_base = r.next32();
        v.guest_gdtr_base = r.next32();
        v.guest_idtr_limit = r.next() & 0xffff;
        v.guest_ldtr_access_rights |= (r.next() & 1) != 0 ? seg_attr::unusable : 0;
        v.guest_gs_access_rights |= (r.next() & 1) != 0 ? seg_attr::unusable : 0;
        v.guest_pending_debug_exceptions = r.next() & 0x100f;
        v.guest_interruptibility_state = (r.next() & 1) != 0 ? 8 : 0;
        v.guest_activity_state = r.next() & 3;
        v.vm_entry_controls |= entry_control::load_debug_controls | entry_control::load_pat;
        v.vm_exit_controls |= exit_control::save_debug_controls | exit_control::save_pat;
        return v;
    }

    EntryRam ram_;
    std::vector<u8> states_;
    GuestMemory memory_;
    Package package_;
    Cpu cpu;
};

TEST_F(VmcsState, AGuestIsSavedAsItWasLoaded) {
    Random r{7};
    for (unsigned n = 0; n < 400; ++n) {
        const ValidEntry kind = valid_entries[n % std::size(valid_entries)];
        const state::Vmcs loaded = random_guest(kind, r);
        load_guest(cpu, loaded, {});
        state::Vmcs saved = loaded;
        saved.guest_rip = saved.guest_rsp = saved.guest_rflags = ~u64{0};
        saved.guest_cs_access_rights = saved.guest_activity_state = ~u32{0};
        save_guest(cpu, saved);
        // ET, NW and CD are the processor's own.
        saved.guest_cr0 = (saved.guest_cr0 & cr0_of_vmcs) | (loaded.guest_cr0 & ~cr0_of_vmcs);
        const auto differences = state::diff(loaded, saved);
        ASSERT_TRUE(differences.empty())
            << "case " << n << ": " << differences.front().path << " " << differences.front().left
            << " became " << differences.front().right;
    }
}

TEST_F(VmcsState, LoadingASavedGuestGivesTheSameProcessor) {
    Random r{11};
    for (unsigned n = 0; n < 200; ++n) {
        state::Vmcs v = random_guest(valid_entries[n % std::size(valid_entries)], r);
        v.vm_entry_controls |= entry_control::load_efer;
        v.vm_exit_controls |= exit_control::save_efer;
        v.guest_ia32_efer = (v.vm_entry_controls & entry_control::ia32e_mode_guest) != 0
                                ? efer::lme | efer::lma | efer::sce
                                : efer::nxe;
        load_guest(cpu, v, {});
        const state::Cpu before = cpu.s;
        save_guest(cpu, v);
        load_host(cpu, v);
        load_guest(cpu, v, {before.pdptr[0], before.pdptr[1], before.pdptr[2], before.pdptr[3]});
        const auto differences = state::diff(before, cpu.s);
        ASSERT_TRUE(differences.empty()) << n << ": " << differences.front().path;
    }
}

TEST_F(VmcsState, ControlsDecideWhatIsLoaded) {
    state::Vmcs v = valid_entry(ValidEntry::long64).v;
    v.guest_dr7 = 0x455;
    v.guest_ia32_debugctl = 1;
    v.guest_ia32_pat = 0x0606060606060606;
    v.guest_ia32_efer = efer::lme | efer::lma | efer::sce;
    cpu.s.efer = efer::nxe;
    cpu.s.pat = 0x0007040600070406;
    load_guest(cpu, v, {});
    EXPECT_EQ(cpu.s.dr7, 0x400u);
    EXPECT_EQ(cpu.s.debugctl, 0u);
    EXPECT_EQ(cpu.s.pat, 0x0007040600070406u);
    EXPECT_EQ(cpu.s.efer, efer::nxe | efer::lme | efer::lma); // by "IA-32e mode guest"
    v.vm_entry_controls |=
        entry_control::load_debug_controls | entry_control::load_pat | entry_control::load_efer;
    load_guest(cpu, v, {});
    EXPECT_EQ(cpu.s.dr7, 0x455u);
    EXPECT_EQ(cpu.s.debugctl, 1u);
    EXPECT_EQ(cpu.s.pat, v.guest_ia32_pat);
    EXPECT_EQ(cpu.s.efer, v.guest_ia32_efer);
}

TEST_F(VmcsState, ControlsDecideWhatIsSaved) {
    state::Vmcs v = valid_entry(ValidEntry::long64).v;
    load_guest(cpu, v, {});
    cpu.s.dr7 = 0x455;
    cpu.s.debugctl = 2;
    cpu.s.pat = 0x0606060606060606;
    cpu.s.efer |= efer::sce;
    const state::Vmcs before = v;
    save_guest(cpu, v);
    EXPECT_EQ(v.guest_dr7, before.guest_dr7);
    EXPECT_EQ(v.guest_ia32_debugctl, before.guest_ia32_debugctl);
    EXPECT_EQ(v.guest_ia32_pat, before.guest_ia32_pat);
    EXPECT_EQ(v.guest_ia32_efer, before.guest_ia32_efer);
    v.vm_exit_controls |=
        exit_control::save_debug_controls | exit_control::save_pat | exit_control::save_efer;
    save_guest(cpu, v);
    EXPECT_EQ(v.guest_dr7, 0x455u);
    EXPECT_EQ(v.guest_ia32_debugctl, 2u);
    EXPECT_EQ(v.guest_ia32_pat, 0x0606060606060606u);
    EXPECT_EQ(v.guest_ia32_efer, cpu.s.efer);
}

TEST_F(VmcsState, TheModeAtAnExitIsInTheEntryControls) {
    state::Vmcs v = valid_entry(ValidEntry::long64).v;
    load_guest(cpu, v, {});
    cpu.s.efer &= ~(efer::lma | efer::lme);
    save_guest(cpu, v);
    EXPECT_EQ(v.vm_entry_controls & entry_control::ia32e_mode_guest, 0u);
    cpu.s.efer |= efer::lma;
    save_guest(cpu, v);
    EXPECT_NE(v.vm_entry_controls & entry_control::ia32e_mode_guest, 0u);
}

TEST_F(VmcsState, WithoutLoadEferLmeIsKeptWhilePagingIsOff) {
    state::Vmcs v = valid_entry(ValidEntry::real).v;
    cpu.s.efer = efer::lme | efer::lma;
    load_guest(cpu, v, {});
    EXPECT_EQ(cpu.s.efer, efer::lme);
    v = valid_entry(ValidEntry::pae32).v;
    load_guest(cpu, v, {});
    EXPECT_EQ(cpu.s.efer, 0u);
}

TEST_F(VmcsState, BitsOfCr0ThatNoVmcsHoldsStay) {
    state::Vmcs v = valid_entry(ValidEntry::long64).v;
    cpu.s.cr0 = cr0::et | cr0::cd | cr0::nw | cr0::ts;
    load_guest(cpu, v, {});
    EXPECT_EQ(cpu.s.cr0, (v.guest_cr0 & cr0_of_vmcs) | cr0::et | cr0::cd | cr0::nw);
    load_host(cpu, v);
    EXPECT_EQ(cpu.s.cr0, (v.host_cr0 & cr0_of_vmcs) | cr0::et | cr0::cd | cr0::nw);
}

TEST_F(VmcsState, UnusableSegmentsHoldNothingImpossible) {
    state::Vmcs v = valid_entry(ValidEntry::long64).v;
    v.guest_ds_access_rights = v.guest_ldtr_access_rights = seg_attr::unusable;
    v.guest_ds_base = 0xffff000000001000;
    v.guest_ldtr_base = bit(60);
    v.guest_gs_access_rights = seg_attr::unusable;
    v.guest_gs_base = 0xffff888000000000;
    load_guest(cpu, v, {});
    EXPECT_EQ(cpu.seg(Seg::ds).base, 0x1000u);
    EXPECT_EQ(cpu.s.ldtr.base, 0u);
    EXPECT_EQ(cpu.seg(Seg::gs).base, 0xffff888000000000u); // FS and GS keep their bases
    EXPECT_EQ(cpu.seg(Seg::ds).attributes, seg_attr::unusable);
}

TEST_F(VmcsState, CodeIsUsableWhateverItsBitSays) {
    state::Vmcs v = valid_entry(ValidEntry::long64).v;
    v.guest_cs_access_rights |= seg_attr::unusable;
    load_guest(cpu, v, {});
    EXPECT_EQ(cpu.seg(Seg::cs).attributes, 0xa09bu);
}

TEST_F(VmcsState, PrivilegeIsThatOfSs) {
    state::Vmcs v = valid_entry(ValidEntry::pae32).v;
    load_guest(cpu, v, {});
    EXPECT_EQ(cpu.cpl, 3);
    v.guest_ss_access_rights |= seg_attr::unusable;
    load_guest(cpu, v, {});
    EXPECT_EQ(cpu.cpl, 3);
}

TEST_F(VmcsState, PdptesComeFromTheVmcsUnderEptAndFromMemoryWithout) {
    const std::array<u64, 4> memory{0x1001, 0x2001, 0x3001, 0x4001};
    load_guest(cpu, valid_entry(ValidEntry::pae32).v, memory);
    EXPECT_EQ(cpu.s.pdptr[1], 0x2001u);
    state::Vmcs v = valid_entry(ValidEntry::pae32_ept).v;
    v.guest_pdpte1 = 0x9001;
    load_guest(cpu, v, memory);
    EXPECT_EQ(cpu.s.pdptr[1], 0x9001u);
    cpu.s.pdptr[2] = 0xa001;
    save_guest(cpu, v);
    EXPECT_EQ(v.guest_pdpte2, 0xa001u);
}

TEST_F(VmcsState, TheHostOfA64BitExitIsFlatAndQuiet) {
    state::Vmcs v = valid_entry(ValidEntry::everything).v;
    v.host_ds_selector = 0;
    load_guest(cpu, v, {});
    cpu.s.pending_debug = pending_debug::bs;
    cpu.s.blocking_by_sti = true;
    cpu.s.activity = state::ActivityState::hlt;
    load_host(cpu, v);
    EXPECT_EQ(cpu.s.rip, v.host_rip);
    EXPECT_EQ(cpu.s.gpr[4], v.host_rsp);
    EXPECT_EQ(cpu.s.rflags, 2u);
    EXPECT_EQ(cpu.s.dr7, 0x400u);
    EXPECT_EQ(cpu.s.debugctl, 0u);
    EXPECT_EQ(cpu.s.efer, v.host_ia32_efer);
    EXPECT_EQ(cpu.seg(Seg::cs).attributes, 0xa09bu);
    EXPECT_EQ(cpu.seg(Seg::ss).attributes, 0xc093u);
    EXPECT_NE(cpu.seg(Seg::ds).attributes & seg_attr::unusable, 0u);
    EXPECT_EQ(cpu.seg(Seg::gs).base, v.host_gs_base);
    EXPECT_EQ(cpu.s.tr.attributes, 0x8bu);
    EXPECT_EQ(cpu.s.tr.limit, 0x67u);
    EXPECT_NE(cpu.s.ldtr.attributes & seg_attr::unusable, 0u);
    EXPECT_EQ(cpu.s.gdtr, (state::DescriptorTable{v.host_gdtr_base, 0xffff}));
    EXPECT_EQ(cpu.s.pending_debug, 0u);
    EXPECT_FALSE(cpu.s.blocking_by_sti);
    EXPECT_EQ(cpu.s.activity, state::ActivityState::active);
    EXPECT_EQ(cpu.cpl, 0);
    EXPECT_TRUE(cpu.mode.is64());
}

TEST_F(VmcsState, TheHostOfA32BitExitHas32BitCode) {
    state::Vmcs v = valid_entry(ValidEntry::host32).v;
    load_guest(cpu, v, {});
    cpu.s.efer = efer::lme | efer::lma | efer::nxe;
    load_host(cpu, v);
    EXPECT_EQ(cpu.seg(Seg::cs).attributes, 0xc09bu);
    EXPECT_EQ(cpu.s.efer, efer::nxe);
    EXPECT_FALSE(cpu.mode.is64());
}

} // namespace
} // namespace nestor::cpu
