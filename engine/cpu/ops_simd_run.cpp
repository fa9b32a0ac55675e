// Running thunks: operands in place where the TLB allows it, MXCSR, #XM, the MMX transition.
//
// The host's MXCSR is at its default (all masked, round to nearest) whenever no thunk runs. While
// the guest's control bits are the default too, nothing is loaded: the thunk refuses to store if a
// flag is set that the guest does not have yet, and the slow path repeats it with clean flags.
// Exceptions are masked on the host always; an unmasked one of the guest is found in the flags
// before anything is stored (SDM 1 11.5.4).
#include <cstring>

#include <xmmintrin.h>

#include "engine/cpu/simd.hpp"
#include "engine/cpu/x87.hpp"

namespace nestor::cpu::simd {

namespace {

constexpr u32 host_mxcsr = 0x1f80;
constexpr u32 exception_flags = 0x3f;
constexpr u32 control_bits = 0xe040; ///< RC, FZ, DAZ
constexpr u32 precomputation = 0x07; ///< IE, DE, ZE
constexpr u32 underflow_flag = 0x10;
constexpr u32 flush_to_zero = 0x8000;

struct Operands {
    void* reg;
    void* rm;
    void* third;
    void* extra;
};

[[gnu::always_inline]] inline u32 attributes(const Op* op) { return static_cast<u32>(op->imm); }

[[gnu::always_inline]] inline Operands operands(Cpu& cpu, const Op* op, void* memory) {
    const u8 extra = static_cast<u8>(attributes(op) >> attr::extra_shift);
    return {at(cpu, op->dst), memory != nullptr ? memory : at(cpu, op->base), at(cpu, op->src),
            at(cpu, extra)};
}

[[gnu::always_inline]] inline u64 call(const Op* op, const Operands& o, u32 forbidden) {
    return reinterpret_cast<ThunkFn>(op->aux)(o.reg, o.rm, o.third, o.extra, forbidden);
}

/// Any nonzero element too small for a normal number?
template <class T>
bool any_subnormal(const u8* bytes, unsigned size, T exponent, T sign) {
    for (unsigned i = 0; i < size; i += sizeof(T)) {
        T v;
        std::memcpy(&v, bytes + i, sizeof v);
        if ((v & exponent) == 0 && (v & static_cast<T>(~sign)) != 0) {
            return true;
        }
    }
    return false;
}

bool tiny_result(u32 a, const u8* bytes) {
    const bool scalar = (a & attr::scalar) != 0;
    const unsigned size = (a & attr::vex) != 0 ? 32 : 16;
    switch (static_cast<Underflow>(a >> attr::underflow_shift & 3)) {
    case Underflow::half:
        return any_subnormal<u16>(bytes, 16, 0x7c00, 0x8000);
    case Underflow::single:
        return any_subnormal<u32>(bytes, scalar ? 4 : size, 0x7f800000, 0x80000000);
    case Underflow::double_:
        return any_subnormal<u64>(bytes, scalar ? 8 : size, u64{0x7ff} << 52, u64{1} << 63);
    case Underflow::none:
        break;
    }
    return false;
}

/// Records the flags and reports #XM, or #UD without CR4.OSXMMEXCPT (SDM 1 11.5.1).
bool raise_xm(Cpu& cpu, u32 raised, u32 unmasked) {
    // A pre-computation exception stops before rounding finds any other (SDM 1 11.5.3).
    const u32 seen = (raised & unmasked & precomputation) != 0 ? raised & precomputation : raised;
    cpu.s.mxcsr |= seen;
    const bool enabled = (cpu.s.cr4 & arch::cr4::osxmmexcpt) != 0;
    return cpu.set_fault(enabled ? arch::Exception::xm : arch::Exception::ud, 0);
}

[[gnu::noinline]] bool run_float_slow(Cpu& cpu, const Op* op, Operands o) {
    const u32 a = attributes(op);
    const u32 guest = cpu.s.mxcsr;
    const u32 unmasked = ~(guest >> 7) & exception_flags;
    // With UE unmasked a tiny result counts also when it is exact, and FZ has no effect
    // (SDM 1 11.5.2.5, 10.2.3.3); it is found by looking at the result.
    const bool find_tiny =
        (unmasked & underflow_flag) != 0 && (a >> attr::underflow_shift & 3) != 0;
    const unsigned size = (a & attr::vex) != 0 ? 32 : 16;
    Bounce result;
    void** const destination = (a & attr::rm_written) != 0 ? &o.rm : &o.reg;
    void* const home = *destination;
    if (find_tiny) {
        std::memcpy(result.bytes, home, size);
        *destination = result.bytes;
    }
    u32 control = host_mxcsr | (guest & control_bits);
    control &= (unmasked & underflow_flag) != 0 ? ~flush_to_zero : ~u32{0};
    _mm_setcsr(control);
    const u32 forbidden = find_tiny ? 0 : unmasked;
    u32 raised = static_cast<u32>(call(op, o, forbidden)) & exception_flags;
    _mm_setcsr(host_mxcsr);
    if (find_tiny && tiny_result(a, result.bytes)) {
        raised |= underflow_flag;
    }
    if (find_tiny && (raised & unmasked) == 0) {
        std::memcpy(home, result.bytes, size);
    }
    if ((raised & unmasked) != 0) {
        return raise_xm(cpu, raised, unmasked);
    }
    cpu.s.mxcsr |= raised;
    return true;
}

[[gnu::always_inline]] inline bool run_float(Cpu& cpu, const Op* op, const Operands& o) {
    const u32 guest = cpu.s.mxcsr;
    if ((guest & ~exception_flags) == host_mxcsr) [[likely]] {
        const u32 forbidden = ~guest & exception_flags;
        if ((static_cast<u32>(call(op, o, forbidden)) & forbidden) == 0) [[likely]] {
            return true;
        }
    }
    return run_float_slow(cpu, op, o);
}

/// Sets what writing an MMX register sets besides it (SDM 1 9.5.1).
void finish_mmx(Cpu& cpu, const Op* op) {
    constexpr u8 first = mmx_slot(0);
    if ((attributes(op) & attr::mmx_reg) != 0) {
        cpu.s.x87.sign_exponent[op->dst - first] = 0xffff;
    }
    if ((attributes(op) & attr::mmx_rm) != 0) {
        cpu.s.x87.sign_exponent[op->base - first] = 0xffff;
    }
}

/// The flags as thunks return them: AH from LAHF, AL from SETO.
void take_flags(Cpu& cpu, u64 ax) {
    using namespace arch;
    cpu.set_flags(rflags::arithmetic,
                  (ax >> 8 & (rflags::arithmetic & 0xff)) | ((ax & 1) != 0 ? rflags::of : 0));
}

enum class Kind : u8 { plain, flags, floating, compare };

template <Kind kind, bool mmx>
[[gnu::always_inline]] inline bool execute(Cpu& cpu, const Op* op, void* memory) {
    if constexpr (mmx) {
        enter_mmx(cpu);
    }
    Operands o = operands(cpu, op, memory);
    if constexpr (kind == Kind::plain) {
        call(op, o, 0);
    } else if constexpr (kind == Kind::flags) {
        take_flags(cpu, call(op, o, 0));
    } else if constexpr (kind == Kind::floating) {
        if (!run_float(cpu, op, o)) [[unlikely]] {
            return false;
        }
    } else {
        u32 flags = 0;
        o.extra = &flags;
        if (!run_float(cpu, op, o)) [[unlikely]] {
            return false;
        }
        take_flags(cpu, flags);
    }
    if constexpr (mmx) {
        finish_mmx(cpu, op);
    }
    return true;
}

template <Kind kind, bool mmx>
[[gnu::noinline]] bool load_slow(Cpu& cpu, const Op* op, u64 address, unsigned size) {
    Bounce bounce;
    return cpu.load_slow(op, address, bounce.bytes, size, Cpu::operand_segment(op)) &&
           execute<kind, mmx>(cpu, op, bounce.bytes);
}

template <Kind kind, bool mmx>
[[gnu::always_inline]] inline bool load(Cpu& cpu, const Op* op) {
    const u32 a = attributes(op);
    const unsigned size = a & attr::size;
    u64 address;
    if (!locate(cpu, op, size, (a & attr::aligned) != 0 ? size : 1, Access::read, address)) {
        return false;
    }
    if (u8* const p = in_place(cpu, address, size, Access::read); p != nullptr) [[likely]] {
        return execute<kind, mmx>(cpu, op, p);
    }
    return load_slow<kind, mmx>(cpu, op, address, size);
}

template <Kind kind, bool mmx>
[[gnu::noinline]] bool store_slow(Cpu& cpu, const Op* op, u64 address, unsigned size) {
    Bounce bounce{};
    const u32 mxcsr = cpu.s.mxcsr;
    // A fault of the access comes before one of the conversion, and neither leaves flags behind.
    if (!cpu.probe_write(op, address, size, Cpu::operand_segment(op)) ||
        !execute<kind, mmx>(cpu, op, bounce.bytes)) {
        return false;
    }
    if (!cpu.store_slow(op, address, bounce.bytes, size, Cpu::operand_segment(op))) {
        cpu.s.mxcsr = mxcsr;
        return false;
    }
    return true;
}

template <Kind kind, bool mmx>
[[gnu::always_inline]] inline bool store(Cpu& cpu, const Op* op) {
    const u32 a = attributes(op);
    const unsigned size = a & attr::size;
    u64 address;
    if (!locate(cpu, op, size, (a & attr::aligned) != 0 ? size : 1, Access::write, address)) {
        return false;
    }
    if constexpr (kind == Kind::plain) {
        if (u8* const p = in_place(cpu, address, size, Access::write); p != nullptr) [[likely]] {
            return execute<kind, mmx>(cpu, op, p);
        }
    }
    return store_slow<kind, mmx>(cpu, op, address, size);
}

template <Kind kind, Form form, bool mmx>
const Op* run(Cpu& cpu, const Op* op) {
    if constexpr (mmx) {
        if (mf_pending(cpu)) [[unlikely]] {
            return cpu.raise(op, arch::Exception::mf);
        }
    }
    bool done;
    if constexpr (form == Form::reg) {
        done = execute<kind, mmx>(cpu, op, nullptr);
    } else if constexpr (form == Form::load) {
        done = load<kind, mmx>(cpu, op);
    } else {
        done = store<kind, mmx>(cpu, op);
    }
    return done ? next(cpu, op) : cpu.abandon(op);
}

template <Kind kind, bool mmx>
OpFn handler(Form form) {
    switch (form) {
    case Form::reg:
        return run<kind, Form::reg, mmx>;
    case Form::load:
        return run<kind, Form::load, mmx>;
    case Form::store:
        break;
    }
    return run<kind, Form::store, mmx>;
}

} // namespace

void enter_mmx(Cpu& cpu) {
    x87::set_top(cpu.s.x87, 0);
    cpu.s.x87.empty_mask = 0;
}

OpFn plain_handler(Form form, bool mmx) {
    return mmx ? handler<Kind::plain, true>(form) : handler<Kind::plain, false>(form);
}
OpFn flags_handler(Form form) { return handler<Kind::flags, false>(form); }
OpFn float_handler(Form form, bool mmx) {
    return mmx ? handler<Kind::floating, true>(form) : handler<Kind::floating, false>(form);
}
OpFn compare_handler(Form form) { return handler<Kind::compare, false>(form); }

} // namespace nestor::cpu::simd
