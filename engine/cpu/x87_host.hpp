// x87 arithmetic on the host's FPU, one operation at a time.
//
// Each function loads its operands, takes the guest's control word, executes one instruction and
// returns the status word. Exceptions are masked or not as the guest has them, so results are those
// of the guest's masks; a pending one is cleared before any instruction that would report it. The
// host's FPU is left as it was found: empty, control word 37FH.
#pragma once

#include <cstring>

#include "engine/cpu/x87.hpp"

namespace nestor::cpu::x87 {

inline constexpr u16 host_control = 0x37f;

using Binary = u16 (*)(const Extended& st0, const Extended& st1, Extended& result, u16 control);
using Unary = u16 (*)(const Extended& st0, Extended& result, u16 control);
using Memory = u16 (*)(const Extended& st0, const void* memory, Extended& result, u16 control);
using Load = u16 (*)(const void* memory, Extended& result, u16 control);
using Store = u16 (*)(const Extended& st0, void* memory, u16 control);

#define NESTOR_X87_END "\n\tfnstsw %[sw]\n\tfnclex\n\t"

#define NESTOR_X87_BINARY(name, insn)                                                              \
    inline u16 name(const Extended& a, const Extended& b, Extended& r, u16 control) {              \
        u16 sw;                                                                                    \
        asm volatile("fldt %[b]\n\tfldt %[a]\n\tfldcw %[cw]\n\t" insn NESTOR_X87_END               \
                     "fstpt %[r]\n\tfstp %%st(0)\n\tfldcw %[host]"                                 \
                     : [sw] "=&a"(sw), [r] "=m"(r)                                                 \
                     : [a] "m"(a), [b] "m"(b), [cw] "m"(control), [host] "m"(host_control)         \
                     : "st", "st(1)");                                                             \
        return sw;                                                                                 \
    }

#define NESTOR_X87_UNARY(name, insn)                                                               \
    inline u16 name(const Extended& a, Extended& r, u16 control) {                                 \
        u16 sw;                                                                                    \
        asm volatile("fldt %[a]\n\tfldcw %[cw]\n\t" insn NESTOR_X87_END                            \
                     "fstpt %[r]\n\tfldcw %[host]"                                                 \
                     : [sw] "=&a"(sw), [r] "=m"(r)                                                 \
                     : [a] "m"(a), [cw] "m"(control), [host] "m"(host_control)                     \
                     : "st");                                                                      \
        return sw;                                                                                 \
    }

#define NESTOR_X87_MEMORY(name, insn, type)                                                        \
    inline u16 name(const Extended& a, const void* memory, Extended& r, u16 control) {             \
        u16 sw;                                                                                    \
        type v;                                                                                    \
        std::memcpy(&v, memory, sizeof v);                                                         \
        asm volatile("fldt %[a]\n\tfldcw %[cw]\n\t" insn " %[v]" NESTOR_X87_END                    \
                     "fstpt %[r]\n\tfldcw %[host]"                                                 \
                     : [sw] "=&a"(sw), [r] "=m"(r)                                                 \
                     : [a] "m"(a), [v] "m"(v), [cw] "m"(control), [host] "m"(host_control)         \
                     : "st");                                                                      \
        return sw;                                                                                 \
    }

// A load whose operand exception is unmasked pushes nothing, so loads run with all masked; whether
// there is a result is up to the caller. Their result does not depend on the masks.
#define NESTOR_X87_LOAD(name, insn, type)                                                          \
    inline u16 name(const void* memory, Extended& r, u16 control) {                                \
        u16 sw;                                                                                    \
        const u16 masked = control | status::exceptions;                                           \
        type v;                                                                                    \
        std::memcpy(&v, memory, sizeof v);                                                         \
        asm volatile("fldcw %[cw]\n\t" insn " %[v]" NESTOR_X87_END "fstpt %[r]\n\tfldcw %[host]"   \
                     : [sw] "=&a"(sw), [r] "=m"(r)                                                 \
                     : [v] "m"(v), [cw] "m"(masked), [host] "m"(host_control)                      \
                     : "st");                                                                      \
        return sw;                                                                                 \
    }

// Stores do not pop: an unmasked exception would keep a popping form from doing so.
#define NESTOR_X87_STORE(name, insn, type)                                                         \
    inline u16 name(const Extended& a, void* memory, u16 control) {                                \
        u16 sw;                                                                                    \
        type v{};                                                                                  \
        asm volatile("fldt %[a]\n\tfldcw %[cw]\n\t" insn " %[v]" NESTOR_X87_END                    \
                     "fstp %%st(0)\n\tfldcw %[host]"                                               \
                     : [sw] "=&a"(sw), [v] "+m"(v)                                                 \
                     : [a] "m"(a), [cw] "m"(control), [host] "m"(host_control)                     \
                     : "st");                                                                      \
        std::memcpy(memory, &v, sizeof v);                                                         \
        return sw;                                                                                 \
    }

// Forms that exist only with pop run with all exceptions masked. None of them can overflow or
// underflow, so the result does not depend on the masks.
#define NESTOR_X87_STORE_POP(name, insn, type)                                                     \
    inline u16 name(const Extended& a, void* memory, u16 control) {                                \
        u16 sw;                                                                                    \
        const u16 masked = control | status::exceptions;                                           \
        type v{};                                                                                  \
        asm volatile("fldt %[a]\n\tfldcw %[cw]\n\t" insn " %[v]" NESTOR_X87_END "fldcw %[host]"    \
                     : [sw] "=&a"(sw), [v] "+m"(v)                                                 \
                     : [a] "m"(a), [cw] "m"(masked), [host] "m"(host_control)                      \
                     : "st");                                                                      \
        std::memcpy(memory, &v, sizeof v);                                                         \
        return sw;                                                                                 \
    }

struct Decimal {
    u8 b[10];
};

NESTOR_X87_BINARY(host_add, "fadd %%st(1), %%st")
NESTOR_X87_BINARY(host_mul, "fmul %%st(1), %%st")
NESTOR_X87_BINARY(host_com, "fcom %%st(1)")
NESTOR_X87_BINARY(host_ucom, "fucom %%st(1)")
// AT&T syntax: with st as the destination, fsub is ST - ST(1).
NESTOR_X87_BINARY(host_sub, "fsub %%st(1), %%st")
NESTOR_X87_BINARY(host_subr, "fsubr %%st(1), %%st")
NESTOR_X87_BINARY(host_div, "fdiv %%st(1), %%st")
NESTOR_X87_BINARY(host_divr, "fdivr %%st(1), %%st")
NESTOR_X87_BINARY(host_prem, "fprem")
NESTOR_X87_BINARY(host_prem1, "fprem1")
NESTOR_X87_BINARY(host_scale, "fscale")
NESTOR_X87_UNARY(host_sqrt, "fsqrt")
NESTOR_X87_UNARY(host_round, "frndint")
NESTOR_X87_UNARY(host_test, "ftst")
NESTOR_X87_UNARY(host_examine, "fxam")

#define NESTOR_X87_MEMORY_SET(suffix, i, size, type)                                               \
    NESTOR_X87_MEMORY(host_add_##suffix, "f" i "add" size, type)                                   \
    NESTOR_X87_MEMORY(host_mul_##suffix, "f" i "mul" size, type)                                   \
    NESTOR_X87_MEMORY(host_com_##suffix, "f" i "com" size, type)                                   \
    NESTOR_X87_MEMORY(host_sub_##suffix, "f" i "sub" size, type)                                   \
    NESTOR_X87_MEMORY(host_subr_##suffix, "f" i "subr" size, type)                                 \
    NESTOR_X87_MEMORY(host_div_##suffix, "f" i "div" size, type)                                   \
    NESTOR_X87_MEMORY(host_divr_##suffix, "f" i "divr" size, type)
NESTOR_X87_MEMORY_SET(single, "", "s", u32)
NESTOR_X87_MEMORY_SET(double, "", "l", u64)
NESTOR_X87_MEMORY_SET(int16, "i", "s", u16)
NESTOR_X87_MEMORY_SET(int32, "i", "l", u32)

NESTOR_X87_LOAD(host_load_single, "flds", u32)
NESTOR_X87_LOAD(host_load_double, "fldl", u64)
NESTOR_X87_LOAD(host_load_int16, "filds", u16)
NESTOR_X87_LOAD(host_load_int32, "fildl", u32)
NESTOR_X87_LOAD(host_load_int64, "fildll", u64)
NESTOR_X87_LOAD(host_load_decimal, "fbld", Decimal)

NESTOR_X87_STORE(host_store_single, "fsts", u32)
NESTOR_X87_STORE(host_store_double, "fstl", u64)
NESTOR_X87_STORE(host_store_int16, "fists", u16)
NESTOR_X87_STORE(host_store_int32, "fistl", u32)
NESTOR_X87_STORE_POP(host_store_int64, "fistpll", u64)
NESTOR_X87_STORE_POP(host_store_decimal, "fbstp", Decimal)
NESTOR_X87_STORE_POP(host_truncate_int16, "fisttps", u16)
NESTOR_X87_STORE_POP(host_truncate_int32, "fisttpl", u32)
NESTOR_X87_STORE_POP(host_truncate_int64, "fisttpll", u64)

/// FXTRACT: significand and exponent. Only #IA, #D and #Z are possible; all are masked here.
inline u16 host_extract(const Extended& a, Extended& significand, Extended& exponent, u16 control) {
    u16 sw;
    const u16 masked = control | status::exceptions;
    asm volatile("fldt %[a]\n\tfldcw %[cw]\n\tfxtract" NESTOR_X87_END
                 "fstpt %[s]\n\tfstpt %[e]\n\tfldcw %[host]"
                 : [sw] "=&a"(sw), [s] "=m"(significand), [e] "=m"(exponent)
                 : [a] "m"(a), [cw] "m"(masked), [host] "m"(host_control)
                 : "st", "st(1)");
    return sw;
}

#undef NESTOR_X87_END
#undef NESTOR_X87_BINARY
#undef NESTOR_X87_UNARY
#undef NESTOR_X87_MEMORY
#undef NESTOR_X87_MEMORY_SET
#undef NESTOR_X87_LOAD
#undef NESTOR_X87_STORE
#undef NESTOR_X87_STORE_POP

} // namespace nestor::cpu::x87
