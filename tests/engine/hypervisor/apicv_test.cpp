// L1's local APIC under vmcs01: virtualized by the silicon, by L0, and by turns. No guest may see
// which, at any count; updates of vmcs01 that come up while L2 runs wait for its exit to L1.
// GUESTS is the directory of the guest programs.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>
#include <set>
#include <string>

#include "engine/arch/vmx_control.hpp"
#include "engine/hypervisor/apicv.hpp"
#include "engine/state/codec.hpp"
#include "engine/state/info.hpp"
#include "engine/state/vcpu.hpp"
#include "src/base/fd.hpp"
#include "src/machine/machine.hpp"

namespace nestor {
namespace {

using namespace machine;

constexpr u64 memory_size = u64{64} << 20;
constexpr Icount forever{~u64{0}};
constexpr Icount enough{8000000}; ///< of the guests that run long

std::unique_ptr<Machine> booted(const std::string& guest, u16 cpus = 1) {
    const char* const guests = std::getenv("GUESTS");
    const auto bytes =
        read_file(std::string(guests != nullptr ? guests : "") + "/" + guest + ".elf", 1 << 20);
    EXPECT_TRUE(bytes.has_value()) << "GUESTS has no " << guest;
    state::MachineConfig config;
    config.memory = memory_size;
    config.cpus = cpus;
    auto machine = std::move(*Machine::create(config));
    BootImages images;
    images.kernel = {guest, {reinterpret_cast<const u8*>(bytes->data()), bytes->size()}};
    EXPECT_TRUE(machine->boot(images).has_value());
    return machine;
}

/// A unit as the guest digest has it.
std::vector<std::byte> without_policy(const Unit& unit) {
    const state::StructInfo* const info = state::erased::find(unit.type);
    const std::unique_ptr<void, void (*)(void*)> value(info->create(), info->destroy);
    EXPECT_TRUE(state::erased::decode(value.get(), *info, unit.bytes).has_value());
    return state::erased::encode(value.get(), *info, state::erased::Scope::guest);
}

std::string first_difference(const Machine& a, const Machine& b) {
    const auto left = a.units();
    const auto right = b.units();
    for (std::size_t i = 0; i < left.size(); ++i) {
        if (left[i] != right[i] && without_policy(left[i]) != without_policy(right[i])) {
            return left[i].name;
        }
    }
    return left.size() == right.size() ? "" : "number of units";
}

bool same_memory(Machine& a, Machine& b) {
    const auto left = a.memory().regions();
    const auto right = b.memory().regions();
    for (std::size_t i = 0; i < left.size(); ++i) {
        if (std::memcmp(left[i].host, right[i].host, left[i].size) != 0) {
            return false;
        }
    }
    return true;
}

void run_to(Machine& machine, Icount count) {
    ASSERT_EQ(machine.run({.until = count}).kind, Stop::Kind::count);
}

bool delivers(const Machine& machine) {
    return (machine.vcpu(VcpuIndex(0)).vmcs01.controls.secondary_vm_exec_control &
            arch::proc2_control::virtual_interrupt_delivery) != 0;
}

class Apicv : public testing::TestWithParam<const char*> {};

TEST_P(Apicv, NoGuestSeesWhetherItIsOnOffOrToggled) {
    const std::string guest = GetParam();
    const u16 cpus = guest == "smp" || guest == "mix" ? 4 : 1;
    const auto on = booted(guest, cpus);
    const auto off = booted(guest, cpus);
    const auto toggled = booted(guest, cpus);
    off->input(UseApicv{false});
    std::mt19937_64 random(guest.size() * 77);
    unsigned with = 0;
    unsigned stops = 0;
    for (;;) {
        const u64 step = 1 + random() % (u64{1} << random() % 19); // of all sizes
        const Icount until = on->count() + step;
        const Stop stop = on->run({.until = until});
        ASSERT_EQ(off->run({.until = until}).kind, stop.kind);
        ASSERT_EQ(toggled->run({.until = until}).kind, stop.kind);
        ASSERT_EQ(first_difference(*on, *off), "") << guest << ", count " << on->count().value();
        ASSERT_EQ(first_difference(*on, *toggled), "")
            << guest << ", count " << on->count().value();
        ASSERT_FALSE(delivers(*off));
        with += delivers(*on) ? 1 : 0;
        if (++stops % 256 == 0) {
            ASSERT_TRUE(same_memory(*on, *off));
            ASSERT_TRUE(same_memory(*on, *toggled));
        }
        if (stop.kind != Stop::Kind::count || on->count() > enough) {
            break;
        }
        toggled->input(UseApicv{random() % 2 == 0});
    }
    EXPECT_TRUE(same_memory(*on, *off));
    EXPECT_TRUE(same_memory(*on, *toggled));
    EXPECT_GT(with, 0U);
}

INSTANTIATE_TEST_SUITE_P(Guests, Apicv,
                         testing::Values("apic", "interrupts", "once", "smp", "smm", "mix", "vmx",
                                         "vmx_memory", "vmx_apic"),
                         [](const auto& guest) { return std::string(guest.param); });

/// The program checks that each instruction that a device answers happens once; QEMU agrees with
/// it.
TEST(ApicvAnswers, ADeviceIsAskedOnceWhoeverDeliversWhatItRaises) {
    std::vector<u8> sent;
    for (const unsigned seed : {0U, 1U, 2U, 3U, 4U, 5U}) { // on, off, and toggled four times
        const auto machine = booted("once");
        machine->input(UseApicv{seed != 1});
        std::mt19937_64 random(seed);
        Stop stop;
        do {
            const u64 step = seed < 2 ? u64{1} << 20 : 1 + random() % 60;
            stop = machine->run({.until = machine->count() + step});
            if (seed > 1 && stop.kind == Stop::Kind::count) {
                machine->input(UseApicv{random() % 2 == 0});
            }
        } while (stop.kind == Stop::Kind::count);
        const std::vector<u8> output = machine->take_serial_output();
        EXPECT_EQ(stop.kind, Stop::Kind::debug_exit);
        EXPECT_EQ(stop.exit_status, 1);
        EXPECT_FALSE(output.empty());
        EXPECT_TRUE(sent.empty() || sent == output);
        sent = output;
    }
}

/// Flags seen in L2, looking behind every instruction of it.
std::set<std::string> flags_raised(Machine& machine) {
    std::set<std::string> seen;
    while (machine.run({.until_l2 = true}).kind == Stop::Kind::l2) {
        state::Nested nested = machine.vcpu(VcpuIndex(0)).nested;
        for (unsigned i = 0; nested.guest_mode && i < 200; ++i) {
            const state::NestedPending& p = nested.pending;
            const auto note = [&seen](bool flag, const char* name) {
                if (flag) {
                    seen.insert(name);
                }
            };
            note(p.tpr_threshold != 0xff, "tprThreshold");
            note(p.virtual_apic_mode, "virtualApicMode");
            note(p.dirty_logging, "dirtyLogging");
            note(p.apic_access_reload, "apicAccessReload");
            note(p.apicv_update, "apicvUpdate");
            note(p.isr_refresh, "isrRefresh");
            run_to(machine, machine.count() + 1);
            nested = machine.vcpu(VcpuIndex(0)).nested;
        }
        EXPECT_TRUE(nested.guest_mode || nested.pending == state::NestedPending{});
    }
    return seen;
}

TEST(ApicvPending, WhatL2DoesToL1sApicWaitsForTheExitToL1) {
    using Names = std::set<std::string>;
    const auto on = booted("vmx_apic");
    EXPECT_EQ(flags_raised(*on),
              (Names{"virtualApicMode", "apicAccessReload", "apicvUpdate", "isrRefresh"}));
    const auto off = booted("vmx_apic");
    off->input(UseApicv{false});
    EXPECT_EQ(flags_raised(*off), (Names{"tprThreshold", "virtualApicMode", "apicAccessReload"}));
}

TEST(ApicvPending, InhibitsAndDirtyLoggingChangeVmcs01WhenL2HasExited) {
    const auto machine = booted("vmx");
    ASSERT_EQ(machine->run({.until_l2 = true}).kind, Stop::Kind::l2);
    const state::Vcpu before = machine->vcpu(VcpuIndex(0));
    machine->input(UseApicv{false});
    machine->set_dirty_logging(true);
    run_to(*machine, machine->count() + 1);
    state::Vcpu now = machine->vcpu(VcpuIndex(0));
    ASSERT_TRUE(now.nested.guest_mode);
    EXPECT_TRUE(now.nested.pending.dirty_logging);
    EXPECT_EQ(now.vmcs01, before.vmcs01);
    while (now.nested.guest_mode) {
        run_to(*machine, machine->count() + 1);
        now = machine->vcpu(VcpuIndex(0));
    }
    EXPECT_EQ(now.nested.pending, state::NestedPending{});
    EXPECT_FALSE(delivers(*machine));
    EXPECT_NE(now.vmcs01.controls.secondary_vm_exec_control & arch::proc2_control::enable_pml, 0U);
}

std::unique_ptr<Machine> restored(Machine& machine) {
    auto fresh = std::move(*Machine::create(machine.config()));
    const auto from = machine.memory().regions();
    const auto to = fresh->memory().regions();
    for (std::size_t i = 0; i < from.size(); ++i) {
        std::memcpy(to[i].host, from[i].host, from[i].size);
    }
    fresh->memory_replaced();
    EXPECT_TRUE(fresh->load_units(machine.units()).has_value());
    return fresh;
}

TEST(NestedEntry, WhatTheTprThresholdDoesAtAnEntryHappensAfterARestoreToo) {
    const auto machine = booted("vmx_memory");
    unsigned entries = 0;
    while (machine->run({.until_l2 = true}).kind == Stop::Kind::l2) {
        if (machine->vcpu(VcpuIndex(0)).nested.vmcs12.tpr_threshold == 0) {
            continue;
        }
        ++entries;
        const auto fresh = restored(*machine);
        const auto exit_of = [](Machine& m) {
            while (m.vcpu(VcpuIndex(0)).nested.guest_mode) {
                run_to(m, m.count() + 1);
            }
            return std::pair(m.count().value(), m.vcpu(VcpuIndex(0)).nested.vmcs12.vm_exit_reason);
        };
        EXPECT_EQ(exit_of(*fresh), exit_of(*machine));
    }
    EXPECT_GT(entries, 0U);
}

TEST(ApicvPending, AMachineRestoredWithFlagsSetGoesOnAsTheOneThatWasNeverStopped) {
    for (const bool apicv : {true, false}) {
        const auto machine = booted("vmx_apic");
        machine->input(UseApicv{apicv});
        unsigned moments = 0;
        while (machine->run({.until_l2 = true}).kind == Stop::Kind::l2) {
            state::Vcpu vcpu = machine->vcpu(VcpuIndex(0));
            while (vcpu.nested.guest_mode && vcpu.nested.pending == state::NestedPending{}) {
                run_to(*machine, machine->count() + 1);
                vcpu = machine->vcpu(VcpuIndex(0));
            }
            if (!vcpu.nested.guest_mode) {
                continue;
            }
            ++moments;
            for (const bool since : {true, false}) {
                const auto fresh = restored(*machine);
                EXPECT_EQ(fresh->vcpu(VcpuIndex(0)).nested.pending, vcpu.nested.pending);
                fresh->input(UseApicv{since});
                const Stop stop = fresh->run({.until = forever});
                EXPECT_EQ(stop.kind, Stop::Kind::debug_exit);
                EXPECT_EQ(stop.exit_status, 1) << "count " << machine->count().value();
            }
        }
        EXPECT_GT(moments, 3U);
    }
}

TEST(BlockedInterrupts, ComeWhenTheyAreNoLongerBlocked) {
    const auto machine = booted("vmx");
    constexpr std::size_t irr_word = (0x200 + 0x30) / 4; // vectors 0x60 to 0x7f
    do {
        ASSERT_EQ(machine->run({.until_l2 = true}).kind, Stop::Kind::l2);
    } while ((machine->vcpu(VcpuIndex(0)).lapic.page[irr_word] & 1) == 0);
    // L2 loops until the interrupt that waits for L1 ends it.
    machine->input(BlockInterrupts{true});
    run_to(*machine, machine->count() + 100000);
    const state::Vcpu blocked = machine->vcpu(VcpuIndex(0));
    EXPECT_TRUE(blocked.nested.guest_mode);
    EXPECT_TRUE(blocked.nested.pending.apicv_update);
    machine->input(BlockInterrupts{false});
    run_to(*machine, machine->count() + 1);
    EXPECT_FALSE(machine->vcpu(VcpuIndex(0)).nested.guest_mode);
    const Stop end = machine->run({.until = forever});
    EXPECT_EQ(end.kind, Stop::Kind::debug_exit);
    EXPECT_EQ(end.exit_status, 1);
}

// --- inhibits -----------------------------------------------------------------------------------

TEST(Inhibits, StayOnceAnApicWasMovedOrRenamed) {
    const auto machine = booted("vmx_apic");
    ASSERT_EQ(machine->run({.until = forever}).kind, Stop::Kind::debug_exit);
    const state::ApicvInhibits& inhibits = machine->schedule().inhibits;
    EXPECT_TRUE(inhibits.apic_base_modified);
    EXPECT_TRUE(inhibits.apic_id_modified);
    EXPECT_FALSE(inhibits.physical_id_aliased);
    EXPECT_FALSE(inhibits.disabled);
}

TEST(Inhibits, TwoApicsOfOneIdInhibitForAsLongAsTheyHaveIt) {
    const auto machine = booted("vmx_apic", 6); // L2 gives L1's APIC 0 the ID 5 for a while
    const auto aliased = [](const Machine& m) { return m.schedule().inhibits.physical_id_aliased; };
    const auto run_while = [&](bool before) {
        Stop stop{.kind = Stop::Kind::count};
        while (stop.kind == Stop::Kind::count && aliased(*machine) == before) {
            stop = machine->run({.until = machine->count() + 50});
        }
        return stop.kind == Stop::Kind::count;
    };
    ASSERT_TRUE(run_while(false)) << "it never came";
    state::ApicvInhibits alone;
    alone.physical_id_aliased = true;
    EXPECT_TRUE(hv::apicv_inhibited(hv::vmx_apicv, alone, false));
    EXPECT_TRUE(aliased(*restored(*machine)));
    ASSERT_TRUE(run_while(true)) << "it never went";
    EXPECT_TRUE(machine->schedule().inhibits.apic_id_modified);
    const Stop end = machine->run({.until = forever});
    EXPECT_EQ(end.kind, Stop::Kind::debug_exit);
    EXPECT_EQ(end.exit_status, 1);
}

TEST(Inhibits, APolicyRespectsWhatItNamesAndOneDoorbellIsInhibitedByL2) {
    using Reasons = state::ApicvInhibits;
    Reasons blocked;
    blocked.block_irq = true;
    EXPECT_FALSE(hv::apicv_inhibited(hv::vmx_apicv, {}, false));
    EXPECT_FALSE(hv::apicv_inhibited(hv::vmx_apicv, {}, true));
    EXPECT_TRUE(hv::apicv_inhibited(hv::vmx_apicv, blocked, false));
    // As AMD's AVIC would be: any non-zero answer counts, not which bit it is.
    constexpr hv::ApicvInhibit reasons[] = {&Reasons::disabled};
    const hv::ApicvPolicy avic{.respected = reasons, .one_doorbell = true};
    EXPECT_FALSE(hv::apicv_inhibited(avic, blocked, false));
    EXPECT_TRUE(hv::apicv_inhibited(avic, {}, true));
}

// --- dirty logging ------------------------------------------------------------------------------

std::set<u64> written_pages(Machine& machine) {
    std::set<u64> pages;
    for (const cpu::PageRun& run : machine.memory().take_written()) {
        for (u64 i = 0; i < run.count; ++i) {
            pages.insert((run.first + i).value());
        }
    }
    return pages;
}

TEST(DirtyLogging, LogsEveryPageThatL1WritesAndThePageMechanismKnowsAllOfThem) {
    for (const std::string guest : {"smc", "paging_4level", "vmx_memory"}) {
        const auto machine = booted(guest);
        static_cast<void>(written_pages(*machine));
        machine->set_dirty_logging(true);
        Stop stop;
        std::set<u64> all;
        do {
            stop = machine->run({.until = machine->count() + 1000000});
            std::set<u64> logged;
            for (const Gfn page : machine->take_logged_pages()) {
                logged.insert(page.value());
            }
            const std::set<u64> written = written_pages(*machine);
            EXPECT_TRUE(std::includes(written.begin(), written.end(), logged.begin(), logged.end()))
                << guest;
            if (guest != "vmx_memory") { // where L2 and L0 write too
                EXPECT_EQ(written, logged) << guest;
            }
            all.insert(logged.begin(), logged.end());
        } while (stop.kind == Stop::Kind::count);
        EXPECT_EQ(stop.kind, Stop::Kind::debug_exit);
        EXPECT_EQ(stop.exit_status, 1) << guest;
        EXPECT_GT(all.size(), 8U) << guest;
    }
}

} // namespace
} // namespace nestor
