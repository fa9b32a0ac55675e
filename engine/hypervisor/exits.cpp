// L0's handlers of L1's VM exits (SDM 3C 26.1 says which instructions cause them).
//
// Each either emulates the instruction and completes it, injects what the instruction should have
// raised, or hands it to the board as an Exit. Counts: the emulated instruction retires as one;
// what passes between L1 and L0 counts nothing (DESIGN.md, rule 2).
#include "engine/arch/bits.hpp"
#include "engine/cpu/injection.hpp"
#include "engine/cpu/package.hpp"
#include "engine/cpu/system.hpp"
#include "engine/hypervisor/vcpu_impl.hpp"

namespace nestor::hv {

using arch::Exception;
using arch::ExitReason;
using arch::Gpr;
using cpu::PendingAccess;

void Vcpu::Impl::raise(Exception vector, u32 error) {
    cpu::Event e;
    e.vector = static_cast<u8>(vector);
    e.has_error = arch::exceptions[e.vector].has_error_code;
    e.error = error;
    raise(e);
}

void Vcpu::Impl::raise(const cpu::Event& e) {
    if (cpu::raise_for_exited(cpu, e)) {
        nested.take_exception();
    }
}

std::optional<Exit> Vcpu::Impl::handle_exit() {
    if (nested.s.guest_mode) {
        std::optional<Exit> stopped;
        if (!nested.take_exit(stopped)) {
            return stopped;
        }
    }
    switch (cpu.exit.reason) {
    case ExitReason::cpuid:
        emulate_cpuid();
        break;
    case ExitReason::rdmsr:
        emulate_rdmsr();
        break;
    case ExitReason::wrmsr:
        return emulate_wrmsr();
    case ExitReason::hlt:
        complete_exit();
        cpu.s.activity = state::ActivityState::hlt;
        cpu.s.monitor_armed = false;
        break;
    case ExitReason::monitor:
        emulate_monitor();
        break;
    case ExitReason::mwait:
        emulate_mwait();
        break;
    case ExitReason::rdpmc:
        emulate_rdpmc();
        break;
    case ExitReason::xsetbv:
        emulate_xsetbv();
        break;
    case ExitReason::cr_access:
        emulate_cr_access();
        break;
    case ExitReason::invd:
        complete_exit(); // there are no caches to lose
        break;
    case ExitReason::rsm:
        return leave_smm();
    case ExitReason::interrupt_window:
    case ExitReason::nmi_window:
    case ExitReason::tpr_below_threshold:
        break; // prepare() injects now
    case ExitReason::virtualized_eoi:
        return apic_effects(lapic.ended(Vector(static_cast<u8>(cpu.exit.qualification))));
    case ExitReason::apic_write:
        return apic_written();
    case ExitReason::page_modification_log_full:
        empty_log();
        break;
    case ExitReason::triple_fault:
        cpu.s.activity = state::ActivityState::shutdown;
        return Shutdown{};
    case ExitReason::ept_violation:
        // A fetch from where no RAM is: nothing there can be executed.
        cpu.s.activity = state::ActivityState::shutdown;
        return Shutdown{};
    default:
        return nested.instruction();
    }
    return std::nullopt;
}

// --- accesses -----------------------------------------------------------------------------------

std::optional<Exit> Vcpu::Impl::handle_access() {
    const PendingAccess& a = cpu.access;
    switch (a.kind) {
    case PendingAccess::Kind::port:
        outside = a;
        return PortAccess{static_cast<u16>(a.address), a.size, a.write, static_cast<u32>(a.data)};
    case PendingAccess::Kind::mmio:
        outside = a;
        return MmioAccess{Gpa(a.address), a.size, a.write, a.data};
    case PendingAccess::Kind::apic: {
        const auto offset = static_cast<u16>(a.address & page_mask);
        if (!a.write) {
            const u32 value = a.size <= 4 ? lapic.mmio_read(offset & 0xff0, ticks_now()) : 0;
            cpu.answer_access(value >> ((offset & 3) * 8));
            return std::nullopt;
        }
        Lapic::Effects effects;
        if (a.size <= 4 && (offset & 15) + a.size <= 4) {
            effects = lapic.mmio_write_part(offset, static_cast<u32>(a.data), a.size, ticks_now());
        }
        cpu.answer_access(0);
        return apic_effects(effects);
    }
    case PendingAccess::Kind::none:
        break;
    }
    return std::nullopt;
}

/// The silicon wrote a register's word, and the instruction is complete: it began a count earlier.
std::optional<Exit> Vcpu::Impl::apic_written() {
    const u64 ticks = cpu.ticks_of(cpu.count_at(nullptr) - 1);
    return apic_effects(lapic.written(static_cast<u16>(cpu.exit.qualification), ticks));
}

std::optional<Exit> Vcpu::Impl::apic_effects(const Lapic::Effects& effects) {
    if (effects.interrupt_ended) {
        service_changed();
    }
    if (effects.send && config.board != nullptr) {
        config.board->send(config.index, *effects.send);
    }
    if (effects.eoi_broadcast) {
        return EoiBroadcast{*effects.eoi_broadcast};
    }
    return std::nullopt;
}

// --- instructions -------------------------------------------------------------------------------

void Vcpu::Impl::emulate_cpuid() {
    const CpuidResult r = hv::cpuid(cpuid, cpu.s, lapic.base(), static_cast<u32>(cpu.gpr(Gpr::rax)),
                                    static_cast<u32>(cpu.gpr(Gpr::rcx)));
    cpu.gpr(Gpr::rax) = r.eax;
    cpu.gpr(Gpr::rbx) = r.ebx;
    cpu.gpr(Gpr::rcx) = r.ecx;
    cpu.gpr(Gpr::rdx) = r.edx;
    complete_exit();
}

void Vcpu::Impl::emulate_rdmsr() {
    u64 value = 0;
    if (!read_msr(static_cast<u32>(cpu.gpr(Gpr::rcx)), value)) {
        raise(Exception::gp);
        return;
    }
    cpu.gpr(Gpr::rax) = static_cast<u32>(value);
    cpu.gpr(Gpr::rdx) = value >> 32;
    complete_exit();
}

std::optional<Exit> Vcpu::Impl::emulate_wrmsr() {
    const u64 value = cpu.gpr(Gpr::rdx) << 32 | static_cast<u32>(cpu.gpr(Gpr::rax));
    Lapic::Effects effects;
    if (!write_msr(static_cast<u32>(cpu.gpr(Gpr::rcx)), value, effects)) {
        raise(Exception::gp);
        return std::nullopt;
    }
    complete_exit();
    return apic_effects(effects);
}

void Vcpu::Impl::emulate_rdpmc() {
    const auto value = pmu.rdpmc(static_cast<u32>(cpu.gpr(Gpr::rcx)));
    if (!value) {
        raise(Exception::gp);
        return;
    }
    cpu.gpr(Gpr::rax) = static_cast<u32>(*value);
    cpu.gpr(Gpr::rdx) = *value >> 32;
    complete_exit();
}

// SDM 2D, XSETBV: x87 must stay on, AVX needs SSE, nothing that the profile lacks.
void Vcpu::Impl::emulate_xsetbv() {
    using namespace arch;
    const u64 value = cpu.gpr(Gpr::rdx) << 32 | static_cast<u32>(cpu.gpr(Gpr::rax));
    const bool avx_without_sse = (value & xcr0::avx) != 0 && (value & xcr0::sse) == 0;
    if (static_cast<u32>(cpu.gpr(Gpr::rcx)) != 0 || (value & xcr0::x87) == 0 || avx_without_sse ||
        (value & ~config.package->features().xcr0_allowed) != 0) {
        raise(Exception::gp);
        return;
    }
    cpu.s.xcr0 = value;
    cpu.update_mode();
    complete_exit();
}

// SDM 3A 11.8.6: CR8 is TPR bits 7:4. An exit, because lowering it may let an interrupt in. The
// others that exit would change a bit that VMX operation fixes.
void Vcpu::Impl::emulate_cr_access() {
    if ((cpu.exit.qualification & 15) != 8) {
        raise(Exception::gp);
        return;
    }
    const u64 value = cpu.s.gpr[cpu.exit.qualification >> 8 & 15];
    if (value >> 4 != 0) {
        raise(Exception::gp);
        return;
    }
    lapic.write_cr8(static_cast<u8>(value));
    complete_exit();
}

// SDM 2B, MONITOR: ECX must be 0.
void Vcpu::Impl::emulate_monitor() {
    if (cpu.gpr(Gpr::rcx) != 0) {
        raise(Exception::gp);
        return;
    }
    cpu.monitor(cpu.exit.guest_physical);
    complete_exit();
}

// SDM 2B, MWAIT: ECX bit 0 (interrupts end the wait although masked) is the only extension. A
// processor that halts with its monitor armed is one that waits here.
void Vcpu::Impl::emulate_mwait() {
    if ((cpu.gpr(Gpr::rcx) & ~u64{1}) != 0) {
        raise(Exception::gp);
        return;
    }
    complete_exit();
    if (cpu.s.monitor_armed) {
        cpu.s.activity = state::ActivityState::hlt;
    }
}

} // namespace nestor::hv
