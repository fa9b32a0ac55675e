// vm save: asks a running machine to save itself.
#include <climits>
#include <cstdio>
#include <cstdlib>
#include <memory>

#include "src/cli/verbs.hpp"
#include "src/control/paths.hpp"

namespace nestor::cli {

namespace {

struct SaveVerb {
    std::string name;
    std::string socket;
    std::string store;
    std::string tag;
    std::string after;
    std::string parent = "auto";
    std::string mode = "stop";
    std::string durability = "commit";
    bool clone_forbidden = false;
    bool replace = false;
    bool json = false;
};

/// The machine has a working directory of its own.
std::string absolute(const std::string& path) {
    char resolved[PATH_MAX];
    if (path.empty() || path[0] == '/' || ::realpath(".", resolved) == nullptr) {
        return path;
    }
    return std::string(resolved) + "/" + path;
}

std::string text_of(const SaveVerb& o, const control::Object& done) {
    char pause[32];
    std::snprintf(pause, sizeof(pause), "%.1f", done.real("pauseMs"));
    const std::string parent = done.text("parent");
    return "saved " + o.name + " at count " + std::to_string(done.number("count")) + " as " +
           done.text("tag") + " in " + done.text("store") +
           (parent.empty() ? "" : ", continues " + parent) + ": " +
           size_text(done.number("bytesWritten")) + " written, " +
           std::to_string(done.number("newPages")) + " new pages of " +
           std::to_string(done.number("pages")) + ", it stood still for " + pause + " ms";
}

Result<int> save(const SaveVerb& o) {
    if (!o.tag.empty()) {
        TRY(check_tag("--tag", o.tag));
    }
    control::Request request{.verb = "save", .arguments = {}};
    request.arguments.add("store", absolute(TRY(control::store_directory(o.store))))
        .add("tag", o.tag.empty() ? o.name : o.tag)
        .add("after", o.after)
        .add("replace", o.replace)
        .add("parent", o.parent)
        .add("mode", o.mode)
        .add("durability", o.durability)
        .add("cloneForbidden", o.clone_forbidden);
    const control::Object done = TRY(ask_machine(o.name, o.socket, request, o.json));
    print_line(o.json ? done.to_json() : text_of(o, done));
    return 0;
}

} // namespace

void add_save(CLI::App& app, int& status) {
    auto o = std::make_shared<SaveVerb>();
    CLI::App* const verb = add_verb(app, "save", "Save a running machine; if that fails it runs on",
                                    "vm save web --tag before-upgrade --mode live", o->json);
    add_argument(verb, "name", o->name, "Machine");
    add_option(verb, "--socket", o->socket,
               "Path of its control socket, where its name does not lead to it");
    add_option(verb, "--store", o->store,
               "Directory of snapshots [$NESTOR_STORE, or nestor in $XDG_DATA_HOME]");
    add_option(verb, "--tag", o->tag, "Name of the snapshot [the machine's name]");
    add_choice(verb, "--after", o->after, {"resume", "pause", "stop"},
               "resume, pause or stop the machine afterwards [as it was]");
    add_choice(verb, "--mode", o->mode, {"stop", "live"},
               "stop: it stands still while it is saved; live: it runs on meanwhile, and the\n"
               "snapshot is what it was at the moment of the command");
    add_option(verb, "--parent", o->parent,
               "What the snapshot continues: auto (the machine's last one), a tag, or none");
    add_choice(verb, "--durability", o->durability, {"commit", "deferred"},
               "commit: on disk when this returns; deferred: with the next commit or store sync");
    add_flag(verb, "--no-clones", o->clone_forbidden,
             "With --after stop: refuse to restore it as another machine");
    add_flag(verb, "--replace", o->replace, "Move the tag where it exists");
    on_chosen(verb, status, o->json, [o] { return save(*o); });
}

} // namespace nestor::cli
