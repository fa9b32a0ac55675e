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
        clients_.push_back({std::move(*fd), {}});
    }
}

void Supervisor::serve(Client& client) {
    const bool open = client.reader.fill(client.fd.get());
    while (const auto text = client.reader.next()) {
        const Result<Request> request = decode_request(*text);
        Result<Object> done =
            request ? answer(*request, client) : Result<Object>(Failure(request.error()));
        const Reply reply = done ? Reply{Reply::Kind::ok, *std::move(done)}
                                 : Reply{Reply::Kind::error, error_object(done.error())};
        if (!send_message(client.fd.get(), encode(reply))) {
            client.fd.reset();
            return;
        }
    }
    if (!open) {
        client.fd.reset();
    }
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
    return object;
}

Result<Object> Supervisor::answer(const Request& request, const Client& client) {
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
        const auto contract = encode_contract(TRY(contract_of(machine_.config())));
        Object object;
        object.add("count", machine_.count().value())
            .add("machineDigest", to_hex(digests.machine))
            .add("guestDigest", to_hex(TRY(guest_digest(contract, units, digests.memory_root))))
            .add("memoryRoot", to_hex(digests.memory_root));
        return object;
    }
    if (request.verb == "save") {
        return save(request.arguments, client);
    }
    return fail(ErrorCode::usage, "a machine does not know the verb '" + request.verb + "'");
}

Result<Object> Supervisor::save(const Object& arguments, const Client& client) {
    const std::string after = arguments.text("after");
    if (!after.empty() && after != "resume" && after != "pause" && after != "stop") {
        return fail(ErrorCode::usage, "--after " + after + ": there is no such thing to do",
                    "write resume, pause or stop");
    }
    SaveOptions options;
    options.tag = arguments.text("tag");
    options.replace = arguments.flag("replace");
    options.goes_on = after != "stop";
    auto last = Clock::now();
    options.progress = [&client, last](u64 done, u64 total) mutable {
        if (Clock::now() - last < std::chrono::milliseconds(100)) {
            return true;
        }
        last = Clock::now();
        Reply reply{Reply::Kind::progress, {}};
        reply.body.add("done", done).add("total", total);
        return send_message(client.fd.get(), encode(reply)).has_value();
    };
    const std::string store = arguments.text("store");
    TRY(console_.flush());
    Object done = TRY(save_now(store.empty() ? plan_.store : store, options));
    if (after == "stop") {
        outcome_ = Outcome{Outcome::Kind::stopped, 0};
    } else if (!after.empty()) {
        set_paused(after == "pause");
    } else {
        start_pacing();
    }
    return done;
}

} // namespace nestor::control
