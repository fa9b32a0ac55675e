// The probes. Each is a case with a known end (SDM 2, SDM 3A 6.15), run away from this process.
#include "tests/engine/cpu/oracle/abilities.hpp"

#include <cstdlib>
#include <cstring>

#include <fmt/format.h>

#include "src/base/check.hpp"

namespace nestor::test {

namespace {

constexpr const char* need_names[need_count] = {"code32",     "wild_stack",   "stack_fault",
                                                "page_fault", "vector_state", "instructions"};
constexpr u64 wild_rsp = 0x123456789abcdef0;

/// An instruction of a set, and what EAX must be behind it where it would not be #UD without the
/// set. RCX is 1, RBX the window, all else zero.
struct SetProbe {
    ZydisISASet set;
    std::vector<u8> code;
    bool only64 = false;
    int eax = -1;
};
const SetProbe set_probes[] = {
    {ZYDIS_ISA_SET_PENTIUMMMX, {0x0f, 0xfc, 0xc1}},
    {ZYDIS_ISA_SET_SSE, {0x0f, 0x58, 0xc1}},
    {ZYDIS_ISA_SET_SSE2, {0x66, 0x0f, 0x58, 0xc1}},
    {ZYDIS_ISA_SET_SSE2MMX, {0x0f, 0xd4, 0xc1}},
    {ZYDIS_ISA_SET_SSE3, {0xf2, 0x0f, 0x7c, 0xc1}},
    {ZYDIS_ISA_SET_SSSE3, {0x66, 0x0f, 0x38, 0x1c, 0xc1}},
    {ZYDIS_ISA_SET_SSSE3MMX, {0x0f, 0x38, 0x1c, 0xc1}},
    {ZYDIS_ISA_SET_SSE4, {0x66, 0x0f, 0x38, 0x10, 0xc1}},
    {ZYDIS_ISA_SET_SSE42, {0x66, 0x0f, 0x38, 0x37, 0xc1}},
    {ZYDIS_ISA_SET_AES, {0x66, 0x0f, 0x38, 0xdc, 0xc1}},
    {ZYDIS_ISA_SET_PCLMULQDQ, {0x66, 0x0f, 0x3a, 0x44, 0xc1, 0}},
    {ZYDIS_ISA_SET_SHA, {0x0f, 0x38, 0xc8, 0xc1}},
    {ZYDIS_ISA_SET_AVX, {0xc5, 0xf0, 0x58, 0xc1}},
    {ZYDIS_ISA_SET_AVXAES, {0xc4, 0xe2, 0x71, 0xdc, 0xc1}},
    {ZYDIS_ISA_SET_AVX2, {0xc5, 0xf5, 0xfe, 0xc1}},
    {ZYDIS_ISA_SET_AVX2GATHER, {0xc4, 0xe2, 0x69, 0x90, 0x04, 0x0b}}, // no element enabled
    {ZYDIS_ISA_SET_FMA, {0xc4, 0xe2, 0x71, 0x98, 0xc1}},
    {ZYDIS_ISA_SET_F16C, {0xc4, 0xe2, 0x79, 0x13, 0xc1}},
    {ZYDIS_ISA_SET_MOVBE, {0x0f, 0x38, 0xf0, 0x03}},
    {ZYDIS_ISA_SET_POPCNT, {0xf3, 0x0f, 0xb8, 0xc1}, false, 1},
    {ZYDIS_ISA_SET_LZCNT, {0xf3, 0x0f, 0xbd, 0xc1}, false, 31}, // BSR gives 0
    {ZYDIS_ISA_SET_BMI1, {0xc4, 0xe2, 0x70, 0xf2, 0xc1}},
    {ZYDIS_ISA_SET_BMI2, {0xc4, 0xe2, 0x71, 0xf7, 0xc1}},
    {ZYDIS_ISA_SET_ADOX_ADCX, {0x66, 0x0f, 0x38, 0xf6, 0xc1}},
    {ZYDIS_ISA_SET_CMPXCHG16B, {0x48, 0x0f, 0xc7, 0x0b}, true},
    {ZYDIS_ISA_SET_LAHF, {0x9f}},
    {ZYDIS_ISA_SET_XSAVE, {0x0f, 0xae, 0x23}}, // of no component
    {ZYDIS_ISA_SET_XSAVEC, {0x0f, 0xc7, 0x23}},
};

class Prober final {
public:
    Prober(Judge& judge, bool mode32) : judge_(judge), mode32_(mode32) {}

    Abilities all();

private:
    [[nodiscard]] Case plain(std::vector<u8> code) const {
        Case c;
        c.code = std::move(code);
        c.start.rip = code_address + 64;
        c.mode32 = mode32_;
        c.start.gpr[1] = 1;
        c.start.gpr[3] = c.start.gpr[4] = window_address;
        return c;
    }
    /// Ends on the int3 behind the code, with registers, flags and RSP as they went in.
    bool passes(const Case& c) {
        const Result r = judge_.try_out(c);
        return r.stopped && r.vector == 3 && r.end.rip == c.start.rip + c.code.size() &&
               compare(c, expected(c), r, 0).empty();
    }
    static Result expected(const Case& c) {
        Result r;
        r.end = c.start;
        r.end.rip += c.code.size();
        r.vector = 3;
        return r;
    }
    bool registers();
    bool code32();
    bool wild_stack();
    bool stack_fault();
    bool page_fault();
    bool vector_state();
    void instruction_sets(Abilities& a);
    Vendor vendor();

