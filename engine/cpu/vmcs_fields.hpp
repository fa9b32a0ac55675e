// Access to the fields of a VMCS by encoding, in the live struct and in a VMCS region in memory:
// what VMREAD and VMWRITE do once permitted (SDM 3C 25.11.2, 31.3).
#pragma once

#include <optional>
#include <span>

#include "engine/arch/vmcs_field.hpp"
#include "engine/arch/vmx_error.hpp"

namespace nestor::cpu {

/// The field by encoding, zero-extended; a high half is moved down. `mode64`: the full encoding of
/// a 64-bit or natural-width field gives all 64 bits, else the low 32. Empty: no such field (error
/// 12).
[[nodiscard]] std::optional<u64> vmread(const state::Vmcs& vmcs, u32 encoding,
                                        const arch::VmxCapabilities& capabilities, bool mode64);

/// Writes what VMWRITE writes: bits above the field's width are ignored; outside 64-bit mode a
/// 64-bit or natural-width field keeps no upper half (it is cleared; the high half has an encoding
/// of its own); access rights keep the bits that exist. An error: 12, or 13 for a read-only field
/// where IA32_VMX_MISC[29] is 0; nothing changed.
[[nodiscard]] std::optional<arch::VmxError> vmwrite(state::Vmcs& vmcs, u32 encoding, u64 value,
                                                    const arch::VmxCapabilities& capabilities,
                                                    bool mode64);

/// Where VMREAD or VMWRITE of an encoding goes in a VMCS region (a shadow VMCS): byte offset and
/// width. Empty: no such field.
struct RegionPlace {
    u16 offset = 0;
    u8 size = 0; ///< 2, 4 or 8 bytes
};
[[nodiscard]] std::optional<RegionPlace> region_place(u32 encoding,
                                                      const arch::VmxCapabilities& capabilities);

/// A VMCS region: 4 KiB (arch/vmcs_field.def).
using Region = std::span<u8, page_size>;
using ConstRegion = std::span<const u8, page_size>;

namespace region {
inline constexpr u32 shadow_indicator = u32{1} << 31; ///< in the revision dword
inline constexpr u16 revision = 0, abort = 4, launch_state = 8;
} // namespace region

/// The revision dword, shadow indicator included.
[[nodiscard]] u32 region_revision(ConstRegion region);
/// Puts launch state and every field in place. Revision, abort indicator and bytes without a
/// meaning stay as they are.
void write_region(const state::Vmcs& vmcs, Region region);
/// The fields a region holds; those without a place are 0.
[[nodiscard]] state::Vmcs read_region(ConstRegion region);

} // namespace nestor::cpu
