// A machine in the foreground: its terminal, its control socket, its plan.
//
// Owns the order of things: what is wrong with the request is told before a machine is made, the
// socket is claimed before the machine runs, and the terminal is raw only while it runs.
#include "src/cli/session.hpp"

#include <chrono>
#include <cstdio>
#include <ctime>

#include <unistd.h>

#include "src/base/log.hpp"
#include "src/cli/terminal.hpp"
#include "src/cli/verbs.hpp"
#include "src/control/paths.hpp"

namespace nestor::cli {
namespace {

using Clock = std::chrono::steady_clock;

/// The process begins with its exec; what the kernel and the loader did since is its CPU time.
Clock::time_point process_start() {
    timespec used{};
    ::clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used);
    return Clock::now() - std::chrono::seconds(used.tv_sec) -
           std::chrono::nanoseconds(used.tv_nsec);
}

const Clock::time_point program_start = process_start();

/// Makes nothing: whether there is or can be a store shows when everything else is right.
Result<> check_save(const SessionOptions& o, const std::string& store) {
    TRY(check_tag("--save", o.save));
    const auto opened = snapshot::Store::open(store, snapshot::Store::Mode::existing);
    if (!o.replace && opened && opened->has(o.save)) {
        return fail(ErrorCode::failed, "--save " + o.save + ": " + store + " has that tag already",
                    "choose another tag, or move it with --replace");
    }
    return {};
}

/// Told before the machine runs, which may be for long.
Result<> make_store(const std::string& store) {
    TRY(snapshot::Store::open(store, snapshot::Store::Mode::create));
    if (::access(store.c_str(), W_OK) != 0) {
        return fail_errno("writing to the store " + store, errno);
    }
    return {};
}

Result<> check_until(const control::Event& until, machine::Machine& machine) {
    const bool passed =
        (until.kind == control::Event::Kind::icount && until.value < machine.count().value()) ||
        (until.kind == control::Event::Kind::seconds && until.value < machine.ticks().value());
    if (!passed) {
        return {};
    }
    return fail(ErrorCode::usage,
                "--until " + control::to_text(until) + ": the machine is past that: count " +
                    std::to_string(machine.count().value()) + ", " +
                    std::to_string(machine.ticks().value()) + " ns",
                "counts and seconds are those of the machine's life, not of this run");
}

/// The control socket. Without a name that somebody chose, a machine can do without one.
Result<std::optional<control::Listener>> claim_socket(const SessionOptions& o,
                                                      const std::string& name) {
    const auto claim = [&]() -> Result<control::Listener> {
        const std::string path = o.socket.empty() ? TRY(control::socket_path(name)) : o.socket;
        return control::Listener::claim(path, name);
    };
    auto listener = claim();
    if (!listener && o.name.empty() && o.socket.empty()) {
        std::fprintf(stderr, "vm: warning: no control socket: %s\n",
                     listener.error().message.c_str());
        return std::optional<control::Listener>();
    }
    return std::optional<control::Listener>(TRY(std::move(listener)));
}

} // namespace

double milliseconds_running() {
    return std::chrono::duration<double, std::milli>(Clock::now() - program_start).count();
}

void add_session_options(CLI::App* verb, SessionOptions& o) {
    add_option(verb, "--name", o.name, "Name for ps, save, pause, resume and stop [vm-PID]");
    add_option(verb, "--socket", o.socket, "Path of the control socket, instead of one by name");
    add_option(verb, "--store", o.store,
               "Directory of snapshots [$NESTOR_STORE, or nestor in $XDG_DATA_HOME]");
    add_option(verb, "--until", o.until,
               "Stop at serial:TEXT, icount:N, seconds:N (guest time) or l2");
    add_option(verb, "--save", o.save, "With --until: save there, under a tag");
    add_flag(verb, "--pause", o.pause, "With --until: pause there");
    add_flag(verb, "--replace", o.replace, "With --save: move the tag where it exists");
    add_flag(verb, "--no-reboot", o.no_reboot, "End with status 8 when the guest resets");
    add_option(verb, "--digest-every", o.digest_every,
               "Write COUNT DIGEST at every multiple of N instructions");
    add_option(verb, "--digest-file", o.digest_file, "Where these go [standard error]");
    add_flag(
        verb, "--timing", o.timing,
        "Tell when the first instruction was executed, and when all of a lazily restored memory "
        "was there");
    add_flag(verb, "--verbose", o.verbose,
             "Name what the guest asks for and does not get: MSRs that do not exist, once each");
}

