// The checks of VM entry (SDM 3C 27.2, 27.3.1, 27.4, 28.4).
//
// Owns the table that entry_checks.def expands to; EntryView holds the questions its predicates
// ask. The SDM leaves the order within a group open; the table's order is Nestor's.
#include "engine/cpu/entry_checks.hpp"

#include "engine/arch/memory_type.hpp"
#include "engine/cpu/entry_view.hpp"

namespace nestor::cpu {

using namespace arch;

namespace {

namespace msr {
constexpr u32 bios_updt_trig = 0x79, bios_sign_id = 0x8b, smm_monitor_ctl = 0x9b, smbase = 0x9e,
              fs_base = 0xc0000100, gs_base = 0xc0000101;
} // namespace msr

/// Bits that are 1 in fixed0 are 1, bits that are 0 in fixed1 are 0 (SDM 3D A.7).
constexpr bool fixed(u64 value, u64 fixed0, u64 fixed1) {
    return (value & fixed0) == fixed0 && (value & ~fixed1) == 0;
}

constexpr u64 pending_debug_known =
    pending_debug::b | pending_debug::enabled_breakpoint | pending_debug::bs;

#define ON(word, control) e.word(word##_control::control)

constexpr auto table = std::to_array<EntryCheck>({
#define ENTRY_CHECK(kind, id, section, qualification, text, ...)                                   \
    {EntryCheckKind::kind,                                                                         \
     EntryCheckId::id,                                                                             \
     #id,                                                                                          \
     section,                                                                                      \
     qualification,                                                                                \
     text,                                                                                         \
     [](const EntryView& e) -> bool { return __VA_ARGS__; }},
#include "engine/cpu/entry_checks.def"
#undef ENTRY_CHECK
});
#undef ON

std::optional<EntryFailure> first_failure(EntryCheckKind kind, const EntryView& view) {
    for (const EntryCheck& check : table) {
        if (check.kind == kind && !check.holds(view)) {
            return EntryFailure{kind, check.id, check.qualification, check.text};
        }
    }
    return std::nullopt;
}

/// Reads memory for a check. False: `out.page_needed` says which page is missing. What no RAM backs
/// reads as all ones.
bool read(const GuestMemory& memory, u64 address, std::span<u8> bytes, EntryMemory& out) {
    Gpa stopped;
    switch (memory.read(Gpa(address), bytes, &stopped)) {
    case MemoryStatus::page_needed:
        out.page_needed = gfn_of(stopped);
        return false;
    case MemoryStatus::no_ram:
        std::fill(bytes.begin(), bytes.end(), u8{0xff});
        return true;
    case MemoryStatus::ok:
    case MemoryStatus::copy_needed:
        return true;
    }
    return true;
}

} // namespace

std::span<const EntryCheck> entry_checks() { return table; }

std::optional<EntryFailure> check_controls(const state::Vmcs& vmcs, const EntryContext& context) {
    return first_failure(EntryCheckKind::controls, {vmcs, context});
}

std::optional<EntryFailure> check_host(const state::Vmcs& vmcs, const EntryContext& context) {
    return first_failure(EntryCheckKind::host, {vmcs, context});
}

std::optional<EntryFailure> check_guest(const state::Vmcs& vmcs, const EntryContext& context) {
    return first_failure(EntryCheckKind::guest, {vmcs, context});
}

EntryMemory check_controls_memory(const state::Vmcs& vmcs, const EntryContext& context,
                                  const GuestMemory& memory) {
    constexpr u64 vtpr_offset = 0x80;
    EntryMemory out;
    EntryView view{vmcs, context};
    if (view.checks_vtpr()) {
        if (!read(memory, vmcs.virtual_apic_page_addr + vtpr_offset, {&view.vtpr, 1}, out)) {
            return out;
        }
        out.failure = first_failure(EntryCheckKind::controls_memory, view);
    }
    return out;
}

EntryMemory check_guest_memory(const state::Vmcs& vmcs, const EntryContext& context,
                               const GuestMemory& memory) {
    EntryMemory out;
    EntryView view{vmcs, context};
    const auto bytes = [](auto& value) {
        return std::span<u8>(reinterpret_cast<u8*>(&value), sizeof value);
    };
    if (view.has_link() && !read(memory, vmcs.vmcs_link_pointer, bytes(view.link_revision), out)) {
        return out;
    }
    if (view.pae_paging() && !view.proc2(proc2_control::enable_ept)) {
        // SDM 3A 4.4.1: CR3 bits 31:5 are the table's address.
        if (!read(memory, vmcs.guest_cr3 & mask(31, 5), bytes(view.pdptes), out)) {
            return out;
        }
        out.pdptes = view.pdptes;
    }
    out.failure = first_failure(EntryCheckKind::guest_memory, view);
    return out;
}

std::optional<EntryFailure> check_msr_load(const MsrListEntry& entry, const EntryContext& context) {
    static const state::Vmcs none{};
    return first_failure(EntryCheckKind::msr_load, {none, context, 0, 0, {}, entry});
}

std::optional<EntryFailure> check_msr_store(const MsrListEntry& entry,
                                            const EntryContext& context) {
    static const state::Vmcs none{};
    return first_failure(EntryCheckKind::msr_store, {none, context, 0, 0, {}, entry});
}

} // namespace nestor::cpu
