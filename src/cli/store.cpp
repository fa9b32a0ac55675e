// vm store: a directory of snapshots as a whole.
#include <cstdio>
#include <memory>

#include <CLI/CLI.hpp>

#include "snapshot/snapshot.hpp"
#include "src/cli/verbs.hpp"
#include "src/control/paths.hpp"

namespace nestor::cli {

namespace {

struct StoreOptions {
    std::string store;
    bool json = false;
};

Result<int> init(const StoreOptions& o) {
    const std::string directory = TRY(control::store_directory(o.store));
    const auto store = TRY(snapshot::Store::open(directory, snapshot::Store::Mode::create));
    control::Object object;
    object.add("store", store.directory());
    print_line(o.json ? object.to_json() : "store " + store.directory() + " is ready");
    return 0;
}

Result<int> stat(const StoreOptions& o) {
    const std::string directory = TRY(control::store_directory(o.store));
    const auto store = TRY(snapshot::Store::open(directory, snapshot::Store::Mode::existing));
    const snapshot::StoreStat s = TRY(store.stat());
    control::Object object;
    object.add("store", store.directory())
        .add("snapshots", s.snapshots)
        .add("packs", s.packs)
        .add("packBytes", s.pack_bytes)
        .add("extents", s.extents)
        .add("pages", s.pages)
        .add("mapNodes", s.map_nodes)
        .add("indexBytes", s.index_bytes)
        .add("manifestBytes", s.manifest_bytes);
    if (o.json) {
        print_line(object.to_json());
        return 0;
    }
    print_line("store      " + store.directory());
    print_line("snapshots  " + std::to_string(s.snapshots) + ", " + size_text(s.manifest_bytes) +
               " of manifests");
    print_line("pages      " + std::to_string(s.pages) + " (" + size_text(s.pages * page_size) +
               ") in " + std::to_string(s.extents) + " extents");
    print_line("packs      " + std::to_string(s.packs) + ", " + size_text(s.pack_bytes));
    print_line("index      " + size_text(s.index_bytes));
    return 0;
}

Result<int> fsck(const StoreOptions& o) {
    const std::string directory = TRY(control::store_directory(o.store));
    const auto store = TRY(snapshot::Store::open(directory, snapshot::Store::Mode::existing));
    snapshot::FsckReport report;
    {
        ProgressLine line("checking " + directory);
        report = TRY(store.fsck([&line](u64 done, u64 total) {
            line.show(done, total);
            return true;
        }));
    }
    std::vector<std::string> findings;
    for (const auto& finding : report.findings) {
        control::Object object;
        object.add("where", finding.where).add("what", finding.what);
        findings.push_back(object.to_json());
        if (!o.json) {
            print_line(finding.where + ": " + finding.what);
        }
    }
    std::vector<std::string> damaged;
    for (const std::string& tag : report.damaged_tags) {
        damaged.push_back(control::json_string(tag));
    }
    if (o.json) {
        control::Object object;
        object.add("store", store.directory())
            .add("snapshots", report.snapshots)
            .add("records", report.records)
            .add("findings", control::RawJson{control::json_array(findings)})
            .add("damagedTags", control::RawJson{control::json_array(damaged)});
        print_line(object.to_json());
    } else {
        print_line(std::to_string(report.snapshots) + " snapshots, " +
                   std::to_string(report.records) + " records, " +
                   std::to_string(report.findings.size()) + " findings, " +
                   std::to_string(damaged.size()) + " damaged snapshots");
    }
    return report.findings.empty() ? 0 : static_cast<int>(ErrorCode::corrupt);
}

} // namespace

void add_store(CLI::App& app, int& status) {
    CLI::App* const parent = app.add_subcommand("store", "Manage a directory of snapshots");
    parent->require_subcommand(1);
    struct Row {
        const char* name;
        const char* description;
        const char* example;
        Result<int> (*body)(const StoreOptions&);
    };
    constexpr Row rows[] = {
        {"init", "Make an empty store where there is none", "vm store init --store ./snaps", init},
        {"stat", "Tell what a store holds", "vm store stat --json", stat},
        {"fsck", "Read all of a store and compare it with its digests", "vm store fsck", fsck}};
    for (const Row& row : rows) {
        auto o = std::make_shared<StoreOptions>();
        CLI::App* const verb = add_verb(*parent, row.name, row.description, row.example, o->json);
        verb->add_option("--store", o->store,
                         "Its directory [$NESTOR_STORE, or nestor in $XDG_DATA_HOME]");
        on_chosen(verb, status, o->json, [o, body = row.body] { return body(*o); });
    }
}

} // namespace nestor::cli
