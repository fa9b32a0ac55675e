# What a snapshot says about itself (DESIGN.md, rule 8). The manifest is what a reference
# points at; its digest is the SHA-256 of its canonical bytes. Nothing in it depends on where in a
# store things lie, so a snapshot keeps its digest when it moves to another store.

@0xd6f0b2a94c7e1835;

using Cxx = import "/capnp/c++.capnp";
$Cxx.namespace("nestor::snapshot::schema");

enum Tier {
  resume @0;
  # Continues the one machine: to be resumed once.
  clone @1;
  # May be started many times, each copy with an identity of its own.
}

struct UnitEntry {
  # One state unit. Its bytes are a canonical message of the struct `type`.
  name @0 :Text;
  # "vcpu[0].cpu"; unique in the manifest, and the list is sorted by it.
  type @1 :UInt64;
  size @2 :UInt64;
  digest @3 :Data;
}

struct RegionEntry {
  # A run of guest memory, page aligned. The list is sorted by start and does not overlap.
  start @0 :UInt64;
  size @1 :UInt64;
  root @2 :Data;
  # Digest of the root of its tree of page digests; empty where all of it is zero.
}

enum ImageKind {
  kernel @0;
  module @1;
  # An initrd is one, and whatever else a boot loader hands to a kernel.
}

struct ImageEntry {
  # A file that the machine is booted from again when it is reset. The kernel comes first.
  kind @0 :ImageKind;
  name @1 :Text;
  # What errors call it.
  named @2 :Bool;
  # The guest is told the name, as multiboot has it: then the machine digest covers it.
  arguments @3 :Text;
  # The kernel's command line; what a module is given.
  size @4 :UInt64;
  # Bytes. The last of its pages is padded with zeros.
  root @5 :Data;
  # Digest of the root of its tree of page digests, which is like that of a region; empty where all
  # of it is zero.
}

struct Contract {
  # What the machine needs from whoever runs it: a message of the struct `type`.
  type @0 :UInt64;
  bytes @1 :Data;
}

struct Provenance {
  # Where the snapshot came from. No part of the machine digest.
  createdUnixNs @0 :Int64;
  host @1 :Text;
  creator @2 :Text;
  # Program and version that wrote it.
  machine @3 :Text;
  # Name of the machine when it was saved.
  count @4 :UInt64;
  # Machine-wide position (DESIGN.md, rule 2), for people.
  pauseNs @5 :UInt64;
  # How long the machine stood still for the save.
  saveNs @6 :UInt64;
  # From the start of the save until this was written.
  restored @7 :Text;
  # How the machine came to be: tier and clock chosen when it was restored; empty for a booted one.
}

struct Manifest {
  format @0 :UInt32;
  # Of this file and everything it refers to. A reader refuses what it does not know. 1 without
  # images, 2 with: who does not know of them must not collect what they consist of.
  schemaSet @1 :Data;
  # Digest of the set of schemas that the units were written with.
  engineSemantics @2 :UInt32;
  # Version of the engine's observable behaviour.
  contract @3 :Contract;
  units @4 :List(UnitEntry);
  regions @5 :List(RegionEntry);
  memoryRoot @6 :Data;
  machineDigest @7 :Data;
  parent @8 :Data;
  # Digest of the parent's manifest; empty for none.
  parentTag @9 :Text;
  tier @10 :Tier;
  provenance @11 :Provenance;
  cloneForbidden @12 :Bool;
  # Whoever restores it as a clone is refused.
  images @13 :List(ImageEntry);
  # What a reset boots again. Absent in what versions before 0.2 saved.
}

struct Placement {
  # Where the things that a manifest names lie in this store, in the manifest's order. Not trusted:
  # whatever is found there is compared with the digest in the manifest.
  units @0 :List(UInt64);
  regionRoots @1 :List(UInt64);
  imageRoots @2 :List(UInt64);
}
