// The vCPU contract and L0's run loop: time, entry, exit.
//
// L1 runs under vmcs01. A run goes from one count at which L0 has to look to the next: a deadline,
// a counter's overflow, or right behind an event or an access, because something may wait there.
#include "engine/hypervisor/vcpu.hpp"

#include <algorithm>

#include "engine/arch/bits.hpp"
#include "engine/cpu/package.hpp"
#include "engine/cpu/system.hpp"
#include "engine/hypervisor/vcpu_impl.hpp"
#include "src/base/check.hpp"

namespace nestor::hv {

using cpu::Cpu;
using state::ActivityState;

namespace {

constexpr u64 never = ~u64{0};

} // namespace

Vcpu::Impl::Impl(const Config& c)
    : config(c), cpu(*c.package, c.index.value(), c.package->tlb_entries()), lapic(c.index.value()),
      msr_set(c.model != nullptr ? *c.model : default_model()), nested(*this) {
    config.model = c.model != nullptr ? c.model : &default_model();
    config.cpuid.clear();
    take_cpuid(c.cpuid);
    power_on();
}

void Vcpu::Impl::take_cpuid(std::span<const state::CpuidEntry> entries) {
    cpuid.assign(entries.begin(), entries.end());
    caps = CpuCaps(cpuid);
    physical_bits = config.package->features().physical_bits;
    nested.follow_caps();
}

void Vcpu::Impl::power_on() {
    const auto random = cpu.s.random;
    cpu.s = state::Cpu{};
    cpu.s.random = random;
    msrs = state::Msrs{};
    events = state::PendingEvents{};
    pmu.reset();
    lapic.reset();
    nested.reset();
    accept_init();
    if (config.index.value() == 0) {
        cpu.s.activity = ActivityState::active;
    }
    cpu.rehydrate();
    make_vmcs01();
    requested = true;
}

// SDM 3A table 10-1: state after INIT. The board's loader replaces the boot vCPU's afterwards.
void Vcpu::Impl::accept_init() {
    state::Cpu& s = cpu.s;
    state::Cpu fresh;
    // INIT keeps what a reset would clear: caches, FPU, vector registers, time, MSRs.
    fresh.x87 = s.x87;
    fresh.vector = s.vector;
    fresh.mxcsr = s.mxcsr;
    fresh.xcr0 = s.xcr0;
    fresh.xss = s.xss;
    fresh.pat = s.pat;
    fresh.star = s.star;
    fresh.lstar = s.lstar;
    fresh.cstar = s.cstar;
    fresh.fmask = s.fmask;
    fresh.kernel_gs_base = s.kernel_gs_base;
    fresh.sysenter_cs = s.sysenter_cs;
    fresh.sysenter_esp = s.sysenter_esp;
    fresh.sysenter_eip = s.sysenter_eip;
    fresh.random = s.random;
    fresh.retired = s.retired;
    fresh.smbase = s.smbase;
    fresh.tsc_aux = s.tsc_aux;
    fresh.cr0 = 0x60000010 & (s.cr0 | ~u64{0x60000000}); // CD and NW are kept
    const state::CpuidEntry* const signature = find_cpuid(cpuid, 1, 0);
    fresh.gpr[2] = signature != nullptr ? signature->eax : 0; // RDX
    fresh.rip = 0xfff0;
    const auto segment = [](u16 selector, u64 base, u32 attributes) {
        state::Segment sg;
        sg.selector = selector;
        sg.base = base;
        sg.limit = 0xffff;
        sg.attributes = attributes;
        return sg;
    };
    fresh.segments.fill(segment(0, 0, 0x93));
    fresh.segments[1] = segment(0xf000, 0xffff0000, 0x9b);
    fresh.ldtr = segment(0, 0, 0x82);
    fresh.tr = segment(0, 0, 0x8b);
    fresh.gdtr.limit = 0xffff;
    fresh.idtr.limit = 0xffff;
    fresh.activity = ActivityState::wait_for_sipi;
    s = fresh;
    lapic.init();
    events.init = false;
    events.sipi = false;
    cpu.rehydrate();
}

void Vcpu::Impl::accept_sipi() {
    events.sipi = false;
    events.nmi_count = 0; // what came while waiting is lost (SDM 3A 9.4.4 blocks NMIs then)
    state::Segment& cs = cpu.s.segments[1];
    cs.selector = static_cast<u16>(u16{events.sipi_vector} << 8);
    cs.base = u64{events.sipi_vector} << 12;
    cpu.s.rip = 0;
    cpu.s.activity = ActivityState::active;
    cpu.rehydrate();
}

/// What the silicon has to know of L1's local APIC, whichever VMCS is current.
void Vcpu::Impl::follow_lapic() {
    if (cpu.controls.lapic_page != lapic.mmio_page()) {
        cpu.controls.lapic_page = lapic.mmio_page();
        cpu.leave_translations();
    }
    cpu.controls.cr8 = lapic.cr8();
}

/// The time-stamp counter was written: its offset is part of the current VMCS.
void Vcpu::Impl::follow_tsc() {
    if (nested.s.guest_mode) {
        nested.follow_tsc();
    } else {
        vmcs01_changed();
    }
}

void Vcpu::Impl::count_transition() {
    ++count;
    ++cpu.s.retired;
    cpu.set_count(cpu.count_at(nullptr) + 1);
}

// --- run loop -----------------------------------------------------------------------------------

u64 Vcpu::Impl::next_stop(u64 until) const {
    if (cpu.answering() || cpu.injecting() || cpu.s.pending_debug != 0 || smi_waits() ||
        (nested.s.guest_mode && nested.boundary_busy())) {
        return count + 1; // what waits behind it is looked at right after
    }
    const u64 now = ticks_now();
    // Block::dead must exceed any budget.
    u64 stop = std::min(until, count + (u64{1} << 30));
    const u64 deadline = next_deadline(now);
    if (deadline != never) {
        const u64 ticks = deadline > now ? deadline - now : 0;
        // The first count whose tick is not before the deadline.
        const u128 counts =
            (u128{ticks} * cpu.clock.denominator + cpu.clock.numerator - 1) / cpu.clock.numerator;
        stop = static_cast<u64>(std::min<u128>(stop, u128{count} + counts));
    }
    const u64 overflow = pmu.until_overflow();
    return overflow < stop - count ? count + overflow : stop;
}

/// Of L1's local APIC and, while L2 runs, of the VMX preemption timer.
u64 Vcpu::Impl::next_deadline(u64 ticks) const {
    const u64 timer = nested.s.guest_mode ? cpu.preemption_deadline : never;
    return std::min(timer, lapic.next_deadline(ticks, ticks + msrs.tsc_offset));
}

Exit Vcpu::Impl::run(const TimeBase& base, Icount until) {
    CHECK(outside.kind == cpu::PendingAccess::Kind::none); // the board has answered
    if (unsettled) {
        if (const Result<> settled = settle(); !settled) {
            return Refused{settled.error().message};
        }
    }
    count = base.count.value();
    cpu.clock = {count, base.ticks.value(), base.ticks_per_insn_num, base.ticks_per_insn_den};
    cpu.set_count(count);
    const Exit exit = loop(until.value());
    advance_pmu(); // what is saved depends on where the run stopped, not on how it got there
    return exit;
}

Exit Vcpu::Impl::loop(u64 until) {
    for (;;) {
        if (!cpu.answering()) {
            follow_apic(); // an instruction that began ends under the VMCS that it began under
        }
        if (count >= until) {
            return CountReached{}; // nothing is injected here: a cut must not show
        }
        const bool l2 = nested.s.guest_mode;
        if (l2) {
            if (auto exit = nested.reach_exit()) {
                return *exit;
            }
        }
        if (auto exit = prepare()) {
            return *exit;
        }
        if (l2 != nested.s.guest_mode) {
            continue; // L1 runs now, and may have something waiting
        }
        const u64 stop_at = next_stop(until);
        const Cpu::Stop stop = cpu.run(count, stop_at - count);
        count += cpu.retired_in_run();
        advance_pmu();
        switch (stop) {
        case Cpu::Stop::count:
            break;
        case Cpu::Stop::yield:
            return Yielded{};
        case Cpu::Stop::inactive:
            break;
        case Cpu::Stop::page_needed:
            return PageNeeded{Gfn(cpu.wanted_page)};
        case Cpu::Stop::copy_needed:
            return CopyNeeded{Gfn(cpu.wanted_page)};
        case Cpu::Stop::access:
            if (auto exit = handle_access()) {
                return *exit;
            }
            break;
        case Cpu::Stop::exit: {
            const u64 before = cpu.retired_in_run();
            auto exit = handle_exit();
            count += cpu.retired_in_run() - before;
            if (exit) {
                return *exit;
            }
            if (stop_at_l2 && !l2 && nested.s.guest_mode) {
                return CountReached{};
            }
            break;
        }
        }
    }
}

// --- the contract -------------------------------------------------------------------------------

Vcpu::Vcpu(const Config& config) : impl_(std::make_unique<Impl>(config)) {}
Vcpu::~Vcpu() = default;

Exit Vcpu::run(const TimeBase& base, Icount until) { return impl_->run(base, until); }
Icount Vcpu::count() const { return Icount(impl_->count); }

void Vcpu::complete(u64 data) {
    CHECK(impl_->outside.kind != cpu::PendingAccess::Kind::none);
    impl_->outside = {};
    impl_->cpu.answer_access(data);
}

bool Vcpu::in_instruction() const {
    return impl_->cpu.answering() || impl_->outside.kind != cpu::PendingAccess::Kind::none;
}

void Vcpu::stop_at_l2(bool on) { impl_->stop_at_l2 = on; }
bool Vcpu::l2_active() const { return impl_->nested.s.guest_mode; }

bool Vcpu::runnable() const { return impl_->wakes(); }

Ticks Vcpu::next_deadline(Ticks now) const { return Ticks(impl_->next_deadline(now.value())); }

bool Vcpu::accepts(const InterruptMessage& message, VcpuIndex from) const {
    using Shorthand = InterruptMessage::Shorthand;
    switch (message.shorthand) {
    case Shorthand::self:
        return from == impl_->config.index;
    case Shorthand::all_including_self:
        return true;
    case Shorthand::all_excluding_self:
        return from != impl_->config.index;
    case Shorthand::none:
        break;
    }
    return impl_->lapic.matches(message);
}

void Vcpu::deliver(const InterruptMessage& message, Ticks) {
    using Delivery = InterruptMessage::Delivery;
    state::PendingEvents& events = impl_->events;
    switch (message.delivery) {
    case Delivery::fixed:
    case Delivery::lowest_priority:
        impl_->accept(message.vector, message.level_triggered);
        break;
    case Delivery::smi:
        events.smi = true;
        break;
    case Delivery::nmi:
        events.nmi_count = static_cast<u8>(std::min(2, events.nmi_count + 1));
        break;
    case Delivery::init:
        events.init = true;
        break;
    case Delivery::startup:
        // SDM 3A 9.4.4: only the wait-for-SIPI state takes it, otherwise it is lost.
        if (impl_->cpu.s.activity == ActivityState::wait_for_sipi || events.init) {
            events.sipi = true;
            events.sipi_vector = message.vector.value();
        }
        break;
    case Delivery::ext_int:
    case Delivery::reserved:
        break; // the PIC's line is looked at directly
    }
}

u8 Vcpu::arbitration_priority() const { return impl_->lapic.processor_priority(); }

void Vcpu::reset() { impl_->power_on(); }

} // namespace nestor::hv
