// When the silicon may virtualize L1's local APIC: inhibits and a vendor's rules about them.
//
// A reason is a field of state::ApicvInhibits and holds for every vCPU of the machine, which passes
// a change on to all of them. It concerns L1's APIC, and the VMCS that L1 runs under, only: what L1
// gives its own guest is never inhibited by it.
#pragma once

#include <span>

#include "engine/state/machine.hpp"

namespace nestor::hv {

using ApicvInhibit = bool state::ApicvInhibits::*;

/// A vendor's rules.
struct ApicvPolicy {
    std::span<const ApicvInhibit> respected; ///< the other reasons do not matter
    /// L2 shares the doorbell that peers ring for L1, so a vCPU is inhibited while L2 is active.
    /// Not where posting to L1 has a notification vector of its own.
    bool one_doorbell = false;
};

/// Intel's APIC virtualization with posted interrupts, as vmcs01 has it.
extern const ApicvPolicy vmx_apicv;

/// Whether a reason that the policy respects is there.
[[nodiscard]] bool apicv_inhibited(const ApicvPolicy& policy, const state::ApicvInhibits& machine,
                                   bool l2_active);

} // namespace nestor::hv
