// VMCS fields as VMREAD, VMWRITE and a VMCS region see them: encodings, existence, place in memory
// (SDM 3C 25.11.2, SDM 3D appendix B).
#pragma once

#include <optional>

#include "engine/arch/vmx_capability.hpp"
#include "engine/state/vmcs.hpp"

namespace nestor::arch {

enum class VmcsWidth : u8 { bits16, bits64, bits32, natural };
enum class VmcsType : u8 { control, read_only, guest, host };

/// Parts of an encoding (SDM 3C table 25-21).
struct VmcsEncoding {
    u32 value;
    [[nodiscard]] constexpr bool high() const { return (value & 1) != 0; }
    [[nodiscard]] constexpr u32 index() const { return value >> 1 & 0x1ff; }
    [[nodiscard]] constexpr VmcsType type() const { return VmcsType(value >> 10 & 3); }
    [[nodiscard]] constexpr VmcsWidth width() const { return VmcsWidth(value >> 13 & 3); }
    /// No reserved bit is set, and the high half is one of a 64-bit field.
    [[nodiscard]] constexpr bool valid() const {
        return (value & 0xffff9000) == 0 && (!high() || width() == VmcsWidth::bits64);
    }
};

/// Of a row of state::vmcs_rows<state::Vmcs>: whether and where the field is in a VMCS region.
struct VmcsField {
    u16 offset = 0; ///< in a VMCS region; 0: the field never exists
    ControlWord word = ControlWord::pin;
    u32 control = 0; ///< exists where this control may be 1; 0: always

    [[nodiscard]] constexpr bool exists(const VmxCapabilities& capabilities) const {
        return offset != 0 && (control == 0 || (capabilities.may_be_1(word) & control) != 0);
    }
};

namespace detail {
/// Compares characters, not views: to measure every row's name for every field takes more steps
/// than clang grants a constant expression.
constexpr std::size_t vmcs_row_of(const char* name) {
    const auto& rows = state::vmcs_rows<state::Vmcs>;
    for (std::size_t i = 0; i < rows.size(); ++i) {
        const char* left = name;
        const char* right = rows[i].name;
        while (*left != 0 && *left == *right) {
            ++left;
            ++right;
        }
        if (*left == *right) {
            return i;
        }
    }
    throw "no such VMCS field"; // in a constant expression: does not compile
}
} // namespace detail

/// Indexed as state::vmcs_rows<state::Vmcs>.
inline constexpr auto vmcs_fields = [] {
    std::array<VmcsField, state::vmcs_rows<state::Vmcs>.size()> fields{};
#define VMCS_FIELD(offset, name) fields[detail::vmcs_row_of(#name)] = {offset, {}, 0};
#define VMCS_FIELD_WHEN(offset, name, word, control)                                               \
    fields[detail::vmcs_row_of(#name)] = {offset, ControlWord::word, word##_control::control};
#include "engine/arch/vmcs_field.def"
#undef VMCS_FIELD
#undef VMCS_FIELD_WHEN
    return fields;
}();

/// Row of an encoding (bit 0 ignored), or null: no field of the schema.
constexpr const state::VmcsRow* vmcs_row(u32 encoding) {
    const auto& rows = state::vmcs_rows<state::Vmcs>;
    std::size_t low = 0, high = rows.size();
    while (low < high) {
        const std::size_t middle = (low + high) / 2;
        if (rows[middle].encoding < (encoding & ~u32{1})) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low < rows.size() && rows[low].encoding == (encoding & ~u32{1}) ? &rows[low] : nullptr;
}
constexpr const VmcsField& field_of(const state::VmcsRow& row) {
    return vmcs_fields[static_cast<std::size_t>(&row - state::vmcs_rows<state::Vmcs>.data())];
}

static_assert(
    [] {
        // Aligned, inside the region, and no two overlap.
        std::array<bool, 4096> taken{};
        const auto& rows = state::vmcs_rows<state::Vmcs>;
        for (std::size_t i = 0; i < rows.size(); ++i) {
            const VmcsField& f = vmcs_fields[i];
            for (u32 b = 0; f.offset != 0 && b < rows[i].size; ++b) {
                if (f.offset % rows[i].size != 0 || f.offset < 12 || taken[f.offset + b]) {
                    return false;
                }
                taken[f.offset + b] = true;
            }
        }
        return true;
    }(),
    "places in a VMCS region");

} // namespace nestor::arch
