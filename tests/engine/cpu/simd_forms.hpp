// SIMD instruction forms found by decoding the whole opcode space.
#pragma once

#include <string>
#include <vector>

#include <Zydis/Zydis.h>

#include "src/base/types.hpp"

namespace nestor::test {

/// splitmix64: the same sequence everywhere.
class SplitMix final {
public:
    explicit SplitMix(u64 seed) : state_(seed) {}
    u64 next() {
        u64 z = (state_ += 0x9e3779b97f4a7c15);
        z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
        z = (z ^ z >> 27) * 0x94d049bb133111eb;
        return z ^ z >> 31;
    }
    unsigned below(u64 n) { return static_cast<unsigned>(next() % n); }

private:
    u64 state_;
};

/// One opcode with prefix, W, L and operand kinds; registers and immediate are free.
struct SimdForm {
    std::string name; ///< mnemonic, operands and encoding
    ZydisMnemonic mnemonic = ZYDIS_MNEMONIC_INVALID;
    bool vex = false;
    u8 map = 1;    ///< 1 0F, 2 0F38, 3 0F3A
    u8 prefix = 0; ///< 0 none, 1 66, 2 F3, 3 F2 (VEX.pp)
    bool w = false;
    bool l = false;
    bool uses_vvvv = false;
    bool memory = false;
    bool vsib = false;
    bool mmx = false;   ///< some register operand is MMX
    int extension = -1; ///< ModRM.reg where it is part of the opcode
    u8 opcode = 0;
    bool immediate = false;
    bool in_32bit = false; ///< decodes to the same in 32-bit code

    [[nodiscard]] u64 seed() const;
    /// An instruction of this form; memory operands are [rbx], [rbx + d] or [rbx + rsi].
    [[nodiscard]] std::vector<u8> instance(SplitMix& random, bool mode32) const;
};

/// All forms of the SIMD sets that nestor-v1 offers, EMMS and VZEROx included; not the
/// state-management instructions.
const std::vector<SimdForm>& simd_forms();

} // namespace nestor::test
