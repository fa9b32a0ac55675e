// What this host and engine offer machines, and the file that says so.
//
// Owns the form of `vm host dump`. It is read back from people's editors and from other versions,
// so what a member means is checked and what is not known is passed over.
#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <optional>

#include <unistd.h>

#include "engine/arch/msr.hpp"
#include "engine/hypervisor/cpu_caps.hpp"
#include "engine/hypervisor/host_simd.hpp"
#include "engine/state/codec.hpp"
#include "engine/state/info.hpp"
#include "src/control/contract.hpp"
#include "src/control/json.hpp"

namespace nestor::control {
namespace {

using nlohmann::json;

/// A number, or a string "0x…" or "12", of at most `limit`.
std::optional<u64> number(const json& j, u64 limit) {
    u64 value = 0;
    if (j.is_number_unsigned()) {
        value = j.get<u64>();
    } else if (j.is_string()) {
        const std::string text = j.get<std::string>();
        char* end = nullptr;
        errno = 0;
        value = std::strtoull(text.c_str(), &end, 0);
        if (text.empty() || text[0] == '-' || *end != '\0' || errno != 0) {
            return std::nullopt;
        }
    } else {
        return std::nullopt;
    }
    return value <= limit ? std::optional(value) : std::nullopt;
}

/// Takes members out of the description; the first one that is wrong is kept.
class Members final {
public:
    explicit Members(const json& j) : j_(j) {}

    template <class T>
    void take(const char* name, T& into) {
        const auto value = j_.contains(name) ? number(j_[name], T(~T{0})) : std::nullopt;
        if (value) {
            into = static_cast<T>(*value);
        } else {
            wrong(name, "a number of that size");
        }
    }
    void take(const char* name, std::string& into) {
        if (j_.contains(name) && j_[name].is_string()) {
            into = j_[name].get<std::string>();
        } else {
            wrong(name, "a text");
        }
    }
    /// Calls take(element) for each; false from it makes the member wrong.
    template <class Take>
    void each(const char* name, const char* of, const Take& take) {
        if (!j_.contains(name) || !j_[name].is_array() ||
            !std::all_of(j_[name].begin(), j_[name].end(), take)) {
            wrong(name, of);
        }
    }
    /// Versions before the one that had it first do not tell it.
    [[nodiscard]] bool told(const char* name) const { return j_.contains(name); }
    [[nodiscard]] const std::string& complaint() const { return complaint_; }

private:
    void wrong(const char* name, const char* what) {
        if (complaint_.empty()) {
            complaint_ = std::string(name) + " is not " + what;
        }
    }

