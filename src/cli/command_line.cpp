// The command line's grammar. The one file that knows the parser, which is dear to compile.
#include <algorithm>
#include <cstring>

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

/// Whether `--json` stands anywhere, for errors in the command line itself.
bool wants_json(int argc, char** argv) {
    for (int i = 1; i < argc; ++i) {
        if (std::strcmp(argv[i], "--json") == 0) {
            return true;
        }
    }
    return false;
}

/// What is wrong with the command line. The parser does not name a verb that it does not know.
std::string complaint(const CLI::App& app, int argc, char** argv, const CLI::ParseError& error) {
    const CLI::App* group = &app;
    std::string words;
    for (int i = 1;; ++i) {
        const auto verbs = group->get_subcommands([](const CLI::App*) { return true; });
        if (verbs.empty()) {
            return error.what();
        }
        if (i == argc) {
            return "there is no verb" + (words.empty() ? "" : " after" + words);
        }
        words += std::string(" ") + argv[i];
        const auto found = std::find_if(verbs.begin(), verbs.end(), [&](const CLI::App* verb) {
            return verb->get_name() == argv[i];
        });
        if (found == verbs.end()) {
            return "there is no verb '" + words.substr(1) + "'";
        }
        group = *found;
    }
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

int run_command_line(int argc, char** argv, void (*add_verbs)(CLI::App& app, int& status)) {
    CLI::App app{"vm: machines that are their saved state", "vm"};
    app.require_subcommand(1);
    app.set_version_flag("--version", "vm " NESTOR_VERSION);
    app.footer("Exit status: 0 ok, 2 usage, 4 incompatible, 6 corrupt, 8 any other failure;\n"
               "odd ones belong to the guest's debug exit.\n"
               "See also: vm VERB --help");
    int status = 0;
    add_verbs(app, status);
    try {
        app.parse(argc, argv);
    } catch (const CLI::ParseError& e) {
        if (e.get_exit_code() == 0) {
            return app.exit(e);
        }
        return report(
            {ErrorCode::usage, complaint(app, argc, argv, e), "see: vm --help, vm VERB --help"},
            wants_json(argc, argv));
    }
    return status;
}

} // namespace nestor::cli
