// What an engine can do for CPU models, and whether a CPUID that comes from a file keeps to it.
//
// A saved CPUID is the model of the machine that is restored with it (DESIGN.md, rule 4), so each
// of its fields has a rule (cpuid_rules.def) against the offer and the vCPU's place.
#pragma once

#include <array>
#include <span>
#include <string>
#include <vector>

#include "engine/arch/cpu_feature.hpp"
#include "engine/state/vcpu.hpp"
#include "src/base/result.hpp"

namespace nestor::hv {

/// As data, so that it can be another engine's: one on another host, or one made up by a test.
struct CpuOffer {
    std::array<u32, arch::cpuid_words> features{}; ///< by arch::CpuidWord
    u64 xcr0 = 0;                                  ///< state components in XCR0
    u64 xss = 0;                                   ///< and in IA32_XSS
    u8 physical_bits = 46;                         ///< MAXPHYADDR
    u64 tick_hz = 1000000000;                      ///< frequency of the TSC
};

/// This build's, on a host with every instruction that it wants. Made of its tables.
[[nodiscard]] const CpuOffer& engine_offer();

/// Every machine's memory is below 2 to the power of this.
inline constexpr u8 least_physical_bits = 37;
/// More entries than any CPU has.
inline constexpr std::size_t max_cpuid_entries = 256;

/// Where a vCPU stands in its machine.
struct CpuidPlace {
    u16 index = 0;
    u16 count = 1;
};

/// One thing in a CPUID that an engine cannot do, or that no CPUID is like.
struct CpuidFault {
    ErrorCode code = ErrorCode::incompatible; ///< corrupt: no CPUID is like that
    std::string path;                         ///< "cpuid", "cpuid[0x7.0]", "cpuid[0x7.0].EBX"
    std::string have;                         ///< what there is of it
    std::string need;                         ///< what the entries say
    std::string remedy;

    bool operator==(const CpuidFault&) const = default;
};

/// All of them, in the order of the rules; where the list of entries is itself out of shape, only
/// that. Costs some 150 comparisons, whatever the entries are.
[[nodiscard]] std::vector<CpuidFault> cpuid_faults(std::span<const state::CpuidEntry> entries,
                                                   const CpuidPlace& place, const CpuOffer& offer);
/// The first fault as an error; nothing where there is none.
[[nodiscard]] Result<> check_cpuid(std::span<const state::CpuidEntry> entries,
                                   const CpuidPlace& place, const CpuOffer& offer);

/// Names of the bits of a CPUID word, "avx2, bit 4": a bit without a feature by its number.
[[nodiscard]] std::string feature_names(arch::CpuidWord word, u32 bits);

} // namespace nestor::hv
