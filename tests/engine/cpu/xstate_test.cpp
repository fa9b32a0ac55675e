// FXSAVE and the XSAVE family: images compared with the host's byte by byte, restoring, and what is
// refused (SDM 1 13.7 to 13.10).
#include <array>
#include <cstring>
#include <initializer_list>

#include <gtest/gtest.h>

#include "engine/cpu/package.hpp"
#include "tests/engine/cpu/oracle/harness.hpp"
#include "tests/engine/cpu/simd_forms.hpp"

namespace nestor::test {

namespace {

constexpr u64 area = data_address + 0x100;
constexpr u64 guest_area = 0x10000 + (area - data_address); ///< guest-physical (oracle/guest.hpp)
constexpr u32 avx_bits = 7;

using Bytes = std::vector<u8>;

Bytes join(std::initializer_list<Bytes> parts) {
    Bytes all;
    for (const Bytes& part : parts) {
        all.insert(all.end(), part.begin(), part.end());
    }
    return all;
}
const Bytes fxsave64{0x48, 0x0f, 0xae, 0x03}; // fxsave64 [rbx]
const Bytes fxrstor{0x48, 0x0f, 0xae, 0x0b};
const Bytes xsave64{0x48, 0x0f, 0xae, 0x23};
const Bytes xsaveopt{0x48, 0x0f, 0xae, 0x33};
const Bytes xsavec{0x48, 0x0f, 0xc7, 0x23};
const Bytes xrstor{0x48, 0x0f, 0xae, 0x2b};
const Bytes clobber{0xc5, 0xfc, 0x77, 0xdb, 0xe3}; // vzeroall; fninit

Case random_case(SplitMix& random, Bytes code) {
    Case c;
    c.vector = true;
    c.code = std::move(code);
    c.start.rip = code_address;
    for (u64& v : c.start.vector) {
        v = random.next();
    }
    for (unsigned i = 0; i < 8; ++i) {
        const u64 v = random.next();
        std::memcpy(&c.start.x87[32 + 16 * i], &v, 8);
        std::memcpy(&c.start.x87[40 + 16 * i], &v, 2);
    }
    c.start.x87[0] = 0x7f;
    c.start.x87[1] = 0x03;
    c.start.x87[3] = static_cast<u8>(random.below(8) << 3);
    c.start.x87[4] = static_cast<u8>(random.next());
    c.start.mxcsr = 0x1f80 | random.below(64);
    c.start.gpr[0] = avx_bits;
    c.start.gpr[2] = 0;
    c.start.gpr[3] = area;
    return c;
}

class XState : public testing::Test {
protected:
    Result run_guest(const Case& c) {
        clear_pointers();
        return harness.run_guest(c);
    }
    /// Runs both on fresh memory; true if they and the whole of memory agree.
    void expect_same(const Case& c) {
        harness.reset_memory();
        clear_pointers();
        const auto ends = harness.run(c);
        if (!ends) {
            return; // judge_test.cpp has the count
        }
        ASSERT_EQ(compare(c, ends->judge, ends->guest, 0), "");
        std::array<u8, 1024> image;
        ASSERT_EQ(harness.cpu().package.memory().read(Gpa(guest_area), image),
                  cpu::MemoryStatus::ok);
        const auto* expected = reinterpret_cast<const u8*>(area);
        for (unsigned i = 0; i < image.size(); ++i) {
            if (i / 4 != 7) { // MXCSR_MASK: AMD also has bit 17
                ASSERT_EQ(image[i], expected[i]) << "byte " << i;
            }
        }
    }
    void clear_pointers() {
        harness.cpu().s.x87.opcode = 0;
        harness.cpu().s.x87.instruction_pointer = 0;
        harness.cpu().s.x87.data_pointer = 0;
    }

