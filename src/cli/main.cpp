// The `vm` program: wires the verbs to the command line. One file per verb.
#include <csignal>
#include <cstdio>

#include <fcntl.h>
#include <unistd.h>

#include "src/cli/verbs.hpp"

namespace nestor::cli {
namespace {

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

void add_verbs(CLI::App& app, int& status) {
    add_run(app, status);
    add_save(app, status);
    add_restore(app, status);
    add_ps(app, status);
    add_machine_verbs(app, status);
    add_debug(app, status);
    add_check(app, status);
    add_host(app, status);
    add_snap(app, status);
    add_store(app, status);
    add_state(app, status);
    add_digest(app, status);
}

} // namespace
} // namespace nestor::cli

int main(int argc, char** argv) {
    using namespace nestor;
    cli::open_standard_streams();
    std::signal(SIGXFSZ, SIG_IGN); // a file that would grow too large is an error like any other
    const int status = cli::run_command_line(argc, argv, cli::add_verbs);
    return std::fflush(stdout) == 0 ? status : static_cast<int>(ErrorCode::failed);
}
