// What `vm run` and `vm restore` share: a machine in the foreground.
#pragma once

#include <functional>
#include <string>

#include "src/base/result.hpp"
#include "src/control/supervisor.hpp"

namespace CLI {
class App;
}

namespace nestor::cli {

struct SessionOptions {
    std::string name;
    std::string socket;
    std::string store;
    std::string until;
    std::string save;
    bool pause = false;
    bool no_reboot = false;
    bool replace = false;
    std::string clock = "virtual"; ///< or "realtime"
    std::string digest_every;
    std::string digest_file;
    bool timing = false;
    bool verbose = false;
    bool json = false;
};

void add_session_options(CLI::App* verb, SessionOptions& options);

/// Everything about the options that can be told before a machine is made. Gives the plan.
[[nodiscard]] Result<control::Plan> make_plan(const SessionOptions& options);

/// Runs the machine on the terminal; gives the exit status.
[[nodiscard]] Result<int> run_session(control::Keeper& keeper, const SessionOptions& options,
                                      control::Plan plan);

/// Milliseconds since the process began.
[[nodiscard]] double milliseconds_running();

} // namespace nestor::cli
