// Instructions whose memory is a device end as they do on RAM, and ask it once.
//
// Every form with a memory operand runs on RAM, which the host processor judges elsewhere, and on
// the same bytes answered from outside: both pages, or either, so that an operand may lie half in
// RAM. Registers, memory and faults must be the same. A device has effects that cannot be taken
// back, so what an instruction asks is no more than its operands, and one that faults has asked for
// nothing, unless the fault is in the value that it read.
#include <map>
#include <set>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "engine/hypervisor/cpu_caps.hpp"
#include "tests/engine/cpu/oracle/forms.hpp"
#include "tests/engine/cpu/oracle/guest.hpp"

namespace nestor::test {
namespace {

using Device = GuestSide::Device;

bool is_offered(const ZydisDecodedInstruction& insn) {
    static const cpu::IsaMask isa =
        hv::silicon_features(hv::cpu_model_cpuid("nestor-v1", 0, 1).value()).isa;
    return isa[insn.meta.isa_set];
}

bool has_memory(const ZydisDecodedInstruction& insn, const ZydisDecodedOperand* operands) {
    bool found = false;
    for (unsigned i = 0; i < insn.operand_count; ++i) {
        const auto& o = operands[i];
        if (o.type == ZYDIS_OPERAND_TYPE_MEMORY && o.mem.type == ZYDIS_MEMOP_TYPE_VSIB) {
            return false; // gathers have a test of their own
        }
        found |= o.type == ZYDIS_OPERAND_TYPE_MEMORY && o.mem.type == ZYDIS_MEMOP_TYPE_MEM;
    }
    return found && is_offered(insn);
}

/// Far transfers and what a user program may not run ask descriptor tables too.
bool is_wanted(const ZydisDecodedInstruction& insn, const ZydisDecodedOperand* operands) {
    return has_memory(insn, operands) && insn.meta.branch_type != ZYDIS_BRANCH_TYPE_FAR &&
           (insn.attributes & ZYDIS_ATTRIB_IS_PRIVILEGED) == 0 &&
           insn.meta.category != ZYDIS_CATEGORY_IO &&
           insn.meta.category != ZYDIS_CATEGORY_IOSTRINGOP &&
           insn.meta.category != ZYDIS_CATEGORY_SEGOP &&
           insn.mnemonic != ZYDIS_MNEMONIC_ENTER; // pushes one by one, as processors do
}

bool repeats(const Generated& g) {
    return (g.insn.attributes &
            (ZYDIS_ATTRIB_HAS_REP | ZYDIS_ATTRIB_HAS_REPE | ZYDIS_ATTRIB_HAS_REPNE)) != 0 &&
           g.insn.meta.category == ZYDIS_CATEGORY_STRINGOP;
}

/// Bytes that the operands read, or write, by an instruction (an iteration) that is complete.
u64 operand_bytes(const Generated& g, bool write) {
    constexpr auto reads = ZYDIS_OPERAND_ACTION_MASK_READ;
    constexpr auto writes = ZYDIS_OPERAND_ACTION_MASK_WRITE;
    u64 bytes = 0;
    for (unsigned i = 0; i < g.insn.operand_count; ++i) {
        const auto& o = g.operands[i];
        if (o.type == ZYDIS_OPERAND_TYPE_MEMORY && (o.actions & (write ? writes : reads)) != 0) {
            bytes += o.size / 8u;
        }
    }
    return bytes;
}

/// CALL checks its target before it pushes, which for a target read from a device comes too late:
/// the push is what could stop it.
bool faults_otherwise(const Generated& g, const Result& want, const Result& got) {
    return g.insn.mnemonic == ZYDIS_MNEMONIC_CALL && want.vector == 13 &&
           (got.vector == 14 || got.vector == 12);
}

/// The fault lies in what was read, so that it could not be known before.
bool faults_by_value(const Generated& g, const Result& end) {
    switch (end.vector) {
    case 0:  // #DE
    case 5:  // #BR
    case 16: // #MF
    case 19: // #XM
        return true;
    default:
        break;
    }
    switch (g.insn.mnemonic) {
    case ZYDIS_MNEMONIC_IRET: // the target and its segments are checked
    case ZYDIS_MNEMONIC_IRETD:
    case ZYDIS_MNEMONIC_IRETQ:
    case ZYDIS_MNEMONIC_MOV: // a segment register
    case ZYDIS_MNEMONIC_POP:
    case ZYDIS_MNEMONIC_CALL: // the target is checked
    case ZYDIS_MNEMONIC_JMP:
    case ZYDIS_MNEMONIC_RET:
    case ZYDIS_MNEMONIC_LDMXCSR: // reserved bits
    case ZYDIS_MNEMONIC_VLDMXCSR:
    case ZYDIS_MNEMONIC_FXRSTOR:
    case ZYDIS_MNEMONIC_FXRSTOR64:
    case ZYDIS_MNEMONIC_XRSTOR:
    case ZYDIS_MNEMONIC_XRSTOR64:
        return end.vector >= 11 && end.vector <= 13;
    default:
        return false;
    }
}

class Outside {
public:
    /// What is wrong, or nothing.
    std::string check(const Generated& g, Device device);

private:
    static std::string asked_too_much(const Generated& g, const Result& end,
                                      const std::vector<GuestSide::Asked>& asked);
    GuestSide& side(Device device) { return sides_[static_cast<std::size_t>(device)]; }

