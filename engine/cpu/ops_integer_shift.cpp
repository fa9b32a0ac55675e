// Shifts and rotates, SHLD and SHRD (SDM 2B).
#include "engine/cpu/ops_integer.hpp"
#include "engine/cpu/shift.hpp"

namespace nestor::cpu {
namespace {

using namespace arch;

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
