// L2 before the first run: the units of a vCPU with L2 active, loaded into a fresh vCPU in one
// order after another. GUEST is the image of tests/guests/vmx.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <functional>
#include <string>

#include "engine/cpu/package.hpp"
#include "engine/hypervisor/cpu_caps.hpp"
#include "engine/hypervisor/vcpu.hpp"
#include "engine/state/codec.hpp"
#include "src/base/digest.hpp"
#include "src/base/fd.hpp"
#include "src/machine/machine.hpp"

namespace nestor {
namespace {

using namespace machine;

constexpr u64 memory_size = u64{16} << 20;
constexpr u64 counts_after = 200;

/// A vCPU of its own over a copy of a machine's RAM.
class Copy {
public:
    explicit Copy(const cpu::GuestMemory& from) : cpuid_(*hv::cpu_model_cpuid("nestor-v1", 0, 1)) {
        std::size_t n = 0;
        for (const auto& region : from.regions()) {
            ram_[n].assign(region.host, region.host + region.size);
            states_[n].assign(region.size >> page_shift, 0);
            memory_.add_region({region.start, region.size, ram_[n].data(), states_[n].data()});
            ++n;
        }
        package_ = std::make_unique<cpu::Package>(
            memory_, cpu::Package::Config{hv::silicon_features(cpuid_), 64});
        vcpu = std::make_unique<hv::Vcpu>(hv::Vcpu::Config{
            .index = VcpuIndex(0), .package = package_.get(), .board = nullptr, .cpuid = cpuid_});
    }

