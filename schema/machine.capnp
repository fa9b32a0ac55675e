# What makes a machine this machine, and where its scheduler and its time stand (DESIGN.md, rule 2).

@0xf1b86d2e93c05a47;

using A = import "annotations.capnp";

struct MachineConfig $A.rank(0) {
  # Chosen when the machine is made; constant for its life.
  memory @0 :UInt64 = 536870912 $A.unit("bytes");
  cpus @1 :UInt16 = 1;
  cpuModel @2 :Text = "nestor-v1";
  tickHz @3 :UInt64 = 1000000000 $A.unit("Hz");
  # Ticks in a second of guest time: the frequency of the TSC.
  ticksPerInstruction @4 :UInt32 = 1;
  turn @5 :UInt32 = 20000 $A.unit("instructions");
  # Length of a scheduler turn.
  startTime @6 :Int64 = 1735689600 $A.unit("seconds since 1970");
  # What the real-time clock shows at tick 0.
  seed @7 :UInt64 = 0x4e6573746f722121 $A.hex;
  # Of the generators behind RDRAND and RDSEED.
  board @8 :UInt32 = 1;
  # Revision of the board: with the other fields it decides which units there are. 1 is that of 0.1.0.
}

enum Ending {
  running @0;
  poweredOff @1;
  debugExit @2;
  resetRequested @3;
  tripleFault @4;
}

struct ApicvInhibits {
  # Why the local APICs of L1 are not virtualized by the silicon: any of these, for every vCPU. No
  # guest can see it, except that blocked interrupts do not come.
  disabled @0 :Bool $A.policy("an option of whoever runs the machine");
  blockIrq @1 :Bool;
  # NMIs, SMIs and interrupts wait: for debugging.
  physicalIdAliased @2 :Bool $A.policy("how L1 is run, not what it is");
  # Two enabled APICs have the same ID.
  apicIdModified @3 :Bool $A.policy("how L1 is run, not what it is");
  # An APIC has, or had, another ID than at reset.
  apicBaseModified @4 :Bool $A.policy("how L1 is run, not what it is");
  # An enabled APIC lies, or lay, elsewhere than at reset.
}

struct Machine $A.rank(1) {
  count @0 :UInt64 $A.unit("instructions");
  # Machine-wide position.
  idleTicks @1 :UInt64 $A.unit("ticks");
  # Ticks that passed while every vCPU idled: ticks = count * ticksPerInstruction + idleTicks.
  owner @2 :UInt16;
  # Whose turn it is.
  turnLeft @3 :UInt32 $A.unit("instructions");
  fruitlessJumps @4 :UInt32;
  # Idle jumps in a row that woke nobody.
  ending @5 :Ending;
  exitStatus @6 :UInt8;
  # With debugExit.
  inhibits @7 :ApicvInhibits;
}
