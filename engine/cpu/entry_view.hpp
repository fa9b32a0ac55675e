// The words in which entry_checks.def says what must hold: a VMCS, the processor, and what was read
// from memory, with the questions that the SDM asks of them.
#pragma once

#include <array>

#include "engine/arch/bits.hpp"
#include "engine/arch/exception.hpp"
#include "engine/cpu/entry_checks.hpp"
#include "engine/cpu/event.hpp"

namespace nestor::cpu {

/// A guest segment register (SDM 3C 25.4.1).
struct SegmentView {
    u16 selector;
    u64 base;
    u32 limit;
    u32 rights;

    [[nodiscard]] constexpr bool usable() const { return (rights & arch::seg_attr::unusable) == 0; }
    [[nodiscard]] constexpr u32 type() const { return rights & arch::seg_attr::type; }
    [[nodiscard]] constexpr bool s() const { return (rights & arch::seg_attr::s) != 0; }
    [[nodiscard]] constexpr u32 dpl() const { return bits(rights, 6, 5); }
    [[nodiscard]] constexpr u32 rpl() const { return selector & 3; }
    [[nodiscard]] constexpr bool present() const { return (rights & arch::seg_attr::p) != 0; }
    [[nodiscard]] constexpr bool db() const { return (rights & arch::seg_attr::db) != 0; }
    [[nodiscard]] constexpr bool reserved_clear() const { return (rights & 0xfffe0f00) == 0; }
    /// Accessed, and readable if it is code.
    [[nodiscard]] constexpr bool readable() const {
        return (type() & 1) != 0 && ((type() & 8) == 0 || (type() & 2) != 0);
    }
    [[nodiscard]] constexpr bool paragraph_base() const { return base == u64{selector} << 4; }
    /// G is 0 where bits 11:0 of the limit are not all 1, and 1 where one of bits 31:20 is.
    [[nodiscard]] constexpr bool granular() const {
        const bool g = (rights & arch::seg_attr::g) != 0;
        return g ? (limit & 0xfff) == 0xfff : limit >> 20 == 0;
    }
};

/// Activity states (SDM 3C 25.4.2).
namespace activity {
inline constexpr u32 active = 0, hlt = 1, shutdown = 2, wait_for_sipi = 3;
} // namespace activity

/// Interruptibility state (SDM 3C table 25-3).
namespace blocking {
inline constexpr u32 sti = 1, mov_ss = 2, smi = 4, nmi = 8;
} // namespace blocking

struct EntryView {
    const state::Vmcs& v;
    const EntryContext& c;
    // What was read from guest memory, and the list entry in question.
    u8 vtpr = 0;
    u32 link_revision = 0;
    std::array<u64, 4> pdptes{};
    MsrListEntry msr{};

    // --- controls, as effective: secondary ones are 0 unless activated ---
    [[nodiscard]] bool pin(u32 control) const {
        return (v.pin_based_vm_exec_control & control) != 0;
    }
    [[nodiscard]] bool proc(u32 control) const {
        return (v.cpu_based_vm_exec_control & control) != 0;
    }
    [[nodiscard]] bool proc2(u32 control) const {
        return proc(arch::proc_control::activate_secondary_controls) &&
               (v.secondary_vm_exec_control & control) != 0;
    }
    [[nodiscard]] bool exit(u32 control) const { return (v.vm_exit_controls & control) != 0; }
    [[nodiscard]] bool entry(u32 control) const { return (v.vm_entry_controls & control) != 0; }
    [[nodiscard]] bool may(arch::ControlWord word, u32 control) const {
        return (c.capabilities.may_be_1(word) & control) != 0;
    }
    [[nodiscard]] bool allowed(arch::ControlWord word, u32 value) const {
        return (value & c.capabilities.must_be_1(word)) == c.capabilities.must_be_1(word) &&
               (value & ~c.capabilities.may_be_1(word)) == 0;
    }
    [[nodiscard]] bool unrestricted() const {
        return proc2(arch::proc2_control::unrestricted_guest);
    }
    [[nodiscard]] bool eptp_switching() const {
        return proc2(arch::proc2_control::enable_vm_functions) &&
               (v.vm_function_controls & arch::vmfunc::eptp_switching) != 0;
    }
    [[nodiscard]] bool checks_vtpr() const {
        return proc(arch::proc_control::use_tpr_shadow) &&
               !proc2(arch::proc2_control::virtualize_apic_accesses |
                      arch::proc2_control::virtual_interrupt_delivery);
    }

