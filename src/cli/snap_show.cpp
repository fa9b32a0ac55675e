// vm snap show: what a snapshot says about itself, on one page.
#include <cstdio>
#include <memory>

#include "engine/state/codec.hpp"
#include "engine/state/info.hpp"
#include "src/cli/snap.hpp"
#include "src/cli/verbs.hpp"

namespace nestor::cli {
namespace {

struct Options {
    std::string tag;
    std::string store;
    bool json = false;
};

void show_json(const std::string& tag, const snapshot::Manifest& m) {
    std::vector<std::string> units;
    for (const snapshot::UnitEntry& unit : m.units) {
        control::Object line;
        const auto* const info = state::erased::find(unit.type);
        line.add("name", unit.name)
            .add("type", info == nullptr ? "unknown" : info->name)
            .add("size", unit.size)
            .add("digest", to_hex(unit.digest));
        units.push_back(line.to_json());
    }
    std::vector<std::string> regions;
    for (const snapshot::RegionEntry& region : m.regions) {
        control::Object line;
        line.add("start", region.start.value())
            .add("size", region.size)
            .add("root", to_hex(region.root));
        regions.push_back(line.to_json());
    }
    control::Object whole = summary(tag, m);
    whole.add("format", u64{m.format})
        .add("schemaSet", to_hex(m.schema_set))
        .add("engineSemantics", u64{m.engine_semantics})
        .add("host", m.provenance.host)
        .add("creator", m.provenance.creator)
        .add("parent", m.parent ? to_hex(*m.parent) : "")
        .add("memoryRoot", to_hex(m.memory_root))
        .add("units", control::RawJson{control::json_array(units)})
        .add("regions", control::RawJson{control::json_array(regions)});
    print_line(whole.to_json());
}

Result<int> show(const Options& o) {
    const auto store = TRY(open_store(o.store));
    const auto snapshot = TRY(store.load(o.tag));
    const snapshot::Manifest& m = snapshot.manifest();
    if (o.json) {
        show_json(o.tag, m);
        return 0;
    }
    print_line("tag               " + o.tag);
    print_line("manifest          " + to_hex(m.digest));
    print_line("machine digest    " + to_hex(m.machine_digest));
    print_line("memory root       " + to_hex(m.memory_root));
    print_line("machine           " + m.provenance.machine + " at count " +
               std::to_string(m.provenance.count));
    print_line("saved             " + time_text(m.provenance.created_unix_ns) + " on " +
               m.provenance.host + " by " + m.provenance.creator);
    print_line("format            " + std::to_string(m.format) + ", engine semantics " +
               std::to_string(m.engine_semantics) + ", tier " + tier_of(m));
    for (const snapshot::RegionEntry& region : m.regions) {
        std::printf("memory            %s at 0x%llx\n", size_text(region.size).c_str(),
                    static_cast<unsigned long long>(region.start.value()));
    }
    for (const snapshot::UnitEntry& unit : m.units) {
        std::printf("unit              %-14s %6llu bytes  %.16s\n", unit.name.c_str(),
                    static_cast<unsigned long long>(unit.size), to_hex(unit.digest).c_str());
    }
    return 0;
}

} // namespace

void add_snap_show(CLI::App& snap, int& status) {
    auto o = std::make_shared<Options>();
    CLI::App* const verb = add_verb(snap, "show", "Show what a snapshot says about itself",
                                    "vm snap show booted --json", o->json);
    add_argument(verb, "tag", o->tag, "Snapshot");
    add_store_option(verb, o->store);
    on_chosen(verb, status, o->json, [o] { return show(*o); });
}

} // namespace nestor::cli
