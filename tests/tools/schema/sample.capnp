# One of everything that a state schema may have, for the plugin's own tests.

@0x9f1c3ad27be4a601;

using A = import "../../../schema/annotations.capnp";

const pageLimit :UInt32 = 4096;
const greeting :Text = "hello";

enum Mode {
  realMode @0;
  protectedMode @1;
  default @2;
}

struct Point {
  x @0 :Int32 = -5;
  y @1 :Int32;
}

struct Scalars {
  flag @0 :Bool;
  on @1 :Bool = true;
  tiny @2 :Int8 = -1;
  small @3 :Int16;
  medium @4 :Int32 = -70000;
  large @5 :Int64 = -9223372036854775808;
  byte @6 :UInt8 = 200;
  word @7 :UInt16;
  dword @8 :UInt32 = 0xdeadbeef $A.hex;
  guestRip @9 :UInt64 = 0xfff0 $A.hex;
  mode @10 :Mode = protectedMode;
  top @11 :UInt64 = 18446744073709551615;
}

struct Lists {
  fixedWords @0 :List(UInt64) $A.fixed(4) $A.hex;
  fixedFlags @1 :List(Bool) $A.fixed(70);
  fixedModes @2 :List(Mode) $A.fixed(2);
  fixedPoints @3 :List(Point) $A.fixed(3);
  fixedBlob @4 :Data $A.fixed(10);
  words @5 :List(UInt16);
  modes @6 :List(Mode);
  points @7 :List(Point);
  blob @8 :Data;
  blobs @9 :List(Data);
  name @10 :Text;
  motto @11 :Text = "save \"it\"";
  names @12 :List(Text);
  inner @13 :Scalars;
  bytes @14 :List(Int8);
}

struct Unions {
  count @0 :UInt64;
  event :union {
    none @1 :Void;
    vector @2 :UInt8;
    at @3 :Point;
    note @4 :Text;
    debug :group {
      dr6 @5 :UInt64 $A.hex;
      cause @6 :Text;
    }
  }
  pending :group {
    apicvUpdate @7 :Bool;
    threshold @8 :UInt8 = 7;
    where @9 :Point;
  }
  union {
    idle @10 :Void;
    until @11 :UInt64;
    list @12 :List(UInt32);
    choice :union {
      left @13 :UInt16;
      right @14 :Text;
    }
  }
  nested @15 :Nested;

  struct Nested {
    kind @0 :Kind = second;
    points @1 :List(Point);
    enum Kind {
      first @0;
      second @1;
    }
  }
}

struct Policies {
  visible @0 :UInt32;
  hidden @1 :UInt32 = 3 $A.policy("nothing reads it but L0");
  hiddenList @2 :List(UInt64) $A.policy("nothing reads it but L0");
  inner @3 :Inner;
  struct Inner {
    shown @0 :UInt8;
    secret @1 :UInt8 $A.policy("nothing reads it but L0");
  }
}

struct Fields {
  # A small VMCS.
  guestRip @0 :UInt64 $A.vmcs(0x681e) $A.hex;
  notAField @1 :UInt32;
  virtualProcessorId @2 :UInt16 $A.vmcs(0x0000);
  guestIa32Pat @3 :UInt64 $A.vmcs(0x2804);
  exitReason @4 :UInt32 $A.vmcs(0x4402);
}

struct Nothing {}

struct Older {
  a @0 :UInt32 = 9;
  mode @1 :OlderMode;
  points @2 :List(Small);
  union {
    one @3 :UInt16;
    two @4 :UInt16;
  }
}

enum OlderMode {
  off @0;
}

struct Small {
  x @0 :UInt8;
}

struct Newer {
  # Older, some releases later.
  a @0 :UInt32 = 9;
  mode @1 :NewerMode;
  points @2 :List(Large);
  union {
    one @3 :UInt16;
    two @4 :UInt16;
    three @5 :UInt16;
  }
  bits @6 :UInt64 = 77;
  text @7 :Text = "new";
  flag @8 :Bool = true;
}

enum NewerMode {
  off @0;
  on @1;
}

struct Large {
  x @0 :UInt8;
  more @1 :UInt64;
  name @2 :Text;
}
