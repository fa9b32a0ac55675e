// CPU models as frozen data (DESIGN.md, rule 4): what a machine made with a name is, for good.
//
// A model's file in models/ has all of it: CPUID leaves, MSRs and their constants. Nothing comes
// from the engine's tables, which only mask it: cpuid_faults() tells what an engine cannot do.
#pragma once

#include <array>
#include <bitset>
#include <span>
#include <string_view>
#include <vector>

#include "engine/arch/msr.hpp"
#include "engine/arch/vmx_capability.hpp"
#include "engine/state/vcpu.hpp"
#include "src/base/digest.hpp"

namespace nestor::hv {

/// An MSR that reads the same for ever.
struct MsrConstant {
    u32 index = 0;
    u64 value = 0;
};

struct CpuModel {
    std::string_view name;
    std::span<const state::CpuidEntry> leaves; ///< in ascending order; of no vCPU in particular
    std::span<const u32> msrs;                 ///< of L0, that exist; the contract lists them
    std::span<const MsrConstant> constants;    ///< of `msrs`, and the VMX capabilities
};

/// A model that machines may have been saved with.
struct ReleasedModel {
    const CpuModel* model = nullptr;
    std::string_view since;  ///< the release that had it first
    std::string_view digest; ///< hexadecimal digest_of()
};

/// Oldest first.
[[nodiscard]] std::span<const ReleasedModel> released_models();
/// The models of this build, for whoever makes machines.
[[nodiscard]] std::span<const CpuModel* const> cpu_models();
/// What a machine is that asks for nothing else: nestor-v1.
[[nodiscard]] const CpuModel& default_model();
/// Null: there is no such model among them.
[[nodiscard]] const CpuModel* find_model(std::string_view name,
                                         std::span<const CpuModel* const> models = cpu_models());

/// The model's CPUID for vCPU `index` of `count`.
[[nodiscard]] std::vector<state::CpuidEntry> cpu_model_cpuid(const CpuModel& model, u16 index,
                                                             u16 count);
/// SHA-256 of the model: CPUID of every vCPU of machines with 1 to 16, MSRs, constants.
[[nodiscard]] Digest digest_of(const CpuModel& model);

/// Its VMX capabilities, before the engine and the vCPU's CPUID mask them.
[[nodiscard]] arch::VmxCapabilities vmx_of(const CpuModel& model);

/// The MSRs of L0 that exist on a machine: rows of the engine that the model names. A query is one
/// load and a test; 0.7 KiB.
class MsrSet final {
public:
    MsrSet() = default;
    explicit MsrSet(const CpuModel& model);

    [[nodiscard]] bool has(arch::MsrRow row) const {
        return present_[static_cast<std::size_t>(row)];
    }
    /// What an MSR_CONSTANT row reads.
    [[nodiscard]] u64 constant(arch::MsrRow row) const {
        return constants_[static_cast<std::size_t>(row)];
    }

private:
    std::bitset<arch::msr_rows> present_;
    std::array<u64, arch::msr_rows> constants_{};
};

} // namespace nestor::hv
