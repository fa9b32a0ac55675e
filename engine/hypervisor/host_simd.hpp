// What guests need of the host's processor: SIMD instructions run on it (engine/cpu/thunk.hpp), so
// a host that lacks some cannot run the CPU models that have them.
#pragma once

#include <array>
#include <string_view>
#include <vector>

#include "engine/arch/cpu_feature.hpp"
#include "src/base/result.hpp"

namespace nestor::hv {

/// What a host's processor says of itself. Indexed by arch::CpuidWord; only the words that hold
/// SIMD features are filled in.
struct HostProcessor {
    std::array<u32, arch::cpuid_words> words{};
    u64 xcr0 = 0; ///< the components that its system switches; 0 where there is no XSAVE
};

/// The processor this runs on. A few CPUID instructions.
[[nodiscard]] HostProcessor this_processor();

/// Names, in the table's order, of the SIMD features that `host` lacks and the engine does not
/// imitate.
[[nodiscard]] std::vector<std::string_view> simd_lacking(const HostProcessor& host);

/// The engine's feature bits of one register that `host` can run.
[[nodiscard]] u32 offered_word(const HostProcessor& host, arch::CpuidWord word);

/// An `incompatible` error that names what `host` lacks; nothing when it has all.
[[nodiscard]] Result<> check_simd(const HostProcessor& host);

} // namespace nestor::hv
