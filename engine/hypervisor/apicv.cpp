// Rules of APIC virtualization by vendor. A policy is a row: which reasons it respects, and whether
// the vendor's doorbell can tell L1 and L2 apart. Nothing else in L0 asks for the vendor.
#include "engine/hypervisor/apicv.hpp"

#include <algorithm>
#include <array>

namespace nestor::hv {

namespace {

using Reasons = state::ApicvInhibits;

constexpr std::array vmx_reasons{&Reasons::disabled, &Reasons::block_irq,
                                 &Reasons::physical_id_aliased, &Reasons::apic_id_modified,
                                 &Reasons::apic_base_modified};

} // namespace

const ApicvPolicy vmx_apicv{.respected = vmx_reasons, .one_doorbell = false};

bool apicv_inhibited(const ApicvPolicy& policy, const state::ApicvInhibits& machine,
                     bool l2_active) {
    return (policy.one_doorbell && l2_active) ||
           std::any_of(policy.respected.begin(), policy.respected.end(),
                       [&](ApicvInhibit reason) { return machine.*reason; });
}

} // namespace nestor::hv
