// vm store sync: puts on disk what was saved with --durability deferred.
#include <memory>

#include "src/cli/snap.hpp"
#include "src/cli/store.hpp"
#include "src/cli/verbs.hpp"

namespace nestor::cli {
namespace {

struct StoreSyncOptions {
    std::string store;
    bool json = false;
};

Result<int> sync(const StoreSyncOptions& o) {
    auto store = TRY(open_store(o.store));
    TRY(store.sync());
    control::Object object;
    object.add("store", store.directory()).add("synced", true);
    print_line(o.json ? object.to_json() : "all of " + store.directory() + " is on disk");
    return 0;
}

} // namespace

void add_store_sync(CLI::App& parent, int& status) {
    auto o = std::make_shared<StoreSyncOptions>();
    CLI::App* const verb =
        add_verb(parent, "sync", "Put on disk what was saved with --durability deferred",
                 "vm store sync", o->json);
    add_store_option(verb, o->store);
    on_chosen(verb, status, o->json, [o] { return sync(*o); });
}

} // namespace nestor::cli
