// Compares what a snapshot needs with what a host offers.
//
// Owns the list of questions. Each answers with a finding (path, have, need, remedy) instead of
// stopping at the first, so that people see all of it before anything moves.
#include "src/control/contract.hpp"

#include <algorithm>

#include <nlohmann/json.hpp>
#include <unistd.h>

#include "engine/hypervisor/cpu_caps.hpp"
#include "engine/state/codec.hpp"
#include "engine/state/info.hpp"

namespace nestor::control {
namespace {

constexpr const char* registers[] = {"EAX", "EBX", "ECX", "EDX"};

std::string hex(u64 value) {
    char text[24];
    std::snprintf(text, sizeof(text), "0x%llx", static_cast<unsigned long long>(value));
    return text;
}

u32 word_of(const state::CpuidEntry& entry, u8 reg) {
    const u32 words[] = {entry.eax, entry.ebx, entry.ecx, entry.edx};
    return words[reg];
}

void check_features(const state::MachineContract& contract, const HostOffer& offer,
                    std::vector<Finding>& found) {
    for (std::size_t w = 0; w < arch::cpuid_words; ++w) {
        const arch::CpuidRegister& r = arch::cpuid_registers[w];
        const u32 have = w < offer.cpu_features.size() ? offer.cpu_features[w] : 0;
        for (const state::CpuidEntry& entry : contract.cpuid) {
            if (entry.leaf != r.leaf || (entry.has_subleaf && entry.subleaf != r.subleaf)) {
                continue;
            }
            const u32 need = word_of(entry, r.reg);
            if ((need & ~have) != 0) {
                found.push_back({"contract.cpuid[" + hex(r.leaf) + "." + std::to_string(r.subleaf) +
                                     "]." + registers[r.reg],
                                 hex(have), hex(need), "restore where these features are offered"});
            }
            break;
        }
    }
}

} // namespace

Digest schema_set_digest() {
    Hasher hasher;
    const auto text = [&hasher](std::string_view s) {
        hasher.add(u64{s.size()});
        hasher.add(std::as_bytes(std::span(s)));
    };
    for (const state::StructInfo* info : state::erased::all()) {
        hasher.add(info->id);
        text(info->name);
        for (const state::FieldInfo& field : info->fields) {
            text(field.name);
            hasher.add(u64{field.ordinal});
            hasher.add(u64{field.bits});
            hasher.add(u64{field.slot});
            hasher.add(field.default_bits);
        }
    }
    return hasher.finish();
}

Result<state::MachineContract> contract_of(const state::MachineConfig& config) {
    return state::MachineContract{.memory = config.memory,
                                  .cpus = config.cpus,
                                  .cpu_model = config.cpu_model,
                                  .tick_hz = config.tick_hz,
                                  .cpuid =
                                      TRY(hv::cpu_model_cpuid(config.cpu_model, 0, config.cpus))};
}

snapshot::Contract encode_contract(const state::MachineContract& contract) {
    return {state::Meta<state::MachineContract>::id, state::encode(contract)};
}

HostOffer this_host() {
    HostOffer offer;
    const long pages = ::sysconf(_SC_PHYS_PAGES);
    offer.memory =
        pages > 0 ? static_cast<u64>(pages) * static_cast<u64>(::sysconf(_SC_PAGESIZE)) : 0;
    for (const std::string_view name : hv::cpu_model_names()) {
        offer.cpu_models.emplace_back(name);
    }
    for (std::size_t w = 0; w < arch::cpuid_words; ++w) {
        offer.cpu_features.push_back(hv::CpuCaps::engine_word(static_cast<arch::CpuidWord>(w)));
    }
    for (const state::StructInfo* info : state::erased::all()) {
        offer.unit_types.push_back(info->id);
    }
    return offer;
}

std::string to_json(const HostOffer& offer) {
    nlohmann::ordered_json j;
    j["format"] = offer.format;
    j["engineSemantics"] = offer.engine_semantics;
    j["cpus"] = offer.cpus;
    j["memory"] = offer.memory;
    j["tickHz"] = offer.tick_hz;
    j["cpuModels"] = offer.cpu_models;
    j["cpuFeatures"] = offer.cpu_features;
    j["unitTypes"] = offer.unit_types;
    return j.dump();
}

Result<HostOffer> offer_from_json(const std::string& text) {
    const auto wrong = [](const std::string& what) {
        return fail(ErrorCode::corrupt, "host description: " + what,
                    "write one with: vm host dump --json > FILE");
    };
    const nlohmann::json j = nlohmann::json::parse(text, nullptr, false);
    if (!j.is_object()) {
        return wrong("it is not a JSON object");
    }
    for (const char* key : {"format", "engineSemantics", "cpus", "memory", "tickHz"}) {
        if (!j.contains(key) || !j[key].is_number_unsigned()) {
            return wrong(std::string(key) + " is not a number");
        }
    }
    const auto all = [&j](const char* key, bool (nlohmann::json::*is)() const noexcept) {
        return j.contains(key) && j[key].is_array() &&
               std::all_of(j[key].begin(), j[key].end(), [is](const auto& e) { return (e.*is)(); });
    };
    if (!all("cpuModels", &nlohmann::json::is_string) ||
        !all("cpuFeatures", &nlohmann::json::is_number_unsigned) ||
        !all("unitTypes", &nlohmann::json::is_number_unsigned)) {
        return wrong("cpuModels, cpuFeatures or unitTypes is not a list");
    }
    HostOffer offer;
    offer.format = j["format"].get<u32>();
    offer.engine_semantics = j["engineSemantics"].get<u32>();
    offer.cpus = static_cast<u16>(std::min<u64>(j["cpus"].get<u64>(), 0xffff));
    offer.memory = j["memory"].get<u64>();
    offer.tick_hz = j["tickHz"].get<u64>();
    offer.cpu_models = j["cpuModels"].get<std::vector<std::string>>();
    offer.cpu_features = j["cpuFeatures"].get<std::vector<u32>>();
    offer.unit_types = j["unitTypes"].get<std::vector<u64>>();
    return offer;
}

Result<std::vector<Finding>> findings(const snapshot::Manifest& manifest, const HostOffer& offer) {
    std::vector<Finding> found;
    const auto number = [&found](const char* path, u64 have, u64 need, const char* remedy) {
        found.push_back({path, std::to_string(have), std::to_string(need), remedy});
    };
    if (manifest.format > offer.format) {
        number("format", offer.format, manifest.format, "use a newer vm there");
    }
    if (manifest.engine_semantics != offer.engine_semantics) {
        number("engineSemantics", offer.engine_semantics, manifest.engine_semantics,
               "use the vm that saved it");
    }
    for (const snapshot::UnitEntry& unit : manifest.units) {
        if (std::find(offer.unit_types.begin(), offer.unit_types.end(), unit.type) ==
            offer.unit_types.end()) {
            found.push_back(
                {"unit " + unit.name, "unknown", "type " + hex(unit.type), "use a newer vm there"});
        }
    }
    if (manifest.contract.type != state::Meta<state::MachineContract>::id) {
        found.push_back({"contract", hex(state::Meta<state::MachineContract>::id),
                         hex(manifest.contract.type), "use the vm that saved it"});
        return found;
    }
    const auto contract =
        TRY(state::decode<state::MachineContract>(manifest.contract.bytes), "contract");
    if (contract.cpus > offer.cpus) {
        number("contract.cpus", offer.cpus, contract.cpus, "restore where more vCPUs are offered");
    }
    if (contract.memory > offer.memory) {
        number("contract.memory", offer.memory, contract.memory, "restore on a larger host");
    }
    if (contract.tick_hz != offer.tick_hz) {
        number("contract.tickHz", offer.tick_hz, contract.tick_hz, "use the vm that saved it");
    }
    if (std::find(offer.cpu_models.begin(), offer.cpu_models.end(), contract.cpu_model) ==
        offer.cpu_models.end()) {
        std::string known;
        for (const std::string& model : offer.cpu_models) {
            known += (known.empty() ? "" : ", ") + model;
        }
        found.push_back({"contract.cpuModel", known, contract.cpu_model, "use a newer vm there"});
    }
    check_features(contract, offer, found);
    return found;
}

Result<> refuse(const std::vector<Finding>& findings) {
    if (findings.empty()) {
        return {};
    }
    std::string message = "this host cannot run the machine";
    for (const Finding& f : findings) {
        message += "\n  " + f.path + ": have " + f.have + ", need " + f.need;
    }
    return fail(ErrorCode::incompatible, message, findings.front().remedy);
}

} // namespace nestor::control
