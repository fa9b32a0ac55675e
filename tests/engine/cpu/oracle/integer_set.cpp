// Tables of the integer oracle.
#include "tests/engine/cpu/oracle/integer_set.hpp"

#include <cstring>

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
bool writable(u64 a) { return a >= data_address && a < read_only_address - 8; }
bool is_compare_string(const Generated& g) {
    return g.insn.meta.category == ZYDIS_CATEGORY_STRINGOP &&
           (is(g, ZYDIS_MNEMONIC_CMPSB, ZYDIS_MNEMONIC_CMPSW) ||
            is(g, ZYDIS_MNEMONIC_CMPSD, ZYDIS_MNEMONIC_CMPSQ));
}

// Whom a row is about.
constexpr unsigned amd = 1u << static_cast<unsigned>(Vendor::amd);
constexpr unsigned intel = 1u << static_cast<unsigned>(Vendor::intel);
constexpr unsigned qemu = 1u << static_cast<unsigned>(Vendor::qemu);
constexpr unsigned all = amd | intel | qemu;

/// Of an indirect CALL of 64 bits that reads its target from a register or the window, else 0.
u64 call_target(const Generated& g) {
    u64 target = 0;
    if (g.operands[0].type == ZYDIS_OPERAND_TYPE_REGISTER) {
        target = register_value(g.c, g.operands[0].reg.value);
    } else if (g.operands[0].type == ZYDIS_OPERAND_TYPE_MEMORY) {
        const u64 a = effective_address(g, g.operands[0]);
        if (a >= window_address && a + 8 <= window_address + window_size) {
            std::memcpy(&target, &g.c.start.window[a - window_address], 8);
        }
    }
    return target;
}

