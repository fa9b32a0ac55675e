// Guest CPU capabilities (DESIGN.md, rule 4): what this vCPU may use, computed once.
#pragma once

#include <array>
#include <span>
#include <string_view>
#include <vector>

#include "engine/arch/cpu_feature.hpp"
#include "engine/cpu/package.hpp"
#include "engine/hypervisor/cpu_model.hpp"
#include "engine/hypervisor/cpu_offer.hpp"
#include "engine/state/vcpu.hpp"
#include "src/base/result.hpp"

namespace nestor::hv {

/// One word per CPUID feature register: (what the engine can do) AND (what the model asks for).
class CpuCaps final {
public:
    CpuCaps() = default;
    /// From the CPUID entries that the guest sees; a bit the engine lacks is never granted.
    explicit CpuCaps(std::span<const state::CpuidEntry> cpuid);
    /// On an engine that can do `granted`.
    CpuCaps(std::span<const state::CpuidEntry> cpuid,
            const std::array<u32, arch::cpuid_words>& granted);

    [[nodiscard]] bool has(arch::CpuFeature feature) const {
        const auto& info = arch::cpu_features[static_cast<std::size_t>(feature)];
        return (words_[static_cast<std::size_t>(info.word)] >> info.bit & 1) != 0;
    }

private:
    std::array<u32, arch::cpuid_words> words_{};
};

/// CPUID entries of a released model for vCPU `index` of `count`; an unknown model is a usage error
/// that lists the known ones.
[[nodiscard]] Result<std::vector<state::CpuidEntry>> cpu_model_cpuid(std::string_view model,
                                                                     u16 index, u16 count);
[[nodiscard]] Failure unknown_model(std::string_view name, std::span<const CpuModel* const> models);

/// What the silicon has to know of the capabilities.
[[nodiscard]] cpu::Features silicon_features(std::span<const state::CpuidEntry> cpuid);
/// The components that the capabilities allow in XCR0.
[[nodiscard]] u64 xcr0_of(const CpuCaps& caps);

/// The entry that answers a leaf and subleaf; null: there is none.
[[nodiscard]] const state::CpuidEntry* find_cpuid(std::span<const state::CpuidEntry> entries,
                                                  u32 leaf, u32 subleaf);
/// 0 EAX, 1 EBX, 2 ECX, 3 EDX.
[[nodiscard]] u32 cpuid_register(const state::CpuidEntry& entry, unsigned reg);

/// What CPUID returns now: the entries plus what follows the state (OSXSAVE, OSPKE, APIC, XSAVE
/// sizes). SDM 2A, CPUID.
struct CpuidResult {
    u32 eax = 0, ebx = 0, ecx = 0, edx = 0;
};
[[nodiscard]] CpuidResult cpuid(std::span<const state::CpuidEntry> entries, const state::Cpu& cpu,
                                u64 apic_base, u32 leaf, u32 subleaf);

} // namespace nestor::hv
