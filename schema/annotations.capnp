# What the generators need to know beyond Cap'n Proto's own language (DESIGN.md, rule 1).

@0xb9c6f99ebf805f2c;

annotation fixed @0xd1d3f5a1c0e44a01 (field) :UInt32;
# A List or Data of exactly this many elements: std::array<T, N> in the live struct. A message with
# another length does not decode; an absent list decodes as N default elements.

annotation unit @0xd1d3f5a1c0e44a02 (field) :Text;
# Physical unit, for people: "ticks", "bytes", "Hz". Shown by `vm state schema` and in comments.

annotation vmcs @0xd1d3f5a1c0e44a03 (field) :UInt32;
# VMCS field encoding (SDM 3D appendix B). The struct gets a table: encoding, width, offset.

annotation rank @0xd1d3f5a1c0e44a04 (struct) :UInt16;
# Order among state units where one is needed: lower ranks are applied first, and break ties of
# deadlines at the same tick.

annotation policy @0xd1d3f5a1c0e44a05 (field) :Text;
# The field is L0's own policy and no guest can see it: left out of the guest digest. The text is
# the reason.

annotation hex @0xd1d3f5a1c0e44a06 (field) :Void;
# Shown in hexadecimal: addresses, register values, masks.
