// What vm check and vm restore --dry-run tell: everything that is in the way, and what to do.
#include <cstdio>

#include "src/cli/verbs.hpp"
#include "src/control/contract.hpp"

namespace nestor::cli {

namespace {

control::Object to_object(const control::Finding& f) {
    control::Object line;
    line.add("path", f.path).add("have", f.have).add("need", f.need).add("remedy", f.remedy);
    line.add("blocks", f.blocks);
    if (!f.changes.empty()) {
        std::vector<std::string> changes;
        for (const std::string& change : f.changes) {
            changes.push_back(control::json_string(change));
        }
        line.add("changes", control::RawJson{control::json_array(changes)});
    }
    return line;
}

/// What differs needs no have and need beside it.
void print_changes(const control::Finding& f) {
    print_line("  " + f.path + (f.blocks ? ": " : " (it can run all the same): ") + f.remedy);
    for (const std::string& change : f.changes) {
        print_line("    " + change);
    }
}

} // namespace

void print_notes(std::span<const control::Finding> findings, bool json) {
    for (const control::Finding& f : findings) {
        if (f.blocks) {
            continue;
        }
        if (json) {
            std::fprintf(stderr, "%s\n", to_object(f).to_json().c_str());
        } else if (!f.changes.empty()) {
            std::fprintf(stderr, "vm: note: %s: %s\n", f.path.c_str(), f.remedy.c_str());
            for (const std::string& change : f.changes) {
                std::fprintf(stderr, "vm: note:   %s\n", change.c_str());
            }
        } else {
            std::fprintf(stderr, "vm: note: %s: have %s, need %s: %s\n", f.path.c_str(),
                         f.have.c_str(), f.need.c_str(), f.remedy.c_str());
        }
    }
}

int print_findings(const std::string& tag, const std::string& there,
                   std::span<const control::Finding> findings, bool json) {
    const bool restorable = control::can_run(findings);
    const int status = restorable ? 0 : static_cast<int>(ErrorCode::incompatible);
    std::vector<std::string> lines;
    for (const control::Finding& f : findings) {
        lines.push_back(to_object(f).to_json());
    }
    if (json) {
        control::Object whole;
        whole.add("tag", tag).add("against", there).add("restorable", restorable);
        whole.add("findings", control::RawJson{control::json_array(lines)});
        print_line(whole.to_json());
        return status;
    }
    print_line(tag + (restorable ? " can" : " cannot") + " be restored on " +
               (there == "host" ? "this host" : there) + (findings.empty() ? "" : ":"));
    for (const control::Finding& f : findings) {
        if (!f.changes.empty()) {
            print_changes(f);
            continue;
        }
        print_line("  " + f.path + (f.blocks ? "" : " (it can run all the same)") +
                   "\n    have    " + f.have + "\n    need    " + f.need + "\n    remedy  " +
                   f.remedy);
    }
    return status;
}

} // namespace nestor::cli
