// The integer instruction set against the host processor, and 32-bit code also against QEMU:
// generated cases for every form.
//
// More than a million of them. A failing case is shrunk and printed whole; with
// NESTOR_KEEP_VECTORS=folder it is also written there.
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <set>
#include <sstream>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "tests/engine/cpu/oracle/forms.hpp"
#include "tests/engine/cpu/oracle/integer_set.hpp"
#include "tests/engine/cpu/oracle/qemu.hpp"

namespace nestor::test {
namespace {

/// What went wrong, complete, or nothing; `ran` tells whether the judge could tell.
std::string check_case(Harness& h, const Generated& g, Vendor vendor, bool stepwise, bool& ran) {
    const u64 undefined = undefined_flags(g);
    const auto difference = [&](const Case& c) -> std::string {
        const auto ends = h.run(c, stepwise);
        ran = ends.has_value();
        if (!ends) {
            return {};
        }
        std::string d = compare(c, ends->judge, ends->guest, undefined);
        if (d.empty() && !h.same_memory()) {
            d = "  memory outside the window differs\n";
        }
        if (!d.empty()) {
            h.reset_memory();
        }
        return d;
    };
    if (difference(g.c).empty()) {
        return {};
    }
    const Case small = shrink(g.c, [&](const Case& c) {
        Generated smaller;
        smaller.c = c;
        decode_case(smaller);
        return is_safe(smaller) && !differs_by_vendor(smaller, vendor) && !difference(c).empty();
    });
    h.reset_memory();
    const auto ends = h.run(small, stepwise);
    const std::string d = compare(small, ends->judge, ends->guest, undefined);
    if (const char* folder = std::getenv("NESTOR_KEEP_VECTORS")) {
        const auto name = fmt::format("{}-{:016x}.txt", ZydisMnemonicGetString(g.insn.mnemonic),
                                      std::hash<std::string>{}(to_text(small)));
        std::ofstream(std::filesystem::path(folder) / name) << to_text(small);
    }
    h.reset_memory();
    return report(small, ends->judge, ends->guest, d);
}

void run_all(JudgeKind kind, bool mode32, u64 cases) {
    const u64 seed = seed_wanted();
    const std::vector<Form> forms = enumerate_forms(mode32, is_integer);
    ASSERT_GT(forms.size(), 500u);
    Harness h(kind);
    const Vendor vendor = abilities_of(kind).vendor;
    const u64 per_form = cases / forms.size() + 1;
    u64 ran = 0;
    u64 left = 0;
    std::set<ZydisMnemonic> unreached;
    std::map<ZydisMnemonic, u64> failed;
    for (std::size_t i = 0; i < forms.size(); ++i) {
        Random random(seed * 1000003 + i);
        u64 valid = 0;
        u64 excluded = 0;
        for (u64 k = 0; k < 4 * per_form && valid < per_form; ++k) {
            const Generated g = generate(forms[i], random);
            if (!g.valid) {
                continue;
            }
            if (differs_by_vendor(g, vendor)) {
                ++excluded;
                continue;
            }
            ++valid;
            // Every eighth case stops after each instruction and iteration.
            bool judged = true;
            const std::string problem = check_case(h, g, vendor, valid % 8 == 0, judged);
            left += judged ? 0 : 1;
            if (!problem.empty() && failed[forms[i].mnemonic]++ < 2) {
                ADD_FAILURE() << ZydisMnemonicGetString(forms[i].mnemonic) << "\n" << problem;
            }
        }
        ran += valid;
        if (valid == 0 && excluded == 0) {
            unreached.insert(forms[i].mnemonic);
        }
    }
    for (const auto& [mnemonic, count] : failed) {
        fmt::print("{}: {} failing cases\n", ZydisMnemonicGetString(mnemonic), count);
    }
    for (const ZydisMnemonic m : unreached) {
        fmt::print("{}: a form without cases\n", ZydisMnemonicGetString(m));
    }
    EXPECT_TRUE(unreached.empty());
    EXPECT_GE(ran, cases / 10 * 9) << "too few of the generated cases could be run";
    fmt::print("{} forms, {} cases, {} of them left out, seed {}\n", forms.size(), ran, left, seed);
}

TEST(IntegerOracle, GeneratedCasesOf64BitModeAgreeWithTheHost) {
    run_all(JudgeKind::host, false, cases_wanted(1'200'000));
}
TEST(IntegerOracle, GeneratedCasesOfCompatibilityModeAgreeWithTheHost) {
    run_all(JudgeKind::host, true, cases_wanted(400'000));
}
TEST(IntegerOracle, GeneratedCasesOf32BitCodeAgreeWithQemu) {
    if (!QemuSide::present()) {
        GTEST_SKIP() << "qemu-i386 is not installed";
    }
    const bool alone = !abilities_of(JudgeKind::host).can(Need::code32);
    run_all(JudgeKind::qemu, true, cases_wanted(alone ? 200'000 : 40'000));
}

TEST(IntegerOracle, KeptVectorsAgreeWithTheHost) {
    Harness h;
    const Vendor vendor = abilities_of(JudgeKind::host).vendor;
    unsigned count = 0;
    for (const auto& entry : std::filesystem::directory_iterator(NESTOR_VECTORS)) {
        if (entry.path().extension() != ".txt") {
            continue;
        }
        std::stringstream text;
        text << std::ifstream(entry.path()).rdbuf();
        Generated g;
        g.c = from_text(text.str());
        if (g.c.vector) {
            continue; // the vector oracle's
        }
        decode_case(g);
        ASSERT_TRUE(g.valid) << entry.path();
        ++count;
        if (differs_by_vendor(g, vendor)) {
            fmt::print("{} is not judged by such a processor\n", entry.path().filename().string());
            continue;
        }
        bool judged;
        EXPECT_EQ(check_case(h, g, vendor, false, judged), "") << entry.path();
    }
    EXPECT_GT(count, 0u);
}
} // namespace
} // namespace nestor::test
