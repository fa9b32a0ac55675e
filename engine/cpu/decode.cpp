// Block formation: decode with Zydis, find dead flags, let the instruction groups emit Ops.
//
// A block ends at a jump, at the page's end, after max_block_ops, or where an instruction cannot be
// decoded (that one gets a block of its own, which raises #UD). Flags that are overwritten before
// anything can read them, faults and exits included, are not computed; in an exact block all are.
#include "engine/cpu/decode.hpp"

#include <algorithm>
#include <array>

#include "engine/arch/bits.hpp"
#include "engine/cpu/cpu.hpp"
#include "engine/cpu/emit.hpp"
#include "engine/cpu/package.hpp"
#include "engine/cpu/pairs.hpp"

namespace nestor::cpu {

namespace {

constexpr ZydisAccessedFlagsMask arithmetic_flags = ZYDIS_CPUFLAG_CF | ZYDIS_CPUFLAG_PF |
                                                    ZYDIS_CPUFLAG_AF | ZYDIS_CPUFLAG_ZF |
                                                    ZYDIS_CPUFLAG_SF | ZYDIS_CPUFLAG_OF;

const Op* op_hint(Cpu& cpu, const Op* op) { return next(cpu, op); }

/// Opcodes 0F 18 to 0F 1F do nothing where the feature that gives them a meaning is absent
/// (ENDBR64, RDSSP, MPX, CLDEMOTE...): SDM 2B, NOP, and table A-3.
bool is_hint(const Decoded& d) {
    return d.insn.opcode_map == ZYDIS_OPCODE_MAP_0F && d.insn.opcode >= 0x18 &&
           d.insn.opcode <= 0x1f;
}

const Op* op_undefined(Cpu& cpu, const Op* op) { return cpu.raise(op, arch::Exception::ud); }

/// Behind the last instruction of a block that does not jump: go on after it.
const Op* op_block_end(Cpu& cpu, const Op* op) {
    cpu.s.rip = cpu.truncate_rip(cpu.s.rip + op->offset);
    cpu.link = cpu.mode.has(Mode::flat_code) ? &cpu.block->link[1] : nullptr;
    if (cpu.link != nullptr && op->imm != 0) {
        Block* following = *cpu.link;
        cpu.link = nullptr;
        if (following->n != Block::dead) {
            return cpu.enter(following, cpu.s.rip);
        }
        cpu.link = &cpu.block->link[1];
    }
    if (op->imm == 0) {
        cpu.link = nullptr;
    }
    cpu.block = nullptr;
    cpu.outcome = Outcome::resume;
    return nullptr;
}

/// Whether an instruction can do nothing but compute on registers: no fault, no exit, no memory.
bool cannot_stop(const Decoded& d) {
    switch (d.insn.meta.category) {
    case ZYDIS_CATEGORY_BINARY:
    case ZYDIS_CATEGORY_LOGICAL:
    case ZYDIS_CATEGORY_SHIFT:
    case ZYDIS_CATEGORY_ROTATE:
    case ZYDIS_CATEGORY_BITBYTE:
    case ZYDIS_CATEGORY_CMOV:
    case ZYDIS_CATEGORY_SETCC:
    case ZYDIS_CATEGORY_DATAXFER:
    case ZYDIS_CATEGORY_CONVERT:
    case ZYDIS_CATEGORY_MISC:
    case ZYDIS_CATEGORY_NOP:
    case ZYDIS_CATEGORY_WIDENOP:
    case ZYDIS_CATEGORY_FLAGOP:
        break;
    default:
        return false;
    }
    switch (d.insn.mnemonic) {
    case ZYDIS_MNEMONIC_DIV:
    case ZYDIS_MNEMONIC_IDIV:
    case ZYDIS_MNEMONIC_AAM:
    case ZYDIS_MNEMONIC_CLI:
    case ZYDIS_MNEMONIC_STI:
    case ZYDIS_MNEMONIC_CLAC:
    case ZYDIS_MNEMONIC_STAC:
    case ZYDIS_MNEMONIC_CPUID:
    case ZYDIS_MNEMONIC_PAUSE:
    case ZYDIS_MNEMONIC_UD0:
    case ZYDIS_MNEMONIC_UD1:
    case ZYDIS_MNEMONIC_UD2:
        return false;
    default:
        break;
    }
    for (unsigned i = 0; i < d.insn.operand_count; ++i) {
        const ZydisDecodedOperand& o = d.operands[i];
        if (o.type == ZYDIS_OPERAND_TYPE_MEMORY && o.mem.type != ZYDIS_MEMOP_TYPE_AGEN) {
            return false;
        }
        if (o.type == ZYDIS_OPERAND_TYPE_REGISTER) {
            const ZydisRegisterClass c = ZydisRegisterGetClass(o.reg.value);
            if (c == ZYDIS_REGCLASS_SEGMENT || c == ZYDIS_REGCLASS_CONTROL ||
                c == ZYDIS_REGCLASS_DEBUG) {
                return false;
            }
        }
    }
    return true;
}

/// Whether every arithmetic flag in the "written" set is written whatever the operands are.
bool always_writes_flags(const Decoded& d) {
    const auto category = d.insn.meta.category;
    if (category != ZYDIS_CATEGORY_SHIFT && category != ZYDIS_CATEGORY_ROTATE) {
        return true;
    }
    // A count of zero changes nothing.
    const unsigned last = d.insn.operand_count_visible - 1u;
    const ZydisDecodedOperand& count = d.operands[last];
    return count.type == ZYDIS_OPERAND_TYPE_IMMEDIATE && (count.imm.value.u & 31) != 0;
}

ZydisAccessedFlagsMask flags_written(const Decoded& d) {
    const ZydisAccessedFlags* f = d.insn.cpu_flags;
    return f == nullptr ? 0 : (f->modified | f->set_0 | f->set_1 | f->undefined) & arithmetic_flags;
}

ZydisAccessedFlagsMask flags_read(const Decoded& d) {
    return d.insn.cpu_flags == nullptr ? 0 : d.insn.cpu_flags->tested & arithmetic_flags;
}

} // namespace

void emit_undefined(Emit& e) {
    e.op.fn = op_undefined;
    e.ends_block = true;
}

u8 Emit::reg_offset(ZydisRegister reg) {
    switch (reg) {
    case ZYDIS_REGISTER_AH:
        return 1;
    case ZYDIS_REGISTER_CH:
        return 9;
    case ZYDIS_REGISTER_DH:
        return 17;
    case ZYDIS_REGISTER_BH:
        return 25;
    default:
        break;
    }
    const auto wide = ZydisRegisterGetLargestEnclosing(ZYDIS_MACHINE_MODE_LONG_64, reg);
    return static_cast<u8>((wide - ZYDIS_REGISTER_RAX) * 8);
}

void Emit::set_memory(unsigned i) {
    const ZydisDecodedOperandMem& m = d.operands[i].mem;
    const auto slot = [](ZydisRegister reg) -> u8 {
        if (reg == ZYDIS_REGISTER_NONE) {
            return Cpu::zero_slot;
        }
        if (reg == ZYDIS_REGISTER_RIP || reg == ZYDIS_REGISTER_EIP) {
            return Cpu::rip_slot;
        }
        const auto wide = ZydisRegisterGetLargestEnclosing(ZYDIS_MACHINE_MODE_LONG_64, reg);
        return Cpu::gpr_slot(static_cast<unsigned>(wide - ZYDIS_REGISTER_RAX));
    };
    // SDM 2A 2.1.5: a SIB base of 101 with mod 00 means no base, REX.B or not; Zydis 4.0 says R13
    // without a displacement.
    const auto& raw = d.insn.raw;
    const bool no_base = raw.modrm.mod == 0 && raw.modrm.rm == 4 && raw.sib.base == 5 &&
                         (d.insn.attributes & ZYDIS_ATTRIB_HAS_SIB) != 0;
    op.base = no_base ? Cpu::zero_slot : slot(m.base);
    op.index = slot(m.index);
    op.disp = static_cast<i32>(no_base                   ? raw.disp.value
                               : m.disp.has_displacement ? m.disp.value
                                                         : 0);
    if (op.base == Cpu::rip_slot) {
        op.disp += op.offset + op.len;
    }
    u8 bits = static_cast<u8>(m.scale == 8 ? 3 : m.scale == 4 ? 2 : m.scale == 2 ? 1 : 0);
    const unsigned segment = static_cast<unsigned>(m.segment - ZYDIS_REGISTER_ES);
    bits = static_cast<u8>(bits | segment << ea::segment_shift);
    const unsigned width = d.insn.address_width;
    const bool fs_gs = segment >= static_cast<unsigned>(arch::Seg::fs);
    if (!mode.is64() || width != 64) {
        bits |= ea::general;
    } else if (fs_gs) {
        // The segment base is just another register to add, where a place is left for it.
        const u8 segment_slot = Cpu::segment_base_slot(segment);
        if (op.index == Cpu::zero_slot) {
            op.index = segment_slot;
            bits &= static_cast<u8>(~ea::scale);
        } else if (op.base == Cpu::zero_slot) {
            op.base = segment_slot;
        } else {
            bits |= ea::general;
        }
    }
    if (width == 32) {
        bits |= ea::address32;
    } else if (width == 16) {
        bits |= ea::address16;
    }
    op.ea = bits;
}

bool Emit::sums_or_misses() const {
    const arch::Seg segment = Cpu::operand_segment(&op);
    return mode.has(Mode::flat_data) && !mode.has(Mode::long_mode) && d.insn.address_width == 32 &&
           (segment == arch::Seg::ds || segment == arch::Seg::es || segment == arch::Seg::ss);
}

struct Decoder::Scratch {
    std::array<ZydisDecoder, 5> decoders;
    std::array<Decoded, max_block_ops> decoded;
    std::array<Op, max_block_ops + 1> ops;
    std::array<bool, max_block_ops> flags_live;

