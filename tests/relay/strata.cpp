// Classifies moments by the state of the vCPU whose turn it is.
//
// "Inside REP" is told from two moments: an instruction retired, RIP stayed, RCX fell by one and an
// index register moved; only a repeated string instruction does that.
#include "tests/relay/strata.hpp"

#include <algorithm>

#include "engine/state/codec.hpp"
#include "src/base/check.hpp"

namespace nestor::relay {
namespace {

constexpr unsigned rcx = 1;
constexpr unsigned rsi = 6;
constexpr unsigned rdi = 7;
constexpr unsigned ss = 2;
constexpr std::size_t irr = 0x200 / 4;

template <class T>
T decode_unit(const std::vector<machine::Unit>& units, const std::string& name) {
    const auto found = std::find_if(units.begin(), units.end(),
                                    [&](const machine::Unit& unit) { return unit.name == name; });
    CHECK(found != units.end());
    auto value = state::decode<T>(found->bytes);
    CHECK(value.has_value());
    return *std::move(value);
}

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
    const auto units = machine.units();
    Moment moment;
    moment.machine = decode_unit<state::Machine>(units, "machine");
    const std::string prefix = "vcpu[" + std::to_string(moment.machine.owner) + "].";
    moment.owner.cpu = decode_unit<state::Cpu>(units, prefix + "cpu");
    moment.owner.lapic = decode_unit<state::Lapic>(units, prefix + "lapic");
    moment.owner.events = decode_unit<state::PendingEvents>(units, prefix + "events");
    moment.owner.nested = decode_unit<state::Nested>(units, prefix + "nested");
    moment.turn = machine.config().turn;
    return moment;
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
    add(Stratum::turn, now.machine.turn_left != 0 && now.machine.turn_left != now.turn);
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

} // namespace nestor::relay
