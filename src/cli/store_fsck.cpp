// vm store fsck: reads all of a store and compares it with its digests.
#include <algorithm>
#include <memory>

#include "src/cli/snap.hpp"
#include "src/cli/store.hpp"
#include "src/cli/verbs.hpp"
#include "src/cli/work.hpp"

namespace nestor::cli {
namespace {

struct StoreFsckOptions {
    std::string store;
    std::string wait = "5";
    bool repair = false;
    bool json = false;
};

control::RawJson strings_json(const std::vector<std::string>& texts) {
    std::vector<std::string> quoted;
    for (const std::string& text : texts) {
        quoted.push_back(control::json_string(text));
    }
    return {control::json_array(quoted)};
}

void print_json(const std::string& directory, const snapshot::FsckReport& report) {
    std::vector<std::string> findings;
    for (const auto& finding : report.findings) {
        control::Object object;
        object.add("where", finding.where)
            .add("what", finding.what)
            .add("tags", strings_json(finding.tags))
            .add("repaired", finding.repaired)
            .add("newer", finding.newer);
        findings.push_back(object.to_json());
    }
    control::Object object;
    object.add("store", directory)
        .add("snapshots", report.snapshots)
        .add("records", report.records)
        .add("findings", control::RawJson{control::json_array(findings)})
        .add("damagedTags", strings_json(report.damaged_tags))
        .add("newerTags", strings_json(report.newer_tags));
    print_line(object.to_json());
}

void print_text(const snapshot::FsckReport& report) {
    for (const auto& finding : report.findings) {
        std::string tags;
        for (const std::string& tag : finding.tags) {
            const char* const first = finding.newer ? "; use a newer vm for " : "; touches ";
            tags += (tags.empty() ? first : ", ") + tag;
        }
        print_line(finding.where + ": " + finding.what + tags +
                   (finding.repaired ? "; repaired" : ""));
    }
    print_line(count_text(report.snapshots, "snapshot") + ", " +
               count_text(report.records, "record") + ", " +
               count_text(report.findings.size(), "finding") + ", " +
               count_text(report.damaged_tags.size(), "damaged snapshot"));
}

Result<int> fsck(const StoreFsckOptions& o) {
    const auto store = TRY(open_store(o.store));
    snapshot::FsckReport report;
    {
        Work work("checking " + store.directory(), o.json);
        snapshot::FsckOptions options;
        options.repair = o.repair;
        options.wait_for_writer = TRY(parse_wait(o.wait));
        options.progress = work.progress();
        report = TRY(store.fsck(options));
    }
    if (o.json) {
        print_json(store.directory(), report);
    } else {
        print_text(report);
    }
    const bool sound =
        std::all_of(report.findings.begin(), report.findings.end(),
                    [](const auto& finding) { return finding.repaired || finding.newer; });
    const ErrorCode not_read = ErrorCode::incompatible;
    return !sound                      ? static_cast<int>(ErrorCode::corrupt)
           : report.newer_tags.empty() ? 0
                                       : static_cast<int>(not_read);
}

} // namespace

void add_store_fsck(CLI::App& parent, int& status) {
    auto o = std::make_shared<StoreFsckOptions>();
    CLI::App* const verb =
        add_verb(parent, "fsck", "Read all of a store and compare it with its digests",
                 "vm store fsck --repair\n"
                 "Exit status 6 when something is damaged and could not be repaired; 4 when\n"
                 "nothing is, but a snapshot can be looked at by a newer vm only.",
                 o->json);
    add_flag(verb, "--repair", o->repair, "Make a lost or damaged index anew from the packs");
    add_option(verb, "--wait", o->wait, "With --repair: seconds to wait for another writer");
    add_store_option(verb, o->store);
    on_chosen(verb, status, o->json, [o] { return fsck(*o); });
}

} // namespace nestor::cli
