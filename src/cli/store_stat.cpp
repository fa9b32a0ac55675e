// vm store stat: what a store holds and what that costs.
#include <cstdio>
#include <memory>

#include "src/cli/snap.hpp"
#include "src/cli/store.hpp"
#include "src/cli/verbs.hpp"

namespace nestor::cli {
namespace {

struct Options {
    std::string store;
    bool json = false;
};

Result<int> stat(const Options& o) {
    const auto store = TRY(open_store(o.store));
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

} // namespace

void add_store_stat(CLI::App& parent, int& status) {
    auto o = std::make_shared<Options>();
    CLI::App* const verb = add_verb(parent, "stat", "Tell what a store holds and what it costs",
                                    "vm store stat --json", o->json);
    add_store_option(verb, o->store);
    on_chosen(verb, status, o->json, [o] { return stat(*o); });
}

} // namespace nestor::cli
