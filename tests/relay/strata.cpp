// Classifies moments by the state of the vCPU whose turn it is.
//
// "Inside REP" is told from two moments: an instruction retired, RIP stayed, RCX fell by one and an
// index register moved; only a repeated string instruction does that.
#include "tests/relay/strata.hpp"

#include <algorithm>

namespace nestor::relay {
namespace {

constexpr unsigned rcx = 1;
constexpr unsigned rsi = 6;
constexpr unsigned rdi = 7;
constexpr unsigned ss = 2;
constexpr std::size_t irr = 0x200 / 4;
constexpr u64 interrupt_flag = 1 << 9;

bool has_pending_event(const state::Vcpu& vcpu) {
    const state::PendingEvents& e = vcpu.events;
    bool requested = false;
    for (std::size_t i = 0; i < 8; ++i) {
        requested = requested || vcpu.lapic.page[irr + 4 * i] != 0;
    }
    return requested || vcpu.cpu.pending_debug != 0 || e.nmi_count != 0 || e.smi || e.init ||
           e.sipi;
}

bool inside_rep(const state::Cpu& before, const state::Cpu& now) {
    return now.rip == before.rip && now.gpr[rcx] == before.gpr[rcx] - 1 &&
           (now.gpr[rsi] != before.gpr[rsi] || now.gpr[rdi] != before.gpr[rdi]);
}

/// The count at which the owner's APIC timer expires, if nothing idles until then.
u64 count_at_deadline(const Moment& now) {
    const state::Lapic& lapic = now.owner.lapic;
    u64 deadline = lapic.timer_deadline;
    if (lapic.tsc_deadline != 0) {
        deadline = std::min(deadline, lapic.tsc_deadline - now.owner.msrs.tsc_offset);
    }
    const u64 rate = now.config.ticks_per_instruction;
    const u64 ticks = now.machine.count * rate + now.machine.idle_ticks;
    return deadline < ticks ? 0 : now.machine.count + (deadline - ticks + rate - 1) / rate;
}

machine::Stop run_to(machine::Machine& machine, u64 count) {
    machine::RunLimits limits;
    limits.until = Icount(count);
    return machine.run(limits);
}

} // namespace

std::optional<Stratum> stratum_of(const std::string& name) {
    for (unsigned i = 0; i < stratum_names.size(); ++i) {
        if (name == stratum_names[i]) {
            return static_cast<Stratum>(i);
        }
    }
    return std::nullopt;
}

Moment look(const machine::Machine& machine) {
    const state::Machine& schedule = machine.schedule();
    return {machine.config(), schedule, machine.vcpu(VcpuIndex(schedule.owner))};
}

Strata strata_at(const Moment& before, const Moment& now) {
    const state::Cpu& cpu = now.owner.cpu;
    Strata found = 0;
    const auto add = [&found](Stratum s, bool is) { found |= is ? bit_of(s) : 0; };
    add(Stratum::user, (cpu.segments[ss].attributes >> 5 & 3) == 3);
    add(Stratum::rep,
        before.machine.owner == now.machine.owner && inside_rep(before.owner.cpu, now.owner.cpu));
    add(Stratum::sti, cpu.blocking_by_sti);
    add(Stratum::mov_ss, cpu.blocking_by_mov_ss);
    add(Stratum::pending, has_pending_event(now.owner));
    add(Stratum::smm, cpu.in_smm);
    add(Stratum::l2, now.owner.nested.guest_mode);
    add(Stratum::turn, now.machine.turn_left != 0 && now.machine.turn_left != now.config.turn);
    return found;
}

std::optional<Strata> seek(machine::Machine& machine, u64 count, std::optional<Stratum> wanted,
                           u64 patience) {
    if (count > machine.count().value() + 1 &&
        run_to(machine, count - 1).kind != machine::Stop::Kind::count) {
        return std::nullopt;
    }
    Moment before = look(machine);
    for (u64 tried = 0;; ++tried) {
        if (run_to(machine, machine.count().value() + 1).kind != machine::Stop::Kind::count) {
            return std::nullopt;
        }
        Moment now = look(machine);
        const Strata found = strata_at(before, now);
        if (!wanted || (found & bit_of(*wanted)) != 0 || tried >= patience) {
            return found;
        }
        before = std::move(now);
    }
}

Sightings scout(machine::Machine& machine) {
    Sightings seen;
    const auto note = [&seen](Stratum stratum, u64 count) {
        seen[static_cast<unsigned>(stratum)].push_back(count);
    };
    note(Stratum::mov_ss, 0); // entry code loads SS
    struct Last {
        u64 table = 0;
        bool interrupts = false;
    };
    std::vector<Last> vcpus(machine.config().cpus);
    u64 before = 0;
    for (;;) {
        const Moment now = look(machine);
        const u64 count = now.machine.count;
        if (has_pending_event(now.owner)) {
            note(Stratum::pending, count);
        }
        const bool interrupts = (now.owner.cpu.rflags & interrupt_flag) != 0;
        Last& last = vcpus[now.machine.owner];
        if (now.owner.cpu.gdtr.base != last.table) {
            note(Stratum::mov_ss, before);
        }
        if (last.interrupts && !interrupts) {
            note(Stratum::sti, count + 1);
        }
        last = {now.owner.cpu.gdtr.base, interrupts};
        before = count;
        // A turn just begun shows what waited for it, and the instruction behind a deadline whether
        // the interrupt does.
        const u64 turn_end = count + std::max<u64>(now.machine.turn_left, 1);
        const u64 deadline = count_at_deadline(now);
        const u64 next = deadline >= count && deadline < turn_end ? deadline + 1 : turn_end;
        if (run_to(machine, next).kind != machine::Stop::Kind::count) {
            return seen;
        }
    }
}

} // namespace nestor::relay
