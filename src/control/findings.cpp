// Compares what a machine needs with what a host offers.
//
// Owns the list of questions. Each answers with findings (path, have, need, remedy) instead of
// stopping at the first, so that people see all of it before anything moves. The same questions are
// asked before a save: what could not be restored must not be saved as if it could.
#include <algorithm>
#include <cstdio>
#include <memory>
#include <optional>

#include "engine/hypervisor/cpu_caps.hpp"
#include "engine/state/codec.hpp"
#include "engine/state/info.hpp"
#include "engine/state/machine.hpp"
#include "engine/state/vcpu.hpp"
#include "src/control/contract.hpp"
#include "src/control/keeper.hpp"

namespace nestor::control {
namespace {

/// XSAVE state components by bit (SDM 1 13.1).
constexpr const char* components[] = {
    "x87",      "SSE", "AVX",  "BNDREGS",  "BNDCSR",    "opmask", "ZMM_Hi256",
    "Hi16_ZMM", "PT",  "PKRU", "PASID",    "CET_U",     "CET_S",  "HDC",
    "UINTR",    "LBR", "HWP",  "XTILECFG", "XTILEDATA",
};

constexpr const char* newer_vm = "use a newer vm there";
constexpr const char* same_vm = "use the vm that saved it";

std::string joined(const std::vector<std::string>& words) {
    std::string text;
    for (const std::string& word : words) {
        text += (text.empty() ? "" : ", ") + word;
    }
    return text;
}

/// What an offer says of CPUs, for the engine's own rules.
hv::CpuOffer cpu_offer(const HostOffer& offer) {
    hv::CpuOffer cpu{.xcr0 = offer.xcr0,
                     .xss = offer.xss,
                     .physical_bits = offer.physical_bits,
                     .tick_hz = offer.tick_hz};
    std::copy_n(offer.cpu_features.begin(),
                std::min(offer.cpu_features.size(), cpu.features.size()), cpu.features.begin());
    return cpu;
}

/// The vCPU that a unit "vcpu[3].model" is of.
std::optional<u16> vcpu_of(const std::string& unit) {
    unsigned index = 0;
    char rest = 0;
    return std::sscanf(unit.c_str(), "vcpu[%5u].%c", &index, &rest) == 2
               ? std::optional(static_cast<u16>(index))
               : std::nullopt;
}

u64 xcr0_in(std::span<const state::CpuidEntry> cpuid) {
    const state::CpuidEntry* const e = hv::find_cpuid(cpuid, 0xd, 0);
    return e == nullptr ? 0 : u64{e->edx} << 32 | e->eax;
}

/// Collects findings; each method asks one question.
class Questions final {
public:
    explicit Questions(const HostOffer& offer) : offer_(offer), cpu_offer_(cpu_offer(offer)) {}

    void add(std::string path, std::string have, std::string need, std::string remedy) {
        found_.push_back({std::move(path), std::move(have), std::move(need), std::move(remedy)});
    }
    void at_most(const char* path, u64 have, u64 need, const char* remedy) {
        if (need > have) {
            add(path, std::to_string(have), std::to_string(need), remedy);
        }
    }
    void equal(const char* path, u64 have, u64 need, const char* remedy) {
        if (need != have) {
            add(path, std::to_string(have), std::to_string(need), remedy);
        }
    }
    void xsave(const std::string& path, u64 have, u64 need) {
        std::vector<std::string> names;
        for (unsigned bit = 0; bit < 64; ++bit) {
            if (((need & ~have) >> bit & 1) != 0) {
                names.push_back(bit < std::size(components) ? components[bit]
                                                            : "component " + std::to_string(bit));
            }
        }
        if (!names.empty()) {
            add(path, hex(have), hex(need) + " (" + joined(names) + ")",
                "no unit has a place for that state: " + std::string(newer_vm));
        }
    }
    void semantics(u32 saved);
    void contract(const snapshot::Contract& contract);
    void units(std::span<const snapshot::Unit> units);
    void memory(const snapshot::Snapshot& snapshot);
    void unit(const snapshot::Unit& unit);

