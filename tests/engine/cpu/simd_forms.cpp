// The sweep behind simd_forms(), and making instances.
#include "tests/engine/cpu/simd_forms.hpp"

#include <map>

#include <fmt/format.h>

namespace nestor::test {

namespace {

bool offered(ZydisISASet set) {
    switch (set) {
    case ZYDIS_ISA_SET_PENTIUMMMX:
    case ZYDIS_ISA_SET_SSE:
    case ZYDIS_ISA_SET_SSE2:
    case ZYDIS_ISA_SET_SSE2MMX:
    case ZYDIS_ISA_SET_SSE3:
    case ZYDIS_ISA_SET_SSSE3:
    case ZYDIS_ISA_SET_SSSE3MMX:
    case ZYDIS_ISA_SET_SSE4:
    case ZYDIS_ISA_SET_SSE42:
    case ZYDIS_ISA_SET_AES:
    case ZYDIS_ISA_SET_PCLMULQDQ:
    case ZYDIS_ISA_SET_SHA:
    case ZYDIS_ISA_SET_AVX:
    case ZYDIS_ISA_SET_AVXAES:
    case ZYDIS_ISA_SET_AVX2:
    case ZYDIS_ISA_SET_AVX2GATHER:
    case ZYDIS_ISA_SET_FMA:
    case ZYDIS_ISA_SET_F16C:
        return true;
    default:
        return false;
    }
}

/// Those of the sets that are not SIMD.
bool excluded(ZydisMnemonic m) {
    switch (m) {
    case ZYDIS_MNEMONIC_CRC32:
    case ZYDIS_MNEMONIC_POPCNT:
    case ZYDIS_MNEMONIC_MOVNTI:
    case ZYDIS_MNEMONIC_LFENCE:
    case ZYDIS_MNEMONIC_MFENCE:
    case ZYDIS_MNEMONIC_SFENCE:
    case ZYDIS_MNEMONIC_PREFETCHNTA:
    case ZYDIS_MNEMONIC_PREFETCHT0:
    case ZYDIS_MNEMONIC_PREFETCHT1:
    case ZYDIS_MNEMONIC_PREFETCHT2:
    case ZYDIS_MNEMONIC_LDMXCSR:
    case ZYDIS_MNEMONIC_STMXCSR:
    case ZYDIS_MNEMONIC_VLDMXCSR:
    case ZYDIS_MNEMONIC_VSTMXCSR:
        return true;
    default:
        return false;
    }
}

/// The instruction with registers as given: reg and vvvv and rm below 16.
std::vector<u8> encode(const SimdForm& f, unsigned reg, unsigned vvvv, unsigned rm, unsigned mod,
                       const std::vector<u8>& tail) {
    std::vector<u8> code;
    const auto put = [&](unsigned b) { code.push_back(static_cast<u8>(b)); };
    if (f.extension >= 0) {
        reg = static_cast<unsigned>(f.extension);
    }
    if (f.vex) {
        put(0xc4);
        put((reg < 8 ? 0x80u : 0u) | 0x40 | (rm < 8 ? 0x20u : 0u) | f.map);
        put((f.w ? 0x80u : 0u) | (~vvvv & 15) << 3 | (f.l ? 4u : 0u) | f.prefix);
    } else {
        static constexpr u8 prefixes[] = {0, 0x66, 0xf3, 0xf2};
        if (f.prefix != 0) {
            put(prefixes[f.prefix]);
        }
        const unsigned rex = (f.w ? 8u : 0u) | (reg >= 8 ? 4u : 0u) | (rm >= 8 ? 1u : 0u);
        if (rex != 0) {
            put(0x40 | rex);
        }
        put(0x0f);
        if (f.map != 1) {
            put(f.map == 2 ? 0x38 : 0x3a);
        }
    }
    put(f.opcode);
    if (f.opcode == 0x77 && f.map == 1) {
        return code; // EMMS, VZEROx: no ModRM
    }
    put(mod << 6 | (reg & 7) << 3 | (rm & 7));
    code.insert(code.end(), tail.begin(), tail.end());
    return code;
}

bool decode(ZydisMachineMode mode, const std::vector<u8>& code, ZydisDecodedInstruction& insn,
            ZydisDecodedOperand* operands) {
    const bool wide = mode == ZYDIS_MACHINE_MODE_LONG_64;
    ZydisDecoder decoder;
    ZydisDecoderInit(&decoder, mode, wide ? ZYDIS_STACK_WIDTH_64 : ZYDIS_STACK_WIDTH_32);
    const auto result = ZydisDecoderDecodeFull(&decoder, code.data(), code.size(), &insn, operands);
    return ZYAN_SUCCESS(result) && insn.length == code.size();
}

/// Mnemonic and operand kinds, for telling forms apart.
std::string describe(const ZydisDecodedInstruction& insn, const ZydisDecodedOperand* operands) {
    std::string s = ZydisMnemonicGetString(insn.mnemonic);
    for (unsigned i = 0; i < insn.operand_count_visible; ++i) {
        s += i == 0 ? " " : ", ";
        const auto& o = operands[i];
        if (o.type == ZYDIS_OPERAND_TYPE_REGISTER) {
            s += fmt::format("r{}", ZydisRegisterClassGetWidth(ZYDIS_MACHINE_MODE_LONG_64,
                                                               ZydisRegisterGetClass(o.reg.value)));
        } else {
            s += o.type == ZYDIS_OPERAND_TYPE_MEMORY ? fmt::format("m{}", o.size) : "i";
        }
    }
    return s;
}

using Found = std::map<std::string, SimdForm>;

void take(const SimdForm& base, const std::vector<u8>& code, Found& found) {
    ZydisDecodedInstruction insn;
    ZydisDecodedOperand operands[ZYDIS_MAX_OPERAND_COUNT];
    if (!decode(ZYDIS_MACHINE_MODE_LONG_64, code, insn, operands) || !offered(insn.meta.isa_set) ||
        excluded(insn.mnemonic)) {
        return;
    }
    SimdForm f = base;
    f.mnemonic = insn.mnemonic;
    f.immediate = insn.raw.imm[0].size != 0;
    bool reg_used = false;
    for (unsigned i = 0; i < insn.operand_count; ++i) {
        const auto& o = operands[i];
        reg_used = reg_used || o.encoding == ZYDIS_OPERAND_ENCODING_MODRM_REG;
        f.uses_vvvv = f.uses_vvvv || o.encoding == ZYDIS_OPERAND_ENCODING_NDSNDD;
        f.vsib =
            f.vsib || (o.type == ZYDIS_OPERAND_TYPE_MEMORY && o.mem.type == ZYDIS_MEMOP_TYPE_VSIB);
        f.mmx = f.mmx || (o.type == ZYDIS_OPERAND_TYPE_REGISTER &&
                          ZydisRegisterGetClass(o.reg.value) == ZYDIS_REGCLASS_MMX);
    }
    if (!reg_used) {
        f.extension = insn.raw.modrm.reg;
    }
    ZydisDecodedInstruction insn32;
    ZydisDecodedOperand operands32[ZYDIS_MAX_OPERAND_COUNT];
    f.name = describe(insn, operands);
    f.in_32bit = (f.vex || !f.w) &&
                 decode(ZYDIS_MACHINE_MODE_LEGACY_32, code, insn32, operands32) &&
                 insn32.mnemonic == insn.mnemonic && describe(insn32, operands32) == f.name;
    f.name += fmt::format(" ({}{}{}{})", f.vex ? "vex" : "legacy", f.w ? " w" : "", f.l ? " l" : "",
                          reg_used ? "" : fmt::format(" /{}", f.extension));
    found.emplace(fmt::format("{} {} {} {:x}", f.name, f.map, f.prefix, f.opcode), f);
}

/// Tries one opcode in all operand kinds.
void sweep(SimdForm f, Found& found) {
    for (const bool memory : {false, true}) {
        f.memory = memory;
        for (unsigned reg = 0; reg < 8; ++reg) {
            for (const unsigned vvvv : {0u, 5u}) {
                if (vvvv != 0 && !f.vex) {
                    continue;
                }
                const unsigned rm = memory ? 3 : 1;
                const unsigned mod = memory ? 0 : 3;
                take(f, encode(f, reg, vvvv, rm, mod, {}), found);
                take(f, encode(f, reg, vvvv, rm, mod, {0x30}), found);
                if (memory && f.vex && f.map == 2) { // VSIB: [rbx + ymm6 * 2]
                    take(f, encode(f, reg, vvvv, 4, 0, {0x73}), found);
                }
            }
        }
    }
}

} // namespace

u64 SimdForm::seed() const {
    u64 h = 0xcbf29ce484222325;
    for (const char ch : name) {
        h = (h ^ static_cast<u8>(ch)) * 0x100000001b3;
    }
    return h ^ opcode;
}

std::vector<u8> SimdForm::instance(SplitMix& random, bool mode32) const {
    const unsigned registers = mode32 ? 8 : 16;
    const unsigned reg = random.below(mmx && !vex ? 8 : registers);
    const unsigned vvvv = uses_vvvv ? random.below(registers) : 0;
    const u8 imm = static_cast<u8>(random.below(2) != 0 ? random.next() : random.below(16));
    std::vector<u8> tail;
    unsigned rm;
    unsigned mod = 3;
    if (vsib) {
        rm = 4;
        mod = 0;
        tail = {static_cast<u8>(random.below(4) << 6 | random.below(8) << 3 | 3)};
    } else if (memory) {
        rm = 3;
        mod = random.below(2);
        if (random.below(4) == 0) {
            rm = 4;
            tail.push_back(0x33); // [rbx + rsi]
        }
        if (mod == 1) {
            tail.push_back(static_cast<u8>(random.below(2) * 0x10));
        }
    } else {
        rm = random.below(mmx ? 8 : registers);
    }
    if (immediate) {
        tail.push_back(mode32 ? imm & 0x7f : imm);
    }
    return encode(*this, reg, vvvv, rm, mod, tail);
}

const std::vector<SimdForm>& simd_forms() {
    static const std::vector<SimdForm> forms = [] {
        Found found;
        for (unsigned i = 0; i < 3 * 4 * 256 * 2 * 3; ++i) {
            SimdForm f;
            f.opcode = static_cast<u8>(i);
            f.map = static_cast<u8>(1 + (i >> 8) % 3);
            f.prefix = static_cast<u8>((i >> 8) / 3 % 4);
            f.w = (i >> 8) / 12 % 2 != 0;
            const unsigned encoding = (i >> 8) / 24; // legacy, VEX.128, VEX.256
            f.vex = encoding != 0;
            f.l = encoding == 2;
            if (!f.vex && f.map == 1 && (f.opcode == 0x38 || f.opcode == 0x3a)) {
                continue; // the escapes to the other maps
            }
            sweep(f, found);
        }
        std::vector<SimdForm> list;
        for (auto& [key, form] : found) {
            list.push_back(form);
        }
        return list;
    }();
    return forms;
}

} // namespace nestor::test
