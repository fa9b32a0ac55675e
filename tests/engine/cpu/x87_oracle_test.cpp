// Every x87 form run on a judge and on Cpu and compared. Where the host has no 32-bit code, QEMU
// judges it.
//
// Forms are all of D8..DF by ModRM. Registers hold special values in all encodings (denormals,
// pseudo-denormals, unnormals, NaNs), some are empty; the control word has all precisions and
// rounding modes, and exceptions masked or not. A FNOP behind the instruction shows whether an
// exception is pending: #MF there is compared like everything else.
#include <cstdlib>
#include <cstring>
#include <map>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "tests/engine/cpu/oracle/abilities.hpp"
#include "tests/engine/cpu/oracle/qemu.hpp"
#include "tests/engine/cpu/simd_forms.hpp"
#include "tests/engine/cpu/x87_differences.hpp"

namespace nestor::test {

namespace {

constexpr unsigned most_reports = 6;

/// Transcendental functions. x87_math_test.cpp has their values.
bool is_transcendental(ZydisMnemonic m) {
    switch (m) {
    case ZYDIS_MNEMONIC_F2XM1:
    case ZYDIS_MNEMONIC_FYL2X:
    case ZYDIS_MNEMONIC_FYL2XP1:
    case ZYDIS_MNEMONIC_FPTAN:
    case ZYDIS_MNEMONIC_FPATAN:
    case ZYDIS_MNEMONIC_FSIN:
    case ZYDIS_MNEMONIC_FCOS:
    case ZYDIS_MNEMONIC_FSINCOS:
        return true;
    default:
        return false;
    }
}

std::vector<X87Form> all_forms() {
    std::vector<X87Form> forms;
    ZydisDecoder decoder;
    ZydisDecoderInit(&decoder, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
    for (unsigned opcode = 0xd8; opcode <= 0xdf; ++opcode) {
        for (unsigned modrm = 0; modrm < 256; ++modrm) {
            if (modrm < 0xc0 && (modrm & 0xc7) != 3) {
                continue;
            }
            const u8 code[] = {static_cast<u8>(opcode), static_cast<u8>(modrm), 0x90};
            ZydisDecodedInstruction insn;
            ZydisDecodedOperand operands[ZYDIS_MAX_OPERAND_COUNT];
            if (ZYAN_SUCCESS(ZydisDecoderDecodeFull(&decoder, code, 3, &insn, operands))) {
                forms.push_back({code[0], code[1], ZydisMnemonicGetString(insn.mnemonic),
                                 is_transcendental(insn.mnemonic)});
            }
        }
    }
    return forms;
}

void random_extended(SplitMix& random, u8* p) {
    u64 significand = random.next();
    u16 se = static_cast<u16>(random.next());
    switch (random.below(10)) {
    case 0: // anything
        break;
    case 1: // zero
        significand = 0;
        se &= 0x8000;
        break;
    case 2: // infinity
        significand = u64{1} << 63;
        se |= 0x7fff;
        break;
    case 3: // NaN
        significand |= u64{1} << 63;
        se |= 0x7fff;
        break;
    case 4: // denormal or pseudo-denormal
        se &= 0x8000;
        break;
    case 5: // small integers and halves
        se = static_cast<u16>((se & 0x8000) | (0x3ffd + random.below(8)));
        significand = (significand & (u64{7} << 60)) | u64{1} << 63;
        break;
    case 6: // near the integer limits
        se = static_cast<u16>((se & 0x8000) | (0x3fff + 12 + random.below(56)));
        significand |= u64{1} << 63;
        break;
    case 7: // near the limits of single and double
        se = static_cast<u16>((se & 0x8000) |
                              (0x3fff + (random.below(2) != 0 ? 126 : -128) + random.below(4)));
        significand |= u64{1} << 63;
        break;
    case 8: // near the limits of extended
        se = static_cast<u16>((se & 0x8000) |
                              (random.below(2) != 0 ? 0x7ffe - random.below(3) : random.below(70)));
        significand |= u64{1} << 63;
        break;
    default: // moderate
        se = static_cast<u16>((se & 0x8000) | (0x3fff - 8 + random.below(16)));
        significand |= u64{1} << 63;
        break;
    }
    std::memcpy(p, &significand, 8);
    std::memcpy(p + 8, &se, 2);
}

u64 memory_value(SplitMix& random, unsigned kind) {
    u8 e[10];
    random_extended(random, e);
    switch (kind) {
    case 0: { // single
        const u64 v = random.next();
        static constexpr u32 special[] = {0,          0x80000000, 0x7f800000, 0xffc00000,
                                          0x7fa00001, 1,          0x007fffff, 0x7f7fffff};
        return random.below(2) != 0 ? special[random.below(8)] : static_cast<u32>(v);
    }
    case 1: {
        static constexpr u64 special[] = {
            0, u64{1} << 63,       u64{0x7ff} << 52,  u64{0xfff8} << 48, 0x7ff4000000000001,
            1, 0x000fffffffffffff, 0x7fefffffffffffff};
        return random.below(2) != 0 ? special[random.below(8)] : random.next();
    }
    default: {
        u64 v;
        std::memcpy(&v, e, 8);
        return random.below(3) == 0 ? v : random.next() >> random.below(64);
    }
    }
}

void random_state(SplitMix& random, UserState& s) {
    for (unsigned i = 0; i < 8; ++i) {
        random_extended(random, &s.x87[32 + 16 * i]);
    }
    u16 control = static_cast<u16>(0x37f | random.below(4) << 10);
    if (random.below(3) == 0) {
        static constexpr u16 precisions[] = {0, 0x200, 0x300};
        control = static_cast<u16>((control & ~0x300) | precisions[random.below(3)]);
    }
    if (random.below(3) == 0) {
        control &= static_cast<u16>(~(random.next() & 0x3f));
    }
    // Flags only where they are masked: a pending exception is a case of its own.
    u16 status = static_cast<u16>(random.next() & 0x7f00);
    status |= static_cast<u16>(random.next() & 0x3f & control);
    if (random.below(40) == 0) {
        status |= 1;
        if ((control & 1) == 0) {
            status |= 0x8080;
        }
    }
    std::memcpy(&s.x87[0], &control, 2);
    std::memcpy(&s.x87[2], &status, 2);
    const unsigned full = random.below(4);
    s.x87[4] = full == 0 ? static_cast<u8>(random.next()) : full == 1 ? 0xff : 0x7f;
    if (full > 1) { // the register below TOP is empty, so that pushes fit
        const unsigned top = s.x87[3] >> 3 & 7;
        s.x87[4] = static_cast<u8>(~(1u << ((top + 7) & 7)));
    }
    for (unsigned i = 0; i < window_size; i += 16) {
        const u64 v = memory_value(random, random.below(3));
        std::memcpy(&s.window[i], &v, 8);
        u8 e[10];
        random_extended(random, e);
        if (random.below(3) == 0) {
            std::memcpy(&s.window[i], e, 10);
        } else if (random.below(3) == 0) { // packed decimal
            for (unsigned k = 0; k < 10; ++k) {
                s.window[i + k] = static_cast<u8>(random.below(10) | random.below(10) << 4);
            }
        }
    }
    s.rflags = 0x202 | (random.next() & arch::rflags::arithmetic);
    s.gpr[0] = random.next();
}

/// Which cases a test runs, and with whom.
struct Run {
    JudgeKind kind;
    bool mode32;
    u64 cases = 0;
    u64 left = 0; ///< of these, what the judge cannot tell
    u64 failures = 0;
    std::map<std::string, u64> failed;
};

Case random_case(SplitMix& random, const X87Form& form) {
    Case c;
    c.vector = true;
    c.mode32 = random.below(8) == 0;
    random_state(random, c.start);
    c.start.rip = code_address;
    c.start.gpr[3] = random.below(16) == 0 ? absent_address - 6 - random.below(8)
                                           : window_address + 16 * random.below(9);
    c.code = {form.opcode, form.modrm, 0xd9, 0xd0}; // FNOP reports what is pending
    if (form.modrm < 0xc0 && random.below(4) == 0) {
        c.code.insert(c.code.begin(), 0x66); // 16-bit environments
    }
    return c;
}

void run_case(Harness& harness, const X87Form& form, const Case& c, Run& run) {
    // Pointers are not compared, but FNSAVE stores them: they start as zero on both sides.
    harness.cpu().s.x87.opcode = 0;
    harness.cpu().s.x87.instruction_pointer = 0;
    harness.cpu().s.x87.data_pointer = 0;
    ++run.cases;
    const auto ends = harness.run(c);
    if (!ends) {
        ++run.left;
        return;
    }
    const std::string d = compare(c, ends->judge, ends->guest, 0);
    if (d.empty() || excused(abilities_of(run.kind).vendor, form, c, *ends)) {
        return;
    }
    ++run.failures;
    if (run.failed[form.name]++ == 0 && run.failed.size() <= most_reports) {
        ADD_FAILURE() << form.name << "\n" << report(c, ends->judge, ends->guest, d);
    }
}

/// Of the cases that NESTOR_ORACLE_CASES wants an eighth is 32-bit code.
void run_all(JudgeKind kind, bool mode32, u64 least) {
    Harness harness(kind);
    Run run{kind, mode32};
    const std::vector<X87Form> all = all_forms();
    const u64 cases = cases_wanted(150'000) / all.size() + 1;
    const char* only = std::getenv("NESTOR_ORACLE_ONLY");
    for (const X87Form& form : all) {
        if (only != nullptr && form.name != only) {
            continue;
        }
        SplitMix random((u64{form.opcode} << 8 | form.modrm) + seed_wanted());
        for (u64 n = 0; n < cases; ++n) {
            const Case c = random_case(random, form);
            if (c.mode32 == mode32) {
                run_case(harness, form, c, run);
            }
        }
    }
    EXPECT_EQ(run.failures, 0u);
    for (const auto& [name, count] : run.failed) {
        ADD_FAILURE() << name << ": " << count << " cases";
    }
    EXPECT_TRUE(only != nullptr || run.cases >= least * cases) << run.cases;
    fmt::print("{} forms, {} cases, {} of them left out, seed {}\n", all.size(), run.cases,
               run.left, seed_wanted());
}

TEST(X87Oracle, EveryFormAgreesWithTheHost) { run_all(JudgeKind::host, false, 350); }
TEST(X87Oracle, EveryFormOf32BitCodeAgreesWithTheHost) { run_all(JudgeKind::host, true, 40); }
TEST(X87Oracle, EveryFormOf32BitCodeAgreesWithQemu) {
    if (!QemuSide::present()) {
        GTEST_SKIP() << "qemu-i386 is not installed";
    }
    run_all(JudgeKind::qemu, true, 40);
}

TEST(X87Oracle, ExceptionsThatThisProgramRaisedAreNotTheGuests) {
    Harness harness;
    Case c;
    c.vector = true;
    c.code = {0xd9, 0xe8, 0xd8, 0xc0}; // FLD1; FADD ST, ST: exact
    c.start.rip = code_address;
    c.start.x87[0] = 0x7f;
    c.start.x87[1] = 0x03;
    volatile long double third = 3;
    third = 1 / third; // inexact
    const Result guest = harness.run_guest(c);
    EXPECT_EQ(guest.vector, 3);
    EXPECT_EQ(guest.end.x87[2] & 0x3f, 0);
}

} // namespace

} // namespace nestor::test
