// Memory types of PAT, MTRRs and EPT (SDM 3A 12.3, 12.12.2).
#pragma once

#include "src/base/types.hpp"

namespace nestor::arch {

/// PAT entries: 0, 1, 4, 5, 6 or 7 (SDM 3A 12.12.2).
constexpr bool valid_pat(u64 value) {
    for (unsigned i = 0; i < 8; ++i) {
        const u64 type = value >> (8 * i) & 0xff;
        if (type > 7 || type == 2 || type == 3) {
            return false;
        }
    }
    return true;
}

} // namespace nestor::arch
