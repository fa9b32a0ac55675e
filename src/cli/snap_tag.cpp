// vm snap tag: gives a snapshot another tag.
#include <memory>

#include "src/cli/snap.hpp"
#include "src/cli/verbs.hpp"

namespace nestor::cli {
namespace {

struct TagOptions {
    std::string from;
    std::string to;
    std::string store;
    bool rename = false;
    bool replace = false;
    bool json = false;
};

Result<int> tag(const TagOptions& o) {
    auto store = TRY(open_store(o.store));
    TRY(o.rename ? store.rename(o.from, o.to, o.replace) : store.tag(o.from, o.to, o.replace));
    control::Object object;
    object.add("from", o.from).add("tag", o.to).add("renamed", o.rename);
    print_line(o.json ? object.to_json() : o.from + (o.rename ? " is now " : " is also ") + o.to);
    return 0;
}

} // namespace

void add_snap_tag(CLI::App& snap, int& status) {
    auto o = std::make_shared<TagOptions>();
    CLI::App* const verb = add_verb(snap, "tag", "Give a snapshot another tag",
                                    "vm snap tag booted golden --replace", o->json);
    add_argument(verb, "tag", o->from, "Snapshot");
    add_argument(verb, "new", o->to, "Its other tag");
    add_flag(verb, "--rename", o->rename, "Take the old tag away");
    add_flag(verb, "--replace", o->replace, "Move the new tag where it exists");
    add_store_option(verb, o->store);
    on_chosen(verb, status, o->json, [o] { return tag(*o); });
}

} // namespace nestor::cli
