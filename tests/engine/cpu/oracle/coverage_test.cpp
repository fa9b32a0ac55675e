// Every definition of the decoder in an offered instruction set executes or is listed with a
// reason.
//
// The opcode space is swept with the decoder, in every mode; what it accepts and the CPU model
// offers must be taken by an instruction group. Lengths are the decoder's own.
#include <map>
#include <set>
#include <string>

#include <gtest/gtest.h>

#include "engine/cpu/decode.hpp"
#include "engine/cpu/emit.hpp"
#include "engine/hypervisor/cpu_caps.hpp"

namespace nestor::test {
namespace {

using namespace nestor::cpu;

struct Sweep {
    ZydisDecoder decoder;
    Mode mode;
    const IsaMask offered =
        hv::silicon_features(hv::cpu_model_cpuid("nestor-v1", 0, 1).value()).isa;
    std::set<std::string> refused; ///< mnemonics offered and not executed
    std::set<ZydisMnemonic> executed;
    u64 instructions = 0;

    void one(const u8* bytes, unsigned size);
    void all();
};

void Sweep::one(const u8* bytes, unsigned size) {
    Decoded d;
    if (!ZYAN_SUCCESS(ZydisDecoderDecodeFull(&decoder, bytes, size, &d.insn, d.operands)) ||
        !offered[d.insn.meta.isa_set]) {
        return;
    }
    ++instructions;
    Op op{};
    op.len = d.insn.length;
    Emit e{d, mode, op};
    const bool taken = emit_integer(e) || emit_control(e) || emit_string(e) || emit_system(e) ||
                       emit_simd(e) || emit_xstate(e) || emit_x87(e);
    Op undefined{};
    Emit as_undefined{d, mode, undefined};
    emit_undefined(as_undefined);
    if (taken && op.fn != nullptr && op.fn != undefined.fn) {
        executed.insert(d.insn.mnemonic);
    } else {
        refused.insert(ZydisMnemonicGetString(d.insn.mnemonic));
    }
    EXPECT_EQ(op.len, d.insn.length);
}

void Sweep::all() {
    const u8 legacy[] = {0, 0x66, 0xf2, 0xf3};
    const u8 modrm_low[] = {0x03, 0x04, 0x45, 0x86, 0xc0, 0xc3, 0xc7};
    for (unsigned head = 0; head < 8; ++head) { // map 0 to 3, legacy; VEX maps 1 to 3
        for (unsigned opcode = 0; opcode < 256; ++opcode) {
            for (const u8 prefix : legacy) {
                for (unsigned bits = 0; bits < 4; ++bits) {
                    for (unsigned reg = 0; reg < 8; ++reg) {
                        for (const u8 low : modrm_low) {
                            u8 b[24] = {};
                            unsigned n = 0;
                            const u8 modrm = static_cast<u8>(low | reg << 3);
                            if (head < 4) {
                                if (prefix != 0) {
                                    b[n++] = prefix;
                                }
                                if (bits != 0 && mode.is64()) {
                                    b[n++] = static_cast<u8>(0x40 | (bits & 1) << 3 | bits >> 1);
                                }
                                if (head > 0) {
                                    b[n++] = 0x0f;
                                }
                                if (head > 1) {
                                    b[n++] = head == 2 ? 0x38 : 0x3a;
                                }
                            } else if (head < 7) {
                                const u8 pp = prefix == 0x66   ? 1
                                              : prefix == 0xf3 ? 2
                                              : prefix == 0xf2 ? 3
                                                               : 0;
                                b[n++] = 0xc4;
                                b[n++] = static_cast<u8>(0xe0 | (head - 3));
                                b[n++] =
                                    static_cast<u8>((bits & 1) << 7 | 0x78 | (bits & 2) << 1 | pp);
                            } else {
                                continue;
                            }
                            b[n++] = static_cast<u8>(opcode);
                            b[n++] = modrm;
                            one(b, sizeof b < 15 ? sizeof b : 15);
                        }
                    }
                }
            }
        }
    }
}

/// Offered, decoded, and deliberately #UD.
const std::map<std::string, std::string> listed = {
    {"ud0", "is #UD"},
    {"ud1", "is #UD"},
    {"ud2", "is #UD"},
    {"vmwrite", "is #UD outside protected mode, where the decoder refuses the rest of VMX itself"},
};

void sweep(Mode mode, ZydisMachineMode machine, ZydisStackWidth stack) {
    Sweep s;
    s.mode = mode;
    ZydisDecoderInit(&s.decoder, machine, stack);
    s.all();
    EXPECT_GT(s.instructions, 100'000u);
    for (const std::string& name : s.refused) {
        EXPECT_TRUE(listed.contains(name)) << name << " is offered and not executed";
    }
}

constexpr u32 flat = Mode::flat_code | Mode::flat_data;

TEST(Coverage, EveryOfferedInstructionOf64BitModeExecutes) {
    sweep(Mode{2u << Mode::code_shift | 2u << Mode::stack_shift | flat | Mode::long_mode},
          ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
}
TEST(Coverage, EveryOfferedInstructionOf32BitModeExecutes) {
    sweep(Mode{1u << Mode::code_shift | 1u << Mode::stack_shift | flat},
          ZYDIS_MACHINE_MODE_LEGACY_32, ZYDIS_STACK_WIDTH_32);
}
TEST(Coverage, EveryOfferedInstructionOfRealModeExecutes) {
    sweep(Mode{Mode::real}, ZYDIS_MACHINE_MODE_REAL_16, ZYDIS_STACK_WIDTH_16);
}

} // namespace
} // namespace nestor::test
