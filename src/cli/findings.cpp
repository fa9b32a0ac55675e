// What vm check and vm restore --dry-run tell: everything that is in the way, and what to do.
#include "src/cli/verbs.hpp"
#include "src/control/contract.hpp"

namespace nestor::cli {

int print_findings(const std::string& tag, const std::string& there,
                   std::span<const control::Finding> findings, bool json) {
    const bool restorable = control::can_run(findings);
    const int status = restorable ? 0 : static_cast<int>(ErrorCode::incompatible);
    std::vector<std::string> lines;
    for (const control::Finding& f : findings) {
        control::Object line;
        line.add("path", f.path).add("have", f.have).add("need", f.need).add("remedy", f.remedy);
        line.add("blocks", f.blocks);
        lines.push_back(line.to_json());
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
        print_line("  " + f.path + (f.blocks ? "" : " (it can run all the same)") +
                   "\n    have    " + f.have + "\n    need    " + f.need + "\n    remedy  " +
                   f.remedy);
    }
    return status;
}

} // namespace nestor::cli
