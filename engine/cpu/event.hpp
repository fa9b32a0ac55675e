// Faults, events in delivery and VM exits: guest events as values.
#pragma once

#include "engine/arch/exception.hpp"
#include "engine/arch/exit_reason.hpp"

namespace nestor::cpu {

/// What is delivered through the IDT. The numbers are those of the VM-entry interruption type
/// (SDM 3C table 25-17).
enum class EventType : u8 {
    external_interrupt = 0,
    nmi = 2,
    hardware_exception = 3,
    software_interrupt = 4,            ///< INT n
    privileged_software_exception = 5, ///< INT1
    software_exception = 6,            ///< INT3, INTO
    other = 7,                         ///< pending MTF (entry injection only)
};

/// An exception, interrupt or NMI that is to be delivered.
struct Event {
    EventType type = EventType::hardware_exception;
    u8 vector = 0;
    bool has_error = false;
    u32 error = 0;
    u8 instruction_length = 0; ///< software events: the saved RIP lies behind the instruction
    u64 address = 0;           ///< #PF: CR2. #DB: bits for DR6
};

/// A VM exit as the SDM reports it (SDM 3C 28.2), plus what L0's emulation of an access needs.
struct VmExit {
    arch::ExitReason reason{};
    u64 qualification = 0;
    u64 guest_linear = 0;
    u64 guest_physical = 0;
    u32 interruption_info = 0;
    u32 interruption_error = 0;
    u32 idt_vectoring_info = 0;
    u32 idt_vectoring_error = 0;
    u32 instruction_length = 0;
    u32 instruction_info = 0;
    /// No control asked for this exit: the silicon leaves to L0 what it does not do itself (an MSR
    /// that it does not hold, a fetch from where no RAM is, a field of a shadow VMCS). Fields are
    /// as for an exit that a control asked for.
    bool assist = false;
};

/// An access of an instruction that has to be answered from outside: a port, MMIO, or the APIC
/// page. The instruction is abandoned and starts again once the answer is there.
struct PendingAccess {
    enum class Kind : u8 { none, port, mmio, apic };
    Kind kind = Kind::none;
    bool write = false;
    u8 size = 0;
    u64 address = 0; ///< port number or guest-physical address
    u64 data = 0;    ///< written value
};

/// Why a block chain stopped.
enum class Outcome : u8 {
    resume,        ///< at an instruction boundary; nothing special
    fault,         ///< Cpu::event is to be delivered; RIP is that of the instruction
    vm_exit,       ///< Cpu::exit says why; RIP is that of the instruction
    access,        ///< Cpu::access waits for an answer; the instruction starts again
    page_needed,   ///< Cpu::wanted_page is absent; the instruction starts again
    copy_needed,   ///< Cpu::wanted_page must be copied; the instruction starts again
    restart_alone, ///< start again as the only instruction of its block
};

} // namespace nestor::cpu
