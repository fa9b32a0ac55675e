// The system group: asks its parts in turn. See ops_far*.cpp and ops_system_*.cpp.
//
// Owns nothing. MOV, PUSH and POP belong here only with segment, control or debug registers, so the
// parts look at operands before they claim one.
#include "engine/cpu/system.hpp"

namespace nestor::cpu {

bool emit_system(Emit& e) {
    return emit_system_segment(e) || emit_system_control(e) || emit_system_flags(e) ||
           emit_system_far(e) || emit_system_fast_call(e) || emit_system_msr(e) ||
           emit_system_port(e) || emit_system_cache(e) || emit_system_vmx(e) ||
           emit_system_table(e);
}

} // namespace nestor::cpu
