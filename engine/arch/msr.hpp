// Indices of model-specific registers (SDM 4 chapter 2).
#pragma once

#include <array>

#include "src/base/types.hpp"

namespace nestor::arch {

enum class Msr : u32 {
#define MSR_SPECIAL(index, name) name = index,
#define MSR_CONSTANT(index, name, value) name = index,
#define MSR_FIELD(index, name, member, writable) name = index,
#include "engine/arch/msr.def"
#undef MSR_SPECIAL
#undef MSR_CONSTANT
#undef MSR_FIELD
    x2apic_first = 0x800,
    x2apic_last = 0x8ff,
    efer = 0xc0000080,
};

/// Every MSR with a row.
inline constexpr auto msr_indices = std::to_array<u32>({
#define MSR_SPECIAL(index, name) index,
#define MSR_CONSTANT(index, name, value) index,
#define MSR_FIELD(index, name, member, writable) index,
#include "engine/arch/msr.def"
#undef MSR_SPECIAL
#undef MSR_CONSTANT
#undef MSR_FIELD
});

} // namespace nestor::arch
