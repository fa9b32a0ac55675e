// Valid VMCSs of several kinds, the processor and the memory they are valid for.
#pragma once

#include <vector>

#include "engine/arch/bits.hpp"
#include "engine/cpu/entry_checks.hpp"

namespace nestor::cpu {

/// 64 KiB of guest memory; addresses wrap.
class EntryRam {
public:
    static constexpr u64 size = 64 << 10;
    u8& operator[](u64 address) { return bytes_[address % size]; }
    [[nodiscard]] u8* data() { return bytes_.data(); }

private:
    std::vector<u8> bytes_ = std::vector<u8>(size);
};

/// What the checks of one VM entry look at.
struct Entry {
    state::Vmcs v;
    EntryContext c;
    MsrListEntry msr{0x174, 0, 0};
    EntryRam ram;
};

/// Where structures lie in `ram`.
inline constexpr u64 pdpt = 0x5000, shadow_vmcs = 0x3000, virtual_apic = 0x4000;

/// The starting points.
enum class ValidEntry : u8 {
    long64,     ///< 64-bit guest at CPL 0, hardly a control on
    pae32,      ///< 32-bit guest at CPL 3 with PAE paging from memory
    pae32_ept,  ///< the same under EPT, PDPTEs from the VMCS
    real,       ///< real-address mode: unrestricted guest under EPT
    v8086,      ///< virtual-8086 mode
    host32,     ///< pae32 entered from a 32-bit host
    everything, ///< 64-bit guest with every control on that does not exclude another
};
inline constexpr ValidEntry valid_entries[] = {
    ValidEntry::long64, ValidEntry::pae32,  ValidEntry::pae32_ept, ValidEntry::real,
    ValidEntry::v8086,  ValidEntry::host32, ValidEntry::everything};

[[nodiscard]] Entry valid_entry(ValidEntry kind);

/// Interruption information: a valid event of a type without error code.
constexpr u32 inject(u32 type, u32 vector) { return u32{1} << 31 | type << 8 | vector; }
/// Turns secondary controls on.
void activate(state::Vmcs& v, u32 controls);
/// A processor with the dual-monitor treatment, which Nestor has not.
void allow_smm(EntryContext& c);

/// For fuzzers, out of 11 bytes: row of the VMCS table, operation, value. Flips a bit, or sets a
/// value at an edge, or any value.
void edit_field(state::Vmcs& v, const u8* bytes);

/// The identifiers of all rows that do not hold; where all others hold, those found in memory too.
[[nodiscard]] std::vector<EntryCheckId> broken_rows(Entry& entry);
/// What check_X() says for one kind of checks.
[[nodiscard]] std::optional<EntryFailure> answer(Entry& entry, EntryCheckKind kind);

} // namespace nestor::cpu
