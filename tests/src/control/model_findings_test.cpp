// What a host is asked about the CPUs of a machine, and what is told of a CPUID that contradicts
// its contract, its machine or the other vCPUs.
#include <algorithm>

#include <gtest/gtest.h>

#include "engine/arch/cpu_feature.hpp"
#include "engine/state/codec.hpp"
#include "engine/state/vcpu.hpp"
#include "src/control/contract.hpp"
#include "src/control/keeper.hpp"

namespace nestor::control {
namespace {

using CpuPaths = std::vector<std::string>;

/// Units of a machine with four vCPUs, one of which has another CPUID.
class ModelFindingsTest : public testing::Test {
protected:
    void SetUp() override {
        const auto machine = *machine::Machine::create({.memory = u64{4} << 20, .cpus = 4});
        contract_ = contract_of(*machine);
        units_ = to_snapshot(machine->units());
        for (u16 i = 0; i < 4; ++i) {
            models_.push_back(machine->vcpu(VcpuIndex(i)).model);
        }
    }
    CpuPaths paths() {
        for (std::size_t i = 0; i < models_.size(); ++i) {
            unit("vcpu[" + std::to_string(i) + "].model").bytes = state::encode(models_[i]);
        }
        CpuPaths out;
        for (const Finding& f : findings(encode_contract(contract_), units_, offer_)) {
            out.push_back(f.path);
            EXPECT_FALSE(f.have.empty() || f.need.empty() || f.remedy.empty()) << f.path;
            EXPECT_TRUE(f.blocks) << f.path;
        }
        return out;
    }
    static state::CpuidEntry& leaf_7(std::vector<state::CpuidEntry>& cpuid) {
        return *std::find_if(cpuid.begin(), cpuid.end(), [](const auto& e) { return e.leaf == 7; });
    }

    snapshot::Unit& unit(const std::string& name) {
        return *std::find_if(units_.begin(), units_.end(),
                             [&](const snapshot::Unit& u) { return u.name == name; });
    }

    HostOffer offer_ = this_host();
    state::MachineContract contract_;
    std::vector<snapshot::Unit> units_;
    std::vector<state::CpuModel> models_;
};

TEST_F(ModelFindingsTest, AMachineOfFourRunsHere) { EXPECT_EQ(paths(), CpuPaths()); }

TEST_F(ModelFindingsTest, WhatAllVcpusHaveIsToldOnce) {
    offer_.cpu_features[static_cast<std::size_t>(arch::CpuidWord::leaf_7_ebx)] &= ~(u32{1} << 5);
    EXPECT_EQ(paths(), CpuPaths{"contract.cpuid[0x7.0].EBX"});
}

TEST_F(ModelFindingsTest, WhatOneVcpuHasIsToldOfItsUnit) {
    models_[2].cpuid.back().eax = 0x39ff;
    EXPECT_EQ(paths(), (CpuPaths{"vcpu[2].model.cpuid[0x80000008.0].EAX[7:0]", "vcpu[2].model"}));
    models_[2] = models_[3];
    const CpuPaths place = paths();
    ASSERT_FALSE(place.empty());
    EXPECT_EQ(place[0], "vcpu[2].model.cpuid[0x1.0].EBX[31:24]");
}

TEST_F(ModelFindingsTest, TooManyEntriesAreOneFinding) {
    models_[1].cpuid.resize(1 << 14);
    EXPECT_EQ(paths(), CpuPaths{"vcpu[1].model.cpuid"});
}

TEST_F(ModelFindingsTest, VcpusWithOtherFeaturesOfTheSiliconAreTold) {
    leaf_7(models_[3].cpuid).ebx &= ~(u32{1} << 29); // SHA
    EXPECT_EQ(paths(), CpuPaths{"vcpu[3].model"});
}

TEST_F(ModelFindingsTest, AMachineWithLessThanItsModelRunsHere) {
    for (state::CpuModel& model : models_) {
        leaf_7(model.cpuid).ebx &= ~(u32{1} << 29);
    }
    contract_.cpuid = models_[0].cpuid;
    EXPECT_EQ(paths(), CpuPaths());
}

TEST_F(ModelFindingsTest, AContractThatIsNotItsMachinesIsTold) {
    leaf_7(contract_.cpuid).ebx &= ~(u32{1} << 29); // SHA
    contract_.memory += 4096;
    contract_.xcr0 = 7;
    contract_.msrs.pop_back();
    EXPECT_EQ(paths(),
              (CpuPaths{"contract.xcr0", "contract.msrs", "contract.memory", "contract.cpuid"}));
}

TEST_F(ModelFindingsTest, AHostWithNarrowerAddressesIsTold) {
    offer_.physical_bits = 40;
    EXPECT_EQ(paths(), CpuPaths{"contract.cpuid[0x80000008.0].EAX[7:0]"});
}

TEST_F(ModelFindingsTest, WhatAHostLearntIsNotInTheWay) {
    offer_.cpu_features[static_cast<std::size_t>(arch::CpuidWord::leaf_7_ebx)] |= u32{1} << 4;
    offer_.msrs.push_back(0x4f);
    offer_.cpu_models.push_back("nestor-v9");
    offer_.xcr0 |= u64{1} << 5;
    offer_.physical_bits = 52;
    EXPECT_EQ(paths(), CpuPaths());
}

} // namespace
} // namespace nestor::control
