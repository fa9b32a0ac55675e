// Basic VM-exit reasons (SDM 3D appendix C).
#pragma once

#include <string_view>

#include "src/base/types.hpp"

namespace nestor::arch {

enum class ExitReason : u16 {
#define EXIT_REASON(number, name) name = number,
#include "engine/arch/exit_reason.def"
#undef EXIT_REASON
};

/// The SDM's name, lower-cased; "reserved" for a number that has none.
constexpr std::string_view name_of(ExitReason reason) {
    switch (reason) {
#define EXIT_REASON(number, name)                                                                  \
    case ExitReason::name:                                                                         \
        return #name;
#include "engine/arch/exit_reason.def"
#undef EXIT_REASON
    }
    return "reserved";
}

} // namespace nestor::arch
