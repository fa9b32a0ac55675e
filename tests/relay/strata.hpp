// Kinds of moments that a relay has to be cut at, and how to find them.
#pragma once

#include <array>
#include <optional>
#include <string>
#include <vector>

#include "engine/state/machine.hpp"
#include "engine/state/vcpu.hpp"
#include "src/machine/machine.hpp"

namespace nestor::relay {

enum class Stratum : unsigned { user, rep, sti, mov_ss, pending, smm, turn, l2 };
inline constexpr std::array<const char*, 8> stratum_names = {"user",    "rep", "sti",  "movss",
                                                             "pending", "smm", "turn", "l2"};

[[nodiscard]] std::optional<Stratum> stratum_of(const std::string& name);

/// A set of strata: bit n is Stratum n.
using Strata = unsigned;
constexpr Strata bit_of(Stratum s) { return 1u << static_cast<unsigned>(s); }

/// The parts of a machine's state that strata are told from.
struct Moment {
    state::MachineConfig config;
    state::Machine machine;
    state::Vcpu owner;
};
[[nodiscard]] Moment look(const machine::Machine& machine);

/// What is true at `now`; `before` is the moment one count earlier.
[[nodiscard]] Strata strata_at(const Moment& before, const Moment& now);

/// Runs to `count`, and from there instruction by instruction until `wanted` is true or `patience`
/// instructions have passed. Gives what is true where the machine stands then; nothing where it
/// ended on the way.
[[nodiscard]] std::optional<Strata> seek(machine::Machine& machine, u64 count,
                                         std::optional<Stratum> wanted, u64 patience);

/// Where to seek strata that random counts hardly ever meet, by stratum; counts rise.
using Sightings = std::array<std::vector<u64>, stratum_names.size()>;

/// The strata that scout() looks for.
constexpr Strata scouted =
    bit_of(Stratum::sti) | bit_of(Stratum::mov_ss) | bit_of(Stratum::pending);

/// Runs the machine to its end, from turn to turn and from deadline to deadline, and notes counts
/// where an event was pending, counts within a turn before which a vCPU took another GDT: SS is
/// loaded anew there, and counts where interrupts are off that were on: STI is likely to follow.
[[nodiscard]] Sightings scout(machine::Machine& machine);

} // namespace nestor::relay
