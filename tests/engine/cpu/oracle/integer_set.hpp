// Which instructions the integer oracle covers, what is undefined about them, and where judges
// differ from Cpu on purpose.
#pragma once

#include "tests/engine/cpu/oracle/abilities.hpp"
#include "tests/engine/cpu/oracle/forms.hpp"

namespace nestor::test {

/// Whether an instruction belongs to the integer set that a user program can run anywhere.
bool is_integer(const ZydisDecodedInstruction& insn, const ZydisDecodedOperand* operands);

/// Arithmetic flags that the SDM leaves undefined for this very case.
u64 undefined_flags(const Generated& g);

/// Cases that such a judge does differently from Cpu, each with its reason in the table.
bool differs_by_vendor(const Generated& g, Vendor judge);

} // namespace nestor::test
