// Descriptor-table and task registers, and what is left of the machine status word: LGDT, SGDT,
// LIDT, SIDT, LLDT, SLDT, LTR, STR, SMSW.
//
// Owns nothing. The order of checks: #UD, then privilege and UMIP (#GP), then the exit of
// "descriptor-table exiting", then the operand (SDM 3C 26.1.1).
#include "engine/cpu/system.hpp"

namespace nestor::cpu {

using namespace arch;

namespace {

/// SDM 3A 2.5, CR4.UMIP: SGDT, SIDT, SLDT, SMSW and STR are #GP(0) above CPL 0.
bool umip_allows(Cpu& cpu) {
    return cpu.cpl == 0 || (cpu.s.cr4 & cr4::umip) == 0 || cpu.set_fault(Exception::gp, 0);
}

bool table_exits(const Cpu& cpu) {
    return (cpu.controls.proc2 & proc2_control::descriptor_table_exiting) != 0;
}

/// Instruction information for GDTR/IDTR and LDTR/TR accesses (SDM 3C tables 28-9 and 28-10).
/// `identity`: 0 SGDT/SLDT, 1 SIDT/STR, 2 LGDT/LLDT, 3 LIDT/LTR. `wide`: a 32-bit operand size,
/// which 64-bit mode leaves undefined.
const Op* table_exit(Cpu& cpu, const Op* op, ExitReason reason, u32 identity, bool memory,
                     bool wide = false) {
    const u64 qualification = memory ? memory_qualification(cpu, op) : 0;
    const u32 operand = memory ? memory_instruction_info(cpu, op)
                               : bit<u32>(10) | static_cast<u32>(op->aux & 15) << 3;
    const u32 info = operand | identity << 28 | u32{wide} << 11;
    cpu.vm_exit(op, reason, qualification);
    cpu.exit.instruction_info = info;
    return nullptr;
}

/// Bytes of the base in memory: 8 in 64-bit mode, otherwise 4 (of which 16-bit forms use 3).
unsigned base_bytes(const Cpu& cpu) { return cpu.mode.is64() ? 8 : 4; }

template <bool idt, bool narrow>
const Op* op_load_table(Cpu& cpu, const Op* op) {
    NESTOR_OR_STOP(cpu, op, privileged(cpu));
    if (table_exits(cpu)) {
        return table_exit(cpu, op, ExitReason::gdtr_idtr_access, idt ? 3 : 2, true,
                          !narrow && !cpu.mode.is64());
    }
    u8 bytes[10] = {};
    u64 address;
    const unsigned size = 2 + base_bytes(cpu);
    NESTOR_OR_STOP(cpu, op, cpu.linear(op, size, Access::read, address));
    NESTOR_OR_STOP(cpu, op, cpu.load_slow(op, address, bytes, size, Cpu::operand_segment(op)));
    state::DescriptorTable table;
    std::memcpy(&table.limit, bytes, 2);
    std::memcpy(&table.base, bytes + 2, size - 2);
    if (narrow) {
        table.base &= 0xffffff;
    }
    if (cpu.mode.is64() && !canonical(cpu, table.base)) {
        return cpu.raise(op, Exception::gp);
    }
    (idt ? cpu.s.idtr : cpu.s.gdtr) = table;
    return op;
}

template <bool idt>
const Op* op_store_table(Cpu& cpu, const Op* op) {
    NESTOR_OR_STOP(cpu, op, umip_allows(cpu));
    if (table_exits(cpu)) {
        return table_exit(cpu, op, ExitReason::gdtr_idtr_access, idt ? 1 : 0, true,
                          cpu.mode.code() == 1);
    }
    const state::DescriptorTable& table = idt ? cpu.s.idtr : cpu.s.gdtr;
    u8 bytes[10];
    std::memcpy(bytes, &table.limit, 2);
    std::memcpy(bytes + 2, &table.base, 8);
    u64 address;
    const unsigned size = 2 + base_bytes(cpu);
    NESTOR_OR_STOP(cpu, op, cpu.linear(op, size, Access::write, address));
    NESTOR_OR_STOP(cpu, op, cpu.store_slow(op, address, bytes, size, Cpu::operand_segment(op)));
    return op;
}

/// The selector that LLDT and LTR load.
template <bool memory>
bool selector_operand(Cpu& cpu, const Op* op, u16& selector) {
    if constexpr (memory) {
        return cpu.load(op, selector);
    }
    selector = cpu.reg<u16>(op->src);
    return true;
}

/// The segment of an LDT or TSS descriptor in the GDT, which must have one of two types (SDM 2
/// LLDT, LTR). In IA-32e mode it has 16 bytes.
bool read_system_segment(const Site& site, u16 selector, u32 type, u32 other_type, Descriptor& d,
                         state::Segment& out) {
    const Cpu& cpu = site.cpu;
    const u32 error = selector_error(selector);
    if ((selector & 4) != 0) {
        return site.gp(error);
    }
    if (!read_descriptor(site, selector, d)) {
        return false;
    }
    if (d.segment() || (d.type() != type && d.type() != other_type)) {
        return site.gp(error);
    }
    if (!d.present()) {
        return site.fault(Exception::np, error);
    }
    const bool long_mode = ia32e(cpu);
    if (long_mode) {
        if (!read_descriptor_high(site, selector, d)) {
            return false;
        }
        if ((d.high >> 40 & 31) != 0 || !canonical(cpu, d.long_base())) {
            return site.gp(error);
        }
    }
    out = make_segment(d, selector);
    out.attributes = d.attributes();
    out.base = long_mode ? d.long_base() : d.base();
    return true;
}

template <bool memory>
const Op* op_lldt(Cpu& cpu, const Op* op) {
    NESTOR_OR_STOP(cpu, op, privileged(cpu));
    if (table_exits(cpu)) {
        return table_exit(cpu, op, ExitReason::ldtr_tr_access, 2, memory);
    }
    u16 selector;
    NESTOR_OR_STOP(cpu, op, selector_operand<memory>(cpu, op, selector));
    if (is_null(selector)) {
        cpu.s.ldtr = null_segment(selector);
        return op;
    }
    Descriptor d;
    state::Segment ldt;
    NESTOR_OR_STOP(
        cpu, op,
        read_system_segment({cpu, op}, selector, system_type::ldt, system_type::ldt, d, ldt));
    cpu.s.ldtr = ldt;
    return op;
}

template <bool memory>
const Op* op_ltr(Cpu& cpu, const Op* op) {
    NESTOR_OR_STOP(cpu, op, privileged(cpu));
    if (table_exits(cpu)) {
        return table_exit(cpu, op, ExitReason::ldtr_tr_access, 3, memory);
    }
    u16 selector;
    NESTOR_OR_STOP(cpu, op, selector_operand<memory>(cpu, op, selector));
    if (is_null(selector)) {
        return cpu.raise(op, Exception::gp, 0);
    }
    const Site site{cpu, op};
    const u32 other_type = ia32e(cpu) ? system_type::tss32 : system_type::tss16;
    Descriptor d;
    state::Segment tss;
    NESTOR_OR_STOP(cpu, op,
                   read_system_segment(site, selector, system_type::tss32, other_type, d, tss));
    NESTOR_OR_STOP(cpu, op, write_busy(site, d, true));
    cpu.s.tr = tss;
    cpu.s.tr.attributes |= system_type::busy;
    return op;
}

/// SLDT, STR, SMSW: registers take the operand size, memory 16 bits.
enum class Word : u8 { sldt, str, smsw };

template <Word word>
bool read_word(Cpu& cpu, u64& value) {
    switch (word) {
    case Word::sldt:
        value = cpu.s.ldtr.selector;
        break;
    case Word::str:
        value = cpu.s.tr.selector;
        break;
    case Word::smsw:
        value = (cpu.s.cr0 & ~cpu.controls.cr0_mask) |
                (cpu.controls.cr0_shadow & cpu.controls.cr0_mask);
        break;
    }
    return umip_allows(cpu);
}

template <Word word, class T>
const Op* op_store_word_reg(Cpu& cpu, const Op* op) {
    u64 value = 0;
    NESTOR_OR_STOP(cpu, op, read_word<word>(cpu, value));
    if (word != Word::smsw && table_exits(cpu)) {
        return table_exit(cpu, op, ExitReason::ldtr_tr_access, word == Word::str ? 1 : 0, false);
    }
    cpu.set_reg<T>(op->dst, static_cast<T>(value));
    return op;
}

template <Word word>
const Op* op_store_word_mem(Cpu& cpu, const Op* op) {
    u64 value = 0;
    NESTOR_OR_STOP(cpu, op, read_word<word>(cpu, value));
    if (word != Word::smsw && table_exits(cpu)) {
        return table_exit(cpu, op, ExitReason::ldtr_tr_access, word == Word::str ? 1 : 0, true);
    }
    NESTOR_OR_STOP(cpu, op, cpu.store<u16>(op, static_cast<u16>(value)));
    return op;
}

template <Word word>
bool emit_store_word(Emit& e) {
    if (word != Word::smsw && e.mode.is_real_like()) {
        emit_undefined(e); // SDM 2 SLDT, STR
        return true;
    }
    if (e.is_mem(0)) {
        e.set_memory(0);
        e.op.fn = then_next<op_store_word_mem<word>>;
        return true;
    }
    e.op.dst = Emit::reg_offset(e.operand(0).reg.value);
    e.op.aux = e.op.dst / 8u;
    e.op.fn = e.size(0) == 8   ? then_next<op_store_word_reg<word, u64>>
              : e.size(0) == 4 ? then_next<op_store_word_reg<word, u32>>
                               : then_next<op_store_word_reg<word, u16>>;
    return true;
}

bool emit_load_selector(Emit& e, bool task) {
    if (e.mode.is_real_like()) {
        emit_undefined(e); // SDM 2 LLDT, LTR
        return true;
    }
    if (e.is_mem(0)) {
        e.set_memory(0);
        e.op.fn = task ? then_next<op_ltr<true>> : then_next<op_lldt<true>>;
    } else {
        e.op.src = Emit::reg_offset(e.operand(0).reg.value);
        e.op.aux = e.op.src / 8u;
        e.op.fn = task ? then_next<op_ltr<false>> : then_next<op_lldt<false>>;
    }
    return true;
}

} // namespace

bool emit_system_table(Emit& e) {
    const bool narrow = e.d.insn.operand_width == 16 && !e.mode.is64();
    switch (e.mnemonic()) {
    case ZYDIS_MNEMONIC_LGDT:
        e.set_memory(0);
        e.op.fn =
            narrow ? then_next<op_load_table<false, true>> : then_next<op_load_table<false, false>>;
        return true;
    case ZYDIS_MNEMONIC_LIDT:
        e.set_memory(0);
        e.op.fn =
            narrow ? then_next<op_load_table<true, true>> : then_next<op_load_table<true, false>>;
        return true;
    case ZYDIS_MNEMONIC_SGDT:
        e.set_memory(0);
        e.op.fn = then_next<op_store_table<false>>;
        return true;
    case ZYDIS_MNEMONIC_SIDT:
        e.set_memory(0);
        e.op.fn = then_next<op_store_table<true>>;
        return true;
    case ZYDIS_MNEMONIC_LLDT:
        return emit_load_selector(e, false);
    case ZYDIS_MNEMONIC_LTR:
        return emit_load_selector(e, true);
    case ZYDIS_MNEMONIC_SLDT:
        return emit_store_word<Word::sldt>(e);
    case ZYDIS_MNEMONIC_STR:
        return emit_store_word<Word::str>(e);
    case ZYDIS_MNEMONIC_SMSW:
        return emit_store_word<Word::smsw>(e);
    default:
        return false;
    }
}

} // namespace nestor::cpu
