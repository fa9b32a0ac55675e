// vm store stat: what a store holds and what that costs.
#include <cstdio>
#include <memory>

#include "src/cli/snap.hpp"
#include "src/cli/store.hpp"
#include "src/cli/verbs.hpp"

namespace nestor::cli {
namespace {

struct StoreStatOptions {
    std::string store;
    bool json = false;
};

/// "38.2 of 1", how many bytes of `whole` a byte of `part` stands for.
std::string ratio_text(u64 whole, u64 part) {
    char text[32] = "-";
    if (part != 0) {
        std::snprintf(text, sizeof(text), "%.1f",
                      static_cast<double>(whole) / static_cast<double>(part));
    }
    return text;
}

void print_text(const std::string& directory, const snapshot::StoreStat& s) {
    const u64 stored = s.pack_bytes + s.index_bytes + s.manifest_bytes;
    print_line("store      " + directory);
    print_line("snapshots  " + std::to_string(s.snapshots) + " of " + size_text(s.logical_bytes) +
               " of memory, " + size_text(s.manifest_bytes) + " of manifests");
    print_line("pages      " + std::to_string(s.pages) + " (" + size_text(s.pages * page_size) +
               ") in " + std::to_string(s.extents) + " extents, " + std::to_string(s.map_nodes) +
               " map nodes");
    print_line("packs      " + std::to_string(s.packs) + ", " + size_text(s.pack_bytes));
    print_line("index      " + size_text(s.index_bytes) + ", " +
               ratio_text(s.index_bytes, s.pages) + " bytes a page");
    print_line("in all     " + size_text(stored) + ", 1 byte for " +
               ratio_text(s.logical_bytes, stored) + " of memory");
}

Result<int> stat(const StoreStatOptions& o) {
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
        .add("manifestBytes", s.manifest_bytes)
        .add("logicalBytes", s.logical_bytes);
    if (o.json) {
        print_line(object.to_json());
        return 0;
    }
    print_text(store.directory(), s);
    return 0;
}

} // namespace

void add_store_stat(CLI::App& parent, int& status) {
    auto o = std::make_shared<StoreStatOptions>();
    CLI::App* const verb = add_verb(parent, "stat", "Tell what a store holds and what it costs",
                                    "vm store stat --json", o->json);
    add_store_option(verb, o->store);
    on_chosen(verb, status, o->json, [o] { return stat(*o); });
}

} // namespace nestor::cli
