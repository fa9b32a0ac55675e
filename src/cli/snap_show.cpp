// vm snap show: what a snapshot says about itself, on one page.
//
// What takes longer than reading the manifest stands behind --brief: the bar reads the memory map,
// the sizes read those of all snapshots of the store.
#include <algorithm>
#include <cstdio>
#include <memory>

#include "engine/hypervisor/semantics.hpp"
#include "engine/state/codec.hpp"
#include "engine/state/contract.hpp"
#include "engine/state/info.hpp"
#include "src/cli/memory_bar.hpp"
#include "src/cli/snap.hpp"
#include "src/cli/verbs.hpp"
#include "src/cli/work.hpp"

namespace nestor::cli {
namespace {

constexpr std::size_t shown_parents = 8;

struct ShowOptions {
    std::string tag;
    std::string store;
    bool brief = false;
    bool json = false;
};

/// Everything the page is made of.
struct Page {
    snapshot::Snapshot snapshot;
    std::vector<snapshot::LogEntry> log; ///< the snapshot itself first
    std::optional<snapshot::Claim> claim;
    std::optional<MemoryBar> in_use;
    std::optional<MemoryBar> changed; ///< since the parent, where the store has it
    std::optional<snapshot::SnapshotSize> size;
};

Result<> read_memory(const snapshot::Store& store, Page& page) {
    const snapshot::Manifest& m = page.snapshot.manifest();
    page.in_use.emplace(m.regions);
    TRY(page.snapshot.each_page([&](Gfn gfn, const Digest&) {
        page.in_use->add(gfn);
        return true;
    }));
    if (page.log.size() > 1 && !page.log[1].tags.empty()) {
        const auto parent = TRY(store.load(page.log[1].tags.front()));
        page.changed.emplace(m.regions);
        TRY(parent.diff_pages(page.snapshot, [&](const snapshot::PageDifference& difference) {
            page.changed->add(difference.page);
            return true;
        }));
    }
    return {};
}

Result<Page> read_page(const ShowOptions& o, const snapshot::Store& store) {
    const auto snapshot = TRY(store.load(o.tag));
    Page page{.snapshot = snapshot,
              .log = TRY(store.log(o.tag)),
              .claim = TRY(store.claim_of(snapshot)),
              .in_use = {},
              .changed = {},
              .size = {}};
    if (o.brief) {
        return page;
    }
    TRY(read_memory(store, page), "snapshot " + o.tag);
    Work work("measuring", o.json);
    page.size = TRY(store.sizes(o.tag, work.progress())).front();
    return page;
}

std::string name_of(const snapshot::LogEntry& entry) {
    return entry.tags.empty() ? to_hex(entry.manifest).substr(0, 12) : entry.tags.front();
}

control::RawJson parents_json(const Page& page) {
    std::vector<std::string> parents;
    for (std::size_t i = 1; i < page.log.size(); ++i) {
        control::Object line;
        line.add("manifest", to_hex(page.log[i].manifest))
            .add("tag", page.log[i].tags.empty() ? "" : page.log[i].tags.front())
            .add("present", page.log[i].contents.has_value());
        parents.push_back(line.to_json());
    }
    return {control::json_array(parents)};
}

control::RawJson units_json(const snapshot::Manifest& m) {
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
    return {control::json_array(units)};
}

control::RawJson images_json(const snapshot::Manifest& m) {
    std::vector<std::string> images;
    for (const snapshot::ImageEntry& image : m.images) {
        control::Object line;
        line.add("kind", kind_of(image))
            .add("name", image.name)
            .add("arguments", image.arguments)
            .add("size", image.size)
            .add("root", to_hex(image.root));
        images.push_back(line.to_json());
    }
    return {control::json_array(images)};
}

control::RawJson regions_json(const Page& page) {
    std::vector<std::string> regions;
    const auto& entries = page.snapshot.manifest().regions;
    for (std::size_t i = 0; i < entries.size(); ++i) {
        control::Object line;
        line.add("start", entries[i].start.value())
            .add("size", entries[i].size)
            .add("root", to_hex(entries[i].root));
        if (page.in_use) {
            line.add("nonzeroPages", page.in_use->by_region()[i]);
        }
        if (page.changed) {
            line.add("changedPages", page.changed->by_region()[i]);
        }
        regions.push_back(line.to_json());
    }
    return {control::json_array(regions)};
}

/// A pause of zero is that of a machine which stood still for all of its save.
double pause_ms(const snapshot::Provenance& p) {
    return static_cast<double>(p.pause_ns != 0 ? p.pause_ns : p.save_ns) / 1e6;
}

void print_json(const ShowOptions& o, const Page& page) {
    const snapshot::Manifest& m = page.snapshot.manifest();
    control::Object whole = summary(o.tag, m);
    whole.add("format", u64{m.format})
        .add("schemaSet", to_hex(m.schema_set))
        .add("engineSemantics", u64{m.engine_semantics})
        .add("host", m.provenance.host)
        .add("creator", m.provenance.creator)
        .add("restored", m.provenance.restored)
        .add("pauseMs", pause_ms(m.provenance))
        .add("saveMs", static_cast<double>(m.provenance.save_ns) / 1e6)
        .add("cloneForbidden", m.clone_forbidden)
        .add("resumedBy", page.claim ? page.claim->by : "")
        .add("parent", m.parent ? to_hex(*m.parent) : "")
        .add("parents", parents_json(page))
        .add("memoryRoot", to_hex(m.memory_root));
    if (page.size) {
        whole.add("logicalBytes", page.size->logical_bytes)
            .add("nonzeroPages", page.size->nonzero_pages)
            .add("distinctPages", page.size->distinct_pages)
            .add("imageBytes", page.size->image_bytes)
            .add("uniqueBytes", page.size->unique_bytes)
            .add("sharedBytes", page.size->shared_bytes);
    }
    whole.add("units", units_json(m))
        .add("images", images_json(m))
        .add("regions", regions_json(page));
    print_line(whole.to_json());
}

/// "again, clock resumed" as a sentence goes on (Keeper::load writes it).
std::string restored_text(const std::string& how) {
    constexpr std::pair<std::string_view, const char*> tiers[] = {
        {"again", "as the same run again"},
        {"resume", "as the one machine"},
        {"clone", "as another machine"},
    };
    const std::string_view tier = std::string_view(how).substr(0, how.find(','));
    for (const auto& [name, text] : tiers) {
        if (tier == name) {
            return text + how.substr(tier.size());
        }
    }
    return how;
}

void print_head(const ShowOptions& o, const Page& page) {
    const snapshot::Manifest& m = page.snapshot.manifest();
    const snapshot::Provenance& p = m.provenance;
    print_line("snapshot   " + o.tag + ", tier " + tier_of(m) +
               (m.clone_forbidden ? ", not to be cloned" : ""));
    print_line("saved      " + time_text(p.created_unix_ns) + " on " + p.host + " by " + p.creator);
    print_line("machine    " + p.machine + " at count " + std::to_string(p.count));
    if (const auto contract = state::decode<state::MachineContract>(m.contract.bytes);
        contract && m.contract.type == state::Meta<state::MachineContract>::id) {
        print_line("           " + std::to_string(contract->cpus) + " vCPUs " +
                   contract->cpu_model + ", " + size_text(contract->memory) + ", " +
                   std::to_string(contract->tick_hz / 1'000'000) + " MHz");
    }
    if (!p.restored.empty()) {
        print_line("restored   " + restored_text(p.restored));
    }
    if (page.claim) {
        print_line("resumed    " + time_text(page.claim->at_unix_ns) + " by " + page.claim->by);
    }
    std::string parents;
    for (std::size_t i = 1; i < page.log.size() && i <= shown_parents; ++i) {
        parents += (i == 1 ? "" : " <- ") + name_of(page.log[i]) +
                   (page.log[i].contents ? "" : " (not here)");
    }
    if (page.log.size() > shown_parents + 1) {
        parents += " <- " + std::to_string(page.log.size() - shown_parents - 1) + " more";
    }
    print_line("continues  " + (parents.empty() ? "nothing: saved as a whole" : parents));
    std::printf("timings    stood still %.1f ms, saved in %.1f ms\n", pause_ms(p),
                static_cast<double>(p.save_ns) / 1e6);
}

void print_memory(const Page& page) {
    const auto& entries = page.snapshot.manifest().regions;
    print_line("");
    if (page.in_use) {
        print_line("in use     [" + page.in_use->text() + "]");
    }
    if (page.changed) {
        print_line("changed    [" + page.changed->text() + "] since " + name_of(page.log[1]));
    }
    for (std::size_t i = 0; i < entries.size(); ++i) {
        std::printf("memory     0x%09llx %9s",
                    static_cast<unsigned long long>(entries[i].start.value()),
                    size_text(entries[i].size).c_str());
        if (page.in_use) {
            std::printf(", %s not zero",
                        size_text(page.in_use->by_region()[i] << page_shift).c_str());
        }
        if (page.changed) {
            std::printf(", %s changed",
                        size_text(page.changed->by_region()[i] << page_shift).c_str());
        }
        std::printf("\n");
    }
    if (page.size) {
        print_line("sizes      logical " + size_text(page.size->logical_bytes) + ", not zero " +
                   size_text(page.size->nonzero_pages << page_shift) + ", different pages " +
                   size_text(page.size->distinct_pages << page_shift));
        print_line("stored     " + size_text(page.size->unique_bytes) + " of its own, " +
                   size_text(page.size->shared_bytes) + " shared with other snapshots");
    }
}

/// Its name from the right, and its arguments in lines of their own.
void print_image(const snapshot::ImageEntry& image) {
    constexpr std::size_t name_width = 44;
    constexpr std::size_t line_width = 86;
    const bool cut = image.name.size() > name_width;
    const std::string name =
        cut ? "..." + image.name.substr(image.name.size() - name_width) : image.name;
    std::printf("image      %-6s %9s  %.16s  %s\n", kind_of(image), size_text(image.size).c_str(),
                to_hex(image.root).c_str(), name.c_str());
    for (std::size_t at = 0; at < image.arguments.size(); at += line_width) {
        print_line("           " + image.arguments.substr(at, line_width));
    }
}

/// Under which semantics it ran, and under which it would go on.
std::string semantics_text(u32 saved) {
    const u32 here = hv::engine_semantics;
    return std::to_string(saved) + (saved == here  ? ""
                                    : saved < here ? " (goes on under " + std::to_string(here) + ")"
                                                   : " (this vm has " + std::to_string(here) + ")");
}

void print_units(const snapshot::Manifest& m) {
    print_line("");
    for (const snapshot::UnitEntry& unit : m.units) {
        const auto* const info = state::erased::find(unit.type);
        std::printf("unit       %-18s %-14s %6llu bytes  %.16s\n", unit.name.c_str(),
                    info == nullptr ? "unknown" : info->name,
                    static_cast<unsigned long long>(unit.size), to_hex(unit.digest).c_str());
    }
    for (const snapshot::ImageEntry& image : m.images) {
        print_image(image);
    }
    if (m.images.empty()) {
        print_line("image      none: a reset ends the machine");
    }
    print_line("");
    print_line("machine digest  " + to_hex(m.machine_digest));
    print_line("memory root     " + to_hex(m.memory_root));
    print_line("manifest        " + to_hex(m.digest));
    print_line("format          " + std::to_string(m.format) + ", engine semantics " +
               semantics_text(m.engine_semantics) + ", schemas " +
               to_hex(m.schema_set).substr(0, 16));
}

Result<int> show(const ShowOptions& o) {
    const auto store = TRY(open_store(o.store));
    const Page page = TRY(read_page(o, store));
    if (o.json) {
        print_json(o, page);
        return 0;
    }
    print_head(o, page);
    print_memory(page);
    print_units(page.snapshot.manifest());
    return 0;
}

} // namespace

void add_snap_show(CLI::App& snap, int& status) {
    auto o = std::make_shared<ShowOptions>();
    CLI::App* const verb = add_verb(snap, "show", "Show what a snapshot says about itself",
                                    "vm snap show booted", o->json);
    add_argument(verb, "tag", o->tag, "Snapshot");
    add_flag(verb, "--brief", o->brief, "Without what reads memory maps: bar and sizes");
    add_store_option(verb, o->store);
    on_chosen(verb, status, o->json, [o] { return show(*o); });
}

} // namespace nestor::cli
