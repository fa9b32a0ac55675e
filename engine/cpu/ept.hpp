// Extended page tables: guest-physical to L1-physical (SDM 3C 29.3), and entries of paging
// structures in L1's memory, which both kinds of walk use.
#pragma once

#include "engine/cpu/cpu.hpp"

namespace nestor::cpu {

/// One entry of a paging structure that a walk used.
struct TableEntry {
    u64 address = 0; ///< L1-physical
    u64 value = 0;
    u8* host = nullptr; ///< null where no RAM answers
    u8* state = nullptr;
};
/// Reads an entry of 4 or 8 bytes; all ones where there is no RAM. False: outcome is page_needed.
bool read_table_entry(Cpu& cpu, u64 address, unsigned size, TableEntry& out);
/// Sets accessed and dirty bits of an entry. The translations made from it stay right, so only the
/// page mechanism's other uses are served. False: outcome is copy_needed.
bool set_entry_bits(Cpu& cpu, TableEntry& entry, u64 set, unsigned size);

/// A guest-physical access: what it needs, and what its exit says of it (SDM 3C table 28-7).
struct EptAccess {
    bool read = false;
    bool write = false;
    bool exec = false;
    bool user = false;         ///< of a user-mode linear address (mode-based execute control)
    bool linear_valid = false; ///< it belongs to a linear address
    bool translation = false;  ///< of the linear address itself, not of a paging-structure entry
    u64 linear = 0;
};

struct EptTranslation {
    u64 physical = 0;
    bool readable = false;
    bool writable = false;
    bool executable = false; ///< for the access's kind of linear address
    bool dirty = false;      ///< a write needs no further walk
};

inline bool ept_enabled(const Cpu& cpu) { return cpu.controls.eptp != Controls::none; }
/// EPTP bit 6: accessed and dirty flags, and paging-structure accesses that count as writes.
inline bool ept_accessed_dirty(const Cpu& cpu) { return (cpu.controls.eptp & bit(6)) != 0; }

/// Walks the EPT for one guest-physical address, with accessed and dirty flags and the
/// page-modification log. False: outcome is vm_exit (violation, misconfiguration, log full), fault
/// (#VE), page_needed or copy_needed. Cost: up to four reads of L1's memory.
bool ept_translate(Cpu& cpu, u64 guest_physical, const EptAccess& access, EptTranslation& out);
/// The delivery of a #VE was abandoned, and its violation will be met again: frees the information
/// area that said so.
void take_back_ve(Cpu& cpu);

} // namespace nestor::cpu
