// One vCPU of L1: the silicon, its local APIC, and the L0 that handles its VM exits.
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "engine/hypervisor/exit.hpp"
#include "engine/state/machine.hpp"
#include "engine/state/vcpu.hpp"
#include "src/base/result.hpp"

namespace nestor::cpu {
class Package;
}

namespace nestor::hv {

/// What the board answers synchronously.
class BoardPort {
public:
    virtual ~BoardPort() = default;
    /// INTA: the vector of the PIC pair's highest request, acknowledged. Called only while
    /// pic_output() is high.
    virtual Vector acknowledge_pic() = 0;
    /// Level of the PIC pair's INTR output.
    [[nodiscard]] virtual bool pic_output() const = 0;
    /// Delivers an interrupt message that a local APIC sent (ICR) to its targets.
    virtual void send(VcpuIndex from, const InterruptMessage& message) = 0;
    /// A local APIC's mode, place or ID changed: Vcpu::apic_identity() says more, and what follows
    /// for all vCPUs is told by Vcpu::set_inhibits().
    virtual void apic_changed() = 0;
};

/// What other vCPUs have to know of a local APIC.
struct ApicIdentity {
    u32 id = 0;
    bool enabled = false;
    bool id_modified = false; ///< it is not that of reset
    bool moved = false;       ///< it lies elsewhere than at reset
};

/// Position and time at the start of a run (DESIGN.md, rule 2).
struct TimeBase {
    Icount count;               ///< machine-wide count now
    Ticks ticks;                ///< ticks at that count
    u32 ticks_per_insn_num = 1; ///< ticks = ticks + (count' - count) * num / den
    u32 ticks_per_insn_den = 1;
};

class Nested;
struct CpuModel;

class Vcpu final {
public:
    struct Config {
        VcpuIndex index;
        u16 vcpu_count = 1;
        cpu::Package* package = nullptr; ///< shared silicon: memory, decoded code
        BoardPort* board = nullptr;
        std::vector<state::CpuidEntry> cpuid; ///< what the guest sees (cpu_model_cpuid)
        const CpuModel* model = nullptr;      ///< MSRs and VMX; null: default_model()
    };

    explicit Vcpu(const Config& config);
    ~Vcpu();
    Vcpu(const Vcpu&) = delete;
    Vcpu& operator=(const Vcpu&) = delete;

    /// Runs until the machine-wide count is `until`, or something needs the board. `base` is the
    /// time at entry. The count reached is `count()`.
    [[nodiscard]] Exit run(const TimeBase& base, Icount until);

    /// Machine-wide count after the last run (base.count + what this vCPU retired).
    [[nodiscard]] Icount count() const;

    /// Lets run() come back with CountReached right behind an entry to L2, before `until`.
    void stop_at_l2(bool on);
    /// A nested guest is active.
    [[nodiscard]] bool l2_active() const;

    /// Answers a PortAccess or MmioAccess. Writes are completed too (the data is ignored).
    void complete(u64 data);

    /// Somebody outside has answered an access of an instruction that is not complete yet. It is
    /// what the next run completes before anything else; until then nothing is saved or loaded.
    [[nodiscard]] bool in_instruction() const;

    /// Whether run() would do something other than return Halted or WaitingForSipi.
    [[nodiscard]] bool runnable() const;

    /// The tick of the next event of this vCPU's own timers; max when there is none.
    [[nodiscard]] Ticks next_deadline(Ticks now) const;

    /// Accepts a message if it is addressed to this vCPU's APIC. Returns whether it matched.
    bool accepts(const InterruptMessage& message, VcpuIndex from) const;
    void deliver(const InterruptMessage& message, Ticks now);
    /// Priority for lowest-priority arbitration: smaller is preferred.
    [[nodiscard]] u8 arbitration_priority() const;

    /// Reasons that hold for the whole machine: kept, and carried out before the next instruction.
    /// While L2 is active they are left for its exit to L1. A vCPU begins with none, and looks at
    /// them anew after every load.
    void set_inhibits(const state::ApicvInhibits& machine);
    /// Page-modification logging under vmcs01: which clean pages L1 itself writes. Likewise.
    void set_dirty_logging(bool on);
    /// The pages logged since the last call, in the order of their first write. L2's are not among
    /// them: no VMCS of L0's is current then.
    [[nodiscard]] std::vector<Gfn> take_logged_pages();
    [[nodiscard]] ApicIdentity apic_identity() const;

    /// Power-on reset or INIT-like reset of everything a machine reset resets.
    void reset();

    /// Not in the middle of an instruction.
    [[nodiscard]] state::Vcpu save() const;
    /// Replaces one state unit, in any order with the others, also before the first run. A unit is
    /// checked by itself; settle() checks what belongs together.
    /// The CPUID that was saved is the model: it is taken as it is where the engine can do it
    /// (cpuid_faults) and it asks of the silicon what the package is (Package::set_features).
    [[nodiscard]] Result<> load(const state::CpuModel& from);
    [[nodiscard]] Result<> load(const state::Cpu& from);
    [[nodiscard]] Result<> load(const state::Lapic& from);
    [[nodiscard]] Result<> load(const state::PendingEvents& from);
    [[nodiscard]] Result<> load(const state::Msrs& from);
    [[nodiscard]] Result<> load(const state::Pmu& from);
    [[nodiscard]] Result<> load(const state::Vmcs01& from);
    [[nodiscard]] Result<> load(const state::Nested& from);
    /// Replaces all of them and settles.
    [[nodiscard]] Result<> load(const state::Vcpu& from);
    /// Checks across units after the last load, and derives what is not saved. The first run does
    /// it too; then a failure is a Refused.
    [[nodiscard]] Result<> settle();

private:
    friend class Nested;
    struct Impl;
    std::unique_ptr<Impl> impl_;
};

} // namespace nestor::hv
