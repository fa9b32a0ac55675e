// A CPUID that comes from a file is held against the engine, field by field.
#include <algorithm>
#include <functional>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/hypervisor/cpu_caps.hpp"
#include "engine/hypervisor/cpu_offer.hpp"

namespace nestor::hv {
namespace {

using arch::CpuidWord;
using testing::ElementsAre;
using testing::HasSubstr;
using Entries = std::vector<state::CpuidEntry>;

constexpr auto word_7_ebx = static_cast<std::size_t>(CpuidWord::leaf_7_ebx);

Entries of(u16 index, u16 count) { return cpu_model_cpuid(default_model(), index, count); }

state::CpuidEntry& leaf(Entries& entries, u32 number, u32 subleaf = 0) {
    return *std::find_if(entries.begin(), entries.end(),
                         [&](const auto& e) { return e.leaf == number && e.subleaf == subleaf; });
}

/// Paths of the faults of vCPU 1 of 4 whose CPUID was edited.
std::vector<std::string> faults_of(const std::function<void(Entries&)>& edit,
                                   const CpuOffer& offer = engine_offer()) {
    Entries entries = of(1, 4);
    edit(entries);
    std::vector<std::string> paths;
    for (const CpuidFault& fault : cpuid_faults(entries, {1, 4}, offer)) {
        EXPECT_FALSE(fault.have.empty() || fault.need.empty() || fault.remedy.empty())
            << fault.path;
        paths.push_back(fault.path);
    }
    return paths;
}

// --- the list itself ----------------------------------------------------------------------------

TEST(CpuidRules, NoEntriesMissTheLeavesThatAreNeeded) {
    EXPECT_THAT(faults_of([](Entries& e) { e.clear(); }),
                ElementsAre("cpuid[0x0.0]", "cpuid[0x1.0]", "cpuid[0xb.0]", "cpuid[0xb.1]",
                            "cpuid[0x80000000.0]", "cpuid[0x80000001.0]", "cpuid[0x80000008.0]"));
}

TEST(CpuidRules, AMillionEntriesAreOneFault) {
    EXPECT_THAT(faults_of([](Entries& e) { e.resize(1 << 20); }), ElementsAre("cpuid"));
}

TEST(CpuidRules, AnEntryThatIsThereTwiceIsRefused) {
    EXPECT_THAT(faults_of([](Entries& e) { e.insert(e.begin() + 1, e[1]); }),
                ElementsAre("cpuid[0x1.0]"));
    Entries twice = of(0, 1);
    twice.insert(twice.begin(), twice[0]);
    const auto refused = check_cpuid(twice, {0, 1}, engine_offer());
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, ErrorCode::corrupt);
    EXPECT_THAT(refused.error().message, HasSubstr("cpuid[0x0.0]: have one entry"));
}

TEST(CpuidRules, AnotherOrderIsRefused) {
    EXPECT_THAT(faults_of([](Entries& e) { std::swap(e[0], e[1]); }), ElementsAre("cpuid[0x0.0]"));
}

TEST(CpuidRules, AnEntryAnswersTheSubleavesThatItShould) {
    // Features of leaf 7 as the answer to any subleaf would be features that nobody has.
    EXPECT_THAT(faults_of([](Entries& e) { leaf(e, 7).has_subleaf = false; }),
                ElementsAre("cpuid[0x7.0]"));
    EXPECT_THAT(faults_of([](Entries& e) { leaf(e, 1).has_subleaf = true; }),
                ElementsAre("cpuid[0x1.0]"));
}

TEST(CpuidRules, ALeafThatIsNotKnownIsNamed) {
    EXPECT_THAT(faults_of([](Entries& e) {
                    e.insert(e.begin() + 10, {7, 1, 0, 0, 0, 0, true}); // behind 7.0
                }),
                ElementsAre("cpuid[0x7.1]"));
    EXPECT_THAT(faults_of([](Entries& e) { leaf(e, 0x16).leaf = 0x40000000; }),
                ElementsAre("cpuid[0x40000000.0]"));
}

TEST(CpuidRules, ALeafAboveTheHighestIsRefused) {
    const auto paths = faults_of([](Entries& e) { leaf(e, 0).eax = 0xd; });
    EXPECT_THAT(paths, ElementsAre("cpuid[0x15.0]", "cpuid[0x16.0]"));
}

// --- fields -------------------------------------------------------------------------------------

TEST(CpuidRules, EveryBitOfAFeatureRegisterIsHeldAgainstTheOffer) {
    for (std::size_t w = 0; w < arch::cpuid_words; ++w) {
        const arch::CpuidRegister& r = arch::cpuid_registers[w];
        const u32 has = engine_offer().features[w];
        for (unsigned b = 0; b < 32; ++b) {
            const auto paths = faults_of([&](Entries& e) {
                state::CpuidEntry& entry = leaf(e, r.leaf, r.subleaf);
                u32* const regs[] = {&entry.eax, &entry.ebx, &entry.ecx, &entry.edx};
                *regs[r.reg] |= u32{1} << b;
            });
            EXPECT_EQ(paths.empty(), (has >> b & 1) != 0)
                << std::hex << r.leaf << " register " << unsigned{r.reg} << std::dec << " bit "
                << b;
        }
    }
}

TEST(CpuidRules, EveryOtherBitThatIsSetIsSeen) {
    // Registers that say what no guest can be hurt by.
    const auto free = [](u32 l, unsigned reg, unsigned b) {
        const bool text = l >= 0x80000002 && l <= 0x80000004;
        return text || l == 2 || (l == 1 && (reg == 0 || (reg == 1 && b < 8))) ||
               (l == 4 && (reg == 1 || reg == 2 || (reg == 0 && b < 14) || (reg == 3 && b < 3))) ||
               (l == 5 && ((reg == 2 && b < 2) || reg == 3)) || (l == 0x16 && b < 16 && reg < 3) ||
               (l == 0x80000001 && reg < 2) || (l == 0x80000006 && reg == 2) ||
               (l == 0xa && ((reg == 1 && b < 7) || (reg == 3 && b == 15) ||
                             (reg == 0 && (b == 0 || (b >= 24 && b < 27)))));
    };
    unsigned seen = 0;
    for (const state::CpuidEntry& model : of(1, 4)) {
        for (unsigned reg = 0; reg < 4; ++reg) {
            for (unsigned b = 0; b < 32; ++b) {
                if ((cpuid_register(model, reg) >> b & 1) != 0 || free(model.leaf, reg, b)) {
                    continue;
                }
                const auto paths = faults_of([&](Entries& e) {
                    state::CpuidEntry& entry = leaf(e, model.leaf, model.subleaf);
                    u32* const regs[] = {&entry.eax, &entry.ebx, &entry.ecx, &entry.edx};
                    *regs[reg] |= u32{1} << b;
                });
                const arch::CpuidRegister here{model.leaf, model.subleaf, static_cast<u8>(reg)};
                const auto* const word = std::find_if(
                    arch::cpuid_registers.begin(), arch::cpuid_registers.end(), [&](const auto& r) {
                        return r.leaf == here.leaf && r.subleaf == here.subleaf &&
                               r.reg == here.reg;
                    });
                const bool feature = word != arch::cpuid_registers.end() &&
                                     (engine_offer().features[static_cast<std::size_t>(
                                          word - arch::cpuid_registers.begin())] >>
                                          b &
                                      1) != 0;
                const bool smaller = model.leaf == 0 && reg == 0; // 0x16: bits below it
                EXPECT_TRUE(!paths.empty() || feature || (smaller && b < 5))
                    << std::hex << model.leaf << "." << model.subleaf << " register " << reg
                    << std::dec << " bit " << b;
                ++seen;
            }
        }
    }
    EXPECT_GT(seen, 1500u);
}

TEST(CpuidRules, PhysicalAddressBitsLieBetweenMemoryAndTheEngine) {
    const auto with = [](u32 bits) {
        return faults_of([bits](Entries& e) {
            leaf(e, 0x80000008).eax = (leaf(e, 0x80000008).eax & ~u32{0xff}) | bits;
        });
    };
    for (const u32 bits : {37u, 40u, 46u}) {
        EXPECT_THAT(with(bits), ElementsAre()) << bits;
    }
    for (const u32 bits : {0u, 12u, 36u, 47u, 52u, 64u, 255u}) {
        EXPECT_THAT(with(bits), ElementsAre("cpuid[0x80000008.0].EAX[7:0]")) << bits;
    }
    CpuOffer wider = engine_offer();
    wider.physical_bits = 52;
    EXPECT_THAT(faults_of([](Entries& e) { leaf(e, 0x80000008).eax = 0x3934; }, wider),
                ElementsAre());
}

TEST(CpuidRules, ThePlaceOfAVcpuIsThatOfTheMachine) {
    const Entries one = of(1, 4);
    EXPECT_THAT(cpuid_faults(one, {1, 4}, engine_offer()), ElementsAre());
    for (const CpuidPlace& place : {CpuidPlace{0, 4}, CpuidPlace{1, 2}, CpuidPlace{1, 5}}) {
        EXPECT_FALSE(cpuid_faults(one, place, engine_offer()).empty());
    }
    EXPECT_THAT(faults_of([](Entries& e) { leaf(e, 0xb, 1).edx = 2; }),
                ElementsAre("cpuid[0xb.1].EDX"));
    EXPECT_THAT(faults_of([](Entries& e) { leaf(e, 1).edx &= ~(u32{1} << 28); }),
                ElementsAre("cpuid[0x1.0].EDX[28:28]"));
    EXPECT_THAT(faults_of([](Entries& e) { leaf(e, 4, 3).eax ^= 1 << 14; }),
                ElementsAre("cpuid[0x4.3].EAX[25:14]"));
}

TEST(CpuidRules, XsaveAreasAreThoseOfTheFeatures) {
    EXPECT_THAT(faults_of([](Entries& e) { leaf(e, 0xd, 2).ebx = 0; }),
                ElementsAre("cpuid[0xd.2].EBX"));
    EXPECT_THAT(faults_of([](Entries& e) { leaf(e, 0xd, 0).ecx = 1 << 30; }),
                ElementsAre("cpuid[0xd.0].ECX"));
    EXPECT_THAT(faults_of([](Entries& e) { leaf(e, 0xd, 0).eax |= 0x60; }),
                ElementsAre("cpuid[0xd.0].EAX"));
    EXPECT_THAT(
        faults_of([](Entries& e) { std::erase_if(e, [](auto& x) { return x.leaf == 0xd; }); }),
        ElementsAre("cpuid[0xd.0]", "cpuid[0xd.1]", "cpuid[0xd.2]", "cpuid[0xd.9]"));
    // Fewer features are a machine too, if they agree with each other.
    EXPECT_THAT(faults_of([](Entries& e) {
                    leaf(e, 7).ecx &= ~(u32{1} << 3); // PKU
                    leaf(e, 0xd, 0).eax = 7;
                    leaf(e, 0xd, 0).ecx = 832;
                    std::erase_if(e, [](auto& x) { return x.leaf == 0xd && x.subleaf == 9; });
                }),
                ElementsAre());
}

TEST(CpuidRules, TheTscHasTheFrequencyThatIsOffered) {
    EXPECT_THAT(faults_of([](Entries& e) { leaf(e, 0x15).ebx = 80; }),
                ElementsAre("cpuid[0x15.0].EBX"));
    EXPECT_THAT(faults_of([](Entries& e) { leaf(e, 0x15) = {.leaf = 0x15}; }),
                ElementsAre("cpuid[0x15.0].EAX", "cpuid[0x15.0].ECX"));
}

TEST(CpuidRules, AnotherVendorIsRefused) {
    EXPECT_THAT(faults_of([](Entries& e) { leaf(e, 0).ebx = 0x68747541; }), // "Auth"
                ElementsAre("cpuid[0x0.0].EBX"));
}

// --- what an engine learns ----------------------------------------------------------------------

TEST(CpuidRules, AFeatureThatTheEngineLearnsChangesNothingForAnOlderMachine) {
    const Entries before = of(0, 2);
    CpuOffer later = engine_offer();
    later.features[word_7_ebx] |= u32{1} << 4; // made up
    EXPECT_THAT(cpuid_faults(before, {0, 2}, later), ElementsAre());
    const CpuCaps now(before), then(before, later.features);
    for (const arch::CpuFeatureInfo& f : arch::cpu_features) {
        const auto feature = static_cast<arch::CpuFeature>(&f - arch::cpu_features.data());
        EXPECT_EQ(now.has(feature), then.has(feature)) << f.name;
    }
}

TEST(CpuidRules, AMachineWithAFeatureThatOnlyALaterEngineHasIsRefusedByName) {
    CpuOffer later = engine_offer();
    later.features[word_7_ebx] |= u32{1} << 4;
    const auto newer = [](Entries& e) { leaf(e, 7).ebx |= u32{1} << 4; };
    EXPECT_THAT(faults_of(newer, later), ElementsAre());
    EXPECT_THAT(faults_of(newer), ElementsAre("cpuid[0x7.0].EBX"));
    Entries entries = of(1, 4);
    newer(entries);
    EXPECT_THAT(cpuid_faults(entries, {1, 4}, engine_offer())[0].need, HasSubstr("(bit 4)"));
}

TEST(CpuidRules, WhatIsNotOfferedIsToldOnceAndByName) {
    CpuOffer less = engine_offer();
    less.features[static_cast<std::size_t>(CpuidWord::leaf_1_ecx)] &= ~(u32{1} << 28); // AVX
    less.xcr0 = 3;
    const auto faults = cpuid_faults(of(1, 4), {1, 4}, less);
    ASSERT_EQ(faults.size(), 1u);
    EXPECT_EQ(faults[0].path, "cpuid[0x1.0].ECX");
    EXPECT_THAT(faults[0].need, HasSubstr("(avx)"));
}

// --- what the code once took for granted --------------------------------------------------------

TEST(CpuidRules, CpuidAnswersWhateverTheOrderOfItsEntries) {
    Entries entries = of(0, 1);
    std::reverse(entries.begin(), entries.end());
    const state::Cpu cpu;
    const auto sorted = of(0, 1);
    for (const u32 number :
         {0u, 1u, 7u, 0xdu, 0x16u, 0x17u, 0x40000000u, 0x80000008u, 0x80000009u}) {
        const auto a = cpuid(entries, cpu, 0, number, 0);
        const auto b = cpuid(sorted, cpu, 0, number, 0);
        EXPECT_EQ(std::tie(a.eax, a.ebx, a.ecx, a.edx), std::tie(b.eax, b.ebx, b.ecx, b.edx))
            << std::hex << number;
    }
}

} // namespace
} // namespace nestor::hv
