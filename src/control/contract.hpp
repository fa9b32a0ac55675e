// What a machine needs, what this build offers, and what is in the way (DESIGN.md, rule 4).
#pragma once

#include <optional>
#include <span>
#include <string>
#include <vector>

#include "engine/hypervisor/semantics.hpp"
#include "engine/state/contract.hpp"
#include "snapshot/snapshot.hpp"
#include "src/machine/machine.hpp"

namespace nestor::control {

/// Digest of all state schemas of this build.
[[nodiscard]] Digest schema_set_digest();

/// Of a machine that was made here. A restored one keeps the contract that it was saved with
/// (Keeper::contract).
[[nodiscard]] state::MachineContract contract_of(const machine::Machine& machine);
[[nodiscard]] snapshot::Contract encode_contract(const state::MachineContract& contract);

/// One thing that keeps a machine from running there, or will make trouble.
struct Finding {
    std::string path; ///< "contract.memory", "unit vcpu[0]", "vcpu[0].cpu.xcr0"
    std::string have;
    std::string need;
    std::string remedy;
    bool blocks = true;                 ///< false: it can run, but people should know
    std::vector<std::string> changes{}; ///< a line for each thing that is different there
};

/// A struct that state units are made of.
struct UnitType {
    std::string name;
    u64 id = 0;
};

/// A change of engine semantics (hv::SemanticsChange), as an offer tells it.
struct SemanticsRow {
    u32 number = 0;
    std::string since;
    std::string what;
};

/// What a host and its engine offer machines: what `vm host dump` writes.
struct HostOffer {
    std::string host;
    std::string engine = "soft";
    u32 format = snapshot::format_version;
    u32 engine_semantics = hv::engine_semantics;
    std::vector<SemanticsRow> semantics; ///< up to engine_semantics; empty: of 0.1.0, not told
    u16 cpus = machine::max_cpus;
    u64 memory = machine::max_memory; ///< bytes of RAM a machine can have
    u64 host_memory = 0;              ///< bytes of RAM the host has
    u64 tick_hz = 1000000000;
    u32 board = 1; ///< newest revision of the board
    std::vector<std::string> cpu_models;
    std::vector<u32> cpu_features; ///< by arch::CpuidWord
    u64 xcr0 = 0;                  ///< XSAVE components that units can hold
    u64 xss = 0;
    u8 physical_bits = 46; ///< MAXPHYADDR; that of 0.1.0, which did not tell
    std::vector<u32> msrs;
    std::vector<UnitType> units; ///< what the units of the newest board are made of
};
[[nodiscard]] HostOffer this_host();

/// A mask or an MSR's number as offers and findings write it: 0x and hexadecimal digits.
[[nodiscard]] std::string hex(u64 value);
/// JSON for people to read and to edit, over several lines; features and MSRs by name and number.
[[nodiscard]] std::string to_json(const HostOffer& offer);
/// The inverse of to_json, as edited by hand or written by a later version: members and features
/// that are not known are passed over. What is no such description is `corrupt`.
[[nodiscard]] Result<HostOffer> offer_from_json(const std::string& text);

/// Everything in a machine's contract and units that `offer` cannot serve, in one go:
/// machine::unit_faults(), units of a type that is not offered, MSRs and XSAVE components without a
/// place in the units.
[[nodiscard]] std::vector<Finding> findings(const snapshot::Contract& contract,
                                            std::span<const snapshot::Unit> units,
                                            const HostOffer& offer);
/// The same for a snapshot, with format and engine.
[[nodiscard]] std::vector<Finding> findings(const snapshot::Snapshot& snapshot,
                                            const HostOffer& offer);

/// What keeps a snapshot from being restored as the one machine or as a clone. None of it blocks:
/// another tier will do.
[[nodiscard]] std::vector<Finding> tier_findings(const snapshot::Manifest& manifest,
                                                 const std::optional<snapshot::Claim>& claim);

/// That a machine without boot images ends at its next reset; it does not block.
[[nodiscard]] std::vector<Finding> image_findings(const snapshot::Manifest& manifest);

/// Whether none of them blocks.
[[nodiscard]] bool can_run(std::span<const Finding> findings);
/// Success where can_run; otherwise an `incompatible` error "`what`" that tells all that block.
[[nodiscard]] Result<> refuse(const std::string& what, std::span<const Finding> findings);

} // namespace nestor::control
