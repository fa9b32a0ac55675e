// Compares a machine with what an older version takes.
//
// Owns what is asked beyond findings(), which compares with what a host offers: an older program
// reads a message only where every field that it does not know is at its default, and 0.1.0 takes a
// CPU only where its CPUID is the one that it would make itself. The number of the engine semantics
// does not block: the machine goes on under those of that version, which is told with what differs.
#include "src/control/older_version.hpp"

#include <algorithm>
#include <cstdio>
#include <memory>

#include "engine/hypervisor/cpu_model.hpp"
#include "engine/hypervisor/semantics.hpp"
#include "engine/state/codec.hpp"
#include "engine/state/contract.hpp"
#include "engine/state/info.hpp"
#include "engine/state/vcpu.hpp"
#include "src/control/json.hpp"

namespace nestor::control {
namespace {

/// Versions whose vCPUs take no other CPUID than that of the model's name.
constexpr std::string_view cpuid_is_the_models[] = {"0.1.0"};

class Comparison final {
public:
    explicit Comparison(const OlderVersion& version) : version_(version) {}

    void contract(const snapshot::Contract& bytes) {
        surplus("contract", bytes.type, bytes.bytes);
        if (bytes.type == state::Meta<state::MachineContract>::id) {
            if (const auto decoded = state::decode<state::MachineContract>(bytes.bytes)) {
                contract_ = *decoded;
            }
        }
    }

    void unit(const snapshot::Unit& unit) {
        surplus(unit.name, unit.type, unit.bytes);
        if (unit.type == state::Meta<state::CpuModel>::id && takes_only_the_models_cpuid()) {
            if (const auto model = state::decode<state::CpuModel>(unit.bytes)) {
                cpu_model(unit.name, *model);
            }
        }
    }

    void note(std::string path, std::string have, std::string need, std::string remedy) {
        found_.push_back(
            {std::move(path), std::move(have), std::move(need), std::move(remedy), false});
    }

    [[nodiscard]] std::vector<Finding> take() { return std::move(found_); }

private:
    /// What cannot be read here is told by findings().
    void surplus(const std::string& name, u64 type, std::span<const std::byte> bytes) {
        const state::StructInfo* const info = state::erased::find(type);
        if (info == nullptr || info->create == nullptr) {
            return;
        }
        const std::unique_ptr<void, void (*)(void*)> value(info->create(), info->destroy);
        if (!state::erased::decode(value.get(), *info, bytes)) {
            return;
        }
        if (!version_.schema.has_struct(info->name)) {
            return; // a unit of a type that it does not offer
        }
        for (const state::Surplus& one :
             state::erased::surplus(value.get(), *info, version_.schema)) {
            found_.push_back({name + "." + one.path, "unknown", one.value,
                              "only a machine that does not use it can go to " + version_.name});
        }
    }

    [[nodiscard]] bool takes_only_the_models_cpuid() const {
        return std::ranges::find(cpuid_is_the_models, version_.name) !=
               std::end(cpuid_is_the_models);
    }

    void cpu_model(const std::string& name, const state::CpuModel& model) {
        unsigned index = 0;
        if (std::sscanf(name.c_str(), "vcpu[%u].", &index) != 1 || index >= contract_.cpus) {
            return;
        }
        const hv::CpuModel* const named = hv::find_model(contract_.cpu_model);
        if (named != nullptr &&
            hv::cpu_model_cpuid(*named, static_cast<u16>(index), contract_.cpus) != model.cpuid) {
            found_.push_back({name + ".cpuid", "that of " + contract_.cpu_model, "another one",
                              "no other can go to " + version_.name});
        }
    }

    const OlderVersion& version_;
    state::MachineContract contract_;
    std::vector<Finding> found_;
};

void tell_semantics(Comparison& comparison, const snapshot::Manifest& manifest,
                    const OlderVersion& version) {
    const u32 there = version.offer.engine_semantics;
    if (manifest.engine_semantics > there) {
        comparison.note("engineSemantics", std::to_string(there),
                        std::to_string(manifest.engine_semantics),
                        "goes back under semantics " + std::to_string(there) + ", without " +
                            hv::changed_since(there));
    }
}

void tell_images(Comparison& comparison, const snapshot::Manifest& manifest,
                 const OlderVersion& version) {
    if (!manifest.images.empty() && version.offer.format == snapshot::format_without_images) {
        comparison.note("images", "none",
                        std::to_string(manifest.images.size()) + " that a reset boots from",
                        "they are left behind: a reset ends the machine there");
    }
}

} // namespace

std::vector<std::string> older_versions() {
    std::vector<std::string> names;
    for (const ReleaseTexts& release : release_texts()) {
        names.emplace_back(release.name);
    }
    return names;
}

Result<OlderVersion> older_version(std::string_view name) {
    std::string known;
    for (const ReleaseTexts& release : release_texts()) {
        if (release.name == name) {
            const nlohmann::json host = parse_json(release.host);
            OlderVersion version{.name = std::string(name),
                                 .offer = TRY(offer_from_json(std::string(release.host))),
                                 .schema = state::KnownSchema(release.layouts),
                                 .schema_set = {}};
            version.schema_set = TRY(digest_from_hex(host.value("schemaSet", "")));
            return version;
        }
        known += (known.empty() ? "" : ", ") + std::string(release.name);
    }
    return fail(ErrorCode::usage, "there is no older version " + std::string(name),
                "write one of: " + known);
}

std::vector<Finding> findings_for(const snapshot::Snapshot& snapshot, const OlderVersion& version) {
    const snapshot::Manifest& manifest = snapshot.manifest();
    HostOffer offer = version.offer;
    // Both are written anew.
    offer.format = std::max(offer.format, manifest.format);
    offer.engine_semantics = manifest.engine_semantics;
    std::vector<Finding> found = findings(snapshot, offer);
    Comparison comparison(version);
    comparison.contract(manifest.contract);
    for (const snapshot::Unit& unit : snapshot.units()) {
        comparison.unit(unit);
    }
    tell_semantics(comparison, manifest, version);
    tell_images(comparison, manifest, version);
    for (const Finding& one : comparison.take()) {
        const auto same = [&one](const Finding& f) { return f.path == one.path; };
        if (std::ranges::none_of(found, same)) {
            found.push_back(one);
        }
    }
    return found;
}

snapshot::WriteAs write_as(const OlderVersion& version) {
    return {version.offer.format, version.schema_set, version.offer.engine_semantics};
}

} // namespace nestor::control
