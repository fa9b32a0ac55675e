// An instruction that a device has answered retires before anything else is taken: L1, its APIC,
// pages and breakpoints.
//
// Every way of asking a device × every event that the device may raise by it × the conditions under
// which the vCPU may be looking at something else at that boundary × who delivers its interrupts.
// What must hold everywhere (SDM 3A 6.6, table 6-2; SDM 3C 30.2): the device was asked once for
// each access, and RIP, wherever it was saved, is behind the instruction; or the instruction has
// not happened, and nobody was asked. L2: answered_l2_test.cpp.
#include "answered_kinds.hpp"

namespace nestor::hv {
namespace {

/// What else the boundary may be looked at for.
enum class Condition : u8 { plain, blocked, sti, single_step, page_absent, logging };
constexpr std::pair<Condition, const char*> conditions[] = {
    {Condition::plain, ""},
    {Condition::blocked, "IF is clear"},
    {Condition::sti, "behind STI"},
    {Condition::single_step, "TF is set"},
    {Condition::page_absent, "RAM is not loaded"},
    {Condition::logging, "the log is nearly full"}};

void set_condition(Host& host, state::Vcpu& v, Condition condition) {
    using arch::rflags::if_;
    switch (condition) {
    case Condition::plain:
        return;
    case Condition::blocked:
        v.cpu.rflags &= ~if_;
        return;
    case Condition::sti:
        v.cpu.blocking_by_sti = true;
        return;
    case Condition::single_step:
        v.cpu.rflags |= arch::rflags::tf;
        return;
    case Condition::page_absent:
        host.states[Host::data >> page_shift] |= cpu::page_state::absent;
        return;
    case Condition::logging:
        std::fill(host.states.begin(), host.states.end(), cpu::page_state::clean);
        return;
    }
}

void try_l1(const Kind& kind, Raised raised, Apicv apicv, Condition condition) {
    Host host;
    host.fill(kind.code);
    state::Vcpu v = host.at_instruction();
    set_registers(v.cpu, kind);
    set_condition(host, v, condition);
    ASSERT_TRUE(host.vcpu.load(v));
    state::ApicvInhibits inhibits;
    inhibits.disabled = begins_without(apicv);
    inhibits.block_irq = raised == Raised::unblocked;
    host.vcpu.set_inhibits(inhibits);
    host.vcpu.set_dirty_logging(condition == Condition::logging);
    if (raised == Raised::unblocked) {
        raise(host, Raised::edge);
    }
    raise_at_first_access(host, raised, apicv, inhibits);
    const Exit exit = host.run();
    const state::Vcpu after = host.vcpu.save();
    if (raised == Raised::init) {
        // All of it is gone but what the device knows.
        EXPECT_TRUE(std::holds_alternative<WaitingForSipi>(exit));
        EXPECT_EQ(host.asked.size(), kind.repeats ? 1 : kind.asks.size());
        return;
    }
    ASSERT_TRUE(std::holds_alternative<Halted>(exit)) << exit.index();
    const bool in_smm = after.cpu.in_smm;
    const int reached = halted_in(after);
    u64 rip = after.cpu.rip;
    if (in_smm) {
        rip = host.read(Host::smbase + 0x8000 + 0x7fd8); // SDM 3C table 32-3
    } else if (reached >= 0) {
        rip = interrupted(host, after.cpu.gpr[4]);
    }
    expect_asked(host, kind, retired(kind, rip, after.cpu.gpr[1]));
    EXPECT_GT(host.asked.size(), 0U);
    // What was raised is taken at the next boundary: no further access, no further instruction.
    const bool interrupt = raised == Raised::edge || raised == Raised::level ||
                           raised == Raised::pic || raised == Raised::unblocked;
    if (raised == Raised::nothing || (interrupt && condition == Condition::blocked)) {
        EXPECT_EQ(host.asked.size(),
                  condition == Condition::single_step && kind.repeats ? 1 : kind.asks.size());
        return;
    }
    EXPECT_EQ(host.asked.size(), kind.repeats ? 1 : kind.asks.size());
    if (condition == Condition::single_step && interrupt) {
        EXPECT_EQ(reached, 1); // #DB comes first, and its handler has IF clear
    } else if (raised == Raised::smi) {
        EXPECT_TRUE(in_smm);
    } else {
        EXPECT_EQ(reached, raised == Raised::nmi   ? 2
                           : raised == Raised::pic ? int{Host::pic_vector}
                                                   : int{answered_vector});
    }
}

TEST(Answered, L1RetiresWhatADeviceAnsweredBeforeAnythingElse) {
    unsigned tried = 0;
    for (const Kind& kind : kinds()) {
        for (const auto& [raised, what] : events) {
            for (const auto& [apicv, who] : apicvs) {
                for (const auto& [condition, when] : conditions) {
                    SCOPED_TRACE(std::string(kind.name) + " raises " + what + ", " + who + ", " +
                                 when);
                    try_l1(kind, raised, apicv, condition);
                    ++tried;
                }
            }
        }
        if (HasFailure()) {
            return; // the rest would only repeat it
        }
    }
    EXPECT_EQ(tried,
              kinds().size() * std::size(events) * std::size(apicvs) * std::size(conditions));
}

// --- the local APIC -----------------------------------------------------------------------------

struct ApicKind {
    const char* name;
    std::vector<u8> code;
    u64 rax, rcx, rbx;
    bool x2apic;
    unsigned sends, ends;
};

TEST(Answered, AnInterruptCommandOrAnEoiHappensOnce) {
    constexpr u64 icr = Host::apic + 0x300, eoi = Host::apic + 0xb0;
    constexpr u64 self = 0x40000, in_service = 0x54;
    const std::vector<u8> store = {0x89, 0x03}, wrmsr = {0x0f, 0x30};
    const ApicKind all[] = {
        {"ICR: fixed to self", store, self | 0x61, 0, icr, false, 1, 0},
        {"ICR: NMI to self", store, self | 0x400, 0, icr, false, 1, 0},
        {"ICR: SMI to self", store, self | 0x200, 0, icr, false, 1, 0},
        {"ICR: INIT to self", store, 0x4500, 0, icr, false, 1, 0},
        {"EOI", store, 0, 0, eoi, false, 0, 1},
        {"ICR of x2APIC mode: fixed to self", wrmsr, self | 0x61, 0x830, 0, true, 1, 0},
        {"ICR of x2APIC mode: NMI", wrmsr, self | 0x400, 0x830, 0, true, 1, 0},
        {"SELF IPI", wrmsr, 0x61, 0x83f, 0, true, 0, 0},
        {"EOI of x2APIC mode", wrmsr, 0, 0x80b, 0, true, 0, 1},
    };
    for (const ApicKind& kind : all) {
        for (const bool apicv : {true, false}) {
            for (const bool tf : {false, true}) {
                SCOPED_TRACE(std::string(kind.name) + (apicv ? ", APICv" : "") +
                             (tf ? ", TF is set" : ""));
                Host host;
                host.fill(kind.code);
                state::Vcpu v = host.at_instruction();
                v.cpu.gpr[0] = kind.rax;
                v.cpu.gpr[1] = kind.rcx;
                v.cpu.gpr[2] = 0;
                v.cpu.gpr[3] = kind.rbx;
                v.cpu.rflags |= tf ? arch::rflags::tf : 0;
                if (kind.x2apic) {
                    v.lapic.base |= 0x400;
                }
                if (kind.ends != 0) { // a level-triggered interrupt is in service
                    v.lapic.page[(0x100 + in_service / 32 * 16) / 4] = 1u << in_service % 32;
                    v.lapic.page[(0x180 + in_service / 32 * 16) / 4] = 1u << in_service % 32;
                    v.cpu.rflags &= ~arch::rflags::if_;
                }
                ASSERT_TRUE(host.vcpu.load(v));
                state::ApicvInhibits inhibits;
                inhibits.disabled = !apicv;
                host.vcpu.set_inhibits(inhibits);
                static_cast<void>(host.run());
                const state::Vcpu after = host.vcpu.save();
                // A fixed self-IPI that the silicon virtualizes is sent to nobody else.
                const bool virtualized = apicv && (kind.rax & 0x700) == 0 && !kind.x2apic;
                EXPECT_EQ(host.sent, virtualized ? 0 : kind.sends);
                EXPECT_EQ(host.ended, kind.ends);
                if (!after.cpu.in_smm &&
                    after.cpu.activity != state::ActivityState::wait_for_sipi) {
                    const u64 rip = halted_in(after) >= 0 ? interrupted(host, after.cpu.gpr[4])
                                                          : after.cpu.rip - 1;
                    EXPECT_EQ(rip, Host::code + kind.code.size());
                }
            }
        }
    }
}

// --- pages --------------------------------------------------------------------------------------

/// What comes of the value that a device answered may be on a page that is not there yet.
TEST(Answered, APageThatIsNeededBehindTheAnswerDoesNotAskAgain) {
    Host host;
    host.fill({0x8e, 0x1b}); // MOV DS, [RBX]
    state::Vcpu v = host.at_instruction();
    v.cpu.gpr[3] = Host::device;
    host.answer = 0x18;
    host.states[Host::gdt >> page_shift] |= cpu::page_state::absent;
    ASSERT_TRUE(host.vcpu.load(v));
    unsigned in_instruction = 0;
    host.at_page = [&] { in_instruction += host.vcpu.in_instruction() ? 1 : 0; };
    static_cast<void>(host.run());
    EXPECT_EQ(host.pages, 1U);
    EXPECT_EQ(in_instruction, 1U);
    EXPECT_EQ(host.asked.size(), 1U);
    EXPECT_EQ(host.vcpu.save().cpu.rip, Host::code + 3);
}

// --- data breakpoints ---------------------------------------------------------------------------

/// The trap of a data breakpoint belongs to an instruction that is complete (SDM 3B 18.2.4).
TEST(Answered, ADataBreakpointOnWhatADeviceAnswersTrapsBehindTheInstruction) {
    for (const Kind& kind : kinds()) {
        if (kind.asks.front().port) {
            continue;
        }
        SCOPED_TRACE(kind.name);
        Host host;
        host.fill(kind.code);
        state::Vcpu v = host.at_instruction();
        set_registers(v.cpu, kind);
        v.cpu.dr[0] = Host::device;
        v.cpu.dr7 = arch::dr7::fixed1 | 2 | 0xb0000; // L0; reads and writes; 8 bytes
        ASSERT_TRUE(host.vcpu.load(v));
        static_cast<void>(host.run());
        const state::Vcpu after = host.vcpu.save();
        EXPECT_EQ(halted_in(after), 1);
        expect_asked(host, kind, kind.repeats ? 1 : kind.asks.size());
        EXPECT_EQ(interrupted(host, after.cpu.gpr[4]), kind.repeats ? Host::code : end_of(kind));
    }
}

/// MOVSB from a watched byte of RAM to where it stops.
state::Vcpu moves_watched_byte(Host& host, u64 to) {
    host.fill({0xa4});
    state::Vcpu v = host.at_instruction();
    v.cpu.gpr[6] = Host::data;
    v.cpu.gpr[7] = to;
    v.cpu.dr[0] = Host::data;
    v.cpu.dr7 = arch::dr7::fixed1 | 2 | 0x30000; // L0; reads and writes; 1 byte
    return v;
}

TEST(Answered, ADataBreakpointTrapsBehindAnInstructionThatHadToWaitForAPage) {
    Host host;
    const state::Vcpu v = moves_watched_byte(host, Host::data + page_size);
    host.states[(Host::data >> page_shift) + 1] |= cpu::page_state::absent;
    ASSERT_TRUE(host.vcpu.load(v));
    static_cast<void>(host.run());
    const state::Vcpu after = host.vcpu.save();
    EXPECT_EQ(host.pages, 1U);
    EXPECT_EQ(halted_in(after), 1);
    EXPECT_EQ(interrupted(host, after.cpu.gpr[4]), Host::code + 1);
}

TEST(Answered, AnInstructionThatFaultsLeavesNoDataBreakpointBehind) {
    Host host;
    const state::Vcpu v = moves_watched_byte(host, 0x400000); // not mapped
    ASSERT_TRUE(host.vcpu.load(v));
    static_cast<void>(host.run());
    const state::Vcpu after = host.vcpu.save();
    EXPECT_EQ(halted_in(after), 14);
    EXPECT_EQ(after.cpu.pending_debug, 0U);
    EXPECT_EQ(after.cpu.dr6 & 15, 0U);
}

} // namespace
} // namespace nestor::hv
