// ADD to CMP, TEST, INC, DEC, NEG, NOT, ADCX, ADOX (SDM 2A, 2B).
//
// Each exists with and without flags: the decoder knows which flags nobody reads.
#include "engine/cpu/alu.hpp"
#include "engine/cpu/ops_integer.hpp"

namespace nestor::cpu {
namespace {

template <Alu operation, class T, bool flags>
bool emit_arithmetic(Emit& e) {
    if (e.is_mem(1)) {
        e.op.dst = reg_of(e, 0);
        return emit_read<T, AluLoad<operation, T, flags>, true>(e, 1);
    }
    if (e.is_imm(1)) {
        e.op.imm = static_cast<i32>(imm_of(e, 1));
        return emit_modify<T, AluImm<operation, T, flags>, true>(e, 0);
    }
    e.op.src = reg_of(e, 1);
    return emit_modify<T, AluReg<operation, T, flags>, true>(e, 0);
}
template <Alu operation, class T, bool flags>
bool emit_compare(Emit& e) {
    if (e.is_mem(1)) {
        e.op.dst = reg_of(e, 0);
        return emit_read<T, CompareLoad<operation, T, flags>, true>(e, 1);
    }
    if (e.is_imm(1)) {
        e.op.imm = static_cast<i32>(imm_of(e, 1));
        return emit_read<T, CompareImm<operation, T, flags>, true>(e, 0);
    }
    e.op.dst = reg_of(e, 1);
    return emit_read<T, CompareReg<operation, T, flags>, true>(e, 0);
}
template <Alu operation>
bool emit_two(Emit& e) {
    return by_size(e.size(0), [&](auto t) {
        return by_bool(e.flags_live, [&](auto flags) {
            using T = decltype(t);
            if constexpr (operation == Alu::cmp || operation == Alu::test) {
                return emit_compare<operation, T, flags.value>(e);
            } else {
                return emit_arithmetic<operation, T, flags.value>(e);
            }
        });
    });
}

template <class T, bool flags>
struct Neg {
    static T run(Cpu& cpu, const Op*, T v) { return alu<Alu::sub, T, flags>(cpu, T{0}, v); }
};
template <class T, bool flags>
struct Not {
    static T run(Cpu&, const Op*, T v) { return static_cast<T>(~v); }
};

template <template <class, bool> class Body>
bool emit_one(Emit& e) {
    return by_size(e.size(0), [&](auto t) {
        return by_bool(e.flags_live, [&](auto flags) {
            using T = decltype(t);
            return emit_modify<T, Body<T, flags.value>>(e, 0);
        });
    });
}

/// ADCX and ADOX: add with CF or OF as the only flag read and written.
template <class T, u64 flag>
struct AddWithFlag {
    static void run(Cpu& cpu, const Op* op, T v) {
        const u64 carry = (cpu.rflags() & flag) != 0 ? 1 : 0;
        const u128 sum = u128{cpu.reg<T>(op->dst)} + v + carry;
        cpu.set_reg<T>(op->dst, static_cast<T>(sum));
        cpu.set_flags(flag, (sum >> bits_of<T>) != 0 ? flag : 0);
    }
};
template <u64 flag>
bool emit_add_with_flag(Emit& e) {
    e.op.dst = reg_of(e, 0);
    return e.size(0) == 8 ? emit_read<u64, AddWithFlag<u64, flag>>(e, 1)
                          : emit_read<u32, AddWithFlag<u32, flag>>(e, 1);
}

} // namespace

bool emit_alu(Emit& e) {
    switch (e.mnemonic()) {
    case ZYDIS_MNEMONIC_ADD:
        return emit_two<Alu::add>(e);
    case ZYDIS_MNEMONIC_OR:
        return emit_two<Alu::or_>(e);
    case ZYDIS_MNEMONIC_ADC:
        return emit_two<Alu::adc>(e);
    case ZYDIS_MNEMONIC_SBB:
        return emit_two<Alu::sbb>(e);
    case ZYDIS_MNEMONIC_AND:
        return emit_two<Alu::and_>(e);
    case ZYDIS_MNEMONIC_SUB:
        return emit_two<Alu::sub>(e);
    case ZYDIS_MNEMONIC_XOR:
        return emit_two<Alu::xor_>(e);
    case ZYDIS_MNEMONIC_CMP:
        return emit_two<Alu::cmp>(e);
    case ZYDIS_MNEMONIC_TEST:
        return emit_two<Alu::test>(e);
    case ZYDIS_MNEMONIC_INC:
        return emit_one<Inc>(e);
    case ZYDIS_MNEMONIC_DEC:
        return emit_one<Dec>(e);
    case ZYDIS_MNEMONIC_NEG:
        return emit_one<Neg>(e);
    case ZYDIS_MNEMONIC_NOT:
        return emit_one<Not>(e);
    case ZYDIS_MNEMONIC_ADCX:
        return emit_add_with_flag<arch::rflags::cf>(e);
    case ZYDIS_MNEMONIC_ADOX:
        return emit_add_with_flag<arch::rflags::of>(e);
    default:
        return false;
    }
}

} // namespace nestor::cpu
