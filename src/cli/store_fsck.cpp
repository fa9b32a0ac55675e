// vm store fsck: reads all of a store and compares it with its digests.
#include <memory>

#include "src/cli/snap.hpp"
#include "src/cli/store.hpp"
#include "src/cli/verbs.hpp"
#include "src/cli/work.hpp"

namespace nestor::cli {
namespace {

struct Options {
    std::string store;
    bool json = false;
};

void print_json(const std::string& directory, const snapshot::FsckReport& report) {
    std::vector<std::string> findings;
    for (const auto& finding : report.findings) {
        control::Object object;
        object.add("where", finding.where).add("what", finding.what);
        findings.push_back(object.to_json());
    }
    std::vector<std::string> damaged;
    for (const std::string& tag : report.damaged_tags) {
        damaged.push_back(control::json_string(tag));
    }
    control::Object object;
    object.add("store", directory)
        .add("snapshots", report.snapshots)
        .add("records", report.records)
        .add("findings", control::RawJson{control::json_array(findings)})
        .add("damagedTags", control::RawJson{control::json_array(damaged)});
    print_line(object.to_json());
}

Result<int> fsck(const Options& o) {
    const auto store = TRY(open_store(o.store));
    snapshot::FsckReport report;
    {
        Work work("checking " + store.directory(), o.json);
        snapshot::FsckOptions options;
        options.progress = work.progress();
        report = TRY(store.fsck(options));
    }
    const int status = report.findings.empty() ? 0 : static_cast<int>(ErrorCode::corrupt);
    if (o.json) {
        print_json(store.directory(), report);
        return status;
    }
    for (const auto& finding : report.findings) {
        print_line(finding.where + ": " + finding.what);
    }
    print_line(count_text(report.snapshots, "snapshot") + ", " +
               count_text(report.records, "record") + ", " +
               count_text(report.findings.size(), "finding") + ", " +
               count_text(report.damaged_tags.size(), "damaged snapshot"));
    return status;
}

} // namespace

void add_store_fsck(CLI::App& parent, int& status) {
    auto o = std::make_shared<Options>();
    CLI::App* const verb =
        add_verb(parent, "fsck", "Read all of a store and compare it with its digests",
                 "vm store fsck\nExit status 6 when something is damaged.", o->json);
    add_store_option(verb, o->store);
    on_chosen(verb, status, o->json, [o] { return fsck(*o); });
}

} // namespace nestor::cli
