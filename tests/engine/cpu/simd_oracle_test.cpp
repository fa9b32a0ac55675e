// Every SIMD form that nestor-v1 offers, run on a judge and on Cpu and compared (SDM 2). Where the
// host has no 32-bit code, QEMU judges it.
//
// Forms are found by sweeping the opcode space with the decoder: whatever it decodes into an
// offered instruction set is a form. Operands are random, with special floating-point values; MXCSR
// has all rounding modes, DAZ, FZ and unmasked exceptions; memory operands are aligned or not,
// cross a page, and sometimes fault. NESTOR_ORACLE_ONLY is a mnemonic to run alone.
#include <cstdlib>
#include <cstring>
#include <map>
#include <string>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "tests/engine/cpu/oracle/abilities.hpp"
#include "tests/engine/cpu/oracle/qemu.hpp"
#include "tests/engine/cpu/simd_differences.hpp"
#include "tests/engine/cpu/simd_forms.hpp"

namespace nestor::test {

namespace {

constexpr unsigned most_reports = 4;

u64 random_word(SplitMix& random, unsigned style) {
    static constexpr u32 singles[] = {0,          0x80000000, 0x3f800000, 0xbf800000, 0x7f800000,
                                      0xff800000, 0x7fc00000, 0x7fa00000, 0xffc12345, 0xff812345,
                                      0x00000001, 0x80000001, 0x007fffff, 0x00800000, 0x807fffff,
                                      0x7f7fffff, 0xff7fffff, 0x4b000000, 0x4f000000, 0xcf000000,
                                      0x3f000000, 0x3fc00000, 0x40200000, 0x5f000000, 0x00800001};
    static constexpr u64 doubles[] = {0,
                                      0x8000000000000000,
                                      0x3ff0000000000000,
                                      0xbff0000000000000,
                                      0x7ff0000000000000,
                                      0xfff0000000000000,
                                      0x7ff8000000000000,
                                      0x7ff4000000000000,
                                      0xfff8123456789abc,
                                      0xfff0123456789abc,
                                      0x0000000000000001,
                                      0x800fffffffffffff,
                                      0x0010000000000000,
                                      0x7fefffffffffffff,
                                      0x41dfffffffe00000,
                                      0xc1e0000000100000,
                                      0x43e0000000000000,
                                      0x3fe0000000000000,
                                      0x36a0000000000000,
                                      0x47efffffe0000000,
                                      0x380fffffffffffff,
                                      0x0010000000000001};
    switch (style) {
    case 0:
        return random.next();
    case 1:
        return singles[random.below(std::size(singles))] |
               u64{singles[random.below(std::size(singles))]} << 32;
    case 2:
        return doubles[random.below(std::size(doubles))];
    case 3: // singles of moderate size
        return (random.next() & 0x87ffffff87ffffff) | 0x3c0000003c000000;
    case 4: // doubles of moderate size
        return (random.next() & 0x803fffffffffffff) | 0x3fc0000000000000;
    default:
        return random.next() & 0x0f0f001f00ff000f;
    }
}

u32 random_mxcsr(SplitMix& random) {
    const u32 flags = static_cast<u32>(random.next()) & 0x3f;
    switch (random.below(8)) {
    case 0:
    case 1:
        return 0x1f80;
    case 2:
    case 3:
        return 0x1f80 | flags;
    case 4:
    case 5:
        return 0x1f80 | flags | (static_cast<u32>(random.next()) & 0xe040);
    default:
        // Flags that are set and unmasked raise nothing by themselves.
        return (static_cast<u32>(random.next()) & 0xffc0) | flags;
    }
}

void random_state(SplitMix& random, UserState& s) {
    for (u64& r : s.gpr) {
        r = random_word(random, random.below(6));
    }
    for (unsigned i = 0; i < 64; i += 4) {
        const unsigned style = random.below(6);
        for (unsigned k = 0; k < 4; ++k) {
            s.vector[i + k] = random_word(random, style);
        }
    }
    const unsigned style = random.below(6);
    for (unsigned i = 0; i < window_size; i += 8) {
        const u64 v = random_word(random, style);
        std::memcpy(&s.window[i], &v, 8);
    }
    s.mxcsr = random_mxcsr(random);
    s.rflags = 0x202 | (random.next() & arch::rflags::arithmetic);
    // x87: default controls, sometimes registers in use.
    s.x87[0] = 0x7f;
    s.x87[1] = 0x03;
    s.x87[3] = static_cast<u8>(random.below(8) << 3);
    s.x87[4] = static_cast<u8>(random.next());
    for (unsigned i = 0; i < 8; ++i) {
        const u64 v = random_word(random, random.below(6));
        std::memcpy(&s.x87[32 + 16 * i], &v, 8);
        std::memcpy(&s.x87[40 + 16 * i], &v, 2);
    }
}

/// An address for a memory operand.
u64 random_address(SplitMix& random) {
    switch (random.below(16)) {
    case 0:
        return read_only_address + 64 * random.below(4);
    case 1:
        return absent_address - random.below(40);
    case 2:
    case 3:
    case 4:
        return window_address + random.below(window_size - 64);
    default:
        return window_address + 32 * random.below(window_size / 32);
    }
}

/// Which cases a test runs, and with whom.
struct Run {
    JudgeKind kind;
    bool mode32;
    u64 cases = 0;
    u64 left = 0; ///< of these, what the judge cannot tell
    u64 failures = 0;
    std::map<std::string, u64> failed_forms;
};

std::string difference(Harness& harness, const SimdForm& form, const Case& c, Run& run) {
    const auto ends = harness.run(c);
    if (!ends) {
        ++run.left;
        return {};
    }
    const std::string d = compare(c, ends->judge, ends->guest, 0);
    return d.empty() || excused(abilities_of(run.kind).vendor, form, c, *ends) ? "" : d;
}

Case random_case(SplitMix& random, const SimdForm& form) {
    Case c;
    c.vector = true;
    c.mode32 = form.in_32bit && random.below(8) == 0;
    random_state(random, c.start);
    c.start.gpr[4] &= 0x7fffffffffff; // no form uses it, and not every host can tell then
    c.code = form.instance(random, c.mode32);
    c.start.rip = code_address + random.below(64);
    // The operand forms of instance() use RBX, with RSI as index; MASKMOV uses RDI.
    c.start.gpr[3] = random_address(random);
    c.start.gpr[6] = form.vsib ? 0 : random.below(2) * 16;
    c.start.gpr[7] = random_address(random);
    if (form.vsib) {
        // XMM0..7 hold the index: small, sometimes past the end of the pages.
        for (unsigned i = 0; i < 32; ++i) {
            c.start.vector[i] = random.below(12) | (random.below(8) == 0 ? 0x400 : 0);
        }
    }
    return c;
}

void run_form(Harness& harness, const SimdForm& form, unsigned cases, Run& run) {
    SplitMix random(form.seed() + seed_wanted());
    for (unsigned n = 0; n < cases; ++n) {
        const Case c = random_case(random, form);
        if (c.mode32 != run.mode32) {
            continue;
        }
        ++run.cases;
        if (difference(harness, form, c, run).empty()) {
            continue;
        }
        ++run.failures;
        if (run.failed_forms[form.name]++ == 0 && run.failed_forms.size() <= most_reports) {
            const Case s = shrink(
                c, [&](const Case& t) { return !difference(harness, form, t, run).empty(); });
            const auto ends = harness.run(s);
            ADD_FAILURE() << form.name << "\n"
                          << report(s, ends->judge, ends->guest,
                                    compare(s, ends->judge, ends->guest, 0));
        }
    }
}

/// Of the cases that NESTOR_ORACLE_CASES wants an eighth is 32-bit code.
void run_all(JudgeKind kind, bool mode32, u64 least) {
    Harness harness(kind);
    Run run{kind, mode32};
    const char* only = std::getenv("NESTOR_ORACLE_ONLY");
    unsigned forms = 0;
    const auto& all = simd_forms();
    const auto per_form = static_cast<unsigned>(cases_wanted(300'000) / all.size() + 1);
    for (const SimdForm& form : all) {
        if (differs_on_purpose(form) || (only != nullptr && form.name.find(only) != 0)) {
            continue;
        }
        ++forms;
        run_form(harness, form, per_form, run);
    }
    EXPECT_EQ(run.failures, 0u);
    for (const auto& [name, count] : run.failed_forms) {
        ADD_FAILURE() << name << ": " << count << " cases";
    }
    EXPECT_TRUE(only != nullptr || forms > 1500) << forms;
    EXPECT_TRUE(only != nullptr || run.cases >= least * per_form) << run.cases;
    fmt::print("{} forms, {} cases, {} of them left out, seed {}\n", forms, run.cases, run.left,
               seed_wanted());
}

TEST(SimdOracle, EveryFormAgreesWithTheHost) { run_all(JudgeKind::host, false, 1300); }
TEST(SimdOracle, EveryFormOf32BitCodeAgreesWithTheHost) { run_all(JudgeKind::host, true, 100); }
TEST(SimdOracle, EveryFormOf32BitCodeAgreesWithQemu) {
    if (!QemuSide::present()) {
        GTEST_SKIP() << "qemu-i386 is not installed";
    }
    run_all(JudgeKind::qemu, true, 100);
}

} // namespace

} // namespace nestor::test
