// System-management mode: entry on SMI and RSM (SDM 3C chapter 32).
#include "engine/hypervisor/vcpu_impl.hpp"

namespace nestor::hv {

void Vcpu::Impl::enter_smm() {}
bool Vcpu::Impl::leave_smm() { return false; }

} // namespace nestor::hv
