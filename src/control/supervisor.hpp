// Runs one machine until it ends, and serves console, signals and control socket meanwhile.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "src/control/channel.hpp"
#include "src/control/console.hpp"
#include "src/control/event.hpp"
#include "src/control/keeper.hpp"

namespace nestor::control {

/// What a run is asked to do.
struct Plan {
    enum class Then { stop, save, pause };

    std::string name;
    std::string store; ///< where saves go that name no store
    Event until;
    Then then = Then::stop; ///< once `until` has come
    std::string tag;        ///< with Then::save
    bool replace = false;
    bool realtime = false; ///< pace guest time by the host's clock
    bool paused = false;   ///< begin paused
    u64 digest_every = 0;  ///< instructions; 0 for never
    std::function<void(Icount, const Digest&)> on_digest;
    std::function<void()> on_first_instruction;
    /// Boots the machine again after a reset. Empty: a reset ends the run.
    std::function<Result<>(machine::Machine&)> boot_again;
    std::string why_no_boot; ///< what to tell where boot_again is empty
};

/// How a run ended well. The status is 0 or the guest's own.
struct Outcome {
    enum class Kind { powered_off, debug_exit, reached, quit, stopped };
    Kind kind = Kind::powered_off;
    int status = 0;
};
[[nodiscard]] const char* to_text(Outcome::Kind kind);

/// One thread does everything: it runs the machine in slices and looks outside between them. What
/// comes in enters through Machine::input.
class Supervisor final {
public:
    Supervisor(Keeper& keeper, Plan plan, Console& console, std::optional<Listener> listener);
    ~Supervisor();

    /// Errors: a reset or a halt that nothing can end, a signal, a full disk, a lost console, a
    /// damaged snapshot behind a lazy restore.
    [[nodiscard]] Result<Outcome> run();

private:
    using Clock = std::chrono::steady_clock;
    struct Client {
        Fd fd;
        MessageReader reader;
    };

    void look_outside();
    void take_console(bool input_ready);
    void accept_clients();
    void serve(Client& client);
    [[nodiscard]] Result<Object> answer(const Request& request, const Client& client);
    [[nodiscard]] Result<Object> save(const Object& arguments, const Client& client);
    [[nodiscard]] Object status() const;
    [[nodiscard]] Result<Object> save_now(const std::string& store_directory,
                                          const SaveOptions& options);
    void set_paused(bool paused);

    [[nodiscard]] machine::RunLimits limits() const;
    [[nodiscard]] Result<> run_slice();
    [[nodiscard]] Result<> handle(const machine::Stop& stop);
    [[nodiscard]] Result<> reached();
    [[nodiscard]] Result<> reset(const machine::Stop& stop);
    [[nodiscard]] Result<> ended_early(const std::string& how) const;
    void start_pacing();
    void pace();
    void adapt_slice(Clock::duration took);

    Keeper& keeper_;
    machine::Machine& machine_;
    Plan plan_;
    Console& console_;
    std::optional<Listener> listener_;
    std::vector<Client> clients_;

    bool paused_ = false;
    bool until_pending_ = false;
    bool first_pending_ = false;
    std::optional<Outcome> outcome_;
    std::optional<Error> error_;
    u64 slice_;
    u64 next_digest_ = 0;
    int wait_ms_ = 0; ///< how long the next look outside may take; -1: until something comes
    Clock::time_point pace_start_;
    u64 pace_ticks_ = 0;
};

} // namespace nestor::control
