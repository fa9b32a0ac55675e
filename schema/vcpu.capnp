# State of one vCPU of L1: the silicon, and what L0 keeps for it.

@0xe3b0a5d4c9f81722;

using A = import "annotations.capnp";
using Cpu = import "cpu.capnp".Cpu;
using Nested = import "nested.capnp".Nested;
using Vmcs = import "vmcs.capnp".Vmcs;

struct CpuidEntry {
  leaf @0 :UInt32 $A.hex;
  subleaf @1 :UInt32;
  eax @2 :UInt32 $A.hex;
  ebx @3 :UInt32 $A.hex;
  ecx @4 :UInt32 $A.hex;
  edx @5 :UInt32 $A.hex;
  hasSubleaf @6 :Bool;
  # Answers only this subleaf; otherwise the entry answers any.
}

struct Lapic {
  # SDM 3A chapter 11.
  page @0 :List(UInt32) $A.fixed(256) $A.hex;
  # Registers as the xAPIC page has them: element n is the register at offset 4n. It is vmcs01's
  # virtual-APIC page. IDs, ICR and SELF IPI of x2APIC mode are kept in the same places.
  base @1 :UInt64 = 0xfee00900 $A.hex;
  # IA32_APIC_BASE.
  timerDeadline @2 :UInt64 = 0xffffffffffffffff $A.unit("ticks");
  # Next expiry of the one-shot or periodic timer; all ones when it does not run.
  tscDeadline @3 :UInt64 $A.unit("TSC cycles");
  # IA32_TSC_DEADLINE; 0 when disarmed.
  errorsPending @4 :UInt32 $A.hex;
  # Errors since the last write of ESR, which latches them.
  x2apicId @5 :UInt32;
}

struct PendingEvents {
  # What waits outside the silicon for the right boundary.
  nmiCount @0 :UInt8;
  # 0 to 2: one in service may be followed by one more (SDM 3A 6.7.1).
  smi @1 :Bool;
  init @2 :Bool;
  # Latched while in SMM or in VMX operation.
  sipi @3 :Bool;
  sipiVector @4 :UInt8;
  injectedInfo @5 :UInt32 $A.hex;
  # What the silicon delivers before the next instruction, as VM-entry interruption information
  # (SDM 3C table 25-17), at whichever level is active.
  injectedError @6 :UInt32 $A.hex;
  injectedLength @7 :UInt8 $A.unit("bytes");
  # Of a software event's instruction.
}

struct Pmu {
  # Architectural performance monitoring version 2 (SDM 3B 20.2.2).
  select @0 :List(UInt64) $A.fixed(4) $A.hex;
  counter @1 :List(UInt64) $A.fixed(4) $A.hex;
  fixedCounter @2 :List(UInt64) $A.fixed(3) $A.hex;
  fixedControl @3 :UInt64 $A.hex;
  globalControl @4 :UInt64 $A.hex;
  globalStatus @5 :UInt64 $A.hex;
  since @6 :UInt64 $A.unit("instructions");
  # Cpu.retired when the counters last had the values above.
}

struct Msrs {
  # MSRs that L0 keeps and the silicon does not act on.
  featureControl @0 :UInt64 $A.hex;
  tscAdjust @1 :UInt64 $A.hex;
  miscEnable @2 :UInt64 = 0x1 $A.hex;
  mtrrDefType @3 :UInt64 $A.hex;
  mtrrFixed @4 :List(UInt64) $A.fixed(11) $A.hex;
  mtrrBase @5 :List(UInt64) $A.fixed(8) $A.hex;
  mtrrMask @6 :List(UInt64) $A.fixed(8) $A.hex;
  mcgStatus @7 :UInt64 $A.hex;
  mcgControl @8 :UInt64 = 0xffffffffffffffff $A.hex;
  mcControl @9 :List(UInt64) $A.fixed(4) $A.hex;
  mcStatus @10 :List(UInt64) $A.fixed(4) $A.hex;
  mcAddress @11 :List(UInt64) $A.fixed(4) $A.hex;
  mcMisc @12 :List(UInt64) $A.fixed(4) $A.hex;
  microcodeRevision @13 :UInt64 $A.hex;
  smiCount @14 :UInt64;
  tscOffset @15 :UInt64 $A.hex;
  # TSC = ticks + tscOffset.
}

struct CpuModel {
  cpuid @0 :List(CpuidEntry);
  # What the guest sees: fixed before the first run.
}

struct Vmcs01 {
  controls @0 :Vmcs $A.policy("how L1 is run, not what it is");
  # Control fields as last written: stale while an update is pending (nested.pending). RVI and SVI
  # are there; the rest of the guest area is not used, because registers are in the unit `cpu`.
}

struct Vcpu {
  # One vCPU's state units. They are saved one by one, as vcpu[n].cpu and so on, and may be loaded
  # in any order.
  model @0 :CpuModel;
  cpu @1 :Cpu;
  # Registers of the level that is active.
  lapic @2 :Lapic;
  events @3 :PendingEvents;
  msrs @4 :Msrs;
  pmu @5 :Pmu;
  vmcs01 @6 :Vmcs01;
  nested @7 :Nested;
}
