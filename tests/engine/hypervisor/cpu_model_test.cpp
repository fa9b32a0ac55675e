// Released CPU models stay what they were, whatever the engine learns.
#include "engine/hypervisor/cpu_model.hpp"

#include <algorithm>
#include <set>

#include <gtest/gtest.h>

#include "engine/hypervisor/cpu_caps.hpp"
#include "engine/hypervisor/cpu_offer.hpp"

namespace nestor::hv {
namespace {

/// A copy of a model that a test may change.
struct Changed {
    std::vector<state::CpuidEntry> leaves;
    std::vector<u32> msrs;
    std::vector<MsrConstant> constants;

    explicit Changed(const CpuModel& from)
        : leaves(from.leaves.begin(), from.leaves.end()), msrs(from.msrs.begin(), from.msrs.end()),
          constants(from.constants.begin(), from.constants.end()) {}
    [[nodiscard]] CpuModel model() const { return {"changed", leaves, msrs, constants}; }
};

bool constant_row(u32 msr) {
    switch (msr) {
#define MSR_SPECIAL(index, name)
#define MSR_FIELD(index, name, member, writable)
#define MSR_CONSTANT(index, name)                                                                  \
    case index:                                                                                    \
        return true;
#include "engine/arch/msr.def"
#undef MSR_SPECIAL
#undef MSR_FIELD
#undef MSR_CONSTANT
    default:
        return false;
    }
}

// The digest of nestor-v1 was taken from the code of 0.1.0, which had no such file.
TEST(CpuModel, EveryReleasedModelHasTheDigestOfItsRelease) {
    ASSERT_FALSE(released_models().empty());
    for (const ReleasedModel& released : released_models()) {
        EXPECT_EQ(to_hex(digest_of(*released.model)), released.digest) << released.model->name;
    }
}

TEST(CpuModel, TheDigestNoticesEveryKindOfChange) {
    const Digest before = digest_of(default_model());
    Changed leaf(default_model()), msr(default_model()), constant(default_model());
    EXPECT_EQ(digest_of(leaf.model()), before);
    leaf.leaves.back().eax ^= 1;
    msr.msrs.push_back(0x4f);
    constant.constants.front().value ^= 1;
    EXPECT_NE(digest_of(leaf.model()), before);
    EXPECT_NE(digest_of(msr.model()), before);
    EXPECT_NE(digest_of(constant.model()), before);
}

TEST(CpuModel, NamesAreUniqueAndFound) {
    std::set<std::string_view> names;
    for (const ReleasedModel& released : released_models()) {
        EXPECT_TRUE(names.insert(released.model->name).second) << released.model->name;
        EXPECT_EQ(find_model(released.model->name), released.model);
    }
    EXPECT_EQ(find_model("nestor-v1"), &default_model());
    EXPECT_EQ(find_model("nestor-v"), nullptr);
}

TEST(CpuModel, AModelIsCompleteAndThisEngineCanBeIt) {
    for (const ReleasedModel& released : released_models()) {
        const CpuModel& model = *released.model;
        std::set<u32> constants;
        for (const MsrConstant& c : model.constants) {
            EXPECT_TRUE(constants.insert(c.index).second) << std::hex << c.index;
        }
        std::set<u32> msrs;
        for (const u32 msr : model.msrs) {
            EXPECT_TRUE(msrs.insert(msr).second) << std::hex << msr;
            EXPECT_TRUE(arch::msr_row(msr)) << std::hex << msr;
            EXPECT_EQ(constants.contains(msr), constant_row(msr)) << std::hex << msr;
        }
        for (u32 index = 0x480; index <= 0x491; ++index) {
            EXPECT_TRUE(constants.contains(index)) << std::hex << index;
        }
        for (u16 count = 1; count <= 16; ++count) {
            for (u16 index = 0; index < count; ++index) {
                const auto faults = cpuid_faults(cpu_model_cpuid(model, index, count),
                                                 {index, count}, engine_offer());
                EXPECT_TRUE(faults.empty())
                    << index << " of " << count << ": " << faults.front().path;
            }
        }
    }
}

TEST(CpuModel, AnMsrThatTheModelDoesNotListIsNotThere) {
    Changed fewer(default_model());
    std::erase(fewer.msrs, 0x3b);
    std::erase(fewer.msrs, 0xce);
    fewer.constants.front().value = 7; // of 0x17
    const MsrSet now(default_model()), older(fewer.model());
    EXPECT_TRUE(now.has(arch::MsrRow::tsc_adjust) && now.has(arch::MsrRow::platform_info));
    EXPECT_FALSE(older.has(arch::MsrRow::tsc_adjust) || older.has(arch::MsrRow::platform_info));
    EXPECT_TRUE(older.has(arch::MsrRow::tsc));
    EXPECT_EQ(now.constant(arch::MsrRow::platform_id), 0u);
    EXPECT_EQ(older.constant(arch::MsrRow::platform_id), 7u);
}

// --- VMX ----------------------------------------------------------------------------------------

/// What this engine's silicon offers a vCPU with everything.
arch::VmxCapabilities silicon() {
    return arch::vmx_capabilities(
        {.cr4_allowed = ~silicon_features(cpu_model_cpuid(default_model(), 0, 1)).cr4_reserved});
}

TEST(CpuModel, VmxCapabilitiesOfAModelAreThoseOfItsRelease) {
    const arch::VmxCapabilities frozen = vmx_of(default_model());
    EXPECT_EQ(arch::masked(frozen, silicon()), frozen);
}

TEST(CpuModel, VmxThatTheSiliconLearnsDoesNotShow) {
    const arch::VmxCapabilities frozen = vmx_of(default_model());
    arch::VmxCapabilities later = silicon();
    for (u32 index = 0x480; index <= 0x491; ++index) {
        const bool fixed0 = index == 0x486 || index == 0x488;
        u64& value = *later.find(index);
        value = fixed0 ? 0 : value | ~u64{0xffffffff}; // whatever may be 1, or need not be
    }
    later.misc = later.ept_vpid_cap = later.vmfunc = later.cr0_fixed1 = later.cr4_fixed1 = ~u64{0};
    EXPECT_EQ(arch::masked(frozen, later), frozen);
}

TEST(CpuModel, VmxThatTheVcpuLacksIsTakenAway) {
    using arch::ControlWord;
    const arch::VmxCapabilities frozen = vmx_of(default_model());
    arch::VmxCapabilities less = silicon();
    less.procbased_ctls2 &= ~(u64{arch::proc2_control::enable_ept} << 32);
    less.ept_vpid_cap &= ~arch::ept_vpid::page_1g;
    less.true_pinbased_ctls |= 1; // must be 1 here
    const arch::VmxCapabilities c = arch::masked(frozen, less);
    EXPECT_EQ(c.may_be_1(ControlWord::proc2),
              frozen.may_be_1(ControlWord::proc2) & ~arch::proc2_control::enable_ept);
    EXPECT_EQ(c.ept_vpid_cap, frozen.ept_vpid_cap & ~arch::ept_vpid::page_1g);
    EXPECT_EQ(c.must_be_1(ControlWord::pin), frozen.must_be_1(ControlWord::pin) | 1);
}

} // namespace
} // namespace nestor::hv
