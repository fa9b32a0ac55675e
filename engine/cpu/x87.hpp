// The x87 register file: what ops_x87*.cpp, MMX and the state-saving instructions share.
//
// Registers are kept in stack order, tags by physical register, as FXSAVE has them (SDM 1 10.5.1).
#pragma once

#include "engine/cpu/cpu.hpp"

namespace nestor::cpu::x87 {

namespace status {
inline constexpr u16 ie = 1, de = 2, ze = 4, oe = 8, ue = 16, pe = 32, sf = 64, es = 128,
                     c0 = 0x100, c1 = 0x200, c2 = 0x400, c3 = 0x4000, busy = 0x8000;
inline constexpr u16 exceptions = 0x3f;
inline constexpr u16 conditions = c0 | c1 | c2 | c3;
inline constexpr unsigned top_shift = 11;
inline constexpr u16 top = 7 << top_shift;
} // namespace status

/// Control words read back with bit 6 set and the reserved bits clear.
inline constexpr u16 control_writable = 0x1f3f, control_fixed = 0x40, control_initial = 0x37f;

inline unsigned top(const state::X87& f) { return f.status >> status::top_shift & 7; }

/// Sets ES and B from flags and masks (SDM 1 8.1.3.3).
inline void summarize(state::X87& f) {
    const bool pending = (f.status & ~f.control & status::exceptions) != 0;
    f.status &= static_cast<u16>(~(status::es | status::busy));
    f.status |= pending ? static_cast<u16>(status::es | status::busy) : u16{0};
}
inline void set_control(state::X87& f, u16 value) {
    f.control = static_cast<u16>((value & control_writable) | control_fixed);
    summarize(f);
}

/// Makes `value` TOP without moving register contents, which are kept in stack order.
void set_top(state::X87& f, unsigned value);

/// FNINIT's values. The registers themselves stay (SDM 2A FINIT).
void initialize(state::X87& f);

/// The initial configuration of XSAVE's x87 component, registers included (SDM 1 13.6).
inline bool is_initial(const state::X87& f) { return f == state::X87{}; }

/// A value in double extended-precision format.
struct Extended {
    u64 significand = 0;
    u16 sign_exponent = 0;

    [[nodiscard]] bool sign() const { return (sign_exponent & 0x8000) != 0; }
    [[nodiscard]] int exponent() const { return sign_exponent & 0x7fff; }
    bool operator==(const Extended&) const = default;
};
inline constexpr Extended indefinite{u64{3} << 62, 0xffff};

inline Extended st(const state::X87& f, unsigned i) {
    return {f.significand[i], f.sign_exponent[i]};
}
inline bool is_empty(const state::X87& f, unsigned i) {
    return (f.empty_mask >> ((top(f) + i) & 7) & 1) != 0;
}
/// Writes ST(i) and marks it as in use.
inline void set_st(state::X87& f, unsigned i, const Extended& v) {
    f.significand[i] = v.significand;
    f.sign_exponent[i] = v.sign_exponent;
    f.empty_mask &= static_cast<u8>(~(1u << ((top(f) + i) & 7)));
}
inline void set_empty(state::X87& f, unsigned i) {
    f.empty_mask |= static_cast<u8>(1u << ((top(f) + i) & 7));
}
/// Moves TOP by one and the stack order with it.
void rotate_down(state::X87& f); ///< TOP - 1, as a push does
void rotate_up(state::X87& f);   ///< TOP + 1, as a pop does

inline void push(state::X87& f, const Extended& v) {
    rotate_down(f);
    set_st(f, 0, v);
}
inline void pop(state::X87& f) {
    set_empty(f, 0);
    rotate_up(f);
}

/// Adds exception flags to the status and sets C1; `sw` is a status word of the host.
inline void record(state::X87& f, u16 sw) {
    f.status &= static_cast<u16>(~status::c1);
    f.status |= sw & (status::exceptions | status::sf | status::c1);
    summarize(f);
}
/// Whether an exception that keeps an instruction from having a result is unmasked in `sw`.
inline bool refused(const state::X87& f, u16 sw, u16 kinds) {
    return (sw & ~f.control & kinds) != 0;
}
inline constexpr u16 before_result = status::ie | status::de | status::ze;
/// Stack faults (SDM 1 8.5.1.1). True: masked, the response is to be given.
inline bool stack_fault(state::X87& f, bool overflow) {
    record(f, static_cast<u16>(status::ie | status::sf | (overflow ? status::c1 : 0)));
    return (f.control & status::ie) != 0;
}

} // namespace nestor::cpu::x87
