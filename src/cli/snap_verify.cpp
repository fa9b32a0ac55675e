// vm snap verify: reads a whole snapshot and compares all of it with its digests.
#include <memory>

#include "src/cli/snap.hpp"
#include "src/cli/verbs.hpp"
#include "src/cli/work.hpp"

namespace nestor::cli {
namespace {

struct VerifyOptions {
    std::string tag;
    std::string store;
    bool json = false;
};

Result<int> verify(const VerifyOptions& o) {
    const auto store = TRY(open_store(o.store));
    const auto snapshot = TRY(store.load(o.tag));
    {
        Work work("verifying " + o.tag, o.json);
        TRY(snapshot.verify(2, work.progress()), "snapshot " + o.tag);
    }
    control::Object object;
    object.add("tag", o.tag).add("sound", true);
    print_line(o.json ? object.to_json() : o.tag + ": every page and unit agrees with its digest");
    return 0;
}

} // namespace

void add_snap_verify(CLI::App& snap, int& status) {
    auto o = std::make_shared<VerifyOptions>();
    CLI::App* const verb =
        add_verb(snap, "verify", "Read a whole snapshot and compare it with its digests",
                 "vm snap verify booted\nExit status 6 when a byte does not agree.", o->json);
    add_argument(verb, "tag", o->tag, "Snapshot");
    add_store_option(verb, o->store);
    on_chosen(verb, status, o->json, [o] { return verify(*o); });
}

} // namespace nestor::cli
