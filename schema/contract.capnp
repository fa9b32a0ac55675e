# What a machine needs from whoever runs it (DESIGN.md, rule 4): the contract in a snapshot's
# manifest, and what `vm check` compares with a host.

@0xa4d15c7be0926f38;

using A = import "annotations.capnp";
using CpuidEntry = import "vcpu.capnp".CpuidEntry;

struct MachineContract {
  memory @0 :UInt64 $A.unit("bytes");
  cpus @1 :UInt16;
  cpuModel @2 :Text;
  tickHz @3 :UInt64 $A.unit("Hz");
  cpuid @4 :List(CpuidEntry);
  # What vCPU 0 sees; every feature bit in it has to be offered.
  xcr0 @5 :UInt64 $A.hex;
  # XSAVE state components that the guest may enable in XCR0.
  xss @6 :UInt64 $A.hex;
  # The same for IA32_XSS.
  msrs @7 :List(UInt32) $A.hex;
  # MSRs that L0 answers, apart from those of the silicon.
}
