// What becomes of machines of the first board in a build that knows a second one: nothing. Judged
// by what 0.1.0 itself saved (fixtures/board): the same machine before a reset of its guest, after
// it, and with two vCPUs.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>

#include <fcntl.h>

#include "engine/state/board.hpp"
#include "engine/state/codec.hpp"
#include "src/base/fd.hpp"
#include "src/control/contract.hpp"
#include "src/control/keeper.hpp"
#include "src/machine/board.hpp"

namespace nestor::control {
namespace {

using machine::Machine;
using machine::Stop;

constexpr u64 count_before = 1'500'000; ///< of "before" and "two-vcpus"
constexpr u64 count_after = 3'000'000;  ///< of "after", behind the reset
const std::string dark = "port ffffffff memory ffffffff acpi 0";
const std::string lit = "port ffffff5a memory 12345678 acpi 1";

std::string from_environment(const char* name) {
    const char* const value = std::getenv(name);
    return value == nullptr ? "" : value;
}

class NextBoardTest : public testing::Test {
protected:
    NextBoardTest() {
        std::string pattern = (std::filesystem::temp_directory_path() / "nestor-XXXXXX").string();
        EXPECT_NE(::mkdtemp(pattern.data()), nullptr);
        directory_ = pattern;
        kernel_ = *read_file(from_environment("GUESTS_DIR") + "/board.elf", 1 << 20);
        images_.kernel = {"board.elf",
                          std::span(reinterpret_cast<const u8*>(kernel_.data()), kernel_.size())};
        const std::string path = from_environment("FIXTURES_DIR") + "/board/0.1.0.export";
        const Fd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
        const auto imported = open_store().import_from(file.get());
        EXPECT_TRUE(imported) << imported.error().message;
    }
    ~NextBoardTest() override { std::filesystem::remove_all(directory_); }

    snapshot::Store open_store() {
        return *snapshot::Store::open(directory_, snapshot::Store::Mode::create);
    }
    static state::MachineConfig config(u32 board) {
        return {.memory = u64{4} << 20, .board = board};
    }
    std::unique_ptr<Keeper> booted(const state::MachineConfig& config) {
        auto keeper = std::make_unique<Keeper>(*Machine::create(config));
        EXPECT_TRUE(keeper->begin_zero());
        EXPECT_TRUE(keeper->machine().boot(images_));
        return keeper;
    }
    std::unique_ptr<Keeper> restored(const std::string& tag) {
        const auto store = open_store();
        auto keeper = Keeper::load(store, *store.load(tag), {});
        EXPECT_TRUE(keeper) << keeper.error().message;
        return std::move(*keeper);
    }
    /// Runs to a count, through resets of the guest, whose number it gives.
    unsigned run(Keeper& keeper, u64 count) {
        unsigned resets = 0;
        for (;;) {
            const Stop stop = keeper.machine().run({.until = Icount(count)});
            if (stop.kind != Stop::Kind::reset) {
                EXPECT_EQ(stop.kind, Stop::Kind::count);
                return resets;
            }
            ++resets;
            // Without images of its own, so that digests are those of 0.1.0.
            EXPECT_TRUE(keeper.forget_memory());
            EXPECT_TRUE(keeper.machine().reboot(images_));
        }
    }
    /// The whole lines that the guest printed.
    static std::vector<std::string> lines(Keeper& keeper) {
        const std::vector<u8> bytes = keeper.machine().take_serial_output();
        std::vector<std::string> out(1);
        for (const u8 c : bytes) {
            if (c == '\n') {
                out.emplace_back();
            } else {
                out.back() += static_cast<char>(c);
            }
        }
        out.pop_back();
        return out;
    }
    /// The first line after a restore may have lost its beginning, the one at a reset its end.
    static void expect_all(const std::vector<std::string>& lines, const std::string& wanted) {
        EXPECT_GE(lines.size(), 2U);
        for (const std::string& line : lines) {
            EXPECT_TRUE(line.size() <= wanted.size() && wanted.ends_with(line)) << line;
        }
    }
    static std::vector<std::string> names(std::span<const machine::UnitName> units) {
        std::vector<std::string> out;
        for (const auto& unit : units) {
            out.push_back(unit.name);
        }
        return out;
    }
    /// Path and have of what `vm check` says of a machine; Machine::load_units has to agree.
    static std::vector<std::string> faults(const std::vector<machine::Unit>& units) {
        const auto config = *Machine::config_of(units);
        std::vector<std::string> out;
        for (const Finding& f : findings(encode_contract(contract_of(**Machine::create(config))),
                                         to_snapshot(units), this_host())) {
            EXPECT_TRUE(f.blocks);
            out.push_back(f.path + ": have " + f.have);
        }
        const auto loaded = (*Machine::create(config))->load_units(units);
        EXPECT_EQ(loaded.has_value(), out.empty());
        if (!loaded) {
            EXPECT_EQ(loaded.error().code, ErrorCode::incompatible);
            EXPECT_TRUE(loaded.error().message.starts_with(out.front()));
        }
        return out;
    }

