// Tables of the integer oracle.
#include "tests/engine/cpu/oracle/integer_set.hpp"

#include "engine/arch/bits.hpp"

namespace nestor::test {

using namespace arch;

namespace {

bool is_general(ZydisRegister reg) {
    switch (ZydisRegisterGetClass(reg)) {
    case ZYDIS_REGCLASS_GPR8:
    case ZYDIS_REGCLASS_GPR16:
    case ZYDIS_REGCLASS_GPR32:
    case ZYDIS_REGCLASS_GPR64:
    case ZYDIS_REGCLASS_FLAGS:
    case ZYDIS_REGCLASS_IP:
        return true;
    default:
        return false;
    }
}

bool is_far(const ZydisDecodedInstruction& insn) {
    return insn.meta.branch_type == ZYDIS_BRANCH_TYPE_FAR;
}

} // namespace

bool is_integer(const ZydisDecodedInstruction& insn, const ZydisDecodedOperand* operands) {
    if (is_far(insn)) {
        return false;
    }
    switch (insn.meta.isa_set) {
    case ZYDIS_ISA_SET_I86:
    case ZYDIS_ISA_SET_I186:
    case ZYDIS_ISA_SET_I286REAL:
    case ZYDIS_ISA_SET_I386:
    case ZYDIS_ISA_SET_I486:
    case ZYDIS_ISA_SET_I486REAL:
    case ZYDIS_ISA_SET_PENTIUMREAL:
    case ZYDIS_ISA_SET_PENTIUMMMX:
    case ZYDIS_ISA_SET_PPRO:
    case ZYDIS_ISA_SET_CMOV:
    case ZYDIS_ISA_SET_FAT_NOP:
    case ZYDIS_ISA_SET_LAHF:
    case ZYDIS_ISA_SET_LONGMODE:
    case ZYDIS_ISA_SET_CMPXCHG16B:
    case ZYDIS_ISA_SET_MOVBE:
    case ZYDIS_ISA_SET_POPCNT:
    case ZYDIS_ISA_SET_SSE42:
    case ZYDIS_ISA_SET_LZCNT:
    case ZYDIS_ISA_SET_BMI1:
    case ZYDIS_ISA_SET_BMI2:
    case ZYDIS_ISA_SET_ADOX_ADCX:
    case ZYDIS_ISA_SET_PREFETCH_NOP:
    case ZYDIS_ISA_SET_SSE_PREFETCH:
    case ZYDIS_ISA_SET_PAUSE:
        break;
    default:
        return insn.mnemonic == ZYDIS_MNEMONIC_MOVNTI;
    }
    switch (insn.meta.category) {
    case ZYDIS_CATEGORY_INTERRUPT:
    case ZYDIS_CATEGORY_IO:
    case ZYDIS_CATEGORY_IOSTRINGOP:
    case ZYDIS_CATEGORY_SYSCALL:
    case ZYDIS_CATEGORY_SYSRET:
    case ZYDIS_CATEGORY_SYSTEM:
    case ZYDIS_CATEGORY_SEGOP:
        return false;
    default:
        break;
    }
    switch (insn.mnemonic) {
    case ZYDIS_MNEMONIC_CLI:
    case ZYDIS_MNEMONIC_STI:
    case ZYDIS_MNEMONIC_PUSHF:
    case ZYDIS_MNEMONIC_PUSHFD:
    case ZYDIS_MNEMONIC_PUSHFQ:
    case ZYDIS_MNEMONIC_POPF:
    case ZYDIS_MNEMONIC_POPFD:
    case ZYDIS_MNEMONIC_POPFQ:
    case ZYDIS_MNEMONIC_CPUID:
    case ZYDIS_MNEMONIC_RDTSC:
    case ZYDIS_MNEMONIC_RDPMC:
    case ZYDIS_MNEMONIC_ARPL:
    case ZYDIS_MNEMONIC_LAR:
    case ZYDIS_MNEMONIC_LSL:
    case ZYDIS_MNEMONIC_VERR:
    case ZYDIS_MNEMONIC_VERW:
    case ZYDIS_MNEMONIC_IRET:
    case ZYDIS_MNEMONIC_IRETD:
    case ZYDIS_MNEMONIC_IRETQ:
    case ZYDIS_MNEMONIC_UD0: // AMD's has no ModRM byte
    case ZYDIS_MNEMONIC_UD1:
        return false;
    default:
        break;
    }
    for (unsigned i = 0; i < insn.operand_count; ++i) {
        if (operands[i].type == ZYDIS_OPERAND_TYPE_REGISTER && !is_general(operands[i].reg.value)) {
            return false;
        }
    }
    return true;
}

u64 undefined_flags(const Generated& g) {
    u64 undefined = g.insn.cpu_flags == nullptr ? 0 : g.insn.cpu_flags->undefined;
    switch (g.insn.mnemonic) {
    case ZYDIS_MNEMONIC_SHL:
    case ZYDIS_MNEMONIC_SHR:
    case ZYDIS_MNEMONIC_SAR:
    case ZYDIS_MNEMONIC_SHLD:
    case ZYDIS_MNEMONIC_SHRD:
    case ZYDIS_MNEMONIC_ROL:
    case ZYDIS_MNEMONIC_ROR:
    case ZYDIS_MNEMONIC_RCL:
    case ZYDIS_MNEMONIC_RCR: {
        const auto& last = g.operands[g.insn.operand_count_visible - 1];
        const u64 mask = g.operands[0].size == 64 ? 63 : 31;
        const u64 count =
            (last.type == ZYDIS_OPERAND_TYPE_IMMEDIATE ? last.imm.value.u : g.c.start.gpr[1]) &
            mask;
        const bool rotate = g.insn.meta.category == ZYDIS_CATEGORY_ROTATE;
        undefined = count == 0 ? 0 : (rotate ? 0 : rflags::af) | (count == 1 ? 0 : rflags::of);
        // Beyond the operand's width CF of a shift is undefined (SDM 2B SAL).
        if (!rotate && count >= g.operands[0].size && g.insn.mnemonic != ZYDIS_MNEMONIC_SAR) {
            undefined |= rflags::cf;
        }
        break;
    }
    default:
        break;
    }
    return undefined;
}

namespace {

using Predicate = bool (*)(const Generated&);

bool has(const Generated& g, u64 attribute) { return (g.insn.attributes & attribute) != 0; }
bool is(const Generated& g, ZydisMnemonic a, ZydisMnemonic b) {
    return g.insn.mnemonic == a || g.insn.mnemonic == b;
}
bool mapped(u64 a) { return a >= data_address + 256 && a < absent_address - 256; }
bool is_compare_string(const Generated& g) {
    return g.insn.meta.category == ZYDIS_CATEGORY_STRINGOP &&
           (is(g, ZYDIS_MNEMONIC_CMPSB, ZYDIS_MNEMONIC_CMPSW) ||
            is(g, ZYDIS_MNEMONIC_CMPSD, ZYDIS_MNEMONIC_CMPSQ));
}

struct VendorDifference {
    const char* reason;
    Predicate applies;
};
const VendorDifference vendor_differences[] = {
    {"near branch with an operand-size prefix in 64-bit mode: Intel ignores it, AMD obeys it",
     [](const Generated& g) {
         return !g.c.mode32 && g.insn.meta.branch_type != ZYDIS_BRANCH_TYPE_NONE &&
                has(g, ZYDIS_ATTRIB_HAS_OPERANDSIZE);
     }},
    {"SHLD and SHRD of 16 bits by more than 16: undefined result (SDM 2B SHLD)",
     [](const Generated& g) {
         if (!is(g, ZYDIS_MNEMONIC_SHLD, ZYDIS_MNEMONIC_SHRD) || g.operands[0].size != 16) {
             return false;
         }
         const auto& last = g.operands[2];
         return ((last.type == ZYDIS_OPERAND_TYPE_IMMEDIATE ? last.imm.value.u : g.c.start.gpr[1]) &
                 31) > 16;
     }},
    {"LOOPE and LOOPNE with F2 or F3, which is reserved (SDM 2A 2.1.1): AMD takes the condition "
     "from the prefix",
     [](const Generated& g) {
         return is(g, ZYDIS_MNEMONIC_LOOPE, ZYDIS_MNEMONIC_LOOPNE) &&
                (g.c.code[0] == 0xf2 || g.c.code[0] == 0xf3 || g.c.code[1] == 0xf2 ||
                 g.c.code[1] == 0xf3);
     }},
    {"CALL to a non-canonical address with a stack that faults: Intel checks the target first "
     "(SDM 2A CALL), AMD pushes first",
     [](const Generated& g) {
         return g.insn.mnemonic == ZYDIS_MNEMONIC_CALL && !mapped(g.c.start.gpr[4]);
     }},
    {"0F 0D with a register operand: NOP on Intel, #UD on AMD",
     [](const Generated& g) {
         return g.insn.opcode_map == ZYDIS_OPCODE_MAP_0F && g.insn.opcode == 0x0d &&
                g.insn.raw.modrm.mod == 3;
     }},
    {"repeated CMPS or SCAS that faults after some iterations: Intel leaves the flags as they were "
     "(SDM 2B REP), AMD has those of the last comparison",
     [](const Generated& g) {
         if (g.insn.meta.category != ZYDIS_CATEGORY_STRINGOP ||
             !has(g, ZYDIS_ATTRIB_HAS_REPE | ZYDIS_ATTRIB_HAS_REPNE)) {
             return false;
         }
         const bool source = is_compare_string(g) && !mapped(g.c.start.gpr[6]);
         return source || !mapped(g.c.start.gpr[7]);
     }},
    {"POPA that faults in the middle: which registers are loaded by then is not architectural",
     [](const Generated& g) {
         return is(g, ZYDIS_MNEMONIC_POPA, ZYDIS_MNEMONIC_POPAD) && !mapped(g.c.start.gpr[4]);
     }},
    {"CMPS whose two operands both fault: the order of the accesses is not architectural",
     [](const Generated& g) {
         return is_compare_string(g) && !mapped(g.c.start.gpr[6]) && !mapped(g.c.start.gpr[7]);
     }},
};

} // namespace

bool differs_by_vendor(const Generated& g) {
    for (const VendorDifference& d : vendor_differences) {
        if (d.applies(g)) {
            return true;
        }
    }
    return false;
}

} // namespace nestor::test
