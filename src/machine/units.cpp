// Saves and loads a machine as a list of state units.
//
// Owns the one table of units: name, struct and place. Loading decodes every unit into a fresh
// value first; only then is anything applied. The table is what makes a missing or an unknown unit
// an error instead of a surprise later.
#include <algorithm>

#include "engine/hypervisor/cpu_caps.hpp"
#include "engine/state/codec.hpp"
#include "src/base/check.hpp"
#include "src/machine/machine_impl.hpp"

namespace nestor::machine {
namespace {

constexpr u64 max_count = u64{1} << 52;

/// Everything that units are made from and loaded into.
struct Contents {
    state::MachineConfig config;
    state::Machine machine;
    std::vector<state::Vcpu> vcpus;
    BoardState board;
};

/// Calls visit(name, struct) for every unit, in the order of ranks, for those of a vCPU with its
/// index behind.
template <class C, class Visit>
void for_each_unit(C& contents, const Visit& visit) {
    visit("config", contents.config);
    visit("machine", contents.machine);
    for (std::size_t i = 0; i < contents.vcpus.size(); ++i) {
        auto& vcpu = contents.vcpus[i];
        const std::string prefix = "vcpu[" + std::to_string(i) + "].";
        visit(prefix + "model", vcpu.model, i);
        visit(prefix + "cpu", vcpu.cpu, i);
        visit(prefix + "lapic", vcpu.lapic, i);
        visit(prefix + "events", vcpu.events, i);
        visit(prefix + "msrs", vcpu.msrs, i);
        visit(prefix + "pmu", vcpu.pmu, i);
        visit(prefix + "vmcs01", vcpu.vmcs01, i);
        visit(prefix + "nested", vcpu.nested, i);
    }
    visit("pit", contents.board.pit);
    visit("rtc", contents.board.rtc);
    visit("acpi_pm", contents.board.acpi_pm);
    visit("vm_generation", contents.board.vm_generation);
    visit("uart[0]", contents.board.uart);
    visit("keyboard", contents.board.keyboard);
    visit("test_device", contents.board.test_device);
    visit("io_apic", contents.board.io_apic);
    visit("pic", contents.board.pic);
    visit("pci_host", contents.board.pci_host);
    visit("fw_cfg", contents.board.fw_cfg);
}

/// The unit's place in the list.
template <class T>
Result<std::size_t> decode_unit(std::span<const Unit> units, const std::string& name, T& into) {
    const auto wanted = [&](const Unit& unit) { return unit.name == name; };
    const auto found = std::find_if(units.begin(), units.end(), wanted);
    if (found == units.end()) {
        return fail(ErrorCode::corrupt, "unit " + name + " is missing");
    }
    if (std::find_if(found + 1, units.end(), wanted) != units.end()) {
        return fail(ErrorCode::corrupt, "unit " + name + " is there twice");
    }
    if (found->type != state::Meta<T>::id) {
        return fail(ErrorCode::incompatible, "unit " + name + " is of another type");
    }
    into = TRY(state::decode<T>(found->bytes), "unit " + name);
    return static_cast<std::size_t>(found - units.begin());
}

Result<> check_machine(const state::Machine& s, const state::MachineConfig& config) {
    if (s.owner >= config.cpus || s.turn_left > config.turn) {
        return fail(ErrorCode::corrupt, "unit machine: owner or turnLeft is out of range");
    }
    if (s.count > max_count || s.idle_ticks >= time_limit) {
        return fail(ErrorCode::corrupt, "unit machine: count or idleTicks is out of range");
    }
    return {};
}

} // namespace

std::vector<Unit> Machine::units() const {
    const Impl& m = *impl_;
    CHECK(!m.completing);
    Contents contents{.config = m.config, .machine = m.s, .vcpus = {}, .board = m.board->save()};
    for (const auto& vcpu : m.vcpus) {
        contents.vcpus.push_back(vcpu->save());
    }
    std::vector<Unit> units;
    for_each_unit(contents, [&]<class T>(const std::string& name, const T& value, std::size_t = 0) {
        units.push_back({name, state::Meta<T>::id, state::encode(value)});
    });
    return units;
}

Result<state::MachineConfig> Machine::config_of(std::span<const Unit> units) {
    state::MachineConfig config;
    TRY(decode_unit(units, "config", config));
    return config;
}

Result<> Machine::load_units(std::span<const Unit> units) {
    Impl& m = *impl_;
    Contents contents;
    contents.vcpus.resize(m.config.cpus);
    std::size_t known = 0;
    Result<> decoded;
    std::vector<std::function<Result<>()>> loads(units.size()); // vCPUs' units, by place
    for_each_unit(contents, [&](const std::string& name, auto& value, std::size_t vcpu = 0) {
        ++known;
        if (!decoded) {
            return;
        }
        const auto place = decode_unit(units, name, value);
        if (!place) {
            decoded = Failure(place.error());
            return;
        }
        if constexpr (requires(hv::Vcpu& v) { v.load(value); }) {
            loads[*place] = [&v = *m.vcpus[vcpu], &value] { return v.load(value); };
        }
    });
    TRY(std::move(decoded));
    if (units.size() != known) {
        return fail(ErrorCode::incompatible, "there are units that this machine does not have");
    }
    if (contents.config != m.config) {
        return fail(ErrorCode::incompatible, "unit config is that of another machine");
    }
    TRY(check_machine(contents.machine, m.config));
    // All vCPUs share the silicon. Each checks that its own model asks for the same.
    const auto& cpuid = contents.vcpus[0].model.cpuid;
    TRY(hv::check_cpuid(cpuid, {0, m.config.cpus}, hv::engine_offer()), "vcpu[0].model");
    m.package->set_features(hv::silicon_features(cpuid));

    auto board = std::make_unique<Board>(m.board_config(), m);
    TRY(board->load(contents.board), "loading the board");
    for (const auto& load : loads) {
        if (load) {
            TRY(load());
        }
    }
    for (const auto& vcpu : m.vcpus) {
        TRY(vcpu->settle());
    }
    m.s = contents.machine;
    m.tell_inhibits();
    m.board = std::move(board);
    m.completing = false;
    std::fill(m.served.begin(), m.served.end(), Ticks(0));
    m.package->forget_all();
    return {};
}

} // namespace nestor::machine
