// Images of processor state in memory: the legacy region and the components of an XSAVE area.
#pragma once

#include <cstring>

#include "engine/arch/xstate.hpp"
#include "engine/cpu/cpu.hpp"

namespace nestor::cpu::xstate {

inline constexpr u32 mxcsr_mask = 0xffff;
inline constexpr u64 x87_bit = arch::xcr0::x87, sse_bit = arch::xcr0::sse,
                     avx_bit = arch::xcr0::avx, pkru_bit = arch::xcr0::pkru;

/// A memory image of an area, or of its first 512 bytes.
struct Image {
    alignas(64) u8 b[arch::xsave_maximum] = {};

    template <class T>
    [[nodiscard]] T get(u32 at) const {
        T v;
        std::memcpy(&v, b + at, sizeof v);
        return v;
    }
    template <class T>
    void put(u32 at, T v) {
        std::memcpy(b + at, &v, sizeof v);
    }
};

/// Vector registers that the current mode can name.
inline unsigned vector_count(const Cpu& cpu) { return cpu.mode.is64() ? 16 : 8; }

/// x87 state in the legacy region (SDM 1 table 10-2). `wide`: REX.W forms, with 64-bit pointers.
void put_x87(const state::X87& f, Image& image, bool wide);
void take_x87(state::X87& f, const Image& image, bool wide);
/// XMM registers in the legacy region.
void put_xmm(const Cpu& cpu, Image& image);
void take_xmm(Cpu& cpu, const Image& image);

/// XINUSE (SDM 1 13.6): which components differ from their initial configuration.
u64 in_use(const Cpu& cpu);

/// Components of arch::xcomponents, by number.
void put_component(const Cpu& cpu, unsigned number, u8* p);
/// Loads a component, or initializes it where `p` is null.
void take_component(Cpu& cpu, unsigned number, const u8* p);

// The instructions with an area in memory (ops_xsave.cpp). Op::imm is 1 for REX.W forms. False:
// stopped before anything happened.
bool fxsave(Cpu& cpu, const Op* op);
bool fxrstor(Cpu& cpu, const Op* op);
bool xsave(Cpu& cpu, const Op* op);
bool xsaveopt(Cpu& cpu, const Op* op);
bool xsavec(Cpu& cpu, const Op* op);
bool xsaves(Cpu& cpu, const Op* op);
bool xrstor(Cpu& cpu, const Op* op);
bool xrstors(Cpu& cpu, const Op* op);

} // namespace nestor::cpu::xstate
