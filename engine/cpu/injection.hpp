// What differs when an event comes from a VM entry or from L0, not from the program that runs.
#pragma once

#include "engine/cpu/descriptors.hpp"
#include "engine/cpu/event.hpp"

namespace nestor::cpu {

class Cpu;

/// As deliver_once, of an event that was injected: it pushes RF as it stands, and VME may redirect
/// it as INT n would be, whatever IOPL is (SDM 3C 27.6.1.1).
bool deliver_injected_once(Cpu& cpu, const Event& e);

/// An exception of the instruction that exited to L0, raised as the silicon raises its own: true
/// where the exception bitmap makes a VM exit of it, which is in Cpu::exit; else it is injected.
bool raise_for_exited(Cpu& cpu, const Event& e);

/// VME in virtual-8086 mode (SDM 3B 21.3.3). False: a fault. `redirect`: software interrupt
/// `vector` goes to the 8086 program's own handler, which deliver_redirected takes it to.
bool vme_redirects(const Site& site, u8 vector, bool& redirect);
bool deliver_redirected(const Site& site, u8 vector, u64 return_rip);

} // namespace nestor::cpu