    Scratch() {
        ZydisDecoderInit(&decoders[0], ZYDIS_MACHINE_MODE_REAL_16, ZYDIS_STACK_WIDTH_16);
        ZydisDecoderInit(&decoders[1], ZYDIS_MACHINE_MODE_LEGACY_16, ZYDIS_STACK_WIDTH_16);
        ZydisDecoderInit(&decoders[2], ZYDIS_MACHINE_MODE_LEGACY_32, ZYDIS_STACK_WIDTH_32);
        ZydisDecoderInit(&decoders[3], ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
        ZydisDecoderInit(&decoders[4], ZYDIS_MACHINE_MODE_LEGACY_32, ZYDIS_STACK_WIDTH_16);
    }

    [[nodiscard]] const ZydisDecoder& decoder(Mode mode) const {
        if (mode.is64()) {
            return decoders[3];
        }
        if (mode.code() == 1) {
            return decoders[2];
        }
        return mode.is_real_like() ? decoders[0] : decoders[1];
    }

    void find_live_flags(unsigned count, bool exact);
};

void Decoder::Scratch::find_live_flags(unsigned count, bool exact) {
    ZydisAccessedFlagsMask live = arithmetic_flags;
    for (unsigned i = count; i-- > 0;) {
        const Decoded& d = decoded[i];
        const ZydisAccessedFlagsMask written = flags_written(d);
        flags_live[i] = exact || (written & live) != 0;
        if (always_writes_flags(d)) {
            live &= ~written;
        }
        live |= flags_read(d);
        if (!cannot_stop(d)) {
            live = arithmetic_flags;
        }
    }
}

Decoder::Decoder() : scratch_(std::make_unique<Scratch>()) {}
Decoder::~Decoder() = default;

const Op* Decoder::ops() const { return scratch_->ops.data(); }

namespace {

void emit_one(Emit& e, const Features& features) {
    const bool offered = features.isa[e.d.insn.meta.isa_set];
    if (!offered && is_hint(e.d)) {
        e.op.fn = op_hint;
        return;
    }
    if (!offered || !(emit_integer(e) || emit_control(e) || emit_string(e) || emit_system(e) ||
                      emit_simd(e) || emit_xstate(e) || emit_x87(e))) {
        emit_undefined(e);
    }
}

} // namespace

Decoder::Status Decoder::decode(const FetchWindow& window, Mode mode, const Features& features,
                                bool exact, unsigned max_ops, Block& block) {
    Scratch& s = *scratch_;
    const ZydisDecoder& decoder = s.decoder(mode);
    unsigned offset = 0;
    unsigned count = 0;
    bool undefined = false;
    while (count < max_ops && offset < max_block_bytes) {
        Decoded& d = s.decoded[count];
        const ZyanStatus status = ZydisDecoderDecodeFull(&decoder, window.bytes + offset,
                                                         window.size - offset, &d.insn, d.operands);
        if (!ZYAN_SUCCESS(status)) {
            if (count > 0) {
                break;
            }
            if (status == ZYDIS_STATUS_NO_MORE_DATA) {
                return window.more_exists ? Status::needs_more : Status::too_long;
            }
            if (status == ZYDIS_STATUS_INSTRUCTION_TOO_LONG) {
                return Status::too_long;
            }
            undefined = true;
            count = 1;
            offset = 1;
            break;
        }
        offset += d.insn.length;
        ++count;
        if (d.insn.meta.branch_type != ZYDIS_BRANCH_TYPE_NONE) {
            break;
        }
    }
    if (!undefined) {
        s.find_live_flags(count, exact);
    }
    offset = 0;
    bool ends = false;
    unsigned emitted = 0;
    while (emitted < count && !ends) {
        Op& op = s.ops[emitted];
        op = Op{};
        op.offset = static_cast<u8>(offset);
        op.number = static_cast<u8>(emitted);
        const Decoded& d = s.decoded[emitted];
        Emit e{d, mode, op};
        e.flags_live = undefined || s.flags_live[emitted];
        e.exact = exact;
        e.previous = emitted > 0 ? &s.ops[emitted - 1] : nullptr;
        e.page_offset = static_cast<unsigned>(block.phys & page_mask) + offset;
        if (undefined) {
            op.len = 1;
            emit_undefined(e);
        } else {
            op.len = d.insn.length;
            emit_one(e, features);
        }
        offset += op.len;
        ends = e.ends_block;
        ++emitted;
    }
    if (!exact) {
        pair_up({s.ops.data(), emitted});
    }
    Op& end = s.ops[emitted];
    end = Op{};
    end.fn = op_block_end;
    end.offset = static_cast<u8>(offset);
    end.number = static_cast<u8>(emitted);
    end.imm = offset < window.size ? 1 : 0; // the next block is in the same page
    block.n = emitted;
    block.count = emitted;
    // What makes an instruction undefined may be any of the bytes that the decoder looked at.
    block.bytes = static_cast<u16>(undefined ? std::min(window.size, 15u) : offset);
    return Status::ok;
}

} // namespace nestor::cpu
