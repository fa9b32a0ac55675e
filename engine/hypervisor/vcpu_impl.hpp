// What the files of Vcpu share: the parts of one vCPU and L0's handlers of its VM exits.
#pragma once

#include <optional>
#include <set>

#include "engine/cpu/cpu.hpp"
#include "engine/hypervisor/apicv.hpp"
#include "engine/hypervisor/cpu_caps.hpp"
#include "engine/hypervisor/lapic.hpp"
#include "engine/hypervisor/nested.hpp"
#include "engine/hypervisor/pmu.hpp"
#include "engine/hypervisor/vcpu.hpp"

namespace nestor::hv {

/// IA32_DEBUGCTL: LBR, which has no effect because there are no records. No branch trap flag.
inline constexpr u64 debugctl_allowed = 1;

struct Vcpu::Impl {
    explicit Impl(const Config& config);

    // --- run loop (vcpu.cpp) ---
    Exit run(const TimeBase& base, Icount until);
    Exit loop(u64 until);
    void advance_pmu();
    /// Timers, INIT, SIPI, SMI, NMI, interrupts: decides what is injected next. An exit when the
    /// vCPU has nothing to run.
    std::optional<Exit> prepare();
    std::optional<Exit> inject_next();
    /// A count not beyond `until` at which L0 has to look again.
    [[nodiscard]] u64 next_stop(u64 until) const;
    bool inject_nmi();
    void inject_interrupt();
    [[nodiscard]] u64 next_deadline(u64 ticks) const;
    [[nodiscard]] bool wakes() const;
    [[nodiscard]] bool halt_ends() const;
    [[nodiscard]] bool init_waits() const;
    /// An SMI that only a shadow holds back.
    [[nodiscard]] bool smi_waits() const;
    [[nodiscard]] bool nmi_waits() const;
    [[nodiscard]] bool pic_waits() const;
    [[nodiscard]] bool interrupt_waits() const;
    void follow_lapic();
    void follow_tsc();
    /// A VM exit from L2 to L1 counts one.
    void count_transition();
    void accept_init();
    void accept_sipi();
    void power_on();

    // --- vmcs01 and L1's APIC under it (vmcs01.cpp) ---
    void make_vmcs01();
    [[nodiscard]] bool vmcs01_is_ours() const;
    /// Makes vmcs01 the current VMCS, as its fields are.
    void make_vmcs01_current();
    /// What vmcs01 is made from changed, while it is current.
    void vmcs01_changed();
    /// Stores what the silicon changed. Before another VMCS becomes the current one.
    void leave_vmcs01();
    /// The same, and the updates that waited.
    void back_to_vmcs01();
    void store_vmcs01(state::Vmcs& into) const;
    void pass_x2apic();
    void write_vmcs01(const state::NestedPending& what);
    void change_vmcs01(const state::NestedPending& what);
    void request();
    void serve_requests();
    void follow_apic();
    void follow_setting();
    void follow_interrupts();
    void follow_threshold();
    [[nodiscard]] bool apicv_active() const;
    /// The silicon itself delivers what waits in L1's APIC.
    [[nodiscard]] bool delivers_virtually() const;
    void accept(Vector vector, bool level_triggered);
    void acknowledge(Vector vector);
    void service_changed();
    void empty_log();

    // --- state (vcpu_state.cpp) ---
    [[nodiscard]] state::Vcpu save() const;
    [[nodiscard]] Result<> settle();

    // --- VM exits (exits.cpp) ---
    std::optional<Exit> handle_exit();
    std::optional<Exit> handle_access();
    std::optional<Exit> apic_written();
    std::optional<Exit> apic_effects(const Lapic::Effects& effects);
    void emulate_cpuid();
    std::optional<Exit> emulate_wrmsr();
    void emulate_rdmsr();
    void emulate_rdpmc();
    void emulate_xsetbv();
    void emulate_cr_access();
    void emulate_monitor();
    void emulate_mwait();
    void complete_exit() { cpu.complete_instruction(cpu.exit.instruction_length); }
    /// What the instruction that exited should have raised. L1 may have it as an exit of L2.
    void raise(arch::Exception vector, u32 error = 0);
    void raise(const cpu::Event& e);

    /// Becomes a vCPU with this CPUID: everything that is derived from it.
    void take_cpuid(std::span<const state::CpuidEntry> entries);

    // --- MSRs (msr.cpp) ---
    /// False: #GP(0).
    [[nodiscard]] bool read_msr(u32 index, u64& value);
    [[nodiscard]] bool write_msr(u32 index, u64 value, Lapic::Effects& effects);
    bool write_special_msr(u32 index, u64 value);
    std::optional<u64> read_special_msr(u32 index);
    void report_unknown_msr(u32 index, bool write);

    // --- system management mode (smm.cpp) ---
    /// Takes the pending SMI. An exit when the save area is not there yet: nothing changed.
    std::optional<Exit> enter_smm();
    /// RSM. An exit when the save area is not there yet, or Shutdown when what it holds is not
    /// valid.
    std::optional<Exit> leave_smm();

    // --- time ---
    [[nodiscard]] u64 ticks_now() const { return cpu.ticks_at(nullptr); }
    [[nodiscard]] u64 tsc_now() const { return ticks_now() + msrs.tsc_offset; }

    Config config;
    cpu::Cpu cpu;
    Lapic lapic;
    Pmu pmu;
    state::PendingEvents events;
    state::Msrs msrs;
    state::Vmcs vmcs01;
    std::vector<state::CpuidEntry> cpuid;
    CpuCaps caps;
    MsrSet msr_set; ///< of the machine's model
    Nested nested;

    bool stop_at_l2 = false;
    bool unsettled = false; ///< a unit was loaded since settle()
    u64 count = 0;          ///< machine-wide count
    u64 physical_bits = 46;
    state::ApicvInhibits inhibits; ///< of the machine
    bool logging = false;          ///< dirty logging is wanted
    bool requested = true;         ///< vmcs01 has to be compared with what is wanted
    Lapic::Setting known_apic;     ///< what vmcs01, and what waits for it, was made from
    u32 x2apic_passed_for = 0;     ///< controls that the MSR bitmap was made for
    std::array<u8, page_size> msr_bitmap{};
    alignas(64) std::array<u32, 16> posted{};    ///< L1's posted-interrupt descriptor
    std::array<u64, cpu::log_entries> pml_log{}; ///< vmcs01's page-modification log
    std::vector<Gfn> logged;                     ///< taken from it
    std::set<u32> reported_msrs;                 ///< each unknown MSR is named once in the log
    cpu::PendingAccess outside;                  ///< handed to the board, not answered yet
};

} // namespace nestor::hv
