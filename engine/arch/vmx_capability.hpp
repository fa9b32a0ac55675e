// VMX capability MSRs 0x480 to 0x491 (SDM 3D appendix A): what the silicon offers, and what a
// hypervisor above it may offer less of.
#pragma once

#include <array>
#include <utility>

#include "engine/arch/vmx_control.hpp"
#include "src/base/bits.hpp"

namespace nestor::arch {

/// What of the CPU model decides the capabilities.
struct VmxModel {
    bool rdtscp = true;
    bool invpcid = true;
    bool rdrand = true;
    bool rdseed = true;
    bool xsaves = true;
    bool gigabyte_pages = true;
    u64 cr4_allowed = 0; ///< CR4 bits that may be 1
    static constexpr bool always = true;
    static constexpr bool never = false;
};

/// One value per MSR. Those of the silicon come from vmx_capabilities(); fewer 1-settings are as
/// good.
struct VmxCapabilities {
#define VMX_CAPABILITY(index, name, rule, section) u64 name = 0;
#include "engine/arch/vmx_capability.def"
#undef VMX_CAPABILITY

    /// The MSR that rules a control word: its TRUE form where there is one (SDM 3D A.3.1).
    [[nodiscard]] constexpr u64 allowed(ControlWord word) const {
        const bool true_forms = (basic & bit(55)) != 0;
        switch (word) {
        case ControlWord::pin:
            return true_forms ? true_pinbased_ctls : pinbased_ctls;
        case ControlWord::proc:
            return true_forms ? true_procbased_ctls : procbased_ctls;
        case ControlWord::proc2:
            return procbased_ctls2;
        case ControlWord::exit:
            return true_forms ? true_exit_ctls : exit_ctls;
        case ControlWord::entry:
            return true_forms ? true_entry_ctls : entry_ctls;
        }
        return 0;
    }
    [[nodiscard]] constexpr u32 must_be_1(ControlWord word) const {
        return static_cast<u32>(allowed(word));
    }
    [[nodiscard]] constexpr u32 may_be_1(ControlWord word) const {
        return static_cast<u32>(allowed(word) >> 32);
    }
    /// The value of an MSR by index, or null for another MSR.
    [[nodiscard]] constexpr const u64* find(u32 index) const {
        switch (index) {
#define VMX_CAPABILITY(number, name, rule, section)                                                \
    case number:                                                                                   \
        return &name;
#include "engine/arch/vmx_capability.def"
#undef VMX_CAPABILITY
        default:
            return nullptr;
        }
    }

    [[nodiscard]] constexpr u64* find(u32 index) {
        return const_cast<u64*>(std::as_const(*this).find(index));
    }

