// Into a case by user code alone.
//
// Nothing of a case passes through the kernel on the way in: kernels and hypervisors refuse or
// change some of what a signal frame may ask for (a non-canonical RSP, a 32-bit code segment). The
// stub loads vector and x87 state with XRSTOR, flags with POPF, then the registers, RSP last, and
// jumps. 32-bit code is entered by a far jump.
#pragma once

#include "src/base/types.hpp"

namespace nestor::test {

/// What the stub loads; host_entry.cpp has the offsets again.
struct HostEntry {
    u64 gpr[16]; ///< the order of state::Cpu.gpr
    u64 rflags;
    u64 target;      ///< of 64-bit code
    u32 far_target;  ///< of 32-bit code: a far pointer's offset and selector
    u16 far_segment; ///< together six bytes
    u16 vector;      ///< whether `image` is loaded
    u64 driver_rsp;  ///< written by the stub: where `landing` finds the driver's registers
    u64 landing;     ///< written by the stub: where the signal handler lets the driver go on
    alignas(64) u8 image[832]; ///< XSAVE area in the standard form (SDM 1 13.4): x87, SSE, AVX
};
extern "C" HostEntry nestor_oracle_entry;

/// Enter the case in nestor_oracle_entry; return once a signal handler has set RIP to `landing`,
/// RSP to `driver_rsp` and CS to that of 64-bit code. All vector registers are lost.
extern "C" void nestor_oracle_enter64();
extern "C" void nestor_oracle_enter32();

} // namespace nestor::test
