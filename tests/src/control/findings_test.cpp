// What a host is asked before a machine moves there, and what is told when it cannot take it.
#include <algorithm>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "engine/arch/cpu_feature.hpp"
#include "engine/state/codec.hpp"
#include "engine/state/machine.hpp"
#include "engine/state/vcpu.hpp"
#include "src/control/contract.hpp"

namespace nestor::control {
namespace {

constexpr u64 avx512_opmask = u64{1} << 5;
using Paths = std::vector<std::string>;

class FindingsTest : public testing::Test {
protected:
    void SetUp() override {
        contract_ = contract_of(**machine::Machine::create({}));
        cpu_.xcr0 = 7;
    }
    std::vector<Finding> ask() {
        const std::vector<snapshot::Unit> units{
            {"vcpu[0].cpu", state::Meta<state::Cpu>::id, state::encode(cpu_)}};
        return findings(encode_contract(contract_), units, offer_);
    }
    std::vector<std::string> paths() {
        std::vector<std::string> out;
        for (const Finding& f : ask()) {
            out.push_back(f.path);
            EXPECT_FALSE(f.have.empty() || f.need.empty() || f.remedy.empty()) << f.path;
        }
        return out;
    }

    HostOffer offer_ = this_host();
    state::MachineContract contract_;
    state::Cpu cpu_;
};

TEST_F(FindingsTest, AMachineOfThisBuildRunsHere) { EXPECT_EQ(paths(), Paths()); }

TEST_F(FindingsTest, EverythingThatIsInTheWayIsToldAtOnce) {
    offer_.cpus = 0;
    offer_.memory = 1 << 20;
    offer_.cpu_models = {"other"};
    offer_.xcr0 = 3;
    offer_.msrs.clear();
    const Paths found = paths();
    for (const char* path : {"contract.cpus", "contract.memory", "contract.cpuModel",
                             "contract.xcr0", "contract.msrs[0x10]", "vcpu[0].cpu.xcr0"}) {
        EXPECT_NE(std::find(found.begin(), found.end(), path), found.end()) << path;
    }
    const auto refused = refuse("no", ask());
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, ErrorCode::incompatible);
    EXPECT_NE(refused.error().message.find("contract.cpuModel: have other, need nestor-v1: "),
              std::string::npos);
}

TEST_F(FindingsTest, AFeatureThatIsNotOfferedIsNamed) {
    offer_.cpu_features[static_cast<std::size_t>(arch::CpuidWord::leaf_7_ebx)] &= ~(u32{1} << 5);
    const auto found = ask();
    ASSERT_EQ(found.size(), 1U);
    EXPECT_EQ(found[0].path, "contract.cpuid[0x7.0].EBX");
    EXPECT_NE(found[0].need.find("(avx2)"), std::string::npos) << found[0].need;
}

/// Units of a machine with four vCPUs, one of which has another CPUID.
class ModelFindingsTest : public FindingsTest {
protected:
    void SetUp() override {
        FindingsTest::SetUp();
        state::MachineConfig config;
        config.cpus = 4;
        const auto machine = *machine::Machine::create(config);
        contract_ = contract_of(*machine);
        config_ = machine->config();
        for (u16 i = 0; i < config.cpus; ++i) {
            models_.push_back(machine->vcpu(VcpuIndex(i)).model);
        }
    }
    Paths paths() {
        std::vector<snapshot::Unit> units{
            {"config", state::Meta<state::MachineConfig>::id, state::encode(config_)}};
        for (std::size_t i = 0; i < models_.size(); ++i) {
            units.push_back({"vcpu[" + std::to_string(i) + "].model",
                             state::Meta<state::CpuModel>::id, state::encode(models_[i])});
        }
        Paths out;
        for (const Finding& f : findings(encode_contract(contract_), units, offer_)) {
            out.push_back(f.path);
            EXPECT_FALSE(f.have.empty() || f.need.empty() || f.remedy.empty()) << f.path;
            EXPECT_TRUE(f.blocks) << f.path;
        }
        return out;
    }
    static state::CpuidEntry& leaf_7(std::vector<state::CpuidEntry>& cpuid) {
        return *std::find_if(cpuid.begin(), cpuid.end(), [](const auto& e) { return e.leaf == 7; });
    }

