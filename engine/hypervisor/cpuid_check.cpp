// Holds a CPUID against an engine, field by field.
//
// Owns nothing: the rules are a table (cpuid_rules.def). The entries come from a file, so the list
// is looked at before anything in it: an order that is not ascending, an entry that is there twice
// or answers subleaves that are not its own could say one thing to a check and another to a guest.
#include <algorithm>
#include <bit>

#include <fmt/format.h>

#include "engine/arch/xstate.hpp"
#include "engine/cpu/cpu.hpp"
#include "engine/hypervisor/cpu_caps.hpp"
#include "engine/hypervisor/cpu_offer.hpp"
#include "engine/hypervisor/pmu.hpp"

namespace nestor::hv {

using arch::CpuFeature;
using arch::CpuidWord;

namespace {

enum class Reg : u8 { eax, ebx, ecx, edx };
enum class Match : u8 { any, exact };
enum class Rule : u8 { free, subset, at_most, at_least, equal };

constexpr const char* reg_names[] = {"EAX", "EBX", "ECX", "EDX"};

/// What the expressions of the table are about.
struct CpuidQuestion {
    std::span<const state::CpuidEntry> entries;
    CpuidPlace place;
    const CpuOffer& offer;
    CpuCaps caps;

    [[nodiscard]] u64 word(CpuidWord w) const {
        return offer.features[static_cast<std::size_t>(w)];
    }
    [[nodiscard]] bool has(CpuFeature f) const { return caps.has(f); }
    [[nodiscard]] u64 xcr0() const { return has(CpuFeature::xsave) ? xcr0_of(caps) : 0; }
    /// Bits of an APIC ID that number the vCPUs.
    [[nodiscard]] u32 shift() const {
        return static_cast<u32>(std::bit_width(static_cast<unsigned>(place.count - 1)));
    }
    [[nodiscard]] u64 siblings() const { return (u64{1} << shift()) - 1; }
    [[nodiscard]] arch::XComponent component(u8 number) const {
        for (const arch::XComponent& c : arch::xcomponents) {
            if (c.number == number && (xcr0() >> number & 1) != 0) {
                return c;
            }
        }
        return {};
    }
    /// Of the ratio of leaf 15H, so that its TSC has the frequency that is offered.
    [[nodiscard]] u64 tsc_numerator() const {
        const state::CpuidEntry* e = find_cpuid(entries, 0x15, 0);
        return e == nullptr || e->ecx == 0 ? 0 : offer.tick_hz * e->eax / e->ecx;
    }
};

struct Known {
    u32 leaf;
    u32 subleaf;
    Match match;
    bool (*needed)(const CpuidQuestion& q);
};

struct RuleRow {
    u32 leaf;
    u32 subleaf;
    Reg reg;
    u8 high;
    u8 low;
    Rule rule;
    u64 (*limit)(const CpuidQuestion& q);

