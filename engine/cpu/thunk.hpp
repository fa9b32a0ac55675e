// Thunks: guest SIMD instructions executed by the host CPU (DESIGN.md, rule 3).
//
// Host and guest share the instruction set, so a SIMD instruction is run rather than imitated. A
// thunk is a function that loads the operands it uses, executes the guest's own opcode on fixed
// host registers and stores the results. The registers of the guest instruction are not part of the
// thunk; callers pass pointers. So there is one thunk for each form and immediate, not for each
// combination of registers.
#pragma once

#include <mutex>
#include <unordered_map>

#include "src/base/types.hpp"

namespace nestor::cpu {

/// Runs one instruction on the operands pointed to.
/// `reg` and `rm` are the operands of ModRM, `third` is VEX.vvvv, `extra` what the form needs (is4
/// register, Cpu::s, or where flags go). Returns MXCSR (ThunkSpec::mxcsr) or AH = flags as LAHF
/// has them and AL = OF (ThunkSpec::flags). With `mxcsr`, nothing is stored when a flag in
/// `forbidden` is set afterwards.
using ThunkFn = u64 (*)(void* reg, void* rm, void* third, void* extra, u32 forbidden);

/// What an operand of a thunk is, that is: how it is loaded and stored.
enum class ThunkOperand : u8 {
    none,
    memory, ///< used through the pointer, by the instruction itself
    gpr,
    mmx,
    xmm,
    ymm,
};

struct ThunkSpec {
    struct Role {
        ThunkOperand kind = ThunkOperand::none;
        bool read = false;
        bool write = false;
    };

    u8 bytes[8] = {}; ///< the instruction on the thunk's registers, from encode_*()
    u8 length = 0;
    bool vex = false;
    bool mxcsr = false;   ///< reads or writes MXCSR
    bool flags = false;   ///< writes arithmetic flags; with `mxcsr` they go to *extra (u32)
    bool fourth = false;  ///< extra is the is4 register, of the kind of `reg`
    bool xmm0_in = false; ///< hidden XMM0; extra is Cpu::s
    bool xmm0_out = false;
    bool lengths_in = false; ///< hidden RAX and RDX (PCMPESTRx); extra is Cpu::s
    bool rcx_out = false;    ///< hidden RCX; extra is Cpu::s
    Role reg, rm, third;

    /// Same bytes, same thunk: everything else follows from them.
    [[nodiscard]] u64 key() const;
};

/// Host registers that a thunk uses for its operands.
namespace thunk_reg {
inline constexpr u8 hidden = 0, reg = 1, rm = 2, third = 3, fourth = 4, gpr = 0, pointer = 6;
} // namespace thunk_reg

/// Memory that holds code: mapped twice, so that no page is writable and executable at once.
class CodeMemory final {
public:
    /// Reserves `capacity` bytes of address space; pages are used as code is added.
    explicit CodeMemory(u64 capacity);
    ~CodeMemory();
    CodeMemory(const CodeMemory&) = delete;
    CodeMemory& operator=(const CodeMemory&) = delete;

    /// Copies code in and returns where it can be called.
    const u8* add(const u8* code, u64 size);

private:
    u8* writable_ = nullptr;
    const u8* executable_ = nullptr;
    u64 capacity_;
    u64 used_ = 64; ///< checkers of indirect calls read what lies in front of a function
};

/// All thunks of the process. They depend on nothing but instruction bytes, like library code, and
/// are never freed: forms times immediates bound them at about 20 MiB, whatever a guest executes.
class ThunkCache final {
public:
    static ThunkCache& instance();

    /// The thunk for a spec; made on first use. Any thread.
    ThunkFn get(const ThunkSpec& spec);

private:
    ThunkCache();

    std::mutex mutex_;
    CodeMemory memory_;
    std::unordered_map<u64, ThunkFn> thunks_;
};

} // namespace nestor::cpu
