// SIMD instructions: from a decoded instruction to a thunk and a handler.
//
// The instruction is encoded again on the registers a thunk uses; what was a memory operand becomes
// [rsi]. Nothing here knows what an instruction computes. What it needs to know it takes from the
// decoder: operand roles and, by exception class (SDM 2A 2.5 and tables 2-18 to 2-30), whether
// MXCSR takes part and whether alignment is checked. Instructions that a thunk cannot do are in
// ops_simd_masked.cpp and ops_simd_math.cpp; plain moves are in ops_simd_move.cpp.
#include <string_view>

#include "engine/cpu/simd.hpp"

namespace nestor::cpu {

namespace simd {

namespace {

const Op* raise_nm(Cpu& cpu, const Op* op) { return cpu.raise(op, arch::Exception::nm); }

bool is_vector(ZydisRegisterClass c) {
    return c == ZYDIS_REGCLASS_MMX || c == ZYDIS_REGCLASS_XMM || c == ZYDIS_REGCLASS_YMM;
}

bool has_class(const Emit& e, ZydisRegisterClass c) {
    for (unsigned i = 0; i < e.d.insn.operand_count; ++i) {
        if (reg_class(e.operand(i)) == c) {
            return true;
        }
    }
    return false;
}

/// The worst of the units an instruction needs (SDM 3A 14.1, SDM 2A 2.5).
UnitState unit_state(const Emit& e) {
    if (is_vex(e)) {
        return e.mode.unit(Mode::avx_shift);
    }
    const bool mmx = has_class(e, ZYDIS_REGCLASS_MMX);
    const bool xmm = !mmx || has_class(e, ZYDIS_REGCLASS_XMM);
    const UnitState a = mmx ? e.mode.unit(Mode::mmx_shift) : UnitState::ok;
    const UnitState b = xmm ? e.mode.unit(Mode::sse_shift) : UnitState::ok;
    if (a == UnitState::ud || b == UnitState::ud) {
        return UnitState::ud;
    }
    return a == UnitState::nm || b == UnitState::nm ? UnitState::nm : UnitState::ok;
}

bool uses_mxcsr(const Emit& e) {
    switch (e.d.insn.meta.exception_class) {
    case ZYDIS_EXCEPTION_CLASS_SSE2:
    case ZYDIS_EXCEPTION_CLASS_SSE3:
    case ZYDIS_EXCEPTION_CLASS_AVX2:
    case ZYDIS_EXCEPTION_CLASS_AVX3:
    case ZYDIS_EXCEPTION_CLASS_AVX11:
        return true;
    default:
        break;
    }
    switch (e.mnemonic()) {
    case ZYDIS_MNEMONIC_CVTPI2PS:
    case ZYDIS_MNEMONIC_CVTPS2PI:
    case ZYDIS_MNEMONIC_CVTTPS2PI:
    case ZYDIS_MNEMONIC_CVTPD2PI:
    case ZYDIS_MNEMONIC_CVTTPD2PI:
        return true;
    default:
        return false;
    }
}

bool is_simd(const Emit& e) {
    const auto& insn = e.d.insn;
    if (insn.encoding != ZYDIS_INSTRUCTION_ENCODING_LEGACY && !is_vex(e)) {
        return false;
    }
    for (unsigned i = 0; i < insn.operand_count_visible; ++i) {
        if (is_vector(reg_class(e.operand(i)))) {
            return true;
        }
    }
    return uses_mxcsr(e); // CVTSD2SI and its kin from memory name no vector register
}

/// Whether a misaligned memory operand of `size` bytes is #GP(0) (SDM 2A tables 2-18 to 2-23).
bool checks_alignment(const Emit& e, unsigned size) {
    const auto klass = e.d.insn.meta.exception_class;
    if (is_vex(e)) {
        return klass == ZYDIS_EXCEPTION_CLASS_AVX1;
    }
    switch (e.mnemonic()) {
    case ZYDIS_MNEMONIC_MOVUPS:
    case ZYDIS_MNEMONIC_MOVUPD:
    case ZYDIS_MNEMONIC_MOVDQU:
    case ZYDIS_MNEMONIC_LDDQU:
    case ZYDIS_MNEMONIC_PCMPESTRI:
    case ZYDIS_MNEMONIC_PCMPESTRM:
    case ZYDIS_MNEMONIC_PCMPISTRI:
    case ZYDIS_MNEMONIC_PCMPISTRM:
        return false;
    default:
        return size == 16;
    }
}

Underflow underflow_kind(const Emit& e, bool& scalar) {
    std::string_view name = ZydisMnemonicGetString(e.mnemonic());
    if (is_vex(e)) {
        name.remove_prefix(1);
    }
    scalar = name.ends_with("ss") || name.ends_with("sd");
    for (const std::string_view prefix : {"add", "sub", "mul", "div", "hadd", "hsub", "dp", "fm",
                                          "fnm", "cvtpd2ps", "cvtsd2ss", "cvtps2ph"}) {
        if (name.starts_with(prefix)) {
            return name.ends_with("ph") ? Underflow::half
                   : name.back() == 's' ? Underflow::single
                                        : Underflow::double_;
        }
    }
    return Underflow::none;
}

ThunkOperand kind_of(const ZydisDecodedOperand& o) {
    if (o.type == ZYDIS_OPERAND_TYPE_MEMORY) {
        return ThunkOperand::memory;
    }
    switch (reg_class(o)) {
    case ZYDIS_REGCLASS_MMX:
        return ThunkOperand::mmx;
    case ZYDIS_REGCLASS_XMM:
        return ThunkOperand::xmm;
    case ZYDIS_REGCLASS_YMM:
        return ThunkOperand::ymm;
    default:
        return ThunkOperand::gpr;
    }
}

bool writes(const ZydisDecodedOperand& o) {
    return (o.actions & ZYDIS_OPERAND_ACTION_MASK_WRITE) != 0;
}

ThunkSpec::Role role_of(const Emit& e, const ZydisDecodedOperand& o) {
    ThunkSpec::Role role;
    role.kind = kind_of(o);
    role.write = writes(o);
    // Legacy forms may keep part of the destination.
    role.read = (o.actions & ZYDIS_OPERAND_ACTION_MASK_READ) != 0 ||
                (role.write && !is_vex(e) && role.kind != ThunkOperand::gpr);
    return role;
}

void take_hidden(ThunkSpec& spec, const ZydisDecodedOperand& o) {
    switch (reg_class(o)) {
    case ZYDIS_REGCLASS_XMM:
        (writes(o) ? spec.xmm0_out : spec.xmm0_in) = true;
        break;
    case ZYDIS_REGCLASS_FLAGS:
        spec.flags = true;
        break;
    case ZYDIS_REGCLASS_GPR32:
    case ZYDIS_REGCLASS_GPR64:
        (writes(o) ? spec.rcx_out : spec.lengths_in) = true;
        break;
    default:
        break;
    }
}

/// Operand roles, and the operands' places in `e.op`.
void take_operands(Emit& e, ThunkSpec& spec, u32& attributes) {
    for (unsigned i = 0; i < e.d.insn.operand_count; ++i) {
        const ZydisDecodedOperand& o = e.operand(i);
        switch (o.encoding) {
        case ZYDIS_OPERAND_ENCODING_MODRM_REG:
            spec.reg = role_of(e, o);
            e.op.dst = slot_of(o);
            break;
        case ZYDIS_OPERAND_ENCODING_MODRM_RM:
            spec.rm = role_of(e, o);
            if (spec.rm.kind == ThunkOperand::memory) {
                e.set_memory(i);
                attributes |= e.size(i);
            } else {
                e.op.base = slot_of(o);
            }
            break;
        case ZYDIS_OPERAND_ENCODING_NDSNDD:
            spec.third = role_of(e, o);
            e.op.src = slot_of(o);
            break;
        case ZYDIS_OPERAND_ENCODING_IS4:
            spec.fourth = true;
            attributes |= u32{slot_of(o)} << attr::extra_shift;
            break;
        default:
            take_hidden(spec, o);
        }
    }
}

/// REX.W or VEX.W. Outside 64-bit mode it chooses no operand size (SDM 2A 2.3.5.6, 2.3.6).
bool width_bit(const Emit& e, const ThunkSpec& spec) {
    const auto& insn = e.d.insn;
    if (!is_vex(e)) {
        return insn.raw.rex.W != 0;
    }
    const bool names_doubleword = e.mnemonic() == ZYDIS_MNEMONIC_VPEXTRD ||
                                  e.mnemonic() == ZYDIS_MNEMONIC_VPINSRD ||
                                  e.mnemonic() == ZYDIS_MNEMONIC_VMOVD;
    const bool general = names_doubleword || spec.reg.kind == ThunkOperand::gpr ||
                         spec.rm.kind == ThunkOperand::gpr ||
                         e.mnemonic() == ZYDIS_MNEMONIC_VCVTSI2SD ||
                         e.mnemonic() == ZYDIS_MNEMONIC_VCVTSI2SS || spec.lengths_in;
    return insn.raw.vex.W != 0 && (e.mode.is64() || !general);
}

u8 modrm_of(const Emit& e, const ThunkSpec& spec) {
    const auto number_of = [](ThunkOperand kind, u8 otherwise) {
        return kind == ThunkOperand::gpr ? thunk_reg::gpr : otherwise;
    };
    const u8 reg = spec.reg.kind == ThunkOperand::none ? e.d.insn.raw.modrm.reg
                                                       : number_of(spec.reg.kind, thunk_reg::reg);
    if (spec.rm.kind == ThunkOperand::memory) {
        return static_cast<u8>(reg << 3 | thunk_reg::pointer);
    }
    return static_cast<u8>(0xc0 | reg << 3 | number_of(spec.rm.kind, thunk_reg::rm));
}

/// Encodes the instruction on the thunk's registers.
void encode(const Emit& e, ThunkSpec& spec, unsigned memory_size) {
    const auto& insn = e.d.insn;
    const auto put = [&](unsigned byte) { spec.bytes[spec.length++] = static_cast<u8>(byte); };
    const unsigned map = static_cast<unsigned>(insn.opcode_map); // 1 0F, 2 0F38, 3 0F3A
    if (spec.vex) {
        // Forms that ignore VEX.L get L = 0.
        const bool l = has_class(e, ZYDIS_REGCLASS_YMM) || memory_size == 32;
        const unsigned vvvv = spec.third.kind == ThunkOperand::none ? 0 : thunk_reg::third;
        put(0xc4);
        put(0xe0 | map);
        put((width_bit(e, spec) ? 0x80u : 0u) | (~vvvv & 15) << 3 | (l ? 4u : 0u) |
            insn.raw.vex.pp);
    } else {
        for (unsigned i = 0; i < insn.raw.prefix_count; ++i) {
            if (insn.raw.prefixes[i].type == ZYDIS_PREFIX_TYPE_MANDATORY) {
                put(insn.raw.prefixes[i].value);
            }
        }
        if (width_bit(e, spec)) {
            put(0x48);
        }
        put(0x0f);
        if (map != 1) {
            put(map == 2 ? 0x38 : 0x3a);
        }
    }
    put(insn.opcode);
    put(modrm_of(e, spec));
    if (spec.fourth) {
        put(thunk_reg::fourth << 4);
    } else if (insn.raw.imm[0].size != 0) {
        put(static_cast<unsigned>(insn.raw.imm[0].value.u & 0xff));
    }
}

void emit_thunk(Emit& e) {
    ThunkSpec spec;
    u32 attributes = 0;
    spec.vex = is_vex(e);
    spec.mxcsr = uses_mxcsr(e);
    take_operands(e, spec, attributes);
    encode(e, spec, attributes & attr::size);

    const bool mmx = has_class(e, ZYDIS_REGCLASS_MMX);
    const bool memory = spec.rm.kind == ThunkOperand::memory;
    const Form form = !memory ? Form::reg : spec.rm.write ? Form::store : Form::load;
    if (memory && checks_alignment(e, attributes & attr::size)) {
        attributes |= attr::aligned;
    }
    attributes |= spec.vex ? attr::vex : 0;
    attributes |= spec.rm.write ? attr::rm_written : 0;
    attributes |= spec.reg.kind == ThunkOperand::mmx && spec.reg.write ? attr::mmx_reg : 0;
    attributes |= spec.rm.kind == ThunkOperand::mmx && spec.rm.write ? attr::mmx_rm : 0;
    if (spec.mxcsr) {
        bool scalar = false;
        attributes |= static_cast<u32>(underflow_kind(e, scalar)) << attr::underflow_shift;
        attributes |= scalar ? attr::scalar : 0;
    }
    e.op.imm = static_cast<i32>(attributes);
    e.op.aux = reinterpret_cast<u64>(ThunkCache::instance().get(spec));
    e.op.fn = spec.mxcsr ? (spec.flags ? compare_handler(form) : float_handler(form, mmx))
                         : (spec.flags ? flags_handler(form) : plain_handler(form, mmx));
}

} // namespace

u8 slot_of(const ZydisDecodedOperand& o) {
    switch (reg_class(o)) {
    case ZYDIS_REGCLASS_XMM:
    case ZYDIS_REGCLASS_YMM:
        return vector_slot(number(o));
    case ZYDIS_REGCLASS_MMX:
        return mmx_slot(number(o));
    default:
        return static_cast<u8>(number(o));
    }
}

} // namespace simd

bool emit_simd(Emit& e) {
    if (!simd::is_simd(e)) {
        return false;
    }
    switch (simd::unit_state(e)) {
    case UnitState::ud:
        emit_undefined(e);
        return true;
    case UnitState::nm:
        e.op.fn = simd::raise_nm;
        e.ends_block = true;
        return true;
    case UnitState::ok:
        break;
    }
    if (!simd::emit_move(e) && !simd::emit_compiled(e) && !simd::emit_masked(e) &&
        !simd::emit_approximate(e)) {
        simd::emit_thunk(e);
    }
    return true;
}

} // namespace nestor::cpu
