// Nested state that comes and goes as a whole: loading it, making L2 current again before the first
// run, system management mode around L2.
//
// A loaded vCPU with L2 active needs nothing but its units: vmcs02 is made from vmcs12, and the
// silicon finds in L1's memory what vmcs02 names when it needs it, lazily restored pages included.
#include "engine/arch/bits.hpp"
#include "engine/cpu/package.hpp"
#include "engine/cpu/vmcs_state.hpp"
#include "engine/hypervisor/nested.hpp"
#include "engine/hypervisor/vcpu_impl.hpp"

namespace nestor::hv {

using namespace arch;

namespace {

/// The model's, less what the silicon and the vCPU's CPUID do not have.
arch::VmxCapabilities capabilities_of(const CpuModel& model, const CpuCaps& caps,
                                      const cpu::Features& features) {
    using arch::CpuFeature;
    if (!caps.has(CpuFeature::vmx)) {
        return {};
    }
    const arch::VmxCapabilities silicon =
        arch::vmx_capabilities({.rdtscp = caps.has(CpuFeature::rdtscp),
                                .invpcid = caps.has(CpuFeature::invpcid),
                                .rdrand = caps.has(CpuFeature::rdrand),
                                .rdseed = caps.has(CpuFeature::rdseed),
                                .xsaves = caps.has(CpuFeature::xsaves),
                                .gigabyte_pages = features.gigabyte_pages,
                                .cr4_allowed = ~features.cr4_reserved});
    return arch::masked(vmx_of(model), silicon);
}

} // namespace

Nested::Nested(Vcpu::Impl& vcpu) : v_(vcpu) {}

void Nested::follow_caps() {
    capabilities = capabilities_of(*v_.config.model, v_.caps, v_.config.package->features());
}

void Nested::reset() { s = {}; }

std::optional<u64> Nested::read_msr(u32 index) const {
    const u64* value = offered() ? capabilities.find(index) : nullptr;
    return value != nullptr ? std::optional(*value) : std::nullopt;
}

// --- restoring ----------------------------------------------------------------------------------

const char* Nested::wrong_alone(const state::Nested& from) {
    const bool pointer = from.current != Nested::none;
    if ((from.guest_mode || pointer) && !from.vmxon && !from.smm.vmxon) {
        return "field vmxon: a current VMCS outside VMX operation";
    }
    if (from.guest_mode && (!pointer || from.smm.guest_mode)) {
        return "field guestMode: L2 is active without a current VMCS, or behind SMM";
    }
    if (from.smm.guest_mode && (!pointer || !from.smm.vmxon)) {
        return "field smm.guestMode: no VMX operation to return to";
    }
    if (from.vmxon && from.smm.vmxon) {
        return "field smm.vmxon: VMX operation inside SMM";
    }
    if ((from.vmxon || from.smm.vmxon) != (from.vmxon_pointer != none)) {
        return "field vmxonPointer: goes with vmxon";
    }
    if (pointer && from.current == from.vmxon_pointer) {
        return "field current: is the VMXON region";
    }
    return nullptr;
}

const char* Nested::wrong_together() const {
    const bool vmx = s.vmxon || s.smm.vmxon;
    if (vmx && !offered()) {
        return "VMX operation on a CPU model without VMX";
    }
    if (v_.cpu.s.in_smm ? s.vmxon : s.smm.vmxon) {
        return "VMX operation and cpu.inSmm contradict each other";
    }
    const auto bad = [&](u64 pointer) { return pointer != none && !valid_pointer(pointer); };
    if (bad(s.vmxon_pointer) || bad(s.current)) {
        return "a pointer that is no page of this machine's physical address space";
    }
    if (!s.guest_mode && !s.smm.guest_mode) {
        return nullptr;
    }
    cpu::EntryContext c = context();
    c.in_smm = false; // nobody entered L2 from SMM
    // IA32_EFER is L2's now; L1's mode at the entry is what it said its host is.
    c.long_mode = (s.vmcs12.vm_exit_controls & arch::exit_control::host_address_space_size) != 0;
    if (const auto failure = cpu::check_controls(s.vmcs12, c)) {
        return failure->text.data();
    }
    if (const auto failure = cpu::check_host(s.vmcs12, c)) {
        return failure->text.data();
    }
    if (const auto failure = cpu::check_controls(vmcs02(), c)) {
        return failure->text.data(); // what L0 needs does not go with what L1 wants
    }
    return nullptr;
}

void Nested::resume_l2() {
    make_current(vmcs02());
    v_.cpu.transition();
    v_.cpu.monitor_trap_pending = s.mtf_pending;
    v_.cpu.preemption_deadline = s.timer_deadline;
    v_.cpu.attention |= s.run_pending ? cpu::Cpu::Attention::entry : 0;
}

state::Nested Nested::saved() const {
    state::Nested out = s;
    if (s.guest_mode) {
        out.mtf_pending = v_.cpu.monitor_trap_pending;
        out.timer_deadline = v_.cpu.preemption_deadline;
        out.run_pending = (v_.cpu.attention & cpu::Cpu::Attention::entry) != 0;
        cpu::store_controls(v_.cpu, out.vmcs12);
    }
    return out;
}

// --- system management mode ---------------------------------------------------------------------

// SDM 3C 32.14.1: the processor remembers that it was in VMX operation and in which mode, and
// leaves it. The registers are already in the state-save area.
void Nested::enter_smm() {
    if (s.guest_mode) {
        s = saved();
    }
    s.smm.vmxon = s.vmxon;
    s.smm.guest_mode = s.guest_mode;
    s.vmxon = false;
    s.guest_mode = false;
}

bool Nested::leave_smm() {
    s.vmxon = s.smm.vmxon;
    s.guest_mode = s.smm.guest_mode;
    s.smm = {};
    const state::Cpu& cpu = v_.cpu.s;
    const u64 cr0_fixed =
        s.guest_mode ? capabilities.cr0_fixed0 & ~(cr0::pe | cr0::pg) : capabilities.cr0_fixed0;
    return !s.vmxon || ((cpu.cr0 & cr0_fixed) == cr0_fixed &&
                        (cpu.cr4 & capabilities.cr4_fixed0) == capabilities.cr4_fixed0);
}

} // namespace nestor::hv
