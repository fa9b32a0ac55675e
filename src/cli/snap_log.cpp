// vm snap log: a snapshot and what it continues, back to the first.
#include <cstdio>
#include <memory>

#include "src/cli/snap.hpp"
#include "src/cli/verbs.hpp"

namespace nestor::cli {
namespace {

struct LogOptions {
    std::string tag;
    std::string store;
    bool json = false;
};

std::string names_of(const snapshot::LogEntry& entry) {
    std::string text;
    for (const std::string& tag : entry.tags) {
        text += (text.empty() ? "" : ", ") + tag;
    }
    return text.empty() ? "(no tag)" : text;
}

void print_entry(const snapshot::LogEntry& entry) {
    const std::string digest = to_hex(entry.manifest).substr(0, 12);
    if (!entry.contents) {
        print_line(digest + "  not in this store any more");
        return;
    }
    const snapshot::Provenance& p = entry.contents->provenance;
    std::printf("%s  %-24s %s  %s at count %llu\n", digest.c_str(), names_of(entry).c_str(),
                time_text(p.created_unix_ns).c_str(), p.machine.c_str(),
                static_cast<unsigned long long>(p.count));
}

std::string entry_json(const snapshot::LogEntry& entry) {
    std::vector<std::string> tags;
    for (const std::string& tag : entry.tags) {
        tags.push_back(control::json_string(tag));
    }
    control::Object line;
    line.add("manifest", to_hex(entry.manifest))
        .add("tags", control::RawJson{control::json_array(tags)})
        .add("present", entry.contents.has_value());
    if (entry.contents) {
        const snapshot::Provenance& p = entry.contents->provenance;
        line.add("created", time_text(p.created_unix_ns))
            .add("machine", p.machine)
            .add("count", p.count);
    }
    return line.to_json();
}

Result<int> log(const LogOptions& o) {
    const auto store = TRY(open_store(o.store));
    std::vector<std::string> lines;
    for (const snapshot::LogEntry& entry : TRY(store.log(o.tag))) {
        if (o.json) {
            lines.push_back(entry_json(entry));
        } else {
            print_entry(entry);
        }
    }
    if (o.json) {
        print_line(control::json_array(lines));
    }
    return 0;
}

} // namespace

void add_snap_log(CLI::App& snap, int& status) {
    auto o = std::make_shared<LogOptions>();
    CLI::App* const verb = add_verb(snap, "log", "List a snapshot and the ones it continues",
                                    "vm snap log after-upgrade", o->json);
    add_argument(verb, "tag", o->tag, "Snapshot");
    add_store_option(verb, o->store);
    on_chosen(verb, status, o->json, [o] { return log(*o); });
}

} // namespace nestor::cli
