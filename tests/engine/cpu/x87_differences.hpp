// Where a judge of the x87 oracle and nestor-v1 may end differently, each with its reason.
#pragma once

#include <string>

#include "tests/engine/cpu/oracle/abilities.hpp"

namespace nestor::test {

struct X87Form {
    u8 opcode;
    u8 modrm; ///< memory forms: mod 0, rm 3 (rbx)
    std::string name;
    bool approximate; ///< the last bit is the implementation's choice
};

/// Whether these ends may differ, the judge being of that vendor.
bool excused(Vendor vendor, const X87Form& form, const Case& c, const Ends& ends);

} // namespace nestor::test
