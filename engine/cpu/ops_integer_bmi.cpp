// BMI1 and BMI2 on general registers (SDM 2A, 2B, 2C): VEX-coded, 32 and 64 bits.
//
// op->imm holds the third register, the one that VEX.vvvv names, or the immediate of RORX.
// Undefined flags are zero.
#include "engine/cpu/alu.hpp"
#include "engine/cpu/ops_integer.hpp"

namespace nestor::cpu {
namespace {

using namespace arch;

template <class T>
T third(const Cpu& cpu, const Op* op) {
    return cpu.reg<T>(static_cast<u8>(op->imm));
}
template <class T>
void finish(Cpu& cpu, const Op* op, T result, bool carry) {
    cpu.set_reg<T>(op->dst, result);
    set_all_flags(cpu, (result_flags(result) & ~rflags::pf) | (carry ? rflags::cf : 0));
}

template <class T>
struct Andn { // destination, inverted register, operand
    static void run(Cpu& cpu, const Op* op, T v) {
        finish<T>(cpu, op, static_cast<T>(~third<T>(cpu, op)) & v, false);
    }
};
template <class T>
struct Bextr { // destination, operand, control register
    static void run(Cpu& cpu, const Op* op, T v) {
        const u64 control = third<T>(cpu, op);
        const unsigned start = control & 0xff;
        const unsigned length = control >> 8 & 0xff;
        T r = start < bits_of<T> ? static_cast<T>(v >> start) : T{0};
        if (length < bits_of<T>) {
            r &= static_cast<T>((T{1} << length) - 1);
        }
        cpu.set_reg<T>(op->dst, r);
        set_all_flags(cpu, r == 0 ? rflags::zf : 0);
    }
};
template <class T>
struct Blsi {
    static void run(Cpu& cpu, const Op* op, T v) {
        finish<T>(cpu, op, static_cast<T>(v & (T{0} - v)), v != 0);
    }
};
template <class T>
struct Blsmsk {
    static void run(Cpu& cpu, const Op* op, T v) {
        finish<T>(cpu, op, static_cast<T>(v ^ (v - 1)), v == 0);
    }
};
template <class T>
struct Blsr {
    static void run(Cpu& cpu, const Op* op, T v) {
        finish<T>(cpu, op, static_cast<T>(v & (v - 1)), v == 0);
    }
};
template <class T>
struct Bzhi { // destination, operand, index register
    static void run(Cpu& cpu, const Op* op, T v) {
        const unsigned n = third<T>(cpu, op) & 0xff;
        const bool beyond = n >= bits_of<T>;
        finish<T>(cpu, op, beyond ? v : static_cast<T>(v & ((T{1} << n) - 1)), beyond);
    }
};
template <class T>
struct Pdep { // destination, source register, mask operand
    static void run(Cpu& cpu, const Op* op, T mask) {
        T source = third<T>(cpu, op);
        T r = 0;
        for (; mask != 0; mask &= mask - 1, source >>= 1) {
            r |= (source & 1) != 0 ? static_cast<T>(mask & (T{0} - mask)) : T{0};
        }
        cpu.set_reg<T>(op->dst, r);
    }
};
template <class T>
struct Pext {
    static void run(Cpu& cpu, const Op* op, T mask) {
        const T source = third<T>(cpu, op);
        T r = 0;
        for (T one = 1; mask != 0; mask &= mask - 1, one <<= 1) {
            r |= (source & mask & (T{0} - mask)) != 0 ? one : T{0};
        }
        cpu.set_reg<T>(op->dst, r);
    }
};
template <class T>
struct Mulx { // high half, low half, operand; the other factor is EDX or RDX
    static void run(Cpu& cpu, const Op* op, T v) {
        const u128 product = u128{v} * cpu.reg<T>(16);
        cpu.set_reg<T>(static_cast<u8>(op->imm), static_cast<T>(product));
        cpu.set_reg<T>(op->dst, static_cast<T>(product >> bits_of<T>));
    }
};
template <class T>
struct Rorx {
    static void run(Cpu& cpu, const Op* op, T v) { cpu.set_reg<T>(op->dst, std::rotr(v, op->imm)); }
};
template <class T>
unsigned count(const Cpu& cpu, const Op* op) {
    return third<T>(cpu, op) & (bits_of<T> - 1);
}
template <class T>
struct Sarx {
    static void run(Cpu& cpu, const Op* op, T v) {
        cpu.set_reg<T>(op->dst, static_cast<T>(static_cast<Signed<T>>(v) >> count<T>(cpu, op)));
    }
};
template <class T>
struct Shlx {
    static void run(Cpu& cpu, const Op* op, T v) {
        cpu.set_reg<T>(op->dst, v << count<T>(cpu, op));
    }
};
template <class T>
struct Shrx {
    static void run(Cpu& cpu, const Op* op, T v) {
        cpu.set_reg<T>(op->dst, v >> count<T>(cpu, op));
    }
};

/// Operand numbers: where the register or memory operand is and where the third one, if any.
template <template <class> class Body>
bool emit_three(Emit& e, unsigned operand, unsigned other) {
    e.op.dst = reg_of(e, 0);
    if (e.is_imm(other)) {
        e.op.imm = static_cast<i32>(imm_of(e, other) & (e.size(0) * 8 - 1));
    } else if (other != 0) {
        e.op.imm = reg_of(e, other);
    }
    return e.size(0) == 8 ? emit_read<u64, Body<u64>>(e, operand)
                          : emit_read<u32, Body<u32>>(e, operand);
}

} // namespace

bool emit_bmi(Emit& e) {
    if (e.d.insn.encoding != ZYDIS_INSTRUCTION_ENCODING_VEX) {
        return false;
    }
    switch (e.mnemonic()) {
    case ZYDIS_MNEMONIC_ANDN:
        return emit_three<Andn>(e, 2, 1);
    case ZYDIS_MNEMONIC_BEXTR:
        return emit_three<Bextr>(e, 1, 2);
    case ZYDIS_MNEMONIC_BLSI:
        return emit_three<Blsi>(e, 1, 0);
    case ZYDIS_MNEMONIC_BLSMSK:
        return emit_three<Blsmsk>(e, 1, 0);
    case ZYDIS_MNEMONIC_BLSR:
        return emit_three<Blsr>(e, 1, 0);
    case ZYDIS_MNEMONIC_BZHI:
        return emit_three<Bzhi>(e, 1, 2);
    case ZYDIS_MNEMONIC_PDEP:
        return emit_three<Pdep>(e, 2, 1);
    case ZYDIS_MNEMONIC_PEXT:
        return emit_three<Pext>(e, 2, 1);
    case ZYDIS_MNEMONIC_MULX:
        return emit_three<Mulx>(e, 2, 1);
    case ZYDIS_MNEMONIC_RORX:
        return emit_three<Rorx>(e, 1, 2);
    case ZYDIS_MNEMONIC_SARX:
        return emit_three<Sarx>(e, 1, 2);
    case ZYDIS_MNEMONIC_SHLX:
        return emit_three<Shlx>(e, 1, 2);
    case ZYDIS_MNEMONIC_SHRX:
        return emit_three<Shrx>(e, 1, 2);
    default:
        return false;
    }
}

} // namespace nestor::cpu
