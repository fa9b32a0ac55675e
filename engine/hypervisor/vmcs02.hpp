// vmcs02 out of vmcs12: what the silicon runs L2 under.
#pragma once

#include "engine/state/vmcs.hpp"
#include "src/base/types.hpp"

namespace nestor::hv {

/// L2's time-stamp counter is ticks * multiplier + this: vmcs12's offset, with L1's own inside.
[[nodiscard]] u64 tsc_offset02(const state::Vmcs& vmcs12, u64 l1_tsc_offset);

/// vmcs12 with L1's share of the time-stamp counter, and nothing else of L0's. So no check of VM
/// entry that holds for vmcs12 fails for it.
[[nodiscard]] state::Vmcs make_vmcs02(const state::Vmcs& vmcs12, u64 l1_tsc_offset);

} // namespace nestor::hv
