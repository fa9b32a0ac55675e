// VMX controls by name: masks, and a table that names the bits of a control word (SDM 3C 25.6).
#pragma once

#include <array>
#include <string_view>

#include "src/base/types.hpp"

namespace nestor::arch {

/// The five 32-bit control words of a VMCS.
enum class ControlWord : u8 { pin, proc, proc2, exit, entry };
inline constexpr std::size_t control_words = 5;

// Masks of single controls: pin_control::nmi_exiting, proc2_control::enable_ept...
#define VMX_CONTROL(word, bit, name, has)                                                          \
    namespace word##_control {                                                                     \
        inline constexpr u32 name = u32{1} << (bit);                                               \
    }
#include "engine/arch/vmx_control.def"
#undef VMX_CONTROL

struct VmxControlInfo {
    ControlWord word;
    u8 bit;
    std::string_view name;
};

inline constexpr auto vmx_controls = std::to_array<VmxControlInfo>({
#define VMX_CONTROL(word, bit, name, has) {ControlWord::word, bit, #name},
#include "engine/arch/vmx_control.def"
#undef VMX_CONTROL
});

static_assert(
    [] {
        for (std::size_t i = 1; i < vmx_controls.size(); ++i) {
            const auto &a = vmx_controls[i - 1], &b = vmx_controls[i];
            if (a.word > b.word || (a.word == b.word && a.bit >= b.bit)) {
                return false;
            }
        }
        return true;
    }(),
    "controls are ordered by word and bit, and none is listed twice");

/// The default1 class: bits that read 1 in both halves of the capability MSR without its TRUE form
/// (SDM 3D A.2). Indexed by ControlWord.
inline constexpr std::array<u32, control_words> default1 = {0x16, 0x0401e172, 0, 0x36dff, 0x11ff};

/// Name of the lowest control set in `bits`; "reserved" for a bit without a row.
constexpr std::string_view control_name(ControlWord word, u32 bits) {
    for (const VmxControlInfo& c : vmx_controls) {
        if (c.word == word && (bits & -bits) == u32{1} << c.bit) {
            return c.name;
        }
    }
    return "reserved";
}

} // namespace nestor::arch
