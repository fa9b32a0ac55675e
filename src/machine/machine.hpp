// The machine: vCPUs, memory and devices under one deterministic scheduler. Facade of src/machine.
#pragma once

#include <array>
#include <functional>
#include <limits>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "engine/cpu/guest_memory.hpp"
#include "engine/state/machine.hpp"
#include "src/base/result.hpp"
#include "src/base/types.hpp"
#include "src/machine/boot.hpp"
#include "src/machine/units.hpp"

namespace nestor::state {
struct Vcpu;
}
namespace nestor::hv {
struct CpuModel;
}

namespace nestor::machine {

/// Bytes that arrive at the serial port.
struct SerialInput {
    std::vector<u8> bytes;
};
/// Time that passes while the machine waits: what `--clock realtime` paces it with.
struct AdvanceTicks {
    u64 ticks = 0;
};
/// The power button is pressed; an operating system with ACPI shuts down.
struct PowerButton {};
/// A new seed for every vCPU's RDRAND and RDSEED.
struct Entropy {
    u64 seed = 0;
};
/// The machine became another one, a copy of what it was: its new VM generation ID.
struct NewGeneration {
    std::array<u8, 16> id{};
};
/// Sets the real-time clock, without time passing.
struct SetClock {
    i64 seconds = 0; ///< since 1970
};
/// NMIs, SMIs and interrupts wait until it is off again: for debugging.
struct BlockInterrupts {
    bool on = false;
};
/// Whether the silicon may virtualize L1's local APICs. No guest sees it.
struct UseApicv {
    bool on = true;
};
/// What comes from outside. All of it enters through Machine::input.
using Input = std::variant<SerialInput, AdvanceTicks, PowerButton, Entropy, NewGeneration, SetClock,
                           BlockInterrupts, UseApicv>;

/// When run() comes back at the latest.
struct RunLimits {
    Icount until{std::numeric_limits<u64>::max()};
    Ticks until_ticks{std::numeric_limits<u64>::max()};
    /// Stop once the guest has sent this text over the serial port; empty for never. A text may
    /// begin in one run and end in the next that waits for the same.
    std::string_view until_serial;
    /// Stop right behind an entry to a nested guest.
    bool until_l2 = false;
    /// Come back when every vCPU idles instead of letting ticks jump to the next deadline.
    bool stop_when_idle = false;
};

/// Why run() came back.
struct Stop {
    enum class Kind : u8 {
        count,        ///< `until` is reached, to the instruction
        ticks,        ///< `until_ticks` is reached
        serial_text,  ///< `until_serial` was sent; the instruction that sent it is complete
        l2,           ///< a vCPU entered a nested guest (`until_l2`)
        idle,         ///< every vCPU idles: nothing happens before `next_deadline` or an input
        halted,       ///< every vCPU is halted with interrupts off: only a reset helps
        powered_off,  ///< ACPI S5
        debug_exit,   ///< a write to port 0xf4; see `exit_status`
        reset,        ///< 0xcf9, 8042 or port 0x92: see Machine::reboot
        triple_fault, ///< the same, by a vCPU's shutdown
        page_needed,  ///< fill `page`, clear its absent state, run again
        copy_needed,  ///< copy `page`, clear its cow state, run again
    };
    Kind kind = Kind::count;
    u8 exit_status = 0;  ///< with debug_exit: ((value << 1) | 1) & 0xff
    Gfn page;            ///< with page_needed and copy_needed
    Ticks next_deadline; ///< with idle; max when no timer runs
};

/// What is no state: it changes no digest.
struct MachineOptions {
    unsigned tlb_entries = 1024;
    /// CPU models that config may name; empty: the released ones. Tests make up others.
    std::span<const hv::CpuModel* const> cpu_models;
};

class Machine final {
public:
    /// Makes a machine at power-on. Usage errors name the value that is out of range: the first of
    /// config_faults().
    [[nodiscard]] static Result<std::unique_ptr<Machine>>
    create(const state::MachineConfig& config, const MachineOptions& options = {});
    ~Machine();
    Machine(const Machine&) = delete;
    Machine& operator=(const Machine&) = delete;

