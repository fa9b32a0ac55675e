// vm snap rm: removes tags. What nothing else needs is given back by vm store gc.
#include <memory>

#include "src/cli/snap.hpp"
#include "src/cli/verbs.hpp"

namespace nestor::cli {
namespace {

struct RmOptions {
    std::vector<std::string> tags;
    std::string store;
    bool json = false;
};

Result<int> remove(const RmOptions& o) {
    auto store = TRY(open_store(o.store));
    std::vector<std::string> removed;
    for (const std::string& tag : o.tags) {
        TRY(store.remove(tag));
        removed.push_back(control::json_string(tag));
        if (!o.json) {
            print_line("removed " + tag);
        }
    }
    if (o.json) {
        control::Object object;
        object.add("removed", control::RawJson{control::json_array(removed)});
        print_line(object.to_json());
    }
    return 0;
}

} // namespace

void add_snap_rm(CLI::App& snap, int& status) {
    auto o = std::make_shared<RmOptions>();
    CLI::App* const verb = add_verb(snap, "rm", "Remove tags; vm store gc gives their space back",
                                    "vm snap rm booted before-upgrade", o->json);
    add_arguments(verb, "tag", o->tags, "Snapshots");
    add_store_option(verb, o->store);
    on_chosen(verb, status, o->json, [o] { return remove(*o); });
}

} // namespace nestor::cli
