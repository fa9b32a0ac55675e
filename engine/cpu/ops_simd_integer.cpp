// The commonest two-operand SIMD instructions compiled into handlers, which saves the call of a
// thunk: what string functions and vectorised loops are made of.
//
// Compiled for AVX2, which every host that runs nestor-v1 has. Legacy and VEX forms of an
// instruction differ in where the first operand comes from, in alignment, and in what happens to
// bits 255:128.
#include <cstring>

#include <immintrin.h>

#include "engine/cpu/simd.hpp"

#define NESTOR_AVX2 [[gnu::target("avx2")]]

namespace nestor::cpu::simd {

namespace {

enum class Width : u8 { legacy, vex128, vex256 };

#define NESTOR_SIMD_OPERATION(name, narrow, wide)                                                  \
    struct name {                                                                                  \
        NESTOR_AVX2 static inline __m128i f(__m128i a, __m128i b) { return narrow(a, b); }         \
        NESTOR_AVX2 static inline __m256i f(__m256i a, __m256i b) { return wide(a, b); }           \
    };
#define NESTOR_SIMD_INTEGER(name, suffix) NESTOR_SIMD_OPERATION(name, _mm_##suffix, _mm256_##suffix)
NESTOR_SIMD_INTEGER(Paddb, add_epi8)
NESTOR_SIMD_INTEGER(Paddw, add_epi16)
NESTOR_SIMD_INTEGER(Paddd, add_epi32)
NESTOR_SIMD_INTEGER(Paddq, add_epi64)
NESTOR_SIMD_INTEGER(Psubb, sub_epi8)
NESTOR_SIMD_INTEGER(Psubw, sub_epi16)
NESTOR_SIMD_INTEGER(Psubd, sub_epi32)
NESTOR_SIMD_INTEGER(Psubq, sub_epi64)
NESTOR_SIMD_INTEGER(Pcmpeqb, cmpeq_epi8)
NESTOR_SIMD_INTEGER(Pcmpeqw, cmpeq_epi16)
NESTOR_SIMD_INTEGER(Pcmpeqd, cmpeq_epi32)
NESTOR_SIMD_INTEGER(Pcmpgtb, cmpgt_epi8)
NESTOR_SIMD_INTEGER(Pcmpgtd, cmpgt_epi32)
NESTOR_SIMD_INTEGER(Pminub, min_epu8)
NESTOR_SIMD_INTEGER(Pmaxub, max_epu8)
NESTOR_SIMD_INTEGER(Pshufb, shuffle_epi8)
NESTOR_SIMD_INTEGER(Punpcklbw, unpacklo_epi8)
NESTOR_SIMD_INTEGER(Punpcklwd, unpacklo_epi16)
NESTOR_SIMD_INTEGER(Punpckldq, unpacklo_epi32)
NESTOR_SIMD_INTEGER(Punpcklqdq, unpacklo_epi64)
NESTOR_SIMD_INTEGER(Punpckhqdq, unpackhi_epi64)
NESTOR_SIMD_OPERATION(Pand, _mm_and_si128, _mm256_and_si256)
NESTOR_SIMD_OPERATION(Pandn, _mm_andnot_si128, _mm256_andnot_si256)
NESTOR_SIMD_OPERATION(Por, _mm_or_si128, _mm256_or_si256)
NESTOR_SIMD_OPERATION(Pxor, _mm_xor_si128, _mm256_xor_si256)

/// dst = O(first, second), where the second operand is at `second`.
template <class O, Width width>
NESTOR_AVX2 inline void operate(Cpu& cpu, const Op* op, const void* second) {
    if constexpr (width == Width::vex256) {
        const auto* a = reinterpret_cast<const __m256i*>(at(cpu, op->src));
        const __m256i r =
            O::f(_mm256_loadu_si256(a), _mm256_loadu_si256(static_cast<const __m256i*>(second)));
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(at(cpu, op->dst)), r);
    } else {
        const u8 first = width == Width::legacy ? op->dst : op->src;
        const auto* a = reinterpret_cast<const __m128i*>(at(cpu, first));
        const __m128i r =
            O::f(_mm_loadu_si128(a), _mm_loadu_si128(static_cast<const __m128i*>(second)));
        auto* d = reinterpret_cast<__m128i*>(at(cpu, op->dst));
        _mm_storeu_si128(d, r);
        if constexpr (width == Width::vex128) {
            _mm_storeu_si128(d + 1, _mm_setzero_si128());
        }
    }
}

template <class O, Width width>
NESTOR_AVX2 const Op* run_register(Cpu& cpu, const Op* op) {
    operate<O, width>(cpu, op, at(cpu, op->base));
    return next(cpu, op);
}

template <class O, Width width>
[[gnu::noinline]] bool slow_memory(Cpu& cpu, const Op* op, u64 address, unsigned size) {
    Bounce bounce;
    if (!cpu.load_slow(op, address, bounce.bytes, size, Cpu::operand_segment(op))) {
        return false;
    }
    operate<O, width>(cpu, op, bounce.bytes);
    return true;
}

template <class O, Width width>
NESTOR_AVX2 inline bool memory(Cpu& cpu, const Op* op) {
    constexpr unsigned size = width == Width::vex256 ? 32 : 16;
    u64 address;
    if (!locate(cpu, op, size, width == Width::legacy ? size : 1, Access::read, address)) {
        return false;
    }
    if (const u8* p = in_place(cpu, address, size, Access::read); p != nullptr) [[likely]] {
        operate<O, width>(cpu, op, p);
        return true;
    }
    return slow_memory<O, width>(cpu, op, address, size);
}

template <class O, Width width>
NESTOR_AVX2 const Op* run_memory(Cpu& cpu, const Op* op) {
    return memory<O, width>(cpu, op) ? next(cpu, op) : cpu.abandon(op);
}

template <bool wide>
NESTOR_AVX2 inline u32 byte_signs(const u64* v) {
    if constexpr (wide) {
        return static_cast<u32>(
            _mm256_movemask_epi8(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(v))));
    } else {
        return static_cast<u32>(
            _mm_movemask_epi8(_mm_loadu_si128(reinterpret_cast<const __m128i*>(v))));
    }
}

