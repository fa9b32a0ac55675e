// Which MSRs a vCPU has, found as a guest finds them: by reading each.
//
// The lists are those of 0.1.0. An MSR that the engine learns, L0's or the silicon's own, must not
// turn up here: it goes with a new CPU model, or with a CPUID bit that nestor-v1 does not have.
#include <algorithm>
#include <memory>

#include <gtest/gtest.h>

#include "nested_fixture.hpp"

namespace nestor::hv {
namespace {

struct Range {
    u32 first, last;
};
constexpr Range ranges[] = {
    {0, 0x1fff}, {0x40000000, 0x400001ff}, {0xc0000000, 0xc0001fff}, {0xc0010000, 0xc00101ff}};

/// The MSRs that do not fault when read, in x2APIC mode or outside.
std::vector<Range> readable(bool x2apic) {
    cpu::Entry entry = cpu::valid_entry(cpu::ValidEntry::everything);
    std::vector<u8> ram = NestedHost::memory_of(entry);
    ram[NestedHost::l1_code] = 0x0f;
    ram[NestedHost::l1_code + 1] = 0x32; // RDMSR
    NestedHost host(std::move(ram));
    state::Vcpu ready = host.before_launch(entry.v);
    ready.nested = {};
    ready.cpu.cr4 &= ~arch::cr4::vmxe;
    ready.lapic.base |= x2apic ? u64{0xc00} : u64{0};
    std::vector<Range> found;
    for (const Range& range : ranges) {
        for (u32 msr = range.first; msr <= range.last; ++msr) {
            ready.cpu.gpr[1] = msr;
            const auto loaded = host.vcpu.load(ready);
            EXPECT_TRUE(loaded.has_value()) << loaded.error().message;
            (void)host.vcpu.run({}, Icount(1));
            if (host.vcpu.save().cpu.rip != NestedHost::l1_code + 2) {
                continue; // #GP, and there is no IDT
            }
            if (!found.empty() && found.back().last + 1 == msr) {
                found.back().last = msr;
            } else {
                found.push_back({msr, msr});
            }
        }
    }
    return found;
}

std::string text(const std::vector<Range>& found) {
    std::string out;
    char one[32];
    for (const Range& r : found) {
        std::snprintf(one, sizeof one, r.first == r.last ? "%x " : "%x-%x ", r.first, r.last);
        out += one;
    }
    return out;
}

TEST(MsrPresence, NestorV1HasTheMsrsThatItHadIn010) {
    EXPECT_EQ(
        text(readable(false)),
        "10 17 1b 34 3a-3b 8b c1-c4 ce fe 10a 174-176 179-17b 186-189 1a0 1d9 200-20f 250 258-259 "
        "268-26f 277 2ff 309-30b 38d-390 400-40f 480-491 6e0 da0 "
        "c0000080-c0000084 c0000100-c0000103 ");
}

TEST(MsrPresence, NestorV1HasTheX2apicRegistersThatItHadIn010) {
    EXPECT_EQ(
        text(readable(true)),
        "10 17 1b 34 3a-3b 8b c1-c4 ce fe 10a 174-176 179-17b 186-189 1a0 1d9 200-20f 250 258-259 "
        "268-26f 277 2ff 309-30b 38d-390 400-40f 480-491 6e0 802-803 808 80a 80d 80f-828 830 "
        "832-839 83e da0 "
        "c0000080-c0000084 c0000100-c0000103 ");
}

} // namespace
} // namespace nestor::hv
