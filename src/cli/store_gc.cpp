// vm store gc: gives back the space of what no tag needs any more.
#include <memory>

#include "src/cli/snap.hpp"
#include "src/cli/store.hpp"
#include "src/cli/verbs.hpp"
#include "src/cli/work.hpp"

namespace nestor::cli {
namespace {

struct StoreGcOptions {
    std::string store;
    std::string wait = "5";
    bool dry_run = false;
    bool json = false;
};

void print_json(const std::string& directory, const StoreGcOptions& o,
                const snapshot::GcReport& r) {
    control::Object object;
    object.add("store", directory)
        .add("dryRun", o.dry_run)
        .add("snapshots", r.snapshots)
        .add("leased", r.leased)
        .add("manifestsRemoved", r.manifests_removed)
        .add("packsRemoved", r.packs_removed)
        .add("packsRewritten", r.packs_rewritten)
        .add("packsWithoutRoom", r.packs_without_room)
        .add("bytesBefore", r.bytes_before)
        .add("bytesAfter", r.bytes_after)
        .add("liveBytes", r.live_bytes)
        .add("milliseconds", r.total_ms);
    print_line(object.to_json());
}

void print_text(const StoreGcOptions& o, const snapshot::GcReport& r) {
    print_line(std::to_string(r.snapshots) + " snapshots kept" +
               (r.leased == 0
                    ? ""
                    : ", " + std::to_string(r.leased) + " of them only while somebody reads them"));
    print_line(std::string(o.dry_run ? "would remove " : "removed ") +
               std::to_string(r.manifests_removed) + " manifests and " +
               std::to_string(r.packs_removed) + " packs, " +
               (o.dry_run ? "rewrite " : "rewrote ") + std::to_string(r.packs_rewritten));
    print_line(size_text(r.bytes_before) + " before, " + size_text(r.bytes_after) + " after, " +
               size_text(r.live_bytes) + " of it in use");
    if (r.packs_without_room != 0) {
        print_line(std::to_string(r.packs_without_room) +
                   " packs stay as they are: there is no room to rewrite them; remove another "
                   "snapshot, or something else from that disk, and run it again");
    }
}

Result<int> gc(const StoreGcOptions& o) {
    auto store = TRY(open_store(o.store));
    snapshot::GcReport report;
    {
        Work work("collecting " + store.directory(), o.json);
        snapshot::GcOptions options;
        options.dry_run = o.dry_run;
        options.wait_for_writer = TRY(parse_wait(o.wait));
        options.progress = work.progress();
        report = TRY(store.gc(options));
    }
    if (o.json) {
        print_json(store.directory(), o, report);
    } else {
        print_text(o, report);
    }
    return 0;
}

} // namespace

void add_store_gc(CLI::App& parent, int& status) {
    auto o = std::make_shared<StoreGcOptions>();
    CLI::App* const verb =
        add_verb(parent, "gc", "Give back the space of what no tag needs any more",
                 "vm store gc --dry-run\nIt may run beside saves and restores.", o->json);
    add_flag(verb, "--dry-run", o->dry_run, "Only tell what would go");
    add_option(verb, "--wait", o->wait, "Seconds to wait while another process writes");
    add_store_option(verb, o->store);
    on_chosen(verb, status, o->json, [o] { return gc(*o); });
}

} // namespace nestor::cli
