// Instructions that exit in VMX non-root operation: reason, qualification, length, information; and
// that they do not exit with the control off (SDM 3C 26.1).
#include <string>

#include "tests/engine/cpu/vmx_fixture.hpp"

namespace nestor::cpu {

using namespace arch;

namespace {

struct Intercept {
    const char* name;
    std::vector<u8> bytes;
    u32 proc;  ///< primary control that makes it exit; with `proc2` 0: none does, it always exits
    u32 proc2; ///< secondary controls
    ExitReason reason;
    u64 qualification = 0;
    u32 info = 0;
    u32 also2 = 0; ///< secondary controls that the instruction needs to exist
};

void PrintTo(const Intercept& i, std::ostream* out) { *out << i.name; }

// [RAX] in 64-bit mode: 64-bit addresses, DS, no index, base RAX.
constexpr u32 rax_memory = 2u << 7 | 3u << 15 | 1u << 22;
constexpr u32 rcx_memory = rax_memory | 1u << 23;

const Intercept intercepts[] = {
    {"Hlt", {0xf4}, proc_control::hlt_exiting, 0, ExitReason::hlt},
    {"Invlpg", {0x0f, 0x01, 0x38}, proc_control::invlpg_exiting, 0, ExitReason::invlpg, 0x20000},
    {"Mwait", {0x0f, 0x01, 0xc9}, proc_control::mwait_exiting, 0, ExitReason::mwait},
    {"Rdpmc", {0x0f, 0x33}, proc_control::rdpmc_exiting, 0, ExitReason::rdpmc},
    {"Rdtsc", {0x0f, 0x31}, proc_control::rdtsc_exiting, 0, ExitReason::rdtsc},
    {"Rdtscp",
     {0x0f, 0x01, 0xf9},
     proc_control::rdtsc_exiting,
     0,
     ExitReason::rdtscp,
     0,
     0,
     proc2_control::enable_rdtscp},
    {"MovFromCr3",
     {0x0f, 0x20, 0xd8},
     proc_control::cr3_store_exiting,
     0,
     ExitReason::cr_access,
     0x13},
    {"MovToCr3",
     {0x0f, 0x22, 0xd9},
     proc_control::cr3_load_exiting,
     0,
     ExitReason::cr_access,
     0x103},
    {"MovToCr8",
     {0x44, 0x0f, 0x22, 0xc2},
     proc_control::cr8_load_exiting,
     0,
     ExitReason::cr_access,
     0x208},
    {"MovFromCr8",
     {0x44, 0x0f, 0x20, 0xc0},
     proc_control::cr8_store_exiting,
     0,
     ExitReason::cr_access,
     0x18},
    {"MovToDr2", {0x0f, 0x23, 0xd3}, proc_control::mov_dr_exiting, 0, ExitReason::mov_dr, 0x302},
    {"MovFromDr7", {0x0f, 0x21, 0xf8}, proc_control::mov_dr_exiting, 0, ExitReason::mov_dr, 0x17},
    {"Monitor", {0x0f, 0x01, 0xc8}, proc_control::monitor_exiting, 0, ExitReason::monitor},
    {"Pause", {0xf3, 0x90}, proc_control::pause_exiting, 0, ExitReason::pause},
    {"Wbinvd", {0x0f, 0x09}, 0, proc2_control::wbinvd_exiting, ExitReason::wbinvd},
    {"Rdrand",
     {0x0f, 0xc7, 0xf3},
     0,
     proc2_control::rdrand_exiting,
     ExitReason::rdrand,
     0,
     3u << 3 | 1u << 11},
    {"Rdseed",
     {0x48, 0x0f, 0xc7, 0xff},
     0,
     proc2_control::rdseed_exiting,
     ExitReason::rdseed,
     0,
     7u << 3 | 2u << 11},
    {"Sgdt",
     {0x0f, 0x01, 0x00},
     0,
     proc2_control::descriptor_table_exiting,
     ExitReason::gdtr_idtr_access,
     0,
     rax_memory},
    {"Lidt",
     {0x0f, 0x01, 0x58, 0x08},
     0,
     proc2_control::descriptor_table_exiting,
     ExitReason::gdtr_idtr_access,
     8,
     rax_memory | 3u << 28},
    {"Sldt",
     {0x0f, 0x00, 0xc2},
     0,
     proc2_control::descriptor_table_exiting,
     ExitReason::ldtr_tr_access,
     0,
     1u << 10 | 2u << 3},
    {"Str",
     {0x0f, 0x00, 0xc9},
     0,
     proc2_control::descriptor_table_exiting,
     ExitReason::ldtr_tr_access,
     0,
     1u << 10 | 1u << 3 | 1u << 28},
    {"Invpcid",
     {0x66, 0x0f, 0x38, 0x82, 0x11},
     proc_control::invlpg_exiting,
     0,
     ExitReason::invpcid,
     0,
     rcx_memory | 2u << 28,
     proc2_control::enable_invpcid},
};

const Intercept always[] = {
    {"Cpuid", {0x0f, 0xa2}, 0, 0, ExitReason::cpuid},
    {"Invd", {0x0f, 0x08}, 0, 0, ExitReason::invd},
    {"Vmcall", {0x0f, 0x01, 0xc1}, 0, 0, ExitReason::vmcall},
    {"Vmlaunch", {0x0f, 0x01, 0xc2}, 0, 0, ExitReason::vmlaunch},
    {"Vmresume", {0x0f, 0x01, 0xc3}, 0, 0, ExitReason::vmresume},
    {"Vmxoff", {0x0f, 0x01, 0xc4}, 0, 0, ExitReason::vmxoff},
    {"Vmclear", {0x66, 0x0f, 0xc7, 0x30}, 0, 0, ExitReason::vmclear, 0, rax_memory},
    {"Vmptrld", {0x0f, 0xc7, 0x70, 0x10}, 0, 0, ExitReason::vmptrld, 0x10, rax_memory},
    {"Vmptrst", {0x0f, 0xc7, 0x38}, 0, 0, ExitReason::vmptrst, 0, rax_memory},
    {"Vmxon", {0xf3, 0x0f, 0xc7, 0x30}, 0, 0, ExitReason::vmxon, 0, rax_memory},
    {"Vmread", {0x0f, 0x78, 0xd1}, 0, 0, ExitReason::vmread, 0, 1u << 10 | 1u << 3 | 2u << 28},
    {"VmreadMemory", {0x0f, 0x78, 0x11}, 0, 0, ExitReason::vmread, 0, rcx_memory | 2u << 28},
    {"Vmwrite", {0x0f, 0x79, 0xd1}, 0, 0, ExitReason::vmwrite, 0, 1u << 10 | 1u << 3 | 2u << 28},
    {"Invept", {0x66, 0x0f, 0x38, 0x80, 0x11}, 0, 0, ExitReason::invept, 0, rcx_memory | 2u << 28},
    {"Invvpid",
     {0x66, 0x0f, 0x38, 0x81, 0x11},
     0,
     0,
     ExitReason::invvpid,
     0,
     rcx_memory | 2u << 28},
    {"Rdmsr", {0x0f, 0x32}, 0, 0, ExitReason::rdmsr},
    {"Wrmsr", {0x0f, 0x30}, 0, 0, ExitReason::wrmsr},
};

class Intercepts : public VmxTest, public ::testing::WithParamInterface<Intercept> {
protected:
    void run_case(bool control) {
        const Intercept& i = GetParam();
        proc2(i.also2);
        if (control) {
            proc(i.proc);
            if (i.proc2 != 0) {
                proc2(i.proc2);
            }
        }
        cpu.s.gpr[0] = data;
        cpu.s.gpr[1] = tables; // a good CR3; too large for an MSR of the bitmap
        cpu.s.gpr[2] = 0;
        enter();
        for (std::size_t n = 0; n < i.bytes.size(); ++n) {
            write(code + n, i.bytes[n]);
        }
        stop = cpu.run(0, 1);
    }
    void expect_its_exit() {
        const Intercept& i = GetParam();
        expect_exit(i.reason, i.qualification);
        EXPECT_EQ(cpu.exit.instruction_length, i.bytes.size());
        EXPECT_EQ(cpu.exit.instruction_info, i.info);
        EXPECT_FALSE(cpu.exit.assist);
    }
};
class Conditional : public Intercepts {};
class Unconditional : public Intercepts {};

std::string name_of(const ::testing::TestParamInfo<Intercept>& info) { return info.param.name; }

} // namespace

TEST_P(Conditional, ExitsWithTheControlOn) {
    run_case(true);
    expect_its_exit();
    EXPECT_EQ(cpu.s.rip, code);
    EXPECT_EQ(cpu.retired_in_run(), 0u);
}

TEST_P(Conditional, DoesNotExitWithTheControlOff) {
    run_case(false);
    EXPECT_TRUE(stop != Cpu::Stop::exit || cpu.exit.assist) << arch::name_of(cpu.exit.reason);
}

INSTANTIATE_TEST_SUITE_P(Vmx, Conditional, ::testing::ValuesIn(intercepts), name_of);

TEST_P(Unconditional, ExitsWhateverTheControls) {
    run_case(false);
    expect_its_exit();
}

INSTANTIATE_TEST_SUITE_P(Vmx, Unconditional, ::testing::ValuesIn(always), name_of);

} // namespace nestor::cpu
