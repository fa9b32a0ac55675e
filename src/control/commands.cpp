// What a running machine answers on its control socket: the other half of class Supervisor.
//
// Owns the verbs. A peer is somebody of the same user, but its bytes are not trusted: messages are
// bounded, peers are few, and a request that makes no sense is answered with an error.
#include <algorithm>

#include <unistd.h>

#include "src/control/contract.hpp"
#include "src/control/supervisor.hpp"

namespace nestor::control {
namespace {

constexpr std::size_t max_clients = 16;

} // namespace

void Supervisor::accept_clients() {
    while (auto fd = listener_->accept()) {
        if (clients_.size() == max_clients) {
            clients_.erase(clients_.begin());
        }
        clients_.push_back({std::move(*fd), {}, ++next_client_});
    }
}

void Supervisor::serve(Client& client) {
    const bool open = client.reader.fill(client.fd.get());
    while (const auto text = client.reader.next()) {
        const Result<Request> request = decode_request(*text);
        if (!request) {
            reply(client, Failure(request.error()));
            continue;
        }
        const Result<std::optional<Object>> done = answer(*request, client);
        if (!done) {
            reply(client, Failure(done.error()));
        } else if (*done) {
            reply(client, **done);
        }
        if (!client.fd.valid()) {
            return;
        }
    }
    if (!open) {
        client.fd.reset();
    }
}

/// Ends the connection of a client that does not take it.
void Supervisor::reply(Client& client, const Result<Object>& done) const {
    const Reply message = done ? Reply{Reply::Kind::ok, *done}
                               : Reply{Reply::Kind::error, error_object(done.error())};
    if (!send_message(client.fd.get(), encode(message))) {
        client.fd.reset();
    }
}

/// Null where it is gone.
Supervisor::Client* Supervisor::find_client(u64 number) {
    const auto found = std::find_if(clients_.begin(), clients_.end(), [number](const Client& c) {
        return c.number == number && c.fd.valid();
    });
    return found == clients_.end() ? nullptr : &*found;
}

Object Supervisor::status() const {
    const state::MachineConfig& config = machine_.config();
    Object object;
    object.add("name", plan_.name)
        .add("state", paused_ ? "paused" : "running")
        .add("pid", static_cast<u64>(::getpid()))
        .add("count", machine_.count().value())
        .add("ticks", machine_.ticks().value())
        .add("cpus", u64{config.cpus})
        .add("memory", config.memory)
        .add("engine", "soft")
        .add("clock", plan_.realtime ? "realtime" : "virtual");
    if (live_) {
        object.add("saving", live_->tag);
    }
    return object;
}

namespace {

/// "on", "off", or nothing to leave it.
Result<std::optional<bool>> switch_of(const Object& arguments, const std::string& option) {
    const std::string word = arguments.text(option);
    if (word.empty()) {
        return std::optional<bool>();
    }
    if (word != "on" && word != "off") {
        return fail(ErrorCode::usage, "--" + option + " " + word + ": there is no such choice",
                    "write on or off");
    }
    return std::optional(word == "on");
}

} // namespace

Result<Object> Supervisor::debug(const Object& arguments) {
    const auto block = TRY(switch_of(arguments, "block-irq"));
    const auto apicv = TRY(switch_of(arguments, "apicv"));
    if (block) {
        machine_.input(machine::BlockInterrupts{*block});
    }
    if (apicv) {
        machine_.input(machine::UseApicv{*apicv});
    }
    const state::ApicvInhibits& inhibits = machine_.schedule().inhibits;
    Object object;
    object.add("count", machine_.count().value())
        .add("blockIrq", inhibits.block_irq)
        .add("apicv", !inhibits.disabled);
    return object;
}

Result<std::optional<Object>> Supervisor::answer(const Request& request, const Client& client) {
    if (request.verb == "status") {
        return status();
    }
    if (request.verb == "pause" || request.verb == "resume") {
        set_paused(request.verb == "pause");
        return status();
    }
    if (request.verb == "stop") {
        outcome_ = Outcome{Outcome::Kind::stopped, 0};
        return status();
    }
    if (request.verb == "power_button") {
        machine_.input(machine::PowerButton{});
        return status();
    }
    if (request.verb == "digest") {
        const Digests digests = TRY(keeper_.digest());
        const auto units = to_snapshot(machine_.units());
        Object object;
        object.add("count", machine_.count().value())
            .add("machineDigest", to_hex(digests.machine))
            .add("guestDigest", to_hex(TRY(guest_digest(keeper_.contract(), units,
                                                        digests.memory_root, digests.images))))
            .add("memoryRoot", to_hex(digests.memory_root));
        return object;
    }
    if (request.verb == "debug") {
        return debug(request.arguments);
    }
    if (request.verb == "save") {
        return save(request.arguments, client);
    }
    return fail(ErrorCode::usage, "a machine does not know the verb '" + request.verb + "'");
}

} // namespace nestor::control
