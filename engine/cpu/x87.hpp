// The x87 register file: what ops_x87*.cpp, MMX and the state-saving instructions share.
//
// Registers are kept in stack order, tags by physical register, as FXSAVE has them (SDM 1 10.5.1).
#pragma once

#include "engine/cpu/cpu.hpp"

namespace nestor::cpu::x87 {

namespace status {
inline constexpr u16 ie = 1, de = 2, ze = 4, oe = 8, ue = 16, pe = 32, sf = 64, es = 128, c0 = 0x100,
                     c1 = 0x200, c2 = 0x400, c3 = 0x4000, busy = 0x8000;
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

/// FNINIT's values. The registers themselves stay (SDM 2A FINIT).
inline void initialize(state::X87& f) {
    f.control = control_initial;
    f.status = 0;
    f.empty_mask = 0xff;
    f.opcode = 0;
    f.instruction_pointer = 0;
    f.data_pointer = 0;
}

/// The initial configuration of XSAVE's x87 component, registers included (SDM 1 13.6).
inline bool is_initial(const state::X87& f) { return f == state::X87{}; }

} // namespace nestor::cpu::x87
