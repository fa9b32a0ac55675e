// What a machine needs, what this build offers, and what is in the way (design rule 4).
#pragma once

#include <string>
#include <vector>

#include "engine/state/contract.hpp"
#include "snapshot/snapshot.hpp"
#include "src/machine/machine.hpp"

namespace nestor::control {

/// Version of the engine's observable behaviour. A snapshot of a later one is refused.
inline constexpr u32 engine_semantics = 1;

/// Digest of all state schemas of this build.
[[nodiscard]] Digest schema_set_digest();

[[nodiscard]] Result<state::MachineContract> contract_of(const state::MachineConfig& config);
[[nodiscard]] snapshot::Contract encode_contract(const state::MachineContract& contract);

/// One thing that keeps a machine from running there.
struct Finding {
    std::string path; ///< "contract.memory"
    std::string have;
    std::string need;
    std::string remedy;
};

/// What a host offers machines: one line of `vm host dump`, and what that writes.
struct HostOffer {
    u32 format = snapshot::format_version;
    u32 engine_semantics = control::engine_semantics;
    u16 cpus = machine::max_cpus;
    u64 memory = 0; ///< bytes of RAM the host has
    u64 tick_hz = 1000000000;
    std::vector<std::string> cpu_models;
    std::vector<u32> cpu_features; ///< by arch::CpuidWord
    std::vector<u64> unit_types;   ///< Cap'n Proto ids that this build can decode
};
[[nodiscard]] HostOffer this_host();
[[nodiscard]] std::string to_json(const HostOffer& offer);
/// The inverse of to_json; anything else is `corrupt`.
[[nodiscard]] Result<HostOffer> offer_from_json(const std::string& text);

/// Everything about a snapshot that `offer` cannot serve; empty: it can be restored there.
[[nodiscard]] Result<std::vector<Finding>> findings(const snapshot::Manifest& manifest,
                                                    const HostOffer& offer);
/// No findings is success; otherwise an `incompatible` error that tells them all.
[[nodiscard]] Result<> refuse(const std::vector<Finding>& findings);

} // namespace nestor::control
