// Architectural bit positions: RFLAGS, CR0, CR4, EFER, DR6, DR7, page-table entries, error codes.
// SDM 3A chapters 2 and 4, SDM 3B chapter 18. Masks, named as the SDM names the bits.
#pragma once

#include "src/base/bits.hpp"

namespace nestor::arch {

namespace rflags {
inline constexpr u64 cf = bit(0), fixed1 = bit(1), pf = bit(2), af = bit(4), zf = bit(6),
                     sf = bit(7), tf = bit(8), if_ = bit(9), df = bit(10), of = bit(11),
                     iopl = mask(13, 12), nt = bit(14), rf = bit(16), vm = bit(17), ac = bit(18),
                     vif = bit(19), vip = bit(20), id = bit(21);
inline constexpr u64 arithmetic = cf | pf | af | zf | sf | of;
inline constexpr u64 writable =
    arithmetic | tf | if_ | df | iopl | nt | rf | vm | ac | vif | vip | id;
} // namespace rflags

namespace cr0 {
inline constexpr u64 pe = bit(0), mp = bit(1), em = bit(2), ts = bit(3), et = bit(4), ne = bit(5),
                     wp = bit(16), am = bit(18), nw = bit(29), cd = bit(30), pg = bit(31);
} // namespace cr0

namespace cr4 {
inline constexpr u64 vme = bit(0), pvi = bit(1), tsd = bit(2), de = bit(3), pse = bit(4),
                     pae = bit(5), mce = bit(6), pge = bit(7), pce = bit(8), osfxsr = bit(9),
                     osxmmexcpt = bit(10), umip = bit(11), la57 = bit(12), vmxe = bit(13),
                     smxe = bit(14), fsgsbase = bit(16), pcide = bit(17), osxsave = bit(18),
                     smep = bit(20), smap = bit(21), pke = bit(22), cet = bit(23), pks = bit(24);
} // namespace cr4

namespace efer {
inline constexpr u64 sce = bit(0), lme = bit(8), lma = bit(10), nxe = bit(11);
} // namespace efer

namespace dr6 {
inline constexpr u64 b = mask(3, 0), bd = bit(13), bs = bit(14), bt = bit(15);
inline constexpr u64 fixed1 = 0xffff0ff0;
} // namespace dr6

namespace dr7 {
inline constexpr u64 enables = mask(7, 0), fixed1 = bit(10), gd = bit(13);
} // namespace dr7

namespace pte {
inline constexpr u64 p = bit(0), w = bit(1), u = bit(2), pwt = bit(3), pcd = bit(4), a = bit(5),
                     d = bit(6), ps = bit(7), g = bit(8), nx = bit(63);
} // namespace pte

/// #PF error code (SDM 3A 4.7).
namespace pf_error {
inline constexpr u32 p = 1, w = 2, u = 4, rsvd = 8, i = 16, pk = 32;
} // namespace pf_error

/// Pending debug exceptions (SDM 3C table 25-4).
namespace pending_debug {
inline constexpr u64 b = mask(3, 0), enabled_breakpoint = bit(12), bs = bit(14);
} // namespace pending_debug

/// Segment access rights in VMX format (SDM 3C 25.4.1).
namespace seg_attr {
inline constexpr u32 type = 0xf, accessed = 1, write_or_read = 2, expand_down_or_conforming = 4,
                     code = 8, s = 1u << 4, dpl = 3u << 5, p = 1u << 7, avl = 1u << 12,
                     l = 1u << 13, db = 1u << 14, g = 1u << 15, unusable = 1u << 16;
inline constexpr unsigned dpl_shift = 5;
} // namespace seg_attr

/// XCR0 and XSS state components (SDM 1 13.1).
namespace xcr0 {
inline constexpr u64 x87 = bit(0), sse = bit(1), avx = bit(2), pkru = bit(9);
} // namespace xcr0

/// Segment registers in their encoding order.
enum class Seg : u8 { es, cs, ss, ds, fs, gs };

/// General registers in their encoding order.
enum class Gpr : u8 {
    rax,
    rcx,
    rdx,
    rbx,
    rsp,
    rbp,
    rsi,
    rdi,
    r8,
    r9,
    r10,
    r11,
    r12,
    r13,
    r14,
    r15
};

} // namespace nestor::arch
