// The host's SIMD against what the engine runs on it.
//
// Owns the list of features whose instructions are executed by the host. BMI, ADX, POPCNT and the
// like are not on it: their instructions are the engine's own code. A feature of YMM registers also
// needs a system that switches them (SDM 1, 14.3).
#include "engine/hypervisor/host_simd.hpp"

#include <algorithm>

#include <cpuid.h>

#include "engine/hypervisor/cpu_offer.hpp"

namespace nestor::hv {
namespace {

using arch::CpuFeature;
using arch::CpuidWord;

struct HostSimd {
    CpuFeature feature;
    bool ymm;
};

constexpr auto host_simd = std::to_array<HostSimd>({
    {CpuFeature::mmx, false},
    {CpuFeature::sse, false},
    {CpuFeature::sse2, false},
    {CpuFeature::sse3, false},
    {CpuFeature::pclmulqdq, false},
    {CpuFeature::ssse3, false},
    {CpuFeature::fma, true},
    {CpuFeature::sse4_1, false},
    {CpuFeature::sse4_2, false},
    {CpuFeature::aes, false},
    {CpuFeature::avx, true},
    {CpuFeature::f16c, true},
    {CpuFeature::avx2, true},
    {CpuFeature::sha, false},
});

constexpr u32 osxsave = u32{1} << 27;
constexpr u64 sse_and_avx_state = 6;

const arch::CpuFeatureInfo& info(CpuFeature feature) {
    return arch::cpu_features[static_cast<std::size_t>(feature)];
}

bool lacks(const HostProcessor& host, const HostSimd& simd) {
    const arch::CpuFeatureInfo& f = info(simd.feature);
    return (host.words[static_cast<std::size_t>(f.word)] >> f.bit & 1) == 0 ||
           (simd.ymm && (host.xcr0 & sse_and_avx_state) != sse_and_avx_state);
}

u64 read_xcr0() {
    u32 low = 0;
    u32 high = 0;
    asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return u64{high} << 32 | low;
}

} // namespace

HostProcessor this_processor() {
    HostProcessor host;
    u32 eax = 0;
    u32 ebx = 0;
    u32 ecx = 0;
    u32 edx = 0;
    if (__get_cpuid(1, &eax, &ebx, &ecx, &edx) != 0) {
        host.words[static_cast<std::size_t>(CpuidWord::leaf_1_edx)] = edx;
        host.words[static_cast<std::size_t>(CpuidWord::leaf_1_ecx)] = ecx;
        host.xcr0 = (ecx & osxsave) != 0 ? read_xcr0() : 0;
    }
    if (__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) != 0) {
        host.words[static_cast<std::size_t>(CpuidWord::leaf_7_ebx)] = ebx;
    }
    return host;
}

std::vector<std::string_view> simd_lacking(const HostProcessor& host) {
    std::vector<std::string_view> names;
    for (const HostSimd& simd : host_simd) {
        if (lacks(host, simd)) {
            names.push_back(info(simd.feature).name);
        }
    }
    return names;
}

u32 offered_word(const HostProcessor& host, CpuidWord word) {
    u32 offered = engine_offer().features[static_cast<std::size_t>(word)];
    for (const HostSimd& simd : host_simd) {
        if (info(simd.feature).word == word && lacks(host, simd)) {
            offered &= ~(u32{1} << info(simd.feature).bit);
        }
    }
    return offered;
}

Result<> check_simd(const HostProcessor& host) {
    std::string names;
    for (const std::string_view name : simd_lacking(host)) {
        names += (names.empty() ? "" : ", ") + std::string(name);
    }
    if (names.empty()) {
        return {};
    }
    return fail(ErrorCode::incompatible, "this host's processor lacks " + names,
                "guests' SIMD instructions run on it: use a host of x86-64-v3 with AES, PCLMULQDQ "
                "and SHA, and in a virtual machine pass the host's CPU model through");
}

} // namespace nestor::hv
