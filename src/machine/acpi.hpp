// The machine's ACPI tables: ACPI 6.4 chapter 5.
#pragma once

#include <vector>

#include "src/base/types.hpp"

namespace nestor::machine {

/// RSDP, XSDT, FADT, FACS, DSDT and MADT as one block of bytes for address `base`, which must be
/// aligned to 64 and below 4 GiB. The RSDP is at its start. `board` is the revision of the board:
/// the bytes for one that was released never change.
[[nodiscard]] std::vector<u8> acpi_tables(u64 base, u16 cpus, u32 board);

} // namespace nestor::machine
