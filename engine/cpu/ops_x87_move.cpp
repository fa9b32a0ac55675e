// x87 loads, stores, exchanges and constants.
//
// A store that cannot be done (unmasked invalid, overflow or underflow) writes nothing and does not
// pop (SDM 1 8.5). Memory is written before anything is recorded, so that a store that faults has
// left no trace.
#include <cstring>

#include "engine/cpu/ops_x87.hpp"
#include "engine/cpu/x87_host.hpp"

namespace nestor::cpu::x87 {

namespace {

constexpr u16 keeps_memory = before_result | status::oe | status::ue;

/// Pushes onto a stack that may be full. `sw` holds what loading raised.
void push_checked(state::X87& f, const Extended& v, u16 sw) {
    if (!is_empty(f, 7)) {
        if (stack_fault(f, true)) {
            push(f, indefinite);
        }
        return;
    }
    record(f, sw);
    if (!refused(f, sw, before_result)) {
        push(f, v);
    }
}

template <class T, Load fn>
bool load(Cpu& cpu, const Op* op) {
    T value;
    if (!cpu.load(op, value)) {
        return false;
    }
    Extended v;
    const u16 sw = fn(&value, v, cpu.s.x87.control);
    push_checked(cpu.s.x87, v, sw);
    return true;
}

bool load_extended(Cpu& cpu, const Op* op) {
    Decimal value;
    if (!cpu.load(op, value)) {
        return false;
    }
    Extended v;
    std::memcpy(&v.significand, value.b, 8);
    std::memcpy(&v.sign_exponent, value.b + 8, 2);
    push_checked(cpu.s.x87, v, 0);
    return true;
}

bool load_register(Cpu& cpu, const Op* op) {
    state::X87& f = cpu.s.x87;
    if (is_empty(f, op->dst)) {
        if (stack_fault(f, false)) {
            push(f, indefinite);
        }
        return true;
    }
    push_checked(f, st(f, op->dst), 0);
    return true;
}

template <class T, Store fn, bool pops>
bool store(Cpu& cpu, const Op* op) {
    state::X87& f = cpu.s.x87;
    T value{};
    u16 sw;
    if (is_empty(f, 0)) {
        fn(indefinite, &value, f.control | status::exceptions);
        sw = status::ie | status::sf;
    } else {
        sw = fn(st(f, 0), &value, f.control);
    }
    const bool stored = !refused(f, sw, keeps_memory);
    u64 address;
    if (!cpu.linear(op, sizeof(T), Access::write, address)) {
        return false;
    }
    const arch::Seg segment = Cpu::operand_segment(op);
    if (!(stored ? cpu.store_linear(op, address, value, segment)
                 : cpu.probe_write(op, address, sizeof(T), segment))) {
        return false;
    }
    record(f, sw);
    if (stored && pops) {
        pop(f);
    }
    return true;
}

u16 store_80(const Extended& v, void* memory, u16) {
    std::memcpy(memory, &v.significand, 8);
    std::memcpy(static_cast<u8*>(memory) + 8, &v.sign_exponent, 2);
    return 0;
}

template <bool pops>
bool store_register(Cpu& cpu, const Op* op) {
    state::X87& f = cpu.s.x87;
    Extended v = indefinite;
    if (is_empty(f, 0)) {
        if (!stack_fault(f, false)) {
            return true;
        }
    } else {
        v = st(f, 0);
        record(f, 0);
    }
    set_st(f, op->dst, v);
    if constexpr (pops) {
        pop(f);
    }
    return true;
}

/// FSTPNCE (D9 D8+i): FSTP that does not report an empty register, and then only pops.
bool store_unchecked(Cpu& cpu, const Op* op) {
    state::X87& f = cpu.s.x87;
    record(f, 0);
    if (!is_empty(f, 0)) {
        set_st(f, op->dst, st(f, 0));
    }
    pop(f);
    return true;
}

bool exchange(Cpu& cpu, const Op* op) {
    state::X87& f = cpu.s.x87;
    Extended a = st(f, 0);
    Extended b = st(f, op->dst);
    if (is_empty(f, 0) || is_empty(f, op->dst)) {
        if (!stack_fault(f, false)) {
            return true;
        }
        a = is_empty(f, 0) ? indefinite : a;
        b = is_empty(f, op->dst) ? indefinite : b;
    } else {
        record(f, 0);
    }
    set_st(f, 0, b);
    set_st(f, op->dst, a);
    return true;
}

template <unsigned condition>
bool conditional(Cpu& cpu, const Op* op) {
    state::X87& f = cpu.s.x87;
    if (is_empty(f, 0) || is_empty(f, op->dst)) {
        if (stack_fault(f, false)) {
            set_st(f, 0, indefinite);
        }
        return true;
    }
    if (cpu.condition(condition)) {
        set_st(f, 0, st(f, op->dst));
    }
    return true;
}

template <bool clear>
bool set_sign(Cpu& cpu, const Op*) {
    state::X87& f = cpu.s.x87;
    if (is_empty(f, 0)) {
        if (stack_fault(f, false)) {
            set_st(f, 0, indefinite);
        }
        return true;
    }
    record(f, 0);
    f.sign_exponent[0] = clear ? f.sign_exponent[0] & 0x7fff : f.sign_exponent[0] ^ 0x8000;
    return true;
}

/// FLD1 to FLDZ, by op->dst (SDM 2A FLD1): the constants rounded as RC asks.
bool constant(Cpu& cpu, const Op* op) {
    struct Constant {
        u64 truncated;
        u16 exponent;
        bool nearest_up;
        bool exact;
    };
    static constexpr Constant constants[7] = {
        {0x8000000000000000, 0x3fff, false, true},  // 1
        {0xd49a784bcd1b8afe, 0x4000, false, false}, // log2(10)
        {0xb8aa3b295c17f0bb, 0x3fff, true, false},  // log2(e)
        {0xc90fdaa22168c234, 0x4000, true, false},  // pi
        {0x9a209a84fbcff798, 0x3ffd, true, false},  // log10(2)
        {0xb17217f7d1cf79ab, 0x3ffe, true, false},  // ln(2)
        {0, 0, false, true},                        // 0
    };
    const Constant& c = constants[op->dst];
    const unsigned rounding = cpu.s.x87.control >> 10 & 3; // nearest, down, up, zero
    const bool up = !c.exact && (rounding == 2 || (rounding == 0 && c.nearest_up));
    push_checked(cpu.s.x87, {c.truncated + (up ? 1u : 0u), c.exponent}, 0);
    return true;
}

template <bool pops>
bool free_register(Cpu& cpu, const Op* op) {
    set_empty(cpu.s.x87, op->dst);
    cpu.s.x87.status &= static_cast<u16>(~status::c1);
    if constexpr (pops) {
        pop(cpu.s.x87);
    }
    return true;
}

template <bool up>
bool step(Cpu& cpu, const Op*) {
    state::X87& f = cpu.s.x87;
    up ? rotate_up(f) : rotate_down(f);
    f.status &= static_cast<u16>(~status::c1);
    return true;
}

bool nothing(Cpu&, const Op*) { return true; }

OpFn memory_form(u8 opcode, unsigned reg) {
    switch (opcode << 4 | reg) {
    case 0xd90:
        return handler<load<u32, host_load_single>>;
    case 0xd92:
        return handler<store<u32, host_store_single, false>>;
    case 0xd93:
        return handler<store<u32, host_store_single, true>>;
    case 0xdb0:
        return handler<load<u32, host_load_int32>>;
    case 0xdb1:
        return handler<store<u32, host_truncate_int32, true>>;
    case 0xdb2:
        return handler<store<u32, host_store_int32, false>>;
    case 0xdb3:
        return handler<store<u32, host_store_int32, true>>;
    case 0xdb5:
        return handler<load_extended>;
    case 0xdb7:
        return handler<store<Decimal, store_80, true>>;
    case 0xdd0:
        return handler<load<u64, host_load_double>>;
    case 0xdd1:
        return handler<store<u64, host_truncate_int64, true>>;
    case 0xdd2:
        return handler<store<u64, host_store_double, false>>;
    case 0xdd3:
        return handler<store<u64, host_store_double, true>>;
    case 0xdf0:
        return handler<load<u16, host_load_int16>>;
    case 0xdf1:
        return handler<store<u16, host_truncate_int16, true>>;
    case 0xdf2:
        return handler<store<u16, host_store_int16, false>>;
    case 0xdf3:
        return handler<store<u16, host_store_int16, true>>;
    case 0xdf4:
        return handler<load<Decimal, host_load_decimal>>;
    case 0xdf5:
        return handler<load<u64, host_load_int64>>;
    case 0xdf6:
        return handler<store<Decimal, host_store_decimal, true>>;
    case 0xdf7:
        return handler<store<u64, host_store_int64, true>>;
    default:
        return nullptr;
    }
}

OpFn register_form_d9(u8 modrm) {
    switch (modrm >> 3 & 7) {
    case 0:
        return handler<load_register>;
    case 1:
        return handler<exchange>;
    case 2:
        return modrm == 0xd0 ? handler<nothing> : nullptr;
    case 3:
        return handler<store_unchecked>;
    case 4:
        return modrm == 0xe0   ? handler<set_sign<false>>
               : modrm == 0xe1 ? handler<set_sign<true>>
                               : nullptr;
    case 5:
        return modrm != 0xef ? handler<constant> : nullptr;
    case 6:
        return modrm == 0xf6 ? handler<step<false>> : modrm == 0xf7 ? handler<step<true>> : nullptr;
    default:
        return nullptr;
    }
}

OpFn register_form(u8 opcode, u8 modrm) {
    if (opcode == 0xd9) {
        return register_form_d9(modrm);
    }
    switch (opcode << 4 | (modrm >> 3 & 7)) {
    case 0xda0:
        return handler<conditional<2>>;
    case 0xda1:
        return handler<conditional<4>>;
    case 0xda2:
        return handler<conditional<6>>;
    case 0xda3:
        return handler<conditional<10>>;
    case 0xdb0:
        return handler<conditional<3>>;
    case 0xdb1:
        return handler<conditional<5>>;
    case 0xdb2:
        return handler<conditional<7>>;
    case 0xdb3:
        return handler<conditional<11>>;
    case 0xdd0:
        return handler<free_register<false>>;
    case 0xdf0:
        return handler<free_register<true>>;
    case 0xdd1:
    case 0xdf1:
        return handler<exchange>;
    case 0xdd2:
        return handler<store_register<false>>;
    case 0xdd3:
    case 0xdf2:
    case 0xdf3:
        return handler<store_register<true>>;
    default:
        return nullptr;
    }
}

} // namespace

OpFn moves(u8 opcode, u8 modrm) {
    return modrm >= 0xc0 ? register_form(opcode, modrm) : memory_form(opcode, modrm >> 3 & 7u);
}

} // namespace nestor::cpu::x87
