// CPU features as a table: one bit of one CPUID register each (SDM 2A, CPUID).
#pragma once

#include <array>
#include <string_view>

#include "src/base/types.hpp"

namespace nestor::arch {

/// CPUID registers that hold feature bits: leaf, subleaf, register (0 EAX, 1 EBX, 2 ECX, 3 EDX).
enum class CpuidWord : u8 {
    leaf_1_edx,
    leaf_1_ecx,
    leaf_6_eax,
    leaf_7_ebx,
    leaf_7_ecx,
    leaf_7_edx,
    leaf_d_1_eax,
    leaf_80000001_ecx,
    leaf_80000001_edx,
    leaf_80000007_edx,
};
inline constexpr std::size_t cpuid_words = 10;

struct CpuidRegister {
    u32 leaf;
    u32 subleaf;
    u8 reg;
};

/// Indexed by CpuidWord.
inline constexpr std::array<CpuidRegister, cpuid_words> cpuid_registers = {{
    {1, 0, 3},
    {1, 0, 2},
    {6, 0, 0},
    {7, 0, 1},
    {7, 0, 2},
    {7, 0, 3},
    {0xd, 1, 0},
    {0x80000001, 0, 2},
    {0x80000001, 0, 3},
    {0x80000007, 0, 3},
}};

enum class CpuFeature : u8 {
#define CPU_FEATURE(word, bit, name, ...) name,
#include "engine/arch/cpu_feature.def"
#undef CPU_FEATURE
};

struct CpuFeatureInfo {
    CpuidWord word;
    u8 bit;
    std::string_view name;
};

/// Indexed by CpuFeature.
inline constexpr auto cpu_features = std::to_array<CpuFeatureInfo>({
#define CPU_FEATURE(word, bit, name, ...) {CpuidWord::word, bit, #name},
#include "engine/arch/cpu_feature.def"
#undef CPU_FEATURE
});

static_assert(
    [] {
        for (std::size_t i = 0; i < cpu_features.size(); ++i) {
            for (std::size_t k = 0; k < i; ++k) {
                if (cpu_features[i].word == cpu_features[k].word &&
                    cpu_features[i].bit == cpu_features[k].bit) {
                    return false;
                }
            }
        }
        return true;
    }(),
    "a feature bit is listed twice");

} // namespace nestor::arch
