// Stack rotation and initialization of the x87 register file.
//
// TOP names the physical register of ST(0). Registers are stored from ST(0) on, so a change of TOP
// alone is a rotation of the arrays; tags stay with the physical registers.
#include "engine/cpu/x87.hpp"

#include <algorithm>

namespace nestor::cpu::x87 {

namespace {

void store_top(state::X87& f, unsigned value) {
    f.status = static_cast<u16>((f.status & ~status::top) | (value & 7) << status::top_shift);
}

} // namespace

void set_top(state::X87& f, unsigned value) {
    const unsigned by = (value - top(f)) & 7;
    if (by != 0) {
        std::rotate(f.significand.begin(), f.significand.begin() + by, f.significand.end());
        std::rotate(f.sign_exponent.begin(), f.sign_exponent.begin() + by, f.sign_exponent.end());
        store_top(f, value);
    }
}

void rotate_down(state::X87& f) {
    const u64 significand = f.significand[7];
    const u16 sign_exponent = f.sign_exponent[7];
    std::copy_backward(f.significand.begin(), f.significand.begin() + 7, f.significand.end());
    std::copy_backward(f.sign_exponent.begin(), f.sign_exponent.begin() + 7, f.sign_exponent.end());
    f.significand[0] = significand;
    f.sign_exponent[0] = sign_exponent;
    store_top(f, top(f) - 1);
}

void rotate_up(state::X87& f) {
    const u64 significand = f.significand[0];
    const u16 sign_exponent = f.sign_exponent[0];
    std::copy(f.significand.begin() + 1, f.significand.end(), f.significand.begin());
    std::copy(f.sign_exponent.begin() + 1, f.sign_exponent.end(), f.sign_exponent.begin());
    f.significand[7] = significand;
    f.sign_exponent[7] = sign_exponent;
    store_top(f, top(f) + 1);
}

void initialize(state::X87& f) {
    set_top(f, 0);
    f.control = control_initial;
    f.status = 0;
    f.empty_mask = 0xff;
    f.opcode = 0;
    f.instruction_pointer = 0;
    f.data_pointer = 0;
}

} // namespace nestor::cpu::x87
