// Indices of model-specific registers (SDM 4 chapter 2).
#pragma once

#include <array>
#include <optional>

#include "src/base/types.hpp"

namespace nestor::arch {

enum class Msr : u32 {
#define MSR_SPECIAL(index, name) name = index,
#define MSR_CONSTANT(index, name) name = index,
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
#define MSR_CONSTANT(index, name) index,
#define MSR_FIELD(index, name, member, writable) index,
#include "engine/arch/msr.def"
#undef MSR_SPECIAL
#undef MSR_CONSTANT
#undef MSR_FIELD
});

inline constexpr std::size_t msr_rows = msr_indices.size();

/// A row's place in the table.
enum class MsrRow : u8 {
#define MSR_SPECIAL(index, name) name,
#define MSR_CONSTANT(index, name) name,
#define MSR_FIELD(index, name, member, writable) name,
#include "engine/arch/msr.def"
#undef MSR_SPECIAL
#undef MSR_CONSTANT
#undef MSR_FIELD
};

constexpr std::optional<MsrRow> msr_row(u32 index) {
    switch (index) {
#define MSR_SPECIAL(number, name)                                                                  \
    case number:                                                                                   \
        return MsrRow::name;
#define MSR_CONSTANT(number, name) MSR_SPECIAL(number, name)
#define MSR_FIELD(number, name, member, writable) MSR_SPECIAL(number, name)
#include "engine/arch/msr.def"
#undef MSR_SPECIAL
#undef MSR_CONSTANT
#undef MSR_FIELD
    default:
        return std::nullopt;
    }
}

} // namespace nestor::arch
