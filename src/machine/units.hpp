// Which state units a machine has, and what a list of them lacks.
//
// The one source for saving, loading and `vm check`: which units there are follows from the
// configuration alone (vCPUs, board revision), never from the build that reads them.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "engine/state/machine.hpp"
#include "src/base/types.hpp"

namespace nestor::machine {

inline constexpr u16 max_cpus = 16;
inline constexpr u64 max_memory = u64{64} << 30; ///< bytes of RAM

/// One state unit (DESIGN.md, rule 8).
struct Unit {
    std::string name;             ///< "config", "machine", "vcpu[0].cpu", "uart[0]", …
    u64 type = 0;                 ///< Cap'n Proto id of its struct
    std::vector<std::byte> bytes; ///< canonical

    bool operator==(const Unit&) const = default;
};

/// A unit that a machine has to have.
struct UnitName {
    std::string name;
    u64 type = 0;

    bool operator==(const UnitName&) const = default;
};

/// Something that keeps a configuration or a list of units from being a machine of this build, in
/// the words of `vm check`.
struct Fault {
    std::string path; ///< "unit rtc", "config.cpus"
    std::string have;
    std::string need;
    std::string remedy;
};
/// "config.cpus: have 1 to 16, need 17".
[[nodiscard]] std::string to_string(const Fault& fault);

/// The newest revision of the board that this build makes; what new machines get.
[[nodiscard]] u32 newest_board();

/// The units of a machine with that configuration, in the order of their ranks: what Machine::units
/// gives. vCPUs beyond max_cpus and devices of revisions beyond newest_board() are not known.
[[nodiscard]] std::vector<UnitName> units_of(const state::MachineConfig& config);

/// The RAM of a machine with that configuration, sorted by address.
struct RamRange {
    Gpa start;
    u64 size = 0;

    bool operator==(const RamRange&) const = default;
};
[[nodiscard]] std::vector<RamRange> ram_of(const state::MachineConfig& config);

/// Every value of the configuration that this build does not offer. The CPU model is asked for by
/// its contract.
[[nodiscard]] std::vector<Fault> config_faults(const state::MachineConfig& config);

/// Everything that makes `units` another list than units_of() their "config", all at once: units
/// that it does not name, that are missing, there twice, of another type, or that cannot be read,
/// and config_faults(). Where "config" itself is not to be read, what can be said without it.
[[nodiscard]] std::vector<Fault> unit_faults(std::span<const Unit> units);

} // namespace nestor::machine