    const json& j_;
    std::string complaint_;
};

std::vector<std::string> feature_names(const HostOffer& offer) {
    std::vector<std::string> names;
    for (const arch::CpuFeatureInfo& feature : arch::cpu_features) {
        if ((offer.cpu_features[static_cast<std::size_t>(feature.word)] >> feature.bit & 1) != 0) {
            names.emplace_back(feature.name);
        }
    }
    return names;
}

bool take_semantics(const json& e, std::vector<SemanticsRow>& rows) {
    const auto text = [&e](const char* name) { return e.contains(name) && e[name].is_string(); };
    const auto value =
        e.is_object() && e.contains("number") ? number(e["number"], ~u32{0}) : std::nullopt;
    if (!value || !text("since") || !text("what")) {
        return false;
    }
    rows.push_back(
        {static_cast<u32>(*value), e["since"].get<std::string>(), e["what"].get<std::string>()});
    return true;
}

void grant(HostOffer& offer, const std::string& name) {
    for (const arch::CpuFeatureInfo& feature : arch::cpu_features) {
        if (feature.name == name) {
            offer.cpu_features[static_cast<std::size_t>(feature.word)] |= u32{1} << feature.bit;
        }
    }
}

} // namespace

HostOffer this_host() {
    HostOffer offer;
    char name[256] = "";
    (void)::gethostname(name, sizeof(name) - 1);
    offer.host = name;
    const long pages = ::sysconf(_SC_PHYS_PAGES);
    offer.host_memory =
        pages > 0 ? static_cast<u64>(pages) * static_cast<u64>(::sysconf(_SC_PAGESIZE)) : 0;
    for (const hv::CpuModel* model : hv::cpu_models()) {
        offer.cpu_models.emplace_back(model->name);
    }
    const hv::HostProcessor processor = hv::this_processor();
    for (std::size_t w = 0; w < arch::cpuid_words; ++w) {
        offer.cpu_features.push_back(hv::offered_word(processor, static_cast<arch::CpuidWord>(w)));
    }
    offer.xcr0 = hv::engine_offer().xcr0;
    offer.xss = hv::engine_offer().xss;
    offer.physical_bits = hv::engine_offer().physical_bits;
    for (const hv::SemanticsChange& change : hv::semantics_changes) {
        offer.semantics.push_back(
            {change.number, std::string(change.since), std::string(change.what)});
    }
    offer.msrs.assign(arch::msr_indices.begin(), arch::msr_indices.end());
    offer.board = machine::newest_board();
    for (const machine::UnitName& unit : machine::units_of({.board = offer.board})) {
        const auto same = [&](const UnitType& type) { return type.id == unit.type; };
        if (std::none_of(offer.units.begin(), offer.units.end(), same)) {
            offer.units.push_back({state::erased::find(unit.type)->name, unit.type});
        }
    }
    return offer;
}

std::string to_json(const HostOffer& offer) {
    nlohmann::ordered_json j;
    j["host"] = offer.host;
    j["engine"] = offer.engine;
    j["format"] = offer.format;
    j["engineSemantics"] = offer.engine_semantics;
    j["semantics"] = nlohmann::ordered_json::array();
    for (const SemanticsRow& row : offer.semantics) {
        j["semantics"].push_back(
            {{"number", row.number}, {"since", row.since}, {"what", row.what}});
    }
    j["cpus"] = offer.cpus;
    j["memory"] = offer.memory;
    j["hostMemory"] = offer.host_memory;
    j["tickHz"] = offer.tick_hz;
    j["board"] = offer.board;
    j["cpuModels"] = offer.cpu_models;
    j["cpuFeatures"] = feature_names(offer);
    j["xcr0"] = hex(offer.xcr0);
    j["xss"] = hex(offer.xss);
    j["physicalBits"] = offer.physical_bits;
    std::vector<std::string> msrs;
    for (const u32 msr : offer.msrs) {
        msrs.push_back(hex(msr));
    }
    j["msrs"] = msrs;
    j["units"] = nlohmann::ordered_json::array();
    for (const UnitType& unit : offer.units) {
        j["units"].push_back({{"name", unit.name}, {"id", hex(unit.id)}});
    }
    return j.dump(2);
}

Result<HostOffer> offer_from_json(const std::string& text) {
    const auto wrong = [](const std::string& what) {
        return fail(ErrorCode::corrupt, "host description: " + what,
                    "write one with: vm host dump > FILE");
    };
    const json j = parse_json(text);
    if (!j.is_object()) {
        return wrong("it is not a JSON object");
    }
    HostOffer offer;
    offer.cpu_features.assign(arch::cpuid_words, 0);
    Members members(j);
    members.take("host", offer.host);
    members.take("engine", offer.engine);
    members.take("format", offer.format);
    members.take("engineSemantics", offer.engine_semantics);
    if (members.told("semantics")) {
        members.each("semantics", "a list of {number, since, what}",
                     [&](const json& e) { return take_semantics(e, offer.semantics); });
    }
    members.take("cpus", offer.cpus);
    members.take("memory", offer.memory);
    members.take("hostMemory", offer.host_memory);
    members.take("tickHz", offer.tick_hz);
    if (j.contains("board")) { // 0.1.0 wrote none: it knows the first one
        members.take("board", offer.board);
    }
    members.each("cpuModels", "a list of names", [&](const json& e) {
        offer.cpu_models.push_back(e.is_string() ? e.get<std::string>() : "");
        return e.is_string();
    });
    members.each("cpuFeatures", "a list of names", [&](const json& e) {
        grant(offer, e.is_string() ? e.get<std::string>() : "");
        return e.is_string();
    });
    members.take("xcr0", offer.xcr0);
    members.take("xss", offer.xss);
    if (members.told("physicalBits")) {
        members.take("physicalBits", offer.physical_bits);
    }
    members.each("msrs", "a list of MSR numbers", [&](const json& e) {
        const auto msr = number(e, ~u32{0});
        offer.msrs.push_back(static_cast<u32>(msr.value_or(0)));
        return msr.has_value();
    });
    members.each("units", "a list of {name, id}", [&](const json& e) {
        const bool good = e.is_object() && e.contains("name") && e["name"].is_string() &&
                          e.contains("id") && number(e["id"], ~u64{0}).has_value();
        if (good) {
            offer.units.push_back({e["name"].get<std::string>(), *number(e["id"], ~u64{0})});
        }
        return good;
    });
    if (!members.complaint().empty()) {
        return wrong(members.complaint());
    }
    return offer;
}

} // namespace nestor::control