    Judge& judge_;
    bool mode32_;
};

bool Prober::registers() {
    Case c = plain({0x90});
    for (unsigned i = 0; i < 16; ++i) {
        c.start.gpr[i] = i == 4 ? window_address : 0x0101010111111111 * (i + 1);
    }
    c.start.rflags = 0x202 | arch::rflags::arithmetic | arch::rflags::df;
    return passes(c);
}

bool Prober::code32() {
    // INC EAX, which 64-bit code takes for a REX prefix.
    Case c = plain({0x40, 0x90});
    c.mode32 = true;
    const Result r = judge_.try_out(c);
    return r.stopped && r.vector == 3 && r.end.rip == c.start.rip + 2 && r.end.gpr[0] == 1;
}

bool Prober::wild_stack() {
    if (mode32_) {
        return true; // there is no such stack
    }
    Case c = plain({0x90});
    c.start.gpr[4] = wild_rsp;
    return passes(c);
}

bool Prober::stack_fault() {
    if (mode32_) {
        return true;
    }
    Case c = plain({0x50}); // PUSH RAX
    c.start.gpr[4] = wild_rsp;
    const Result r = judge_.try_out(c);
    return r.stopped && r.vector == 12 && r.error == 0 && r.end.rip == c.start.rip &&
           r.end.gpr[4] == wild_rsp;
}

bool Prober::page_fault() {
    struct Access {
        std::vector<u8> code;
        u64 address;
        u32 error; ///< SDM 3A 4.7
    };
    // MOV EAX, [RBX]; MOV [RBX], EAX; JMP RBX: of absent pages, and a write to a read-only one.
    const Access accesses[] = {{{0x8b, 0x03}, absent_address + 24, 4},
                               {{0x89, 0x03}, absent_address + 24, 6},
                               {{0x89, 0x03}, read_only_address + 8, 7},
                               {{0xff, 0xe3}, 0x9000, 0x14},
                               {{0x8b, 0x03}, absent_address - 2, 4}};
    for (const Access& access : accesses) {
        Case c = plain(access.code);
        c.start.gpr[3] = access.address;
        const Result r = judge_.try_out(c);
        const u64 address = access.address == absent_address - 2 ? absent_address : access.address;
        if (!r.stopped || r.vector != 14 || r.error != access.error || r.address != address) {
            return false;
        }
    }
    return true;
}

bool Prober::vector_state() {
    Case c = plain({0x90});
    c.vector = true;
    for (u64 i = 0; i < 64; ++i) {
        c.start.vector[i] = 0x0123456789abcdef * (2 * i + 1);
    }
    c.start.mxcsr = 0xdfa1;
    c.start.x87[0] = 0x7f;
    c.start.x87[1] = 0x0f;
    c.start.x87[3] = 0x28; // TOP 5
    c.start.x87[4] = 0xe3;
    for (unsigned i = 0; i < 80; ++i) {
        c.start.x87[32 + i / 10 * 16 + i % 10] = static_cast<u8>(i * 7 + 1);
    }
    if (mode32_) {
        std::memset(&c.start.vector[32], 0, 256);
    }
    return passes(c);
}

void Prober::instruction_sets(Abilities& a) {
    for (const SetProbe& probe : set_probes) {
        if (probe.only64 && mode32_) {
            continue;
        }
        Case c = plain(probe.code);
        c.vector = a.can(Need::vector_state);
        c.start.x87[0] = 0x7f;
        c.start.x87[1] = 0x03;
        const Result r = judge_.try_out(c);
        a.without[probe.set] = !r.stopped || r.vector != 3 ||
                               (probe.eax >= 0 && r.end.gpr[0] != static_cast<u64>(probe.eax));
    }
}

Vendor Prober::vendor() {
    if (mode32_) {
        return Vendor::qemu;
    }
    // By what it does, which a hypervisor does not rename: 0F 0D with a register operand is a NOP
    // on Intel (SDM 2B NOP), #UD on AMD (APM 3 PREFETCH).
    return judge_.try_out(plain({0x0f, 0x0d, 0xc0})).vector == 3 ? Vendor::intel : Vendor::amd;
}

Abilities Prober::all() {
    Abilities a;
    CHECK(registers(), {mode32_});
    const bool found[need_count] = {code32(),     wild_stack(),   stack_fault(),
                                    page_fault(), vector_state(), true};
    const char* denied = std::getenv("NESTOR_ORACLE_WITHOUT");
    for (unsigned i = 0; i < need_count; ++i) {
        const std::string list = denied == nullptr || mode32_ ? "" : denied;
        a.has[i] = found[i] &&
                   ("," + list + ",").find(fmt::format(",{},", need_names[i])) == std::string::npos;
    }
    instruction_sets(a);
    a.has[static_cast<unsigned>(Need::instructions)] = a.without.none();
    a.vendor = vendor();
    return a;
}

} // namespace

const char* need_name(Need need) { return need_names[static_cast<unsigned>(need)]; }

Abilities find_abilities(Judge& judge, bool mode32) { return Prober(judge, mode32).all(); }

std::string describe(const Abilities& a) {
    static constexpr const char* vendors[] = {"Intel's rules", "AMD's rules", "QEMU"};
    std::string s = vendors[static_cast<unsigned>(a.vendor)];
    for (unsigned i = 0; i < need_count; ++i) {
        if (!a.has[i]) {
            s += fmt::format("; without {}", need_names[i]);
        }
    }
    for (const SetProbe& probe : set_probes) {
        if (a.without[probe.set]) {
            s += fmt::format(" {}", ZydisISASetGetString(probe.set));
        }
    }
    return s;
}

} // namespace nestor::test
