// Nested state in the layout of Linux's KVM_GET_NESTED_STATE and KVM_SET_NESTED_STATE, format 0
// (Documentation/virt/kvm/api.rst): a header of 128 bytes, the vmcs12, and a shadow vmcs12.
//
// Neither guest memory nor MSRs are looked at, so the state can be set in any order with them.
#pragma once

#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include <tl/expected.hpp>

#include "engine/cpu/entry_checks.hpp"
#include "engine/state/nested.hpp"

namespace nestor::hv {

/// What the layout carries.
struct NestedImage {
    static constexpr u64 none = ~u64{0};

    u64 vmxon_pointer = none; ///< all ones: not in VMX operation
    u64 vmcs12_pointer = none;
    bool guest_mode = false;
    bool run_pending = false; ///< VM entry was made, L2 has not run since
    bool mtf_pending = false;
    bool evmcs = false; ///< the current VMCS is an enlightened one
    bool smm_guest_mode = false;
    bool smm_vmxon = false;
    std::optional<u64> preemption_deadline; ///< L1's TSC / 32, rounded up
    std::optional<state::Vmcs> vmcs12;
    std::optional<state::Vmcs> shadow_vmcs12;

    bool operator==(const NestedImage&) const = default;
};

/// What of the vCPU the checks depend on.
struct NestedTarget {
    cpu::EntryContext entry;    ///< of an entry by L1; in_smm as the vCPU is now
    bool vmx_allowed = true;    ///< the CPU model has VMX
    bool evmcs_enabled = false; ///< eVMCS was enabled on the vCPU
};

/// The checks of KVM_SET_NESTED_STATE, in their order.
enum class NestedCheck : u8 {
#define NESTED_CHECK(name, error, text) name,
#include "engine/hypervisor/nested_layout.def"
#undef NESTED_CHECK
};

/// Why an image was refused.
struct NestedRefusal {
    NestedCheck check{};
    int error = 0;                          ///< errno: EINVAL, EFAULT or E2BIG
    std::string_view text;                  ///< what should have held
    std::optional<cpu::EntryFailure> entry; ///< for check controls, host_state, guest_state
};

/// Size of the image in bytes: what header.size says.
[[nodiscard]] std::size_t nested_image_size(const NestedImage& image);

/// Writes the image. False: the buffer is smaller than nested_image_size() (KVM's E2BIG).
[[nodiscard]] bool export_nested(const NestedImage& image, std::span<u8> buffer);

/// Reads and checks an image. Bytes from anywhere are safe. The guest state is checked as for an
/// entry; without RUN_PENDING the event to be injected does not count, as it was injected long ago.
[[nodiscard]] tl::expected<NestedImage, NestedRefusal> import_nested(std::span<const u8> bytes,
                                                                     const NestedTarget& target);

/// What a vCPU's nested state is in an image. Its vmcs12 has the guest area of the moment, which
/// the unit has not while L2 is active (save_guest). `run_pending`: the event of vmcs12's entry
/// fields waits for its injection. A shadow vmcs12 lies in guest memory: the caller adds it.
[[nodiscard]] NestedImage nested_image(const state::Nested& nested, const state::Vmcs& vmcs12,
                                       bool run_pending, u64 tsc_offset);

/// The nested state that an accepted image means. Enlightened VMCSs and the shadow vmcs12 are the
/// caller's. No update of vmcs01 is pending; APICv's inhibits are to be looked at.
[[nodiscard]] state::Nested nested_state(const NestedImage& image, u64 tsc_offset);

} // namespace nestor::hv
