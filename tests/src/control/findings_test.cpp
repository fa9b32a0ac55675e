// What a host is asked before a machine moves there, and what is told when it cannot take it.
#include <algorithm>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "engine/arch/cpu_feature.hpp"
#include "engine/state/codec.hpp"
#include "engine/state/vcpu.hpp"
#include "src/control/contract.hpp"

namespace nestor::control {
namespace {

constexpr u64 avx512_opmask = u64{1} << 5;

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

using Paths = std::vector<std::string>;

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
        ASSERT_FALSE(read) << name;
        EXPECT_NE(read.error().message.find(name), std::string::npos) << read.error().message;
        j[name] = nullptr;
        EXPECT_FALSE(offer_from_json(j.dump())) << name;
    }
    for (const char* text : {"", "[]", "7", "{", "null"}) {
        EXPECT_FALSE(offer_from_json(text)) << text;
    }
}

} // namespace
} // namespace nestor::control
