// Enumerates the opcode space with the decoder and builds random cases.
#include "tests/engine/cpu/oracle/forms.hpp"

#include <cstring>
#include <span>

namespace nestor::test {

namespace {

/// The legacy prefixes, REX or VEX, escape bytes and opcode of a form.
struct Registers {
    u8 rex_rxb = 0; ///< REX.R, X, B
    u8 vvvv = 0;
    bool rex = false; ///< a REX prefix even when it says nothing (SPL instead of AH)
};

void put_head(std::vector<u8>& out, const Form& f, const Registers& r) {
    if (f.lock) {
        out.push_back(0xf0);
    }
    if (f.address_size) {
        out.push_back(0x67);
    }
    if (f.vex) {
        const u8 pp = f.legacy == 0x66 ? 1 : f.legacy == 0xf3 ? 2 : f.legacy == 0xf2 ? 3 : 0;
        out.push_back(0xc4);
        out.push_back(static_cast<u8>(((~r.rex_rxb & 7) << 5) | f.map));
        out.push_back(
            static_cast<u8>((f.rex_w ? 0x80 : 0) | ((~r.vvvv & 15) << 3) | (f.vex_l ? 4 : 0) | pp));
        out.push_back(f.opcode);
        return;
    }
    if (f.extra66) {
        out.push_back(0x66);
    }
    if (f.legacy != 0) {
        out.push_back(f.legacy);
    }
    if (!f.mode32 && (f.rex_w || r.rex_rxb != 0 || r.rex)) {
        out.push_back(static_cast<u8>(0x40 | (f.rex_w ? 8 : 0) | r.rex_rxb));
    }
    if (f.map >= 1) {
        out.push_back(0x0f);
    }
    if (f.map == 2) {
        out.push_back(0x38);
    } else if (f.map == 3) {
        out.push_back(0x3a);
    }
    out.push_back(f.opcode);
}

struct Decoders {
    ZydisDecoder decoder[2];
    Decoders() {
        ZydisDecoderInit(&decoder[0], ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
        ZydisDecoderInit(&decoder[1], ZYDIS_MACHINE_MODE_LEGACY_32, ZYDIS_STACK_WIDTH_32);
    }
};
const Decoders decoders;

bool decode(bool mode32, std::span<const u8> bytes, ZydisDecodedInstruction& insn,
            ZydisDecodedOperand* operands) {
    return ZYAN_SUCCESS(ZydisDecoderDecodeFull(&decoders.decoder[mode32 ? 1 : 0], bytes.data(),
                                               bytes.size(), &insn, operands));
}

/// Adds the form for one opcode, or several when ModRM.reg selects among instructions.
void probe(std::vector<Form>& out, Form f, const Wanted& wanted) {
    ZydisDecodedOperand operands[ZYDIS_MAX_OPERAND_COUNT];
    for (unsigned shape = 0; shape < 2; ++shape) {
        std::vector<Form> found;
        for (u8 reg = 0; reg < 8; ++reg) {
            std::vector<u8> bytes;
            put_head(bytes, f, {});
            bytes.push_back(static_cast<u8>((shape == 0 ? 0xc0 : 0) | reg << 3 | 3));
            bytes.resize(bytes.size() + 10);
            if (!decode(f.mode32, bytes, f.insn, operands) || !wanted(f.insn, operands)) {
                continue;
            }
            f.has_modrm = (f.insn.attributes & ZYDIS_ATTRIB_HAS_MODRM) != 0;
            f.memory = shape == 1;
            f.mnemonic = f.insn.mnemonic;
            f.memory_bytes = 0;
            for (unsigned i = 0; i < f.insn.operand_count; ++i) {
                if (operands[i].type == ZYDIS_OPERAND_TYPE_MEMORY) {
                    f.memory_bytes = operands[i].size / 8u;
                }
            }
            f.immediate_bytes = (f.insn.raw.imm[0].size + f.insn.raw.imm[1].size) / 8u;
            if (!f.has_modrm && f.insn.raw.disp.size != 0) {
                f.immediate_bytes = f.insn.raw.disp.size / 8u; // MOV with an absolute offset
            }
            bool known = false;
            for (Form& g : found) {
                if (g.mnemonic == f.mnemonic && g.immediate_bytes == f.immediate_bytes) {
                    g.reg_fields.push_back(reg);
                    known = true;
                }
            }
            if (!known) {
                found.push_back(f);
                found.back().reg_fields = {reg};
            }
        }
        out.insert(out.end(), found.begin(), found.end());
        if (!found.empty() && !found[0].has_modrm) {
            return;
        }
    }
}

bool is_prefix(u8 b, bool mode32) {
    switch (b) {
    case 0x0f:
    case 0x26:
    case 0x2e:
    case 0x36:
    case 0x3e:
    case 0x64:
    case 0x65:
    case 0x66:
    case 0x67:
    case 0xf0:
    case 0xf2:
    case 0xf3:
    case 0xc4:
    case 0xc5:
    case 0x62:
        return true;
    default:
        return !mode32 && (b & 0xf0) == 0x40;
    }
}

u64 pick(Random& random, u64 n) { return random() % n; }

/// An address of `size` bytes: mostly in the window.
u64 target_address(Random& random, unsigned size) {
    switch (pick(random, 32)) {
    case 0:
        return read_only_address - size / 2 - pick(random, 4);
    case 1:
        return absent_address - pick(random, 2 * size + 1);
    case 2:
        return data_address - pick(random, 2 * size + 1);
    case 3:
        return pick(random, 2) == 0 ? pick(random, 0xf000) : u64{0x800000000000} + (random() >> 20);
    case 4: // across the boundary
        return data_address + 4096 - pick(random, size + 1);
    default:
        return window_address + 32 + (pick(random, window_size - 64 - 2 * size) & ~u64{7});
    }
}

} // namespace

u64 special(Random& random) {
    static constexpr u64 values[] = {0,
                                     1,
                                     2,
                                     3,
                                     7,
                                     8,
                                     0xf,
                                     0x10,
                                     0x1f,
                                     0x20,
                                     0x3f,
                                     0x40,
                                     0x7f,
                                     0x80,
                                     0xff,
                                     0x100,
                                     0x7fff,
                                     0x8000,
                                     0xffff,
                                     0x10000,
                                     0x7fffffff,
                                     0x80000000,
                                     0xffffffff,
                                     0x100000000,
                                     0x7fffffffffffffff,
                                     0x8000000000000000,
                                     0xffffffffffffffff,
                                     0xfffffffffffffffe,
                                     0xffffffff80000000,
                                     0xffffffffffff8000,
                                     0xffffffffffffff80,
                                     0x0000800000000000,
                                     0x5555555555555555,
                                     0xaaaaaaaaaaaaaaaa};
    switch (random() % 4) {
    case 0:
        return values[random() % std::size(values)];
    case 1:
        return u64{1} << (random() % 64);
    case 2:
        return random() >> (random() % 64);
    default:
        return random();
    }
}

std::vector<Form> enumerate_forms(bool mode32, const Wanted& wanted) {
    std::vector<Form> forms;
    constexpr u8 legacy[] = {0, 0x66, 0xf2, 0xf3};
    for (u8 map = 0; map < 4; ++map) {
        for (unsigned opcode = 0; opcode < 256; ++opcode) {
            if (map == 0 && is_prefix(static_cast<u8>(opcode), mode32)) {
                continue;
            }
            for (const u8 prefix : legacy) {
                for (unsigned bits = 0; bits < 16; ++bits) {
                    Form f;
                    f.mode32 = mode32;
                    f.map = map;
                    f.opcode = static_cast<u8>(opcode);
                    f.legacy = prefix;
                    f.rex_w = (bits & 1) != 0;
                    f.address_size = (bits & 2) != 0;
                    f.lock = (bits & 4) != 0;
                    f.extra66 = (bits & 8) != 0;
                    if ((f.rex_w && mode32) || (f.address_size && mode32) ||
                        (f.extra66 && prefix != 0xf2 && prefix != 0xf3) ||
                        (f.lock && (f.address_size || f.extra66))) {
                        continue;
                    }
                    probe(forms, f, wanted);
                }
                for (unsigned bits = 0; bits < 4 && map != 0; ++bits) {
                    Form f;
                    f.mode32 = mode32;
                    f.vex = true;
                    f.map = map;
                    f.opcode = static_cast<u8>(opcode);
                    f.legacy = prefix;
                    f.rex_w = (bits & 1) != 0;
                    f.vex_l = (bits & 2) != 0;
                    probe(forms, f, wanted);
                }
            }
        }
    }
    return forms;
}

namespace {

/// ModRM, SIB and displacement of a memory operand, and the registers that make its address.
/// Returns the target of a RIP-relative operand, whose displacement the caller fills in, or 0.
u64 put_memory(std::vector<u8>& out, Case& c, u8 reg, Registers& r, const Form& f, unsigned size,
               Random& random) {
    const u64 target = target_address(random, size == 0 ? 1 : size);
    const u64 shape = pick(random, f.mode32 ? 4 : 5);
    if (shape == 4) {
        out.push_back(static_cast<u8>(reg << 3 | 5));
        out.resize(out.size() + 4);
        return target;
    }
    const unsigned base = static_cast<unsigned>((r.rex_rxb & 1) * 8 + pick(random, 8));
    const u8 low = base & 7;
    if (shape == 0) {
        r.rex_rxb &= 5;
        out.push_back(static_cast<u8>(reg << 3 | 4));
        out.push_back(0x25);
        const u32 disp = static_cast<u32>(target);
        out.insert(out.end(), {static_cast<u8>(disp), static_cast<u8>(disp >> 8),
                               static_cast<u8>(disp >> 16), static_cast<u8>(disp >> 24)});
        return 0;
    }
    const i32 disp = shape == 1 ? static_cast<i8>(random()) : static_cast<i32>(random() % 4096);
    const bool with_index = pick(random, 2) == 0;
    unsigned index = static_cast<unsigned>((r.rex_rxb >> 1 & 1) * 8 + pick(random, 8));
    const unsigned scale = static_cast<unsigned>(pick(random, 4));
    const u8 mod = shape == 1 ? 0x40 : 0x80;
    u64 rest = target - static_cast<u64>(i64{disp});
    if (with_index || low == 4) {
        if (!with_index) {
            index = 4;
            r.rex_rxb &= 5;
        }
        out.push_back(static_cast<u8>(mod | reg << 3 | 4));
        out.push_back(static_cast<u8>(scale << 6 | (index & 7) << 3 | low));
        if (index != 4) {
            if (index == base) {
                const u64 both = rest / (1 + (u64{1} << scale));
                c.start.gpr[base] = both;
            } else {
                c.start.gpr[index] = pick(random, 8);
                c.start.gpr[base] = rest - (c.start.gpr[index] << scale);
            }
        } else {
            c.start.gpr[base] = rest;
        }
    } else {
        out.push_back(static_cast<u8>(mod | reg << 3 | low));
        c.start.gpr[base] = rest;
    }
    if (f.mode32) {
        c.start.gpr[base] = static_cast<u32>(c.start.gpr[base]);
    }
    out.push_back(static_cast<u8>(disp));
    if (shape != 1) {
        out.insert(out.end(), {static_cast<u8>(disp >> 8), static_cast<u8>(disp >> 16),
                               static_cast<u8>(disp >> 24)});
    }
    return 0;
}

/// Registers that a string instruction or a stack instruction uses without naming them.
void set_implicit(Case& c, const Form& f, Random& random) {
    const u64 attributes = f.insn.attributes;
    if (f.insn.meta.category == ZYDIS_CATEGORY_STRINGOP) {
        c.start.gpr[6] = target_address(random, 8);
        c.start.gpr[7] =
            pick(random, 4) == 0 ? c.start.gpr[6] + pick(random, 9) : target_address(random, 8);
        if ((attributes &
             (ZYDIS_ATTRIB_HAS_REP | ZYDIS_ATTRIB_HAS_REPE | ZYDIS_ATTRIB_HAS_REPNE)) != 0) {
            c.start.gpr[1] = pick(random, 4) == 0 ? pick(random, 400) : pick(random, 9);
        }
    }
    switch (f.insn.meta.category) {
    case ZYDIS_CATEGORY_PUSH:
    case ZYDIS_CATEGORY_POP:
    case ZYDIS_CATEGORY_CALL:
    case ZYDIS_CATEGORY_RET:
        c.start.gpr[4] = target_address(random, 8);
        break;
    default:
        break;
    }
    if (f.mnemonic == ZYDIS_MNEMONIC_ENTER || f.mnemonic == ZYDIS_MNEMONIC_LEAVE) {
        c.start.gpr[4] = target_address(random, 64);
        c.start.gpr[5] = target_address(random, 8);
    }
    if (f.mnemonic == ZYDIS_MNEMONIC_XLAT) {
        c.start.gpr[3] = window_address;
        c.start.gpr[0] &= ~u64{0x80};
    }
}

} // namespace

Generated generate(const Form& f, Random& random) {
    Generated g;
    Case& c = g.c;
    c.mode32 = f.mode32;
    for (u64& r : c.start.gpr) {
        r = special(random);
    }
    for (std::size_t i = 0; i < window_size; i += 8) {
        const u64 v = special(random);
        std::memcpy(&c.start.window[i], &v, 8);
    }
    c.start.rflags = 0x202 | (random() & (arch::rflags::arithmetic | arch::rflags::df));
    set_implicit(c, f, random);
    const u64 place = pick(random, 16);
    c.start.rip =
        code_address + (place == 0 ? 4096 - 1 - pick(random, 8) : 64 + pick(random, 4000));
    Registers r;
    if (!f.mode32) {
        r.rex_rxb = static_cast<u8>(random() & 7);
        r.rex = (random() & 3) == 0;
        r.vvvv = static_cast<u8>((random() & 1) * (random() & 15));
    } else {
        r.vvvv = static_cast<u8>(random() & 7);
    }
    if (f.mode32) {
        for (u64& v : c.start.gpr) {
            v = static_cast<u32>(v);
        }
    }
    std::vector<u8> tail;
    u64 rip_target = 0;
    if (f.has_modrm) {
        const u8 reg = f.reg_fields[pick(random, f.reg_fields.size())];
        if (f.reg_fields.size() == 1) {
            r.rex_rxb &= 3;
        }
        if (f.memory) {
            rip_target = put_memory(tail, c, reg, r, f, f.memory_bytes, random);
        } else {
            tail.push_back(static_cast<u8>(0xc0 | reg << 3 | pick(random, 8)));
        }
    }
    put_head(c.code, f, r);
    c.code.insert(c.code.end(), tail.begin(), tail.end());
    for (unsigned i = 0; i < f.immediate_bytes; ++i) {
        c.code.push_back(static_cast<u8>(random()));
    }
    if (f.mnemonic == ZYDIS_MNEMONIC_ENTER) {
        c.code[c.code.size() - 2] = 0; // frames of less than 256 bytes
    }
    if (rip_target != 0) {
        const u32 disp = static_cast<u32>(rip_target - c.start.rip - c.code.size());
        std::memcpy(&c.code[c.code.size() - f.immediate_bytes - 4], &disp, 4);
    }
    if (!f.has_modrm && f.insn.raw.disp.size != 0) { // MOV with an absolute offset
        const u64 target = target_address(random, 8);
        std::memcpy(&c.code[c.code.size() - f.immediate_bytes], &target, f.immediate_bytes);
    } else if (f.immediate_bytes == 1 && pick(random, 4) == 0) {
        c.code.back() = static_cast<u8>(special(random));
    }
    if (f.insn.raw.imm[0].is_relative && f.immediate_bytes == 4) {
        const i32 near = static_cast<i32>(code_address + pick(random, 8192) - c.start.rip);
        std::memcpy(&c.code[c.code.size() - 4], &near, 4);
    }
    decode_case(g);
    g.valid = g.valid && g.insn.mnemonic == f.mnemonic && g.insn.length == c.code.size();
    if (g.valid) {
        tame(g, random);
        g.valid = is_safe(g);
    }
    return g;
}

void decode_case(Generated& g) {
    g.valid = !g.c.code.empty() && decode(g.c.mode32, g.c.code, g.insn, g.operands);
}

} // namespace nestor::test
