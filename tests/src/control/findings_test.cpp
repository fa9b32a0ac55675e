// What a host is asked before a machine moves there, and what is told when it cannot take it.
#include <algorithm>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "engine/arch/cpu_feature.hpp"
#include "engine/state/board.hpp"
#include "engine/state/codec.hpp"
#include "engine/state/machine.hpp"
#include "engine/state/vcpu.hpp"
#include "src/control/contract.hpp"
#include "src/control/keeper.hpp"
#include "tests/src/control/keeper_fixture.hpp"

namespace nestor::control {
namespace {

constexpr u64 avx512_opmask = u64{1} << 5;
using Paths = std::vector<std::string>;

class FindingsTest : public testing::Test {
protected:
    void SetUp() override {
        const auto machine = *machine::Machine::create({.memory = u64{4} << 20, .cpus = 2});
        contract_ = contract_of(*machine);
        units_ = to_snapshot(machine->units());
        cpu_.xcr0 = 7;
    }
    snapshot::Unit& unit(const std::string& name) {
        return *std::find_if(units_.begin(), units_.end(),
                             [&](const snapshot::Unit& u) { return u.name == name; });
    }
    void set_config(const state::MachineConfig& config) {
        unit("config").bytes = state::encode(config);
    }
    std::vector<Finding> ask() {
        if (ask_with_cpu_) {
            unit("vcpu[0].cpu").bytes = state::encode(cpu_);
        }
        return findings(encode_contract(contract_), units_, offer_);
    }
    /// Path, have and need of the only finding.
    std::string only() {
        const auto found = ask();
        EXPECT_EQ(found.size(), 1U);
        EXPECT_FALSE(can_run(found));
        return found.empty() ? "" : found[0].path + ": " + found[0].have + " / " + found[0].need;
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
    std::vector<snapshot::Unit> units_;
    state::Cpu cpu_;
    bool ask_with_cpu_ = true;
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
    units_.push_back({"toaster[1]", 0x1234, {}});
    EXPECT_EQ(only(), "unit toaster[1]: unknown on board 1 with 2 vCPUs / type 0x1234");
    EXPECT_EQ(ask()[0].remedy, "use a newer vm there");
}

TEST_F(FindingsTest, AUnitOfAVcpuThatTheConfigDoesNotHaveIsUnknown) {
    for (const char* name : {"vcpu[2].cpu", "vcpu[16].cpu", "vcpu[02].cpu", "vcpu[].cpu", "cpu",
                             "vcpu[0].cpu ", "uart", "uart[1]"}) {
        units_.push_back({name, state::Meta<state::Cpu>::id, state::encode(cpu_)});
        EXPECT_EQ(only(), std::string("unit ") + name +
                              ": unknown on board 1 with 2 vCPUs / type " +
                              hex(state::Meta<state::Cpu>::id) + " Cpu");
        units_.pop_back();
    }
}

TEST_F(FindingsTest, EveryMissingUnitIsAFinding) {
    ask_with_cpu_ = false;
    const std::vector<snapshot::Unit> whole = units_;
    for (const snapshot::Unit& unit : whole) {
        std::erase_if(units_, [&](const snapshot::Unit& u) { return u.name == unit.name; });
        EXPECT_EQ(only().find("unit " + unit.name + ": missing / type " + hex(unit.type)), 0U)
            << unit.name;
        units_ = whole;
    }
}

TEST_F(FindingsTest, AUnitThatIsThereTwiceIsAFinding) {
    units_.push_back(unit("rtc"));
    EXPECT_EQ(only(), "unit rtc: there more than once / once");
    units_.back() = unit("config");
    EXPECT_EQ(only(), "unit config: there more than once / once");
}

TEST_F(FindingsTest, AUnitOfAnotherTypeIsAFinding) {
    unit("rtc").type = state::Meta<state::Pic>::id;
    EXPECT_EQ(only(), "unit rtc: type " + hex(state::Meta<state::Pic>::id) + " Pic / type " +
                          hex(state::Meta<state::Rtc>::id) + " Rtc");
}

TEST_F(FindingsTest, AUnitThatCannotBeReadIsAFindingAndNotTheEnd) {
    ask_with_cpu_ = false;
    unit("vcpu[0].cpu").bytes.assign(8, std::byte{0xff});
    units_.push_back({"toaster", 1, {}});
    EXPECT_EQ(paths(), (Paths{"unit toaster", "unit vcpu[0].cpu"}));
}

TEST_F(FindingsTest, WithoutAReadableConfigTheOtherUnitsAreAskedAllTheSame) {
    ask_with_cpu_ = false;
    unit("config").bytes.assign(8, std::byte{0xff});
    unit("vcpu[0].cpu").bytes.assign(8, std::byte{0xff});
    units_.push_back({"toaster", 1, {}});
    EXPECT_EQ(paths(), (Paths{"unit config", "unit vcpu[0].cpu", "unit toaster"}));
    unit("config").type = state::Meta<state::Pic>::id;
    EXPECT_EQ(paths().front(), "unit config");
}

TEST_F(FindingsTest, AConfigOutOfRangeIsTheSameFindingThatMakingOneGives) {
    const auto told = [&](const state::MachineConfig& config) {
        set_config(config);
        const auto made = machine::Machine::create(config);
        EXPECT_FALSE(made);
        const auto found = paths();
        return std::find(found.begin(), found.end(), "config.turn") != found.end() ||
               std::find(found.begin(), found.end(), "config.cpus") != found.end() ||
               std::find(found.begin(), found.end(), "config.memory") != found.end();
    };
    EXPECT_TRUE(told({.memory = u64{4} << 20, .cpus = 2, .turn = 0}));
    EXPECT_TRUE(told({.memory = u64{4} << 20, .cpus = 0}));
    EXPECT_TRUE(told({.memory = u64{4} << 20, .cpus = 0xffff}));
    EXPECT_TRUE(told({.memory = (u64{4} << 20) + 1, .cpus = 2}));
}

TEST_F(FindingsTest, ABoardThatThisBuildDoesNotKnowIsAFinding) {
    set_config({.memory = u64{4} << 20, .cpus = 2, .board = 7});
    EXPECT_EQ(only(), "config.board: 1 / 7");
    units_.push_back({"toaster[1]", 0x1234, {}});
    EXPECT_EQ(paths(), (Paths{"config.board", "unit toaster[1]"}));
    units_.pop_back();
    set_config({.memory = u64{4} << 20, .cpus = 2, .board = 0});
    const auto found = paths(); // no device is on a board 0
    EXPECT_NE(std::find(found.begin(), found.end(), "unit pit"), found.end());
    EXPECT_NE(std::find(found.begin(), found.end(), "config.board"), found.end());
}

TEST_F(FindingsTest, AHostThatDoesNotOfferTheBoardIsAFinding) {
    offer_.board = 0;
    EXPECT_EQ(only(), "config.board: 0 / 1");
}

TEST_F(FindingsTest, AUnitOfATypeThatTheHostDoesNotOfferIsAFinding) {
    std::erase_if(offer_.units, [](const UnitType& t) { return t.name == "Rtc"; });
    EXPECT_EQ(only(), "unit rtc: unknown / type " + hex(state::Meta<state::Rtc>::id) + " Rtc");
}

TEST_F(FindingsTest, AHostOffersWhatUnitsAreMadeOfAndNothingElse) {
    std::vector<std::string> names;
    for (const UnitType& type : offer_.units) {
        names.push_back(type.name);
    }
    std::sort(names.begin(), names.end());
    EXPECT_EQ(names,
              (std::vector<std::string>{
                  "AcpiPm",        "Cpu",          "CpuModel",      "FwCfg", "IoApic", "Keyboard",
                  "Lapic",         "Machine",      "MachineConfig", "Msrs",  "Nested", "PciHost",
                  "PendingEvents", "Pic",          "Pit",           "Pmu",   "Rtc",    "TestDevice",
                  "Uart",          "VmGeneration", "Vmcs01"}));
}

TEST_F(FindingsTest, ADescriptionThatNamesNoBoardOffersTheFirst) {
    auto j = nlohmann::json::parse(to_json(offer_));
    EXPECT_EQ(j["board"], 1);
    j["board"] = 9;
    EXPECT_EQ(offer_from_json(j.dump())->board, 9U);
    j.erase("board");
    EXPECT_EQ(offer_from_json(j.dump())->board, 1U);
    j["board"] = "many";
    EXPECT_FALSE(offer_from_json(j.dump()));
}

/// A snapshot whose units were changed in the making.
class EditedSnapshotTest : public KeeperTest {
protected:
    template <class Edit>
    snapshot::Snapshot saved(const Edit& edit) {
        const auto keeper = booted(10);
        auto units = to_snapshot(keeper->machine().units());
        edit(units);
        std::vector<snapshot::Region> regions;
        for (const auto& region : keeper->machine().memory().regions()) {
            regions.push_back({region.start, region.size, region.host});
        }
        auto to = store();
        const auto done = to.save({.tag = "edited",
                                   .units = units,
                                   .regions = regions,
                                   .contract = keeper->contract(),
                                   .engine_semantics = hv::engine_semantics});
        EXPECT_TRUE(done) << done.error().message;
        return *to.load("edited");
    }
};

TEST_F(EditedSnapshotTest, AsItWasItRunsHere) {
    EXPECT_TRUE(can_run(findings(saved([](auto&) {}), this_host())));
}

TEST_F(EditedSnapshotTest, MemoryThatIsNotThatOfTheConfigIsAFinding) {
    const auto found = findings(saved([](auto& units) {
                                    auto config =
                                        *state::decode<state::MachineConfig>(units.front().bytes);
                                    config.memory *= 2;
                                    units.front().bytes = state::encode(config);
                                }),
                                this_host());
    ASSERT_EQ(found.size(), 2U);
    EXPECT_EQ(found[0].path, "contract.memory"); // what it was saved with
    EXPECT_EQ(found[1].path, "memory");
    EXPECT_EQ(found[1].have, "0x400000 bytes at 0x0, 0x10000 bytes at 0xff000000");
    EXPECT_EQ(found[1].need, "0x800000 bytes at 0x0, 0x10000 bytes at 0xff000000");
    EXPECT_FALSE(can_run(found));
}

TEST_F(EditedSnapshotTest, WhatIsMissingAndWhatIsUnknownIsTold) {
    const auto snapshot = saved([](auto& units) {
        std::erase_if(units, [](const auto& unit) { return unit.name == "rtc"; });
        units.push_back({"toaster", 0x1234, {}});
    });
    const auto found = findings(snapshot, this_host());
    ASSERT_EQ(found.size(), 2U);
    EXPECT_EQ(found[0].path, "unit toaster");
    EXPECT_EQ(found[1].path, "unit rtc");
    const auto loaded = Keeper::load(store(), snapshot, {});
    ASSERT_FALSE(loaded);
    EXPECT_EQ(loaded.error().code, ErrorCode::incompatible);
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
        const bool later = name == "board" || name == "semantics" || name == "physicalBits";
        ASSERT_EQ(read.has_value(), later) << name << ": 0.1.0 did not tell some";
        if (!read) {
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
