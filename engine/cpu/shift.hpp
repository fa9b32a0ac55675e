// Shifts and rotates of one operand, for ops_integer_shift.cpp and ops_pairs.cpp (SDM 2B).
//
// A masked count of 0 changes no flag. OF is defined for counts of 1 only and AF never; here OF
// follows the same formula for every count, and AF is cleared.
#pragma once

#include "engine/cpu/alu.hpp"

namespace nestor::cpu {

enum class Shift : u8 { rol, ror, rcl, rcr, shl, shr, sar };

template <class T>
inline constexpr unsigned count_mask = sizeof(T) == 8 ? 63 : 31;

template <class T>
constexpr bool top(T v) {
    return static_cast<Signed<T>>(v) < 0;
}
/// OF of the instructions that move right: whether the two top bits differ.
template <class T>
constexpr bool top_two_differ(T r) {
    return top(static_cast<T>(r ^ (r << 1)));
}

/// `count` is masked and not zero.
template <Shift kind, class T, bool flags>
inline T shift(Cpu& cpu, T v, unsigned count) {
    T r;
    bool carry;
    if constexpr (kind == Shift::shl) {
        if constexpr (sizeof(T) == 8) {
            r = v << count;
            carry = (v >> (64 - count) & 1) != 0;
        } else {
            const u64 wide = u64{v} << count;
            r = static_cast<T>(wide);
            carry = (wide >> bits_of<T> & 1) != 0;
        }
    } else if constexpr (kind == Shift::shr) {
        r = static_cast<T>(u64{v} >> count);
        carry = (u64{v} >> (count - 1) & 1) != 0;
    } else {
        const i64 wide = static_cast<Signed<T>>(v);
        r = static_cast<T>(wide >> count);
        carry = (wide >> (count - 1) & 1) != 0;
    }
    if constexpr (flags) {
        const bool overflow = kind == Shift::shl ? top(r) != carry : top_two_differ(r);
        set_all_flags(cpu, result_flags(r) | (carry ? arch::rflags::cf : 0) |
                               (overflow ? arch::rflags::of : 0));
    }
    return r;
}

/// Through carry: bits + 1 positions. The count is masked, then taken modulo them.
template <Shift kind, class T>
inline T rotate_through_carry(Cpu& cpu, T v, unsigned count) {
    constexpr unsigned width = bits_of<T> + 1;
    count %= width;
    bool carry = cpu.cf();
    T r = v;
    if (count != 0) {
        u128 wide = u128{carry} << bits_of<T> | v;
        const unsigned left = kind == Shift::rcl ? count : width - count;
        wide = wide << left | wide >> (width - left);
        r = static_cast<T>(wide);
        carry = (wide >> bits_of<T> & 1) != 0;
    }
    const bool overflow = kind == Shift::rcl ? top(r) != carry : top_two_differ(r);
    cpu.set_flags(arch::rflags::cf | arch::rflags::of,
                  (carry ? arch::rflags::cf : 0) | (overflow ? arch::rflags::of : 0));
    return r;
}
template <Shift kind, class T, bool flags>
inline T rotate(Cpu& cpu, T v, unsigned count) {
    T r;
    if constexpr (kind == Shift::rol) {
        r = std::rotl(v, static_cast<int>(count));
    } else {
        r = std::rotr(v, static_cast<int>(count));
    }
    if constexpr (flags) {
        const bool carry = kind == Shift::rol ? (r & 1) != 0 : top(r);
        const bool overflow = kind == Shift::rol ? top(r) != carry : top_two_differ(r);
        cpu.set_flags(arch::rflags::cf | arch::rflags::of,
                      (carry ? arch::rflags::cf : 0) | (overflow ? arch::rflags::of : 0));
    }
    return r;
}

template <Shift kind, class T, bool flags>
inline T any_shift(Cpu& cpu, T v, unsigned count) {
    if constexpr (kind == Shift::rcl || kind == Shift::rcr) {
        return rotate_through_carry<kind>(cpu, v, count);
    } else if constexpr (kind == Shift::rol || kind == Shift::ror) {
        return rotate<kind, T, flags>(cpu, v, count);
    } else {
        return shift<kind, T, flags>(cpu, v, count);
    }
}

template <Shift kind, class T, bool flags>
struct ByImm { // op->imm is masked and not zero
    static T run(Cpu& cpu, const Op* op, T v) {
        return any_shift<kind, T, flags>(cpu, v, static_cast<unsigned>(op->imm));
    }
};

} // namespace nestor::cpu
