// The machine with the real engine: tiny guests in 32-bit protected mode, their code spelled out.
#include "src/machine/machine.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <string>

#include "engine/state/board.hpp"
#include "engine/state/codec.hpp"
#include "engine/state/vcpu.hpp"
#include "src/device/vm_generation.hpp"
#include "tests/src/machine/images.hpp"

namespace nestor::machine {
namespace {

constexpr u64 memory_size = u64{4} << 20;

state::MachineConfig small(u16 cpus = 1) {
    state::MachineConfig config;
    config.memory = memory_size;
    config.cpus = cpus;
    return config;
}

std::unique_ptr<Machine> fresh(u16 cpus = 1) {
    auto machine = Machine::create(small(cpus));
    EXPECT_TRUE(machine.has_value()) << machine.error().message;
    return std::move(*machine);
}

Result<> boot(Machine& machine, const Image& code) {
    const Image kernel = make_multiboot(code);
    BootImages images;
    images.kernel = {"guest", kernel};
    return machine.boot(images);
}

std::unique_ptr<Machine> booted(const Image& code, u16 cpus = 1) {
    auto machine = fresh(cpus);
    EXPECT_TRUE(boot(*machine, code).has_value());
    return machine;
}

std::string output(Machine& machine) {
    const std::vector<u8> bytes = machine.take_serial_output();
    return {bytes.begin(), bytes.end()};
}

SerialInput typed(std::string_view text) { return {{text.begin(), text.end()}}; }

const Image spin{0xeb, 0xfe};                               // jmp $
const Image halt{0xf4, 0xeb, 0xfd};                         // hlt; jmp back
const Image halt_enabled{0xfb, 0xf4, 0xeb, 0xfd};           // sti; hlt; jmp hlt
const Image triple_fault{0x0f, 0x0b};                       // ud2, without an IDT
const Image power_off{0x66, 0xba, 0x04, 0x06,               // mov dx, 0x604
                      0x66, 0xb8, 0x00, 0x34,               // mov ax, SLP_EN | 5 << 10
                      0x66, 0xef, 0xeb, 0xfe};              // out dx, ax; jmp $
const Image debug_exit{0xb0, 0x2a, 0xe6, 0xf4, 0xeb, 0xfe}; // mov al, 42; out 0xf4, al; jmp $
const Image reset_8042{0xb0, 0xfe, 0xe6, 0x64, 0xeb, 0xfe}; // mov al, 0xfe; out 0x64, al; jmp $
// Prints 'a' to 'z' again and again, with a REP in between:
const Image printer{0xb3, 'a',                       //   mov bl, 'a'
                    0xba, 0xf8, 0x03,    0x00, 0x00, // next: mov edx, 0x3f8
                    0x88, 0xd8, 0xee,                //   mov al, bl; out dx, al
                    0xbf, 0x00, 0x00,    0x20, 0x00, //   mov edi, 0x200000
                    0xb9, 0x25, 0x00,    0x00, 0x00, //   mov ecx, 37
                    0xf3, 0xaa,                      //   rep stosb
                    0xfe, 0xc3,                      //   inc bl
                    0x80, 0xfb, 'z' + 1,             //   cmp bl, 'z' + 1
                    0x75, 0xe5,                      //   jne next
                    0xeb, 0xe1};                     //   jmp start
// Sends back what it receives:
const Image echo{0xba, 0xfd, 0x03, 0x00, 0x00, // wait: mov edx, 0x3fd
                 0xec, 0xa8, 0x01,             //   in al, dx; test al, 1
                 0x74, 0xf6,                   //   jz wait
                 0xb2, 0xf8, 0xec, 0xee,       //   mov dl, 0xf8; in al, dx; out dx, al
                 0xeb, 0xf0};                  //   jmp wait
// PIT channel 0 in mode 2, all interrupts off, halted:
const Image ticking_halt{0xb0, 0x34, 0xe6, 0x43, 0xb0, 0x00, 0xe6,
                         0x40, 0xe6, 0x40, 0xf4, 0xeb, 0xfd};

// Watches the line at 0x200000, perhaps stores to it, waits, and prints '!':
Image waiter(const Image& between = {}) {
    Image code{0xfb,                         // sti
               0xb8, 0x00, 0x00, 0x20, 0x00, // mov eax, 0x200000
               0x31, 0xc9, 0x31, 0xd2,       // xor ecx, ecx; xor edx, edx
               0x0f, 0x01, 0xc8,             // monitor
               0x31, 0xc0};                  // xor eax, eax
    code.insert(code.end(), between.begin(), between.end());
    const Image rest{
        0x0f, 0x01, 0xc9,                   // mwait
        0xba, 0xf8, 0x03, 0x00, 0x00,       // mov edx, 0x3f8
        0xb0, '!',  0xee, 0xf4, 0xeb, 0xfd, // mov al, '!'; out dx, al; hlt; jmp hlt
    };
    code.insert(code.end(), rest.begin(), rest.end());
    return code;
}
const Image store_zero{0xc6, 0x05, 0x3f, 0x00, 0x20, 0x00, 0x00}; // mov byte [0x20003f], 0

TEST(MachineTest, StopsAtExactlyTheCountAskedFor) {
    auto machine = booted(spin);
    for (const u64 count : {u64{1}, u64{2}, u64{19999}, u64{20000}, u64{20001}, u64{1000003}}) {
        EXPECT_EQ(machine->run({.until = Icount(count)}).kind, Stop::Kind::count);
        EXPECT_EQ(machine->count(), Icount(count));
        EXPECT_EQ(machine->ticks(), Ticks(count));
    }
}

TEST(MachineTest, StopsAtTheTickAskedFor) {
    auto machine = booted(spin);
    EXPECT_EQ(machine->run({.until_ticks = Ticks(12345)}).kind, Stop::Kind::ticks);
    EXPECT_EQ(machine->ticks(), Ticks(12345));
}

TEST(MachineTest, AFilledPageStateHoldsForEveryPageAndEndsInARequest) {
    auto machine = booted(spin);
    ASSERT_TRUE(machine->fill_page_states(cpu::page_state::clean | cpu::page_state::absent));
    for (const auto& region : machine->memory().regions()) {
        for (u64 i = 0; i < region.size >> page_shift; ++i) {
            ASSERT_EQ(region.state[i], cpu::page_state::clean | cpu::page_state::absent);
        }
    }
    const Stop stop = machine->run({.until = Icount(1)});
    EXPECT_EQ(stop.kind, Stop::Kind::page_needed);
    EXPECT_EQ(machine->count(), Icount(0));
}

TEST(MachineTest, ANewGenerationChangesNothingButTheIdAndItsEvent) {
    auto machine = booted(spin);
    const auto before = machine->units();
    machine->input(NewGeneration{{1, 2, 3}});
    const auto after = machine->units();
    std::vector<std::string> changed;
    for (std::size_t i = 0; i < before.size(); ++i) {
        if (before[i] != after[i]) {
            changed.push_back(before[i].name);
        }
    }
    EXPECT_EQ(changed, (std::vector<std::string>{"acpi_pm", "vm_generation"}));
}

TEST(MachineTest, TheGenerationFollowsFromTheSeed) {
    state::MachineConfig other = small();
    other.seed = 5;
    const auto id = [](const state::MachineConfig& config) {
        const auto units = (*Machine::create(config))->units();
        const auto unit = std::find_if(units.begin(), units.end(),
                                       [](const Unit& u) { return u.name == "vm_generation"; });
        return state::decode<state::VmGeneration>(unit->bytes)->id;
    };
    EXPECT_EQ(id(small()), id(small()));
    EXPECT_NE(id(small()), id(other));
    EXPECT_NE(id(small()), device::VmGeneration::Id{});
}

TEST(MachineTest, DebugExitTellsItsStatusAndStaysEnded) {
    auto machine = booted(debug_exit);
    const Stop stop = machine->run({});
    EXPECT_EQ(stop.kind, Stop::Kind::debug_exit);
    EXPECT_EQ(stop.exit_status, 42 << 1 | 1);
    const Icount count = machine->count();
    EXPECT_EQ(machine->run({}).kind, Stop::Kind::debug_exit);
    EXPECT_EQ(machine->count(), count);
}

TEST(MachineTest, PowerOffEndsTheRun) {
    EXPECT_EQ(booted(power_off)->run({}).kind, Stop::Kind::powered_off);
}

TEST(MachineTest, KeyboardControllerAsksForReset) {
    EXPECT_EQ(booted(reset_8042)->run({}).kind, Stop::Kind::reset);
}

TEST(MachineTest, TripleFaultEndsTheRun) {
    EXPECT_EQ(booted(triple_fault)->run({}).kind, Stop::Kind::triple_fault);
}

TEST(MachineTest, RebootStartsAgainWithClearMemory) {
    auto machine = booted(reset_8042);
    EXPECT_EQ(machine->run({}).kind, Stop::Kind::reset);
    const Icount count = machine->count();
    const Image kernel = make_multiboot(printer);
    BootImages images;
    images.kernel = {"guest", kernel};
    ASSERT_TRUE(machine->reboot(images).has_value());
    EXPECT_EQ(machine->count(), count);
    EXPECT_EQ(machine->run({.until_serial = "abc"}).kind, Stop::Kind::serial_text);
}

TEST(MachineTest, HaltWithInterruptsOffIsTold) {
    EXPECT_EQ(booted(halt)->run({}).kind, Stop::Kind::halted);
}

TEST(MachineTest, HaltWithInterruptsOffIsToldWhileATimerRuns) {
    EXPECT_EQ(booted(ticking_halt)->run({}).kind, Stop::Kind::halted);
}

TEST(MachineTest, HaltWithInterruptsOnWaitsForInput) {
    auto machine = booted(halt_enabled);
    const Stop stop = machine->run({});
    EXPECT_EQ(stop.kind, Stop::Kind::idle);
    EXPECT_EQ(stop.next_deadline, Ticks(std::numeric_limits<u64>::max()));
}

TEST(MachineTest, AWriteOfTheSameValueEndsMwait) {
    auto machine = booted(waiter());
    EXPECT_EQ(machine->run({}).kind, Stop::Kind::idle);
    EXPECT_EQ(output(*machine), "");
    ASSERT_EQ(machine->memory().write(Gpa(0x20003f), Image{0}), cpu::MemoryStatus::ok);
    EXPECT_EQ(machine->run({}).kind, Stop::Kind::idle);
    EXPECT_EQ(output(*machine), "!");
}

TEST(MachineTest, AWriteBesideTheLineDoesNotEndMwait) {
    auto machine = booted(waiter());
    EXPECT_EQ(machine->run({}).kind, Stop::Kind::idle);
    for (const u64 address : {u64{0x200040}, u64{0x1fffff}, u64{0x201000}}) {
        ASSERT_EQ(machine->memory().write(Gpa(address), Image{1}), cpu::MemoryStatus::ok);
    }
    EXPECT_EQ(machine->run({}).kind, Stop::Kind::idle);
    EXPECT_EQ(output(*machine), "");
}

TEST(MachineTest, AStoreBeforeMwaitLeavesNothingToWaitFor) {
    auto machine = booted(waiter(store_zero));
    EXPECT_EQ(machine->run({}).kind, Stop::Kind::idle);
    EXPECT_EQ(output(*machine), "!");
}

TEST(MachineTest, ALoadedMachineGoesOnWaitingInMwait) {
    auto one = booted(waiter());
    EXPECT_EQ(one->run({}).kind, Stop::Kind::idle);
    auto two = fresh();
    for (const auto& region : one->memory().regions()) {
        const std::span<const u8> bytes(region.host, region.size);
        ASSERT_EQ(two->memory().write(region.start, bytes), cpu::MemoryStatus::ok);
    }
    ASSERT_TRUE(two->load_units(one->units()).has_value());
    EXPECT_EQ(two->run({}).kind, Stop::Kind::idle);
    EXPECT_EQ(output(*two), "");
    ASSERT_EQ(two->memory().write(Gpa(0x200000), Image{0}), cpu::MemoryStatus::ok);
    EXPECT_EQ(two->run({}).kind, Stop::Kind::idle);
    EXPECT_EQ(output(*two), "!");
}

TEST(MachineTest, StopsWhenIdleWithTheNextDeadline) {
    auto machine = booted(ticking_halt);
    const Stop stop = machine->run({.stop_when_idle = true});
    EXPECT_EQ(stop.kind, Stop::Kind::idle);
    const u64 wait = stop.next_deadline - machine->ticks();
    EXPECT_GT(wait, 0u);
    machine->input(AdvanceTicks{wait});
    EXPECT_EQ(machine->ticks(), stop.next_deadline);
    EXPECT_GT(machine->run({.stop_when_idle = true}).next_deadline, stop.next_deadline);
}

TEST(MachineTest, SerialTextStopsRightBehindItsInstruction) {
    auto machine = booted(printer);
    EXPECT_EQ(machine->run({.until_serial = "xyzab"}).kind, Stop::Kind::serial_text);
    EXPECT_EQ(output(*machine), "abcdefghijklmnopqrstuvwxyzab");
    EXPECT_EQ(machine->run({.until_serial = "c"}).kind, Stop::Kind::serial_text);
    EXPECT_EQ(output(*machine), "c");
}

TEST(MachineTest, SerialInputComesBackFromAnEcho) {
    auto machine = booted(echo);
    const std::string text = "The quick brown fox jumps over the lazy dog.";
    machine->input(typed(text));
    EXPECT_EQ(machine->run({.until = Icount(1000000), .until_serial = "dog."}).kind,
              Stop::Kind::serial_text);
    EXPECT_EQ(output(*machine), text);
}

TEST(MachineTest, SinkTakesOutputAsItIsSent) {
    auto machine = booted(printer);
    std::string seen;
    machine->set_serial_sink(
        [&](std::span<const u8> bytes) { seen.append(bytes.begin(), bytes.end()); });
    EXPECT_EQ(machine->run({.until = Icount(1000)}).kind, Stop::Kind::count);
    EXPECT_EQ(seen.substr(0, 5), "abcde");
    EXPECT_EQ(output(*machine), "");
}

TEST(MachineTest, CuttingARunAnywhereChangesNothing) {
    auto whole = booted(printer);
    EXPECT_EQ(whole->run({.until = Icount(5000)}).kind, Stop::Kind::count);
    auto cut = booted(printer);
    for (u64 count = 1; count <= 5000; ++count) {
        EXPECT_EQ(cut->run({.until = Icount(count)}).kind, Stop::Kind::count);
        ASSERT_EQ(cut->count(), Icount(count));
    }
    EXPECT_EQ(cut->units(), whole->units());
    EXPECT_EQ(output(*cut), output(*whole));
}

TEST(MachineTest, LoadedFromItsUnitsAMachineGoesOnIdentically) {
    auto one = booted(printer, 2);
    EXPECT_EQ(one->run({.until = Icount(777)}).kind, Stop::Kind::count);
    EXPECT_NE(output(*one), "");
    const auto units = one->units();
    const auto config = Machine::config_of(units);
    ASSERT_TRUE(config.has_value());
    auto two = *Machine::create(*config);
    for (const auto& region : one->memory().regions()) {
        const std::span<const u8> bytes(region.host, region.size);
        ASSERT_EQ(two->memory().write(region.start, bytes), cpu::MemoryStatus::ok);
    }
    const auto loaded = two->load_units(units);
    ASSERT_TRUE(loaded.has_value()) << loaded.error().message;
    EXPECT_EQ(two->units(), units);
    for (Machine* machine : {one.get(), two.get()}) {
        EXPECT_EQ(machine->run({.until = Icount(20000)}).kind, Stop::Kind::count);
    }
    EXPECT_EQ(one->units(), two->units());
    EXPECT_EQ(output(*one), output(*two));
}

TEST(MachineTest, AQuickLookShowsWhatTheUnitsHold) {
    auto machine = booted(printer, 2);
    (void)machine->run({.until = Icount(1234)});
    const auto bytes_of = [units = machine->units()](const std::string& name) {
        return std::find_if(units.begin(), units.end(),
                            [&](const Unit& u) { return u.name == name; })
            ->bytes;
    };
    EXPECT_EQ(state::encode(machine->schedule()), bytes_of("machine"));
    EXPECT_EQ(state::encode(machine->vcpu(VcpuIndex(0)).cpu), bytes_of("vcpu[0].cpu"));
    EXPECT_EQ(state::encode(machine->vcpu(VcpuIndex(1)).lapic), bytes_of("vcpu[1].lapic"));
}

TEST(MachineTest, EveryMissingUnitIsNamed) {
    const auto units = fresh()->units();
    for (std::size_t i = 0; i < units.size(); ++i) {
        auto fewer = units;
        fewer.erase(fewer.begin() + static_cast<std::ptrdiff_t>(i));
        const auto loaded = fresh()->load_units(fewer);
        ASSERT_FALSE(loaded.has_value());
        EXPECT_NE(loaded.error().message.find(units[i].name), std::string::npos);
    }
}

TEST(MachineTest, UnknownAndRepeatedUnitsAreErrors) {
    auto units = fresh()->units();
    units.push_back(units.back());
    EXPECT_FALSE(fresh()->load_units(units).has_value());
    units.back().name = "flux_capacitor";
    const auto loaded = fresh()->load_units(units);
    ASSERT_FALSE(loaded.has_value());
    EXPECT_EQ(loaded.error().code, ErrorCode::incompatible);
}

TEST(MachineTest, UnitsOfAnotherConfigurationAreRefused) {
    const auto units = fresh(2)->units();
    EXPECT_FALSE(fresh(1)->load_units(units).has_value());
}

TEST(MachineTest, UnitCutAnywhereIsRefusedOrEqual) {
    const auto units = fresh()->units();
    for (std::size_t i = 0; i < units.size(); ++i) {
        auto cut = units;
        cut[i].bytes.resize(cut[i].bytes.size() / 2);
        EXPECT_FALSE(fresh()->load_units(cut).has_value()) << units[i].name;
    }
}

TEST(MachineTest, SchedulerStateOutOfRangeIsRefused) {
    auto units = fresh()->units();
    state::Machine bad;
    bad.owner = 1;
    units[1].bytes = state::encode(bad);
    const auto loaded = fresh()->load_units(units);
    ASSERT_FALSE(loaded.has_value());
    EXPECT_EQ(loaded.error().code, ErrorCode::corrupt);
}

TEST(MachineTest, ConfigurationOutOfRangeIsAUsageError) {
    for (const u16 cpus : {u16{0}, u16{17}, u16{5000}}) {
        const auto machine = Machine::create(small(cpus));
        ASSERT_FALSE(machine.has_value());
        EXPECT_EQ(machine.error().code, ErrorCode::usage);
    }
    auto config = small();
    config.cpu_model = "pentium";
    const auto machine = Machine::create(config);
    ASSERT_FALSE(machine.has_value());
    EXPECT_EQ(machine.error().code, ErrorCode::usage);
}

TEST(MachineTest, AConfigOf010IsOneOfTheFirstBoardAndEncodesToTheSameBytes) {
    const std::string frozen = "00000000010000000000402000000000";
    std::vector<std::byte> bytes;
    for (std::size_t i = 0; i < frozen.size(); i += 2) {
        bytes.push_back(std::byte(std::stoul(frozen.substr(i, 2), nullptr, 16)));
    }
    const auto config = state::decode<state::MachineConfig>(bytes);
    ASSERT_TRUE(config.has_value()) << config.error().message;
    EXPECT_EQ(config->board, 1U);
    EXPECT_EQ(*config, small());
    EXPECT_EQ(state::encode(*config), bytes);
    state::MachineConfig later = *config;
    later.board = 2;
    EXPECT_NE(state::encode(later), bytes);
}

TEST(MachineTest, ABoardThatIsNotThereIsAUsageError) {
    for (const u32 board : {0U, newest_board() + 1, ~0U}) {
        state::MachineConfig config = small();
        config.board = board;
        const auto machine = Machine::create(config);
        ASSERT_FALSE(machine.has_value());
        EXPECT_EQ(machine.error().code, ErrorCode::usage);
        EXPECT_EQ(machine.error().message.find("board " + std::to_string(board)), 0U);
    }
}

TEST(MachineTest, ItsUnitsAreThoseThatFollowFromItsConfiguration) {
    for (const u16 cpus : {u16{1}, u16{2}, max_cpus}) {
        const auto machine = fresh(cpus);
        std::vector<UnitName> named;
        for (const Unit& unit : machine->units()) {
            named.push_back({unit.name, unit.type});
        }
        EXPECT_EQ(units_of(machine->config()), named);
        EXPECT_EQ(named.size(), 2U + 8U * cpus + 11U);
    }
}

TEST(MachineTest, EntropyReseedsTheGenerators) {
    auto one = fresh();
    auto two = fresh();
    EXPECT_EQ(one->units(), two->units());
    two->input(Entropy{1});
    EXPECT_NE(one->units(), two->units());
    one->input(Entropy{1});
    EXPECT_EQ(one->units(), two->units());
}

TEST(MachineTest, PowerButtonSetsItsStatus) {
    auto machine = fresh();
    machine->input(PowerButton{});
    for (const Unit& unit : machine->units()) {
        if (unit.name == "acpi_pm") {
            EXPECT_EQ(state::decode<state::AcpiPm>(unit.bytes)->status, 1 << 8);
        }
    }
}

} // namespace
} // namespace nestor::machine