    // --- addresses ---
    [[nodiscard]] bool physical(u64 address, u64 alignment) const {
        return (address & (alignment - 1)) == 0 && address >> c.physical_bits == 0;
    }
    [[nodiscard]] bool page(u64 address) const { return physical(address, page_size); }
    [[nodiscard]] bool canonical(u64 address) const { return is_canonical(address, c.linear_bits); }
    [[nodiscard]] bool msr_list(u64 address, u32 count) const {
        return count == 0 || (physical(address, 16) && physical(address + u64{count} * 16 - 1, 1));
    }
    [[nodiscard]] bool msr_list_length(u32 count) const {
        return count <= 512 * (bits(c.capabilities.misc, 27, 25) + 1);
    }

    // --- EPT pointer ---
    [[nodiscard]] bool ept_has(u64 capability) const {
        return (c.capabilities.ept_vpid_cap & capability) != 0;
    }
    [[nodiscard]] bool ept_memory_type() const {
        const u64 type = v.ept_pointer & arch::eptp::memory_type;
        return (type == 0 && ept_has(arch::ept_vpid::uncacheable)) ||
               (type == 6 && ept_has(arch::ept_vpid::write_back));
    }
    [[nodiscard]] bool ept_walk_length() const {
        const u64 length = bits(v.ept_pointer, 5, 3);
        return (length == 3 && ept_has(arch::ept_vpid::walk_4)) ||
               (length == 4 && ept_has(arch::ept_vpid::walk_5));
    }

    // --- event injection (SDM 3C table 25-17) ---
    [[nodiscard]] bool injecting() const { return v.vm_entry_intr_info >> 31 != 0; }
    [[nodiscard]] u32 injected_type() const { return bits(v.vm_entry_intr_info, 10, 8); }
    [[nodiscard]] u32 injected_vector() const { return bits(v.vm_entry_intr_info, 7, 0); }
    [[nodiscard]] bool injects(EventType type) const {
        return injecting() && injected_type() == static_cast<u32>(type);
    }
    [[nodiscard]] bool injects_error() const { return bits(v.vm_entry_intr_info, 11, 11) != 0; }
    [[nodiscard]] bool injects_software() const {
        return injects(EventType::software_interrupt) ||
               injects(EventType::privileged_software_exception) ||
               injects(EventType::software_exception);
    }
    /// A hardware exception, in a guest that will be in protected mode as far as this is checked.
    [[nodiscard]] bool injects_protected_exception() const {
        return injects(EventType::hardware_exception) && (!unrestricted() || protected_mode());
    }
    [[nodiscard]] bool any_error_code() const {
        return (c.capabilities.basic & arch::vmx_basic::any_error_code) != 0;
    }
    [[nodiscard]] bool vector_has_error() const {
        const u32 vector = injected_vector();
        const bool shadow_stacks = (c.capabilities.cr4_fixed1 & arch::cr4::cet) != 0;
        return vector < arch::exceptions.size() && arch::exceptions[vector].has_error_code &&
               (vector != static_cast<u32>(arch::Exception::cp) || shadow_stacks);
    }
    [[nodiscard]] bool error_required() const {
        return injects_protected_exception() && !any_error_code() && vector_has_error();
    }
    [[nodiscard]] bool error_permitted() const {
        return injects_protected_exception() && (any_error_code() || vector_has_error());
    }
    [[nodiscard]] bool instruction_length_ok() const {
        const bool zero = (c.capabilities.misc & arch::vmx_misc::zero_length_injection) != 0;
        return v.vm_entry_instruction_len <= 15 && (zero || v.vm_entry_instruction_len != 0);
    }

