// BT, BTS, BTR, BTC, BSF, BSR, TZCNT, LZCNT, POPCNT, CRC32 (SDM 2A, 2B).
//
// A bit test with a register offset addresses a bit string in memory: the offset is signed and
// moves the effective address. BSF and BSR of zero leave the destination as it was, its upper
// half included.
#include "engine/cpu/alu.hpp"
#include "engine/cpu/ops_integer.hpp"

namespace nestor::cpu {
namespace {

using namespace arch;

enum class BitTest : u8 { test, set, reset, complement };

/// ZF is kept; the rest is CF and, being undefined, zero.
inline void set_bit_flags(Cpu& cpu, bool carry) {
    const bool zero = condition_of<4>(cpu);
    set_all_flags(cpu, (zero ? rflags::zf : 0) | (carry ? rflags::cf : 0));
}
template <BitTest kind, class T, bool flags>
inline T bit_test(Cpu& cpu, T v, unsigned n) {
    const T one = static_cast<T>(T{1} << n);
    if constexpr (flags) {
        set_bit_flags(cpu, (v & one) != 0);
    }
    switch (kind) {
    case BitTest::set:
        return v | one;
    case BitTest::reset:
        return v & static_cast<T>(~one);
    case BitTest::complement:
        return v ^ one;
    default:
        return v;
    }
}
template <BitTest kind, class T, bool flags>
struct BitImm {
    static T run(Cpu& cpu, const Op* op, T v) {
        return bit_test<kind, T, flags>(cpu, v, static_cast<unsigned>(op->imm));
    }
};
template <BitTest kind, class T, bool flags>
struct BitReg {
    static T run(Cpu& cpu, const Op* op, T v) {
        return bit_test<kind, T, flags>(cpu, v, cpu.reg<T>(op->src) & (bits_of<T> - 1));
    }
};
/// BT of a register op->src with the bit number in op->dst.
template <class T, bool flags>
struct BitTestReg {
    static void run(Cpu& cpu, const Op* op, T v) {
        bit_test<BitTest::test, T, flags>(cpu, v, cpu.reg<T>(op->dst) & (bits_of<T> - 1));
    }
};
/// BT only reads.
template <class T, bool flags, class Body>
struct BitRead {
    static void run(Cpu& cpu, const Op* op, T v) { Body::run(cpu, op, v); }
};

template <BitTest kind, class T, bool flags>
[[gnu::noinline]] bool bit_string(Cpu& cpu, const Op* op) {
    constexpr Access access = kind == BitTest::test ? Access::read : Access::write;
    const T index = cpu.reg<T>(op->src);
    u64 offset = cpu.offset_of(op) + static_cast<u64>(i64{static_cast<Signed<T>>(index)} >>
                                                      std::countr_zero(bits_of<T>)) *
                                         sizeof(T);
    u64 address = offset;
    if (is_general(op)) {
        if ((op->ea & ea::address32) != 0) {
            offset = static_cast<u32>(offset);
        } else if ((op->ea & ea::address16) != 0) {
            offset = static_cast<u16>(offset);
        }
        if (!cpu.linear_general(op, offset, sizeof(T), access, address)) {
            return false;
        }
    }
    T v;
    const arch::Seg segment = Cpu::operand_segment(op);
    if constexpr (kind == BitTest::test) {
        if (!cpu.load_linear(op, address, v, segment)) {
            return false;
        }
        bit_test<kind, T, flags>(cpu, v, index & (bits_of<T> - 1));
        return true;
    } else {
        const TlbEntry& e = cpu.tlb.at(address);
        if (e.writes(address, sizeof(T)) && e.reads(address, sizeof(T))) {
            v = host_load<T>(e.host(address));
        } else if (!cpu.load_for_write_slow(op, address, &v, sizeof v, segment)) {
            return false;
        }
        const Undo undo(cpu);
        v = bit_test<kind, T, flags>(cpu, v, index & (bits_of<T> - 1));
        if (!cpu.store_linear(op, address, v, segment)) {
            undo.restore(cpu);
            return false;
        }
        return true;
    }
}

template <BitTest kind>
bool emit_bit_test(Emit& e) {
    return by_wide_size(e.size(0), [&](auto t) {
        return by_bool(e.flags_live, [&](auto flags) {
            using T = decltype(t);
            constexpr bool live = flags.value;
            if (e.is_imm(1)) {
                e.op.imm = static_cast<i32>(imm_of(e, 1) & (bits_of<T> - 1));
                using Body = BitImm<kind, T, live>;
                return kind == BitTest::test ? emit_read<T, BitRead<T, live, Body>>(e, 0)
                                             : emit_modify<T, Body>(e, 0);
            }
            e.op.src = reg_of(e, 1);
            if (!e.is_mem(0)) {
                if constexpr (kind == BitTest::test) {
                    e.op.dst = e.op.src; // ReadReg has the operand in src
                    return emit_read<T, BitTestReg<T, live>>(e, 0);
                } else {
                    return emit_modify<T, BitReg<kind, T, live>>(e, 0);
                }
            }
            e.set_memory(0);
            e.op.fn = whole<bit_string<kind, T, live>>;
            return true;
        });
    });
}

// Counting. CF and ZF or ZF alone are defined; the rest is zero.

template <class T>
struct ScanForward {
    static void run(Cpu& cpu, const Op* op, T v) {
        if (v != 0) {
            cpu.set_reg<T>(op->dst, static_cast<T>(std::countr_zero(v)));
        }
        set_all_flags(cpu, v == 0 ? rflags::zf : 0);
    }
};
template <class T>
struct ScanReverse {
    static void run(Cpu& cpu, const Op* op, T v) {
        if (v != 0) {
            cpu.set_reg<T>(op->dst, static_cast<T>(bits_of<T> - 1 - std::countl_zero(v)));
        }
        set_all_flags(cpu, v == 0 ? rflags::zf : 0);
    }
};
template <class T>
struct CountTrailing {
    static void run(Cpu& cpu, const Op* op, T v) {
        const T n = static_cast<T>(std::countr_zero(v));
        cpu.set_reg<T>(op->dst, n);
        set_all_flags(cpu, (v == 0 ? rflags::cf : 0) | (n == 0 ? rflags::zf : 0));
    }
};
template <class T>
struct CountLeading {
    static void run(Cpu& cpu, const Op* op, T v) {
        const T n = static_cast<T>(std::countl_zero(v));
        cpu.set_reg<T>(op->dst, n);
        set_all_flags(cpu, (v == 0 ? rflags::cf : 0) | (n == 0 ? rflags::zf : 0));
    }
};
template <class T>
struct PopulationCount {
    static void run(Cpu& cpu, const Op* op, T v) {
        cpu.set_reg<T>(op->dst, static_cast<T>(std::popcount(v)));
        set_all_flags(cpu, v == 0 ? rflags::zf : 0);
    }
};
template <template <class> class Body>
bool emit_count(Emit& e) {
    e.op.dst = reg_of(e, 0);
    return by_wide_size(e.size(0), [&](auto t) {
        using T = decltype(t);
        return emit_read<T, Body<T>>(e, 1);
    });
}

/// CRC-32C of one operand, bit by bit in reflected form (SDM 2A CRC32).
constexpr std::array<u32, 256> crc_table = [] {
    std::array<u32, 256> table{};
    for (u32 i = 0; i < 256; ++i) {
        u32 c = i;
        for (int k = 0; k < 8; ++k) {
            c = c >> 1 ^ ((c & 1) != 0 ? 0x82f63b78u : 0);
        }
        table[i] = c;
    }
    return table;
}();
template <class T>
struct Crc {
    static void run(Cpu& cpu, const Op* op, T v) {
        u32 c = cpu.reg<u32>(op->dst);
        for (unsigned i = 0; i < sizeof(T); ++i) {
            c = c >> 8 ^ crc_table[(c ^ static_cast<u32>(v >> (8 * i))) & 0xff];
        }
        cpu.set_reg<u32>(op->dst, c);
    }
};

} // namespace

bool emit_bits(Emit& e) {
    switch (e.mnemonic()) {
    case ZYDIS_MNEMONIC_BT:
        return emit_bit_test<BitTest::test>(e);
    case ZYDIS_MNEMONIC_BTS:
        return emit_bit_test<BitTest::set>(e);
    case ZYDIS_MNEMONIC_BTR:
        return emit_bit_test<BitTest::reset>(e);
    case ZYDIS_MNEMONIC_BTC:
        return emit_bit_test<BitTest::complement>(e);
    case ZYDIS_MNEMONIC_BSF:
        return emit_count<ScanForward>(e);
    case ZYDIS_MNEMONIC_BSR:
        return emit_count<ScanReverse>(e);
    case ZYDIS_MNEMONIC_TZCNT:
        return emit_count<CountTrailing>(e);
    case ZYDIS_MNEMONIC_LZCNT:
        return emit_count<CountLeading>(e);
    case ZYDIS_MNEMONIC_POPCNT:
        return emit_count<PopulationCount>(e);
    case ZYDIS_MNEMONIC_CRC32:
        e.op.dst = reg_of(e, 0);
        return by_size(e.size(1), [&](auto t) {
            using T = decltype(t);
            return emit_read<T, Crc<T>>(e, 1);
        });
    default:
        return false;
    }
}

} // namespace nestor::cpu
