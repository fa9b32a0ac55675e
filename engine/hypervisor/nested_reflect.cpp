// Whose VM exit is it: L1's, or L0's own?
//
// vmcs02 asks for what vmcs12 asks for. So an exit is L1's unless the silicon says that no control
// asked for it (`assist`), or it is a window that L0 opened for an event of its own. An assisted
// VMREAD or VMWRITE passed L1's shadowing bitmaps: it is carried out on the shadow VMCS in memory
// (SDM 3C 25.10).
#include "engine/arch/bits.hpp"
#include "engine/cpu/vmcs_fields.hpp"
#include "engine/hypervisor/nested.hpp"
#include "engine/hypervisor/vcpu_impl.hpp"

namespace nestor::hv {

using namespace arch;

bool Nested::l1_wants(const cpu::VmExit& exit) const {
    if (exit.assist) {
        return false;
    }
    const u32 proc12 = s.vmcs12.cpu_based_vm_exec_control;
    switch (exit.reason) {
    case ExitReason::interrupt_window:
        return (proc12 & proc_control::interrupt_window_exiting) != 0;
    case ExitReason::nmi_window:
        return (proc12 & proc_control::nmi_window_exiting) != 0;
    default:
        return true;
    }
}

bool Nested::take_exit(std::optional<Exit>& stopped) {
    const cpu::VmExit exit = v_.cpu.exit;
    if (l1_wants(exit)) {
        exit_to_l1(exit);
        return false;
    }
    if (exit.reason == ExitReason::vmread || exit.reason == ExitReason::vmwrite) {
        stop_.reset();
        stopped = shadow_access();
        return false;
    }
    return true;
}

void Nested::take_exception() { exit_to_l1(v_.cpu.exit); }

/// L2's VMREAD or VMWRITE of the VMCS that vmcs12's link pointer names.
std::optional<Exit> Nested::shadow_access() {
    const bool write = v_.cpu.exit.reason == ExitReason::vmwrite;
    const bool in_register = (v_.cpu.exit.instruction_info & bit<u32>(10)) != 0;
    const unsigned operand_size = mode64() ? 8 : 4;
    const u64 encoding = mode64() ? register_operand(28) : static_cast<u32>(register_operand(28));
    const u64 region = s.vmcs12.vmcs_link_pointer;
    if (region == ~u64{0}) {
        return fail_invalid();
    }
    const auto place = encoding >> 32 == 0
                           ? cpu::region_place(static_cast<u32>(encoding), capabilities)
                           : std::nullopt;
    if (!place) {
        v_.cpu.set_flags(rflags::arithmetic, rflags::zf);
        v_.complete_exit();
        return std::nullopt;
    }
    u64 value = 0;
    const std::span<u8> bytes{reinterpret_cast<u8*>(&value), place->size};
    if (write) {
        if (in_register) {
            value = register_operand(3);
        } else if (!load_operand(operand_size, &value)) {
            return stop_;
        }
        if (auto stop = write_memory(region + place->offset, bytes)) {
            return stop;
        }
        return succeed();
    }
    if (auto stop = read_memory(region + place->offset, bytes)) {
        return stop;
    }
    value &= operand_size == 8 ? ~u64{0} : 0xffffffff;
    if (in_register) {
        v_.cpu.s.gpr[v_.cpu.exit.instruction_info >> 3 & 15] = value;
    } else if (!store_operand(operand_size, &value)) {
        return stop_;
    }
    return succeed();
}

} // namespace nestor::hv