    [[nodiscard]] std::vector<Finding> take() { return std::move(found_); }

private:
    void contract(const state::MachineContract& contract);
    void cpuid(const std::string& path, std::span<const state::CpuidEntry> cpuid, u16 index);
    void model(const snapshot::Unit& unit, const state::CpuModel& model);
    void config(const state::MachineConfig& config);
    void msrs(const state::MachineContract& contract);

    const HostOffer& offer_;
    const hv::CpuOffer cpu_offer_;
    std::optional<state::MachineContract> contract_; ///< once it was read
    std::optional<cpu::Features> silicon_;           ///< of the first vCPU's model
    std::vector<hv::CpuidFault> told_;               ///< of any CPUID
    std::vector<Finding> found_;
};

/// An older machine goes on under what is offered, which is told; a newer one needs a newer vm.
void Questions::semantics(u32 saved) {
    const u32 offered = offer_.engine_semantics;
    if (saved == offered) {
        return;
    }
    if (saved > offered || saved == 0) {
        add("engineSemantics", std::to_string(offered), std::to_string(saved),
            saved == 0 ? same_vm : newer_vm);
        return;
    }
    std::vector<std::string> changes;
    u32 known = saved;
    for (const SemanticsRow& row : offer_.semantics) {
        if (row.number > saved && row.number <= offered) {
            changes.push_back(std::to_string(row.number) + ": " + row.what);
            known = std::max(known, row.number);
        }
    }
    if (known < offered) {
        const std::string first = std::to_string(known + 1);
        const std::string last = std::to_string(offered);
        changes.push_back((first == last ? first : first + " to " + last) +
                          ": what changed is not told");
    }
    found_.push_back({"engineSemantics", std::to_string(offered), std::to_string(saved),
                      "saved under semantics " + std::to_string(saved) + ", goes on under " +
                          std::to_string(offered),
                      false, std::move(changes)});
}

/// The rules of the engine for a CPUID. What was told of one vCPU is not told of another again.
void Questions::cpuid(const std::string& path, std::span<const state::CpuidEntry> cpuid,
                      u16 index) {
    for (const hv::CpuidFault& fault :
         hv::cpuid_faults(cpuid, {index, contract_->cpus}, cpu_offer_)) {
        if (std::find(told_.begin(), told_.end(), fault) == told_.end()) {
            add(path + fault.path, fault.have, fault.need, fault.remedy);
            told_.push_back(fault);
        }
    }
}

void Questions::model(const snapshot::Unit& unit, const state::CpuModel& model) {
    const auto index = vcpu_of(unit.name);
    if (!contract_ || !index) {
        return;
    }
    cpuid(unit.name + ".", model.cpuid, *index);
    if (*index == 0 && model.cpuid != contract_->cpuid) {
        add("contract.cpuid", "not what unit " + unit.name + " says", "the same", same_vm);
    }
    const cpu::Features silicon = hv::silicon_features(model.cpuid);
    if (!silicon_) {
        silicon_ = silicon;
    } else if (silicon != *silicon_) {
        add(unit.name, "the features of vcpu[0].model", "others",
            "vCPUs of one machine have the same features");
    }
}

/// What the contract repeats of the machine's configuration.
void Questions::config(const state::MachineConfig& config) {
    if (!contract_) {
        return;
    }
    const auto same = [this](const char* path, const std::string& unit, const std::string& need) {
        if (unit != need) {
            add(path, unit + " in unit config", need, same_vm);
        }
    };
    same("contract.memory", std::to_string(config.memory), std::to_string(contract_->memory));
    same("contract.cpus", std::to_string(config.cpus), std::to_string(contract_->cpus));
    same("contract.cpuModel", config.cpu_model, contract_->cpu_model);
    same("contract.tickHz", std::to_string(config.tick_hz), std::to_string(contract_->tick_hz));
}

/// Which MSRs there are the CPU model says, and each has to be known there.
void Questions::msrs(const state::MachineContract& contract) {
    constexpr std::size_t most = 4096;
    if (contract.msrs.size() > most) {
        add("contract.msrs", "at most " + std::to_string(most),
            std::to_string(contract.msrs.size()), same_vm);
        return;
    }
    bool known = true;
    for (const u32 msr : contract.msrs) {
        if (std::find(offer_.msrs.begin(), offer_.msrs.end(), msr) == offer_.msrs.end()) {
            add("contract.msrs[" + hex(msr) + "]", "unknown", "known", newer_vm);
            known = false;
        }
    }
    const hv::CpuModel* const model = hv::find_model(contract.cpu_model);
    if (known && model != nullptr && !std::ranges::equal(model->msrs, contract.msrs)) {
        add("contract.msrs", "those of " + contract.cpu_model, "others", same_vm);
    }
}

void Questions::contract(const snapshot::Contract& bytes) {
    if (bytes.type != state::Meta<state::MachineContract>::id) {
        add("contract", hex(state::Meta<state::MachineContract>::id), hex(bytes.type), same_vm);
        return;
    }
    const auto contract = state::decode<state::MachineContract>(bytes.bytes);
    if (!contract) {
        add("contract", contract.error().message, "readable", newer_vm);
        return;
    }
    contract_ = *contract;
    this->contract(*contract_);
}

void Questions::contract(const state::MachineContract& contract) {
    at_most("contract.cpus", offer_.cpus, contract.cpus, "restore where more vCPUs are offered");
    at_most("contract.memory", offer_.memory, contract.memory,
            "restore where larger machines are offered");
    if (contract.memory > offer_.host_memory) {
        found_.push_back({"contract.memory", std::to_string(offer_.host_memory) + " in the host",
                          std::to_string(contract.memory),
                          "it runs as long as its guest does not use all of it", false});
    }
    equal("contract.tickHz", offer_.tick_hz, contract.tick_hz, same_vm);
    const auto& models = offer_.cpu_models;
    if (std::find(models.begin(), models.end(), contract.cpu_model) == models.end()) {
        add("contract.cpuModel", models.empty() ? "none" : joined(models), contract.cpu_model,
            newer_vm);
    }
    cpuid("contract.", contract.cpuid, 0);
    xsave("contract.xcr0", offer_.xcr0, contract.xcr0);
    xsave("contract.xss", offer_.xss, contract.xss);
    if (const u64 said = xcr0_in(contract.cpuid); said != contract.xcr0) {
        add("contract.xcr0", hex(said) + " in contract.cpuid", hex(contract.xcr0), same_vm);
    }
    msrs(contract);
}

/// The list of units is judged where it is loaded, by machine::unit_faults(); the rest is asked of
/// what it found no fault with.
void Questions::units(std::span<const snapshot::Unit> units) {
    const std::vector<machine::Unit> list = to_machine(units);
    const std::vector<machine::Fault> faults = machine::unit_faults(list);
    for (const machine::Fault& f : faults) {
        add(f.path, f.have, f.need, f.remedy);
    }
    if (const auto config = machine::Machine::config_of(list);
        config && config->board <= machine::newest_board()) {
        at_most("config.board", offer_.board, config->board, newer_vm);
    }
    for (const snapshot::Unit& one : units) {
        const std::string path = "unit " + one.name;
        if (std::none_of(faults.begin(), faults.end(),
                         [&](const machine::Fault& f) { return f.path == path; })) {
            unit(one);
        }
    }
}

std::string ranges_text(const auto& ranges) {
    std::vector<std::string> words;
    for (const auto& range : ranges) {
        words.push_back(hex(range.size) + " bytes at " + hex(range.start.value()));
    }
    return joined(words);
}

/// Its memory has to be that of the machine's configuration.
void Questions::memory(const snapshot::Snapshot& snapshot) {
    const auto config = machine::Machine::config_of(to_machine(snapshot.units()));
    if (!config) {
        return; // told already
    }
    const auto& regions = snapshot.manifest().regions;
    const std::vector<machine::RamRange> ram = machine::ram_of(*config);
    if (!std::equal(regions.begin(), regions.end(), ram.begin(), ram.end(),
                    [](const auto& a, const machine::RamRange& b) {
                        return a.start == b.start && a.size == b.size;
                    })) {
        add("memory", ranges_text(regions), ranges_text(ram),
            "save it again: its memory is not that of its config");
    }
}

/// A unit has to be known there, and have a place for all that it holds.
void Questions::unit(const snapshot::Unit& unit) {
    if (std::none_of(offer_.units.begin(), offer_.units.end(),
                     [&](const UnitType& type) { return type.id == unit.type; })) {
        add("unit " + unit.name, "unknown",
            "type " + hex(unit.type) + " " + state::erased::find(unit.type)->name, newer_vm);
    }
    if (unit.type == state::Meta<state::Cpu>::id) {
        const auto cpu = state::decode<state::Cpu>(unit.bytes);
        xsave(unit.name + ".xcr0", offer_.xcr0, cpu->xcr0);
        xsave(unit.name + ".xss", offer_.xss, cpu->xss);
    } else if (unit.type == state::Meta<state::CpuModel>::id) {
        model(unit, *state::decode<state::CpuModel>(unit.bytes));
    } else if (unit.type == state::Meta<state::MachineConfig>::id) {
        config(*state::decode<state::MachineConfig>(unit.bytes));
    }
}

} // namespace

std::string hex(u64 value) {
    char text[24];
    std::snprintf(text, sizeof(text), "0x%llx", static_cast<unsigned long long>(value));
    return text;
}

std::vector<Finding> findings(const snapshot::Contract& contract,
                              std::span<const snapshot::Unit> units, const HostOffer& offer) {
    Questions questions(offer);
    questions.contract(contract);
    questions.units(units);
    return questions.take();
}

std::vector<Finding> findings(const snapshot::Snapshot& snapshot, const HostOffer& offer) {
    const snapshot::Manifest& manifest = snapshot.manifest();
    Questions questions(offer);
    questions.at_most("format", offer.format, manifest.format, newer_vm);
    questions.semantics(manifest.engine_semantics);
    questions.contract(manifest.contract);
    questions.units(snapshot.units());
    questions.memory(snapshot);
    return questions.take();
}

std::vector<Finding> tier_findings(const snapshot::Manifest& manifest,
                                   const std::optional<snapshot::Claim>& claim) {
    std::vector<Finding> found;
    const auto add = [&found](const char* path, std::string have, const char* need,
                              const char* remedy) {
        found.push_back({path, std::move(have), need, remedy, false});
    };
    if (claim) {
        add("tier.resume", "resumed already by " + claim->by, "not resumed yet",
            "restore it with --tier clone, or without --tier: the same run once more");
    } else if (manifest.tier == snapshot::Tier::clone) {
        add("tier.resume", "the machine ran on after the save", "a machine that stopped",
            "restore it with --tier clone, or without --tier: the same run once more");
    }
    if (manifest.clone_forbidden) {
        add("tier.clone", "forbidden by whoever saved it", "allowed",
            "restore it with --tier resume");
    }
    return found;
}

std::vector<Finding> image_findings(const snapshot::Manifest& manifest) {
    if (!manifest.images.empty()) {
        return {};
    }
    return {{"images", "none", "what it was booted from", "its next reset ends it with status 8",
             false}};
}

bool can_run(std::span<const Finding> findings) {
    return std::none_of(findings.begin(), findings.end(),
                        [](const Finding& f) { return f.blocks; });
}

Result<> refuse(const std::string& what, std::span<const Finding> findings) {
    if (can_run(findings)) {
        return {};
    }
    std::string message = what;
    for (const Finding& f : findings) {
        if (!f.blocks) {
            continue;
        }
        message += "\n  " + f.path + ": have " + f.have + ", need " + f.need + ": " + f.remedy;
    }
    return fail(ErrorCode::incompatible, message);
}

} // namespace nestor::control
