// VMX instructions of L1 but VM entry (SDM 3C chapter 31).
//
// Each makes its checks in the SDM's order: exceptions first, then VMfail. The current VMCS lives
// in Nested::s.vmcs12; its region in memory is brought up to date by VMCLEAR, by VMPTRLD of another
// and by VMXOFF. Capabilities and caches need no action of INVEPT and INVVPID: no cached
// translation is ever observable, so they only check their operands.
#include "engine/arch/bits.hpp"
#include "engine/cpu/package.hpp"
#include "engine/cpu/vmcs_fields.hpp"
#include "engine/hypervisor/nested.hpp"
#include "engine/hypervisor/vcpu_impl.hpp"

namespace nestor::hv {

using namespace arch;

namespace {

constexpr u64 feature_control_lock = bit(0), feature_control_vmx = bit(2);

template <class T>
std::span<u8> bytes_of(T& value) {
    return {reinterpret_cast<u8*>(&value), sizeof value};
}

} // namespace

std::optional<Exit> Nested::instruction() {
    stop_.reset();
    switch (v_.cpu.exit.reason) {
    case ExitReason::vmxon:
        return vmxon();
    case ExitReason::vmxoff:
        return permitted() ? vmxoff() : std::nullopt;
    case ExitReason::vmclear:
        return permitted() ? vmclear() : std::nullopt;
    case ExitReason::vmptrld:
        return permitted() ? vmptrld() : std::nullopt;
    case ExitReason::vmptrst:
        return permitted() ? vmptrst() : std::nullopt;
    case ExitReason::vmread:
        return permitted() ? vmread() : std::nullopt;
    case ExitReason::vmwrite:
        return permitted() ? vmwrite() : std::nullopt;
    case ExitReason::invept:
        return permitted() ? invept() : std::nullopt;
    case ExitReason::invvpid:
        return permitted() ? invvpid() : std::nullopt;
    case ExitReason::vmlaunch:
        return permitted() ? enter(true) : std::nullopt;
    case ExitReason::vmresume:
        return permitted() ? enter(false) : std::nullopt;
    case ExitReason::vmcall:
        return permitted() ? fail_valid(Error::vmcall_in_root) : std::nullopt;
    default:
        return fault(Exception::ud);
    }
}

// --- outcomes -----------------------------------------------------------------------------------

std::optional<Exit> Nested::fault(Exception vector) {
    v_.raise(vector);
    return std::nullopt;
}

/// In VMX operation, at CPL 0. False: #UD or #GP(0) is on its way.
bool Nested::permitted() {
    if (!s.vmxon) {
        v_.raise(Exception::ud);
        return false;
    }
    if (v_.cpu.cpl != 0) {
        v_.raise(Exception::gp);
        return false;
    }
    return true;
}

// SDM 3C 31.2: VMsucceed clears the arithmetic flags, VMfailInvalid sets CF, VMfailValid sets ZF.
std::optional<Exit> Nested::succeed() {
    v_.cpu.set_flags(rflags::arithmetic, 0);
    v_.complete_exit();
    return std::nullopt;
}

std::optional<Exit> Nested::fail_invalid() {
    v_.cpu.set_flags(rflags::arithmetic, rflags::cf);
    v_.complete_exit();
    return std::nullopt;
}

std::optional<Exit> Nested::fail_valid(Error error) {
    if (s.current == none) {
        return fail_invalid();
    }
    s.vmcs12.vm_instruction_error = static_cast<u32>(error);
    v_.cpu.set_flags(rflags::arithmetic, rflags::zf);
    v_.complete_exit();
    return std::nullopt;
}

/// Page-aligned and within the physical-address width.
bool Nested::valid_pointer(u64 address) const {
    return (address & page_mask) == 0 && address >> v_.physical_bits == 0;
}

// --- VMX operation ------------------------------------------------------------------------------

std::optional<Exit> Nested::vmxon() {
    const state::Cpu& cpu = v_.cpu.s;
    if (!offered() || (cpu.cr4 & cr4::vmxe) == 0) {
        return fault(Exception::ud);
    }
    if (v_.cpu.cpl != 0) {
        return fault(Exception::gp);
    }
    if (s.vmxon) {
        return fail_valid(Error::vmxon_in_root);
    }
    const VmxCapabilities& c = capabilities;
    const auto supported = [](u64 value, u64 fixed0, u64 fixed1) {
        return (value & fixed0) == fixed0 && (value & ~fixed1) == 0;
    };
    const u64 enabled = feature_control_lock | feature_control_vmx;
    if (!supported(cpu.cr0, c.cr0_fixed0, c.cr0_fixed1) ||
        !supported(cpu.cr4, c.cr4_fixed0, c.cr4_fixed1) ||
        (v_.msrs.feature_control & enabled) != enabled || cpu.in_smm) {
        return fault(Exception::gp);
    }
    u64 pointer = 0;
    if (!load_operand(sizeof pointer, &pointer)) {
        return stop_;
    }
    if (!valid_pointer(pointer)) {
        return fail_invalid();
    }
    u32 revision = 0;
    if (auto stop = read_memory(pointer, bytes_of(revision))) {
        return stop;
    }
    if (revision != static_cast<u32>(c.basic)) {
        return fail_invalid();
    }
    s.vmxon = true;
    s.vmxon_pointer = pointer;
    s.current = none;
    s.vmcs12 = {};
    v_.cpu.s.monitor_armed = false;
    v_.vmcs01_changed();
    return succeed();
}

std::optional<Exit> Nested::vmxoff() {
    if (auto stop = flush_current()) {
        return stop;
    }
    s.vmxon = false;
    s.vmxon_pointer = none;
    v_.vmcs01_changed();
    return succeed();
}

// --- the current VMCS ---------------------------------------------------------------------------

/// Brings the region of the current VMCS up to date and lets go of it.
std::optional<Exit> Nested::flush_current() {
    if (s.current == none) {
        return std::nullopt;
    }
    std::array<u8, page_size> region;
    if (auto stop = read_memory(s.current, region)) {
        return stop;
    }
    cpu::write_region(s.vmcs12, region);
    if (auto stop = write_memory(s.current, region)) {
        return stop;
    }
    s.current = none;
    s.vmcs12 = {};
    return std::nullopt;
}

std::optional<Exit> Nested::vmclear() {
    u64 pointer = 0;
    if (!load_operand(sizeof pointer, &pointer)) {
        return stop_;
    }
    if (!valid_pointer(pointer)) {
        return fail_valid(Error::vmclear_invalid_address);
    }
    if (pointer == s.vmxon_pointer) {
        return fail_valid(Error::vmclear_vmxon_pointer);
    }
    u32 clear = 0;
    if (auto stop = reach(pointer, page_size, true)) {
        return stop;
    }
    if (pointer == s.current) {
        if (auto stop = flush_current()) {
            return stop;
        }
    }
    if (auto stop = write_memory(pointer + cpu::region::launch_state, bytes_of(clear))) {
        return stop;
    }
    return succeed();
}

std::optional<Exit> Nested::vmptrld() {
    u64 pointer = 0;
    if (!load_operand(sizeof pointer, &pointer)) {
        return stop_;
    }
    if (!valid_pointer(pointer)) {
        return fail_valid(Error::vmptrld_invalid_address);
    }
    if (pointer == s.vmxon_pointer) {
        return fail_valid(Error::vmptrld_vmxon_pointer);
    }
    std::array<u8, page_size> region;
    if (auto stop = read_memory(pointer, region)) {
        return stop;
    }
    const u32 revision = cpu::region_revision(region);
    const bool shadow = (revision & cpu::region::shadow_indicator) != 0;
    const bool shadowing =
        (capabilities.may_be_1(ControlWord::proc2) & proc2_control::vmcs_shadowing) != 0;
    if ((revision & ~cpu::region::shadow_indicator) != static_cast<u32>(capabilities.basic) ||
        (shadow && !shadowing)) {
        return fail_valid(Error::vmptrld_wrong_revision);
    }
    if (pointer != s.current) {
        if (auto stop = flush_current()) {
            return stop;
        }
        s.current = pointer;
        s.vmcs12 = cpu::read_region(region);
    }
    return succeed();
}

std::optional<Exit> Nested::vmptrst() {
    if (!store_operand(sizeof s.current, &s.current)) {
        return stop_;
    }
    return succeed();
}

// SDM 3C 31.3, VMREAD: bits 63:32 of the encoding's register must be zero in 64-bit mode.
std::optional<Exit> Nested::vmread() {
    if (s.current == none) {
        return fail_invalid();
    }
    const u64 encoding = mode64() ? register_operand(28) : static_cast<u32>(register_operand(28));
    const auto value = encoding >> 32 == 0 ? cpu::vmread(s.vmcs12, static_cast<u32>(encoding),
                                                         capabilities, mode64())
                                           : std::nullopt;
    if (!value) {
        return fail_valid(Error::unsupported_component);
    }
    if ((v_.cpu.exit.instruction_info & bit<u32>(10)) != 0) {
        v_.cpu.s.gpr[v_.cpu.exit.instruction_info >> 3 & 15] = *value;
    } else if (!store_operand(mode64() ? 8 : 4, &*value)) {
        return stop_;
    }
    return succeed();
}

std::optional<Exit> Nested::vmwrite() {
    if (s.current == none) {
        return fail_invalid();
    }
    u64 value = 0;
    if ((v_.cpu.exit.instruction_info & bit<u32>(10)) != 0) {
        value = register_operand(3);
    } else if (!load_operand(mode64() ? 8 : 4, &value)) {
        return stop_;
    }
    const u64 encoding = mode64() ? register_operand(28) : static_cast<u32>(register_operand(28));
    if (encoding >> 32 != 0) {
        return fail_valid(Error::unsupported_component);
    }
    const auto error =
        cpu::vmwrite(s.vmcs12, static_cast<u32>(encoding),
                     mode64() ? value : static_cast<u32>(value), capabilities, mode64());
    return error ? fail_valid(*error) : succeed();
}

// --- invalidations ------------------------------------------------------------------------------

std::optional<Exit> Nested::invept() {
    constexpr u64 single = 1, all = 2;
    if ((capabilities.may_be_1(ControlWord::proc2) & proc2_control::enable_ept) == 0) {
        return fault(Exception::ud);
    }
    const u64 type = mode64() ? register_operand(28) : static_cast<u32>(register_operand(28));
    if (type != single && type != all) {
        return fail_valid(Error::invalid_operand);
    }
    std::array<u64, 2> descriptor{};
    if (!load_operand(sizeof descriptor, descriptor.data())) {
        return stop_;
    }
    // SDM 3C 31.3, INVEPT: an EPTP that VM entry would refuse.
    const u64 eptp = descriptor[0];
    const bool valid =
        (eptp & arch::eptp::reserved) == 0 && eptp >> v_.physical_bits == 0 &&
        (eptp & arch::eptp::walk_length) == u64{3} << 3 &&
        ((eptp & arch::eptp::memory_type) == 0 || (eptp & arch::eptp::memory_type) == 6);
    return type == single && !valid ? fail_valid(Error::invalid_operand) : succeed();
}

std::optional<Exit> Nested::invvpid() {
    constexpr u64 address = 0, all = 2, keep_globals = 3;
    if ((capabilities.may_be_1(ControlWord::proc2) & proc2_control::enable_vpid) == 0) {
        return fault(Exception::ud);
    }
    const u64 type = mode64() ? register_operand(28) : static_cast<u32>(register_operand(28));
    if (type > keep_globals) {
        return fail_valid(Error::invalid_operand);
    }
    std::array<u64, 2> descriptor{};
    if (!load_operand(sizeof descriptor, descriptor.data())) {
        return stop_;
    }
    const unsigned width = (v_.cpu.s.cr4 & cr4::la57) != 0 ? 57 : 48;
    const bool bad_vpid = type != all && static_cast<u16>(descriptor[0]) == 0;
    const bool bad_address = type == address && !is_canonical(descriptor[1], width);
    return descriptor[0] >> 16 != 0 || bad_vpid || bad_address ? fail_valid(Error::invalid_operand)
                                                               : succeed();
}

} // namespace nestor::hv