    bool operator==(const VmxCapabilities&) const = default;
};

// Bits of the MSRs that are not controls.
namespace vmx_basic {
/// Also Linux's for its vmcs12, so that regions in memory are the same on both (vmcs_field.def).
inline constexpr u64 revision = 0x11e57ed0;
inline constexpr u64 region_size = u64{4096} << 32, write_back = u64{6} << 50, io_info = bit(54),
                     true_controls = bit(55), any_error_code = bit(56);
} // namespace vmx_basic

namespace vmx_misc {
inline constexpr u64 timer_shift = 5; ///< the preemption timer counts TSC bits from this one up
inline constexpr u64 stores_lma = bit(5), hlt = bit(6), shutdown = bit(7), wait_for_sipi = bit(8),
                     cr3_targets = u64{4} << 16, msr_list_512 = u64{0} << 25, vmwrite_any = bit(29),
                     zero_length_injection = bit(30);
} // namespace vmx_misc

namespace ept_vpid {
inline constexpr u64 execute_only = bit(0), walk_4 = bit(6), walk_5 = bit(7), uncacheable = bit(8),
                     write_back = bit(14), page_2m = bit(16), page_1g = bit(17), invept = bit(20),
                     accessed_dirty = bit(21), advanced_violation = bit(22),
                     invept_single = bit(25), invept_all = bit(26), invvpid = bit(32),
                     invvpid_address = bit(40), invvpid_single = bit(41), invvpid_all = bit(42),
                     invvpid_keep_globals = bit(43);
} // namespace ept_vpid

namespace vmfunc {
inline constexpr u64 eptp_switching = bit(0);
} // namespace vmfunc

/// Fields of an EPT pointer (SDM 3C 25.6.11).
namespace eptp {
inline constexpr u64 memory_type = mask(2, 0), walk_length = mask(5, 3), accessed_dirty = bit(6),
                     supervisor_shadow_stack = bit(7), reserved = mask(11, 8);
} // namespace eptp

/// What the silicon offers for a CPU model.
constexpr VmxCapabilities vmx_capabilities(const VmxModel& model) {
    std::array<u32, control_words> offered{};
#define VMX_CONTROL(word, bit_, name, has)                                                         \
    offered[static_cast<std::size_t>(ControlWord::word)] |= model.has ? u32{1} << (bit_) : 0u;
#include "engine/arch/vmx_control.def"
#undef VMX_CONTROL
    // Low half: what must be 1; high half: what may be 1. The TRUE form frees the bits that have a
    // name (SDM 3D A.2).
    const auto value = [&](ControlWord word, bool true_form) {
        const auto i = static_cast<std::size_t>(word);
        const u32 must = true_form ? default1[i] & ~offered[i] : default1[i];
        return u64{default1[i] | offered[i]} << 32 | must;
    };
    VmxCapabilities c;
    c.basic = vmx_basic::revision | vmx_basic::region_size | vmx_basic::write_back |
              vmx_basic::io_info | vmx_basic::true_controls;
    c.pinbased_ctls = value(ControlWord::pin, false);
    c.procbased_ctls = value(ControlWord::proc, false);
    c.exit_ctls = value(ControlWord::exit, false);
    c.entry_ctls = value(ControlWord::entry, false);
    c.procbased_ctls2 = value(ControlWord::proc2, false);
    c.true_pinbased_ctls = value(ControlWord::pin, true);
    c.true_procbased_ctls = value(ControlWord::proc, true);
    c.true_exit_ctls = value(ControlWord::exit, true);
    c.true_entry_ctls = value(ControlWord::entry, true);
    c.misc = vmx_misc::timer_shift | vmx_misc::stores_lma | vmx_misc::hlt | vmx_misc::shutdown |
             vmx_misc::wait_for_sipi | vmx_misc::cr3_targets | vmx_misc::msr_list_512 |
             vmx_misc::vmwrite_any;
    c.cr0_fixed0 = 0x80000021; // PE, NE, PG
    c.cr0_fixed1 = 0xffffffff;
    c.cr4_fixed0 = bit(13); // VMXE
    c.cr4_fixed1 = model.cr4_allowed | bit(13);
    c.ept_vpid_cap = ept_vpid::execute_only | ept_vpid::walk_4 | ept_vpid::uncacheable |
                     ept_vpid::write_back | ept_vpid::page_2m |
                     (model.gigabyte_pages ? ept_vpid::page_1g : 0) | ept_vpid::invept |
                     ept_vpid::accessed_dirty | ept_vpid::invept_single | ept_vpid::invept_all |
                     ept_vpid::invvpid | ept_vpid::invvpid_address | ept_vpid::invvpid_single |
                     ept_vpid::invvpid_all | ept_vpid::invvpid_keep_globals;
    c.vmfunc = vmfunc::eptp_switching;
    c.vmcs_enum = u64{0x19} << 1; // the highest index of a field, TSC multiplier's
    return c;
}

/// How a CPU model's value and the silicon's go together, by rule of the table.
namespace vmx_mask {
constexpr u64 controls(u64 model, u64 silicon) {
    return (model & silicon & ~mask(31, 0)) | ((model | silicon) & mask(31, 0));
}
constexpr u64 bits(u64 model, u64 silicon) { return model & silicon; }
constexpr u64 fixed0(u64 model, u64 silicon) { return model | silicon; }
constexpr u64 model(u64 value, u64) { return value; }
} // namespace vmx_mask

/// What is left of a CPU model's capabilities on this silicon; what the silicon learnt since the
/// model was frozen does not show.
constexpr VmxCapabilities masked(const VmxCapabilities& frozen, const VmxCapabilities& silicon) {
    VmxCapabilities c;
#define VMX_CAPABILITY(index, name, rule, section)                                                 \
    c.name = vmx_mask::rule(frozen.name, silicon.name);
#include "engine/arch/vmx_capability.def"
#undef VMX_CAPABILITY
    return c;
}

} // namespace nestor::arch
