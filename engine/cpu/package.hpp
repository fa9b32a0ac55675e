// What the processors of one machine share: RAM, decoded code, knowledge of page tables.
//
// One thread runs a machine (DESIGN.md, rule 2), so nothing here is locked. The package watches
// writes to pages that code was decoded from or that a cached walk read, and drops what was
// derived.
#pragma once

#include <array>
#include <bitset>
#include <memory>
#include <unordered_map>
#include <vector>

#include <Zydis/Zydis.h>

#include "engine/cpu/cpu.hpp"
#include "engine/cpu/guest_memory.hpp"

namespace nestor::cpu {

class CodeCache;

/// Which instruction-set extensions exist (DESIGN.md, rule 4), by Zydis ISA set.
using IsaMask = std::bitset<ZYDIS_ISA_SET_MAX_VALUE + 1>;

/// Fixed properties of the processors: what the silicon needs to know of the CPU model.
struct Features {
    IsaMask isa;
    u8 physical_bits = 46;
    u64 cr4_reserved = 0; ///< bits that raise #GP when set
    u64 efer_reserved = 0;
    u64 xcr0_allowed = 7;
    u64 xss_allowed = 0;
    bool gigabyte_pages = true;
    bool nx = true;
    bool la57 = true;

    bool operator==(const Features&) const = default;
};

class Package final : private GuestMemory::Watcher {
public:
    struct Config {
        Features features;
        unsigned tlb_entries = 1024;
    };

    Package(GuestMemory& memory, const Config& config);
    ~Package() override;
    Package(const Package&) = delete;
    Package& operator=(const Package&) = delete;

    [[nodiscard]] GuestMemory& memory() { return memory_; }
    [[nodiscard]] const Features& features() const { return features_; }
    /// The processors become others, and forget every derived structure: before their state is
    /// loaded.
    void set_features(const Features& features);
    [[nodiscard]] CodeCache& code() { return *code_; }
    [[nodiscard]] unsigned tlb_entries() const { return tlb_entries_; }

    /// Notes that a cached translation of `linear` used the table entry at guest-physical `entry`
    /// (`span_shift`: log2 of the bytes that one entry of this table maps), so that a change of the
    /// entry drops the translation.
    void note_walk(u64 entry, unsigned span_shift, unsigned entry_size, u64 linear);
    /// The same for an entry of an EPT paging structure at `level` (1 to 4): a change of it, once
    /// present, drops all translations.
    void note_ept_walk(u64 entry, unsigned level);
    /// The instruction mask changed nothing, memory did: forget every derived structure.
    void forget_all();

private:
    friend class Cpu;

    /// Where a table page sits in the tables that were walked.
    struct TablePage {
        u64 linear = 0;      ///< linear address that its entry 0 maps
        u64 generation = 0;  ///< of the last note; older than every TLB's flush: nothing cached
        u8 span_shift = 0;   ///< log2 of the bytes that one entry maps
        u8 entry_size = 8;   ///< bytes
        bool unique = false; ///< reached in one way only, so that single pages can be dropped
        bool linear_walks = false; ///< walked as a paging structure of linear addresses
        bool ept = false;          ///< walked as an EPT paging structure
    };

    void attach(Cpu* cpu) { cpus_.push_back(cpu); }
    void detach(Cpu* cpu) { std::erase(cpus_, cpu); }
    void before_write(Gpa address, const u8* data, unsigned size) override;
    void drop_fast_paths(Gfn page) override;
    void drop_all_fast_paths() override;
    void watch(Gfn page);
    void disarm(Gpa address, unsigned size);
    void table_changes(Gpa address, const u8* data, unsigned size);
    void entry_changed(const TablePage& table, unsigned index);

    GuestMemory& memory_;
    Features features_;
    unsigned tlb_entries_;
    std::unique_ptr<CodeCache> code_;
    std::vector<Cpu*> cpus_;
    std::unordered_map<u64, TablePage> tables_; ///< by guest frame
    /// The last note of each level, because the next is mostly the same.
    struct Noted {
        u64 gfn = ~u64{0};
        u64 linear = 0;
        u64 generation = 0;
    };
    std::array<Noted, 8> noted_;
    std::array<Noted, 4> ept_noted_;
    u64 generation_ = 1; ///< counts TLB flushes
};

} // namespace nestor::cpu