Result<control::Plan> make_plan(const SessionOptions& o) {
    if (o.verbose) {
        set_log_level(LogLevel::info);
    }
    control::Plan plan;
    plan.name = o.name.empty() ? "vm-" + std::to_string(::getpid()) : o.name;
    if (!o.until.empty()) {
        plan.until = TRY(control::parse_event(o.until));
    } else if (!o.save.empty() || o.pause) {
        return fail(ErrorCode::usage,
                    std::string(o.pause ? "--pause" : "--save") + ": there is no --until EVENT");
    }
    if (!o.save.empty() && o.pause) {
        return fail(ErrorCode::usage, "--save and --pause exclude each other",
                    "a machine that ran to --until can also be saved with: vm save NAME");
    }
    plan.no_reboot = o.no_reboot;
    plan.realtime = o.clock == "realtime";
    if (!o.digest_every.empty()) {
        plan.digest_every = TRY(parse_number("--digest-every", o.digest_every, u64{1} << 52));
    }
    if (auto store = control::store_directory(o.store)) {
        plan.store = *store;
    } else if (!o.save.empty()) {
        return Failure(store.error());
    }
    plan.then = !o.save.empty() ? control::Plan::Then::save
                : o.pause       ? control::Plan::Then::pause
                                : control::Plan::Then::stop;
    plan.tag = o.save;
    plan.replace = o.replace;
    if (!o.save.empty()) {
        TRY(check_save(o, plan.store));
    }
    return plan;
}

Result<int> run_session(control::Keeper& keeper, const SessionOptions& o, control::Plan plan) {
    machine::Machine& machine = keeper.machine();
    TRY(check_until(plan.until, machine));
    const std::string name = plan.name;
    std::FILE* digests = stderr;
    std::unique_ptr<std::FILE, int (*)(std::FILE*)> digest_file(nullptr, std::fclose);
    if (!o.digest_file.empty()) {
        digest_file.reset(std::fopen(o.digest_file.c_str(), "we"));
        if (!digest_file) {
            return fail_errno("opening " + o.digest_file, errno);
        }
        digests = digest_file.get();
    }
    plan.on_digest = [digests](Icount count, const Digest& digest) {
        std::fprintf(digests, "%llu %s\n", static_cast<unsigned long long>(count.value()),
                     to_hex(digest).c_str());
        std::fflush(digests);
    };
    double first = 0;
    double resident = 0;
    if (o.timing) {
        plan.on_first_instruction = [&first] { first = milliseconds_running(); };
        plan.on_resident = [&resident] { resident = milliseconds_running(); };
    }
    auto listener = TRY(claim_socket(o, name));
    if (plan.then == control::Plan::Then::save) {
        TRY(make_store(plan.store));
    }
    Terminal terminal;
    terminal.greet();
    control::Supervisor supervisor(keeper, std::move(plan), terminal, std::move(listener));
    const control::Outcome outcome = TRY(supervisor.run());
    TRY(terminal.flush());
    if (o.json) {
        control::Object object;
        object.add("outcome", control::to_text(outcome.kind))
            .add("status", static_cast<u64>(outcome.status))
            .add("count", machine.count().value())
            .add("ticks", machine.ticks().value());
        if (o.timing) {
            object.add("firstInstructionMs", first);
        }
        if (resident != 0) {
            object.add("residentMs", resident);
        }
        std::fprintf(stderr, "%s\n", object.to_json().c_str());
    } else if (o.timing) {
        char text[64];
        std::snprintf(text, sizeof(text), "first instruction after %.2f ms", first);
        terminal.tell(text);
        if (resident != 0) {
            std::snprintf(text, sizeof(text), "all memory there after %.2f ms", resident);
            terminal.tell(text);
        }
    }
    return outcome.status;
}

} // namespace nestor::cli
