// The verbs of `vm`: each adds its subcommand and sets the exit status when it was chosen.
#pragma once

#include <functional>
#include <string>

#include "src/base/result.hpp"
#include "src/control/message.hpp"

namespace CLI {
class App;
}

namespace nestor::cli {

void add_run(CLI::App& app, int& status);
void add_restore(CLI::App& app, int& status);
void add_save(CLI::App& app, int& status);
void add_ps(CLI::App& app, int& status);
void add_machine_verbs(CLI::App& app, int& status); ///< pause, resume, stop
void add_check(CLI::App& app, int& status);
void add_host(CLI::App& app, int& status);
void add_snap(CLI::App& app, int& status);
void add_store(CLI::App& app, int& status);
void add_state(CLI::App& app, int& status);
void add_digest(CLI::App& app, int& status);

/// A subcommand with `--json`, which `json` follows, and an example at the end of its help.
CLI::App* add_verb(CLI::App& parent, const char* name, const char* description, const char* example,
                   bool& json);
/// Runs `body` when the subcommand was chosen; its value, or its error's code, is the exit status.
/// An error is told on standard error, with `json` as one JSON object.
void on_chosen(CLI::App* verb, int& status, const bool& json, std::function<Result<int>()> body);

/// Prints "vm: MESSAGE" and the remedy on standard error; returns the exit status.
int report(const Error& error, bool json);

/// A line on standard output.
void print_line(const std::string& text);

/// "512M", "2G", "65536" (bytes), with binary suffixes K, M, G, T. Errors name `option`.
[[nodiscard]] Result<u64> parse_size(const char* option, const std::string& text);
/// A decimal number of at most `limit`.
[[nodiscard]] Result<u64> parse_number(const char* option, const std::string& text, u64 limit);
/// "512 MiB".
[[nodiscard]] std::string size_text(u64 bytes);

/// Sends a request to the machine `name`, or to the socket `path` where that is given.
[[nodiscard]] Result<control::Object> ask_machine(const std::string& name, const std::string& path,
                                                  const control::Request& request);

/// Shows how far long work is, where standard error is a terminal.
class ProgressLine final {
public:
    explicit ProgressLine(std::string what);
    ~ProgressLine();
    ProgressLine(const ProgressLine&) = delete;
    ProgressLine& operator=(const ProgressLine&) = delete;
    void show(u64 done, u64 total);

private:
    std::string what_;
    bool terminal_;
    bool shown_ = false;
};

} // namespace nestor::cli
