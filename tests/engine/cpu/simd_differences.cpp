// What SIMD judges do differently from nestor-v1, by vendor; see simd_differences.hpp.
#include "tests/engine/cpu/simd_differences.hpp"

#include <cstring>

namespace nestor::test {

bool differs_on_purpose(const SimdForm& form) {
    switch (form.mnemonic) {
    // Approximations: tables of the host's vendor. simd_math_test.cpp has their bounds.
    case ZYDIS_MNEMONIC_RCPPS:
    case ZYDIS_MNEMONIC_RCPSS:
    case ZYDIS_MNEMONIC_RSQRTPS:
    case ZYDIS_MNEMONIC_RSQRTSS:
    case ZYDIS_MNEMONIC_VRCPPS:
    case ZYDIS_MNEMONIC_VRCPSS:
    case ZYDIS_MNEMONIC_VRSQRTPS:
    case ZYDIS_MNEMONIC_VRSQRTSS:
        return true;
    default:
        return false;
    }
}

namespace {

bool same_but_for_mxcsr(const Case& c, const Result& judge, Result guest) {
    guest.end.mxcsr = judge.end.mxcsr;
    return compare(c, judge, guest, 0).empty();
}

/// Unmasked overflow or underflow: nestor-v1 reports PE as the masked response would set it.
bool differs_in_precision(const Case& c, const Result& judge, const Result& guest) {
    Result same_precision = guest;
    same_precision.end.mxcsr ^= 0x20;
    const u32 unmasked = judge.end.mxcsr & ~(judge.end.mxcsr >> 7) & 0x18;
    return judge.vector == 19 && unmasked != 0 && compare(c, judge, same_precision, 0).empty();
}

/// Where an AMD processor and nestor-v1 may end differently, case by case.
bool excused_amd(const SimdForm& form, const Case& c, const Result& judge, const Result& guest) {
    switch (form.mnemonic) {
    case ZYDIS_MNEMONIC_SHA1RNDS4:
    case ZYDIS_MNEMONIC_SHA1NEXTE:
    case ZYDIS_MNEMONIC_SHA1MSG1:
    case ZYDIS_MNEMONIC_SHA1MSG2:
    case ZYDIS_MNEMONIC_SHA256RNDS2:
    case ZYDIS_MNEMONIC_SHA256MSG1:
    case ZYDIS_MNEMONIC_SHA256MSG2:
        // AMD does not check the alignment of SHA operands; on Intel they are of exception type 4.
        return guest.vector == 13;
    case ZYDIS_MNEMONIC_DPPS:
    case ZYDIS_MNEMONIC_DPPD:
    case ZYDIS_MNEMONIC_VDPPS:
    case ZYDIS_MNEMONIC_VDPPD:
        // Unmasked exceptions of intermediate results end the instruction; nestor-v1 looks at the
        // final one.
        return judge.vector == 19 && same_but_for_mxcsr(c, judge, guest);
    default:
        return differs_in_precision(c, judge, guest);
    }
}

/// The mask of a gather with each element spread from its most significant bit.
Result with_spread_mask(const Case& c, Result guest) {
    const unsigned mask = static_cast<unsigned>(~c.code[2] >> 3 & 15); // VEX.vvvv
    const bool wide = (c.code[2] & 0x80) != 0;                         // VEX.W: 64-bit elements
    const bool upper = (c.code[2] & 4) != 0;                           // VEX.L
    for (unsigned i = 0; i < 4; ++i) {
        u64& word = guest.end.vector[4 * mask + i];
        const u64 high = 0 - (word >> 63);
        const u64 low = wide ? high : 0 - (word >> 31 & 1);
        word = i >= 2 && !upper ? 0 : (high & 0xffffffff00000000) | (low & 0xffffffff);
    }
    return guest;
}
/// The same with the upper half of the destination cleared, as at the end (SDM 2C VGATHERDPD).
Result with_cleared_upper(const Case& c, Result guest) {
    const unsigned destination =
        (c.code[1] & 0x80) != 0 ? c.code[4] >> 3 & 7 : 8 | (c.code[4] >> 3 & 7);
    if ((c.code[2] & 4) == 0) {
        guest.end.vector[4 * destination + 2] = guest.end.vector[4 * destination + 3] = 0;
    }
    return guest;
}

/// The same of an Intel processor.
bool excused_intel(const SimdForm& form, const Case& c, const Result& judge, const Result& guest) {
    const bool both_fault = judge.vector == 14 && guest.vector == 14;
    if (both_fault && form.vsib) {
        // All of the mask is spread before the first element is loaded, as SDM 2C VGATHERDPD has
        // it; nestor-v1 leaves the elements that are still to do as they were. The upper half is
        // cleared once an element is there, though others are not.
        const Result spread = with_spread_mask(c, guest);
        return compare(c, judge, spread, 0).empty() ||
               compare(c, judge, with_cleared_upper(c, spread), 0).empty();
    }
    if (both_fault && form.mmx && form.memory) {
        // An MMX store goes to MMX state before it faults.
        Result entered = guest;
        entered.end.x87 = judge.end.x87;
        return compare(c, judge, entered, 0).empty();
    }
    if (guest.vector == 14 && form.mnemonic == ZYDIS_MNEMONIC_VCVTPS2PH) {
        // The flags of the conversion are there before the store faults, and its unmasked
        // exceptions are taken before.
        return judge.vector == 19 || same_but_for_mxcsr(c, judge, guest);
    }
    switch (form.mnemonic) {
    case ZYDIS_MNEMONIC_DPPS:
    case ZYDIS_MNEMONIC_DPPD:
    case ZYDIS_MNEMONIC_VDPPS:
    case ZYDIS_MNEMONIC_VDPPD:
        // As AMD's, but for the flags also where all are masked.
        return same_but_for_mxcsr(c, judge, guest);
    default:
        break;
    }
    return differs_in_precision(c, judge, guest);
}

/// The judge's registers with Cpu's choice where both have a NaN.
void take_nans(Result& judge, const Result& guest) {
    const auto single = [](u64 v) { return (v & 0x7fffffff) > 0x7f800000; };
    const auto wide = [](u64 v) { return (v & ~(u64{1} << 63)) > u64{0x7ff} << 52; };
    for (unsigned i = 0; i < 64; ++i) {
        u64& j = judge.end.vector[i];
        const u64 g = guest.end.vector[i];
        if (wide(j) && wide(g)) {
            j = g;
        }
        if (single(j) && single(g)) {
            j = (j & 0xffffffff00000000) | (g & 0xffffffff);
        }
        if (single(j >> 32) && single(g >> 32)) {
            j = (j & 0xffffffff) | (g & 0xffffffff00000000);
        }
    }
}

/// The same of QEMU 7.2.
bool excused_qemu(const SimdForm& form, const Case& c, Result judge, const Result& guest) {
    constexpr u32 denormal = 2;
    constexpr u32 daz_and_fz = 0x8040;
    // It does not check alignment, has no unmasked exceptions, does not ignore VEX.L of scalars
    // (SDM 2A 2.3.6.2), does not do DAZ and FZ everywhere, and leaves a gather that faults at
    // another element or not at all where registers are the same.
    const bool scalar = form.name.find("256") == std::string::npos;
    if (guest.vector == 13 || guest.vector == 19 || (form.l && scalar) ||
        (c.start.mxcsr & daz_and_fz) != 0 || (form.vsib && guest.vector != 3)) {
        return true;
    }
    switch (form.mnemonic) {
    case ZYDIS_MNEMONIC_EMMS: // keeps TOP
    case ZYDIS_MNEMONIC_CVTPI2PD:
    case ZYDIS_MNEMONIC_CVTPI2PS: // go to MMX state for an operand in memory, too
        judge.end.x87 = guest.end.x87;
        break;
    default:
        break;
    }
    // It reads more than the operand, and elements that a mask leaves out.
    const bool masked = form.name.find("maskmov") != std::string::npos;
    if (judge.vector == 14 && form.memory && (guest.vector == 3 || masked)) {
        return true;
    }
    if (judge.vector == 14 && guest.vector == 14) {
        judge.end.mxcsr = guest.end.mxcsr; // flags of a conversion whose store faults
    }
    take_nans(judge, guest); // it takes the larger significand (SDM 1 4.8.3.5: the first operand)
    // It does not report denormal operands (SDM 1 11.5.2.2), does not fill the exponent of an MMX
    // result (SDM 1 9.2.1), and goes to MMX state before a fault.
    judge.end.mxcsr = (judge.end.mxcsr & ~denormal) | (guest.end.mxcsr & denormal);
    if (form.mmx) {
        for (unsigned i = 0; i < 8; ++i) {
            std::memcpy(&judge.end.x87[40 + 16 * i], &guest.end.x87[40 + 16 * i], 2);
        }
        if (guest.vector == 14 && judge.vector == 14) {
            judge.end.x87 = guest.end.x87;
        }
    }
    return compare(c, judge, guest, 0).empty();
}

} // namespace

bool excused(Vendor vendor, const SimdForm& form, const Case& c, const Ends& ends) {
    switch (form.mnemonic) {
    case ZYDIS_MNEMONIC_MASKMOVQ:
    case ZYDIS_MNEMONIC_MASKMOVDQU:
    case ZYDIS_MNEMONIC_VMASKMOVDQU:
        // Bytes that are not enabled may be touched (SDM 2B MASKMOVDQU), all of them do that; and
        // MMX state comes before the fault.
        if (ends.judge.vector == 14) {
            return true;
        }
        break;
    default:
        break;
    }
    switch (vendor) {
    case Vendor::amd:
        return excused_amd(form, c, ends.judge, ends.guest);
    case Vendor::intel:
        return excused_intel(form, c, ends.judge, ends.guest);
    case Vendor::qemu:
        return excused_qemu(form, c, ends.judge, ends.guest);
    }
    return false;
}

} // namespace nestor::test
