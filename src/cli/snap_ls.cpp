// vm snap ls: the snapshots of a store, damaged ones and those of a newer vm too.
#include <cstdio>
#include <memory>

#include "src/cli/snap.hpp"
#include "src/cli/verbs.hpp"

namespace nestor::cli {
namespace {

struct LsOptions {
    std::string store;
    bool json = false;
};

/// What people should know of it, in a word or two.
std::string state_of(const snapshot::ListEntry& entry) {
    std::string text = entry.claim ? "resumed" : "";
    if (entry.deferred) {
        text += text.empty() ? "not on disk yet" : ", not on disk yet";
    }
    return text;
}

void print_entry(const snapshot::ListEntry& entry) {
    if (!entry.manifest) {
        const bool newer = entry.error->code == ErrorCode::incompatible;
        std::printf("%-24s %s: %s\n", entry.tag.c_str(), newer ? "for a newer vm" : "damaged",
                    entry.error->message.c_str());
        return;
    }
    const snapshot::Manifest& m = *entry.manifest;
    std::printf("%-24s %-20s %-16s %16llu %9s %-16s %s\n", entry.tag.c_str(),
                time_text(m.provenance.created_unix_ns).c_str(), m.provenance.machine.c_str(),
                static_cast<unsigned long long>(m.provenance.count),
                size_text(memory_of(m)).c_str(), m.parent_tag.c_str(), state_of(entry).c_str());
}

control::Object entry_object(const snapshot::ListEntry& entry) {
    control::Object line;
    if (entry.manifest) {
        line = summary(entry.tag, *entry.manifest);
        line.add("parent", entry.manifest->parent_tag);
        line.add("resumedBy", entry.claim ? entry.claim->by : "");
        return line.add("deferred", entry.deferred);
    }
    line.add("tag", entry.tag);
    return line.add("error", control::RawJson{control::error_object(*entry.error).to_json()});
}

Result<int> list(const LsOptions& o) {
    const auto store = TRY(open_store(o.store));
    std::vector<std::string> lines;
    if (!o.json) {
        std::printf("%-24s %-20s %-16s %16s %9s %-16s %s\n", "TAG", "CREATED", "MACHINE", "COUNT",
                    "MEMORY", "PARENT", "STATE");
    }
    int status = 0;
    for (const snapshot::ListEntry& entry : TRY(store.list())) {
        if (!entry.manifest) {
            status = static_cast<int>(entry.error->code);
        }
        if (o.json) {
            lines.push_back(entry_object(entry).to_json());
        } else {
            print_entry(entry);
        }
    }
    if (o.json) {
        print_line(control::json_array(lines));
    }
    return status;
}

} // namespace

void add_snap_ls(CLI::App& snap, int& status) {
    auto o = std::make_shared<LsOptions>();
    CLI::App* const verb =
        add_verb(snap, "ls", "List snapshots", "vm snap ls --store /srv/snapshots", o->json);
    add_store_option(verb, o->store);
    on_chosen(verb, status, o->json, [o] { return list(*o); });
}

} // namespace nestor::cli
