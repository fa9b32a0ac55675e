// Saving and restoring state: FXSAVE, the XSAVE family, XCR0, MXCSR, EMMS, VZEROALL.
// SDM 1 chapter 13, SDM 1 10.5.
//
// nestor-v1: a component is in use exactly when its content differs from the initial configuration
// (SDM 1 13.6), so XINUSE follows from the registers; the modified optimization is not used; FCS
// and FDS are deprecated and saved as zero. An area is put together in a local image and written
// after all of it was found writable, so that an instruction that faults has written nothing.
#include <algorithm>
#include <cstring>

#include "engine/arch/xstate.hpp"
#include "engine/cpu/simd.hpp"
#include "engine/cpu/x87.hpp"

namespace nestor::cpu {

namespace {

using arch::Exception;
using arch::Seg;

constexpr u64 compacted = u64{1} << 63;
constexpr u32 enable_xsaves = bit<u32>(20); ///< secondary processor-based controls
constexpr u32 mxcsr_mask = 0xffff;
constexpr u32 mxcsr_initial = 0x1f80;
constexpr u64 x87_bit = arch::xcr0::x87, sse_bit = arch::xcr0::sse, avx_bit = arch::xcr0::avx,
              pkru_bit = arch::xcr0::pkru;

/// A memory image of an area, or of its first 512 bytes.
struct Image {
    alignas(64) u8 b[arch::xsave_maximum] = {};

    template <class T>
    [[nodiscard]] T get(u32 at) const {
        T v;
        std::memcpy(&v, b + at, sizeof v);
        return v;
    }
    template <class T>
    void put(u32 at, T v) {
        std::memcpy(b + at, &v, sizeof v);
    }
};

unsigned vector_count(const Cpu& cpu) { return cpu.mode.is64() ? 16 : 8; }

// --- the legacy region
// ----------------------------------------------------------------------------

/// `wide`: REX.W forms, with 64-bit pointers.
void put_x87(const state::X87& f, Image& image, bool wide) {
    image.put(0, f.control);
    image.put(2, f.status);
    image.put(4, static_cast<u8>(~f.empty_mask));
    image.put(6, f.opcode);
    if (wide) {
        image.put(8, f.instruction_pointer);
        image.put(16, f.data_pointer);
    } else {
        image.put(8, static_cast<u32>(f.instruction_pointer));
        image.put(16, static_cast<u32>(f.data_pointer));
    }
    for (u32 i = 0; i < 8; ++i) {
        image.put(32 + 16 * i, f.significand[i]);
        image.put(40 + 16 * i, f.sign_exponent[i]);
    }
}

void take_x87(state::X87& f, const Image& image, bool wide) {
    f.status = image.get<u16>(2);
    x87::set_control(f, image.get<u16>(0));
    f.empty_mask = static_cast<u8>(~image.get<u8>(4));
    f.opcode = image.get<u16>(6) & 0x7ff;
    f.instruction_pointer = wide ? image.get<u64>(8) : image.get<u32>(8);
    f.data_pointer = wide ? image.get<u64>(16) : image.get<u32>(16);
    for (u32 i = 0; i < 8; ++i) {
        f.significand[i] = image.get<u64>(32 + 16 * i);
        f.sign_exponent[i] = image.get<u16>(40 + 16 * i);
    }
}

void put_xmm(const Cpu& cpu, Image& image) {
    for (u32 i = 0; i < vector_count(cpu); ++i) {
        std::memcpy(image.b + 160 + 16 * i, &cpu.s.vector[4 * i], 16);
    }
}
void take_xmm(Cpu& cpu, const Image& image) {
    for (u32 i = 0; i < vector_count(cpu); ++i) {
        std::memcpy(&cpu.s.vector[4 * i], image.b + 160 + 16 * i, 16);
    }
}

// --- components
// -------------------------------------------------------------------------------------

/// Whether words `first` and first + 1 of every vector register that can be named are zero.
bool halves_zero(const Cpu& cpu, unsigned first) {
    u64 any = 0;
    for (unsigned i = 0; i < vector_count(cpu); ++i) {
        any |= cpu.s.vector[4 * i + first] | cpu.s.vector[4 * i + first + 1];
    }
    return any == 0;
}

/// XINUSE (SDM 1 13.6).
u64 in_use(const Cpu& cpu) {
    return (x87::is_initial(cpu.s.x87) ? 0 : x87_bit) | (halves_zero(cpu, 0) ? 0 : sse_bit) |
           (halves_zero(cpu, 2) ? 0 : avx_bit) | (cpu.s.pkru == 0 ? 0 : pkru_bit);
}

void put_component(const Cpu& cpu, unsigned number, u8* p) {
    if (number == 2) {
        for (u32 i = 0; i < vector_count(cpu); ++i) {
            std::memcpy(p + 16 * i, &cpu.s.vector[4 * i + 2], 16);
        }
    } else {
        const u64 pkru = cpu.s.pkru;
        std::memcpy(p, &pkru, sizeof pkru);
    }
}

/// Loads a component, or initializes it where `p` is null.
void take_component(Cpu& cpu, unsigned number, const u8* p) {
    if (number == 2) {
        for (u32 i = 0; i < vector_count(cpu); ++i) {
            u64 half[2] = {};
            if (p != nullptr) {
                std::memcpy(half, p + 16 * i, 16);
            }
            std::memcpy(&cpu.s.vector[4 * i + 2], half, 16);
        }
        return;
    }
    u32 pkru = 0;
    if (p != nullptr) {
        std::memcpy(&pkru, p, sizeof pkru);
    }
    if (pkru != cpu.s.pkru) {
        cpu.s.pkru = pkru;
        cpu.flush_tlb();
    }
}

// --- writing an area
// --------------------------------------------------------------------------------

/// Runs of bytes that an instruction writes.
class Pieces final {
public:
    void add(u32 offset, u32 size) {
        if (count_ != 0 && piece_[count_ - 1].end == offset) {
            piece_[count_ - 1].end = offset + size;
        } else {
            piece_[count_++] = {offset, offset + size};
        }
    }
    /// Writes all of them, or nothing.
    bool store(Cpu& cpu, const Op* op, u64 address, const Image& image) const {
        const Seg segment = Cpu::operand_segment(op);
        for (unsigned i = 0; i < count_; ++i) {
            if (!cpu.probe_write(op, address + piece_[i].offset, size(i), segment)) {
                return false;
            }
        }
        for (unsigned i = 0; i < count_; ++i) {
            if (!cpu.store_slow(op, address + piece_[i].offset, image.b + piece_[i].offset, size(i),
                                segment)) {
                return false;
            }
        }
        return true;
    }

private:
    [[nodiscard]] u32 size(unsigned i) const { return piece_[i].end - piece_[i].offset; }

