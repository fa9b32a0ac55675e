// Bodies and Steps of the plain moves (operands.hpp), for ops_integer_move.cpp and ops_pairs.cpp.
#pragma once

#include "engine/cpu/operands.hpp"

namespace nestor::cpu {

template <class T>
struct LoadReg {
    static void run(Cpu& cpu, const Op* op, T v) { cpu.set_reg<T>(op->dst, v); }
};
template <class T>
struct StoreReg {
    static T run(Cpu& cpu, const Op* op) { return cpu.reg<T>(op->src); }
};
template <class T>
struct StoreImm {
    static T run(Cpu&, const Op* op) { return static_cast<T>(op->imm); }
};
template <class From, class To>
struct ZeroExtend {
    static void run(Cpu& cpu, const Op* op, From v) { cpu.set_reg<To>(op->dst, v); }
};
template <class From, class To>
struct SignExtend {
    static void run(Cpu& cpu, const Op* op, From v) {
        cpu.set_reg<To>(op->dst, static_cast<To>(static_cast<Signed<From>>(v)));
    }
};

/// LEA whose sum is not truncated to the address size.
template <class T, Ea form>
struct Lea : RegisterStep {
    [[gnu::always_inline]] static bool run(Cpu& cpu, const Op* op) {
        cpu.set_reg<T>(op->dst, static_cast<T>(fast_address<form>(cpu, op)));
        return true;
    }
};

} // namespace nestor::cpu
