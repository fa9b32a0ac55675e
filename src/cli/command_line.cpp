// The command line's grammar. The one file, with main, that knows the parser.
#include <CLI/CLI.hpp>

#include "src/cli/verbs.hpp"

namespace nestor::cli {

CLI::App* add_group(CLI::App& app, const char* name, const char* description) {
    CLI::App* const group = app.add_subcommand(name, description);
    group->require_subcommand(1);
    return group;
}

CLI::App* add_verb(CLI::App& parent, const char* name, const char* description, const char* example,
                   bool& json) {
    CLI::App* const verb = parent.add_subcommand(name, description);
    verb->add_flag("--json", json, "Write the result, or the error, as JSON");
    verb->footer(std::string("Example:\n  ") + example);
    return verb;
}

void add_argument(CLI::App* verb, const char* name, std::string& into, const char* help) {
    verb->add_option(name, into, help)->required();
}

void add_optional_argument(CLI::App* verb, const char* name, std::string& into, const char* help) {
    verb->add_option(name, into, help);
}

void add_arguments(CLI::App* verb, const char* name, std::vector<std::string>& into,
                   const char* help) {
    verb->add_option(name, into, help)->required();
}

void add_option(CLI::App* verb, const char* name, std::string& into, const char* help) {
    verb->add_option(name, into, help)->capture_default_str();
}

void add_required_option(CLI::App* verb, const char* name, std::string& into, const char* help) {
    verb->add_option(name, into, help)->required();
}

void add_flag(CLI::App* verb, const char* name, bool& into, const char* help) {
    verb->add_flag(name, into, help);
}

void on_chosen(CLI::App* verb, int& status, const bool& json, std::function<Result<int>()> body) {
    verb->callback([&status, &json, body = std::move(body)] {
        const Result<int> result = body();
        status = result ? *result : report(result.error(), json);
    });
}

} // namespace nestor::cli