    struct Piece {
        u32 offset, end;
    };
    Piece piece_[8];
    unsigned count_ = 0;
};

/// Address of an area. The #GP(0) of a wrong alignment comes before paging (SDM 1 13.7).
bool area(Cpu& cpu, const Op* op, unsigned size, u64 alignment, Access kind, u64& address) {
    return simd::locate(cpu, op, size, alignment, kind, address);
}

bool fxsave(Cpu& cpu, const Op* op) {
    u64 address;
    if (!area(cpu, op, arch::xsave_legacy_size, 16, Access::write, address)) {
        return false;
    }
    Image image;
    put_x87(cpu.s.x87, image, op->imm != 0);
    image.put(24, cpu.s.mxcsr);
    image.put(28, mxcsr_mask);
    put_xmm(cpu, image);
    Pieces pieces;
    pieces.add(0, 160);
    pieces.add(160, 16 * vector_count(cpu));
    return pieces.store(cpu, op, address, image);
}

bool fxrstor(Cpu& cpu, const Op* op) {
    u64 address;
    Image image;
    if (!area(cpu, op, arch::xsave_legacy_size, 16, Access::read, address) ||
        !cpu.load_slow(op, address, image.b, arch::xsave_legacy_size, Cpu::operand_segment(op))) {
        return false;
    }
    const u32 mxcsr = image.get<u32>(24);
    if ((mxcsr & ~mxcsr_mask) != 0) {
        return cpu.set_fault(Exception::gp, 0); // SDM 2A FXRSTOR
    }
    take_x87(cpu.s.x87, image, op->imm != 0);
    cpu.s.mxcsr = mxcsr;
    take_xmm(cpu, image);
    return true;
}

/// What all of the XSAVE family checks first (SDM 1 13.7 to 13.12).
bool xsave_allowed(Cpu& cpu, bool supervisor) {
    if ((cpu.s.cr4 & arch::cr4::osxsave) == 0) {
        return cpu.set_fault(Exception::ud, 0);
    }
    if ((cpu.s.cr0 & arch::cr0::ts) != 0) {
        return cpu.set_fault(Exception::nm, 0);
    }
    // SDM 3C 25.6.2: XSAVES and XRSTORS do not exist unless the VMCS enables them.
    if (supervisor && (cpu.controls.proc2 & enable_xsaves) == 0) {
        return cpu.set_fault(Exception::ud, 0);
    }
    return !supervisor || cpu.cpl == 0 || cpu.set_fault(Exception::gp, 0);
}

u64 requested(const Cpu& cpu, bool supervisor) {
    const u64 mask = u64{static_cast<u32>(cpu.s.gpr[2])} << 32 | static_cast<u32>(cpu.s.gpr[0]);
    return mask & (cpu.s.xcr0 | (supervisor ? cpu.s.xss : 0));
}

enum class Save : u8 { xsave, xsaveopt, xsavec, xsaves };

template <Save kind>
bool save(Cpu& cpu, const Op* op) {
    constexpr bool compact = kind == Save::xsavec || kind == Save::xsaves;
    if (!xsave_allowed(cpu, kind == Save::xsaves)) {
        return false;
    }
    const u64 rfbm = requested(cpu, kind == Save::xsaves);
    const u32 size = compact ? arch::xsave_compacted_size(rfbm) : arch::xsave_standard_size(rfbm);
    u64 address;
    if (!area(cpu, op, size, 64, Access::write, address)) {
        return false;
    }
    Image image;
    u64 present = in_use(cpu) & rfbm;
    if (compact && cpu.s.mxcsr != mxcsr_initial) {
        present |= sse_bit & rfbm; // SDM 1 13.10
    }
    const u64 written = kind == Save::xsave ? rfbm : present;
    Pieces pieces;
    if ((written & x87_bit) != 0) {
        put_x87(cpu.s.x87, image, op->imm != 0);
        pieces.add(0, 24);
    }
    if ((compact ? written & sse_bit : rfbm & (sse_bit | avx_bit)) != 0) {
        image.put(24, cpu.s.mxcsr);
        image.put(28, mxcsr_mask);
        pieces.add(24, 8);
    }
    if ((written & x87_bit) != 0) {
        pieces.add(32, 128);
    }
    if ((written & sse_bit) != 0) {
        put_xmm(cpu, image);
        pieces.add(160, 16 * vector_count(cpu));
    }
    if constexpr (compact) {
        image.put(512, present);
        image.put(520, rfbm | compacted);
        pieces.add(512, 16);
    } else {
        u64 old;
        if (!cpu.load_slow(op, address + 512, &old, sizeof old, Cpu::operand_segment(op))) {
            return false;
        }
        image.put(512, (old & ~rfbm) | present);
        pieces.add(512, 8);
    }
    for (const arch::XComponent& c : arch::xcomponents) {
        if ((written >> c.number & 1) != 0) {
            const u32 at = compact ? arch::xsave_compacted_offset(rfbm, c.number) : c.offset;
            put_component(cpu, c.number, image.b + at);
            pieces.add(at, c.number == 2 ? 16 * vector_count(cpu) : c.size);
        }
    }
    return pieces.store(cpu, op, address, image);
}

// --- reading an area
// --------------------------------------------------------------------------------

/// Checks the header (SDM 1 13.8, 13.12). False: #GP(0).
bool header_valid(const Cpu& cpu, const Image& image, bool supervisor) {
    const u64 bv = image.get<u64>(512);
    const u64 comp = image.get<u64>(520);
    const u64 enabled = cpu.s.xcr0 | (supervisor ? cpu.s.xss : 0);
    const auto all_zero = [&](u32 from, u32 to) {
        return std::all_of(image.b + from, image.b + to, [](u8 v) { return v == 0; });
    };
    if ((comp & compacted) == 0) {
        return !supervisor && (bv & ~cpu.s.xcr0) == 0 && all_zero(520, 536);
    }
    return (comp & ~compacted & ~enabled) == 0 && (bv & ~comp) == 0 && (bv & compacted) == 0 &&
           all_zero(528, 576);
}

bool restore(Cpu& cpu, const Op* op, bool supervisor) {
    if (!xsave_allowed(cpu, supervisor)) {
        return false;
    }
    const u64 rfbm = requested(cpu, supervisor);
    const Seg segment = Cpu::operand_segment(op);
    u64 address;
    Image image;
    if (!area(cpu, op, arch::xsave_minimum, 64, Access::read, address) ||
        !cpu.load_slow(op, address, image.b, arch::xsave_minimum, segment)) {
        return false;
    }
    if (!header_valid(cpu, image, supervisor)) {
        return cpu.set_fault(Exception::gp, 0);
    }
    const u64 bv = image.get<u64>(512);
    const u64 comp = image.get<u64>(520);
    const bool compact = (comp & compacted) != 0;
    const bool load_mxcsr =
        compact ? (rfbm & bv & sse_bit) != 0 : (rfbm & (sse_bit | avx_bit)) != 0;
    const u32 mxcsr = image.get<u32>(24);
    if (load_mxcsr && (mxcsr & ~mxcsr_mask) != 0) {
        return cpu.set_fault(Exception::gp, 0);
    }
    const auto place = [&](const arch::XComponent& c) {
        return compact ? arch::xsave_compacted_offset(comp, c.number) : u32{c.offset};
    };
    for (const arch::XComponent& c : arch::xcomponents) {
        if ((rfbm & bv) >> c.number & 1) {
            const u32 size = c.number == 2 ? 16 * vector_count(cpu) : c.size;
            u64 unused;
            if (!area(cpu, op, place(c) + size, 64, Access::read, unused) ||
                !cpu.load_slow(op, address + place(c), image.b + place(c), size, segment)) {
                return false;
            }
        }
    }
    // Nothing can fail any more.
    if ((rfbm & x87_bit) != 0) {
        if ((bv & x87_bit) != 0) {
            take_x87(cpu.s.x87, image, op->imm != 0);
        } else {
            cpu.s.x87 = state::X87{};
        }
    }
    if ((rfbm & sse_bit) != 0) {
        if ((bv & sse_bit) == 0) {
            std::memset(image.b + 160, 0, 256);
        }
        take_xmm(cpu, image);
        if (compact && (bv & sse_bit) == 0) {
            cpu.s.mxcsr = mxcsr_initial;
        }
    }
    if (load_mxcsr) {
        cpu.s.mxcsr = mxcsr;
    }
    for (const arch::XComponent& c : arch::xcomponents) {
        if ((rfbm >> c.number & 1) != 0) {
            const bool present = (bv >> c.number & 1) != 0;
            take_component(cpu, c.number, present ? image.b + place(c) : nullptr);
        }
    }
    return true;
}

bool xrstor(Cpu& cpu, const Op* op) { return restore(cpu, op, false); }
bool xrstors(Cpu& cpu, const Op* op) { return restore(cpu, op, true); }

// --- the rest
// ---------------------------------------------------------------------------------------

bool xgetbv(Cpu& cpu, const Op*) {
    if ((cpu.s.cr4 & arch::cr4::osxsave) == 0) {
        return cpu.set_fault(Exception::ud, 0);
    }
    const u32 which = static_cast<u32>(cpu.s.gpr[1]);
    if (which > 1) {
        return cpu.set_fault(Exception::gp, 0);
    }
    const u64 value = which == 0 ? cpu.s.xcr0 : cpu.s.xcr0 & in_use(cpu);
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
    if ((value & ~mxcsr_mask) != 0) {
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
    for (unsigned i = 0; i < vector_count(cpu); ++i) {
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
        return set(e, x87, handler<fxsave>);
    case ZYDIS_MNEMONIC_FXRSTOR:
    case ZYDIS_MNEMONIC_FXRSTOR64:
        return set(e, x87, handler<fxrstor>);
    case ZYDIS_MNEMONIC_XSAVE:
    case ZYDIS_MNEMONIC_XSAVE64:
        return set(e, UnitState::ok, handler<save<Save::xsave>>);
    case ZYDIS_MNEMONIC_XSAVEOPT:
    case ZYDIS_MNEMONIC_XSAVEOPT64:
        return set(e, UnitState::ok, handler<save<Save::xsaveopt>>);
    case ZYDIS_MNEMONIC_XSAVEC:
    case ZYDIS_MNEMONIC_XSAVEC64:
        return set(e, UnitState::ok, handler<save<Save::xsavec>>);
    case ZYDIS_MNEMONIC_XSAVES:
    case ZYDIS_MNEMONIC_XSAVES64:
        return set(e, UnitState::ok, handler<save<Save::xsaves>>);
    case ZYDIS_MNEMONIC_XRSTOR:
    case ZYDIS_MNEMONIC_XRSTOR64:
        return set(e, UnitState::ok, handler<xrstor>);
    case ZYDIS_MNEMONIC_XRSTORS:
    case ZYDIS_MNEMONIC_XRSTORS64:
        return set(e, UnitState::ok, handler<xrstors>);
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