template <bool wide>
NESTOR_AVX2 const Op* pmovmskb(Cpu& cpu, const Op* op) {
    *at(cpu, op->dst) = byte_signs<wide>(at(cpu, op->base));
    return next(cpu, op);
}

template <class O>
bool set(Emit& e) {
    const bool vex = is_vex(e);
    const bool wide = reg_class(e.operand(0)) == ZYDIS_REGCLASS_YMM;
    const unsigned second = vex ? 2 : 1;
    e.op.dst = slot_of(e.operand(0));
    if (vex) {
        e.op.src = slot_of(e.operand(1));
    }
    if (e.is_mem(second)) {
        e.set_memory(second);
        e.op.fn = wide  ? run_memory<O, Width::vex256>
                  : vex ? run_memory<O, Width::vex128>
                        : run_memory<O, Width::legacy>;
    } else {
        e.op.base = slot_of(e.operand(second));
        e.op.fn = wide  ? run_register<O, Width::vex256>
                  : vex ? run_register<O, Width::vex128>
                        : run_register<O, Width::legacy>;
    }
    return true;
}

bool set_pmovmskb(Emit& e) {
    e.op.dst = slot_of(e.operand(0));
    e.op.base = slot_of(e.operand(1));
    e.op.fn = reg_class(e.operand(1)) == ZYDIS_REGCLASS_YMM ? pmovmskb<true> : pmovmskb<false>;
    return true;
}

struct Row {
    ZydisMnemonic mnemonic;
    bool (*set)(Emit&);
};
#define NESTOR_SIMD_ROW(name, operation)                                                           \
    {ZYDIS_MNEMONIC_##name, set<operation>}, { ZYDIS_MNEMONIC_V##name, set<operation> }
constexpr Row rows[] = {
    NESTOR_SIMD_ROW(PADDB, Paddb),
    NESTOR_SIMD_ROW(PADDW, Paddw),
    NESTOR_SIMD_ROW(PADDD, Paddd),
    NESTOR_SIMD_ROW(PADDQ, Paddq),
    NESTOR_SIMD_ROW(PSUBB, Psubb),
    NESTOR_SIMD_ROW(PSUBW, Psubw),
    NESTOR_SIMD_ROW(PSUBD, Psubd),
    NESTOR_SIMD_ROW(PSUBQ, Psubq),
    NESTOR_SIMD_ROW(PCMPEQB, Pcmpeqb),
    NESTOR_SIMD_ROW(PCMPEQW, Pcmpeqw),
    NESTOR_SIMD_ROW(PCMPEQD, Pcmpeqd),
    NESTOR_SIMD_ROW(PCMPGTB, Pcmpgtb),
    NESTOR_SIMD_ROW(PCMPGTD, Pcmpgtd),
    NESTOR_SIMD_ROW(PMINUB, Pminub),
    NESTOR_SIMD_ROW(PMAXUB, Pmaxub),
    NESTOR_SIMD_ROW(PSHUFB, Pshufb),
    NESTOR_SIMD_ROW(PUNPCKLBW, Punpcklbw),
    NESTOR_SIMD_ROW(PUNPCKLWD, Punpcklwd),
    NESTOR_SIMD_ROW(PUNPCKLDQ, Punpckldq),
    NESTOR_SIMD_ROW(PUNPCKLQDQ, Punpcklqdq),
    NESTOR_SIMD_ROW(PUNPCKHQDQ, Punpckhqdq),
    NESTOR_SIMD_ROW(PAND, Pand),
    NESTOR_SIMD_ROW(ANDPS, Pand),
    NESTOR_SIMD_ROW(ANDPD, Pand),
    NESTOR_SIMD_ROW(PANDN, Pandn),
    NESTOR_SIMD_ROW(ANDNPS, Pandn),
    NESTOR_SIMD_ROW(ANDNPD, Pandn),
    NESTOR_SIMD_ROW(POR, Por),
    NESTOR_SIMD_ROW(ORPS, Por),
    NESTOR_SIMD_ROW(ORPD, Por),
    NESTOR_SIMD_ROW(PXOR, Pxor),
    NESTOR_SIMD_ROW(XORPS, Pxor),
    NESTOR_SIMD_ROW(XORPD, Pxor),
    {ZYDIS_MNEMONIC_PMOVMSKB, set_pmovmskb},
    {ZYDIS_MNEMONIC_VPMOVMSKB, set_pmovmskb},
};

} // namespace

bool emit_compiled(Emit& e) {
    if (reg_class(e.operand(0)) == ZYDIS_REGCLASS_MMX ||
        reg_class(e.operand(1)) == ZYDIS_REGCLASS_MMX) {
        return false;
    }
    for (const Row& row : rows) {
        if (row.mnemonic == e.mnemonic()) {
            return row.set(e);
        }
    }
    return false;
}

} // namespace nestor::cpu::simd
