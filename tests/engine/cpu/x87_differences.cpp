// What x87 judges do differently from nestor-v1, by vendor; see x87_differences.hpp.
#include "tests/engine/cpu/x87_differences.hpp"

#include <cstring>
#include <set>
#include <utility>

namespace nestor::test {

namespace {

/// Whether two extended values of the same sign are at most two units in the last place apart,
/// also across a power of two.
bool is_near(const u8* a, const u8* b) {
    const auto value = [](const u8* p) {
        u64 significand;
        u16 exponent;
        std::memcpy(&significand, p, 8);
        std::memcpy(&exponent, p + 8, 2);
        return std::pair(exponent, significand);
    };
    const auto [ea, sa] = value(a);
    const auto [eb, sb] = value(b);
    constexpr u64 one = u64{1} << 63;
    if (ea == eb) {
        return sa - sb + 2 <= 4;
    }
    // The first value of a binade follows the last of the one below.
    return (ea == eb + 1 && sa - one <= 1 && ~sb <= 1) ||
           (eb == ea + 1 && sb - one <= 1 && ~sa <= 1);
}

/// The same but for C1, the inexact and underflow flags, and the last bits of ST(0) and ST(1).
bool nearly_equal(const Case& c, Result judge, const Result& guest) {
    for (unsigned i = 0; i < 2; ++i) {
        u8* j = &judge.end.x87[32 + 16 * i];
        const u8* g = &guest.end.x87[32 + 16 * i];
        if (is_near(j, g)) {
            std::memcpy(j, g, 10);
        }
    }
    constexpr u8 inexact = 0x30;
    judge.end.x87[2] =
        static_cast<u8>((judge.end.x87[2] & ~inexact) | (guest.end.x87[2] & inexact));
    judge.end.x87[3] = static_cast<u8>((judge.end.x87[3] & ~2) | (guest.end.x87[3] & 2));
    return compare(c, judge, guest, 0).empty();
}

bool excused_function(const X87Form& form, const Case& c, const Result& judge,
                      const Result& guest) {
    u16 exponent;
    std::memcpy(&exponent, &c.start.x87[40], 2);
    exponent &= 0x7fff;
    // Processors reduce arguments with a shorter pi, which shows near pi / 2 and in all large
    // ones; outside FYL2XP1's range results are undefined.
    const bool logarithm = form.name == "fyl2xp1";
    const bool angle =
        form.name == "fptan" || form.name.find("cos") != std::string::npos || form.name == "fsin";
    return nearly_equal(c, judge, guest) || exponent >= (logarithm ? 0x3ffd
                                                         : angle   ? 0x3fff
                                                                   : 0x4000);
}

/// Where processors and nestor-v1 may end differently, case by case.
bool excused_both(const X87Form& form, const Case& c, const Result& judge, const Result& guest) {
    u16 control;
    std::memcpy(&control, &c.start.x87[0], 2);
    // They set condition codes and EFLAGS also for an unmasked invalid operand; SDM 2A FCOM, FCOMI:
    // only if the exception is masked.
    const bool compares = form.name.find("com") != std::string::npos || form.name == "ftst";
    if (compares && (control & 1) == 0 && (judge.end.x87[2] & 1) != 0) {
        return true;
    }
    // They leave C1 as it was; SDM 2A FCOMI: set to 0.
    if (form.name.find("comi") != std::string::npos) {
        Result cleared = judge;
        cleared.end.x87[3] &= 0xfd;
        return compare(c, cleared, guest, 0).empty();
    }
    // Images that cross into an absent page: they name a byte of the page that is not the first.
    if (judge.vector == 14 && guest.vector == 14 && (judge.address ^ guest.address) < 4096) {
        return true;
    }
    // Unmasked denormal operand: they push it; SDM 1 8.5.2: TOP remains unchanged.
    return form.name == "fld" && (control & 2) == 0 && (judge.end.x87[2] & 2) != 0;
}
bool excused_intel(const X87Form& form, const Result& judge, const Result& guest) {
    // A store that faults and has an unmasked exception: which of both comes first is not
    // architectural; nestor-v1 takes the fault of memory.
    const bool stores = form.name.rfind("fst", 0) == 0 || form.name.rfind("fist", 0) == 0 ||
                        form.name.rfind("fbst", 0) == 0;
    return stores && judge.vector == 16 && guest.vector == 14;
}

/// What QEMU 7.2 does too differently to judge it.
bool is_beyond_qemu(const X87Form& form) {
    static const std::set<std::string> names = {
        // Exceptions that they unmask are not taken, and reserved bits not as in SDM 1 8.1.
        "fldcw", "fldenv", "frstor", "fnstenv", "fnsave",
        // They lose C0 to C3 (SDM 2A FINCSTP: undefined but for C1).
        "fincstp", "fdecstp",
        // They obey precision control, which SDM 1 8.1.5.2 does not name them for.
        "fprem", "fprem1",
        // Digits beyond 9 are undefined, and what does not fit has another form.
        "fbld", "fbstp",
        // D9 D8, which no manual has, marks an empty register as in use.
        "fstpnce"};
    return form.approximate || names.contains(form.name);
}
/// The same of QEMU 7.2, which has no unmasked exceptions and no stack faults; its exception flags
/// and C1 are not exact. Results, registers, other condition codes and memory are judged.
bool excused_qemu(const X87Form& form, const Case& c, Result judge, const Result& guest) {
    constexpr u8 stack_fault = 0x40;
    const bool extended = (c.start.x87[1] & 3) == 3; // less is rounded twice (SDM 1 8.1.5.2)
    if (is_beyond_qemu(form) || !extended || (c.start.x87[0] & 0x3f) != 0x3f ||
        (guest.end.x87[2] & stack_fault) != 0) {
        return true;
    }
    const auto copy = [&](unsigned byte, u8 mask) {
        u8& j = judge.end.x87[byte];
        j = static_cast<u8>((j & ~mask) | (guest.end.x87[byte] & mask));
    };
    copy(2, 0x3f);
    copy(3, form.name == "fsqrt" ? 0x47 : 2); // SDM 2A FSQRT: C0, C2 and C3 are undefined
    if (form.modrm >= 0xc0 && form.name.rfind("fst", 0) == 0) {
        copy(4, 0xff); // stores to an empty register leave it empty
    }
    if (form.name.find("comi") != std::string::npos) { // it keeps what SDM 2A FCOMI clears
        judge.end.rflags &= ~(arch::rflags::of | arch::rflags::sf | arch::rflags::af);
    }
    return compare(c, judge, guest, 0).empty();
}

} // namespace

bool excused(Vendor vendor, const X87Form& form, const Case& c, const Ends& ends) {
    if (form.approximate && vendor != Vendor::qemu) {
        return excused_function(form, c, ends.judge, ends.guest);
    }
    switch (vendor) {
    case Vendor::amd:
        return excused_both(form, c, ends.judge, ends.guest);
    case Vendor::intel:
        return excused_both(form, c, ends.judge, ends.guest) ||
               excused_intel(form, ends.judge, ends.guest);
    case Vendor::qemu:
        return excused_qemu(form, c, ends.judge, ends.guest);
    }
    return false;
}

} // namespace nestor::test
