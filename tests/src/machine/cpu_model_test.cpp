// Machines of CPU models older than the engine, and machines whose saved CPUID is not their
// model's.
//
// The older model is made up: it lacks what this engine has learnt since (a feature, two MSRs, VMX
// controls) and reads another constant. To it, this engine is a later one.
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>

#include "engine/hypervisor/cpu_caps.hpp"
#include "engine/state/codec.hpp"
#include "engine/state/vcpu.hpp"
#include "src/machine/machine.hpp"
#include "tests/src/machine/images.hpp"

namespace nestor::machine {
namespace {

constexpr u32 sha = u32{1} << 29;
constexpr u32 tsc_adjust = 0x3b, platform_info = 0xce, mcg_cap = 0x179, proc2_ctls = 0x48b;
constexpr u64 old_mcg_cap = 0x2a;

/// nestor-v1 as it was before some of it was learnt.
struct OlderModel {
    std::vector<state::CpuidEntry> leaves;
    std::vector<u32> msrs;
    std::vector<hv::MsrConstant> constants;
    hv::CpuModel model;
    std::array<const hv::CpuModel*, 2> all{};

    OlderModel() {
        const hv::CpuModel& now = hv::default_model();
        leaves.assign(now.leaves.begin(), now.leaves.end());
        msrs.assign(now.msrs.begin(), now.msrs.end());
        constants.assign(now.constants.begin(), now.constants.end());
        for (state::CpuidEntry& e : leaves) {
            e.ebx &= e.leaf == 7 ? ~sha : ~u32{0};
        }
        std::erase_if(msrs, [](u32 m) { return m == tsc_adjust || m == platform_info; });
        std::erase_if(constants, [](const auto& c) { return c.index == platform_info; });
        for (hv::MsrConstant& c : constants) {
            c.value = c.index == mcg_cap      ? old_mcg_cap
                      : c.index == proc2_ctls ? u64{0x2} << 32 // EPT alone
                                              : c.value;
        }
        model = {"older", leaves, msrs, constants};
        all = {&model, &hv::default_model()};
    }
};

const OlderModel& older() {
    static const OlderModel model;
    return model;
}

std::unique_ptr<Machine> make(const char* model, u16 cpus = 1) {
    state::MachineConfig config;
    config.memory = u64{4} << 20;
    config.cpus = cpus;
    config.cpu_model = model;
    auto machine = Machine::create(config, {.cpu_models = older().all});
    EXPECT_TRUE(machine.has_value()) << machine.error().message;
    return std::move(*machine);
}

Image rdmsr(u32 msr) {
    return {0xb9,
            static_cast<u8>(msr),
            static_cast<u8>(msr >> 8),
            0,
            0, // mov ecx, msr
            0x0f,
            0x32,
            0xe6,
            0xf4,
            0xeb,
            0xfe}; // rdmsr; out 0xf4, al
}
Image wrmsr(u32 msr) {
    return {0x31,
            0xc0,
            0x31,
            0xd2, // xor eax, eax; edx
            0xb9,
            static_cast<u8>(msr),
            static_cast<u8>(msr >> 8),
            0,
            0, // mov ecx, msr
            0x0f,
            0x30,
            0xe6,
            0xf4,
            0xeb,
            0xfe}; // wrmsr; out 0xf4, al
}
const Image sha_next_e{0x0f, 0x20, 0xe0, 0x80, 0xcc, 0x02, 0x0f, 0x22, 0xe0, // CR4.OSFXSR
                       0x0f, 0x38, 0xc8, 0xc1, 0xb0, 0x07, 0xe6, 0xf4};      // sha1nexte; out 7
const Image cpuid_7{0xb8, 7,    0,    0,    0,    0x31, 0xc9,
                    0x0f, 0xa2,                                // mov eax, 7; xor ecx, ecx; cpuid
                    0x89, 0xd8, 0xc1, 0xe8, 0x18, 0xe6, 0xf4}; // mov eax, ebx; shr eax, 24
const Image vmx_controls{0xb9, 0x8b, 4,    0,   0, 0x0f, 0x32, // mov ecx, 0x48b; rdmsr
                         0x88, 0xd0, 0xe6, 0xf4};              // mov al, dl; out 0xf4, al

/// What `code` writes to the debug exit; nothing where it faults instead, for it has no IDT.
std::optional<u8> answer(Machine& machine, const Image& code) {
    const Image kernel = make_multiboot(code);
    BootImages images;
    images.kernel = {"guest", kernel};
    EXPECT_TRUE(machine.reboot(images).has_value());
    const Stop stop = machine.run({.until = machine.count() + 1000});
    if (stop.kind == Stop::Kind::triple_fault) {
        return std::nullopt;
    }
    EXPECT_EQ(stop.kind, Stop::Kind::debug_exit);
    return static_cast<u8>(stop.exit_status >> 1);
}

std::unique_ptr<Machine> restored(const std::vector<Unit>& units) {
    auto machine = Machine::create(*Machine::config_of(units), {.cpu_models = older().all});
    EXPECT_TRUE(machine.has_value());
    const auto loaded = (*machine)->load_units(units);
    EXPECT_TRUE(loaded.has_value()) << loaded.error().message;
    return std::move(*machine);
}

/// A machine's units with the model of one vCPU edited.
std::vector<Unit> with_model(const Machine& machine, u16 vcpu,
                             const std::function<void(std::vector<state::CpuidEntry>&)>& edit) {
    std::vector<Unit> units = machine.units();
    state::CpuModel model = machine.vcpu(VcpuIndex(vcpu)).model;
    edit(model.cpuid);
    const std::string name = "vcpu[" + std::to_string(vcpu) + "].model";
    for (Unit& unit : units) {
        if (unit.name == name) {
            unit.bytes = state::encode(model);
        }
    }
    return units;
}

void drop_sha(std::vector<state::CpuidEntry>& cpuid) {
    for (state::CpuidEntry& e : cpuid) {
        e.ebx &= e.leaf == 7 ? ~sha : ~u32{0};
    }
}

// --- older models -------------------------------------------------------------------------------

TEST(CpuModelTest, WhatTheEngineLearntIsNotThereForAnOlderModel) {
    const auto now = make("nestor-v1"), then = make("older");
    EXPECT_EQ(answer(*now, sha_next_e), 7);
    EXPECT_EQ(answer(*then, sha_next_e), std::nullopt);
    EXPECT_TRUE(*answer(*now, cpuid_7) & sha >> 24);
    EXPECT_FALSE(*answer(*then, cpuid_7) & sha >> 24);
    for (const u32 msr : {tsc_adjust, platform_info}) {
        EXPECT_TRUE(answer(*now, rdmsr(msr)).has_value()) << msr;
        EXPECT_EQ(answer(*then, rdmsr(msr)), std::nullopt) << msr;
        EXPECT_EQ(answer(*then, wrmsr(msr)), std::nullopt) << msr;
    }
    EXPECT_TRUE(answer(*now, wrmsr(tsc_adjust)).has_value());
    EXPECT_EQ(answer(*then, rdmsr(mcg_cap)), old_mcg_cap);
    EXPECT_EQ(answer(*now, rdmsr(mcg_cap)), 0x04);
    EXPECT_EQ(answer(*then, vmx_controls), 0x02);
    EXPECT_NE(answer(*now, vmx_controls), 0x02);
}

TEST(CpuModelTest, AnOlderMachineIsTheSameAfterARestore) {
    const auto then = make("older", 2);
    EXPECT_EQ(answer(*then, rdmsr(mcg_cap)), old_mcg_cap);
    const std::vector<Unit> units = then->units();
    const auto again = restored(units);
    EXPECT_EQ(again->units(), units);
    EXPECT_EQ(&again->cpu_model(), &older().model);
    EXPECT_EQ(answer(*again, sha_next_e), std::nullopt);
    EXPECT_EQ(answer(*again, rdmsr(platform_info)), std::nullopt);
    EXPECT_EQ(answer(*again, rdmsr(mcg_cap)), old_mcg_cap);
    EXPECT_EQ(answer(*again, vmx_controls), 0x02);
}

TEST(CpuModelTest, AModelThatAsksForMoreThanTheEngineHasIsRefusedByName) {
    OlderModel later;
    later.leaves[1].ecx |= u32{1} << 15; // PDCM
    later.model = {"later", later.leaves, later.msrs, later.constants};
    later.all[0] = &later.model;
    state::MachineConfig config;
    config.cpu_model = "later";
    const auto machine = Machine::create(config, {.cpu_models = later.all});
    ASSERT_FALSE(machine.has_value());
    EXPECT_EQ(machine.error().code, ErrorCode::incompatible);
    EXPECT_NE(machine.error().message.find("CPU model later: cpuid[0x1.0].ECX"), std::string::npos)
        << machine.error().message;
}

TEST(CpuModelTest, AnUnknownModelIsAUsageErrorThatListsTheKnown) {
    state::MachineConfig config;
    config.cpu_model = "nestor-v9";
    const auto machine = Machine::create(config);
    ASSERT_FALSE(machine.has_value());
    EXPECT_EQ(machine.error().code, ErrorCode::usage);
    EXPECT_EQ(machine.error().remedy, "known models: nestor-v1");
}

// --- the saved CPUID is the model ---------------------------------------------------------------

TEST(CpuModelTest, ARestoredMachineHasTheCpuidThatWasSavedAlsoAfterAReset) {
    const auto units = with_model(*make("nestor-v1"), 0, drop_sha);
    const auto machine = restored(units);
    EXPECT_EQ(machine->units(), units);
    EXPECT_EQ(answer(*machine, sha_next_e), std::nullopt); // answer() resets it
    EXPECT_FALSE(*answer(*machine, cpuid_7) & sha >> 24);
}

TEST(CpuModelTest, WhatWasDecodedForOtherFeaturesIsForgotten) {
    const auto machine = make("nestor-v1");
    EXPECT_EQ(answer(*machine, sha_next_e), 7);
    ASSERT_TRUE(machine->load_units(with_model(*machine, 0, drop_sha)).has_value());
    EXPECT_EQ(answer(*machine, sha_next_e), std::nullopt);
}

TEST(CpuModelTest, NarrowerPhysicalAddressesReachPageWalksAndMtrrs) {
    const auto narrow = [](std::vector<state::CpuidEntry>& cpuid) { cpuid.back().eax = 0x3928; };
    const auto machine = restored(with_model(*make("nestor-v1"), 0, narrow));
    Image mask_40 = wrmsr(0x201), mask_46 = mask_40; // IA32_MTRR_PHYSMASK0
    for (Image* image : {&mask_40, &mask_46}) {
        image->insert(image->begin() + 4, {0xba, 0, 0, 0, 0}); // mov edx, high half
    }
    mask_40[5] = 0x80; // bit 39
    mask_46[6] = 0x01; // bit 40
    EXPECT_TRUE(answer(*machine, mask_40).has_value());
    EXPECT_EQ(answer(*machine, mask_46), std::nullopt);
    EXPECT_TRUE(answer(*make("nestor-v1"), mask_46).has_value());
}

TEST(CpuModelTest, VcpusThatDisagreeAboutTheSiliconAreRefused) {
    const auto machine = make("nestor-v1", 2);
    const auto loaded = make("nestor-v1", 2)->load_units(with_model(*machine, 1, drop_sha));
    ASSERT_FALSE(loaded.has_value());
    EXPECT_EQ(loaded.error().code, ErrorCode::incompatible);
    EXPECT_NE(loaded.error().message.find("vcpu[1].model"), std::string::npos)
        << loaded.error().message;
}

TEST(CpuModelTest, HostileModelUnitsAreRefusedWithTheirPath) {
    using Cpuid = std::vector<state::CpuidEntry>;
    struct Case {
        std::function<void(Cpuid&)> edit;
        ErrorCode code;
        std::string path;
    };
    const Case cases[] = {
        {[](Cpuid& c) { c.clear(); }, ErrorCode::corrupt, "cpuid[0x0.0]"},
        {[](Cpuid& c) { c.resize(1 << 20); }, ErrorCode::corrupt, "cpuid: have at most 256"},
        {[](Cpuid& c) { c.push_back(c.back()); }, ErrorCode::corrupt, "cpuid[0x80000008.0]"},
        {[](Cpuid& c) { c.back().eax = 0x3900; }, ErrorCode::incompatible, ".EAX[7:0]"},
        {[](Cpuid& c) { c.back().eax = 0x39ff; }, ErrorCode::incompatible, ".EAX[7:0]"},
        {[](Cpuid& c) { c[1].ebx ^= 3 << 24; }, ErrorCode::incompatible, "cpuid[0x1.0].EBX[31:24]"},
        {[](Cpuid& c) { c[1].ecx |= 1 << 15; }, ErrorCode::incompatible, "cpuid[0x1.0].ECX"},
    };
    const auto machine = make("nestor-v1", 2);
    for (const Case& c : cases) {
        for (const u16 vcpu : {u16{0}, u16{1}}) {
            const auto loaded =
                make("nestor-v1", 2)->load_units(with_model(*machine, vcpu, c.edit));
            ASSERT_FALSE(loaded.has_value()) << c.path;
            EXPECT_EQ(loaded.error().code, c.code) << loaded.error().message;
            const std::string path = "vcpu[" + std::to_string(vcpu) + "].model: ";
            EXPECT_NE(loaded.error().message.find(path), std::string::npos)
                << loaded.error().message;
            EXPECT_NE(loaded.error().message.find(c.path), std::string::npos)
                << loaded.error().message;
        }
    }
}

} // namespace
} // namespace nestor::machine
