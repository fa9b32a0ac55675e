# Nested state of one vCPU: what L0 keeps for an L1 that runs VMX (DESIGN.md, rule 3).
#
# vmcs02 is derived and not here. L2's registers are those of the unit `cpu` while L2 is active; an
# event that VM entry still has to inject is in the unit `events`. What a VMCS names by address is
# read in guest memory when it is needed, so nothing of it is state.

@0x8f6d21c09be4a753;

using A = import "annotations.capnp";
using Vmcs = import "vmcs.capnp".Vmcs;

struct SmmNested {
  # What VMX was when an SMI came (SDM 3C 32.14); RSM goes back to it.
  vmxon @0 :Bool;
  guestMode @1 :Bool;
}

struct NestedPending {
  # What L0 wants changed in vmcs01 while vmcs02 is the current VMCS. Carried out at the exit to L1,
  # in this order, when vmcs01 is current again and before an interrupt is acknowledged.
  tprThreshold @0 :UInt8 = 0xff;
  # The threshold's new value; all ones when it stays.
  virtualApicMode @1 :Bool;
  # L1's local APIC was disabled, enabled or changed between xAPIC and x2APIC mode.
  dirtyLogging @2 :Bool;
  # Page-modification logging was switched on or off.
  apicAccessReload @3 :Bool;
  # L1's local APIC moved.
  apicvUpdate @4 :Bool;
  # An inhibit of APICv came or went.
  isrRefresh @5 :Bool;
  # The vector in service changed: SVI.
}

struct Nested {
  vmxon @0 :Bool;
  # VMX operation: between VMXON and VMXOFF.
  vmxonPointer @1 :UInt64 = 0xffffffffffffffff $A.hex;
  current @2 :UInt64 = 0xffffffffffffffff $A.hex;
  # Guest-physical address of the current VMCS; all ones when there is none.
  vmcs12 @3 :Vmcs;
  # Content of the current VMCS: memory has it only after VMCLEAR or another VMPTRLD.
  guestMode @4 :Bool;
  # L2 is active.
  mtfPending @5 :Bool;
  # A monitor-trap-flag exit waits for its boundary.
  timerDeadline @6 :UInt64 = 0xffffffffffffffff $A.unit("ticks");
  # When the VMX preemption timer expires; all ones while it does not run.
  smm @7 :SmmNested;
  runPending @8 :Bool;
  # L2 was entered, and what VM entry leaves to the first boundary is still to come (SDM 3C 27.7).
  pending @9 :NestedPending $A.policy("how L1 is run, not what it is");
}
