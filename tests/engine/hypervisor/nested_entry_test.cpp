// VMLAUNCH in L1: every broken row of the entry checks comes back as the SDM says (27.1, 27.8).
#include <cstring>

#include <gtest/gtest.h>

#include "engine/hypervisor/vmcs02.hpp"
#include "engine/state/codec.hpp"
#include "nested_fixture.hpp"
#include "tests/engine/cpu/entry_breaks.hpp"

namespace nestor::hv {
namespace {

using namespace arch;
using namespace cpu;

/// A break of the processor itself, or of a host that is not L1, cannot be launched here.
bool needs_another_processor(const Break& b) {
    const Entry valid = valid_entry(b.from);
    Entry e = valid;
    b.apply(e.v, e.c, e.msr, e.ram);
    return b.from == ValidEntry::host32 || e.c.capabilities != valid.c.capabilities ||
           e.c.in_smm != valid.c.in_smm || e.c.long_mode != valid.c.long_mode ||
           e.c.x2apic != valid.c.x2apic || e.c.current_vmcs != valid.c.current_vmcs;
}

/// What the vCPU is after one count of L1 at VMLAUNCH.
state::Vcpu launch(Entry& e) {
    NestedHost host(NestedHost::memory_of(e));
    std::memcpy(host.ram.data() + NestedHost::msr_list, &e.msr, sizeof e.msr);
    EXPECT_TRUE(host.vcpu.load(host.before_launch(e.v)));
    const TimeBase start{Icount(0), Ticks(0), 1, 1};
    const Exit exit = host.vcpu.run(start, Icount(1));
    EXPECT_TRUE(std::holds_alternative<CountReached>(exit)) << exit.index();
    return host.vcpu.save();
}

Entry entry_for_l1(ValidEntry kind) {
    Entry e = valid_entry(kind);
    NestedHost::set_host(e.v);
    return e;
}

/// A valid VMCS whose guest does not exit at once.
Entry entry_that_stays(ValidEntry kind) {
    Entry e = entry_for_l1(kind);
    e.v.cpu_based_vm_exec_control &=
        ~(proc_control::interrupt_window_exiting | proc_control::nmi_window_exiting |
          proc_control::monitor_trap_flag);
    e.v.vmx_preemption_timer_value = 100;
    return e;
}

TEST(NestedEntry, EveryValidEntryStartsL2) {
    for (const ValidEntry kind : valid_entries) {
        if (kind == ValidEntry::host32) {
            continue;
        }
        Entry e = entry_that_stays(kind);
        const state::Vcpu after = launch(e);
        EXPECT_TRUE(after.nested.guest_mode) << static_cast<int>(kind);
        EXPECT_EQ(after.cpu.rip, e.v.guest_rip);
        EXPECT_TRUE(after.nested.vmcs12.launch_state);
    }
}

TEST(NestedEntry, AnL2ThatIsNotIn64BitModeIsRestoredToo) {
    for (const ValidEntry kind : {ValidEntry::pae32, ValidEntry::pae32_ept, ValidEntry::real,
                                  ValidEntry::v8086, ValidEntry::everything}) {
        Entry e = entry_that_stays(kind);
        const state::Vcpu saved = launch(e);
        ASSERT_TRUE(saved.nested.guest_mode);
        NestedHost fresh(NestedHost::memory_of(e));
        const auto loaded = fresh.vcpu.load(saved);
        ASSERT_TRUE(loaded) << loaded.error().message;
        EXPECT_TRUE(state::diff(fresh.vcpu.save(), saved).empty());
    }
}

TEST(NestedEntry, BrokenControlsAndHostStateFailTheInstruction) {
    unsigned tried = 0;
    for (const Break& b : breaks) {
        const EntryCheckKind kind = entry_checks()[static_cast<std::size_t>(b.id)].kind;
        const bool controls =
            kind == EntryCheckKind::controls || kind == EntryCheckKind::controls_memory;
        if ((!controls && kind != EntryCheckKind::host) || needs_another_processor(b)) {
            continue;
        }
        ++tried;
        Entry e = entry_for_l1(b.from);
        b.apply(e.v, e.c, e.msr, e.ram);
        const state::Vcpu after = launch(e);
        EXPECT_FALSE(after.nested.guest_mode) << "entry_breaks.def:" << b.line;
        EXPECT_EQ(after.nested.vmcs12.vm_instruction_error, controls ? 7u : 8u)
            << "entry_breaks.def:" << b.line;
        EXPECT_EQ(after.cpu.rflags & rflags::arithmetic, rflags::zf);
        EXPECT_EQ(after.cpu.rip, NestedHost::l1_code + 3);
        EXPECT_FALSE(after.nested.vmcs12.launch_state);
    }
    EXPECT_GT(tried, 80u);
}

TEST(NestedEntry, ABrokenGuestStateIsAnExitToTheHost) {
    unsigned tried = 0;
    for (const Break& b : breaks) {
        const EntryCheck& row = entry_checks()[static_cast<std::size_t>(b.id)];
        const bool guest =
            row.kind == EntryCheckKind::guest || row.kind == EntryCheckKind::guest_memory;
        if (!guest || needs_another_processor(b)) {
            continue;
        }
        ++tried;
        Entry e = entry_for_l1(b.from);
        b.apply(e.v, e.c, e.msr, e.ram);
        const state::Vmcs given = e.v;
        const state::Vcpu after = launch(e);
        EXPECT_FALSE(after.nested.guest_mode);
        EXPECT_EQ(after.nested.vmcs12.vm_exit_reason, 0x80000021u) << "entry_breaks.def:" << b.line;
        EXPECT_EQ(after.nested.vmcs12.exit_qualification, row.qualification)
            << "entry_breaks.def:" << b.line;
        EXPECT_EQ(after.cpu.rip, NestedHost::l1_handler);
        EXPECT_EQ(after.cpu.gpr[4], NestedHost::l1_stack);
        // Neither the guest area nor the event to be injected changed (SDM 3C 27.8).
        EXPECT_EQ(after.nested.vmcs12.guest_rip, given.guest_rip);
        EXPECT_EQ(after.nested.vmcs12.guest_rflags, given.guest_rflags);
        EXPECT_EQ(after.nested.vmcs12.vm_entry_intr_info, given.vm_entry_intr_info);
        EXPECT_FALSE(after.nested.vmcs12.launch_state);
    }
    EXPECT_GT(tried, 150u);
}

TEST(NestedEntry, TheSiliconAcceptsVmcs02WhereL0AcceptsVmcs12) {
    static constexpr EntryCheckKind kinds[] = {EntryCheckKind::controls, EntryCheckKind::host,
                                               EntryCheckKind::guest};
    static constexpr u64 offsets[] = {0, 1, u64{1} << 40, ~u64{0} << 33};
    unsigned accepted = 0;
    const auto try_one = [&](Entry& e, int line) {
        for (const EntryCheckKind kind : kinds) {
            if (answer(e, kind)) {
                return;
            }
        }
        ++accepted;
        const state::Vmcs vmcs12 = e.v;
        for (const u64 offset : offsets) {
            e.v = make_vmcs02(vmcs12, offset);
            for (const EntryCheckKind kind : kinds) {
                const auto failure = answer(e, kind);
                EXPECT_FALSE(failure) << "entry_breaks.def:" << line << ": " << failure->text;
            }
        }
    };
    for (const ValidEntry kind : valid_entries) {
        Entry e = valid_entry(kind);
        try_one(e, 0);
    }
    // A break of one row may be none of these kinds; of two, one may hide the other's.
    for (const Break& b : breaks) {
        for (const ValidEntry kind : valid_entries) {
            Entry e = valid_entry(kind);
            b.apply(e.v, e.c, e.msr, e.ram);
            try_one(e, b.line);
        }
    }
    EXPECT_GT(accepted, 100u);
}

TEST(NestedEntry, AnMsrThatCannotBeLoadedIsAnExitThatNamesItsPlace) {
    for (const Break& b : breaks) {
        if (entry_checks()[static_cast<std::size_t>(b.id)].kind != EntryCheckKind::msr_load ||
            needs_another_processor(b)) {
            continue;
        }
        Entry e = entry_for_l1(b.from);
        b.apply(e.v, e.c, e.msr, e.ram);
        e.v.vm_entry_msr_load_addr = NestedHost::msr_list;
        e.v.vm_entry_msr_load_count = 1;
        const state::Vcpu after = launch(e);
        EXPECT_FALSE(after.nested.guest_mode);
        EXPECT_EQ(after.nested.vmcs12.vm_exit_reason, 0x80000022u);
        EXPECT_EQ(after.nested.vmcs12.exit_qualification, 1u);
        EXPECT_EQ(after.cpu.rip, NestedHost::l1_handler);
    }
}

} // namespace
} // namespace nestor::hv
