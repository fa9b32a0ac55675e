// Units of a vCPU with L2 active that contradict each other or themselves, loaded into a fresh
// vCPU. GUEST is the image of tests/guests/vmx.asm. What is right, in every order: tests/matrix.
#include <gtest/gtest.h>

#include <cstdlib>
#include <functional>

#include "engine/cpu/package.hpp"
#include "engine/hypervisor/cpu_caps.hpp"
#include "engine/hypervisor/vcpu.hpp"
#include "src/base/fd.hpp"
#include "src/machine/machine.hpp"

namespace nestor {
namespace {

using namespace machine;

constexpr u64 memory_size = u64{16} << 20;

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

    hv::Exit run(u64 count) {
        const hv::TimeBase base{Icount(count), Ticks(count), 1, 1};
        return vcpu->run(base, Icount(count + 1));
    }

private:
    std::vector<state::CpuidEntry> cpuid_;
    std::array<std::vector<u8>, 8> ram_;
    std::array<std::vector<u8>, 8> states_;
    cpu::GuestMemory memory_;
    std::unique_ptr<cpu::Package> package_;

public:
    std::unique_ptr<hv::Vcpu> vcpu; ///< goes before the package it runs in
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

TEST(NestedUnits, UnitsThatContradictEachOtherAreRefusedByTheFirstRun) {
    const auto machine = booted();
    ASSERT_EQ(machine->run({.until_l2 = true}).kind, Stop::Kind::l2);
    state::Vcpu from = machine->vcpu(VcpuIndex(0));
    from.nested.vmcs12.cr3_target_count = 77; // no control field of an L2 that runs
    Copy fresh(machine->memory());
    ASSERT_TRUE(fresh.vcpu->load(from.cpu).has_value());
    ASSERT_TRUE(fresh.vcpu->load(from.nested).has_value());
    const hv::Exit exit = fresh.run(machine->count().value());
    const auto* const refused = std::get_if<hv::Refused>(&exit);
    ASSERT_NE(refused, nullptr);
    EXPECT_NE(refused->reason.find("vcpu[0].nested"), std::string::npos) << refused->reason;
}

TEST(NestedUnits, ANestedUnitThatIsWrongByItselfIsRefusedWhenItIsLoaded) {
    const auto machine = booted();
    ASSERT_EQ(machine->run({.until_l2 = true}).kind, Stop::Kind::l2);
    const state::Vcpu good = machine->vcpu(VcpuIndex(0));
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
