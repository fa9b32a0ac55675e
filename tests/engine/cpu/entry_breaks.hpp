// The rows of entry_breaks.def: for each entry check, the changes that break it in a valid VMCS.
#pragma once

#include "tests/engine/cpu/entry_fixture.hpp"

namespace nestor::cpu {

struct Break {
    EntryCheckId id;
    ValidEntry from;
    void (*apply)(state::Vmcs& v, EntryContext& c, MsrListEntry& msr, EntryRam& ram);
    int line; ///< of the row in the file
};

inline const Break breaks[] = {
#define BREAK(id, from, ...)                                                                       \
    {EntryCheckId::id, ValidEntry::from,                                                           \
     []([[maybe_unused]] state::Vmcs& v, [[maybe_unused]] EntryContext& c,                         \
        [[maybe_unused]] MsrListEntry& msr, [[maybe_unused]] EntryRam& ram) {                      \
         using namespace arch;                                                                     \
         __VA_ARGS__;                                                                              \
     },                                                                                            \
     __LINE__},
#include "tests/engine/cpu/entry_breaks.def"
#undef BREAK
};

} // namespace nestor::cpu
