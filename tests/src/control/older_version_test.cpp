// What keeps a machine from going back to an older version. The version is 0.1.0 as it described
// itself, or one that knows a little less, so that there is something in the way.
#include <algorithm>
#include <regex>

#include "engine/state/board.hpp"
#include "engine/state/codec.hpp"
#include "engine/state/vcpu.hpp"
#include "src/control/older_version.hpp"
#include "tests/src/control/keeper_fixture.hpp"

namespace nestor::control {
namespace {

class OlderVersionTest : public KeeperTest {
protected:
    using Units = std::vector<snapshot::Unit>;

    /// Saves a machine with units that `edit` changed.
    snapshot::Snapshot saved(const std::function<void(Units&)>& edit = {},
                             u32 semantics = hv::engine_semantics) {
        const auto keeper = booted(1000);
        std::vector<snapshot::Region> regions;
        for (const auto& region : keeper->machine().memory().regions()) {
            regions.push_back({region.start, region.size, region.host});
        }
        Units units = to_snapshot(keeper->machine().units());
        if (edit) {
            edit(units);
        }
        snapshot::SaveRequest request;
        request.tag = "saved";
        request.replace = true;
        request.units = units;
        request.regions = regions;
        request.contract = keeper->contract();
        request.schema_set = schema_set_digest();
        request.engine_semantics = semantics;
        auto to = store();
        const auto report = to.save(request);
        EXPECT_TRUE(report.has_value()) << report.error().message;
        return *to.load("saved");
    }
    template <class T>
    static void change(Units& units, const std::string& name, const std::function<void(T&)>& edit) {
        for (snapshot::Unit& unit : units) {
            if (unit.name == name) {
                T value = *state::decode<T>(unit.bytes);
                edit(value);
                unit.bytes = state::encode(value);
            }
        }
    }
    /// A version whose schemas lack the lines that match.
    static OlderVersion without(const std::string& lines) {
        OlderVersion version = *older_version("0.1.0");
        const std::string all(release_texts().front().layouts);
        version.schema = state::KnownSchema(std::regex_replace(all, std::regex(lines), ""));
        return version;
    }
    static std::vector<std::string> blocking(const std::vector<Finding>& found) {
        std::vector<std::string> paths;
        for (const Finding& f : found) {
            EXPECT_FALSE(f.have.empty() || f.need.empty() || f.remedy.empty()) << f.path;
            if (f.blocks) {
                paths.push_back(f.path);
            }
        }
        return paths;
    }
    using Paths = std::vector<std::string>;
};

TEST_F(OlderVersionTest, AMachineThatUsesNothingNewCanGo) {
    const auto found = findings_for(saved(), *older_version("0.1.0"));
    EXPECT_EQ(blocking(found), Paths());
}

TEST_F(OlderVersionTest, OnlyKnownVersionsAreOffered) {
    EXPECT_EQ(older_versions().front(), "0.1.0");
    const auto unknown = older_version("0.0.1");
    ASSERT_FALSE(unknown);
    EXPECT_EQ(unknown.error().code, ErrorCode::usage);
    EXPECT_NE(unknown.error().remedy.find("0.1.0"), std::string::npos);
}

TEST_F(OlderVersionTest, AFieldThatIsUsedAndUnknownThereIsInTheWay) {
    const OlderVersion version = without("field Cpu (pkru|lstar) [^\n]*\n");
    EXPECT_EQ(blocking(findings_for(saved(), version)), Paths());
    const auto used = saved([](Units& units) {
        change<state::Cpu>(units, "vcpu[0].cpu", [](state::Cpu& cpu) { cpu.pkru = 0x55555554; });
    });
    const auto found = findings_for(used, version);
    EXPECT_EQ(blocking(found), Paths{"vcpu[0].cpu.pkru"});
    EXPECT_EQ(found.front().have, "unknown");
    EXPECT_EQ(found.front().need, "\"0x55555554\"");
    EXPECT_EQ(blocking(findings_for(used, *older_version("0.1.0"))), Paths());
}

TEST_F(OlderVersionTest, AFieldOfTheContractIsHeldAgainstItToo) {
    const OlderVersion version = without("field MachineContract xcr0 [^\n]*\n");
    EXPECT_EQ(blocking(findings_for(saved(), version)), Paths{"contract.xcr0"});
}

TEST_F(OlderVersionTest, AllThatIsInTheWayIsToldAtOnce) {
    OlderVersion version = without("field (Rtc cmos|Pit speaker) [^\n]*\n");
    version.offer.cpus = 0;
    std::erase_if(version.offer.units, [](const UnitType& type) { return type.name == "Uart"; });
    const auto used = saved([](Units& units) {
        change<state::Pit>(units, "pit", [](state::Pit& pit) { pit.speaker = true; });
    });
    Paths found = blocking(findings_for(used, version));
    std::ranges::sort(found);
    EXPECT_EQ(found, (Paths{"contract.cpus", "pit.speaker", "rtc.cmos", "unit uart[0]"}));
}

TEST_F(OlderVersionTest, ACpuThatIsNotItsModelCannotGo) {
    const auto other = saved([](Units& units) {
        change<state::CpuModel>(units, "vcpu[0].model",
                                [](state::CpuModel& model) { model.cpuid.back().edx ^= 1; });
    });
    const Paths found = blocking(findings_for(other, *older_version("0.1.0")));
    EXPECT_NE(std::ranges::find(found, "vcpu[0].model.cpuid"), found.end());
}

TEST_F(OlderVersionTest, OtherSemanticsAreToldAndNotInTheWay) {
    const auto found = findings_for(saved(), *older_version("0.1.0"));
    const auto told = std::ranges::find(found, "engineSemantics", &Finding::path);
    ASSERT_NE(told, found.end());
    EXPECT_FALSE(told->blocks);
    EXPECT_NE(told->remedy.find("an instruction that"), std::string::npos) << told->remedy;
    const auto same = findings_for(saved({}, 1), *older_version("0.1.0"));
    EXPECT_EQ(std::ranges::find(same, "engineSemantics", &Finding::path), same.end());
}

} // namespace
} // namespace nestor::control
