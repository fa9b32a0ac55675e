// What a case's levels mean: the guest's parameters, L0's conditions, and how the state shows that
// the situation is there.
#pragma once

#include <string>

#include "engine/state/nested.hpp"
#include "src/machine/machine.hpp"
#include "tests/matrix/factors.hpp"

namespace nestor::matrix {

/// The command line of l2_matrix.
[[nodiscard]] std::string parameters(const Levels& levels);

/// What L0 wants of L1, whatever L1 does.
struct Conditions {
    bool apicv = true;
    bool logging = false;

    bool operator==(const Conditions&) const = default;
};

[[nodiscard]] Conditions at_start(const Levels& levels);
[[nodiscard]] Conditions when_saved(const Levels& levels);
[[nodiscard]] Conditions when_restored(const Levels& levels);
void set_conditions(machine::Machine& machine, const Conditions& from, const Conditions& to);

/// Whether L2 itself raises the case's update of vmcs01; a command does it otherwise.
[[nodiscard]] bool update_is_l2s(const Levels& levels);
/// Whether the case's update is pending.
[[nodiscard]] bool is_pending(const Levels& levels, const state::NestedPending& pending);
/// Whether the machine stands where the case's event is pending. `calm`: counts since the mark.
[[nodiscard]] bool event_holds(const Levels& levels, machine::Machine& machine, u64 calm);

} // namespace nestor::matrix
