// Segment and gate descriptors, and the loads that check them (SDM 3A 3.4, 5, 6.14).
//
// Everything here fills values and reports faults; the caller commits. A Site says which
// instruction (or event, with op null) the accesses belong to and which EXT bit faults carry.
#pragma once

#include "engine/cpu/cpu.hpp"

namespace nestor::cpu {

/// Who asks: the running instruction, or event delivery with op null.
struct Site {
    Cpu& cpu;
    const Op* op = nullptr;
    u32 ext = 0; ///< EXT bit of selector error codes (SDM 3A 6.13)

    /// Sets the fault; false, so that checks can return it. `error` without EXT.
    bool fault(arch::Exception vector, u32 error) const {
        return cpu.set_fault(vector, error | ext);
    }
    bool gp(u32 error) const { return fault(arch::Exception::gp, error); }
};

/// A segment or gate descriptor as it lies in memory.
struct Descriptor {
    u64 low = 0;
    u64 high = 0;    ///< second half of a 16-byte descriptor
    u64 address = 0; ///< linear address of the descriptor

    [[nodiscard]] u32 type() const { return static_cast<u32>(low >> 40 & 15); }
    [[nodiscard]] bool segment() const { return (low >> 44 & 1) != 0; } ///< S: code or data
    [[nodiscard]] u8 dpl() const { return static_cast<u8>(low >> 45 & 3); }
    [[nodiscard]] bool present() const { return (low >> 47 & 1) != 0; }
    [[nodiscard]] bool is_code() const { return segment() && (type() & 8) != 0; }
    [[nodiscard]] bool is_data() const { return segment() && (type() & 8) == 0; }
    [[nodiscard]] bool conforming() const { return (type() & 4) != 0; }
    [[nodiscard]] bool write_or_read() const { return (type() & 2) != 0; }
    [[nodiscard]] bool long_code() const { return (low >> 53 & 1) != 0; }
    [[nodiscard]] bool big() const { return (low >> 54 & 1) != 0; }
    [[nodiscard]] u32 base() const {
        return static_cast<u32>((low >> 16 & 0xffffff) | (low >> 56 & 0xff) << 24);
    }
    /// Base of a 16-byte system descriptor.
    [[nodiscard]] u64 long_base() const { return base() | (high & 0xffffffff) << 32; }
    /// Byte granular.
    [[nodiscard]] u32 limit() const {
        const u32 raw = static_cast<u32>((low & 0xffff) | (low >> 48 & 15) << 16);
        return (low >> 55 & 1) != 0 ? raw << 12 | 0xfff : raw;
    }
    /// VMX access-rights format (SDM 3C 25.4.1).
    [[nodiscard]] u32 attributes() const {
        return static_cast<u32>((low >> 40 & 0xff) | (low >> 52 & 15) << 12);
    }
    // Gates (SDM 3A 5.8.3, 6.11).
    [[nodiscard]] u16 gate_selector() const { return static_cast<u16>(low >> 16); }
    [[nodiscard]] u64 gate_offset() const {
        return (low & 0xffff) | (low >> 48 & 0xffff) << 16 | (high & 0xffffffff) << 32;
    }
    [[nodiscard]] unsigned gate_count() const { return static_cast<unsigned>(low >> 32 & 31); }
    [[nodiscard]] unsigned gate_ist() const { return static_cast<unsigned>(low >> 32 & 7); }
};

/// System descriptor types (SDM 3A table 3-2).
namespace system_type {
inline constexpr u32 tss16 = 1, ldt = 2, tss16_busy = 3, call16 = 4, task_gate = 5, int16 = 6,
                     trap16 = 7, tss32 = 9, tss32_busy = 11, call32 = 12, int32 = 14, trap32 = 15,
                     busy = 2;
} // namespace system_type

/// A selector as an error code has it: without RPL.
constexpr u32 selector_error(u16 selector) { return selector & 0xfffcu; }
constexpr bool is_null(u16 selector) { return (selector & 0xfffc) == 0; }
constexpr u8 rpl_of(u16 selector) { return static_cast<u8>(selector & 3); }
/// A selector with another RPL.
constexpr u16 with_rpl(u16 selector, u8 rpl) { return static_cast<u16>((selector & 0xfffc) | rpl); }

/// Whether the table that a selector names covers `size` bytes of its entry; `address` is theirs.
bool descriptor_address(const Cpu& cpu, u16 selector, unsigned size, u64& address);

/// Reads the 8-byte descriptor of a non-null selector. Outside the table: `vector`(selector).
bool read_descriptor(const Site& site, u16 selector, Descriptor& out,
                     arch::Exception vector = arch::Exception::gp);
/// Reads the second half of a 16-byte descriptor (IA-32e system descriptors and call gates).
bool read_descriptor_high(const Site& site, u16 selector, Descriptor& d,
                          arch::Exception vector = arch::Exception::gp);

/// Sets the accessed bit of a code or data descriptor, in memory and in `d`.
bool mark_accessed(const Site& site, Descriptor& d);
/// Writes the type byte of a system descriptor with the busy bit as told.
bool write_busy(const Site& site, const Descriptor& d, bool busy);

/// The segment register that a code or data descriptor gives.
state::Segment make_segment(const Descriptor& d, u16 selector);
/// The segment register that a null selector gives.
state::Segment null_segment(u16 selector, u8 dpl = 0);
/// As after a load in real-address (`old` keeps limit and rights) or virtual-8086 mode.
state::Segment real_segment(const state::Segment& old, u16 selector);
state::Segment v86_segment(u16 selector);

inline u8 segment_dpl(const state::Segment& s) {
    return static_cast<u8>(s.attributes >> arch::seg_attr::dpl_shift & 3);
}
/// Whether `size` bytes at an offset lie within the limit of a data segment (SDM 3A 5.3).
bool within_limit(const state::Segment& segment, u64 offset, unsigned size);

/// Checks a data segment or stack load of MOV, POP, LDS... in the current mode and fills `out`.
/// SDM 2 MOV. Null selectors included.
bool check_segment_load(const Site& site, arch::Seg which, u16 selector, state::Segment& out);

/// A stack segment for a privilege level: null, index, RPL, DPL, type, P. `vector` is #GP for RET
/// and IRET, #TS for gates; `absent` #NP for IRET. SDM 3A 5.8.5, SDM 2 RET. Does not accept a null
/// selector.
bool check_stack_segment(const Site& site, u16 selector, u8 level, arch::Exception vector,
                         state::Segment& out, arch::Exception absent = arch::Exception::ss);

/// Makes data segments inaccessible that the new privilege level may not use (SDM 2 RET).
void drop_privileged_segments(Cpu& cpu, u8 level);

/// Whether an instruction pointer is inside a code segment: limit, or canonical for 64-bit code.
bool rip_fits(const Cpu& cpu, const state::Segment& code, u64 rip);
/// Canonical for the current linear-address width (SDM 1 3.3.7.1).
inline bool canonical(const Cpu& cpu, u64 address) {
    return is_canonical(address, (cpu.s.cr4 & arch::cr4::la57) != 0 ? 57 : 48);
}
inline bool ia32e(const Cpu& cpu) { return (cpu.s.efer & arch::efer::lma) != 0; }

} // namespace nestor::cpu
