// Saves and loads a vCPU as state units (DESIGN.md, rule 3).
//
// Units come in any order, so each is checked by itself when it is set, and what belongs together
// is checked once all are there: by settle(), at the latest when the vCPU runs. settle() also turns
// what was saved into what runs: the event to be injected, controls, decoded modes.
#include <fmt/format.h>

#include "engine/arch/bits.hpp"
#include "engine/hypervisor/vcpu_impl.hpp"
#include "src/base/check.hpp"

namespace nestor::hv {

namespace {

constexpr u32 valid_bit = bit<u32>(31);
constexpr u32 error_bit = bit<u32>(11);

Failure wrong(VcpuIndex index, const char* unit, const char* what) {
    return fail(ErrorCode::corrupt, fmt::format("vcpu[{}].{}: {}", index.value(), unit, what));
}

/// SDM 3C table 25-17, without the reserved type.
u32 entry_info(const cpu::Event& e) {
    return u32{e.vector} | static_cast<u32>(e.type) << 8 | (e.has_error ? error_bit : 0) |
           valid_bit;
}

bool valid_info(u32 info) {
    const u32 type = info >> 8 & 7;
    const u32 vector = info & 0xff;
    if ((info & valid_bit) == 0) {
        return info == 0;
    }
    return (info & 0x7ffff000) == 0 && type != 1 && type != 7 && (type != 2 || vector == 2) &&
           (type != 3 || vector < 32) && ((info & error_bit) == 0 || type == 3);
}

cpu::Event event_of(const state::PendingEvents& from) {
    cpu::Event e;
    e.vector = static_cast<u8>(from.injected_info);
    e.type = static_cast<cpu::EventType>(from.injected_info >> 8 & 7);
    e.has_error = (from.injected_info & error_bit) != 0;
    e.error = from.injected_error;
    e.instruction_length = from.injected_length;
    return e;
}

} // namespace

state::Vcpu Vcpu::Impl::save() const {
    state::Vcpu out;
    out.model.cpuid = cpuid;
    out.cpu = cpu.s;
    out.lapic = lapic.state();
    out.events = events;
    out.msrs = msrs;
    out.pmu = pmu.state();
    out.vmcs01.controls = vmcs01;
    out.nested = unsettled ? nested.s : nested.saved();
    if (unsettled) {
        return out; // what was loaded, as it was
    }
    if (!nested.s.guest_mode) {
        store_vmcs01(out.vmcs01.controls);
    }
    out.events.injected_info = cpu.injected ? entry_info(*cpu.injected) : 0;
    out.events.injected_error = cpu.injected ? cpu.injected->error : 0;
    out.events.injected_length = cpu.injected ? cpu.injected->instruction_length : u8{0};
    return out;
}

Result<> Vcpu::Impl::settle() {
    if (const char* what = nested.wrong_together()) {
        return wrong(config.index, "nested", what);
    }
    if (!vmcs01_is_ours()) {
        return wrong(config.index, "vmcs01", "not as this L0 writes it");
    }
    unsettled = false;
    requested = true;
    outside = {};
    posted = {};
    known_apic = lapic.setting();
    cpu.rehydrate();
    if (nested.s.guest_mode) {
        nested.resume_l2();
    } else {
        make_vmcs01_current();
    }
    if (events.injected_info != 0) {
        cpu.inject(event_of(events));
    }
    return {};
}

// --- the contract -------------------------------------------------------------------------------

state::Vcpu Vcpu::save() const {
    CHECK(!in_instruction());
    impl_->cpu.materialize();
    return impl_->save();
}

Result<> Vcpu::load(const state::CpuModel& from) {
    const std::string unit = fmt::format("vcpu[{}].model", impl_->config.index.value());
    TRY(check_cpuid(from.cpuid, {impl_->config.index.value(), impl_->config.vcpu_count},
                    engine_offer()),
        unit);
    if (silicon_features(from.cpuid) != impl_->config.package->features()) {
        return fail(ErrorCode::incompatible,
                    unit + ": other features of the silicon than vcpu[0].model has",
                    "vCPUs of one machine have the same features");
    }
    impl_->take_cpuid(from.cpuid);
    impl_->unsettled = true;
    return {};
}

Result<> Vcpu::load(const state::Cpu& from) {
    impl_->cpu.s = from;
    impl_->cpu.lazy.settle();
    impl_->unsettled = true;
    return {};
}

Result<> Vcpu::load(const state::Lapic& from) {
    TRY(impl_->lapic.load(from), fmt::format("vcpu[{}].lapic", impl_->config.index.value()));
    impl_->unsettled = true;
    return {};
}

Result<> Vcpu::load(const state::PendingEvents& from) {
    if (from.nmi_count > 2) {
        return wrong(impl_->config.index, "events", "field nmiCount: more than 2");
    }
    if (!valid_info(from.injected_info)) {
        return wrong(impl_->config.index, "events", "field injectedInfo: no event is like that");
    }
    impl_->events = from;
    impl_->unsettled = true;
    return {};
}

Result<> Vcpu::load(const state::Msrs& from) {
    impl_->msrs = from;
    impl_->unsettled = true;
    return {};
}

Result<> Vcpu::load(const state::Pmu& from) {
    impl_->pmu.load(from);
    impl_->unsettled = true;
    return {};
}

Result<> Vcpu::load(const state::Vmcs01& from) {
    impl_->vmcs01 = from.controls;
    impl_->unsettled = true;
    return {};
}

Result<> Vcpu::load(const state::Nested& from) {
    if (const char* what = Nested::wrong_alone(from)) {
        return wrong(impl_->config.index, "nested", what);
    }
    impl_->nested.s = from;
    impl_->unsettled = true;
    return {};
}

Result<> Vcpu::load(const state::Vcpu& from) {
    TRY(load(from.model));
    TRY(load(from.cpu));
    TRY(load(from.lapic));
    TRY(load(from.events));
    TRY(load(from.msrs));
    TRY(load(from.pmu));
    TRY(load(from.vmcs01));
    TRY(load(from.nested));
    return settle();
}

Result<> Vcpu::settle() { return impl_->settle(); }

} // namespace nestor::hv
