// Block formation is not observable: a sequence gives the same state whether Cpu runs it as blocks,
// with dead flags dropped and pairs fused, or stops after every instruction.
#include <algorithm>

#include <gtest/gtest.h>

#include "tests/engine/cpu/oracle/forms.hpp"
#include "tests/engine/cpu/oracle/integer_set.hpp"

namespace nestor::test {
namespace {

constexpr unsigned sequence_length = 8;

bool is_plain(const ZydisDecodedInstruction& insn, const ZydisDecodedOperand* operands) {
    return is_integer(insn, operands) && insn.meta.branch_type == ZYDIS_BRANCH_TYPE_NONE &&
           insn.mnemonic != ZYDIS_MNEMONIC_PAUSE;
}

/// Registers and memory operands of each instruction are those of the first state, so most of them
/// fault or compute on; all that matters is that both runs do the same.
Case sequence(const std::vector<Form>& forms, Random& random) {
    Case c;
    for (unsigned n = 0; n < sequence_length; ++n) {
        const Generated g = generate(forms[random() % forms.size()], random);
        if (!g.valid) {
            continue;
        }
        if (c.code.empty()) {
            c.start = g.c.start;
        }
        c.code.insert(c.code.end(), g.c.code.begin(), g.c.code.end());
        // Cmp-and-jump pairs, to be fused: over the next byte, which is never more than int3.
        if (random() % 3 == 0) {
            c.code.insert(c.code.end(), {0x48, 0x39, static_cast<u8>(0xc0 | (random() & 63)),
                                         static_cast<u8>(0x70 | (random() & 15)), 0});
        }
    }
    c.start.rip = code_address + 128 + random() % 3000;
    // What lies at a random address is not there: a sequence cannot run away.
    return c;
}

TEST(Blocks, ASequenceEndsTheSameWholeAndStepByStep) {
    std::vector<Form> forms = enumerate_forms(false, is_plain);
    Harness h;
    Random random(42);
    unsigned reached_end = 0;
    for (unsigned i = 0; i < 60'000; ++i) {
        const Case c = sequence(forms, random);
        if (c.code.empty() || c.code.size() > 120) {
            continue;
        }
        h.reset_guest_memory();
        Result whole = h.run_guest(c);
        h.reset_guest_memory();
        Result steps = h.run_guest_stepwise(c);
        // RF says that a repeated instruction was interrupted, which steps do.
        whole.end.rflags &= ~arch::rflags::rf;
        steps.end.rflags &= ~arch::rflags::rf;
        reached_end += whole.vector == 3 ? 1 : 0;
        ASSERT_TRUE(whole.end == steps.end && whole.vector == steps.vector &&
                    whole.error == steps.error)
            << "the first is step by step, the second whole\n"
            << report(c, steps, whole, "");
    }
    EXPECT_GT(reached_end, 2'000u);
}

} // namespace
} // namespace nestor::test
