// VM-instruction error numbers (SDM 3C 31.4).
#pragma once

#include <string_view>

#include "src/base/types.hpp"

namespace nestor::arch {

enum class VmxError : u32 {
#define VMX_ERROR(number, name, text) name = number,
#include "engine/arch/vmx_error.def"
#undef VMX_ERROR
};

/// The SDM's wording; "reserved" for a number that has none.
constexpr std::string_view text_of(VmxError error) {
    switch (error) {
#define VMX_ERROR(number, name, text)                                                              \
    case VmxError::name:                                                                           \
        return text;
#include "engine/arch/vmx_error.def"
#undef VMX_ERROR
    }
    return "reserved";
}

} // namespace nestor::arch