    std::array<GuestSide, 4> sides_{GuestSide(Device::none), GuestSide(Device::first),
                                    GuestSide(Device::second), GuestSide(Device::both)};
};

std::string Outside::asked_too_much(const Generated& g, const Result& end,
                                    const std::vector<GuestSide::Asked>& asked) {
    u64 bytes[2] = {};
    for (const auto& a : asked) {
        bytes[a.write ? 1 : 0] += a.size;
    }
    // Behind a transfer it may be the next instruction that faults.
    const bool faulted = end.vector != 3 && end.end.rip == g.c.start.rip;
    u64 times = 1;
    if (repeats(g)) {
        const u64 mask = g.insn.address_width == 64 ? ~u64{0} : 0xffffffff;
        times = (g.c.start.gpr[1] - end.end.gpr[1]) & mask;
    } else if (faulted) {
        times = 0;
        if (bytes[0] != 0 && bytes[1] == 0 && faults_by_value(g, end)) {
            return {};
        }
    }
    for (const bool write : {false, true}) {
        if (bytes[write ? 1 : 0] > times * operand_bytes(g, write)) {
            return fmt::format("  {} bytes {}, the operands have {}\n", bytes[write ? 1 : 0],
                               write ? "written" : "read", times * operand_bytes(g, write));
        }
    }
    return {};
}

std::string Outside::check(const Generated& g, Device device) {
    static const std::vector<u8> pattern(0x3000, 0x5a);
    side(Device::none).reset(pattern.data());
    side(device).reset(pattern.data());
    const Result want = side(Device::none).run(g.c, false);
    const Result got = side(device).run(g.c, false);
    if (faults_otherwise(g, want, got)) {
        return asked_too_much(g, got, side(device).asked());
    }
    std::string d;
    const auto differs = [&](bool different, const char* what) {
        d += different ? fmt::format("  {}\n", what) : "";
    };
    differs(want.vector != got.vector || want.error != got.error, "vector or error code");
    differs(want.vector == 14 && want.address != got.address, "fault address");
    differs(!(want.end == got.end), "registers or memory");
    differs(std::memcmp(side(Device::none).data(), side(device).data(), 0x3000) != 0,
            "memory outside the window");
    d += asked_too_much(g, got, side(device).asked());
    return d.empty() ? d : d + report(g.c, want, got, "  the first is on RAM\n");
}

void try_all(bool mode32, u64 cases) {
    const u64 seed = seed_wanted();
    const std::vector<Form> forms = enumerate_forms(mode32, is_wanted);
    ASSERT_GT(forms.size(), 500U);
    Outside outside;
    const u64 per_form = cases / forms.size() + 1;
    std::map<ZydisMnemonic, u64> failed;
    u64 tried = 0;
    for (std::size_t i = 0; i < forms.size(); ++i) {
        Random random(seed * 7919 + i);
        u64 valid = 0;
        for (u64 k = 0; k < 4 * per_form && valid < per_form; ++k) {
            Generated g = generate(forms[i], random);
            if (!g.valid) {
                continue;
            }
            g.c.vector = true; // with its registers as they come
            for (u64& word : g.c.start.vector) {
                word = special(random);
            }
            const auto device = static_cast<Device>(1 + valid % 3);
            ++valid;
            const std::string problem = outside.check(g, device);
            if (!problem.empty() && failed[forms[i].mnemonic]++ < 1 && failed.size() < 8) {
                ADD_FAILURE() << ZydisMnemonicGetString(forms[i].mnemonic) << "\n" << problem;
            }
        }
        tried += valid;
    }
    for (const auto& [mnemonic, count] : failed) {
        fmt::print("{}: {} failing cases\n", ZydisMnemonicGetString(mnemonic), count);
    }
    EXPECT_GE(tried, cases / 10 * 8);
    fmt::print("{} forms, {} cases, seed {}\n", forms.size(), tried, seed);
}

TEST(Outside, FormsOf64BitModeEndAsOnRamAndAskOnce) { try_all(false, cases_wanted(60'000)); }
TEST(Outside, FormsOf32BitModeEndAsOnRamAndAskOnce) { try_all(true, cases_wanted(30'000)); }

} // namespace
} // namespace nestor::test
