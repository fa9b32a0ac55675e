// Why Vcpu::run came back: the vCPU contract's exits (DESIGN.md, "The vCPU contract").
//
// An exit that asks for something (an I/O or MMIO read, a page) is uncompleted until it was
// answered and the vCPU ran again; nothing is saved in between.
#pragma once

#include <string>
#include <variant>

#include "src/base/types.hpp"

namespace nestor::hv {

/// The count given to run() was reached, or the vCPU's own deadline came first.
struct CountReached {};

/// The turn is given up early: PAUSE, or an event that the scheduler should look at.
struct Yielded {};

/// HLT or MWAIT with nothing to wake the vCPU. It runs again once an interrupt is injected.
struct Halted {};

/// The vCPU waits for a start-up IPI, so there is nothing to run.
struct WaitingForSipi {};

/// An access to an I/O port, 1, 2 or 4 bytes. Answer a read with Vcpu::complete.
struct PortAccess {
    u16 port = 0;
    u8 size = 0;
    bool write = false;
    u32 data = 0; ///< what is written
};

/// An access to guest-physical memory that no RAM backs. Never crosses an 8-byte boundary.
struct MmioAccess {
    Gpa address;
    u8 size = 0;
    bool write = false;
    u64 data = 0;
};

/// A page that is not loaded yet. Fill it in GuestMemory, then run again.
struct PageNeeded {
    Gfn page;
};

/// A page that has to be copied before the guest may change it.
struct CopyNeeded {
    Gfn page;
};

/// L1's local APIC signalled the end of a level-triggered interrupt to the I/O APICs.
struct EoiBroadcast {
    Vector vector;
};

/// Triple fault or another shutdown condition.
struct Shutdown {};

/// The units that were loaded do not belong together (Vcpu::settle), or L0 made a vmcs02 that the
/// silicon refuses, which is its own bug. Nothing ran.
struct Refused {
    std::string reason;
};

using Exit = std::variant<CountReached, Yielded, Halted, WaitingForSipi, PortAccess, MmioAccess,
                          PageNeeded, CopyNeeded, EoiBroadcast, Shutdown, Refused>;

/// An interrupt message on the APIC bus: from an I/O APIC, an MSI, or another local APIC's ICR.
/// Fields as in the I/O APIC redirection entry (82093AA 3.2.4) and the ICR (SDM 3A 11.6.1).
struct InterruptMessage {
    enum class Delivery : u8 { fixed, lowest_priority, smi, reserved, nmi, init, startup, ext_int };
    enum class Shorthand : u8 { none, self, all_including_self, all_excluding_self };
    u32 destination = 0;
    bool logical = false;
    Delivery delivery = Delivery::fixed;
    Vector vector;
    bool level_triggered = false;
    bool assert_level = true;
    Shorthand shorthand = Shorthand::none;
};

} // namespace nestor::hv
