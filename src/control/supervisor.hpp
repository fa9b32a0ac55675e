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
    std::function<void()> on_resident; ///< all memory of a restored machine is there
    bool no_reboot = false;            ///< a reset ends the run
};

/// How a run ended well. The status is 0 or the guest's own.
struct Outcome {
    enum class Kind { powered_off, debug_exit, reached, quit, stopped };
    Kind kind = Kind::powered_off;
    int status = 0;
};
[[nodiscard]] const char* to_text(Outcome::Kind kind);

/// One thread does everything but reading and writing memory in the background: it runs the machine
/// in slices and looks outside between them. What comes in enters through Machine::input.
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
        u64 number = 0;
    };
    /// What has to be told once a live save has ended.
    struct LiveRequest {
        std::string tag;
        std::string store;
        u64 client = 0; ///< its number; it may be gone
        Icount count;   ///< where the machine stood
        Clock::time_point told;
    };

    void look_outside();
    void look_after_pages();
    void take_console(bool input_ready);
    void accept_clients();
    void serve(Client& client);
    void reply(Client& client, const Result<Object>& done) const;
    [[nodiscard]] Client* find_client(u64 number);
    /// Nothing: the reply comes later.
    [[nodiscard]] Result<std::optional<Object>> answer(const Request& request,
                                                       const Client& client);
    [[nodiscard]] Result<std::optional<Object>> save(const Object& arguments, const Client& client);
    [[nodiscard]] Result<> begin_live_save(const std::string& store, const SaveOptions& options,
                                           const Client& client);
    void look_after_live_save();
    void end_live_save();
    [[nodiscard]] Object status() const;
    [[nodiscard]] Result<Object> debug(const Object& arguments);
    [[nodiscard]] Result<Object> save_now(const std::string& store_directory,
                                          const SaveOptions& options);
    void set_paused(bool paused);

    [[nodiscard]] machine::RunLimits limits() const;
    [[nodiscard]] Result<> run_slice();
    [[nodiscard]] Result<machine::Stop> run_machine();
    [[nodiscard]] Result<bool> serve_page(const machine::Stop& stop);
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
    u64 next_client_ = 0;
    std::optional<LiveRequest> live_;

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
