// Saves and loads a machine as a list of state units, and tells what is wrong with such a list.
//
// Owns the one table of units: name, struct, place, and the configurations that have it. Loading
// decodes every unit into a fresh value first; only then is anything applied. The table is what
// makes a missing or an unknown unit a fault to be told instead of a surprise later.
#include "src/machine/units.hpp"

#include <algorithm>
#include <cstdio>
#include <memory>
#include <optional>
#include <set>

#include "engine/hypervisor/cpu_caps.hpp"
#include "engine/state/codec.hpp"
#include "engine/state/info.hpp"
#include "src/base/check.hpp"
#include "src/machine/machine_impl.hpp"

namespace nestor::machine {
namespace {

constexpr u64 max_count = u64{1} << 52;

constexpr const char* newer_vm = "use a newer vm there";
constexpr const char* save_again = "save it again: its units are not those of its config";

/// Everything that units are made from and loaded into.
struct Contents {
    state::MachineConfig config;
    state::Machine machine;
    std::vector<state::Vcpu> vcpus;
    BoardState board;
};

/// Calls visit(name, get, index) for every unit of a machine with that configuration, in the order
/// of ranks. get(contents) is the unit's struct in a Contents; index is that of its vCPU.
template <class Visit>
void for_each_unit(const state::MachineConfig& config, const Visit& visit) {
    visit("config", [](auto& c) -> auto& { return c.config; }, 0);
    visit("machine", [](auto& c) -> auto& { return c.machine; }, 0);
    for (u16 i = 0; i < std::min(config.cpus, max_cpus); ++i) {
        const std::string prefix = "vcpu[" + std::to_string(i) + "].";
        const auto part = [&](const char* name, auto state::Vcpu::* member) {
            visit(prefix + name, [=](auto& c) -> auto& { return c.vcpus[i].*member; }, i);
        };
        part("model", &state::Vcpu::model);
        part("cpu", &state::Vcpu::cpu);
        part("lapic", &state::Vcpu::lapic);
        part("events", &state::Vcpu::events);
        part("msrs", &state::Vcpu::msrs);
        part("pmu", &state::Vcpu::pmu);
        part("vmcs01", &state::Vcpu::vmcs01);
        part("nested", &state::Vcpu::nested);
    }
#define NESTOR_DEVICE(member, Type, unit, revision)                                                \
    if (revision <= config.board) {                                                                \
        visit(unit, [](auto& c) -> auto& { return c.board.member; }, 0);                           \
    }
#include "src/machine/devices.def"
#undef NESTOR_DEVICE
}

/// Does not compile when a field of state::Vcpu comes or goes: it is a unit, so `part` above needs
/// a line for it, with the configurations that have it.
[[maybe_unused]] void every_part_is_named(const state::Vcpu& vcpu) {
    [[maybe_unused]] const auto& [model, cpu, lapic, events, msrs, pmu, vmcs01, nested] = vcpu;
}

template <class Get>
using UnitOf = std::remove_cvref_t<std::invoke_result_t<Get, Contents&>>;

const Unit* find(std::span<const Unit> units, const std::string& name) {
    const auto found = std::find_if(units.begin(), units.end(),
                                    [&](const Unit& unit) { return unit.name == name; });
    return found == units.end() ? nullptr : &*found;
}

std::string type_text(u64 type) {
    char text[24];
    std::snprintf(text, sizeof text, "0x%llx", static_cast<unsigned long long>(type));
    const state::StructInfo* const info = state::erased::find(type);
    return std::string("type ") + text + (info == nullptr ? "" : std::string(" ") + info->name);
}

Failure incompatible(const Fault& fault) {
    return fail(ErrorCode::incompatible, to_string(fault), fault.remedy);
}

/// What is wrong with the bytes of a unit, as one of its type.
std::optional<Fault> content_fault(const Unit& unit) {
    const state::StructInfo* const info = state::erased::find(unit.type);
    if (info == nullptr || info->create == nullptr) {
        return Fault{"unit " + unit.name, "unknown", type_text(unit.type), newer_vm};
    }
    const std::unique_ptr<void, void (*)(void*)> value(info->create(), info->destroy);
    if (const auto done = state::erased::decode(value.get(), *info, unit.bytes); !done) {
        const std::string& remedy = done.error().remedy;
        return Fault{"unit " + unit.name, done.error().message, "readable",
                     remedy.empty() ? newer_vm : remedy};
    }
    return std::nullopt;
}

std::optional<Fault> type_fault(const Unit& unit, u64 type) {
    if (unit.type == type) {
        return std::nullopt;
    }
    return Fault{"unit " + unit.name, type_text(unit.type), type_text(type), save_again};
}

std::optional<Fault> missing_fault(std::span<const Unit> units, const UnitName& wanted) {
    if (find(units, wanted.name) != nullptr) {
        return std::nullopt;
    }
    return Fault{"unit " + wanted.name, "missing", type_text(wanted.type), save_again};
}

/// What keeps `units` from saying what machine they are: one fault, or none.
std::optional<Fault> config_unit_fault(std::span<const Unit> units) {
    const u64 type = state::Meta<state::MachineConfig>::id;
    const Unit* const unit = find(units, "config");
    if (unit == nullptr) {
        return missing_fault(units, {"config", type});
    }
    const auto wrong = type_fault(*unit, type);
    return wrong ? wrong : content_fault(*unit);
}

std::vector<Fault> repeated(std::span<const Unit> units) {
    std::vector<Fault> faults;
    std::set<std::string> seen;
    for (const Unit& unit : units) {
        if (!seen.insert(unit.name).second) {
            faults.push_back({"unit " + unit.name, "there more than once", "once", save_again});
        }
    }
    return faults;
}

/// How names and types of `units` differ from those that the configuration has.
std::vector<Fault> list_faults(std::span<const Unit> units, const state::MachineConfig& config) {
    std::vector<Fault> faults = repeated(units);
    const std::vector<UnitName> named = units_of(config);
    for (const Unit& unit : units) {
        const auto known = std::find_if(named.begin(), named.end(),
                                        [&](const UnitName& n) { return n.name == unit.name; });
        if (known == named.end()) {
            const bool newer = config.board > newest_board() || !state::erased::find(unit.type);
            faults.push_back({"unit " + unit.name,
                              "unknown on board " + std::to_string(config.board) + " with " +
                                  std::to_string(config.cpus) + " vCPU" +
                                  (config.cpus == 1 ? "" : "s"),
                              type_text(unit.type), newer ? newer_vm : save_again});
        } else if (const auto wrong = type_fault(unit, known->type)) {
            faults.push_back(*wrong);
        }
    }
    for (const UnitName& wanted : named) {
        if (const auto missing = missing_fault(units, wanted)) {
            faults.push_back(*missing);
        }
    }
    return faults;
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

std::string to_string(const Fault& fault) {
    return fault.path + ": have " + fault.have + ", need " + fault.need;
}

u32 newest_board() { return newest_revision; }

std::vector<UnitName> units_of(const state::MachineConfig& config) {
    std::vector<UnitName> names;
    for_each_unit(config, [&]<class Get>(std::string name, const Get&, u16) {
        names.push_back({std::move(name), state::Meta<UnitOf<Get>>::id});
    });
    return names;
}

std::vector<Fault> unit_faults(std::span<const Unit> units) {
    std::vector<Fault> faults;
    if (const auto fault = config_unit_fault(units)) {
        faults = repeated(units);
        faults.push_back(*fault);
    } else {
        const state::MachineConfig config = *Machine::config_of(units);
        faults = config_faults(config);
        const std::vector<Fault> more = list_faults(units, config);
        faults.insert(faults.end(), more.begin(), more.end());
    }
    std::set<std::string> told; // of one unit the first fault says enough
    for (const Fault& fault : faults) {
        told.insert(fault.path);
    }
    for (const Unit& unit : units) {
        if (!told.contains("unit " + unit.name)) {
            if (const auto fault = content_fault(unit)) {
                faults.push_back(*fault);
            }
        }
    }
    return faults;
}

std::vector<Unit> Machine::units() const {
    const Impl& m = *impl_;
    CHECK(!m.completing);
    Contents contents{.config = m.config, .machine = m.s, .vcpus = {}, .board = m.board->save()};
    for (const auto& vcpu : m.vcpus) {
        contents.vcpus.push_back(vcpu->save());
    }
    std::vector<Unit> units;
    for_each_unit(m.config, [&]<class Get>(std::string name, const Get& get, u16) {
        units.push_back(
            {std::move(name), state::Meta<UnitOf<Get>>::id, state::encode(get(contents))});
    });
    return units;
}

Result<state::MachineConfig> Machine::config_of(std::span<const Unit> units) {
    if (const auto fault = config_unit_fault(units)) {
        return incompatible(*fault);
    }
    return state::decode<state::MachineConfig>(find(units, "config")->bytes);
}

Result<> Machine::load_units(std::span<const Unit> units) {
    Impl& m = *impl_;
    const state::MachineConfig config = TRY(config_of(units));
    if (const auto faults = list_faults(units, config); !faults.empty()) {
        return incompatible(faults.front());
    }
    if (config != m.config) {
        return fail(ErrorCode::incompatible, "unit config is that of another machine");
    }
    Contents contents;
    contents.vcpus.resize(m.config.cpus);
    Result<> decoded;
    std::vector<std::function<Result<>()>> loads(units.size()); // vCPUs' units, by place
    for_each_unit(m.config, [&]<class Get>(const std::string& name, const Get& get, u16 index) {
        if (!decoded) {
            return;
        }
        const Unit& unit = *find(units, name);
        auto value = state::decode<UnitOf<Get>>(unit.bytes);
        if (!value) {
            decoded = Failure(with_context(std::move(value).error(), "unit " + name));
            return;
        }
        auto& into = get(contents) = std::move(*value);
        if constexpr (requires(hv::Vcpu& v) { v.load(into); }) {
            loads[static_cast<std::size_t>(&unit - units.data())] = [&v = *m.vcpus[index], &into] {
                return v.load(into);
            };
        }
    });
    TRY(std::move(decoded));
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
