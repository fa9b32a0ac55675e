// The `vm` program: wires the verbs to the command line. One file per verb.
#include <algorithm>
#include <csignal>
#include <cstdio>
#include <cstring>

#include <fcntl.h>
#include <unistd.h>

#include <CLI/CLI.hpp>

#include "src/base/log.hpp"
#include "src/cli/verbs.hpp"

namespace {

/// Whether `--json` stands anywhere, for errors in the command line itself.
bool wants_json(int argc, char** argv) {
    for (int i = 1; i < argc; ++i) {
        if (std::strcmp(argv[i], "--json") == 0) {
            return true;
        }
    }
    return false;
}

/// A file that is opened later must not get the number of a standard stream that was closed: what
/// is written to the stream would go into it.
void open_standard_streams() {
    int fd = 0;
    while (fd >= 0 && fd <= STDERR_FILENO) {
        fd = ::open("/dev/null", O_RDWR);
    }
    if (fd >= 0) {
        (void)::close(fd);
    }
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

int main(int argc, char** argv) {
    using namespace nestor;
    open_standard_streams();
    std::signal(SIGXFSZ, SIG_IGN); // a file that would grow too large is an error like any other
    CLI::App app{"vm: machines that are their saved state", "vm"};
    app.require_subcommand(1);
    app.set_version_flag("--version", "vm 0.1.0");
    app.footer("Exit status: 0 ok, 2 usage, 4 incompatible, 6 corrupt, 8 any other failure;\n"
               "odd ones belong to the guest's debug exit.\n"
               "See also: vm VERB --help");
    int status = 0;
    cli::add_run(app, status);
    cli::add_save(app, status);
    cli::add_restore(app, status);
    cli::add_ps(app, status);
    cli::add_machine_verbs(app, status);
    cli::add_debug(app, status);
    cli::add_check(app, status);
    cli::add_host(app, status);
    cli::add_snap(app, status);
    cli::add_store(app, status);
    cli::add_state(app, status);
    cli::add_digest(app, status);
    try {
        app.parse(argc, argv);
    } catch (const CLI::ParseError& e) {
        if (e.get_exit_code() == 0) {
            return app.exit(e);
        }
        return cli::report(
            {ErrorCode::usage, complaint(app, argc, argv, e), "see: vm --help, vm VERB --help"},
            wants_json(argc, argv));
    }
    return std::fflush(stdout) == 0 ? status : static_cast<int>(ErrorCode::failed);
}