    /// Loads a kernel and leaves what firmware would have left: ACPI tables, locked FEAT_CTL with
    /// VMX on, MTRRs, vCPU 0 at the kernel's entry, the others waiting for a start-up IPI. Once, on
    /// a fresh machine.
    [[nodiscard]] Result<> boot(const BootImages& images);
    /// Resets all devices and vCPUs, clears RAM and boots again; count and ticks go on. Pages are
    /// zero and `clean` until the kernel is loaded: who keeps track of writes has to know.
    [[nodiscard]] Result<> reboot(const BootImages& images);

    /// Runs until a limit or an event. Afterwards the machine stands between two instructions and
    /// can be saved, but for a page that is needed in_instruction(). Where it is stopped changes
    /// nothing of what it does.
    [[nodiscard]] Stop run(const RunLimits& limits);
    /// A device has answered an instruction that needs a page before it can retire: nothing may be
    /// saved, loaded or put in until run() has completed it.
    [[nodiscard]] bool in_instruction() const;
    /// The one door for what comes from outside. It takes effect at the current count. Not
    /// in_instruction().
    void input(const Input& input);

    /// Bytes of serial input that the guest has not read yet.
    [[nodiscard]] u64 serial_input_waiting() const;
    /// Where the guest's serial output goes, as it is sent. Without a sink it is kept for
    /// take_serial_output().
    void set_serial_sink(std::function<void(std::span<const u8>)> sink);
    [[nodiscard]] std::vector<u8> take_serial_output();

    [[nodiscard]] Icount count() const;
    [[nodiscard]] Ticks ticks() const;
    /// What the guest's real-time clock shows, in seconds since 1970.
    [[nodiscard]] i64 clock_seconds() const;
    [[nodiscard]] const state::MachineConfig& config() const;
    /// The one that config() names.
    [[nodiscard]] const hv::CpuModel& cpu_model() const;
    /// Where the scheduler stands, and a vCPU as its units have it: for a look between two
    /// instructions, much cheaper than units().
    [[nodiscard]] const state::Machine& schedule() const;
    [[nodiscard]] state::Vcpu vcpu(VcpuIndex index) const;
    /// Lets every vCPU log the clean pages that L1 itself writes (not L2, devices or L0).
    void set_dirty_logging(bool on);
    /// What was logged since the last call. The page mechanism knows all of it and more.
    [[nodiscard]] std::vector<Gfn> take_logged_pages();
    /// RAM, for the snapshot layer; regions are sorted by address.
    [[nodiscard]] cpu::GuestMemory& memory();
    /// Gives every page the same state, `clean` with or without `absent`, before the machine first
    /// runs. Costs the same for any size.
    [[nodiscard]] Result<> fill_page_states(u8 state);
    /// Forgets what was derived from memory, after its bytes were changed behind the machine's
    /// back.
    void memory_replaced();

    /// The complete state except memory, in the order of the units' ranks.
    [[nodiscard]] std::vector<Unit> units() const;
    /// Replaces the complete state. The units must be without unit_faults(), and "config" must
    /// equal config(); what is not so is `incompatible`. All are decoded before any is applied; on
    /// a failure after that the machine must be discarded. A vCPU's units are applied in the order
    /// of the list. The CPUID that was saved is the machine's from then on, whatever config()'s CPU
    /// model would give.
    [[nodiscard]] Result<> load_units(std::span<const Unit> units);
    /// The configuration among a machine's units, to create() one for load_units().
    [[nodiscard]] static Result<state::MachineConfig> config_of(std::span<const Unit> units);

private:
    struct Impl;
    explicit Machine(std::unique_ptr<Impl> impl);
    std::unique_ptr<Impl> impl_;
};

} // namespace nestor::machine
