// Virtual VMX for L1 (SDM 3C chapters 24 to 31), seen from L0.
//
// L1 runs under vmcs01. Its VMX instructions exit here. What L1 writes into its VMCS is vmcs12
// (state::Nested, kept by value as a processor keeps it); while L2 runs, the silicon executes under
// vmcs02, which is made from vmcs01 and vmcs12 and never saved. L2's registers are live in the
// silicon; L1's are those of vmcs12's host area.
#pragma once

#include <optional>

#include "engine/arch/vmx_error.hpp"
#include "engine/cpu/cpu.hpp"
#include "engine/cpu/entry_checks.hpp"
#include "engine/hypervisor/vcpu.hpp"

namespace nestor::hv {

class Nested final {
public:
    static constexpr u64 none = ~u64{0};            ///< a pointer that names no VMCS (SDM 3C 25.1)
    static constexpr u32 info_valid = bit<u32>(31); ///< in interruption information (SDM 3C 25.9.2)
    static constexpr u64 list_entry_size = sizeof(cpu::MsrListEntry);

    explicit Nested(Vcpu::Impl& vcpu);

    state::Nested s;
    arch::VmxCapabilities capabilities; ///< all zero on a CPU model without VMX

    [[nodiscard]] bool offered() const { return capabilities.basic != 0; }
    /// Capability MSRs; empty for another index.
    [[nodiscard]] std::optional<u64> read_msr(u32 index) const;
    void reset();
    /// The vCPU's capabilities changed.
    void follow_caps();

    /// A VMX instruction of L1, which has exited (nested_instructions.cpp). An Exit when a page
    /// that it needs is not there: nothing has happened then.
    std::optional<Exit> instruction();

    /// A VM exit of L2 (nested_reflect.cpp). True: L0 has to handle it as one of its own guest.
    /// False: it became L1's, or `stopped` says what is needed first.
    bool take_exit(std::optional<Exit>& stopped);
    /// An exception that L0 found in an instruction of L2, and that L1 wants.
    void take_exception();
    /// The page without which an exit to L1 could not be completed. Asked for before L2 runs.
    std::optional<Exit> reach_exit();

    /// What is pending while L2 is active, in the SDM's order (nested_events.cpp): becomes an exit
    /// to L1, an injection into L2, or a window.
    std::optional<Exit> events();
    /// Whether something ends L2's HLT, shutdown or wait-for-SIPI.
    [[nodiscard]] bool wakes() const;

    /// The silicon has something to do at the boundary where it stands, before any event of L0's.
    [[nodiscard]] bool boundary_busy() const;
    /// The windows that L1 asked for; they stay open beside L0's own.
    [[nodiscard]] u32 windows() const;
    /// L1's time-stamp counter was written while L2 is active.
    void follow_tsc();

    /// Makes vmcs02 current again: after a load, and after RSM back into L2.
    void resume_l2();
    /// The state with what the silicon holds of it while L2 runs.
    [[nodiscard]] state::Nested saved() const;
    /// SMI: leaves L2 silently, as RSM will come back (SDM 3C 32.14.1, default treatment).
    void enter_smm();
    /// RSM, once the registers are loaded. False: what was loaded is no state for L2.
    [[nodiscard]] bool leave_smm();

    /// Checks of the unit by itself, and with the others.
    [[nodiscard]] static const char* wrong_alone(const state::Nested& from);
    [[nodiscard]] const char* wrong_together() const;

private:
    using Error = arch::VmxError;
    using Step = std::optional<Exit>;

    // nested_operand.cpp. Each fetches its operand or returns false; then `stop_` says what to do.
    bool memory_operand(unsigned size, cpu::Access access, u64& linear);
    bool load_operand(unsigned size, void* out);
    bool store_operand(unsigned size, const void* in);
    bool stop_for_cpu();
    [[nodiscard]] u64 register_operand(unsigned shift) const;
    [[nodiscard]] bool mode64() const;
    /// Reads or writes L1's memory, or says which page is missing. Where no RAM is: all ones.
    Step read_memory(u64 address, std::span<u8> out);
    Step write_memory(u64 address, std::span<const u8> in);
    /// The page that keeps [address, address + size) from being read or written.
    Step reach(u64 address, u64 size, bool write);

    // nested_instructions.cpp
    bool permitted();
    Step succeed();
    Step fail_invalid();
    Step fail_valid(Error error);
    Step fault(arch::Exception vector);
    [[nodiscard]] bool valid_pointer(u64 address) const;
    Step vmxon();
    Step vmxoff();
    Step vmclear();
    Step vmptrld();
    Step vmptrst();
    Step vmread();
    Step vmwrite();
    Step invept();
    Step invvpid();
    Step flush_current();

    // nested_entry.cpp
    Step enter(bool launch);
    Step check_entry();
    Step fail_entry(arch::ExitReason reason, u64 qualification);
    void commit_entry(const state::Vmcs& vmcs02, const std::array<u64, 4>& pdptes);
    u32 load_msrs(u64 address, u32 count);
    [[nodiscard]] cpu::EntryContext context() const;

    // nested_vmcs02.cpp
    [[nodiscard]] state::Vmcs vmcs02() const;
    void make_current(const state::Vmcs& vmcs02);

    // nested_exit.cpp
    void exit_to_l1(const cpu::VmExit& exit);
    void entry_failed(const cpu::VmExit& exit);
    void save_l2(const cpu::VmExit& exit);
    bool store_msrs();
    void back_to_vmcs01();
    void load_l1(bool nmi_blocked);
    void abort();

    // nested_reflect.cpp
    [[nodiscard]] bool l1_wants(const cpu::VmExit& exit) const;
    Step shadow_access();

    // nested_events.cpp
    void event_exit(arch::ExitReason reason, u64 qualification = 0, u32 interruption = 0);
    Step interrupt();
    [[nodiscard]] bool exits_on_interrupts() const;
    [[nodiscard]] bool posted_to_l2(Vector vector) const;
    [[nodiscard]] bool nmi_blocked() const;
    [[nodiscard]] bool window_open() const;
    [[nodiscard]] bool timer_expired() const;
    Vcpu::Impl& v_;
    std::optional<Exit> stop_;
};

} // namespace nestor::hv
