// The command line's grammar. The one file, with main, that knows the parser.
#include <CLI/CLI.hpp>

#include "src/cli/verbs.hpp"

namespace nestor::cli {

namespace {

/// Values that are more often an unset variable of a script than meant.
std::string refuse_empty(const std::string& value) {
    return value.empty() ? "its value is empty" : "";
}

std::string refuse_others(const std::string& value, std::span<const char* const> words) {
    std::string all;
    for (const char* const word : words) {
        if (value == word) {
            return "";
        }
        all += (all.empty() ? "" : ", ") + std::string(word);
    }
    return "there is no choice '" + value + "'; write one of " + all;
}

} // namespace

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
    verb->add_option(name, into, help)->required()->check(refuse_empty);
}

void add_optional_argument(CLI::App* verb, const char* name, std::string& into, const char* help) {
    verb->add_option(name, into, help)->check(refuse_empty);
}

void add_arguments(CLI::App* verb, const char* name, std::vector<std::string>& into,
                   const char* help) {
    verb->add_option(name, into, help)->required()->check(refuse_empty);
}

void add_option(CLI::App* verb, const char* name, std::string& into, const char* help) {
    verb->add_option(name, into, help)->capture_default_str()->check(refuse_empty);
}

void add_choice(CLI::App* verb, const char* name, std::string& into,
                std::initializer_list<const char*> words, const char* help) {
    verb->add_option(name, into, help)
        ->capture_default_str()
        ->check([words = std::vector(words)](const std::string& value) {
            return refuse_others(value, words);
        });
}

void add_text_option(CLI::App* verb, const char* name, std::string& into, const char* help) {
    verb->add_option(name, into, help);
}

void add_required_option(CLI::App* verb, const char* name, std::string& into, const char* help) {
    verb->add_option(name, into, help)->required()->check(refuse_empty);
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
