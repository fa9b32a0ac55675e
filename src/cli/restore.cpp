// vm restore: continues a saved machine in this process.
#include <cstdio>
#include <memory>
#include <sstream>

#include "src/cli/session.hpp"
#include "src/cli/verbs.hpp"
#include "src/cli/work.hpp"
#include "src/control/contract.hpp"
#include "src/control/paths.hpp"

namespace nestor::cli {

namespace {

struct RestoreOptions {
    std::string tag;
    std::string memory = "lazy";
    std::string tier;
    std::string clock = "resume";
    bool paused = false;
    bool dry_run = false;
    SessionOptions session;
};

/// "advance,realtime": what happens to guest time, and how it goes on.
Result<control::ClockChoice> parse_clocks(const std::string& text, SessionOptions& session) {
    control::ClockChoice choice;
    std::stringstream words(text);
    for (std::string word; std::getline(words, word, ',');) {
        if (word == "virtual" || word == "realtime") {
            session.clock = word;
        } else {
            choice = TRY(control::parse_clock(word));
        }
    }
    return choice;
}

Result<int> restore(RestoreOptions& o) {
    control::LoadOptions load;
    load.lazy = o.memory == "lazy";
    load.clock = TRY(parse_clocks(o.clock, o.session));
    if (!o.tier.empty()) {
        load.tier = TRY(control::parse_tier(o.tier));
    }
    control::Plan plan = TRY(make_plan(o.session));
    const std::string directory = TRY(control::store_directory(o.session.store));
    const auto store = TRY(snapshot::Store::open(directory, snapshot::Store::Mode::existing));
    const auto snapshot = TRY(store.load(o.tag));
    const std::string context = "snapshot " + o.tag;
    auto found = control::findings(snapshot, control::this_host());
    const auto images = control::image_findings(snapshot.manifest());
    found.insert(found.end(), images.begin(), images.end());
    if (o.dry_run && !control::can_run(found)) {
        return print_findings(o.tag, "host", found, o.session.json);
    }
    TRY(control::refuse("this host cannot run the machine", found), context);
    std::unique_ptr<control::Keeper> keeper;
    {
        Work work("restoring " + o.tag, o.session.json);
        load.progress = work.progress();
        keeper = TRY(control::Keeper::load(store, snapshot, load), context);
    }
    if (o.dry_run) {
        return print_findings(o.tag, "host", found, o.session.json);
    }
    print_notes(found, o.session.json);
    plan.paused = o.paused;
    return run_session(*keeper, o.session, std::move(plan));
}

} // namespace

void add_restore(CLI::App& app, int& status) {
    auto o = std::make_shared<RestoreOptions>();
    CLI::App* const verb = add_verb(
        app, "restore", "Continue a saved machine; its serial port is standard in and output",
        "vm restore booted --name copy --until serial:done\n"
        "A machine of older engine semantics goes on under this vm's, which is told on\n"
        "standard error with what changed; vm check says so beforehand.",
        o->session.json);
    add_argument(verb, "tag", o->tag, "Snapshot");
    add_choice(verb, "--memory", o->memory, {"lazy", "eager"},
               "lazy: read pages when they are needed; eager: all before the start");
    add_option(
        verb, "--tier", o->tier,
        "resume: the one machine goes on, here and nowhere else; clone: another machine, with "
        "an identity of its own [the same run once more, as often as wanted]");
    add_option(
        verb, "--clock", o->clock,
        "Guest time goes on where it stood (resume), moves on by what passed since the save "
        "(advance) or to at=TIME, seconds since 1970 or 2026-03-01T12:00:00Z; with virtual or "
        "realtime after a comma as for run");
    add_flag(verb, "--paused", o->paused, "Do not run before: vm resume NAME");
    add_flag(verb, "--dry-run", o->dry_run, "Only tell whether it can be restored here");
    add_session_options(verb, o->session);
    on_chosen(verb, status, o->session.json, [o] { return restore(*o); });
}

} // namespace nestor::cli
