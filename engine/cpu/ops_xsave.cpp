// FXSAVE, FXRSTOR and the XSAVE family. SDM 1 13.7 to 13.12, SDM 1 10.5.
//
// An area is put together in a local image and written after all of it was found writable, so that
// an instruction that faults has written nothing; an area that is read is read whole before any
// register changes. The modified optimization (SDM 1 13.6) is not used.
#include <algorithm>
#include <cstring>

#include "engine/cpu/simd.hpp"
#include "engine/cpu/system.hpp"
#include "engine/cpu/x87.hpp"
#include "engine/cpu/xstate.hpp"

namespace nestor::cpu::xstate {

namespace {

using arch::Exception;
using arch::Seg;

constexpr u64 compacted = u64{1} << 63;
constexpr u32 mxcsr_initial = 0x1f80;

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
    /// Whether nothing stops a write of any of them.
    bool reached(Cpu& cpu, const Op* op, u64 address) const {
        for (unsigned i = 0; i < count_; ++i) {
            if (!cpu.probe_write(op, address + piece_[i].offset, size(i),
                                 Cpu::operand_segment(op))) {
                return false;
            }
        }
        return true;
    }
    /// Writes all of them, or nothing.
    bool store(Cpu& cpu, const Op* op, u64 address, const Image& image) const {
        const Seg segment = Cpu::operand_segment(op);
        if (!reached(cpu, op, address)) {
            return false;
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

u64 edx_eax(const Cpu& cpu) {
    return u64{static_cast<u32>(cpu.s.gpr[2])} << 32 | static_cast<u32>(cpu.s.gpr[0]);
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
    if (supervisor && (cpu.controls.proc2 & arch::proc2_control::enable_xsaves) == 0) {
        return cpu.set_fault(Exception::ud, 0);
    }
    return !supervisor || cpu.cpl == 0 || cpu.set_fault(Exception::gp, 0);
}

/// SDM 3C 26.1.3: XSAVES and XRSTORS exit for components of IA32_XSS that the bitmap names.
bool xss_exits(Cpu& cpu, const Op* op, arch::ExitReason reason) {
    if ((edx_eax(cpu) & cpu.s.xss & cpu.controls.xss_exit_bitmap) == 0) {
        return false;
    }
    cpu.set_exit(reason, memory_qualification(cpu, op));
    cpu.exit.instruction_length = op->len;
    cpu.exit.instruction_info = memory_instruction_info(cpu, op);
    return true;
}

u64 requested(const Cpu& cpu, bool supervisor) {
    return edx_eax(cpu) & (cpu.s.xcr0 | (supervisor ? cpu.s.xss : 0));
}

enum class Save : u8 { xsave, xsaveopt, xsavec, xsaves };

template <Save kind>
bool save(Cpu& cpu, const Op* op) {
    constexpr bool compact = kind == Save::xsavec || kind == Save::xsaves;
    if (!xsave_allowed(cpu, kind == Save::xsaves) ||
        (kind == Save::xsaves && xss_exits(cpu, op, arch::ExitReason::xsaves))) {
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
        pieces.add(512, 8);
    }
    for (const arch::XComponent& c : arch::xcomponents) {
        if ((written >> c.number & 1) != 0) {
            const u32 at = compact ? arch::xsave_compacted_offset(rfbm, c.number) : c.offset;
            put_component(cpu, c.number, image.b + at);
            pieces.add(at, c.number == 2 ? 16 * vector_count(cpu) : c.size);
        }
    }
    if constexpr (!compact) {
        u64 old;
        const auto store_reached = [&] { return pieces.reached(cpu, op, address); };
        if (!cpu.load_before(op, address + 512, old, Cpu::operand_segment(op), store_reached)) {
            return false;
        }
        image.put(512, (old & ~rfbm) | present);
    }
    return pieces.store(cpu, op, address, image);
}

// --- reading an area -----------------------------------------------------------------------------

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

/// A checked area, as far as it is to be restored.
struct Source {
    Image image;
    u64 rfbm = 0;
    u64 bv = 0;   ///< XSTATE_BV
    u64 comp = 0; ///< XCOMP_BV
    bool load_mxcsr = false;

    [[nodiscard]] bool compact() const { return (comp & compacted) != 0; }
    [[nodiscard]] bool wants(u64 bits) const { return (rfbm & bits) != 0; }
    [[nodiscard]] bool has(u64 bits) const { return (bv & bits) != 0; }
    [[nodiscard]] u32 place(const arch::XComponent& c) const {
        return compact() ? arch::xsave_compacted_offset(comp, c.number) : u32{c.offset};
    }
};

/// Reads and checks all that will be restored. False: outcome says why.
bool read_area(Cpu& cpu, const Op* op, bool supervisor, Source& from) {
    from.rfbm = requested(cpu, supervisor);
    const Seg segment = Cpu::operand_segment(op);
    u64 address;
    if (!area(cpu, op, arch::xsave_minimum, 64, Access::read, address) ||
        !cpu.load_slow(op, address, from.image.b, arch::xsave_minimum, segment)) {
        return false;
    }
    if (!header_valid(cpu, from.image, supervisor)) {
        return cpu.set_fault(Exception::gp, 0);
    }
    from.bv = from.image.get<u64>(512);
    from.comp = from.image.get<u64>(520);
    // SDM 1 13.8.1, 13.8.2: the standard form loads MXCSR with SSE or AVX, whatever XSTATE_BV says.
    from.load_mxcsr =
        from.compact() ? from.wants(from.bv & sse_bit) : from.wants(sse_bit | avx_bit);
    if (from.load_mxcsr && (from.image.get<u32>(24) & ~mxcsr_mask) != 0) {
        return cpu.set_fault(Exception::gp, 0);
    }
    for (const arch::XComponent& c : arch::xcomponents) {
        if (from.wants(from.bv & bit(c.number))) {
            const u32 at = from.place(c);
            const u32 size = c.number == 2 ? 16 * vector_count(cpu) : c.size;
            u64 unused;
            if (!area(cpu, op, at + size, 64, Access::read, unused) ||
                !cpu.load_slow(op, address + at, from.image.b + at, size, segment)) {
                return false;
            }
        }
    }
    return true;
}

bool restore(Cpu& cpu, const Op* op, bool supervisor) {
    Source from;
    if (!xsave_allowed(cpu, supervisor) ||
        (supervisor && xss_exits(cpu, op, arch::ExitReason::xrstors)) ||
        !read_area(cpu, op, supervisor, from)) {
        return false;
    }
    if (from.wants(x87_bit)) {
        if (from.has(x87_bit)) {
            take_x87(cpu.s.x87, from.image, op->imm != 0);
        } else {
            cpu.s.x87 = state::X87{};
        }
    }
    if (from.wants(sse_bit)) {
        if (!from.has(sse_bit)) {
            std::memset(from.image.b + 160, 0, 256);
        }
        take_xmm(cpu, from.image);
        if (from.compact() && !from.has(sse_bit)) {
            cpu.s.mxcsr = mxcsr_initial;
        }
    }
    if (from.load_mxcsr) {
        cpu.s.mxcsr = from.image.get<u32>(24);
    }
    for (const arch::XComponent& c : arch::xcomponents) {
        if (from.wants(bit(c.number))) {
            const bool present = from.has(bit(c.number));
            take_component(cpu, c.number, present ? from.image.b + from.place(c) : nullptr);
        }
    }
    return true;
}

} // namespace

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

bool xsave(Cpu& cpu, const Op* op) { return save<Save::xsave>(cpu, op); }
bool xsaveopt(Cpu& cpu, const Op* op) { return save<Save::xsaveopt>(cpu, op); }
bool xsavec(Cpu& cpu, const Op* op) { return save<Save::xsavec>(cpu, op); }
bool xsaves(Cpu& cpu, const Op* op) { return save<Save::xsaves>(cpu, op); }
bool xrstor(Cpu& cpu, const Op* op) { return restore(cpu, op, false); }
bool xrstors(Cpu& cpu, const Op* op) { return restore(cpu, op, true); }

} // namespace nestor::cpu::xstate
