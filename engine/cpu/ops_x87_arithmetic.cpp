// x87 arithmetic and comparison: FADD to FDIVR, FCOM, FUCOM, FCOMI, FTST, FXAM.
//
// The stack is looked after here, the operation itself runs on the host (x87_host.hpp). An
// instruction whose exception is unmasked ends without a result and leaves the report to the next
// waiting one (SDM 1 8.6, 8.7).
#include <cstring>

#include "engine/cpu/ops_x87.hpp"
#include "engine/cpu/x87_host.hpp"

namespace nestor::cpu::x87 {

namespace {

constexpr u16 compared = status::c0 | status::c2 | status::c3;

// By ModRM.reg: ADD MUL COM COMP SUB SUBR DIV DIVR.
constexpr Binary binary_ops[8] = {host_add, host_mul,  host_com, host_com,
                                  host_sub, host_subr, host_div, host_divr};
constexpr Memory single_ops[8] = {host_add_single, host_mul_single, host_com_single,
                                  host_com_single, host_sub_single, host_subr_single,
                                  host_div_single, host_divr_single};
constexpr Memory double_ops[8] = {host_add_double, host_mul_double, host_com_double,
                                  host_com_double, host_sub_double, host_subr_double,
                                  host_div_double, host_divr_double};
constexpr Memory int16_ops[8] = {host_add_int16, host_mul_int16,  host_com_int16, host_com_int16,
                                 host_sub_int16, host_subr_int16, host_div_int16, host_divr_int16};
constexpr Memory int32_ops[8] = {host_add_int32, host_mul_int32,  host_com_int32, host_com_int32,
                                 host_sub_int32, host_subr_int32, host_div_int32, host_divr_int32};

void set_conditions(state::X87& f, u16 sw) {
    f.status = static_cast<u16>((f.status & ~compared) | (sw & compared));
}

void pop_n(state::X87& f, unsigned n) {
    for (; n != 0; --n) {
        pop(f);
    }
}

/// The outcome of a comparison. An unmasked invalid operand leaves condition codes and stack as
/// they are (SDM 2A FCOM); an unmasked denormal operand is compared, but nothing is popped.
void finish_compare(state::X87& f, u16 sw, unsigned pops) {
    record(f, sw);
    if (!refused(f, sw, status::ie)) {
        set_conditions(f, sw);
        pop_n(f, refused(f, sw, status::de) ? 0 : pops);
    }
}

// --- ST(i) ---------------------------------------------------------------------------------------

/// ST(target) = ST(target) op ST(other).
template <bool to_sti, bool pops>
bool binary(Cpu& cpu, const Op* op) {
    state::X87& f = cpu.s.x87;
    const unsigned target = to_sti ? op->dst : 0;
    const unsigned other = to_sti ? 0 : op->dst;
    // DC and DE exchange the codes of SUB and SUBR, DIV and DIVR.
    const unsigned which = to_sti && op->src >= 4 ? op->src ^ 1u : op->src;
    Extended result = indefinite;
    if (is_empty(f, 0) || is_empty(f, op->dst)) {
        if (!stack_fault(f, false)) {
            return true;
        }
    } else {
        const u16 sw = binary_ops[which](st(f, target), st(f, other), result, f.control);
        record(f, sw);
        if (refused(f, sw, before_result)) {
            return true;
        }
    }
    set_st(f, target, result);
    if constexpr (pops) {
        pop(f);
    }
    return true;
}

template <Binary fn, unsigned pops>
bool compare(Cpu& cpu, const Op* op) {
    state::X87& f = cpu.s.x87;
    if (is_empty(f, 0) || is_empty(f, op->dst)) {
        if (stack_fault(f, false)) {
            set_conditions(f, compared);
            pop_n(f, pops);
        }
        return true;
    }
    Extended unused;
    finish_compare(f, fn(st(f, 0), st(f, op->dst), unused, f.control | before_result), pops);
    return true;
}

/// FCOMI and its kin: the result goes to EFLAGS.
template <Binary fn, unsigned pops>
bool compare_flags(Cpu& cpu, const Op* op) {
    using namespace arch;
    state::X87& f = cpu.s.x87;
    u16 sw = compared;
    if (is_empty(f, 0) || is_empty(f, op->dst)) {
        if (!stack_fault(f, false)) {
            return true;
        }
    } else {
        Extended unused;
        sw = fn(st(f, 0), st(f, op->dst), unused, f.control | before_result);
        record(f, sw);
        if (refused(f, sw, status::ie)) {
            return true;
        }
    }
    pop_n(f, refused(f, f.status, status::de) ? 0 : pops);
    cpu.set_flags(rflags::arithmetic, ((sw & status::c3) != 0 ? rflags::zf : 0) |
                                          ((sw & status::c2) != 0 ? rflags::pf : 0) |
                                          ((sw & status::c0) != 0 ? rflags::cf : 0));
    return true;
}

bool test(Cpu& cpu, const Op*) {
    state::X87& f = cpu.s.x87;
    if (is_empty(f, 0)) {
        if (stack_fault(f, false)) {
            set_conditions(f, compared);
        }
        return true;
    }
    Extended unused;
    finish_compare(f, host_test(st(f, 0), unused, f.control | before_result), 0);
    return true;
}

/// FXAM raises nothing and looks at empty registers too (SDM 2A FXAM).
bool examine(Cpu& cpu, const Op*) {
    state::X87& f = cpu.s.x87;
    u16 sw = status::c3 | status::c0;
    if (!is_empty(f, 0)) {
        Extended unused;
        sw = host_examine(st(f, 0), unused, f.control);
    }
    set_conditions(f, sw);
    f.status &= static_cast<u16>(~status::c1);
    f.status |= st(f, 0).sign() ? status::c1 : u16{0};
    return true;
}

// --- memory --------------------------------------------------------------------------------------

template <class T, const Memory (&ops)[8]>
bool memory(Cpu& cpu, const Op* op) {
    state::X87& f = cpu.s.x87;
    T value;
    if (!cpu.load(op, value)) {
        return false;
    }
    const bool compares = op->src == 2 || op->src == 3;
    const unsigned pops = op->src == 3 ? 1 : 0;
    if (is_empty(f, 0)) {
        if (stack_fault(f, false)) {
            if (compares) {
                set_conditions(f, compared);
                pop_n(f, pops);
            } else {
                set_st(f, 0, indefinite);
            }
        }
        return true;
    }
    Extended result;
    if (compares) {
        const u16 control = f.control | before_result;
        finish_compare(f, ops[op->src](st(f, 0), &value, result, control), pops);
        return true;
    }
    const u16 sw = ops[op->src](st(f, 0), &value, result, f.control);
    record(f, sw);
    if (!refused(f, sw, before_result)) {
        set_st(f, 0, result);
    }
    return true;
}

OpFn register_form(u8 opcode, u8 modrm) {
    const unsigned reg = modrm >> 3 & 7;
    const bool compares = reg == 2 || reg == 3;
    switch (opcode) {
    case 0xd8:
        return reg == 2   ? handler<compare<host_com, 0>>
               : reg == 3 ? handler<compare<host_com, 1>>
                          : handler<binary<false, false>>;
    case 0xd9:
        return modrm == 0xe4 ? handler<test> : modrm == 0xe5 ? handler<examine> : nullptr;
    case 0xda:
        return modrm == 0xe9 ? handler<compare<host_ucom, 2>> : nullptr;
    case 0xdb:
        return reg == 5   ? handler<compare_flags<host_ucom, 0>>
               : reg == 6 ? handler<compare_flags<host_com, 0>>
                          : nullptr;
    case 0xdc:
        return reg == 2   ? handler<compare<host_com, 0>>
               : reg == 3 ? handler<compare<host_com, 1>>
                          : handler<binary<true, false>>;
    case 0xdd:
        return reg == 4   ? handler<compare<host_ucom, 0>>
               : reg == 5 ? handler<compare<host_ucom, 1>>
                          : nullptr;
    case 0xde:
        if (compares) {
            return modrm == 0xd9 ? handler<compare<host_com, 2>> : handler<compare<host_com, 1>>;
        }
        return handler<binary<true, true>>;
    default:
        return reg == 5   ? handler<compare_flags<host_ucom, 1>>
               : reg == 6 ? handler<compare_flags<host_com, 1>>
                          : nullptr;
    }
}

} // namespace

OpFn arithmetic(u8 opcode, u8 modrm) {
    if (modrm >= 0xc0) {
        return register_form(opcode, modrm);
    }
    switch (opcode) {
    case 0xd8:
        return handler<memory<u32, single_ops>>;
    case 0xda:
        return handler<memory<u32, int32_ops>>;
    case 0xdc:
        return handler<memory<u64, double_ops>>;
    case 0xde:
        return handler<memory<u16, int16_ops>>;
    default:
        return nullptr;
    }
}

} // namespace nestor::cpu::x87
