// What a machine needs: made from its configuration when it is saved.
#include "src/control/contract.hpp"

#include "engine/arch/msr.hpp"
#include "engine/hypervisor/cpu_caps.hpp"
#include "engine/state/codec.hpp"
#include "engine/state/info.hpp"

namespace nestor::control {

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
    state::MachineContract contract{.memory = config.memory,
                                    .cpus = config.cpus,
                                    .cpu_model = config.cpu_model,
                                    .tick_hz = config.tick_hz,
                                    .cpuid =
                                        TRY(hv::cpu_model_cpuid(config.cpu_model, 0, config.cpus)),
                                    .msrs = {arch::msr_indices.begin(), arch::msr_indices.end()}};
    const cpu::Features features = hv::silicon_features(contract.cpuid);
    contract.xcr0 = features.xcr0_allowed;
    contract.xss = features.xss_allowed;
    return contract;
}

snapshot::Contract encode_contract(const state::MachineContract& contract) {
    return {state::Meta<state::MachineContract>::id, state::encode(contract)};
}

} // namespace nestor::control
