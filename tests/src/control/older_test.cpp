// Machines that an older vm saved: they keep their contract, and say under which semantics they
// ran.
#include "engine/state/codec.hpp"
#include "engine/state/vcpu.hpp"
#include "src/control/contract.hpp"
#include "tests/src/control/keeper_fixture.hpp"

namespace nestor::control {
namespace {

class OlderTest : public KeeperTest {
protected:
    /// Saves a machine as another vm would have.
    snapshot::Snapshot saved(Keeper& keeper, const std::string& tag, u32 semantics,
                             std::optional<snapshot::Contract> contract = {}) {
        std::vector<snapshot::Region> regions;
        for (const auto& region : keeper.machine().memory().regions()) {
            regions.push_back({region.start, region.size, region.host});
        }
        const auto units = to_snapshot(keeper.machine().units());
        snapshot::SaveRequest request;
        request.tag = tag;
        request.units = units;
        request.regions = regions;
        request.contract = contract ? *contract : keeper.contract();
        request.engine_semantics = semantics;
        auto to = store();
        const auto report = to.save(request);
        EXPECT_TRUE(report.has_value()) << report.error().message;
        return *to.load(tag);
    }
    static std::vector<Finding> about_semantics(const snapshot::Snapshot& snapshot,
                                                const HostOffer& offer) {
        std::vector<Finding> found = findings(snapshot, offer);
        std::erase_if(found, [](const Finding& f) { return f.path != "engineSemantics"; });
        return found;
    }
};

// --- engine semantics ---------------------------------------------------------------------------

TEST_F(OlderTest, AMachineOfOlderSemanticsGoesOnAndSaysWhatChanged) {
    const auto snapshot = saved(*booted(1000), "old", 1);
    const auto found = about_semantics(snapshot, this_host());
    ASSERT_EQ(found.size(), 1U);
    EXPECT_FALSE(found[0].blocks);
    EXPECT_EQ(found[0].have, std::to_string(hv::engine_semantics));
    EXPECT_EQ(found[0].need, "1");
    EXPECT_EQ(found[0].remedy,
              "saved under semantics 1, goes on under " + std::to_string(hv::engine_semantics));
    ASSERT_EQ(found[0].changes.size(), hv::engine_semantics - 1) << "one for each number";
    for (std::size_t i = 0; i < found[0].changes.size(); ++i) {
        const hv::SemanticsChange& change = hv::semantics_changes[i + 1];
        EXPECT_EQ(found[0].changes[i],
                  std::to_string(change.number) + ": " + std::string(change.what));
    }
    EXPECT_TRUE(refuse("no", findings(snapshot, this_host())));
}

TEST_F(OlderTest, AMachineOfNewerSemanticsNeedsANewerVm) {
    const auto snapshot = saved(*booted(1000), "new", hv::engine_semantics + 1);
    const auto found = about_semantics(snapshot, this_host());
    ASSERT_EQ(found.size(), 1U);
    EXPECT_TRUE(found[0].blocks);
    EXPECT_NE(found[0].remedy.find("newer vm"), std::string::npos);
}

TEST_F(OlderTest, TheSameSemanticsAreNoFinding) {
    const auto snapshot = saved(*booted(1000), "same", hv::engine_semantics);
    EXPECT_EQ(findings(snapshot, this_host()).size(), 0U);
}

TEST_F(OlderTest, AnotherHostTellsWhatItsSemanticsChanged) {
    const auto snapshot = saved(*booted(1000), "here", hv::engine_semantics);
    HostOffer other = this_host();
    ++other.engine_semantics;
    auto found = about_semantics(snapshot, other);
    ASSERT_EQ(found.size(), 1U);
    EXPECT_FALSE(found[0].blocks);
    const std::string next = std::to_string(other.engine_semantics);
    EXPECT_EQ(found[0].changes, std::vector<std::string>{next + ": what changed is not told"});
    other.semantics.push_back({other.engine_semantics, "9.9.9", "the sky is green"});
    found = about_semantics(snapshot, *offer_from_json(to_json(other)));
    ASSERT_EQ(found.size(), 1U);
    EXPECT_EQ(found[0].changes, std::vector<std::string>{next + ": the sky is green"});
    other.engine_semantics = ~0U;
    found = about_semantics(snapshot, other);
    ASSERT_EQ(found.size(), 1U);
    ASSERT_EQ(found[0].changes.size(), 2U);
    EXPECT_EQ(found[0].changes[1].find(std::to_string(hv::engine_semantics + 2) + " to 4294967295"),
              0U);
}

TEST_F(OlderTest, AMachineWithoutBootImagesIsToldThatAResetEndsIt) {
    const auto without = image_findings(saved(*booted(1000), "old", 1).manifest());
    ASSERT_EQ(without.size(), 1U);
    EXPECT_EQ(without[0].path, "images");
    EXPECT_FALSE(without[0].blocks);
    auto to = store();
    ASSERT_TRUE(booted(1000)->save(to, as("whole")));
    EXPECT_TRUE(image_findings(to.load("whole")->manifest()).empty());
}

TEST_F(OlderTest, WhatIsSavedAfterwardsCarriesThePresentNumberAndTheSameDigest) {
    const auto old = saved(*booted(1000), "old", 1);
    auto to = store();
    auto keeper = restored("old");
    ASSERT_TRUE(keeper->save(to, as("again")));
    const auto again = *to.load("again");
    EXPECT_EQ(again.manifest().engine_semantics, hv::engine_semantics);
    EXPECT_EQ(to_hex(again.manifest().machine_digest), to_hex(old.manifest().machine_digest));
    EXPECT_NE(to_hex(again.manifest().digest), to_hex(old.manifest().digest));
    EXPECT_NE(again.manifest().provenance.restored.find("engine semantics 1 to"),
              std::string::npos);
}

// --- the contract -------------------------------------------------------------------------------

// Taken from manifests that 0.1.0 wrote.
TEST_F(OlderTest, TheContractOfNestorV1IsThatOf010) {
    const auto digest = [](u16 cpus) {
        state::MachineConfig config;
        config.memory = u64{64} << 20;
        config.cpus = cpus;
        const auto machine = *machine::Machine::create(config);
        return to_hex(sha256(encode_contract(contract_of(*machine)).bytes));
    };
    EXPECT_EQ(digest(1), "8685c2fcb0a96e3580994abfb9794f32055f677cc8c145a49c6b3eb90861afa2");
    EXPECT_EQ(digest(4), "b001a4089d4ae569e407888026fe2247e08f4e6a2cc0c4d6b2bf8800d144a63f");
}

TEST_F(OlderTest, ARestoredMachineKeepsTheContractItWasSavedWith) {
    // As a build would have written it that knew one MSR less than its model lists now.
    auto machine = booted(1000);
    state::MachineContract contract = contract_of(machine->machine());
    contract.msrs.pop_back();
    const snapshot::Contract bytes = encode_contract(contract);
    const auto old = saved(*machine, "old", 1, bytes);
    ASSERT_NE(bytes, machine->contract());
    auto keeper = restored("old");
    EXPECT_EQ(keeper->contract(), bytes);
    EXPECT_EQ(to_hex(keeper->digest()->machine), to_hex(old.manifest().machine_digest));
}

TEST_F(OlderTest, AMachineWithLessThanItsModelIsSavedAndRestoredAsItIs) {
    auto machine = booted(1000);
    std::vector<machine::Unit> units = machine->machine().units();
    state::CpuModel model = machine->machine().vcpu(VcpuIndex(0)).model;
    for (state::CpuidEntry& e : model.cpuid) {
        e.ebx &= e.leaf == 7 ? ~(u32{1} << 29) : ~u32{0}; // SHA
    }
    for (machine::Unit& unit : units) {
        if (unit.name == "vcpu[0].model") {
            unit.bytes = state::encode(model);
        }
    }
    ASSERT_TRUE(machine->machine().load_units(units));
    auto to = store();
    ASSERT_TRUE(machine->save(to, as("less")));
    const auto snapshot = *to.load("less");
    EXPECT_EQ(findings(snapshot, this_host()).size(), 0U);
    const auto contract =
        *state::decode<state::MachineContract>(snapshot.manifest().contract.bytes);
    EXPECT_EQ(contract.cpuid, model.cpuid);
    auto keeper = restored("less");
    EXPECT_EQ(keeper->machine().vcpu(VcpuIndex(0)).model, model);
    ASSERT_TRUE(keeper->save(to, as("again")));
    EXPECT_EQ(to_hex(to.load("again")->manifest().machine_digest),
              to_hex(snapshot.manifest().machine_digest));
}

} // namespace
} // namespace nestor::control
