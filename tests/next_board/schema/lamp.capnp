# The state of a device that does not exist: see tests/next_board/meson.build.

@0xd21b7a5c88e3f046;

using A = import "../../../schema/annotations.capnp";

struct Lamp $A.rank(5) {
  level @0 :UInt8 $A.hex;
  # How bright it is; it drives its interrupt line while it is not 0.
  label @1 :UInt32 $A.hex;
  offAt @2 :UInt64 $A.unit("ticks");
  # When it goes out by itself.
}
