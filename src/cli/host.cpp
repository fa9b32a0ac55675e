// vm host dump: what this host offers machines.
#include <memory>

#include <CLI/CLI.hpp>

#include "src/cli/verbs.hpp"
#include "src/control/contract.hpp"

namespace nestor::cli {

namespace {

Result<int> dump(bool json) {
    const control::HostOffer offer = control::this_host();
    if (json) {
        print_line(control::to_json(offer));
        return 0;
    }
    std::string models;
    for (const std::string& model : offer.cpu_models) {
        models += " " + model;
    }
    print_line("engine            soft, semantics " + std::to_string(offer.engine_semantics));
    print_line("snapshot format   " + std::to_string(offer.format));
    print_line("vCPUs             up to " + std::to_string(offer.cpus));
    print_line("memory            " + size_text(offer.memory));
    print_line("CPU models       " + models);
    print_line("guest clock       " + std::to_string(offer.tick_hz) + " Hz");
    print_line("state structs     " + std::to_string(offer.unit_types.size()));
    return 0;
}

} // namespace

void add_host(CLI::App& app, int& status) {
    CLI::App* const host = app.add_subcommand("host", "What this host offers machines");
    host->require_subcommand(1);
    auto json = std::make_shared<bool>(false);
    CLI::App* const verb = add_verb(*host, "dump", "Describe this host, for vm check --against",
                                    "vm host dump --json > this-host.json", *json);
    on_chosen(verb, status, *json, [json] { return dump(*json); });
}

} // namespace nestor::cli
