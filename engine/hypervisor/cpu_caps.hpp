// Guest CPU capabilities (DESIGN.md, rule 4): what this vCPU may use, computed once.
#pragma once

#include <array>
#include <span>
#include <string_view>
#include <vector>

#include "engine/arch/cpu_feature.hpp"
#include "engine/cpu/package.hpp"
#include "engine/state/vcpu.hpp"
#include "src/base/result.hpp"

namespace nestor::hv {

/// One word per CPUID feature register: (what the engine can do) AND (what the model asks for).
class CpuCaps final {
public:
    CpuCaps() = default;
    /// From the CPUID entries that the guest sees; a bit the engine lacks is never granted.
    explicit CpuCaps(std::span<const state::CpuidEntry> cpuid);

    [[nodiscard]] bool has(arch::CpuFeature feature) const {
        const auto& info = arch::cpu_features[static_cast<std::size_t>(feature)];
        return (words_[static_cast<std::size_t>(info.word)] >> info.bit & 1) != 0;
    }
    /// The word of all features that the engine can offer.
    static u32 engine_word(arch::CpuidWord word);

private:
    std::array<u32, arch::cpuid_words> words_{};
};

/// Names of the CPU models that `--cpu-model` takes.
[[nodiscard]] std::vector<std::string_view> cpu_model_names();

/// CPUID entries of a model for vCPU `index` of `count`; an unknown model is a usage error that
/// lists the known ones.
[[nodiscard]] Result<std::vector<state::CpuidEntry>> cpu_model_cpuid(std::string_view model,
                                                                     u16 index, u16 count);

/// What the silicon has to know of the capabilities.
[[nodiscard]] cpu::Features silicon_features(std::span<const state::CpuidEntry> cpuid);

/// Every bit that the entries ask for and the engine does not have, as "leaf 7 EBX bit 16".
/// Empty: the engine can run such a vCPU.
[[nodiscard]] std::vector<std::string> missing_features(std::span<const state::CpuidEntry> cpuid);

/// What CPUID returns now: the entries plus what follows the state (OSXSAVE, OSPKE, APIC, XSAVE
/// sizes). SDM 2A, CPUID.
struct CpuidResult {
    u32 eax = 0, ebx = 0, ecx = 0, edx = 0;
};
[[nodiscard]] CpuidResult cpuid(std::span<const state::CpuidEntry> entries, const state::Cpu& cpu,
                                u64 apic_base, u32 leaf, u32 subleaf);

} // namespace nestor::hv
