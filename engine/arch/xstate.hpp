// Extended state components and their place in the XSAVE area (SDM 1 13.4, 13.5).
//
// The layout belongs to the CPU profile nestor-v1 and is that of Intel processors with AVX-512, so
// that PKRU is where guests have always seen it. Every CPUID leaf 0DH has to agree with this table.
#pragma once

#include <array>

#include "src/base/bits.hpp"

namespace nestor::arch {

struct XComponent {
    u8 number;  ///< bit in XCR0 or XSS
    u16 offset; ///< in the standard format
    u16 size;
    bool aligned; ///< in the compacted format: on a multiple of 64
    bool supervisor;
};

/// Components behind the legacy region and the header, in order of number.
inline constexpr std::array<XComponent, 2> xcomponents = {{
    {2, 576, 256, false, false}, // AVX: the upper halves of YMM0..YMM15
    {9, 2688, 8, false, false},  // PKRU
}};

inline constexpr u16 xsave_legacy_size = 512;
inline constexpr u16 xsave_header_size = 64;
inline constexpr u16 xsave_minimum = xsave_legacy_size + xsave_header_size;
/// Bytes of the largest area: all components, standard format.
inline constexpr u16 xsave_maximum = 2696;

/// Bytes of an area in the standard format for the components in `mask` (CPUID 0DH.0:EBX).
constexpr u32 xsave_standard_size(u64 mask) {
    u32 size = xsave_minimum;
    for (const XComponent& c : xcomponents) {
        if ((mask >> c.number & 1) != 0 && u32{c.offset} + c.size > size) {
            size = u32{c.offset} + c.size;
        }
    }
    return size;
}

/// Offset of component `number` in the compacted format of an area with XCOMP_BV `mask`.
/// With number 63: the size of the area (CPUID 0DH.1:EBX).
constexpr u32 xsave_compacted_offset(u64 mask, unsigned number) {
    u32 offset = xsave_minimum;
    for (const XComponent& c : xcomponents) {
        if ((mask >> c.number & 1) == 0 || c.number > number) {
            continue;
        }
        offset = c.aligned ? static_cast<u32>(align_up(offset, 64)) : offset;
        if (c.number == number) {
            break;
        }
        offset += c.size;
    }
    return offset;
}

constexpr u32 xsave_compacted_size(u64 mask) { return xsave_compacted_offset(mask, 63); }

static_assert(xsave_standard_size(0x207) == xsave_maximum);
static_assert(xsave_standard_size(7) == 832 && xsave_standard_size(3) == xsave_minimum);
static_assert(xsave_compacted_size(0x207) == 840 && xsave_compacted_offset(0x207, 9) == 832);
static_assert(xsave_compacted_offset(0x203, 9) == 576);

} // namespace nestor::arch