    // --- guest mode ---
    [[nodiscard]] bool long_guest() const { return entry(arch::entry_control::ia32e_mode_guest); }
    [[nodiscard]] bool protected_mode() const { return (v.guest_cr0 & arch::cr0::pe) != 0; }
    [[nodiscard]] bool v8086() const { return (v.guest_rflags & arch::rflags::vm) != 0; }
    [[nodiscard]] bool code64() const {
        return long_guest() && (v.guest_cs_access_rights & arch::seg_attr::l) != 0;
    }
    [[nodiscard]] bool pae_paging() const {
        return (v.guest_cr0 & arch::cr0::pg) != 0 && (v.guest_cr4 & arch::cr4::pae) != 0 &&
               !long_guest();
    }
    [[nodiscard]] static bool efer_mode(u64 value, bool long_mode) {
        constexpr u64 both = arch::efer::lma | arch::efer::lme;
        return (value & both) == (long_mode ? both : 0);
    }
    /// SDM 3A 4.4.1: bits 2:1, 8:5 and those above the physical width.
    [[nodiscard]] bool pdptes_valid(const std::array<u64, 4>& entries) const {
        const u64 reserved = mask(2, 1) | mask(8, 5) | mask(63, c.physical_bits);
        for (const u64 entry : entries) {
            if ((entry & arch::pte::p) != 0 && (entry & reserved) != 0) {
                return false;
            }
        }
        return true;
    }

    // --- guest segments ---
#define NESTOR_SEGMENT_VIEW(name)                                                                  \
    [[nodiscard]] SegmentView name() const {                                                       \
        return {v.guest_##name##_selector, v.guest_##name##_base, v.guest_##name##_limit,          \
                v.guest_##name##_access_rights};                                                   \
    }
    NESTOR_SEGMENT_VIEW(cs)
    NESTOR_SEGMENT_VIEW(ss)
    NESTOR_SEGMENT_VIEW(ds)
    NESTOR_SEGMENT_VIEW(es)
    NESTOR_SEGMENT_VIEW(fs)
    NESTOR_SEGMENT_VIEW(gs)
    NESTOR_SEGMENT_VIEW(tr)
    NESTOR_SEGMENT_VIEW(ldtr)
#undef NESTOR_SEGMENT_VIEW
    /// Whether the rules of protected mode apply to a segment other than CS.
    [[nodiscard]] bool checks(const SegmentView& s) const { return !v8086() && s.usable(); }
    [[nodiscard]] bool checks_dpl(const SegmentView& s) const {
        return checks(s) && !unrestricted() && s.type() <= 11;
    }
    [[nodiscard]] bool cs_type() const {
        return (cs().type() & 0b1001) == 0b1001 || (cs().type() == 3 && unrestricted());
    }
    [[nodiscard]] bool cs_dpl() const {
        switch (cs().type()) {
        case 3:
            return cs().dpl() == 0;
        case 9:
        case 11:
            return cs().dpl() == ss().dpl();
        case 13:
        case 15:
            return cs().dpl() <= ss().dpl();
        default:
            return true; // cs_type() says
        }
    }

    // --- guest non-register state ---
    [[nodiscard]] bool blocked(u32 bits_) const {
        return (v.guest_interruptibility_state & bits_) != 0;
    }
    [[nodiscard]] bool active_is(u32 state) const { return v.guest_activity_state == state; }
    [[nodiscard]] bool activity_supported() const {
        const u32 state = v.guest_activity_state;
        return state <= activity::wait_for_sipi &&
               (state == activity::active || (c.capabilities.misc & bit(5 + state)) != 0);
    }
    [[nodiscard]] bool activity_takes_event() const {
        const bool exception = injects(EventType::hardware_exception);
        const bool machine_check =
            exception && injected_vector() == static_cast<u32>(arch::Exception::mc);
        switch (v.guest_activity_state) {
        case activity::active:
            return true;
        case activity::hlt:
            return injects(EventType::external_interrupt) || injects(EventType::nmi) ||
                   injects(EventType::other) || machine_check ||
                   (exception && injected_vector() == static_cast<u32>(arch::Exception::db));
        case activity::shutdown:
            return injects(EventType::nmi) || machine_check;
        default:
            return false;
        }
    }
    [[nodiscard]] bool holds_back_traps() const {
        return blocked(blocking::sti | blocking::mov_ss) || active_is(activity::hlt);
    }
    [[nodiscard]] bool single_steps() const {
        constexpr u64 btf = bit(1);
        return (v.guest_rflags & arch::rflags::tf) != 0 && (v.guest_ia32_debugctl & btf) == 0;
    }
    [[nodiscard]] bool has_link() const { return v.vmcs_link_pointer != ~u64{0}; }
};

} // namespace nestor::cpu