    [[nodiscard]] constexpr u32 bits() const { return mask<u32>(high, low); }
};

constexpr auto known_leaves = std::to_array<Known>({
#define CPUID_KNOWN(leaf, subleaf, match, needed_if)                                               \
    {leaf, subleaf, Match::match,                                                                  \
     []([[maybe_unused]] const CpuidQuestion& q) -> bool { return needed_if; }},
#define CPUID_RULE(...)
#include "engine/hypervisor/cpuid_rules.def"
#undef CPUID_KNOWN
#undef CPUID_RULE
});

constexpr auto rules = std::to_array<RuleRow>({
#define CPUID_KNOWN(...)
#define CPUID_RULE(leaf, subleaf, reg, high, low, rule, expression)                                \
    {leaf,                                                                                         \
     subleaf,                                                                                      \
     Reg::reg,                                                                                     \
     high,                                                                                         \
     low,                                                                                          \
     Rule::rule,                                                                                   \
     []([[maybe_unused]] const CpuidQuestion& q) -> u64 { return expression; }},
#include "engine/hypervisor/cpuid_rules.def"
#undef CPUID_KNOWN
#undef CPUID_RULE
});

static_assert(std::all_of(arch::cpuid_registers.begin(), arch::cpuid_registers.end(),
                          [](const arch::CpuidRegister& r) {
                              return std::any_of(rules.begin(), rules.end(), [&](const auto& row) {
                                  return row.leaf == r.leaf && row.subleaf == r.subleaf &&
                                         row.reg == static_cast<Reg>(r.reg) &&
                                         row.rule == Rule::subset && row.bits() == ~u32{0};
                              });
                          }),
              "every register of features has its rule");
static_assert(std::all_of(rules.begin(), rules.end(),
                          [](const RuleRow& row) {
                              return std::any_of(
                                  known_leaves.begin(), known_leaves.end(), [&](const Known& k) {
                                      return k.leaf == row.leaf && k.subleaf == row.subleaf;
                                  });
                          }),
              "a rule is about a leaf that is known");

constexpr const char* newer_vm = "use a newer vm there";
constexpr const char* same_vm = "use the vm that saved it";

std::string entry_path(u32 leaf, u32 subleaf) {
    return fmt::format("cpuid[{:#x}.{}]", leaf, subleaf);
}

/// The highest leaf of the range that `leaf` is in.
u32 limit_of(std::span<const state::CpuidEntry> entries, u32 leaf) {
    const state::CpuidEntry* e = find_cpuid(entries, leaf & 0x80000000, 0);
    return e == nullptr ? leaf & 0x80000000 : e->eax;
}

/// Whether the list of entries can be read at all.
std::vector<CpuidFault> shape_faults(std::span<const state::CpuidEntry> entries) {
    if (entries.size() > max_cpuid_entries) {
        return {{ErrorCode::corrupt, "cpuid", fmt::format("at most {} entries", max_cpuid_entries),
                 fmt::format("{} entries", entries.size()), same_vm}};
    }
    std::vector<CpuidFault> faults;
    for (std::size_t i = 0; i < entries.size(); ++i) {
        const state::CpuidEntry& e = entries[i];
        const std::string path = entry_path(e.leaf, e.subleaf);
        const auto place = [&](std::size_t n) {
            return u64{entries[n].leaf} << 32 | entries[n].subleaf;
        };
        if (i > 0 && place(i - 1) >= place(i)) {
            faults.push_back({ErrorCode::corrupt, path, "one entry, behind those of lower leaves",
                              place(i - 1) == place(i) ? "another one" : "one that is not",
                              same_vm});
            continue;
        }
        const auto known =
            std::find_if(known_leaves.begin(), known_leaves.end(), [&](const Known& k) {
                return k.leaf == e.leaf && k.subleaf == e.subleaf;
            });
        if (known == known_leaves.end()) {
            faults.push_back({ErrorCode::incompatible, path, "not known", "known", newer_vm});
        } else if (e.has_subleaf != (known->match == Match::exact)) {
            faults.push_back({ErrorCode::corrupt, path,
                              known->match == Match::exact ? "this subleaf" : "every subleaf",
                              known->match == Match::exact ? "every subleaf" : "this subleaf",
                              same_vm});
        } else if (e.leaf > limit_of(entries, e.leaf)) {
            faults.push_back({ErrorCode::corrupt, path,
                              fmt::format("leaves up to {:#x}", limit_of(entries, e.leaf)),
                              fmt::format("{:#x}", e.leaf), same_vm});
        }
    }
    return faults;
}

/// Text for a value that broke `row`; features by name.
CpuidFault fault_of(const RuleRow& row, u64 limit, u64 value) {
    CpuidFault fault{.path = entry_path(row.leaf, row.subleaf) + "." +
                             reg_names[static_cast<std::size_t>(row.reg)]};
    if (row.rule == Rule::subset) {
        fault.have = fmt::format("{:#x}", limit);
        fault.need = fmt::format("{:#x}", value);
        for (std::size_t w = 0; w < arch::cpuid_words; ++w) {
            const arch::CpuidRegister& r = arch::cpuid_registers[w];
            if (r.leaf == row.leaf && r.subleaf == row.subleaf && Reg{r.reg} == row.reg) {
                fault.need +=
                    " (" +
                    feature_names(static_cast<CpuidWord>(w), static_cast<u32>(value & ~limit)) +
                    ")";
            }
        }
        fault.remedy = "restore where these features are offered";
        return fault;
    }
    if (row.low != 0 || row.high != 31) {
        fault.path += fmt::format("[{}:{}]", row.high, row.low);
    }
    const char* const relation = row.rule == Rule::at_most    ? "at most "
                                 : row.rule == Rule::at_least ? "at least "
                                                              : "";
    fault.have = fmt::format("{}{:#x}", relation, limit);
    fault.need = fmt::format("{:#x}", value);
    fault.remedy = row.rule == Rule::at_most ? newer_vm : same_vm;
    return fault;
}

bool broken(Rule rule, u64 value, u64 limit) {
    switch (rule) {
    case Rule::free:
        return false;
    case Rule::subset:
        return (value & ~limit) != 0;
    case Rule::at_most:
        return value > limit;
    case Rule::at_least:
        return value < limit;
    case Rule::equal:
        return value != limit;
    }
    return true;
}

void ask(const CpuidQuestion& q, const Known& known, std::vector<CpuidFault>& faults) {
    const state::CpuidEntry* const e = find_cpuid(q.entries, known.leaf, known.subleaf);
    if (e == nullptr) {
        if (known.needed(q)) {
            faults.push_back({ErrorCode::corrupt, entry_path(known.leaf, known.subleaf), "needed",
                              "nothing", same_vm});
        }
        return;
    }
    std::array<u32, 4> ruled{};
    for (const RuleRow& row : rules) {
        if (row.leaf != known.leaf || row.subleaf != known.subleaf) {
            continue;
        }
        ruled[static_cast<std::size_t>(row.reg)] |= row.bits();
        const u64 value =
            (cpuid_register(*e, static_cast<unsigned>(row.reg)) & row.bits()) >> row.low;
        const u64 limit = row.limit(q);
        if (broken(row.rule, value, limit)) {
            faults.push_back(fault_of(row, limit, value));
        }
    }
    for (unsigned reg = 0; reg < 4; ++reg) {
        const u32 beyond = cpuid_register(*e, reg) & ~ruled[reg];
        if (beyond != 0) {
            faults.push_back({ErrorCode::incompatible,
                              entry_path(known.leaf, known.subleaf) + "." + reg_names[reg],
                              "bits that are known", fmt::format("{:#x}", beyond), newer_vm});
        }
    }
}

} // namespace

std::string feature_names(CpuidWord word, u32 bits) {
    std::string names;
    for (unsigned bit = 0; bit < 32; ++bit) {
        if ((bits >> bit & 1) == 0) {
            continue;
        }
        const auto* const known = std::find_if(
            arch::cpu_features.begin(), arch::cpu_features.end(),
            [&](const auto& feature) { return feature.word == word && feature.bit == bit; });
        names += names.empty() ? "" : ", ";
        names += known != arch::cpu_features.end() ? std::string(known->name)
                                                   : fmt::format("bit {}", bit);
    }
    return names;
}

std::vector<CpuidFault> cpuid_faults(std::span<const state::CpuidEntry> entries,
                                     const CpuidPlace& place, const CpuOffer& offer) {
    std::vector<CpuidFault> faults = shape_faults(entries);
    if (!faults.empty()) {
        return faults;
    }
    // What the entries claim, offered or not: a field has to fit the others. Each is held against
    // the offer by itself, so that what is missing is told once.
    std::array<u32, arch::cpuid_words> all{};
    all.fill(~u32{0});
    const CpuidQuestion q{entries, place, offer, CpuCaps(entries, all)};
    for (const Known& known : known_leaves) {
        ask(q, known, faults);
    }
    return faults;
}

Result<> check_cpuid(std::span<const state::CpuidEntry> entries, const CpuidPlace& place,
                     const CpuOffer& offer) {
    const std::vector<CpuidFault> faults = cpuid_faults(entries, place, offer);
    if (faults.empty()) {
        return {};
    }
    const CpuidFault& f = faults.front();
    return fail(f.code, fmt::format("{}: have {}, need {}", f.path, f.have, f.need), f.remedy);
}

} // namespace nestor::hv
