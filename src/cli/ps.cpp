// vm ps: lists the machines that run.
#include <cstdio>
#include <memory>

#include <unistd.h>

#include "src/cli/verbs.hpp"
#include "src/control/channel.hpp"
#include "src/control/paths.hpp"

namespace nestor::cli {

namespace {

constexpr int status_patience_ms = 3000;

Result<int> list(bool json) {
    const auto names = TRY(control::socket_names());
    std::vector<std::string> lines;
    if (!json) {
        std::printf("%-20s %-8s %8s %5s %9s %16s\n", "NAME", "STATE", "PID", "CPUS", "MEMORY",
                    "COUNT");
    }
    for (const std::string& name : names) {
        const std::string path = TRY(control::socket_path(name));
        if (!control::is_alive(path)) {
            continue; // left by a machine that was killed; the next of that name replaces it
        }
        const auto reply =
            control::ask(path, {.verb = "status", .arguments = {}}, status_patience_ms);
        control::Object status;
        if (reply && reply->kind == control::Reply::Kind::ok) {
            status = reply->body;
        } else {
            status.add("name", name).add("state", "busy");
        }
        if (json) {
            lines.push_back(status.to_json());
            continue;
        }
        std::printf("%-20s %-8s %8llu %5llu %9s %16llu\n", name.c_str(),
                    status.text("state").c_str(),
                    static_cast<unsigned long long>(status.number("pid")),
                    static_cast<unsigned long long>(status.number("cpus")),
                    size_text(status.number("memory")).c_str(),
                    static_cast<unsigned long long>(status.number("count")));
    }
    if (json) {
        print_line(control::json_array(lines));
    }
    return 0;
}

} // namespace

void add_ps(CLI::App& app, int& status) {
    auto json = std::make_shared<bool>(false);
    CLI::App* const verb = add_verb(app, "ps", "List running machines", "vm ps --json", *json);
    on_chosen(verb, status, *json, [json] { return list(*json); });
}

} // namespace nestor::cli