    state::MachineConfig config_;
    std::vector<state::CpuModel> models_;
};

TEST_F(ModelFindingsTest, AMachineOfFourRunsHere) { EXPECT_EQ(paths(), Paths()); }

TEST_F(ModelFindingsTest, WhatAllVcpusHaveIsToldOnce) {
    offer_.cpu_features[static_cast<std::size_t>(arch::CpuidWord::leaf_7_ebx)] &= ~(u32{1} << 5);
    EXPECT_EQ(paths(), Paths{"contract.cpuid[0x7.0].EBX"});
}

TEST_F(ModelFindingsTest, WhatOneVcpuHasIsToldOfItsUnit) {
    models_[2].cpuid.back().eax = 0x39ff;
    EXPECT_EQ(paths(), (Paths{"vcpu[2].model.cpuid[0x80000008.0].EAX[7:0]", "vcpu[2].model"}));
    models_[2] = models_[3];
    const Paths place = paths();
    ASSERT_FALSE(place.empty());
    EXPECT_EQ(place[0], "vcpu[2].model.cpuid[0x1.0].EBX[31:24]");
}

TEST_F(ModelFindingsTest, AMillionEntriesAreOneFinding) {
    models_[1].cpuid.resize(1 << 20);
    EXPECT_EQ(paths(), Paths{"vcpu[1].model.cpuid"});
}

TEST_F(ModelFindingsTest, VcpusWithOtherFeaturesOfTheSiliconAreTold) {
    leaf_7(models_[3].cpuid).ebx &= ~(u32{1} << 29); // SHA
    EXPECT_EQ(paths(), Paths{"vcpu[3].model"});
}

TEST_F(ModelFindingsTest, AMachineWithLessThanItsModelRunsHere) {
    for (state::CpuModel& model : models_) {
        leaf_7(model.cpuid).ebx &= ~(u32{1} << 29);
    }
    contract_.cpuid = models_[0].cpuid;
    EXPECT_EQ(paths(), Paths());
}

TEST_F(ModelFindingsTest, AContractThatIsNotItsMachinesIsTold) {
    leaf_7(contract_.cpuid).ebx &= ~(u32{1} << 29); // SHA
    contract_.memory += 4096;
    contract_.xcr0 = 7;
    contract_.msrs.pop_back();
    EXPECT_EQ(paths(),
              (Paths{"contract.xcr0", "contract.msrs", "contract.memory", "contract.cpuid"}));
}

TEST_F(ModelFindingsTest, AHostWithNarrowerAddressesIsTold) {
    offer_.physical_bits = 40;
    EXPECT_EQ(paths(), Paths{"contract.cpuid[0x80000008.0].EAX[7:0]"});
}

TEST_F(ModelFindingsTest, WhatAHostLearntIsNotInTheWay) {
    offer_.cpu_features[static_cast<std::size_t>(arch::CpuidWord::leaf_7_ebx)] |= u32{1} << 4;
    offer_.msrs.push_back(0x4f);
    offer_.cpu_models.push_back("nestor-v9");
    offer_.xcr0 |= avx512_opmask;
    offer_.physical_bits = 52;
    EXPECT_EQ(paths(), Paths());
}

TEST_F(FindingsTest, AnMsrThatIsNotKnownIsNamed) {
    contract_.msrs.push_back(0xc0010117);
    EXPECT_EQ(paths(), Paths{"contract.msrs[0xc0010117]"});
}

TEST_F(FindingsTest, AComponentWithoutAPlaceInTheStateIsNamed) {
    cpu_.xcr0 |= avx512_opmask;
    cpu_.xss = u64{1} << 40;
    const auto found = ask();
    ASSERT_EQ(found.size(), 2U);
    EXPECT_EQ(found[0].path, "vcpu[0].cpu.xcr0");
    EXPECT_NE(found[0].need.find("(opmask)"), std::string::npos) << found[0].need;
    EXPECT_NE(found[1].need.find("(component 40)"), std::string::npos) << found[1].need;
}

TEST_F(FindingsTest, AnUnknownUnitIsNamedWithItsType) {
    const std::vector<snapshot::Unit> units{{"toaster[1]", 0x1234, {}}};
    const auto found = findings(encode_contract(contract_), units, offer_);
    ASSERT_EQ(found.size(), 1U);
    EXPECT_EQ(found[0].path, "unit toaster[1]");
    EXPECT_EQ(found[0].need, "type 0x1234");
}

TEST_F(FindingsTest, AUnitThatCannotBeReadIsAFindingAndNotTheEnd) {
    const std::vector<snapshot::Unit> units{
        {"vcpu[0].cpu", state::Meta<state::Cpu>::id, std::vector<std::byte>(8, std::byte{0xff})},
        {"toaster", 1, {}}};
    const auto found = findings(encode_contract(contract_), units, offer_);
    ASSERT_EQ(found.size(), 2U);
    EXPECT_EQ(found[0].path, "unit vcpu[0].cpu");
    EXPECT_EQ(found[1].path, "unit toaster");
}

TEST_F(FindingsTest, MoreMemoryThanTheHostHasIsToldAndDoesNotBlock) {
    offer_.host_memory = 1 << 20;
    const auto found = ask();
    ASSERT_EQ(found.size(), 1U);
    EXPECT_TRUE(can_run(found));
    EXPECT_TRUE(refuse("no", found));
}

TEST_F(FindingsTest, ADescriptionOfAHostIsReadBackAsItWas) {
    const std::string text = to_json(offer_);
    const auto again = offer_from_json(text);
    ASSERT_TRUE(again) << again.error().message;
    EXPECT_EQ(to_json(*again), text);
    EXPECT_EQ(again->cpu_features, offer_.cpu_features);
}

TEST_F(FindingsTest, ADescriptionMayHoldWhatOnlyALaterVersionKnows) {
    auto j = nlohmann::json::parse(to_json(offer_));
    j["cpuFeatures"].push_back("amx_fp99");
    j["weather"] = {{"sky", "grey"}};
    j["xcr0"] = 519;
    EXPECT_TRUE(offer_from_json(j.dump()));
}

TEST_F(FindingsTest, ADescriptionThatLacksAMemberOrHasAWrongOneIsRefusedByName) {
    const auto whole = nlohmann::json::parse(to_json(offer_));
    for (const auto& [name, value] : whole.items()) {
        auto j = whole;
        j.erase(name);
        const auto read = offer_from_json(j.dump());
        if (name == "semantics" || name == "physicalBits") {
            EXPECT_TRUE(read) << name << ": 0.1.0 did not tell it";
        } else {
            ASSERT_FALSE(read) << name;
            EXPECT_NE(read.error().message.find(name), std::string::npos) << read.error().message;
        }
        j[name] = nullptr;
        EXPECT_FALSE(offer_from_json(j.dump())) << name;
    }
    for (const char* text : {"", "[]", "7", "{", "null"}) {
        EXPECT_FALSE(offer_from_json(text)) << text;
    }
}

} // namespace
} // namespace nestor::control