struct VendorDifference {
    const char* reason;
    unsigned judges;
    Predicate applies;
};
const VendorDifference vendor_differences[] = {
    {"near branch with an operand-size prefix in 64-bit mode: Intel ignores it, AMD obeys it", amd,
     [](const Generated& g) {
         return !g.c.mode32 && g.insn.meta.branch_type != ZYDIS_BRANCH_TYPE_NONE &&
                has(g, ZYDIS_ATTRIB_HAS_OPERANDSIZE);
     }},
    {"SHLD and SHRD of 16 bits by more than 16: undefined result (SDM 2B SHLD)", all,
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
     amd,
     [](const Generated& g) {
         return is(g, ZYDIS_MNEMONIC_LOOPE, ZYDIS_MNEMONIC_LOOPNE) &&
                (g.c.code[0] == 0xf2 || g.c.code[0] == 0xf3 || g.c.code[1] == 0xf2 ||
                 g.c.code[1] == 0xf3);
     }},
    {"CALL to a non-canonical address: Intel's has stored the return address when it faults; by "
     "SDM "
     "2A CALL it checks first",
     intel,
     [](const Generated& g) {
         return g.insn.mnemonic == ZYDIS_MNEMONIC_CALL && !g.insn.raw.imm[0].is_relative &&
                !is_canonical(call_target(g));
     }},
    {"MOVSXD with a 16-bit destination: Intel reads 16 bits (SDM 2B MOVSXD), AMD 32; Cpu does as "
     "AMD, which shows where the other 16 are absent",
     intel,
     [](const Generated& g) {
         return g.insn.mnemonic == ZYDIS_MNEMONIC_MOVSXD && g.operands[0].size == 16 &&
                g.insn.raw.modrm.mod != 3;
     }},
    {"F3 90 with REX.B: Intel's is PAUSE, AMD's XCHG; Cpu does as AMD", intel,
     [](const Generated& g) {
         return g.insn.mnemonic == ZYDIS_MNEMONIC_PAUSE && (g.insn.raw.rex.B != 0);
     }},
    {"CALL to a non-canonical address with a stack that faults: Intel checks the target first "
     "(SDM 2A CALL), AMD pushes first",
     amd,
     [](const Generated& g) {
         return g.insn.mnemonic == ZYDIS_MNEMONIC_CALL && !mapped(g.c.start.gpr[4]);
     }},
    {"0F 0D with a register operand: NOP on Intel, #UD on AMD and QEMU", amd | qemu,
     [](const Generated& g) {
         return g.insn.opcode_map == ZYDIS_OPCODE_MAP_0F && g.insn.opcode == 0x0d &&
                g.insn.raw.modrm.mod == 3;
     }},
    {"repeated CMPS or SCAS that faults after some iterations: Intel leaves the flags as they were "
     "(SDM 2B REP), AMD and QEMU have those of the last comparison",
     amd | qemu,
     [](const Generated& g) {
         if (g.insn.meta.category != ZYDIS_CATEGORY_STRINGOP ||
             !has(g, ZYDIS_ATTRIB_HAS_REPE | ZYDIS_ATTRIB_HAS_REPNE)) {
             return false;
         }
         const bool source = is_compare_string(g) && !mapped(g.c.start.gpr[6]);
         return source || !mapped(g.c.start.gpr[7]);
     }},
    {"POPA that faults in the middle: which registers are loaded by then is not architectural", all,
     [](const Generated& g) {
         return is(g, ZYDIS_MNEMONIC_POPA, ZYDIS_MNEMONIC_POPAD) && !mapped(g.c.start.gpr[4]);
     }},
    {"CMPS whose two operands both fault: the order of the accesses is not architectural", all,
     [](const Generated& g) {
         return is_compare_string(g) && !mapped(g.c.start.gpr[6]) && !mapped(g.c.start.gpr[7]);
     }},
    {"PUSHA that faults: QEMU names the address of its last store, which it does first", qemu,
     [](const Generated& g) {
         return is(g, ZYDIS_MNEMONIC_PUSHA, ZYDIS_MNEMONIC_PUSHAD) && !mapped(g.c.start.gpr[4]);
     }},
    {"RET that releases 32 KiB or more: QEMU 7.2 takes the count as signed (SDM 2B RET: unsigned)",
     qemu,
     [](const Generated& g) {
         return g.insn.mnemonic == ZYDIS_MNEMONIC_RET && g.insn.raw.imm[0].size == 16 &&
                (g.insn.raw.imm[0].value.u & 0x8000) != 0;
     }},
    {"TEST as F6 /1 or F7 /1, which both vendors execute: #UD in QEMU", qemu,
     [](const Generated& g) {
         return g.insn.mnemonic == ZYDIS_MNEMONIC_TEST && (g.insn.opcode & 0xfe) == 0xf6 &&
                g.insn.raw.modrm.reg == 1;
     }},
    {"BSWAP of 16 bits: undefined result (SDM 2A BSWAP)", qemu,
     [](const Generated& g) {
         return g.insn.mnemonic == ZYDIS_MNEMONIC_BSWAP && g.operands[0].size == 16;
     }},
    {"0F 18 /3 with a register operand, which is a NOP (SDM 2B NOP): #UD in QEMU", qemu,
     [](const Generated& g) {
         return g.insn.opcode_map == ZYDIS_OPCODE_MAP_0F && g.insn.opcode == 0x18 &&
                g.insn.raw.modrm.mod == 3;
     }},
    {"RCL and RCR of memory that faults: QEMU has changed CF by then", qemu,
     [](const Generated& g) {
         return is(g, ZYDIS_MNEMONIC_RCL, ZYDIS_MNEMONIC_RCR) && g.insn.raw.modrm.mod != 3 &&
                !writable(effective_address(g, g.operands[0]));
     }},
    {"BLSI: QEMU 7.2 has CF the other way round (SDM 2A BLSI)", qemu,
     [](const Generated& g) { return g.insn.mnemonic == ZYDIS_MNEMONIC_BLSI; }},
};

} // namespace

bool differs_by_vendor(const Generated& g, Vendor judge) {
    for (const VendorDifference& d : vendor_differences) {
        if ((d.judges >> static_cast<unsigned>(judge) & 1) != 0 && d.applies(g)) {
            return true;
        }
    }
    return false;
}

} // namespace nestor::test
