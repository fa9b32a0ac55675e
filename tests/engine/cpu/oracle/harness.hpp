// A judge and Cpu side by side: both run the same few bytes of user code from the same state on the
// same memory, and what comes out is compared.
//
// The judge is the host processor, in this process, or for 32-bit code QEMU. Where an ability is
// missing (abilities.hpp) the cases that need it are left out and counted. int3 ends a case. Code
// and data lie at fixed addresses below 4 GiB, so that 32-bit code (in compatibility mode) and
// absolute addresses work. Both sides see the same layout, in pages:
//   data: not present, two writable, one read-only, not present;  code: not present, two, not
//   present.
// The instructions may touch any of it; a case states only the bytes of the window.
#pragma once

#include <array>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "engine/cpu/cpu.hpp"

namespace nestor::test {

inline constexpr u64 data_address = 0x70001000; ///< first writable page
inline constexpr u64 read_only_address = 0x70003000;
inline constexpr u64 absent_address = 0x70004000;
inline constexpr u64 code_address = 0x70101000; ///< two pages of int3
inline constexpr unsigned window_size = 256;
/// The window lies across the boundary of the two writable pages.
inline constexpr u64 window_address = data_address + 4096 - window_size / 2;

/// Whether an address is, under 4-level paging (SDM 1 3.3.7.1).
inline bool is_canonical(u64 a) { return static_cast<u64>(static_cast<i64>(a << 16) >> 16) == a; }

/// What a user program sees of the processor. x87 is the first 160 bytes of an FXSAVE image.
struct UserState {
    std::array<u64, 16> gpr{};
    u64 rip = 0;
    u64 rflags = 0x202;
    std::array<u64, 64> vector{}; ///< YMM0..15, four words each
    u32 mxcsr = 0x1f80;
    std::array<u8, 160> x87{}; ///< offset 24 (MXCSR) is not used
    std::array<u8, window_size> window{};
    bool operator==(const UserState&) const = default;
};

struct Case {
    std::vector<u8> code; ///< at most 64 bytes; int3 follows
    UserState start;      ///< rip is where the code is put, inside the code pages
    bool mode32 = false;  ///< compatibility mode, 32-bit code
    bool vector = false;  ///< vector registers, MXCSR and x87 are loaded and compared
};

/// How a case ended. Vector 3 with end.rip on an int3 is the normal end.
struct Result {
    UserState end;
    u8 vector = 0;
    u32 error = 0;
    u64 address = 0;     ///< CR2, for #PF
    bool stopped = true; ///< false: did not end (a loop)
};

/// How many cases a test generates and from which seed: NESTOR_ORACLE_CASES and NESTOR_ORACLE_SEED,
/// else `otherwise` and 1. Every form gets its share, at least one.
u64 cases_wanted(u64 otherwise);
u64 seed_wanted();

/// Who judges. QEMU has 32-bit code only.
enum class JudgeKind : u8 { host, qemu };

enum class Need : u8;
struct Abilities;

/// What a judge can tell; found out and printed the first time.
const Abilities& abilities_of(JudgeKind kind);
/// How many cases were left out so far because the judge has not what they need; for page_fault how
/// many were compared without error code and address.
u64 left_out(JudgeKind kind, Need need);

/// The judge's end of a case, and Cpu's.
struct Ends {
    Result judge;
    Result guest;
};

/// Judge and Cpu. One at a time in a process: the host owns the addresses above and signal
/// handlers.
class Harness final {
public:
    explicit Harness(JudgeKind kind = JudgeKind::host);
    ~Harness();
    Harness(const Harness&) = delete;
    Harness& operator=(const Harness&) = delete;

    /// Runs a case on both, Cpu stopping after every instruction if `stepwise`. Nothing where the
    /// judge cannot tell.
    std::optional<Ends> run(const Case& c, bool stepwise = false);
    Result run_guest(const Case& c);
    /// As run_guest, but stopping after every instruction.
    Result run_guest_stepwise(const Case& c);

    /// Whether the data pages of both are the same, after one run of each.
    [[nodiscard]] bool same_memory() const;
    /// Makes both the pattern again that they start with.
    void reset_memory();

    /// The same for Cpu's side alone.
    void reset_guest_memory();

    [[nodiscard]] cpu::Cpu& cpu();

private:
    struct Sides;
    std::unique_ptr<Sides> sides_;
};

/// What differs and may not, by name; `undefined` is a mask of flags not to compare.
/// Empty when both agree.
std::string compare(const Case& c, const Result& judge, const Result& guest, u64 undefined_flags);

/// A complete report: bytes, disassembly, start state, both ends, differences marked.
std::string report(const Case& c, const Result& judge, const Result& guest,
                   const std::string& differences);

/// Text form of a case for tests/engine/cpu/oracle/vectors, and back. Throws std::runtime_error on
/// malformed text.
std::string to_text(const Case& c);
Case from_text(const std::string& text);

/// Makes a failing case smaller as long as `fails` holds: registers, flags and memory to zero.
template <class Fails>
Case shrink(Case c, Fails fails) {
    const auto attempt = [&](auto change) {
        Case smaller = c;
        change(smaller);
        if (fails(smaller)) {
            c = smaller;
        }
    };
    for (unsigned i = 0; i < 16; ++i) {
        attempt([&](Case& s) { s.start.gpr[i] = 0; });
    }
    attempt([](Case& s) { s.start.rflags = 0x202; });
    attempt([](Case& s) { s.start.window = {}; });
    attempt([](Case& s) { s.start.rip = code_address; });
    if (c.vector) {
        attempt([](Case& s) { s.start.mxcsr = 0x1f80; });
        for (unsigned i = 0; i < 16; ++i) {
            attempt([&](Case& s) {
                for (unsigned k = 0; k < 4; ++k) {
                    s.start.vector[i * 4 + k] = 0;
                }
            });
        }
    }
    for (unsigned i = 0; i < window_size; ++i) {
        if (c.start.window[i] != 0) {
            attempt([&](Case& s) { s.start.window[i] = 0; });
        }
    }
    for (unsigned i = 0; i < 16; ++i) {
        for (u64 keep : {u64{0xff}, u64{0xffff}, u64{0xffffffff}}) {
            attempt([&](Case& s) { s.start.gpr[i] &= keep; });
        }
    }
    return c;
}

} // namespace nestor::test