    std::string directory_;
    std::vector<std::byte> kernel_;
    machine::BootImages images_;
};

using Words = std::vector<std::string>;

TEST_F(NextBoardTest, TheUnitsOfTheFirstBoardAreThoseOf010) {
    const Words first = names(machine::units_of({}));
    EXPECT_EQ(first, (Words{"config",         "machine",        "vcpu[0].model", "vcpu[0].cpu",
                            "vcpu[0].lapic",  "vcpu[0].events", "vcpu[0].msrs",  "vcpu[0].pmu",
                            "vcpu[0].vmcs01", "vcpu[0].nested", "pit",           "rtc",
                            "acpi_pm",        "vm_generation",  "uart[0]",       "keyboard",
                            "test_device",    "io_apic",        "pic",           "pci_host",
                            "fw_cfg"}));
    EXPECT_EQ(machine::newest_board(), 2U);
    Words second = names(machine::units_of({.board = 2}));
    EXPECT_EQ(second[10], "lamp"); // by its rank, in front of the PIT
    second.erase(second.begin() + 10);
    EXPECT_EQ(second, first);
}

TEST_F(NextBoardTest, ASnapshotOf010IsTheSameMachineWhenItIsSavedAgain) {
    for (const char* tag : {"before", "after", "two-vcpus"}) {
        const auto store = open_store();
        const auto snapshot = *store.load(tag);
        for (const Finding& f : findings(snapshot, this_host())) {
            EXPECT_EQ(f.path, "engineSemantics") << tag;
            EXPECT_FALSE(f.blocks) << tag;
        }
        const auto keeper = restored(tag);
        auto units = to_snapshot(keeper->machine().units());
        std::sort(units.begin(), units.end(),
                  [](const auto& a, const auto& b) { return a.name < b.name; });
        EXPECT_TRUE(std::ranges::equal(units, snapshot.units(), [](const auto& a, const auto& b) {
            return a.name == b.name && a.type == b.type && a.bytes == b.bytes;
        })) << tag;
        EXPECT_EQ(keeper->digest()->machine, snapshot.manifest().machine_digest) << tag;
        auto other = *snapshot::Store::open(directory_ + "/other", snapshot::Store::Mode::create);
        ASSERT_TRUE(keeper->save(other, {.tag = tag}));
        EXPECT_EQ(other.load(tag)->manifest().machine_digest, snapshot.manifest().machine_digest);
    }
}

TEST_F(NextBoardTest, AMachineOf010RunsOnAsItDidThereAlsoThroughAReset) {
    const auto keeper = restored("before");
    EXPECT_EQ(run(*keeper, count_after), 1U);
    EXPECT_EQ(keeper->digest()->machine, open_store().load("after")->manifest().machine_digest);
    expect_all(lines(*keeper), dark);
}

TEST_F(NextBoardTest, AMachineMadeOnTheFirstBoardIsTheOneThat010Made) {
    const auto store = open_store();
    const auto keeper = booted(config(1));
    EXPECT_EQ(run(*keeper, count_before), 0U);
    EXPECT_EQ(keeper->digest()->machine, store.load("before")->manifest().machine_digest);
    EXPECT_EQ(run(*keeper, count_after), 1U);
    EXPECT_EQ(keeper->digest()->machine, store.load("after")->manifest().machine_digest);
    expect_all(lines(*keeper), dark);

    state::MachineConfig two = config(1);
    two.cpus = 2;
    const auto second = booted(two);
    EXPECT_EQ(run(*second, count_before), 0U);
    EXPECT_EQ(second->digest()->machine, store.load("two-vcpus")->manifest().machine_digest);
}

TEST_F(NextBoardTest, AMachineOfTheSecondBoardHasTheDeviceAlsoBehindAResetAndARestore) {
    const auto keeper = booted(config(2));
    EXPECT_EQ(run(*keeper, count_before), 0U);
    expect_all(lines(*keeper), lit);
    auto store = open_store();
    ASSERT_TRUE(keeper->save(store, {.tag = "second"}));
    const auto snapshot = *store.load("second");
    EXPECT_TRUE(findings(snapshot, this_host()).empty());
    const snapshot::Unit* const unit = snapshot.find_unit("lamp");
    ASSERT_NE(unit, nullptr);
    EXPECT_EQ(state::decode<state::Lamp>(unit->bytes)->level, 0x5a);

    const auto again = restored("second");
    EXPECT_EQ(run(*again, count_after), 1U);
    expect_all(lines(*again), lit);
    EXPECT_EQ(run(*keeper, count_after), 1U);
    EXPECT_EQ(again->machine().units(), keeper->machine().units());
}

TEST_F(NextBoardTest, OnTheFirstBoardTheDeviceHasNoDeadlineAndNoLine) {
    struct Nobody final : device::MessageSink {
        void send(const hv::InterruptMessage&) override {}
    } nobody;
    const auto map = machine::memory_map(u64{4} << 20);
    for (const u32 board : {1U, 2U}) {
        machine::Board b(
            {.board = board, .tick_hz = 1000000000, .memory = u64{4} << 20, .memory_map = map},
            nobody);
        const Ticks quiet = b.next_deadline();
        const auto line = [&] { return (b.save().io_apic.lines >> 12 & 1) != 0; };
        for (int i = 0; i < 2; ++i) {
            (void)b.write_port(0xd00, 1, 9, Ticks(5));
            b.write_mmio(Gpa(0xfed50000), 4, 7);
            EXPECT_EQ(b.read_port(0xd00, 1, Ticks(5)), board == 1 ? 0xffU : 9U);
            EXPECT_EQ(b.read_mmio(Gpa(0xfed50000), 4), board == 1 ? 0xffffffffU : 7U);
            EXPECT_EQ(b.next_deadline() < quiet, board == 2);
            EXPECT_EQ(line(), board == 2);
            EXPECT_EQ(b.save().lamp == state::Lamp{}, board == 1);
            b.reset(Ticks(10));
            EXPECT_FALSE(line());
        }
        machine::BoardState bad;
        bad.lamp.level = device::Lamp::too_bright;
        EXPECT_EQ(b.load(bad).has_value(), board == 1);
    }
}

TEST_F(NextBoardTest, AUnitThatTheBoardHasAndThatIsAbsentIsMissing) {
    auto units = (*Machine::create(config(2)))->units();
    EXPECT_EQ(faults(units), Words{});
    std::erase_if(units, [](const auto& unit) { return unit.name == "lamp"; });
    EXPECT_EQ(faults(units), Words{"unit lamp: have missing"});
}

TEST_F(NextBoardTest, AUnitThatTheBoardDoesNotHaveIsUnknown) {
    auto units = (*Machine::create(config(1)))->units();
    units.push_back({"lamp", state::Meta<state::Lamp>::id, state::encode(state::Lamp{})});
    EXPECT_EQ(faults(units), Words{"unit lamp: have unknown on board 1 with 1 vCPU"});
}

TEST_F(NextBoardTest, WhatIsSaidOfAUnitIsOfTheUnitAndNotOfItsBytes) {
    auto units = (*Machine::create(config(2)))->units();
    for (auto& unit : units) {
        if (unit.name == "lamp") {
            unit.type = state::Meta<state::Rtc>::id;
        }
    }
    const auto wrong = faults(units);
    ASSERT_EQ(wrong.size(), 1U);
    EXPECT_TRUE(wrong[0].starts_with("unit lamp: have type 0x") && wrong[0].ends_with(" Rtc"));
}

} // namespace
} // namespace nestor::control
