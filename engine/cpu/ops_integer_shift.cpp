// Shifts and rotates, SHLD and SHRD (SDM 2B).
//
// A masked count of 0 changes no flag. OF is defined for counts of 1 only and AF never; here OF
// follows the same formula for every count, and AF is cleared.
#include "engine/cpu/alu.hpp"
#include "engine/cpu/ops_integer.hpp"

namespace nestor::cpu {
namespace {

using namespace arch;

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
        set_all_flags(cpu,
                      result_flags(r) | (carry ? rflags::cf : 0) | (overflow ? rflags::of : 0));
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
    cpu.set_flags(rflags::cf | rflags::of, (carry ? rflags::cf : 0) | (overflow ? rflags::of : 0));
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
        cpu.set_flags(rflags::cf | rflags::of,
                      (carry ? rflags::cf : 0) | (overflow ? rflags::of : 0));
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
template <Shift kind, class T, bool flags>
struct ByCl {
    static T run(Cpu& cpu, const Op*, T v) {
        const unsigned count = cpu.reg<u8>(8) & count_mask<T>;
        return count == 0 ? v : any_shift<kind, T, flags>(cpu, v, count);
    }
};
template <class T>
struct Unchanged {
    static T run(Cpu&, const Op*, T v) { return v; }
};

template <Shift kind>
bool emit_shift_of(Emit& e) {
    return by_size(e.size(0), [&](auto t) {
        return by_bool(e.flags_live, [&](auto flags) {
            using T = decltype(t);
            if (!e.is_imm(1)) {
                return emit_modify<T, ByCl<kind, T, flags.value>>(e, 0);
            }
            e.op.imm = static_cast<i32>(imm_of(e, 1) & count_mask<T>);
            return e.op.imm == 0 ? emit_modify<T, Unchanged<T>>(e, 0)
                                 : emit_modify<T, ByImm<kind, T, flags.value>>(e, 0);
        });
    });
}

/// SHLD and SHRD. 16-bit operands with counts above 16 give an undefined result (SDM 2B SHLD):
/// here the bits of destination, source, destination follow each other, as on Intel processors.
template <bool left, class T, bool flags>
inline T double_shift(Cpu& cpu, T v, T other, unsigned count) {
    T r;
    bool carry;
    if constexpr (sizeof(T) == 2) {
        if (left) {
            const u64 wide = u64{v} << 32 | u64{other} << 16 | v;
            r = static_cast<T>(wide << count >> 32);
            carry = (wide << count >> 48 & 1) != 0;
        } else {
            const u64 wide = u64{v} << 32 | u64{other} << 16 | v;
            r = static_cast<T>(wide >> count);
            carry = (wide >> (count - 1) & 1) != 0;
        }
    } else if (left) {
        r = static_cast<T>(v << count | other >> (bits_of<T> - count));
        carry = (v >> (bits_of<T> - count) & 1) != 0;
    } else {
        r = static_cast<T>(v >> count | other << (bits_of<T> - count));
        carry = (v >> (count - 1) & 1) != 0;
    }
    if constexpr (flags) {
        set_all_flags(cpu, result_flags(r) | (carry ? rflags::cf : 0) |
                               (top(static_cast<T>(r ^ v)) ? rflags::of : 0));
    }
    return r;
}
template <bool left, class T, bool flags, bool by_cl>
struct DoubleShift {
    static T run(Cpu& cpu, const Op* op, T v) {
        const unsigned count =
            (by_cl ? cpu.reg<u8>(8) : static_cast<unsigned>(op->imm)) & count_mask<T>;
        return count == 0 ? v : double_shift<left, T, flags>(cpu, v, cpu.reg<T>(op->src), count);
    }
};
template <bool left>
bool emit_double_shift(Emit& e) {
    e.op.src = reg_of(e, 1);
    return by_wide_size(e.size(0), [&](auto t) {
        return by_bool(e.flags_live, [&](auto flags) {
            using T = decltype(t);
            if (e.is_imm(2)) {
                e.op.imm = static_cast<i32>(imm_of(e, 2));
                return emit_modify<T, DoubleShift<left, T, flags.value, false>>(e, 0);
            }
            return emit_modify<T, DoubleShift<left, T, flags.value, true>>(e, 0);
        });
    });
}

} // namespace

bool emit_shift(Emit& e) {
    switch (e.mnemonic()) {
    case ZYDIS_MNEMONIC_ROL:
        return emit_shift_of<Shift::rol>(e);
    case ZYDIS_MNEMONIC_ROR:
        return emit_shift_of<Shift::ror>(e);
    case ZYDIS_MNEMONIC_RCL:
        return emit_shift_of<Shift::rcl>(e);
    case ZYDIS_MNEMONIC_RCR:
        return emit_shift_of<Shift::rcr>(e);
    case ZYDIS_MNEMONIC_SHL:
        return emit_shift_of<Shift::shl>(e);
    case ZYDIS_MNEMONIC_SHR:
        return emit_shift_of<Shift::shr>(e);
    case ZYDIS_MNEMONIC_SAR:
        return emit_shift_of<Shift::sar>(e);
    case ZYDIS_MNEMONIC_SHLD:
        return emit_double_shift<true>(e);
    case ZYDIS_MNEMONIC_SHRD:
        return emit_double_shift<false>(e);
    default:
        return false;
    }
}

} // namespace nestor::cpu
