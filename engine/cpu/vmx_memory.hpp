// Structures that a VMCS names by L1-physical address, as the silicon reads and writes them:
// bitmaps, EPT entries, the virtual-APIC page, descriptors and logs (SDM 3C 25.6, 25.11.4).
//
// They are read when they are needed, never before, so that nothing has to be kept coherent.
#pragma once

#include "engine/cpu/cpu.hpp"

namespace nestor::cpu {

/// Reads up to 4096 bytes of one page. Where no RAM answers, all ones. False: outcome is
/// page_needed.
bool read_structure(Cpu& cpu, u64 address, void* out, unsigned size);
/// Whether a write to the page could be done now. False: outcome is page_needed or copy_needed.
bool structure_writable(Cpu& cpu, u64 address);
/// Writes within one page through the page mechanism; dropped where there is no RAM. False: outcome
/// is page_needed or copy_needed, nothing written.
bool write_structure(Cpu& cpu, u64 address, const void* in, unsigned size);

/// A write to a page under L0's own page-modification log: a page that is clean is entered and is
/// clean no more. Full or off, nothing happens: page mechanism and store go on as without it.
void log_own_write(Cpu& cpu, u64 address, u8& state);

} // namespace nestor::cpu
