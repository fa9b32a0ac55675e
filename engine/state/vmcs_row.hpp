// The VMCS field table that the schema's $vmcs annotations become (SDM 3D appendix B).
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace nestor::state {

struct VmcsRow {
    std::uint32_t encoding; ///< full access; bit 0 set would be the high half of a 64-bit field
    std::uint8_t size;      ///< bytes in the live struct; natural-width fields have 8
    std::uint32_t offset;   ///< in the live struct
    const char* name;       ///< of the C++ member
};

/// The rows of T, sorted by encoding; empty for a struct without $vmcs fields.
template <class T>
inline constexpr std::array<VmcsRow, 0> vmcs_rows{};

/// Unique, ascending, and none of them the high half of a 64-bit field.
template <std::size_t N>
constexpr bool vmcs_rows_are_ordered(const std::array<VmcsRow, N>& rows) {
    for (std::size_t i = 0; i < N; ++i) {
        if ((rows[i].encoding & 1) != 0 || (i > 0 && rows[i - 1].encoding >= rows[i].encoding)) {
            return false;
        }
    }
    return true;
}

} // namespace nestor::state
