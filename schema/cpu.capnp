# State of the virtual silicon: what one logical processor holds, whatever level runs on it.
# SDM 1 chapter 3, SDM 3A chapter 2. The field order is the live struct's layout: the interpreter's
# hot registers come first.

@0xc2d8a3b6f1e70911;

using A = import "annotations.capnp";

struct Segment {
  base @0 :UInt64 $A.hex;
  limit @1 :UInt32 $A.hex;
  # Byte granular, whatever G says.
  attributes @2 :UInt32 $A.hex;
  # VMX access-rights format (SDM 3C 25.4.1): type 3:0, S 4, DPL 6:5, P 7, AVL 12, L 13, D/B 14,
  # G 15, unusable 16.
  selector @3 :UInt16 $A.hex;
}

struct DescriptorTable {
  base @0 :UInt64 $A.hex;
  limit @1 :UInt16 $A.hex;
}

enum ActivityState {
  # SDM 3C 25.4.2, in that order.
  active @0;
  hlt @1;
  shutdown @2;
  waitForSipi @3;
}

struct X87 {
  # SDM 1 8.1. Registers in stack order: element i is ST(i).
  significand @0 :List(UInt64) $A.fixed(8) $A.hex;
  signExponent @1 :List(UInt16) $A.fixed(8) $A.hex;
  control @2 :UInt16 = 0x37f $A.hex;
  status @3 :UInt16 $A.hex;
  # TOP in bits 13:11.
  emptyMask @4 :UInt8 = 0xff $A.hex;
  # Bit n set: physical register n is empty.
  opcode @5 :UInt16 $A.hex;
  instructionPointer @6 :UInt64 $A.hex;
  dataPointer @7 :UInt64 $A.hex;
  instructionSelector @8 :UInt16 $A.hex;
  dataSelector @9 :UInt16 $A.hex;
}

struct Cpu {
  gpr @0 :List(UInt64) $A.fixed(16) $A.hex;
  # RAX RCX RDX RBX RSP RBP RSI RDI R8..R15.
  rip @1 :UInt64 $A.hex;
  rflags @2 :UInt64 = 2 $A.hex;
  segments @3 :List(Segment) $A.fixed(6);
  # ES CS SS DS FS GS.
  ldtr @4 :Segment;
  tr @5 :Segment;
  gdtr @6 :DescriptorTable;
  idtr @7 :DescriptorTable;
  cr0 @8 :UInt64 = 0x60000010 $A.hex;
  cr2 @9 :UInt64 $A.hex;
  cr3 @10 :UInt64 $A.hex;
  cr4 @11 :UInt64 $A.hex;
  efer @12 :UInt64 $A.hex;
  xcr0 @13 :UInt64 = 1 $A.hex;
  xss @14 :UInt64 $A.hex;
  pdptr @15 :List(UInt64) $A.fixed(4) $A.hex;
  # PDPTE registers (SDM 3A 4.4.1), valid with PAE paging.
  dr @16 :List(UInt64) $A.fixed(4) $A.hex;
  dr6 @17 :UInt64 = 0xffff0ff0 $A.hex;
  dr7 @18 :UInt64 = 0x400 $A.hex;
  star @19 :UInt64 $A.hex;
  lstar @20 :UInt64 $A.hex;
  cstar @21 :UInt64 $A.hex;
  fmask @22 :UInt64 $A.hex;
  kernelGsBase @23 :UInt64 $A.hex;
  tscAux @24 :UInt32 $A.hex;
  sysenterCs @25 :UInt32 $A.hex;
  sysenterEsp @26 :UInt64 $A.hex;
  sysenterEip @27 :UInt64 $A.hex;
  debugctl @28 :UInt64 $A.hex;
  pat @29 :UInt64 = 0x0007040600070406 $A.hex;
  pkru @30 :UInt32 $A.hex;
  mxcsr @31 :UInt32 = 0x1f80 $A.hex;
  x87 @32 :X87;
  vector @33 :List(UInt64) $A.fixed(64) $A.hex;
  # YMM0..YMM15, four words each, lowest first.

  activity @34 :ActivityState;
  blockingBySti @35 :Bool;
  blockingByMovSs @36 :Bool;
  blockingByNmi @37 :Bool;
  inSmm @38 :Bool;
  pendingDebug @39 :UInt64 $A.hex;
  # Pending debug exceptions, as the VMCS field has them (SDM 3C table 25-4).
  monitorArmed @40 :Bool;
  monitorAddress @41 :UInt64 $A.hex;
  # Guest-physical line that MONITOR watches. Armed and halted is waiting in MWAIT.
  random @42 :List(UInt64) $A.fixed(4) $A.hex;
  # Generator behind RDRAND and RDSEED (xoshiro256++), seeded by an input.
  retired @43 :UInt64;
  # Instructions this vCPU retired since reset: what its performance counters are made from.
  smbase @44 :UInt32 = 0x30000 $A.hex;
  pauseFirst @45 :UInt64 $A.unit("TSC cycles");
  pauseLast @46 :UInt64 $A.unit("TSC cycles");
  # First and most recent PAUSE of the loop that PAUSE-loop exiting watches (SDM 3C 26.1.3).
}
