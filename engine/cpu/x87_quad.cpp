// Rounding of 113-bit results to extended precision (SDM 1 4.8.4, 4.9.1, 8.5).
//
// Tininess is found after rounding. Unmasked overflow and underflow give the result with its
// exponent moved by 24576, as the x87 does for register destinations.
#include "engine/cpu/x87_quad.hpp"

#include <bit>

namespace nestor::cpu::x87 {

namespace {

constexpr int bias = 16383;
constexpr int minimum = -16382; ///< smallest exponent of a normal number
constexpr int maximum = 16383;
constexpr int wrap = 24576;

enum class Rounding : u8 { nearest, down, up, zero };

/// A significand of 128 bits, bit 127 set; the lowest bit also stands for all below it.
struct Wide {
    bool sign;
    int exponent;
    u128 significand;
};

bool rounds_up(u64 kept, u64 rest, bool sign, Rounding mode) {
    constexpr u64 half = u64{1} << 63;
    switch (mode) {
    case Rounding::nearest:
        return rest > half || (rest == half && (kept & 1) != 0);
    case Rounding::down:
        return sign && rest != 0;
    case Rounding::up:
        return !sign && rest != 0;
    case Rounding::zero:
        break;
    }
    return false;
}

struct Rounded {
    u64 significand;
    bool carry; ///< the significand is 2^64
    bool inexact;
    bool up;
};

Rounded round64(const Wide& v, Rounding mode) {
    const u64 kept = static_cast<u64>(v.significand >> 64);
    const u64 rest = static_cast<u64>(v.significand);
    const bool up = rounds_up(kept, rest, v.sign, mode);
    const u64 sum = kept + (up ? 1 : 0);
    return {sum, up && sum == 0, rest != 0, up};
}

u128 shift_right_sticky(u128 v, int by) {
    if (by >= 128) {
        return v != 0 ? 1 : 0;
    }
    const u128 lost = by == 0 ? 0 : v << (128 - by);
    return v >> by | (lost != 0 ? 1 : 0);
}

Extended make(bool sign, int biased, u64 significand) {
    return {significand, static_cast<u16>((sign ? 0x8000 : 0) | biased)};
}

Extended overflowed(const Wide& v, Rounding mode, u16& sw) {
    sw |= status::oe | status::pe;
    const bool infinite = mode == Rounding::nearest || (mode == Rounding::up && !v.sign) ||
                          (mode == Rounding::down && v.sign);
    sw |= infinite ? status::c1 : u16{0};
    return infinite ? make(v.sign, 0x7fff, u64{1} << 63) : make(v.sign, 0x7ffe, ~u64{0});
}

Extended round_wide(Wide v, u16 control, u16& sw) {
    const Rounding mode = static_cast<Rounding>(control >> 10 & 3);
    Rounded r = round64(v, mode);
    int exponent = v.exponent + (r.carry ? 1 : 0);
    if (exponent < minimum) {
        if ((control & status::ue) != 0) {
            v.significand = shift_right_sticky(v.significand, minimum - v.exponent);
            r = round64(v, mode);
            sw |= r.inexact ? static_cast<u16>(status::ue | status::pe) : u16{0};
            sw |= r.up ? status::c1 : u16{0};
            return make(v.sign, (r.significand >> 63) != 0 ? 1 : 0, r.significand);
        }
        sw |= status::ue;
        exponent += wrap;
    } else if (exponent > maximum) {
        if ((control & status::oe) != 0) {
            return overflowed(v, mode, sw);
        }
        sw |= status::oe;
        exponent -= wrap;
    }
    sw |= r.inexact ? status::pe : u16{0};
    sw |= r.up ? status::c1 : u16{0};
    return make(v.sign, exponent + bias, r.carry ? u64{1} << 63 : r.significand);
}

} // namespace

Scaled split(const Extended& v) {
    const int zeros = std::countl_zero(v.significand);
    const u64 significand = v.significand << zeros;
    const u128 bits = static_cast<u128>(v.sign() ? bias | 0x8000 : bias) << 112 |
                      static_cast<u128>(significand << 1) << 48;
    const int biased = v.exponent() == 0 ? 1 : v.exponent();
    return {__builtin_bit_cast(Quad, bits), biased - bias - zeros};
}

Scaled split(Quad v) {
    u128 bits = __builtin_bit_cast(u128, v);
    const int exponent = static_cast<int>(bits >> 112 & 0x7fff) - bias;
    bits &= ~(static_cast<u128>(0x7fff) << 112);
    return {__builtin_bit_cast(Quad, bits | static_cast<u128>(bias) << 112), exponent};
}

Extended round_to_extended(Scaled v, bool exact, u16 control, u16& sw) {
    const Scaled s = split(v.fraction);
    const u128 bits = __builtin_bit_cast(u128, s.fraction);
    const u128 significand =
        ((bits & ((static_cast<u128>(1) << 112) - 1)) | static_cast<u128>(1) << 112) << 15;
    return round_wide({(bits >> 127) != 0, s.exponent + v.exponent, significand | (exact ? 0 : 1)},
                      control, sw);
}

Extended round_near(const Extended& v, bool away_from_zero, u16 control, u16& sw) {
    const int zeros = std::countl_zero(v.significand);
    const int biased = v.exponent() == 0 ? 1 : v.exponent();
    Wide wide{v.sign(), biased - bias - zeros, static_cast<u128>(v.significand << zeros) << 64};
    wide.significand = away_from_zero ? wide.significand | 1 : wide.significand - 1;
    if ((wide.significand >> 127) == 0) {
        wide.significand = wide.significand << 1 | 1;
        --wide.exponent;
    }
    return round_wide(wide, control, sw);
}

} // namespace nestor::cpu::x87
