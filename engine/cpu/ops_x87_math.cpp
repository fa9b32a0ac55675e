// x87 functions of one or two registers: roots, remainders, scaling, transcendentals.
//
// What IEEE 754 defines exactly runs on the host; the rest is x87_math.cpp.
#include <bit>

#include "engine/cpu/ops_x87.hpp"
#include "engine/cpu/x87_host.hpp"
#include "engine/cpu/x87_math.hpp"

namespace nestor::cpu::x87 {

namespace {

void set_conditions(state::X87& f, u16 bits, u16 sw) {
    f.status = static_cast<u16>((f.status & ~bits) | (sw & bits));
}

/// ST(0) = f(ST(0)). `reduces`: C2 says that the operand is out of range.
template <Unary fn, bool reduces>
bool unary(Cpu& cpu, const Op*) {
    state::X87& f = cpu.s.x87;
    Extended result = indefinite;
    u16 sw = 0;
    if constexpr (reduces) {
        set_conditions(f, status::c2, 0);
    }
    if (is_empty(f, 0)) {
        if (!stack_fault(f, false)) {
            return true;
        }
    } else {
        sw = fn(st(f, 0), result, f.control);
        record(f, sw);
        if (refused(f, sw, before_result)) {
            return true;
        }
    }
    if constexpr (reduces) {
        set_conditions(f, status::c2, sw);
        if ((sw & status::c2) != 0) {
            return true;
        }
    }
    set_st(f, 0, result);
    return true;
}

/// ST(target) = f(ST(0), ST(1)), then the stack is popped for target 1. `conditions` are taken over
/// from the operation.
template <Binary fn, unsigned target, u16 conditions>
bool binary(Cpu& cpu, const Op*) {
    state::X87& f = cpu.s.x87;
    Extended result = indefinite;
    set_conditions(f, conditions & status::c2, 0);
    if (is_empty(f, 0) || is_empty(f, 1)) {
        if (!stack_fault(f, false)) {
            return true;
        }
    } else {
        const u16 sw = fn(st(f, 0), st(f, 1), result, f.control);
        record(f, sw);
        if (refused(f, sw, before_result)) {
            return true;
        }
        // Without a quotient (an invalid operand or a NaN) its bits stay as they were.
        const bool no_quotient = result.exponent() == 0x7fff;
        set_conditions(f, no_quotient ? conditions & status::c2 : conditions, sw);
    }
    set_st(f, target, result);
    if constexpr (target == 1) {
        pop(f);
    }
    return true;
}

using Two = u16 (*)(const Extended& x, Extended& first, Extended& second, u16 control);

/// ST(0) = first result, then the second is pushed: FPTAN, FSINCOS.
template <Two fn>
bool push_second(Cpu& cpu, const Op*) {
    state::X87& f = cpu.s.x87;
    Extended first = indefinite;
    Extended second = indefinite;
    const bool underflow = is_empty(f, 0);
    u16 sw = 0;
    set_conditions(f, status::c2, 0);
    if (underflow || !is_empty(f, 7)) {
        if (!stack_fault(f, !underflow)) {
            return true;
        }
    } else {
        sw = fn(st(f, 0), first, second, f.control);
        record(f, sw);
        if (refused(f, sw, before_result)) {
            return true;
        }
    }
    set_conditions(f, status::c2, sw);
    if ((sw & status::c2) == 0) {
        set_st(f, 0, first);
        push(f, second);
    }
    return true;
}

/// A finite nonzero number of a supported encoding, its significand normalized.
struct Number {
    explicit Number(const Extended& v)
        : shift(std::countl_zero(v.significand)), significand(v.significand << (shift & 63)),
          exponent((v.exponent() == 0 ? 1 : v.exponent()) - shift),
          plain(v.significand != 0 && v.exponent() != 0x7fff && (v.exponent() == 0 || shift == 0)),
          denormal(v.exponent() == 0) {}

    int shift;
    u64 significand;
    int exponent;
    bool plain;
    bool denormal;
};

/// FPREM and FPREM1. How far an incomplete reduction goes is up to the processor (SDM 2A FPREM: 32
/// to 63 bits), so it is done here; what needs one step only runs on the host.
template <Binary host>
u16 remainder(const Extended& x, const Extended& y, Extended& result, u16 control) {
    const Number a(x);
    const Number b(y);
    const int difference = a.exponent - b.exponent;
    if (!a.plain || !b.plain || difference < 64) {
        return host(x, y, result, control);
    }
    const u16 sw = a.denormal || b.denormal ? status::de : u16{0};
    if ((sw & ~control) != 0) {
        return sw;
    }
    const int bits = (difference & 31) | 32;
    const u64 rest = static_cast<u64>((static_cast<u128>(a.significand) << bits) % b.significand);
    const int zeros = rest == 0 ? 0 : std::countl_zero(rest);
    int exponent = b.exponent + difference - bits - zeros;
    u64 significand = rest << zeros;
    if (exponent < 1) {
        significand >>= 1 - exponent; // exact: a multiple of the smallest denormal
        exponent = 0;
    }
    exponent = rest == 0 ? 0 : exponent;
    result = {significand, static_cast<u16>((x.sign_exponent & 0x8000) | exponent)};
    return sw | status::c2;
}

u16 extract_exponent_first(const Extended& x, Extended& exponent, Extended& significand,
                           u16 control) {
    return host_extract(x, significand, exponent, control) & static_cast<u16>(~status::c2);
}

bool extract(Cpu& cpu, const Op* op) {
    const u16 c2 = cpu.s.x87.status & status::c2;
    push_second<extract_exponent_first>(cpu, op);
    set_conditions(cpu.s.x87, status::c2, c2);
    return true;
}

constexpr u16 quotient_conditions = status::c0 | status::c2 | status::c3;

} // namespace

OpFn functions(u8 opcode, u8 modrm) {
    if (opcode != 0xd9) {
        return nullptr;
    }
    switch (modrm) {
    case 0xf0:
        return handler<unary<math_f2xm1, false>>;
    case 0xf1:
        return handler<binary<math_yl2x, 1, 0>>;
    case 0xf2:
        return handler<push_second<math_tan>>;
    case 0xf3:
        return handler<binary<math_atan, 1, 0>>;
    case 0xf4:
        return handler<extract>;
    case 0xf5:
        return handler<binary<remainder<host_prem1>, 0, quotient_conditions>>;
    case 0xf8:
        return handler<binary<remainder<host_prem>, 0, quotient_conditions>>;
    case 0xf9:
        return handler<binary<math_yl2xp1, 1, 0>>;
    case 0xfa:
        return handler<unary<host_sqrt, false>>;
    case 0xfb:
        return handler<push_second<math_sincos>>;
    case 0xfc:
        return handler<unary<host_round, false>>;
    case 0xfd:
        return handler<binary<host_scale, 0, 0>>;
    case 0xfe:
        return handler<unary<math_sin, true>>;
    case 0xff:
        return handler<unary<math_cos, true>>;
    default:
        return nullptr;
    }
}

} // namespace nestor::cpu::x87
