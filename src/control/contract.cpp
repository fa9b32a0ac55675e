// What a machine needs: made from what it is when it is first saved.
#include "src/control/contract.hpp"

#include "engine/hypervisor/cpu_caps.hpp"
#include "engine/state/codec.hpp"
#include "engine/state/info.hpp"
#include "engine/state/vcpu.hpp"

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

state::MachineContract contract_of(const machine::Machine& machine) {
    const state::MachineConfig& config = machine.config();
    const std::span<const u32> msrs = machine.cpu_model().msrs;
    state::MachineContract contract{.memory = config.memory,
                                    .cpus = config.cpus,
                                    .cpu_model = config.cpu_model,
                                    .tick_hz = config.tick_hz,
                                    .cpuid = machine.vcpu(VcpuIndex(0)).model.cpuid,
                                    .msrs = {msrs.begin(), msrs.end()}};
    const cpu::Features features = hv::silicon_features(contract.cpuid);
    contract.xcr0 = features.xcr0_allowed;
    contract.xss = features.xss_allowed;
    return contract;
}

snapshot::Contract encode_contract(const state::MachineContract& contract) {
    return {state::Meta<state::MachineContract>::id, state::encode(contract)};
}

} // namespace nestor::control
