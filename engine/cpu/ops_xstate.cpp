// Instructions about state as a whole: dispatch of the save areas, XCR0, MXCSR, EMMS, VZEROALL.
// SDM 1 chapter 13.
#include "engine/cpu/simd.hpp"
#include "engine/cpu/x87.hpp"
#include "engine/cpu/xstate.hpp"

namespace nestor::cpu {

namespace {

using arch::Exception;

bool xgetbv(Cpu& cpu, const Op*) {
    if ((cpu.s.cr4 & arch::cr4::osxsave) == 0) {
        return cpu.set_fault(Exception::ud, 0);
    }
    const u32 which = static_cast<u32>(cpu.s.gpr[1]);
    if (which > 1) {
        return cpu.set_fault(Exception::gp, 0);
    }
    const u64 value = which == 0 ? cpu.s.xcr0 : cpu.s.xcr0 & xstate::in_use(cpu);
    cpu.s.gpr[0] = static_cast<u32>(value);
    cpu.s.gpr[2] = value >> 32;
    return true;
}

const Op* xsetbv(Cpu& cpu, const Op* op) {
    if ((cpu.s.cr4 & arch::cr4::osxsave) == 0) {
        return cpu.raise(op, Exception::ud);
    }
    if (cpu.cpl != 0) {
        return cpu.raise(op, Exception::gp, 0);
    }
    return cpu.vm_exit(op, arch::ExitReason::xsetbv); // SDM 3C 26.1.2: unconditional
}

bool ldmxcsr(Cpu& cpu, const Op* op) {
    u32 value;
    if (!cpu.load(op, value)) {
        return false;
    }
    if ((value & ~xstate::mxcsr_mask) != 0) {
        return cpu.set_fault(Exception::gp, 0);
    }
    cpu.s.mxcsr = value;
    return true;
}

bool stmxcsr(Cpu& cpu, const Op* op) { return cpu.store(op, cpu.s.mxcsr); }

bool emms(Cpu& cpu, const Op*) {
    if (simd::mf_pending(cpu)) {
        return cpu.set_fault(Exception::mf, 0);
    }
    simd::enter_mmx(cpu);
    cpu.s.x87.empty_mask = 0xff;
    return true;
}

template <unsigned first_word>
bool vzero(Cpu& cpu, const Op*) {
    for (unsigned i = 0; i < xstate::vector_count(cpu); ++i) {
        for (unsigned word = first_word; word < 4; ++word) {
            cpu.s.vector[4 * i + word] = 0;
        }
    }
    return true;
}

template <bool (*body)(Cpu&, const Op*)>
[[gnu::noinline]] bool run_body(Cpu& cpu, const Op* op) {
    return body(cpu, op);
}
/// A handler from a body that says whether the instruction is done.
template <bool (*body)(Cpu&, const Op*)>
const Op* handler(Cpu& cpu, const Op* op) {
    return run_body<body>(cpu, op) ? next(cpu, op) : cpu.abandon(op);
}

const Op* raise_nm(Cpu& cpu, const Op* op) { return cpu.raise(op, Exception::nm); }

/// Sets the handler, unless the unit is off. Always true.
bool set(Emit& e, UnitState unit, OpFn fn) {
    for (unsigned i = 0; i < e.d.insn.operand_count; ++i) {
        if (e.is_mem(i)) {
            e.set_memory(i);
            break;
        }
    }
    e.op.imm = e.mode.is64() && e.d.insn.raw.rex.W != 0 ? 1 : 0;
    e.op.fn = fn;
    if (unit == UnitState::ud) {
        emit_undefined(e);
    } else if (unit == UnitState::nm) {
        e.op.fn = raise_nm;
        e.ends_block = true;
    }
    return true;
}

bool emit_save_area(Emit& e) {
    const UnitState x87 = e.mode.unit(Mode::x87_shift);
    switch (e.mnemonic()) {
    case ZYDIS_MNEMONIC_FXSAVE:
    case ZYDIS_MNEMONIC_FXSAVE64:
        return set(e, x87, handler<xstate::fxsave>);
    case ZYDIS_MNEMONIC_FXRSTOR:
    case ZYDIS_MNEMONIC_FXRSTOR64:
        return set(e, x87, handler<xstate::fxrstor>);
    case ZYDIS_MNEMONIC_XSAVE:
    case ZYDIS_MNEMONIC_XSAVE64:
        return set(e, UnitState::ok, handler<xstate::xsave>);
    case ZYDIS_MNEMONIC_XSAVEOPT:
    case ZYDIS_MNEMONIC_XSAVEOPT64:
        return set(e, UnitState::ok, handler<xstate::xsaveopt>);
    case ZYDIS_MNEMONIC_XSAVEC:
    case ZYDIS_MNEMONIC_XSAVEC64:
        return set(e, UnitState::ok, handler<xstate::xsavec>);
    case ZYDIS_MNEMONIC_XSAVES:
    case ZYDIS_MNEMONIC_XSAVES64:
        return set(e, UnitState::ok, handler<xstate::xsaves>);
    case ZYDIS_MNEMONIC_XRSTOR:
    case ZYDIS_MNEMONIC_XRSTOR64:
        return set(e, UnitState::ok, handler<xstate::xrstor>);
    case ZYDIS_MNEMONIC_XRSTORS:
    case ZYDIS_MNEMONIC_XRSTORS64:
        return set(e, UnitState::ok, handler<xstate::xrstors>);
    default:
        return false;
    }
}

} // namespace

bool emit_xstate(Emit& e) {
    switch (e.mnemonic()) {
    case ZYDIS_MNEMONIC_XGETBV:
        return set(e, UnitState::ok, handler<xgetbv>);
    case ZYDIS_MNEMONIC_XSETBV:
        e.ends_block = true;
        return set(e, UnitState::ok, xsetbv);
    case ZYDIS_MNEMONIC_LDMXCSR:
        return set(e, e.mode.unit(Mode::sse_shift), handler<ldmxcsr>);
    case ZYDIS_MNEMONIC_VLDMXCSR:
        return set(e, e.mode.unit(Mode::avx_shift), handler<ldmxcsr>);
    case ZYDIS_MNEMONIC_STMXCSR:
        return set(e, e.mode.unit(Mode::sse_shift), handler<stmxcsr>);
    case ZYDIS_MNEMONIC_VSTMXCSR:
        return set(e, e.mode.unit(Mode::avx_shift), handler<stmxcsr>);
    case ZYDIS_MNEMONIC_EMMS:
        return set(e, e.mode.unit(Mode::mmx_shift), handler<emms>);
    case ZYDIS_MNEMONIC_VZEROALL:
        return set(e, e.mode.unit(Mode::avx_shift), handler<vzero<0>>);
    case ZYDIS_MNEMONIC_VZEROUPPER:
        return set(e, e.mode.unit(Mode::avx_shift), handler<vzero<2>>);
    default:
        return emit_save_area(e);
    }
}

} // namespace nestor::cpu
