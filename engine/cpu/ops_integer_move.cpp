// MOV and its relatives: MOVZX, MOVSX, MOVSXD, MOVBE, MOVNTI, LEA, CMOVcc, SETcc, BSWAP, the CBW
// family, XLAT (SDM 2A, 2B). Moves of segment, control and debug registers are system's.
#include "engine/cpu/alu.hpp"
#include "engine/cpu/move.hpp"
#include "engine/cpu/ops_integer.hpp"

namespace nestor::cpu {
namespace {

struct StoreImm64 {
    static u64 run(Cpu&, const Op* op) { return op->aux; }
};
template <class T>
T byte_swap(T v) {
    if constexpr (sizeof(T) == 2) {
        return __builtin_bswap16(v);
    } else if constexpr (sizeof(T) == 4) {
        return __builtin_bswap32(v);
    } else {
        return __builtin_bswap64(v);
    }
}
template <class T>
struct LoadSwapped {
    static void run(Cpu& cpu, const Op* op, T v) { cpu.set_reg<T>(op->dst, byte_swap(v)); }
};
template <class T>
struct StoreSwapped {
    static T run(Cpu& cpu, const Op* op) { return byte_swap(cpu.reg<T>(op->src)); }
};
/// BSWAP. With a 16-bit operand the result is undefined (SDM 2A BSWAP); Intel's is zero.
template <class T>
struct Swap {
    static T run(Cpu&, const Op*, T v) { return sizeof(T) == 2 ? T{0} : byte_swap(v); }
};

// MOV with a 64-bit absolute offset, in op->aux.

template <class T>
[[gnu::noinline]] bool offset_load(Cpu& cpu, const Op* op) {
    u64 address;
    T v;
    if (!cpu.linear_general(op, op->aux, sizeof(T), Access::read, address) ||
        !cpu.load_linear(op, address, v, Cpu::operand_segment(op))) {
        return false;
    }
    cpu.set_reg<T>(0, v);
    return true;
}
template <class T>
[[gnu::noinline]] bool offset_store(Cpu& cpu, const Op* op) {
    u64 address;
    return cpu.linear_general(op, op->aux, sizeof(T), Access::write, address) &&
           cpu.store_linear(op, address, cpu.reg<T>(0), Cpu::operand_segment(op));
}
bool emit_offset_mov(Emit& e) {
    const bool load = e.is_mem(1);
    e.set_memory(load ? 1 : 0);
    e.op.aux = e.operand(load ? 1 : 0).mem.disp.value;
    if (e.d.insn.address_width == 32) {
        e.op.aux = static_cast<u32>(e.op.aux);
    } else if (e.d.insn.address_width == 16) {
        e.op.aux = static_cast<u16>(e.op.aux);
    }
    return by_size(e.size(0), [&](auto t) {
        using T = decltype(t);
        e.op.fn = load ? whole<offset_load<T>> : whole<offset_store<T>>;
        return true;
    });
}

bool is_general_register(ZydisRegister reg) {
    switch (ZydisRegisterGetClass(reg)) {
    case ZYDIS_REGCLASS_GPR8:
    case ZYDIS_REGCLASS_GPR16:
    case ZYDIS_REGCLASS_GPR32:
    case ZYDIS_REGCLASS_GPR64:
        return true;
    default:
        return false;
    }
}

bool emit_mov(Emit& e) {
    for (unsigned i = 0; i < 2; ++i) {
        if (e.is_reg(i) && !is_general_register(e.operand(i).reg.value)) {
            return false;
        }
    }
    const ZyanU8 opcode = e.d.insn.opcode;
    if (e.d.insn.opcode_map == ZYDIS_OPCODE_MAP_DEFAULT && opcode >= 0xa0 && opcode <= 0xa3) {
        return emit_offset_mov(e);
    }
    return by_size(e.size(0), [&](auto t) {
        using T = decltype(t);
        if (e.is_imm(1)) {
            const u64 value = imm_of(e, 1);
            e.op.imm = static_cast<i32>(value);
            e.op.aux = value;
            if (sizeof(T) == 8 && static_cast<u64>(i64{e.op.imm}) != value) {
                return emit_write<u64, StoreImm64>(e, 0);
            }
            return emit_write<T, StoreImm<T>, true>(e, 0);
        }
        if (e.is_mem(1)) {
            e.op.dst = reg_of(e, 0);
            return emit_read<T, LoadReg<T>, true>(e, 1);
        }
        e.op.src = reg_of(e, 1);
        return emit_write<T, StoreReg<T>, true>(e, 0);
    });
}

template <template <class, class> class Body>
bool emit_extend(Emit& e) {
    e.op.dst = reg_of(e, 0);
    return by_wide_size(e.size(0), [&](auto to) {
        return by_size(e.size(1), [&](auto from) {
            using To = decltype(to);
            using From = decltype(from);
            return emit_read<From, Body<From, To>, true>(e, 1);
        });
    });
}

// LEA. The segment does not matter.

template <class T>
const Op* op_lea(Cpu& cpu, const Op* op) {
    cpu.set_reg<T>(op->dst, static_cast<T>(cpu.offset_of(op)));
    return next(cpu, op);
}
bool emit_lea(Emit& e) {
    e.op.dst = reg_of(e, 0);
    e.set_memory(1);
    const bool truncates = (e.op.ea & (ea::address32 | ea::address16)) != 0;
    return by_wide_size(e.size(0), [&](auto t) {
        using T = decltype(t);
        e.op.fn = truncates                      ? op_lea<T>
                  : e.op.index == Cpu::zero_slot ? handler<Lea<T, Ea::base>>
                                                 : handler<Lea<T, Ea::indexed>>;
        return true;
    });
}

template <class T, unsigned cc>
struct Cmov {
    // A 32-bit destination is zero-extended also when nothing is moved (SDM 2A CMOVcc).
    static void run(Cpu& cpu, const Op* op, T v) {
        const T old = cpu.reg<T>(op->dst);
        cpu.set_reg<T>(op->dst, condition_of<cc>(cpu) ? v : old);
    }
};
template <unsigned cc>
struct Set {
    static u8 run(Cpu& cpu, const Op*) { return condition_of<cc>(cpu) ? 1 : 0; }
};

// The sign extensions of the accumulator.

template <class From, class To>
const Op* op_extend_accumulator(Cpu& cpu, const Op* op) {
    cpu.set_reg<To>(0, static_cast<To>(static_cast<Signed<From>>(cpu.reg<From>(0))));
    return next(cpu, op);
}
template <class T>
const Op* op_extend_to_rdx(Cpu& cpu, const Op* op) {
    cpu.set_reg<T>(16, static_cast<Signed<T>>(cpu.reg<T>(0)) < 0 ? static_cast<T>(~T{0}) : T{0});
    return next(cpu, op);
}

[[gnu::noinline]] bool xlat(Cpu& cpu, const Op* op) {
    u64 offset = cpu.gpr(arch::Gpr::rbx) + cpu.reg<u8>(0);
    if ((op->ea & ea::address32) != 0) {
        offset = static_cast<u32>(offset);
    } else if ((op->ea & ea::address16) != 0) {
        offset = static_cast<u16>(offset);
    }
    u64 address;
    u8 v;
    if (!cpu.linear_general(op, offset, 1, Access::read, address) ||
        !cpu.load_linear(op, address, v, Cpu::operand_segment(op))) {
        return false;
    }
    cpu.set_reg<u8>(0, v);
    return true;
}
/// The table's segment and the address size; the registers are fixed.
bool emit_xlat(Emit& e) {
    unsigned segment = static_cast<unsigned>(arch::Seg::ds);
    for (unsigned i = 0; i < e.d.insn.operand_count; ++i) {
        if (e.is_mem(i)) {
            segment = static_cast<unsigned>(e.operand(i).mem.segment - ZYDIS_REGISTER_ES);
        }
    }
    e.op.ea = static_cast<u8>(ea::general | segment << ea::segment_shift);
    e.op.ea |= e.d.insn.address_width == 32   ? ea::address32
               : e.d.insn.address_width == 16 ? ea::address16
                                              : 0;
    e.op.fn = whole<xlat>;
    return true;
}

bool emit_condition(Emit& e) {
    const ZyanU8 opcode = e.d.insn.opcode;
    if (e.d.insn.encoding != ZYDIS_INSTRUCTION_ENCODING_LEGACY ||
        e.d.insn.opcode_map != ZYDIS_OPCODE_MAP_0F) {
        return false;
    }
    if ((opcode & 0xf0) == 0x90) {
        return by_condition(opcode & 15,
                            [&](auto cc) { return emit_write<u8, Set<cc.value>>(e, 0); });
    }
    if ((opcode & 0xf0) == 0x40) {
        e.op.dst = reg_of(e, 0);
        return by_condition(opcode & 15, [&](auto cc) {
            return by_wide_size(e.size(0), [&](auto t) {
                using T = decltype(t);
                return emit_read<T, Cmov<T, cc.value>>(e, 1);
            });
        });
    }
    return false;
}

bool emit_movbe(Emit& e) {
    return by_wide_size(e.size(0), [&](auto t) {
        using T = decltype(t);
        if (e.is_mem(1)) {
            e.op.dst = reg_of(e, 0);
            return emit_read<T, LoadSwapped<T>>(e, 1);
        }
        e.op.src = reg_of(e, 1);
        return emit_write<T, StoreSwapped<T>>(e, 0);
    });
}

bool set(Emit& e, OpFn fn) {
    e.op.fn = fn;
    return true;
}

} // namespace

bool emit_move(Emit& e) {
    switch (e.mnemonic()) {
    case ZYDIS_MNEMONIC_MOV:
    case ZYDIS_MNEMONIC_MOVNTI:
        return emit_mov(e);
    case ZYDIS_MNEMONIC_MOVZX:
        return emit_extend<ZeroExtend>(e);
    case ZYDIS_MNEMONIC_MOVSX:
    case ZYDIS_MNEMONIC_MOVSXD:
        return emit_extend<SignExtend>(e);
    case ZYDIS_MNEMONIC_MOVBE:
        return emit_movbe(e);
    case ZYDIS_MNEMONIC_LEA:
        return emit_lea(e);
    case ZYDIS_MNEMONIC_BSWAP:
        return by_wide_size(e.size(0), [&](auto t) {
            using T = decltype(t);
            return emit_modify<T, Swap<T>>(e, 0);
        });
    case ZYDIS_MNEMONIC_CBW:
        return set(e, op_extend_accumulator<u8, u16>);
    case ZYDIS_MNEMONIC_CWDE:
        return set(e, op_extend_accumulator<u16, u32>);
    case ZYDIS_MNEMONIC_CDQE:
        return set(e, op_extend_accumulator<u32, u64>);
    case ZYDIS_MNEMONIC_CWD:
        return set(e, op_extend_to_rdx<u16>);
    case ZYDIS_MNEMONIC_CDQ:
        return set(e, op_extend_to_rdx<u32>);
    case ZYDIS_MNEMONIC_CQO:
        return set(e, op_extend_to_rdx<u64>);
    case ZYDIS_MNEMONIC_XLAT:
        return emit_xlat(e);
    default:
        return emit_condition(e);
    }
}

} // namespace nestor::cpu
