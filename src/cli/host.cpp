// vm host dump: what this host and engine offer machines, as a file that vm check takes.
#include <memory>

#include "src/cli/verbs.hpp"
#include "src/control/contract.hpp"

namespace nestor::cli {

namespace {

Result<int> dump() {
    print_line(control::to_json(control::this_host()));
    return 0;
}

} // namespace

void add_host(CLI::App& app, int& status) {
    CLI::App* const host = add_group(app, "host", "What this host offers machines");
    auto json = std::make_shared<bool>(false);
    CLI::App* const verb = add_verb(
        *host, "dump", "Describe this host, for vm check --against",
        "vm host dump > this-host.json\n"
        "It lists vCPUs, memory, CPU models and features, MSRs, XSAVE components, state\n"
        "units, board (the newest revision) and semantics (what guests can notice of each\n"
        "change of the engine).",
        *json);
    on_chosen(verb, status, *json, [json] { return dump(); });
}

} // namespace nestor::cli
