// Instruction forms, enumerated from the opcode space, and random cases of a form.
//
// A form is an opcode with the prefixes that make it what it is, in its register or memory shape.
// Which instructions are of interest is the caller's predicate; the decoder says what exists.
#pragma once

#include <functional>
#include <random>
#include <vector>

#include <Zydis/Zydis.h>

#include "tests/engine/cpu/oracle/harness.hpp"

namespace nestor::test {

using Random = std::mt19937_64;

struct Form {
    bool mode32 = false;
    u8 legacy = 0;        ///< 0x66, 0xf2, 0xf3, or 0 for none
    bool extra66 = false; ///< 66 as well as F2 or F3 (CRC32, MOVBE)
    bool lock = false;
    bool address_size = false; ///< 67
    bool rex_w = false;        ///< REX.W, VEX.W
    bool vex = false;
    bool vex_l = false;
    u8 map = 0; ///< 0: one byte, 1: 0F, 2: 0F38, 3: 0F3A
    u8 opcode = 0;
    bool has_modrm = false;
    bool memory = false;        ///< ModRM memory form
    std::vector<u8> reg_fields; ///< values of ModRM.reg that give this mnemonic
    ZydisMnemonic mnemonic = ZYDIS_MNEMONIC_INVALID;
    ZydisDecodedInstruction insn{};
    unsigned immediate_bytes = 0;
    unsigned memory_bytes = 0; ///< size of the memory operand
};

using Wanted = std::function<bool(const ZydisDecodedInstruction&, const ZydisDecodedOperand*)>;

/// Every form that the decoder knows and `wanted` accepts.
std::vector<Form> enumerate_forms(bool mode32, const Wanted& wanted);

/// Registers, addresses and immediates of one case are chosen at random; addresses mostly lie in
/// the window, sometimes at its edges, sometimes where they fault. Not every case decodes: `valid`
/// tells.
struct Generated {
    Case c;
    bool valid = false;
    ZydisDecodedInstruction insn{};
    ZydisDecodedOperand operands[ZYDIS_MAX_OPERAND_COUNT];
};
Generated generate(const Form& form, Random& random);

/// Makes what random values would hardly ever make useful: bit offsets near, jump targets in code.
void tame(Generated& g, Random& random);

/// Whether the case touches, on the host, nothing but the layout of harness.hpp and addresses that
/// surely fault, jumps nowhere else, and does not loop. Only such cases may be run.
bool is_safe(const Generated& g);

/// A general register of the start state, of any width, as 64 bits; RIP is that behind the code.
u64 register_value(const Case& c, ZydisRegister reg);
/// Of a memory operand in the start state.
u64 effective_address(const Generated& g, const ZydisDecodedOperand& o);

/// Fills insn, operands and valid from the code bytes.
void decode_case(Generated& g);

/// An integer of interest: zero, ones, powers of two and their neighbours, random.
u64 special(Random& random);

} // namespace nestor::test
