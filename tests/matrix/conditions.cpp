// The meaning of levels: one switch for each factor that is more than a bit of the parameters.
#include "tests/matrix/conditions.hpp"

#include <fmt/format.h>

#include "engine/cpu/guest_memory.hpp"
#include "engine/state/vcpu.hpp"
#include "src/base/check.hpp"

namespace nestor::matrix {

using machine::Machine;

namespace {

/// As in l2_matrix.asm.
constexpr u8 interrupt_vector = 0x61, notification_vector = 0xf2;
constexpr u64 descriptor_on = 0x50c000 + 32;
constexpr u64 calm_counts = 20;
constexpr unsigned guest_events = 16; ///< what comes behind needs nothing of the guest

/// What L2 does to L1's APIC, as in l2_matrix.asm; 0 where a command raises the update.
unsigned action(const Levels& levels) {
    switch (static_cast<update>(level(levels, Factor::update))) {
    case update::apic_access_reload:
        return 1;
    case update::virtual_apic_mode:
        return 2;
    case update::isr_refresh:
        return 3;
    case update::tpr_threshold:
        return 4;
    default:
        return 0;
    }
}

bool requested(const state::Vcpu& v, u8 vector) {
    return (v.lapic.page[(0x200 >> 2) + vector / 32 * 4] >> (vector & 31) & 1) != 0;
}

} // namespace

bool update_is_l2s(const Levels& levels) { return action(levels) != 0; }

bool is_pending(const Levels& levels, const state::NestedPending& pending) {
    switch (static_cast<update>(level(levels, Factor::update))) {
    case update::none:
        return true;
    case update::virtual_apic_mode:
        return pending.virtual_apic_mode;
    case update::apic_access_reload:
        return pending.apic_access_reload;
    case update::isr_refresh:
        return pending.isr_refresh;
    case update::tpr_threshold:
        return pending.tpr_threshold != state::NestedPending{}.tpr_threshold;
    case update::apicv_update:
        return pending.apicv_update;
    case update::dirty_logging:
        return pending.dirty_logging;
    }
    return false;
}

Conditions at_start(const Levels& levels) {
    return {.apicv = is(levels, apicv::active), .logging = is(levels, logging::on)};
}
Conditions when_saved(const Levels& levels) {
    Conditions c = at_start(levels);
    c.apicv ^= is(levels, update::apicv_update);
    c.logging ^= is(levels, update::dirty_logging);
    return c;
}
Conditions when_restored(const Levels& levels) {
    Conditions c = when_saved(levels);
    c.apicv ^= is(levels, apicv_since::changed);
    c.logging ^= is(levels, logging_since::changed);
    return c;
}

void set_conditions(Machine& machine, const Conditions& from, const Conditions& to) {
    if (from.apicv != to.apicv) {
        machine.input(machine::UseApicv{to.apicv});
    }
    if (from.logging != to.logging) {
        machine.set_dirty_logging(to.logging);
    }
}

std::string parameters(const Levels& levels) {
    const auto bit_of = [&](Factor f, unsigned n) { return unsigned{level(levels, f)} << n; };
    return fmt::format("{:x}", bit_of(Factor::ept, 0) | bit_of(Factor::unrestricted, 1) |
                                   bit_of(Factor::shadowing, 2) | bit_of(Factor::mode, 4) |
                                   bit_of(Factor::apic, 8) |
                                   (level(levels, Factor::event) % guest_events) << 12 |
                                   action(levels) << 16);
}

bool event_holds(const Levels& levels, Machine& machine, u64 calm) {
    const state::Vcpu v = machine.vcpu(VcpuIndex(0));
    const state::Nested& n = v.nested;
    const u64 now = machine.ticks().value();
    constexpr u64 never = ~u64{0};
    if (n.guest_mode == (is(levels, event::smm) || is(levels, event::exited))) {
        return false;
    }
    switch (static_cast<event>(level(levels, Factor::event))) {
    case event::none:
        return calm >= calm_counts && !n.run_pending;
    case event::exception: // a fault, or software's
        return (v.events.injected_info >> 8 & 0x800003) >= 0x800002;
    case event::nmi:
        return v.events.nmi_count > 0;
    case event::interrupt:
        return requested(v, interrupt_vector);
    case event::mtf:
        return n.mtf_pending;
    case event::timer_past:
        return n.timer_deadline <= now;
    case event::timer_future:
        return calm >= calm_counts && n.timer_deadline != never && n.timer_deadline > now;
    case event::posted: {
        u8 on = 0;
        const auto read = machine.memory().read(Gpa(descriptor_on), {&on, 1});
        CHECK(read == cpu::MemoryStatus::ok);
        return requested(v, notification_vector) && on == 1;
    }
    case event::smm:
        return v.cpu.in_smm && n.smm.guest_mode;
    case event::halt:
        return v.cpu.activity == state::ActivityState::hlt;
    case event::run_pending:
        return n.run_pending && v.events.injected_info == 0;
    case event::exited:
        return n.vmxon && v.cpu.rip == n.vmcs12.host_rip; // L1 has not looked at the exit yet
    case event::pending_debug:
        return v.cpu.pending_debug != 0 && v.cpu.blocking_by_mov_ss;
    case event::mwait:
        return v.cpu.activity == state::ActivityState::hlt && v.cpu.monitor_armed;
    case event::init:
        return v.events.init;
    case event::smi:
        return v.events.smi;
    case event::sti_shadow:
        return v.cpu.blocking_by_sti;
    }
    return false;
}

} // namespace nestor::matrix
