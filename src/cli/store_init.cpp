// vm store init: makes an empty store where there is none.
#include <memory>

#include "src/cli/snap.hpp"
#include "src/cli/store.hpp"
#include "src/cli/verbs.hpp"
#include "src/control/paths.hpp"

namespace nestor::cli {
namespace {

struct StoreInitOptions {
    std::string store;
    bool json = false;
};

Result<int> init(const StoreInitOptions& o) {
    const std::string directory = TRY(control::store_directory(o.store));
    const auto store = TRY(snapshot::Store::open(directory, snapshot::Store::Mode::create));
    control::Object object;
    object.add("store", store.directory());
    print_line(o.json ? object.to_json() : "store " + store.directory() + " is ready");
    return 0;
}

} // namespace

void add_store_init(CLI::App& parent, int& status) {
    auto o = std::make_shared<StoreInitOptions>();
    CLI::App* const verb = add_verb(parent, "init", "Make an empty store where there is none",
                                    "vm store init --store ./snaps", o->json);
    add_store_option(verb, o->store);
    on_chosen(verb, status, o->json, [o] { return init(*o); });
}

} // namespace nestor::cli
