// The parts of emit_integer, one per file. Each returns false when the instruction is not its own.
#pragma once

#include "engine/cpu/emit.hpp"

namespace nestor::cpu {

bool emit_move(Emit& e);     ///< ops_integer_move.cpp
bool emit_exchange(Emit& e); ///< ops_integer_exchange.cpp
bool emit_alu(Emit& e);      ///< ops_integer_alu.cpp
bool emit_shift(Emit& e);    ///< ops_integer_shift.cpp
bool emit_bits(Emit& e);     ///< ops_integer_bits.cpp
bool emit_bmi(Emit& e);      ///< ops_integer_bmi.cpp
bool emit_multiply(Emit& e); ///< ops_integer_multiply.cpp
bool emit_decimal(Emit& e);  ///< ops_integer_decimal.cpp
bool emit_stack(Emit& e);    ///< ops_integer_stack.cpp
bool emit_misc(Emit& e);     ///< ops_integer.cpp

/// Does nothing.
const Op* op_nop(Cpu& cpu, const Op* op);

} // namespace nestor::cpu
