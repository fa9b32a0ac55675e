// Runs a machine: the deterministic scheduler (DESIGN.md, rule 2), and what vCPUs ask of the board.
//
// Owns nothing beyond Machine::Impl. Everything that decides who runs next and for how long is
// state, so a run may be cut anywhere without changing what follows. Two rules make that so: limits
// are looked at before anything else happens at a count, and an access that was answered is
// completed before anything else happens at all. Ticks jump only when every vCPU idles, and only to
// the next deadline.
#include <algorithm>
#include <limits>
#include <utility>

#include "src/base/check.hpp"
#include "src/machine/machine_impl.hpp"

namespace nestor::machine {
namespace {

constexpr u64 forever = std::numeric_limits<u64>::max();

/// Idle jumps that woke nobody, after which run() comes back.
constexpr u32 fruitless_limit = 1000;

/// As the sender of what does not come from a vCPU.
constexpr VcpuIndex from_io_apic{0xffff};

u64 saturating_add(u64 a, u64 b) { return a > forever - b ? forever : a + b; }

template <class... F>
struct Overloaded : F... {
    using F::operator()...;
};

} // namespace

Ticks Machine::Impl::ticks_at(Icount count) const {
    return Ticks(count.value() * config.ticks_per_instruction + s.idle_ticks);
}

Ticks Machine::Impl::ticks() const { return ticks_at(Icount(s.count)); }

Stop Machine::Impl::run(const RunLimits& limits) {
    if (serial_found || serial_wanted != limits.until_serial) {
        serial_wanted = limits.until_serial;
        serial_tail.clear();
    }
    serial_found = false;
    l2_found = false;
    for (const auto& vcpu : vcpus) {
        vcpu->stop_at_l2(limits.until_l2);
    }
    for (;;) {
        if (!completing) {
            if (const auto stop = check_limits(limits)) {
                return *stop;
            }
            service_deadlines();
            if (!choose_owner()) {
                if (const auto stop = idle(limits)) {
                    return *stop;
                }
                continue;
            }
        }
        if (const auto stop = step(limits)) {
            return *stop;
        }
    }
}

std::optional<Stop> Machine::Impl::check_limits(const RunLimits& limits) const {
    if (s.ending != state::Ending::running) {
        return stop_of_ending();
    }
    if (serial_found) {
        return Stop{.kind = Stop::Kind::serial_text};
    }
    if (l2_found) {
        return Stop{.kind = Stop::Kind::l2};
    }
    if (s.count >= limits.until.value()) {
        return Stop{.kind = Stop::Kind::count};
    }
    if (ticks() >= limits.until_ticks) {
        return Stop{.kind = Stop::Kind::ticks};
    }
    return std::nullopt;
}

Stop Machine::Impl::stop_of_ending() const {
    switch (s.ending) {
    case state::Ending::powered_off:
        return {.kind = Stop::Kind::powered_off};
    case state::Ending::debug_exit:
        return {.kind = Stop::Kind::debug_exit, .exit_status = s.exit_status};
    case state::Ending::triple_fault:
        return {.kind = Stop::Kind::triple_fault};
    default:
        return {.kind = Stop::Kind::reset};
    }
}

/// Brings devices up to now, one deadline after the other.
void Machine::Impl::service_deadlines() {
    const Ticks now = ticks();
    for (Ticks next = board->next_deadline(); next <= now; next = board->next_deadline()) {
        board->advance(next);
    }
}

bool Machine::Impl::ready(u16 index) const {
    const hv::Vcpu& vcpu = *vcpus[index];
    if (vcpu.runnable()) {
        return true;
    }
    const Ticks deadline = vcpu.next_deadline(ticks());
    return deadline <= ticks() && deadline > served[index];
}

/// Finds whose turn it is. False when every vCPU idles.
bool Machine::Impl::choose_owner() {
    if (s.turn_left != 0 && ready(s.owner)) {
        return true;
    }
    s.turn_left = 0;
    for (u16 i = 1; i <= config.cpus; ++i) {
        const u16 candidate = static_cast<u16>((s.owner + i) % config.cpus);
        if (ready(candidate)) {
            s.owner = candidate;
            s.turn_left = config.turn;
            return true;
        }
    }
    return false;
}

/// Every vCPU idles: lets ticks jump to the next deadline, or tells why not.
std::optional<Stop> Machine::Impl::idle(const RunLimits& limits) {
    Ticks next = board->next_deadline();
    for (u16 i = 0; i < config.cpus; ++i) {
        const Ticks deadline = vcpus[i]->next_deadline(ticks());
        if (deadline > served[i]) {
            next = std::min(next, deadline);
        }
    }
    const bool never = next.value() >= time_limit;
    const bool in_vain = s.fruitless_jumps >= fruitless_limit;
    if (limits.stop_when_idle || never || in_vain) {
        if (in_vain) {
            s.fruitless_jumps = 0;
        }
        const bool dead = (never || in_vain) && interrupts_off();
        return Stop{.kind = dead ? Stop::Kind::halted : Stop::Kind::idle, .next_deadline = next};
    }
    const Ticks now = ticks();
    CHECK(next > now, {next.value(), now.value()});
    s.idle_ticks += next - now;
    ++s.fruitless_jumps;
    return std::nullopt;
}

bool Machine::Impl::interrupts_off() const {
    constexpr u64 rflags_if = 1 << 9;
    return std::all_of(vcpus.begin(), vcpus.end(), [](const auto& vcpu) {
        const state::Cpu cpu = vcpu->save().cpu;
        return cpu.activity == state::ActivityState::wait_for_sipi || (cpu.rflags & rflags_if) == 0;
    });
}

/// The count at which the owner has to come back.
Icount Machine::Impl::turn_end(const RunLimits& limits) const {
    if (s.ending != state::Ending::running || serial_found) {
        return Icount(s.count + 1); // only completes its instruction
    }
    const u64 rate = config.ticks_per_instruction;
    const auto count_at = [&](Ticks tick) {
        const Ticks now = ticks();
        if (tick <= now) {
            return s.count;
        }
        const u64 wait = tick - now;
        return saturating_add(s.count, wait / rate + (wait % rate != 0 ? 1 : 0));
    };
    const u64 end = std::min({saturating_add(s.count, s.turn_left), limits.until.value(),
                              count_at(board->next_deadline()), count_at(limits.until_ticks)});
    return Icount(std::max(end, s.count + 1));
}

std::optional<Stop> Machine::Impl::step(const RunLimits& limits) {
    hv::Vcpu& vcpu = *vcpus[s.owner];
    const hv::TimeBase base{.count = Icount(s.count),
                            .ticks = ticks(),
                            .ticks_per_insn_num = config.ticks_per_instruction,
                            .ticks_per_insn_den = 1};
    const Icount until = turn_end(limits);
    const bool l2_before = vcpu.l2_active();
    const hv::Exit exit = vcpu.run(base, until);
    l2_found = limits.until_l2 && !l2_before && vcpu.l2_active();
    const u64 done = vcpu.count() - base.count;
    s.count += done;
    s.turn_left -= static_cast<u32>(std::min<u64>(done, s.turn_left));
    if (done != 0) {
        s.fruitless_jumps = 0;
    }
    const auto stop = handle(exit, done != 0);
    completing =
        vcpu.in_instruction(); // one instruction more passes no limit: it is before `until`
    return stop;
}

std::optional<Stop> Machine::Impl::handle(const hv::Exit& exit, bool progressed) {
    using Answer = std::optional<Stop>;
    // The turn of one that halts ends in choose_owner(), after deadlines were served, as it does
    // when a run is cut right behind the HLT.
    const auto stays_halted = [&]() -> Answer {
        if (!progressed) {
            served[s.owner] = ticks();
        }
        return std::nullopt;
    };
    return std::visit(Overloaded{
                          [](const hv::CountReached&) -> Answer { return std::nullopt; },
                          [&](const hv::Yielded&) -> Answer {
                              s.turn_left = 0;
                              return std::nullopt;
                          },
                          [&](const hv::Halted&) -> Answer { return stays_halted(); },
                          [&](const hv::WaitingForSipi&) -> Answer { return stays_halted(); },
                          [&](const hv::PortAccess& access) -> Answer {
                              handle_port(access);
                              return std::nullopt;
                          },
                          [&](const hv::MmioAccess& access) -> Answer {
                              handle_mmio(access);
                              return std::nullopt;
                          },
                          [](const hv::PageNeeded& page) -> Answer {
                              return Stop{.kind = Stop::Kind::page_needed, .page = page.page};
                          },
                          [](const hv::CopyNeeded& page) -> Answer {
                              return Stop{.kind = Stop::Kind::copy_needed, .page = page.page};
                          },
                          [&](const hv::EoiBroadcast& eoi) -> Answer {
                              board->end_of_interrupt(eoi.vector);
                              return std::nullopt;
                          },
                          [&](const hv::Shutdown&) -> Answer {
                              s.ending = state::Ending::triple_fault;
                              return std::nullopt;
                          },
                          [](const hv::Refused& refused) -> Answer {
                              // load_units() settles every vCPU and hands its failure on, and L1's
                              // mistakes never get this far.
                              detail::check_failed(__FILE__, __LINE__, refused.reason.c_str());
                          },
                      },
                      exit);
}

void Machine::Impl::handle_port(const hv::PortAccess& access) {
    u32 answer = 0;
    if (access.write) {
        handle_event(board->write_port(access.port, access.size, access.data, ticks()));
        flush_serial();
    } else {
        answer = board->read_port(access.port, access.size, ticks());
    }
    vcpus[s.owner]->complete(answer);
}

void Machine::Impl::handle_mmio(const hv::MmioAccess& access) {
    u64 answer = 0;
    if (access.write) {
        board->write_mmio(access.address, access.size, access.data);
    } else {
        answer = board->read_mmio(access.address, access.size);
    }
    vcpus[s.owner]->complete(answer);
}

void Machine::Impl::handle_event(const BoardEvent& event) {
    switch (event.kind) {
    case BoardEvent::Kind::none:
        return;
    case BoardEvent::Kind::power_off:
        s.ending = state::Ending::powered_off;
        return;
    case BoardEvent::Kind::debug_exit:
        s.ending = state::Ending::debug_exit;
        s.exit_status = static_cast<u8>(event.value << 1 | 1);
        return;
    case BoardEvent::Kind::reset:
        s.ending = state::Ending::reset_requested;
        return;
    }
}

/// Hands on what the guest has just sent, and looks for the text that a run waits for.
void Machine::Impl::flush_serial() {
    std::vector<u8>& output = board->serial_output();
    if (output.empty()) {
        return;
    }
    if (!serial_wanted.empty() && !serial_found) {
        serial_tail.append(output.begin(), output.end());
        serial_found = serial_tail.find(serial_wanted) != std::string::npos;
        if (serial_tail.size() >= serial_wanted.size()) {
            serial_tail.erase(0, serial_tail.size() - serial_wanted.size() + 1);
        }
    }
    if (serial_sink) {
        serial_sink(output);
    } else {
        serial_kept.insert(serial_kept.end(), output.begin(), output.end());
    }
    output.clear();
}

void Machine::Impl::send(VcpuIndex from, const hv::InterruptMessage& message) {
    route(message, from, ticks_at(std::max(Icount(s.count), vcpus[from.value()]->count())));
}

void Machine::Impl::send(const hv::InterruptMessage& message) {
    route(message, from_io_apic, ticks());
}

/// Reasons that stay, once they were there, are those of an APIC that was changed
/// (hv::ApicvPolicy).
void Machine::Impl::apic_changed() {
    state::ApicvInhibits& inhibits = s.inhibits;
    inhibits.physical_id_aliased = false;
    std::vector<u32> ids;
    for (const auto& vcpu : vcpus) {
        const hv::ApicIdentity apic = vcpu->apic_identity();
        inhibits.apic_id_modified |= apic.id_modified;
        inhibits.apic_base_modified |= apic.moved;
        if (apic.enabled) {
            inhibits.physical_id_aliased |= std::find(ids.begin(), ids.end(), apic.id) != ids.end();
            ids.push_back(apic.id);
        }
    }
    tell_inhibits();
}

void Machine::Impl::tell_inhibits() {
    for (const auto& vcpu : vcpus) {
        vcpu->set_inhibits(s.inhibits);
    }
}

/// Delivers a message to every local APIC that it addresses, or to the preferred one.
void Machine::Impl::route(const hv::InterruptMessage& message, VcpuIndex from, Ticks now) {
    hv::Vcpu* preferred = nullptr;
    for (const auto& vcpu : vcpus) {
        if (!vcpu->accepts(message, from)) {
            continue;
        }
        if (message.delivery != hv::InterruptMessage::Delivery::lowest_priority) {
            vcpu->deliver(message, now);
        } else if (preferred == nullptr ||
                   vcpu->arbitration_priority() < preferred->arbitration_priority()) {
            preferred = vcpu.get();
        }
    }
    if (preferred != nullptr) {
        preferred->deliver(message, now);
    }
}

} // namespace nestor::machine
