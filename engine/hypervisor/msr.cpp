// L0's MSR policy: the rows of engine/arch/msr.def, and the code behind the special ones.
//
// Owns nothing but Impl::msrs' meaning. Which rows exist for a machine, and what the constant ones
// read, its CPU model says (MsrSet). Any other MSR raises #GP in the guest and is named once in the
// log, because a guest that needs it is a guest we should know about.
#include <fmt/format.h>

#include "engine/arch/bits.hpp"
#include "engine/arch/msr.hpp"
#include "engine/cpu/system.hpp"
#include "engine/hypervisor/vcpu_impl.hpp"
#include "src/base/log.hpp"

namespace nestor::hv {

using arch::CpuFeature;
using arch::Msr;
using arch::MsrRow;

namespace {

constexpr u64 feat_ctl_lock = bit(0);

/// The silicon's MSRs that take an exit as well as those that do not.
bool silicon_ok(cpu::MsrResult r) { return r == cpu::MsrResult::ok; }

bool x2apic_range(u32 index) {
    return index >= static_cast<u32>(Msr::x2apic_first) &&
           index <= static_cast<u32>(Msr::x2apic_last);
}

} // namespace

void Vcpu::Impl::report_unknown_msr(u32 index, bool write) {
    if (reported_msrs.insert(index).second) {
        log(LogLevel::info,
            fmt::format("vcpu[{}]: {} of MSR {:#x}, which does not exist: #GP",
                        this->config.index.value(), write ? "write" : "read", index));
    }
}

// --- reading ------------------------------------------------------------------------------------

std::optional<u64> Vcpu::Impl::read_special_msr(u32 index) {
    switch (static_cast<Msr>(index)) {
    case Msr::tsc:
        return cpu.tsc_at(nullptr); // of the active level
    case Msr::debugctl:
        return cpu.s.debugctl;
    case Msr::tsc_adjust:
        return msrs.tsc_adjust;
    case Msr::apic_base:
        return lapic.base();
    case Msr::feat_ctl:
        return msrs.feature_control;
    case Msr::bios_sign_id:
        return msrs.microcode_revision;
    case Msr::tsc_deadline:
        return lapic.tsc_deadline();
    default:
        break;
    }
    return pmu.read(static_cast<Msr>(index));
}

bool Vcpu::Impl::read_msr(u32 index, u64& value) {
    const cpu::MsrResult silicon = cpu::read_silicon_msr(cpu, index, value);
    if (silicon != cpu::MsrResult::not_silicon) {
        return silicon_ok(silicon);
    }
    if (x2apic_range(index)) {
        return lapic.msr_read(index, ticks_now(), value);
    }
    const auto row = arch::msr_row(index);
    if (!row || !msr_set.has(*row)) {
        if (const auto capability = nested.read_msr(index)) {
            value = *capability;
            return true;
        }
        report_unknown_msr(index, false);
        return false;
    }
    switch (*row) {
#define MSR_SPECIAL(number, name)
#define MSR_CONSTANT(number, name)                                                                 \
    case MsrRow::name:                                                                             \
        value = msr_set.constant(MsrRow::name);                                                    \
        return true;
#define MSR_FIELD(number, name, member, writable)                                                  \
    case MsrRow::name:                                                                             \
        value = msrs.member;                                                                       \
        return true;
#include "engine/arch/msr.def"
#undef MSR_SPECIAL
#undef MSR_CONSTANT
#undef MSR_FIELD
    default:
        break;
    }
    if (const auto special = read_special_msr(index)) {
        value = *special;
        return true;
    }
    report_unknown_msr(index, false);
    return false;
}

// --- writing ------------------------------------------------------------------------------------

// False: #GP(0), also for an MSR that does not exist.
bool Vcpu::Impl::write_special_msr(u32 index, u64 value) {
    switch (static_cast<Msr>(index)) {
    case Msr::tsc: {
        // SDM 3B 18.17.3: a write of the TSC moves IA32_TSC_ADJUST by as much.
        const u64 moved = value - tsc_now();
        msrs.tsc_adjust += moved;
        msrs.tsc_offset += moved;
        follow_tsc();
        return true;
    }
    case Msr::tsc_adjust:
        msrs.tsc_offset += value - msrs.tsc_adjust;
        msrs.tsc_adjust = value;
        follow_tsc();
        return true;
    case Msr::debugctl:
        if ((value & ~debugctl_allowed) != 0) {
            return false;
        }
        cpu.s.debugctl = value;
        return true;
    case Msr::apic_base:
        return lapic.write_base(value, physical_bits);
    case Msr::feat_ctl:
        if ((msrs.feature_control & feat_ctl_lock) != 0 || (value & ~u64{0x7}) != 0) {
            return false;
        }
        msrs.feature_control = value;
        return true;
    case Msr::bios_sign_id:
        return true; // written as 0 before CPUID reads the revision; nothing to load
    case Msr::tsc_deadline:
        lapic.write_tsc_deadline(value);
        return true;
    default:
        break;
    }
    switch (pmu.write(static_cast<Msr>(index), value)) {
    case Pmu::Write::done:
        return true;
    case Pmu::Write::gp:
        return false;
    case Pmu::Write::other:
        report_unknown_msr(index, true);
        return false;
    }
    return false;
}

bool Vcpu::Impl::write_msr(u32 index, u64 value, Lapic::Effects& effects) {
    const cpu::MsrResult silicon = cpu::write_silicon_msr(cpu, index, value);
    if (silicon != cpu::MsrResult::not_silicon) {
        return silicon_ok(silicon);
    }
    if (x2apic_range(index)) {
        return lapic.msr_write(index, value, ticks_now(), effects);
    }
    const auto row = arch::msr_row(index);
    if (!row || !msr_set.has(*row)) {
        if (!nested.read_msr(index)) {
            report_unknown_msr(index, true);
        }
        return false;
    }
    const u64 physical = mask(static_cast<unsigned>(physical_bits) - 1, 12);
    switch (*row) {
#define MSR_SPECIAL(number, name)
#define MSR_CONSTANT(number, name)                                                                 \
    case MsrRow::name:                                                                             \
        return false;
#define MSR_FIELD(number, name, member, writable)                                                  \
    case MsrRow::name:                                                                             \
        if ((value & ~u64{writable}) != 0) {                                                       \
            return false;                                                                          \
        }                                                                                          \
        msrs.member = value;                                                                       \
        return true;
#include "engine/arch/msr.def"
#undef MSR_SPECIAL
#undef MSR_CONSTANT
#undef MSR_FIELD
    default:
        return write_special_msr(index, value);
    }
}

} // namespace nestor::hv
