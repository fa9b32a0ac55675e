// What was left out because a judge cannot tell: one test for each ability that it may lack,
// skipped with the count and the reason when it does.
//
// In each program that uses a judge. GoogleTest runs parametrised tests last, so the counts are
// those of all other tests of the program.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include "tests/engine/cpu/oracle/abilities.hpp"
#include "tests/engine/cpu/oracle/qemu.hpp"

namespace nestor::test {
namespace {

struct Ability {
    JudgeKind kind;
    Need need;
    const char* missing;
};

class JudgeAbility : public testing::TestWithParam<Ability> {};

TEST_P(JudgeAbility, LeavesNoCaseOut) {
    const auto& [kind, need, missing] = GetParam();
    if (kind == JudgeKind::qemu && !QemuSide::present()) {
        GTEST_SKIP() << "qemu-i386 is not installed";
    }
    const Abilities& abilities = abilities_of(kind);
    const u64 count = left_out(kind, need);
    if (count != 0 && !abilities.can(need)) {
        GTEST_SKIP() << count
                     << (need == Need::page_fault ? " cases compared in part: "
                                                  : " cases left out: ")
                     << missing << " (" << describe(abilities) << ")";
    }
    EXPECT_EQ(count, 0u);
}

std::string ability_name(const testing::TestParamInfo<Ability>& info) {
    return need_name(info.param.need);
}

INSTANTIATE_TEST_SUITE_P(
    Host, JudgeAbility,
    testing::Values(
        Ability{JudgeKind::host, Need::code32, "this host has no 32-bit code; QEMU judges it"},
        Ability{JudgeKind::host, Need::wild_stack,
                "this host loses a trap with a non-canonical RSP"},
        Ability{JudgeKind::host, Need::stack_fault,
                "this host does not report #SS of a non-canonical RSP"},
        Ability{JudgeKind::host, Need::page_fault,
                "this host distorts error code or address of #PF"},
        Ability{JudgeKind::host, Need::vector_state,
                "this host does not pass x87, SSE and AVX state"},
        Ability{JudgeKind::host, Need::instructions, "this host lacks an instruction set"}),
    ability_name);
INSTANTIATE_TEST_SUITE_P(Qemu, JudgeAbility,
                         testing::Values(Ability{JudgeKind::qemu, Need::page_fault,
                                                 "QEMU distorts error code or address of #PF"},
                                         Ability{JudgeKind::qemu, Need::vector_state,
                                                 "QEMU does not pass x87, SSE and AVX state"},
                                         Ability{JudgeKind::qemu, Need::instructions,
                                                 "QEMU lacks an instruction set"}),
                         ability_name);

} // namespace
} // namespace nestor::test
