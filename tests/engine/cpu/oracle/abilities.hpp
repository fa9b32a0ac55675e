// What a judge can tell, found out by trying it at start, and what was left out for want of it.
//
// A virtual host may be without 32-bit code or an instruction set, or distort how a fault is
// reported. What it cannot tell it is not asked; all else that differs is a failure. What no case
// needs (single step, alignment checks, CPUID) is not tried out.
#pragma once

#include <bitset>
#include <string>

#include <Zydis/Zydis.h>

#include "tests/engine/cpu/oracle/judge.hpp"

namespace nestor::test {

/// What a case may need of its judge.
enum class Need : u8 {
    code32,       ///< 32-bit code: a far jump to its segment arrives
    wild_stack,   ///< a trap that comes while RSP is not canonical
    stack_fault,  ///< #SS for such a stack, reported as #SS
    page_fault,   ///< error code and address of #PF
    vector_state, ///< x87, SSE and AVX state go in and come out
    instructions, ///< the instruction set of the case
};
inline constexpr unsigned need_count = 6;
const char* need_name(Need need);

/// Whose rules the judge follows where vendors differ.
enum class Vendor : u8 { intel, amd, qemu };

struct Abilities {
    std::bitset<need_count> has;
    std::bitset<ZYDIS_ISA_SET_MAX_VALUE + 1> without; ///< instruction sets it does not execute
    Vendor vendor = Vendor::intel;

    [[nodiscard]] bool can(Need need) const { return has[static_cast<unsigned>(need)]; }
};

/// Tries everything out on `judge`, which runs 64-bit code or, if `mode32`, only 32-bit code.
/// What NESTOR_ORACLE_WITHOUT names (a list of need_name, with commas) counts as absent. A judge
/// that cannot even run a NOP is a CHECK.
Abilities find_abilities(Judge& judge, bool mode32);

/// The same in a line: "Intel's rules; without code32; without instructions SHA".
std::string describe(const Abilities& abilities);

} // namespace nestor::test
