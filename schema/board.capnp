# State of the board's devices. Times are in ticks of the machine or in clocks of the device's own
# oscillator, counted from power-on (DESIGN.md, rule 2). Ranks order what falls on the same tick.

@0xe3a5c71f08b64d29;

using A = import "annotations.capnp";

struct Uart $A.rank(30) {
  # 16550A (National PC16550D). The transmitter is always empty: a byte leaves as it is written.
  interruptEnable @0 :UInt8 $A.hex;
  fifoControl @1 :UInt8 $A.hex;
  lineControl @2 :UInt8 $A.hex;
  modemControl @3 :UInt8 $A.hex;
  scratch @4 :UInt8 $A.hex;
  divisor @5 :UInt16 = 12;
  fifo @6 :Data;
  # Received and not yet read, oldest first: at most 16, or 1 while the FIFO is off.
  wire @7 :Data;
  # Sent to us and not yet taken in, because the FIFO is full.
  transmitEmptyPending @8 :Bool;
  # The transmitter-empty interrupt is raised and was not read from IIR yet.
  overrun @9 :Bool;
  modemDelta @10 :UInt8 $A.hex;
  # Bits 3:0 of MSR.
}

struct PicChip {
  # One Intel 8259A.
  irr @0 :UInt8 $A.hex;
  isr @1 :UInt8 $A.hex;
  imr @2 :UInt8 $A.hex;
  elcr @3 :UInt8 $A.hex;
  # Edge/level control: bit n set, input n is level triggered.
  lines @4 :UInt8 $A.hex;
  vectorBase @5 :UInt8 $A.hex;
  lowestPriority @6 :UInt8 = 7;
  # The input that has the lowest priority; the next one has the highest.
  expected @7 :UInt8;
  # ICW expected next at the odd port: 2, 3 or 4; 0 outside initialisation.
  expectIcw4 @8 :Bool;
  single @9 :Bool;
  autoEoi @10 :Bool;
  rotateOnAutoEoi @11 :Bool;
  specialMask @12 :Bool;
  specialFullyNested @13 :Bool;
  poll @14 :Bool;
  readIsr @15 :Bool;
}

struct Pic $A.rank(50) {
  chips @0 :List(PicChip) $A.fixed(2);
  # Master, slave (on the master's input 2).
}

struct PitChannel {
  # One counter of an Intel 8254.
  mode @0 :UInt8 = 3;
  access @1 :UInt8 = 3;
  # 1 low byte, 2 high byte, 3 low then high.
  bcd @2 :Bool;
  gate @3 :Bool = true;
  counting @4 :Bool;
  # A count was written after the mode.
  triggered @5 :Bool;
  # Modes 1 and 5: the gate started a cycle.
  count @6 :UInt32 = 65536;
  # Clocks in a full cycle.
  pendingCount @7 :UInt32;
  # Written during a cycle of mode 1, 2, 3 or 5 and loaded at its end; 0 is none.
  startClock @8 :UInt64 $A.unit("PIT clocks");
  # When the current cycle was loaded.
  heldClocks @9 :UInt64 $A.unit("PIT clocks");
  # How far the cycle had come when the gate stopped it.
  seenClock @10 :UInt64 $A.unit("PIT clocks");
  # Output changes up to here have been reported.
  lowByte @11 :UInt8 $A.hex;
  writeHighNext @12 :Bool;
  readHighNext @13 :Bool;
  latched @14 :UInt16 $A.hex;
  latchedBytes @15 :UInt8;
  # Bytes of `latched` still to be read.
  status @16 :UInt8 $A.hex;
  statusLatched @17 :Bool;
  pendingClock @18 :UInt64 $A.unit("PIT clocks");
  # When pendingCount is loaded (modes 2 and 3).
}

struct Pit $A.rank(10) {
  channels @0 :List(PitChannel) $A.fixed(3);
  speaker @1 :Bool;
  # Port 0x61 bit 1.
}

struct IoApic $A.rank(40) {
  # Intel 82093AA with the EOI register of version 0x20.
  id @0 :UInt8;
  select @1 :UInt8 $A.hex;
  redirection @2 :List(UInt64) $A.fixed(24) $A.hex;
  # Bit 14 is remote IRR.
  lines @3 :UInt32 $A.hex;
}

struct Rtc $A.rank(20) {
  # Motorola MC146818 with 128 bytes of CMOS RAM.
  index @0 :UInt8 $A.hex;
  cmos @1 :Data $A.fixed(128) $A.hex;
  # Registers A to D included; bytes 0 to 9 hold the time only while the clock is stopped.
  baseSeconds @2 :Int64 $A.unit("seconds since 1970");
  baseTick @3 :UInt64 $A.unit("ticks");
  # The clock showed exactly baseSeconds at baseTick.
  seenSeconds @4 :Int64 $A.unit("seconds since 1970");
  # Updates up to here have set their flags.
  periodicBase @5 :UInt64 $A.unit("ticks");
  periodicSeen @6 :UInt64;
  # Periods since periodicBase that have set their flag.
}

struct AcpiPm $A.rank(25) {
  # PM1a event and control block and the PM timer (ACPI 6.4, 4.8.3).
  status @0 :UInt16 $A.hex;
  enable @1 :UInt16 $A.hex;
  control @2 :UInt16 = 1 $A.hex;
  timerSeen @3 :UInt64;
  # Half turns of the 24-bit timer that have set TMR_STS.
  eventStatus @4 :UInt8 $A.hex;
  # GPE0_STS: general-purpose events that were raised.
  eventEnable @5 :UInt8 $A.hex;
}

struct VmGeneration $A.rank(26) {
  # Microsoft's virtual machine generation ID: which copy of a machine this is.
  id @0 :Data $A.fixed(16) $A.hex;
}

struct Keyboard $A.rank(35) {
  # Intel 8042 with nothing plugged in.
  command @0 :UInt8 $A.hex;
  # Command that waits for its data byte; 0 is none.
  configuration @1 :UInt8 = 0x74 $A.hex;
  outputPort @2 :UInt8 = 0x03 $A.hex;
  output @3 :UInt8 $A.hex;
  outputFull @4 :Bool;
}

struct PciHost $A.rank(60) {
  # Configuration mechanism #1, the host bridge behind it, which has nothing to set, and the reset
  # control register.
  address @0 :UInt32 $A.hex;
  resetControl @1 :UInt8 $A.hex;
}

struct FwCfg $A.rank(61) {
  # QEMU's firmware configuration device, without DMA. Its contents follow from the configuration.
  selector @0 :UInt16 $A.hex;
  offset @1 :UInt32;
}

struct TestDevice $A.rank(36) {
  # Ports of QEMU's pc-testdev.
  data @0 :UInt32 $A.hex;
  lines @1 :UInt32 $A.hex;
  # Interrupt lines raised through ports 0x2000 and up.
}
