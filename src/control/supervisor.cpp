// The loop of a running machine.
//
// Owns the slices and the pacing. A slice is as long as keeps the console lively; its length
// depends on the host and changes nothing in the machine, because where a run is cut changes
// nothing. Guest time is paced here and not in the machine, by inputs (DESIGN.md, rule 2).
#include "src/control/supervisor.hpp"

#include <algorithm>
#include <csignal>

#include <poll.h>
#include <unistd.h>

namespace nestor::control {
namespace {

using namespace std::chrono_literals;

constexpr u64 first_slice = 1'000'000;
constexpr u64 min_slice = 20'000;
constexpr u64 max_slice = 50'000'000;
constexpr auto slice_goal = 10ms;
/// What the guest does not read stays with whoever sends it.
constexpr u64 max_input_waiting = 64 << 10;
/// How often progress is looked at while nothing else happens.
constexpr int progress_ms = 100;
/// A machine that lags behind the host's clock by more did not run: it catches up by so much only.
constexpr u64 max_lag = 1'000'000'000;
/// The longest wait of an idle machine, in ticks.
constexpr u64 max_wait = 250'000'000;

constexpr std::string_view signal_name(int signal) {
    switch (signal) {
    case SIGINT:
        return "SIGINT";
    case SIGTERM:
        return "SIGTERM";
    case SIGHUP:
        return "SIGHUP";
    default:
        return "a signal";
    }
}

} // namespace

const char* to_text(Outcome::Kind kind) {
    constexpr const char* names[] = {"powered-off", "debug-exit", "reached", "quit", "stopped"};
    return names[static_cast<std::size_t>(kind)];
}

Supervisor::Supervisor(Keeper& keeper, Plan plan, Console& console,
                       std::optional<Listener> listener)
    : keeper_(keeper), machine_(keeper.machine()), plan_(std::move(plan)), console_(console),
      listener_(std::move(listener)), paused_(plan_.paused),
      until_pending_(plan_.until.kind != Event::Kind::never),
      first_pending_(static_cast<bool>(plan_.on_first_instruction)), slice_(first_slice) {
    if (plan_.digest_every != 0) {
        const u64 now = machine_.count().value();
        next_digest_ = (now / plan_.digest_every + 1) * plan_.digest_every;
    }
    machine_.set_serial_sink([this](std::span<const u8> bytes) {
        if (const Result<> done = console_.write(bytes); !done && !error_) {
            error_ = done.error();
        }
    });
}

Supervisor::~Supervisor() { machine_.set_serial_sink({}); }

Result<Outcome> Supervisor::run() {
    TRY(keeper_.take_over(plan_.name + ", process " + std::to_string(::getpid())));
    start_pacing();
    while (!outcome_ && !error_) {
        look_outside();
        look_after_live_save();
        if (!outcome_ && !error_ && !paused_) {
            if (auto done = run_slice(); !done && !error_) {
                error_ = done.error();
            }
            if (auto done = console_.flush(); !done && !error_) {
                error_ = done.error();
            }
        }
        look_after_pages();
    }
    if (live_) {
        if (error_) {
            keeper_.live()->interrupt();
        }
        end_live_save();
    }
    if (error_) {
        return Failure(*error_);
    }
    return *outcome_;
}

/// Keeps the background reader of a lazy restore going.
void Supervisor::look_after_pages() {
    if (!keeper_.lazy() || error_) {
        return;
    }
    if (auto done = keeper_.prefetch(); !done) {
        error_ = done.error();
    } else if (!keeper_.lazy() && plan_.on_resident) {
        plan_.on_resident();
    }
}

/// True: the machine asked for a page and can go on.
Result<bool> Supervisor::serve_page(const machine::Stop& stop) {
    if (stop.kind == machine::Stop::Kind::page_needed) {
        TRY(keeper_.fill_page(stop.page));
        return true;
    }
    if (stop.kind == machine::Stop::Kind::copy_needed) {
        keeper_.live()->release(stop.page);
        return true;
    }
    return false;
}

/// Runs the machine and serves its requests for pages, without looking outside in between as long
/// as that does not take long, nor in the middle of an instruction.
Result<machine::Stop> Supervisor::run_machine() {
    const machine::RunLimits until = limits();
    const Clock::time_point end = Clock::now() + slice_goal;
    for (;;) {
        const machine::Stop stop = machine_.run(until);
        const bool served = TRY(serve_page(stop));
        if (!served || (Clock::now() > end && !machine_.in_instruction())) {
            return stop;
        }
    }
}

Result<> Supervisor::run_slice() {
    if (plan_.realtime) {
        pace();
    }
    const Clock::time_point start = Clock::now();
    const u64 before = machine_.count().value();
    const machine::Stop stop = TRY(run_machine());
    const u64 done = machine_.count().value() - before;
    if (done >= slice_ / 2) {
        adapt_slice(Clock::now() - start);
    }
    if (first_pending_ && done != 0) {
        first_pending_ = false;
        plan_.on_first_instruction();
    }
    wait_ms_ = 0;
    return handle(stop);
}

void Supervisor::adapt_slice(Clock::duration took) {
    if (took > 2 * slice_goal) {
        slice_ = std::max(slice_ / 2, min_slice);
    } else if (took < slice_goal / 2) {
        slice_ = std::min(slice_ * 2, max_slice);
    }
}

machine::RunLimits Supervisor::limits() const {
    machine::RunLimits limits;
    const u64 now = machine_.count().value();
    u64 until = now + (first_pending_ ? 1 : slice_);
    if (next_digest_ != 0) {
        until = std::min(until, next_digest_);
    }
    if (until_pending_) {
        switch (plan_.until.kind) {
        case Event::Kind::icount:
            until = std::min(until, plan_.until.value);
            break;
        case Event::Kind::seconds:
            limits.until_ticks = Ticks(plan_.until.value);
            break;
        case Event::Kind::serial:
            limits.until_serial = plan_.until.text;
            break;
        case Event::Kind::l2:
            limits.until_l2 = true;
            break;
        case Event::Kind::never:
            break;
        }
    }
    limits.until = Icount(until);
    limits.stop_when_idle = plan_.realtime;
    return limits;
}

Result<> Supervisor::handle(const machine::Stop& stop) {
    using Kind = machine::Stop::Kind;
    switch (stop.kind) {
    case Kind::count: {
        const u64 now = machine_.count().value();
        if (now == next_digest_) {
            next_digest_ += plan_.digest_every;
            plan_.on_digest(Icount(now), TRY(keeper_.digest()).machine);
        }
        const bool here = until_pending_ && plan_.until.kind == Event::Kind::icount;
        return here && now >= plan_.until.value ? reached() : Result<>{};
    }
    case Kind::ticks:
    case Kind::serial_text:
    case Kind::l2:
        return reached();
    case Kind::idle:
        if (plan_.realtime && stop.next_deadline > machine_.ticks()) {
            const u64 ns = std::min(stop.next_deadline - machine_.ticks(), max_wait);
            wait_ms_ = static_cast<int>((ns + 999'999) / 1'000'000);
        } else if (!plan_.realtime && stop.next_deadline.value() >= u64{1} << 62) {
            wait_ms_ = -1; // no timer runs: only input can go on
        }
        return {};
    case Kind::halted:
        return fail(ErrorCode::failed,
                    "every vCPU of " + plan_.name +
                        " is halted with interrupts off: the machine cannot go on",
                    "look at it with: vm run … --until icount:" +
                        std::to_string(machine_.count().value()) + " --save TAG");
    case Kind::powered_off:
        outcome_ = Outcome{Outcome::Kind::powered_off, 0};
        return ended_early("it powered off at count " + std::to_string(machine_.count().value()));
    case Kind::debug_exit:
        outcome_ = Outcome{Outcome::Kind::debug_exit, stop.exit_status};
        return {};
    case Kind::reset:
    case Kind::triple_fault:
        return reset(stop);
    case Kind::page_needed:
    case Kind::copy_needed:
        return {}; // served already
    }
    return {};
}

/// A guest that ends before the event it was run for has failed its user.
Result<> Supervisor::ended_early(const std::string& how) const {
    if (!until_pending_) {
        return {};
    }
    return fail(ErrorCode::failed, "--until " + to_text(plan_.until) + " did not come: " + how,
                plan_.then == Plan::Then::save ? "nothing was saved" : "");
}

Result<> Supervisor::reached() {
    until_pending_ = false;
    TRY(console_.flush());
    switch (plan_.then) {
    case Plan::Then::stop:
        outcome_ = Outcome{Outcome::Kind::reached, 0};
        return {};
    case Plan::Then::pause:
        set_paused(true);
        console_.tell("paused at count " + std::to_string(machine_.count().value()) +
                      "; go on with: vm resume " + plan_.name);
        return {};
    case Plan::Then::save: {
        if (live_) {
            end_live_save();
        }
        SaveOptions options;
        options.tag = plan_.tag;
        options.replace = plan_.replace;
        options.goes_on = false;
        TRY(save_now(plan_.store, options), "saving " + plan_.tag);
        outcome_ = Outcome{Outcome::Kind::reached, 0};
        return {};
    }
    }
    return {};
}

Result<> Supervisor::reset(const machine::Stop& stop) {
    const bool fault = stop.kind == machine::Stop::Kind::triple_fault;
    const std::string what = std::string(fault ? "a triple fault" : "the guest") +
                             " reset the machine at count " +
                             std::to_string(machine_.count().value());
    if (plan_.no_reboot || !keeper_.can_reset()) {
        const std::string ended =
            what + (plan_.no_reboot ? ", and --no-reboot was given"
                                    : ", and nothing was kept of what it was booted from");
        TRY(ended_early(ended));
        return fail(ErrorCode::failed, ended);
    }
    console_.tell(what + "; booting again");
    TRY(keeper_.reset(), what);
    return {};
}

void Supervisor::start_pacing() {
    pace_start_ = Clock::now();
    pace_ticks_ = machine_.ticks().value();
}

/// Lets guest time follow the host's clock: ahead waits, behind is advanced.
void Supervisor::pace() {
    const auto host = static_cast<u64>(
        std::chrono::duration_cast<std::chrono::nanoseconds>(Clock::now() - pace_start_).count());
    const u64 guest = machine_.ticks().value() - pace_ticks_;
    if (host > guest) {
        machine_.input(machine::AdvanceTicks{std::min(host - guest, max_lag)});
        if (host - guest > max_lag) {
            start_pacing();
        }
    } else if (guest - host > 2'000'000) {
        ::usleep(static_cast<useconds_t>(std::min<u64>((guest - host) / 1000, 20'000)));
    }
}

void Supervisor::set_paused(bool paused) {
    if (paused_ && !paused) {
        start_pacing();
    }
    paused_ = paused;
}

void Supervisor::look_outside() {
    const bool takes_input = machine_.serial_input_waiting() < max_input_waiting;
    const LiveSave* const live = keeper_.live();
    std::vector<pollfd> fds = {{console_.signal_fd(), POLLIN, 0},
                               {takes_input ? console_.input_fd() : -1, POLLIN, 0},
                               {listener_ ? listener_->fd() : -1, POLLIN, 0},
                               {live != nullptr ? live->fd() : -1, POLLIN, 0}};
    const std::size_t first_client = fds.size();
    for (const Client& client : clients_) {
        fds.push_back({client.fd.get(), POLLIN, 0});
    }
    int wait = paused_ ? -1 : wait_ms_;
    if (live != nullptr || keeper_.lazy()) {
        wait = wait < 0 ? progress_ms : std::min(wait, progress_ms);
    }
    if (::poll(fds.data(), fds.size(), wait) <= 0) {
        return;
    }
    if (fds[0].revents != 0 || fds[1].revents != 0) {
        take_console(fds[1].revents != 0);
    }
    for (std::size_t i = 0; i < clients_.size(); ++i) {
        if (fds[i + first_client].revents != 0) {
            serve(clients_[i]);
        }
    }
    std::erase_if(clients_, [](const Client& client) { return !client.fd.valid(); });
    if (fds[2].revents != 0) {
        accept_clients();
    }
}

void Supervisor::take_console(bool input_ready) {
    const ConsoleInput in = console_.take(input_ready);
    if (!in.bytes.empty()) {
        machine_.input(machine::SerialInput{in.bytes});
    }
    if (in.status) {
        console_.tell(plan_.name + " " + (paused_ ? "paused" : "running") + ", count " +
                      std::to_string(machine_.count().value()) + ", " +
                      std::to_string(machine_.ticks().value() / 1'000'000) + " ms of guest time");
    }
    if (in.quit) {
        outcome_ = Outcome{Outcome::Kind::quit, 0};
    } else if (in.signal != 0) {
        error_ = Error{ErrorCode::failed,
                       "stopped by " + std::string(signal_name(in.signal)) + " at count " +
                           std::to_string(machine_.count().value()),
                       ""};
    }
}

} // namespace nestor::control