    Harness harness;
    SplitMix random{1};
};

TEST_F(XState, FxsaveImagesAreTheHosts) {
    for (int n = 0; n < 50; ++n) {
        expect_same(random_case(random, fxsave64));
    }
}

TEST_F(XState, XsaveImagesAreTheHostsForAllComponentMasks) {
    for (u32 mask = 0; mask < 16; ++mask) {
        Case c = random_case(random, xsave64);
        c.start.gpr[0] = mask;
        expect_same(c);
    }
}

TEST_F(XState, CompactedImagesAreTheHostsWhenAllComponentsAreInUse) {
    for (const u32 mask : {1u, 2u, 3u, 4u, 5u, 6u, 7u}) {
        Case c = random_case(random, xsavec);
        c.start.gpr[0] = mask;
        expect_same(c);
    }
}

/// Stores of zero to the first three words of the header at [rbx + 512].
const Bytes clear_header{0x48, 0xc7, 0x83, 0x00, 0x02, 0, 0, 0, 0, 0, 0,
                         0x48, 0xc7, 0x83, 0x08, 0x02, 0, 0, 0, 0, 0, 0,
                         0x48, 0xc7, 0x83, 0x10, 0x02, 0, 0, 0, 0, 0, 0};

TEST_F(XState, StandardFormsRestoreWhatTheySaved) {
    for (const Bytes& save : {xsave64, xsaveopt}) {
        const Case c = random_case(random, join({clear_header, save, clobber, xrstor}));
        const Result r = run_guest(c);
        ASSERT_EQ(r.vector, 3);
        EXPECT_EQ(r.end.vector, c.start.vector);
        EXPECT_EQ(r.end.x87, c.start.x87);
    }
}

TEST_F(XState, CompactedAreasRestoreOnceTheHeaderIsClean) {
    Case c = random_case(random, join({xsavec, clobber, xrstor}));
    harness.reset_memory();
    EXPECT_EQ(run_guest(c).vector, 13) << "reserved header bytes hold the pattern";
    const std::array<u8, 64> zero{};
    ASSERT_EQ(harness.cpu().package.memory().write(Gpa(guest_area + 512), zero),
              cpu::MemoryStatus::ok);
    const Result r = run_guest(c);
    ASSERT_EQ(r.vector, 3);
    EXPECT_EQ(r.end.vector, c.start.vector);
    EXPECT_EQ(r.end.x87, c.start.x87);
    EXPECT_EQ(r.end.mxcsr, c.start.mxcsr);
}

TEST_F(XState, FxrstorBringsBackWhatFxsaveWrote) {
    const Case c = random_case(random, join({fxsave64, clobber, fxrstor}));
    const Result r = run_guest(c);
    ASSERT_EQ(r.vector, 3);
    for (unsigned i = 0; i < 16; ++i) {
        EXPECT_EQ(r.end.vector[4 * i], c.start.vector[4 * i]);
        EXPECT_EQ(r.end.vector[4 * i + 2], 0u) << "VZEROALL cleared what FXRSTOR does not hold";
    }
    EXPECT_EQ(r.end.x87, c.start.x87);
    EXPECT_EQ(r.end.mxcsr, c.start.mxcsr);
}

TEST_F(XState, MisalignedAreasAreRefused) {
    for (const Bytes& code : {fxsave64, fxrstor, xsave64, xsavec, xsaveopt, xrstor}) {
        Case c = random_case(random, code);
        c.start.gpr[3] = area + 8;
        EXPECT_EQ(run_guest(c).vector, 13);
    }
}

TEST_F(XState, ReservedMxcsrBitsAreRefused) {
    // mov dword [rbx + 24], 0x10000; fxrstor [rbx]
    const Case c = random_case(random, join({fxsave64, {0xc7, 0x43, 24, 0, 0, 1, 0}, fxrstor}));
    EXPECT_EQ(run_guest(c).vector, 13);
}

TEST_F(XState, ComponentsThatAreNotEnabledAreRefused) {
    // The pattern in memory makes a header with such bits.
    harness.reset_memory();
    EXPECT_EQ(run_guest(random_case(random, xrstor)).vector, 13);
}

TEST_F(XState, AreasThatFaultAreNotWritten) {
    Case c = random_case(random, fxsave64);
    c.start.gpr[3] = read_only_address - 256;
    harness.reset_memory();
    const Result r = run_guest(c);
    EXPECT_EQ(r.vector, 14);
    EXPECT_EQ(r.address, read_only_address);
    c.code = {0x90}; // so that the judge's window is that of the case, too
    c.vector = false;
    harness.run(c);
    EXPECT_TRUE(harness.same_memory());
}

TEST_F(XState, XgetbvTellsWhichComponentsAreInUse) {
    Case c = random_case(random, {0x0f, 0x01, 0xd0});
    c.start.gpr[1] = 0;
    EXPECT_EQ(run_guest(c).end.gpr[0], 7u);
    c.start.gpr[1] = 1;
    EXPECT_EQ(run_guest(c).end.gpr[0], 7u);
    c.start.vector = {};
    EXPECT_EQ(run_guest(c).end.gpr[0], 1u);
    c.start.gpr[1] = 2;
    EXPECT_EQ(run_guest(c).vector, 13);
}

} // namespace

} // namespace nestor::test
