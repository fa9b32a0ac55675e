// Which generated cases may be run on the host: they touch the oracle's layout and nothing else of
// this process, do not loop, and jump nowhere else.
//
// Effective addresses are worked out here from the decoder's operands, so an error of Cpu's own
// address formation does not hide.
#include <cstring>

#include "tests/engine/cpu/oracle/forms.hpp"

namespace nestor::test {

u64 register_value(const Case& c, ZydisRegister reg) {
    if (reg == ZYDIS_REGISTER_NONE) {
        return 0;
    }
    const auto wide = ZydisRegisterGetLargestEnclosing(ZYDIS_MACHINE_MODE_LONG_64, reg);
    if (wide < ZYDIS_REGISTER_RAX || wide > ZYDIS_REGISTER_R15) {
        return c.start.rip + c.code.size(); // RIP
    }
    return c.start.gpr[static_cast<unsigned>(wide - ZYDIS_REGISTER_RAX)];
}
u64 effective_address(const Generated& g, const ZydisDecodedOperand& o) {
    const auto& m = o.mem;
    const auto& raw = g.insn.raw;
    // Zydis 4.0 names R13 as the base where there is none, without displacement.
    const bool no_base = (g.insn.attributes & ZYDIS_ATTRIB_HAS_SIB) != 0 && raw.modrm.mod == 0 &&
                         raw.modrm.rm == 4 && raw.sib.base == 5;
    u64 a = (no_base ? 0 : register_value(g.c, m.base)) +
            register_value(g.c, m.index) * (m.scale == 0 ? 1 : m.scale) +
            static_cast<u64>(no_base                   ? raw.disp.value
                             : m.disp.has_displacement ? m.disp.value
                                                       : 0);
    return g.insn.address_width == 32 ? static_cast<u32>(a) : a;
}

namespace {

bool is_bit_string(const Generated& g) {
    switch (g.insn.mnemonic) {
    case ZYDIS_MNEMONIC_BT:
    case ZYDIS_MNEMONIC_BTS:
    case ZYDIS_MNEMONIC_BTR:
    case ZYDIS_MNEMONIC_BTC:
        return g.operands[0].type == ZYDIS_OPERAND_TYPE_MEMORY &&
               g.operands[1].type == ZYDIS_OPERAND_TYPE_REGISTER;
    default:
        return false;
    }
}
bool is_branch(const Generated& g) { return g.insn.meta.branch_type != ZYDIS_BRANCH_TYPE_NONE; }
/// Within the layout with room on both sides, or where an access surely faults.
bool is_safe_address(u64 a, bool mode32) {
    constexpr u64 margin = 512;
    if (a >= data_address - 4096 + margin && a < data_address + 0x4000 - margin) {
        return true;
    }
    return (a < 0x10000 - margin && a >= margin) ||
           (!mode32 && !is_canonical(a) && !is_canonical(a - margin) && !is_canonical(a + margin));
}
/// A run of bytes up or down from an address: within the layout, or faulting at once.
bool is_safe_run(const Case& c, u64 a, u64 bytes) {
    constexpr u64 first = data_address - 4096;
    constexpr u64 end = data_address + 0x4000;
    if (c.mode32) {
        a = static_cast<u32>(a);
    }
    const bool down = (c.start.rflags & arch::rflags::df) != 0;
    const u64 low = down ? a - bytes : a;
    const u64 high = down ? a + 8 : a + bytes + 8;
    return (low >= first && high <= end) || (high <= 0x10000 && low < high) ||
           (!c.mode32 && !is_canonical(low) && !is_canonical(high));
}
bool is_safe_target(const Generated& g, u64 target) {
    if (g.c.mode32) {
        target = g.insn.operand_width == 16 ? static_cast<u16>(target) : static_cast<u32>(target);
    }
    const u64 own = target - g.c.start.rip;
    if (own < g.c.code.size()) {
        return false;
    }
    return (target >= code_address && target < code_address + 0x2000) || target < 0xf000 ||
           (!g.c.mode32 && !is_canonical(target));
}
/// The memory operand that holds the target of an indirect jump or a return, or null.
const ZydisDecodedOperand* target_operand(const Generated& g) {
    if (g.insn.meta.category == ZYDIS_CATEGORY_RET) {
        for (unsigned i = 0; i < g.insn.operand_count; ++i) {
            if (g.operands[i].type == ZYDIS_OPERAND_TYPE_MEMORY) {
                return &g.operands[i];
            }
        }
        return nullptr;
    }
    return g.operands[0].type == ZYDIS_OPERAND_TYPE_MEMORY ? &g.operands[0] : nullptr;
}
bool in_window(u64 a, u64 size) {
    return a >= window_address && a + size <= window_address + window_size;
}

} // namespace

void tame(Generated& g, Random& random) {
    Case& c = g.c;
    if (is_bit_string(g)) {
        const auto wide =
            ZydisRegisterGetLargestEnclosing(ZYDIS_MACHINE_MODE_LONG_64, g.operands[1].reg.value);
        c.start.gpr[static_cast<unsigned>(wide - ZYDIS_REGISTER_RAX)] =
            static_cast<u64>(static_cast<i64>(random() % 1024) - 512);
    }
    if (!is_branch(g) || g.insn.raw.imm[0].is_relative) {
        return;
    }
    const u64 target = random() % 8 == 0 ? u64{0x123456789abcdef0} + random() % 9
                                         : code_address + random() % 0x2000;
    if (const auto* memory = target_operand(g)) {
        const u64 a = effective_address(g, *memory);
        if (in_window(a, 8)) {
            std::memcpy(&c.start.window[a - window_address], &target, 8);
        }
    } else if (g.operands[0].type == ZYDIS_OPERAND_TYPE_REGISTER) {
        const auto wide =
            ZydisRegisterGetLargestEnclosing(ZYDIS_MACHINE_MODE_LONG_64, g.operands[0].reg.value);
        c.start.gpr[static_cast<unsigned>(wide - ZYDIS_REGISTER_RAX)] =
            c.mode32 ? static_cast<u32>(target) : target;
    }
}

bool is_safe(const Generated& g) {
    const Case& c = g.c;
    if (c.code.empty() || c.start.rip < code_address ||
        c.start.rip + c.code.size() >= code_address + 0x2000) {
        return false;
    }
    for (unsigned i = 0; i < g.insn.operand_count; ++i) {
        const ZydisDecodedOperand& o = g.operands[i];
        if (o.type != ZYDIS_OPERAND_TYPE_MEMORY || o.mem.type == ZYDIS_MEMOP_TYPE_AGEN) {
            continue;
        }
        u64 a = effective_address(g, o);
        if (is_bit_string(g)) {
            const u64 width = g.operands[1].size;
            const u64 bit = register_value(c, g.operands[1].reg.value) << (64 - width);
            a += static_cast<u64>(static_cast<i64>(bit) >> (64 - width) >> 3);
        }
        if (!is_safe_address(a, c.mode32)) {
            return false;
        }
    }
    if (g.insn.mnemonic == ZYDIS_MNEMONIC_ENTER || g.insn.mnemonic == ZYDIS_MNEMONIC_LEAVE) {
        if (!is_safe_address(c.start.gpr[5], c.mode32)) {
            return false;
        }
        if (g.insn.mnemonic == ZYDIS_MNEMONIC_ENTER && g.operands[0].imm.value.u > 400) {
            return false;
        }
    }
    if (g.insn.meta.category == ZYDIS_CATEGORY_STRINGOP &&
        (g.insn.attributes &
         (ZYDIS_ATTRIB_HAS_REP | ZYDIS_ATTRIB_HAS_REPE | ZYDIS_ATTRIB_HAS_REPNE)) != 0) {
        const u64 count =
            g.insn.address_width == 64 ? c.start.gpr[1] : static_cast<u32>(c.start.gpr[1]);
        if (count > 400 || !is_safe_run(c, c.start.gpr[6], count * 8) ||
            !is_safe_run(c, c.start.gpr[7], count * 8)) {
            return false;
        }
    }
    if (!is_branch(g)) {
        return true;
    }
    if (g.insn.raw.imm[0].is_relative) {
        const u64 end = c.start.rip + c.code.size();
        return is_safe_target(g, end + static_cast<u64>(g.operands[0].imm.value.s));
    }
    if (const auto* memory = target_operand(g)) {
        const u64 a = effective_address(g, *memory);
        u64 target = 0;
        if (!in_window(a, 8)) {
            return a < data_address - 8 || a >= absent_address; // the read faults
        }
        std::memcpy(&target, &c.start.window[a - window_address], g.operands[0].size == 0 ? 8 : 8);
        return is_safe_target(g, target);
    }
    return is_safe_target(g, register_value(c, g.operands[0].reg.value));
}

} // namespace nestor::test