    /// Runs on until something needs the board. What the vCPU is then, and all memory.
    std::pair<state::Vcpu, std::string> run(u64 count) {
        const hv::TimeBase base{Icount(count), Ticks(count), 1, 1};
        last = vcpu->run(base, Icount(count + counts_after));
        std::string digests;
        for (const auto& region : ram_) {
            digests += to_hex(sha256(std::as_bytes(std::span(region))));
        }
        return {vcpu->save(), digests};
    }

private:
    std::vector<state::CpuidEntry> cpuid_;
    std::array<std::vector<u8>, 8> ram_;
    std::array<std::vector<u8>, 8> states_;
    cpu::GuestMemory memory_;
    std::unique_ptr<cpu::Package> package_;

public:
    std::unique_ptr<hv::Vcpu> vcpu; ///< goes before the package it runs in
    hv::Exit last;
};

state::Vcpu vcpu_of(const Machine& machine) {
    state::Vcpu v;
    const auto units = machine.units();
    const auto take = [&]<class T>(const char* name, T& into) {
        const auto found = std::find_if(units.begin(), units.end(), [&](const Unit& unit) {
            return unit.name == std::string("vcpu[0].") + name;
        });
        ASSERT_NE(found, units.end()) << name;
        into = *state::decode<T>(found->bytes);
    };
    take("model", v.model);
    take("cpu", v.cpu);
    take("lapic", v.lapic);
    take("events", v.events);
    take("msrs", v.msrs);
    take("pmu", v.pmu);
    take("vmcs01", v.vmcs01);
    take("nested", v.nested);
    return v;
}

using Load = std::function<Result<>(hv::Vcpu&, const state::Vcpu&)>;

const std::vector<Load> loads{
    [](hv::Vcpu& to, const state::Vcpu& v) { return to.load(v.model); },
    [](hv::Vcpu& to, const state::Vcpu& v) { return to.load(v.cpu); },
    [](hv::Vcpu& to, const state::Vcpu& v) { return to.load(v.lapic); },
    [](hv::Vcpu& to, const state::Vcpu& v) { return to.load(v.events); },
    [](hv::Vcpu& to, const state::Vcpu& v) { return to.load(v.msrs); },
    [](hv::Vcpu& to, const state::Vcpu& v) { return to.load(v.pmu); },
    [](hv::Vcpu& to, const state::Vcpu& v) { return to.load(v.vmcs01); },
    [](hv::Vcpu& to, const state::Vcpu& v) { return to.load(v.nested); },
};

std::unique_ptr<Machine> booted() {
    const char* const path = std::getenv("GUEST");
    const auto bytes = read_file(path != nullptr ? path : "", 1 << 20);
    EXPECT_TRUE(bytes.has_value()) << "GUEST names no image";
    state::MachineConfig config;
    config.memory = memory_size;
    auto machine = std::move(*Machine::create(config));
    BootImages images;
    images.kernel = {"vmx", {reinterpret_cast<const u8*>(bytes->data()), bytes->size()}};
    EXPECT_TRUE(machine->boot(images).has_value());
    return machine;
}

TEST(NestedUnits, L2GoesOnInWhicheverOrderTheUnitsOfAFreshVcpuWereLoaded) {
    const auto machine = booted();
    unsigned moments = 0;
    while (machine->run({.until_l2 = true}).kind == Stop::Kind::l2) {
        if (moments++ % 8 != 0) {
            continue; // every eighth entry is enough
        }
        const state::Vcpu from = vcpu_of(*machine);
        ASSERT_TRUE(from.nested.guest_mode);
        Copy reference(machine->memory());
        ASSERT_TRUE(reference.vcpu->load(from).has_value());
        const auto expected = reference.run(machine->count().value());
        std::vector<std::size_t> order(loads.size());
        for (std::size_t first = 0; first < loads.size(); ++first) {
            for (const bool backwards : {false, true}) {
                for (std::size_t i = 0; i < order.size(); ++i) {
                    const std::size_t step = backwards ? order.size() - i : i;
                    order[i] = (first + step) % order.size();
                }
                Copy fresh(machine->memory());
                for (const std::size_t i : order) {
                    ASSERT_TRUE(loads[i](*fresh.vcpu, from).has_value());
                }
                const auto got = fresh.run(machine->count().value());
                EXPECT_EQ(fresh.last.index(), reference.last.index());
                EXPECT_TRUE(state::diff(got.first, expected.first).empty());
                EXPECT_EQ(got.second, expected.second);
            }
        }
    }
    EXPECT_GT(moments, 40U);
}

TEST(NestedUnits, UnitsThatContradictEachOtherAreRefusedByTheFirstRun) {
    const auto machine = booted();
    ASSERT_EQ(machine->run({.until_l2 = true}).kind, Stop::Kind::l2);
    state::Vcpu from = vcpu_of(*machine);
    from.nested.vmcs12.cr3_target_count = 77; // no control field of an L2 that runs
    Copy fresh(machine->memory());
    for (const Load& load : loads) {
        ASSERT_TRUE(load(*fresh.vcpu, from).has_value());
    }
    fresh.run(machine->count().value());
    const auto* const refused = std::get_if<hv::Refused>(&fresh.last);
    ASSERT_NE(refused, nullptr);
    EXPECT_NE(refused->reason.find("vcpu[0].nested"), std::string::npos) << refused->reason;
}

TEST(NestedUnits, ANestedUnitThatIsWrongByItselfIsRefusedWhenItIsLoaded) {
    const auto machine = booted();
    ASSERT_EQ(machine->run({.until_l2 = true}).kind, Stop::Kind::l2);
    const state::Vcpu good = vcpu_of(*machine);
    const auto refused = [&](const std::function<void(state::Nested&)>& spoil) {
        state::Nested nested = good.nested;
        spoil(nested);
        Copy fresh(machine->memory());
        return !fresh.vcpu->load(nested).has_value();
    };
    EXPECT_FALSE(refused([](state::Nested&) {}));
    EXPECT_TRUE(refused([](state::Nested& n) { n.vmxon = false; }));
    EXPECT_TRUE(refused([](state::Nested& n) { n.current = ~u64{0}; }));
    EXPECT_TRUE(refused([](state::Nested& n) { n.current = n.vmxon_pointer; }));
    EXPECT_TRUE(refused([](state::Nested& n) { n.smm.guest_mode = true; }));
    EXPECT_TRUE(refused([](state::Nested& n) { n.smm.vmxon = true; }));
}

} // namespace
} // namespace nestor
