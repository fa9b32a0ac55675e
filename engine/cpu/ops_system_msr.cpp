// Model-specific registers that are silicon, time-stamp counter, performance counters, random
// numbers, protection keys (SDM 2; MSRs: SDM 4).
//
// Owns nothing. RDMSR and WRMSR exit to L0 unless the MSR bitmap passes the index through and the
// silicon holds the register. What the random instructions return is state (xoshiro256++).
#include "engine/arch/memory_type.hpp"
#include "engine/cpu/package.hpp"
#include "engine/cpu/system.hpp"
#include "engine/cpu/virtual_apic.hpp"
#include "engine/cpu/vmx_memory.hpp"

namespace nestor::cpu {

using namespace arch;

namespace {

namespace msr {
constexpr u32 tsc = 0x10, sysenter_cs = 0x174, sysenter_esp = 0x175, sysenter_eip = 0x176,
              pat = 0x277, xss = 0xda0, efer = 0xc0000080, star = 0xc0000081, lstar = 0xc0000082,
              cstar = 0xc0000083, fmask = 0xc0000084, fs_base = 0xc0000100, gs_base = 0xc0000101,
              kernel_gs_base = 0xc0000102, tsc_aux = 0xc0000103;
} // namespace msr

/// A register that holds a canonical address (SDM 2 WRMSR), or null.
u64* address_register(Cpu& cpu, u32 index) {
    switch (index) {
    case msr::sysenter_esp:
        return &cpu.s.sysenter_esp;
    case msr::sysenter_eip:
        return &cpu.s.sysenter_eip;
    case msr::lstar:
        return &cpu.s.lstar;
    case msr::cstar:
        return &cpu.s.cstar;
    case msr::fs_base:
        return &cpu.seg(Seg::fs).base;
    case msr::gs_base:
        return &cpu.seg(Seg::gs).base;
    case msr::kernel_gs_base:
        return &cpu.s.kernel_gs_base;
    default:
        return nullptr;
    }
}

MsrResult write_efer(Cpu& cpu, u64 value) {
    constexpr u64 known = efer::sce | efer::lme | efer::lma | efer::nxe;
    if ((value & (~known | cpu.package.features().efer_reserved)) != 0) {
        return MsrResult::gp;
    }
    const u64 changed = cpu.s.efer ^ value;
    if ((changed & efer::lme) != 0 && (cpu.s.cr0 & cr0::pg) != 0) {
        return MsrResult::gp; // SDM 3A 10.8.5
    }
    cpu.s.efer = (value & ~efer::lma) | (cpu.s.efer & efer::lma);
    if ((changed & efer::nxe) != 0) {
        cpu.flush_tlb();
    }
    cpu.update_mode();
    return MsrResult::ok;
}

} // namespace

MsrResult read_silicon_msr(Cpu& cpu, u32 index, u64& value) {
    if (const u64* address = address_register(cpu, index)) {
        value = *address;
        return MsrResult::ok;
    }
    switch (index) {
    case msr::sysenter_cs:
        value = cpu.s.sysenter_cs;
        break;
    case msr::pat:
        value = cpu.s.pat;
        break;
    case msr::efer:
        value = cpu.s.efer;
        break;
    case msr::star:
        value = cpu.s.star;
        break;
    case msr::fmask:
        value = cpu.s.fmask;
        break;
    case msr::tsc_aux:
        value = cpu.s.tsc_aux;
        break;
    case msr::xss:
        value = cpu.s.xss;
        break;
    default:
        return MsrResult::not_silicon;
    }
    return MsrResult::ok;
}

MsrResult write_silicon_msr(Cpu& cpu, u32 index, u64 value) {
    if (u64* address = address_register(cpu, index)) {
        if (!canonical(cpu, value)) {
            return MsrResult::gp;
        }
        *address = value;
        return MsrResult::ok;
    }
    switch (index) {
    case msr::sysenter_cs:
        cpu.s.sysenter_cs = static_cast<u32>(value);
        return MsrResult::ok;
    case msr::pat:
        if (!valid_pat(value)) {
            return MsrResult::gp;
        }
        cpu.s.pat = value;
        return MsrResult::ok;
    case msr::efer:
        return write_efer(cpu, value);
    case msr::star:
        cpu.s.star = value;
        return MsrResult::ok;
    case msr::fmask:
        if (value >> 32 != 0) {
            return MsrResult::gp;
        }
        cpu.s.fmask = value;
        return MsrResult::ok;
    case msr::tsc_aux:
        if (value >> 32 != 0) {
            return MsrResult::gp;
        }
        cpu.s.tsc_aux = static_cast<u32>(value);
        return MsrResult::ok;
    case msr::xss:
        if ((value & ~cpu.package.features().xss_allowed) != 0) {
            return MsrResult::gp; // SDM 1 13.11
        }
        cpu.s.xss = value;
        return MsrResult::ok;
    default:
        return MsrResult::not_silicon;
    }
}

namespace {

/// SDM 3C 25.6.9: four bitmaps of 1 KiB: read low, read high, write low, write high. False: the
/// page of the bitmap is needed.
bool msr_exits(Cpu& cpu, u32 index, bool write, bool& exits) {
    const Controls& c = cpu.controls;
    const u32 low = index & 0x1fff;
    const bool high = index >= 0xc0000000;
    exits = true;
    if ((c.proc & proc_control::use_msr_bitmaps) == 0 ||
        (low != index && (0xc0000000 | low) != index)) {
        return true;
    }
    const unsigned byte = (write ? 2048u : 0u) + (high ? 1024u : 0u) + low / 8;
    u8 here = 0;
    if (c.own_msr_bitmap != nullptr) {
        here = c.own_msr_bitmap[byte];
    } else if (!read_structure(cpu, c.msr_bitmap + byte, &here, 1)) {
        return false;
    }
    exits = (here >> (low & 7) & 1) != 0;
    return true;
}

/// The silicon does not hold the register: L0 does what the instruction does.
const Op* leave_to_l0(Cpu& cpu, const Op* op, ExitReason reason) {
    cpu.vm_exit(op, reason);
    cpu.exit.assist = true;
    return nullptr;
}

u64 edx_eax(Cpu& cpu) { return static_cast<u32>(cpu.gpr(Gpr::rax)) | cpu.gpr(Gpr::rdx) << 32; }
void set_edx_eax(Cpu& cpu, u64 value) {
    cpu.gpr(Gpr::rax) = static_cast<u32>(value);
    cpu.gpr(Gpr::rdx) = value >> 32;
}

const Op* op_rdmsr(Cpu& cpu, const Op* op) {
    NESTOR_OR_STOP(cpu, op, privileged(cpu));
    const u32 index = static_cast<u32>(cpu.gpr(Gpr::rcx));
    u64 value = 0;
    bool exits = false;
    NESTOR_OR_STOP(cpu, op, msr_exits(cpu, index, false, exits));
    if (exits) {
        return cpu.vm_exit(op, ExitReason::rdmsr);
    }
    switch (read_apic_msr(cpu, index, value)) {
    case ApicMsr::not_virtual:
        break;
    case ApicMsr::stopped:
        return cpu.abandon(op);
    default:
        set_edx_eax(cpu, value);
        return op;
    }
    if (index == msr::tsc) {
        value = cpu.tsc_at(op); // SDM 3C 26.3: offset and multiplier apply
    } else if (read_silicon_msr(cpu, index, value) == MsrResult::not_silicon) {
        return leave_to_l0(cpu, op, ExitReason::rdmsr);
    }
    set_edx_eax(cpu, value);
    return op;
}

const Op* op_wrmsr(Cpu& cpu, const Op* op) {
    NESTOR_OR_STOP(cpu, op, privileged(cpu));
    const u32 index = static_cast<u32>(cpu.gpr(Gpr::rcx));
    bool exits = false;
    NESTOR_OR_STOP(cpu, op, msr_exits(cpu, index, true, exits));
    if (exits) {
        return cpu.vm_exit(op, ExitReason::wrmsr);
    }
    switch (write_apic_msr(cpu, index, edx_eax(cpu))) {
    case ApicMsr::not_virtual:
        break;
    case ApicMsr::done:
        cpu.leave(op);
        finish_apic_msr(cpu, index);
        return nullptr;
    case ApicMsr::gp:
        return cpu.raise(op, Exception::gp);
    case ApicMsr::stopped:
        return cpu.abandon(op);
    }
    const u64 following = cpu.next_rip(op);
    switch (write_silicon_msr(cpu, index, edx_eax(cpu))) {
    case MsrResult::ok:
        return index == msr::efer ? cpu.leave_to(op, following) : op;
    case MsrResult::gp:
        return cpu.raise(op, Exception::gp);
    case MsrResult::not_silicon:
        break;
    }
    return leave_to_l0(cpu, op, ExitReason::wrmsr);
}

// --- time ---------------------------------------------------------------------------------------

bool tsc_allowed(Cpu& cpu) {
    return cpu.cpl == 0 || (cpu.s.cr4 & cr4::tsd) == 0 || cpu.set_fault(Exception::gp, 0);
}

const Op* op_rdtsc(Cpu& cpu, const Op* op) {
    NESTOR_OR_STOP(cpu, op, tsc_allowed(cpu));
    if ((cpu.controls.proc & proc_control::rdtsc_exiting) != 0) {
        return cpu.vm_exit(op, ExitReason::rdtsc);
    }
    set_edx_eax(cpu, cpu.tsc_at(op));
    return op;
}

const Op* op_rdtscp(Cpu& cpu, const Op* op) {
    if ((cpu.controls.proc2 & proc2_control::enable_rdtscp) == 0) {
        return cpu.raise(op, Exception::ud); // SDM 3C 26.3: not enabled in non-root operation
    }
    NESTOR_OR_STOP(cpu, op, tsc_allowed(cpu));
    if ((cpu.controls.proc & proc_control::rdtsc_exiting) != 0) {
        return cpu.vm_exit(op, ExitReason::rdtscp);
    }
    set_edx_eax(cpu, cpu.tsc_at(op));
    cpu.gpr(Gpr::rcx) = cpu.s.tsc_aux;
    return op;
}

const Op* op_rdpid(Cpu& cpu, const Op* op) {
    if ((cpu.controls.proc2 & proc2_control::enable_rdtscp) == 0) {
        return cpu.raise(op, Exception::ud);
    }
    cpu.s.gpr[op->dst / 8u] = cpu.s.tsc_aux;
    return op;
}

/// The counters are derived from counts, which L0 knows: always an exit, asked for or not.
const Op* op_rdpmc(Cpu& cpu, const Op* op) {
    if (cpu.cpl != 0 && (cpu.s.cr4 & cr4::pce) == 0) {
        return cpu.raise(op, Exception::gp);
    }
    cpu.vm_exit(op, ExitReason::rdpmc);
    cpu.exit.assist = (cpu.controls.proc & proc_control::rdpmc_exiting) == 0;
    return nullptr;
}

// --- random numbers -----------------------------------------------------------------------------

u64 rotl(u64 v, unsigned n) { return v << n | v >> (64 - n); }

/// xoshiro256++ 1.0.
u64 random(Cpu& cpu) {
    auto& r = cpu.s.random;
    const u64 result = rotl(r[0] + r[3], 23) + r[0];
    const u64 t = r[1] << 17;
    r[2] ^= r[0];
    r[3] ^= r[1];
    r[1] ^= r[2];
    r[0] ^= r[3];
    r[2] ^= t;
    r[3] = rotl(r[3], 45);
    return result;
}

template <class T, bool seed>
const Op* op_random(Cpu& cpu, const Op* op) {
    const u32 control = seed ? proc2_control::rdseed_exiting : proc2_control::rdrand_exiting;
    if ((cpu.controls.proc2 & control) != 0) {
        // Instruction information: register in 6:3, size in 12:11 (SDM 3C table 28-12).
        cpu.vm_exit(op, seed ? ExitReason::rdseed : ExitReason::rdrand);
        cpu.exit.instruction_info = (op->dst / 8u) << 3 | (sizeof(T) / 4u) << 11;
        return nullptr;
    }
    cpu.set_reg<T>(op->dst, static_cast<T>(random(cpu)));
    cpu.set_flags(rflags::arithmetic, rflags::cf);
    return op;
}

template <bool seed>
bool emit_random(Emit& e) {
    e.op.dst = Emit::reg_offset(e.operand(0).reg.value);
    e.op.fn = e.size(0) == 8   ? then_next<op_random<u64, seed>>
              : e.size(0) == 4 ? then_next<op_random<u32, seed>>
                               : then_next<op_random<u16, seed>>;
    return true;
}

// --- protection keys ----------------------------------------------------------------------------

const Op* op_rdpkru(Cpu& cpu, const Op* op) {
    if ((cpu.s.cr4 & cr4::pke) == 0) {
        return cpu.raise(op, Exception::ud);
    }
    if (static_cast<u32>(cpu.gpr(Gpr::rcx)) != 0) {
        return cpu.raise(op, Exception::gp);
    }
    set_edx_eax(cpu, cpu.s.pkru);
    return op;
}

const Op* op_wrpkru(Cpu& cpu, const Op* op) {
    if ((cpu.s.cr4 & cr4::pke) == 0) {
        return cpu.raise(op, Exception::ud);
    }
    if (static_cast<u32>(cpu.gpr(Gpr::rcx)) != 0 || static_cast<u32>(cpu.gpr(Gpr::rdx)) != 0) {
        return cpu.raise(op, Exception::gp);
    }
    cpu.s.pkru = static_cast<u32>(cpu.gpr(Gpr::rax));
    cpu.flush_tlb(); // TLB entries hold the rights that the keys gave
    return op;
}

} // namespace

bool emit_system_msr(Emit& e) {
    switch (e.mnemonic()) {
    case ZYDIS_MNEMONIC_RDMSR:
        e.op.fn = then_next<op_rdmsr>;
        return true;
    case ZYDIS_MNEMONIC_WRMSR:
        e.op.fn = then_next<op_wrmsr>;
        return true;
    case ZYDIS_MNEMONIC_RDTSC:
        e.op.fn = then_next<op_rdtsc>;
        return true;
    case ZYDIS_MNEMONIC_RDTSCP:
        e.op.fn = then_next<op_rdtscp>;
        return true;
    case ZYDIS_MNEMONIC_RDPID:
        e.op.dst = Emit::reg_offset(e.operand(0).reg.value);
        e.op.fn = then_next<op_rdpid>;
        return true;
    case ZYDIS_MNEMONIC_RDPMC:
        return ends_with(e, op_rdpmc);
    case ZYDIS_MNEMONIC_RDRAND:
        return emit_random<false>(e);
    case ZYDIS_MNEMONIC_RDSEED:
        return emit_random<true>(e);
    case ZYDIS_MNEMONIC_RDPKRU:
        e.op.fn = then_next<op_rdpkru>;
        return true;
    case ZYDIS_MNEMONIC_WRPKRU:
        e.op.fn = then_next<op_wrpkru>;
        return true;
    default:
        return false;
    }
}

} // namespace nestor::cpu
