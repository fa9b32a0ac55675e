// The verbs of `vm`: each adds its subcommand and sets the exit status when it was chosen.
#pragma once

#include <functional>
#include <initializer_list>
#include <span>
#include <string>
#include <vector>

#include "src/base/result.hpp"
#include "src/control/message.hpp"

namespace CLI {
class App;
}

namespace nestor::control {
struct Finding;
}

namespace nestor::cli {

void add_run(CLI::App& app, int& status);
void add_restore(CLI::App& app, int& status);
void add_save(CLI::App& app, int& status);
void add_ps(CLI::App& app, int& status);
void add_machine_verbs(CLI::App& app, int& status); ///< pause, resume, stop
void add_debug(CLI::App& app, int& status);
void add_check(CLI::App& app, int& status);
void add_host(CLI::App& app, int& status);
void add_snap(CLI::App& app, int& status);
void add_store(CLI::App& app, int& status);
void add_state(CLI::App& app, int& status);
void add_digest(CLI::App& app, int& status);

/// Lets `add_verbs` say which verbs there are and runs the one that is chosen; gives the exit
/// status.
[[nodiscard]] int run_command_line(int argc, char** argv,
                                   void (*add_verbs)(CLI::App& app, int& status));
/// A subcommand that only holds verbs.
CLI::App* add_group(CLI::App& app, const char* name, const char* description);
/// A subcommand with `--json`, which `json` follows, and an example at the end of its help.
CLI::App* add_verb(CLI::App& parent, const char* name, const char* description, const char* example,
                   bool& json);
/// A word that has to be given, one that may be, and one or more. An empty word is a usage error,
/// here and in options.
void add_argument(CLI::App* verb, const char* name, std::string& into, const char* help);
void add_optional_argument(CLI::App* verb, const char* name, std::string& into, const char* help);
void add_arguments(CLI::App* verb, const char* name, std::vector<std::string>& into,
                   const char* help);
/// "--name VALUE"; what `into` holds is the default that help shows.
void add_option(CLI::App* verb, const char* name, std::string& into, const char* help);
/// The same for an option that takes one of `words`.
void add_choice(CLI::App* verb, const char* name, std::string& into,
                std::initializer_list<const char*> words, const char* help);
/// The same for text, which may be empty.
void add_text_option(CLI::App* verb, const char* name, std::string& into, const char* help);
void add_required_option(CLI::App* verb, const char* name, std::string& into, const char* help);
void add_flag(CLI::App* verb, const char* name, bool& into, const char* help);
/// Runs `body` when the subcommand was chosen; its value, or its error's code, is the exit status.
/// An error is told on standard error, with `json` as one JSON object.
void on_chosen(CLI::App* verb, int& status, const bool& json, std::function<Result<int>()> body);

/// Prints "vm: MESSAGE" and the remedy on standard error; returns the exit status.
int report(const Error& error, bool json);

/// A line on standard output.
void print_line(const std::string& text);

/// Tells whether the snapshot `tag` can be restored on the host `there` and all that is in the way;
/// gives the exit status.
[[nodiscard]] int print_findings(const std::string& tag, const std::string& there,
                                 std::span<const control::Finding> findings, bool json);

/// What people should know of a machine that can run all the same: lines on standard error, with
/// `json` as JSON objects.
void print_notes(std::span<const control::Finding> findings, bool json);

/// "512M", "2G", "65536" (bytes), with binary suffixes K, M, G, T. Errors name `option`.
[[nodiscard]] Result<u64> parse_size(const char* option, const std::string& text);
/// A decimal number of at most `limit`.
[[nodiscard]] Result<u64> parse_number(const char* option, const std::string& text, u64 limit);
/// Whether `tag` can name a snapshot.
[[nodiscard]] Result<> check_tag(const char* option, const std::string& tag);
/// "1 page", "2 pages".
[[nodiscard]] std::string count_text(u64 count, const char* noun);
/// "512 MiB".
[[nodiscard]] std::string size_text(u64 bytes);

/// Sends a request to the machine `name`, or to the socket `path` where that is given.
[[nodiscard]] Result<control::Object> ask_machine(const std::string& name, const std::string& path,
                                                  const control::Request& request,
                                                  bool json = false);

} // namespace nestor::cli
