// The checks of VM entry (SDM 3C 27.2, 27.3.1, 27.4, 28.4), as a table: entry_checks.def.
//
// One row is one check: identifier, section, what must hold, the predicate, and how a failure is
// reported. Within a kind the order is the table's; the first that does not hold is the answer.
#pragma once

#include <optional>
#include <span>
#include <string_view>

#include "engine/arch/vmx_capability.hpp"
#include "engine/arch/vmx_error.hpp"
#include "engine/cpu/guest_memory.hpp"
#include "engine/state/vmcs.hpp"

namespace nestor::cpu {

/// What of the processor the checks depend on, besides the VMCS.
struct EntryContext {
    arch::VmxCapabilities capabilities;
    u8 physical_bits = 46; ///< MAXPHYADDR
    u8 linear_bits = 48;   ///< the widest linear address the processor supports
    u64 efer_allowed = 0;  ///< IA32_EFER bits that may be 1
    u64 debugctl_allowed = 0;
    u64 perf_global_allowed = 0;
    bool long_mode = true; ///< IA32_EFER.LMA of the processor that executes VM entry
    bool in_smm = false;
    bool x2apic = false;        ///< the local APIC is in x2APIC mode (MSR lists)
    u64 current_vmcs = ~u64{0}; ///< physical address of the current VMCS
};

enum class EntryCheckKind : u8 {
    controls,        ///< VMfail 7
    controls_memory, ///< the same, found in guest memory
    host,            ///< VMfail 8
    guest,           ///< VM exit 33
    guest_memory,    ///< the same, found in guest memory
    msr_load,        ///< VM exit 34 with the entry's 1-based index; VMX abort 4 on VM exits
    msr_store,       ///< VMX abort 1
};

enum class EntryCheckId : u16 {
#define ENTRY_CHECK(kind, id, section, qualification, text, ...) id,
#include "engine/cpu/entry_checks.def"
#undef ENTRY_CHECK
};

/// Qualifications of exit 33 (SDM 3C 27.8).
namespace entry_failure {
inline constexpr u64 general = 0, pdpte = 2, nmi = 3, link_pointer = 4;
} // namespace entry_failure

struct EntryFailure {
    EntryCheckKind kind = EntryCheckKind::controls;
    EntryCheckId id{};
    u64 qualification = 0; ///< of the VM exit, for kind guest
    std::string_view text; ///< what does not hold
};

/// An entry of an MSR-load or MSR-store list (SDM 3C table 25-15).
struct MsrListEntry {
    u32 index = 0;
    u32 reserved = 0;
    u64 value = 0;
};

/// What the predicates look at.
struct EntryView;

struct EntryCheck {
    EntryCheckKind kind;
    EntryCheckId id;
    std::string_view name;
    std::string_view section; ///< SDM 3C
    u64 qualification;
    std::string_view text;
    bool (*holds)(const EntryView&);
};

/// All rows, in the order of the table; indexed by EntryCheckId.
[[nodiscard]] std::span<const EntryCheck> entry_checks();

/// VM-execution, VM-exit and VM-entry controls, event injection included; all but what
/// check_controls_memory() looks at.
[[nodiscard]] std::optional<EntryFailure> check_controls(const state::Vmcs& vmcs,
                                                         const EntryContext& context);
/// Host-state area and address-space size.
[[nodiscard]] std::optional<EntryFailure> check_host(const state::Vmcs& vmcs,
                                                     const EntryContext& context);
/// Guest-state area, as far as the VMCS says it: all but what check_guest_memory() looks at.
[[nodiscard]] std::optional<EntryFailure> check_guest(const state::Vmcs& vmcs,
                                                      const EntryContext& context);

/// Outcome of the checks that need guest memory.
struct EntryMemory {
    std::optional<EntryFailure> failure;
    std::optional<Gfn> page_needed; ///< fill it and check again
    std::array<u64, 4> pdptes{};    ///< with PAE paging without EPT: to be loaded
};
/// VTPR against the TPR threshold. check_controls() passed. `memory` is guest-physical memory at
/// the level of the VMCS.
[[nodiscard]] EntryMemory check_controls_memory(const state::Vmcs& vmcs,
                                                const EntryContext& context,
                                                const GuestMemory& memory);
/// The VMCS that the link pointer names, and the PDPTEs that guest CR3 points at. check_guest()
/// passed.
[[nodiscard]] EntryMemory check_guest_memory(const state::Vmcs& vmcs, const EntryContext& context,
                                             const GuestMemory& memory);

/// One entry of the VM-entry or VM-exit MSR-load list. What WRMSR itself would refuse is the
/// caller's to find.
[[nodiscard]] std::optional<EntryFailure> check_msr_load(const MsrListEntry& entry,
                                                         const EntryContext& context);
[[nodiscard]] std::optional<EntryFailure> check_msr_store(const MsrListEntry& entry,
                                                          const EntryContext& context);

} // namespace nestor::cpu
