// How a running machine is saved: the part of class Supervisor between control socket and Keeper.
//
// Owns what is told of a save, and the one live save: who asked for it, and that its end is told. A
// client that goes away interrupts the save it asked for; the machine runs on whatever becomes of
// it.
#include "src/control/supervisor.hpp"

namespace nestor::control {
namespace {

constexpr std::chrono::milliseconds progress_interval{100};

double milliseconds(std::chrono::steady_clock::duration time) {
    return std::chrono::duration<double, std::milli>(time).count();
}

Object told(const std::string& tag, const std::string& store, Icount count,
            const snapshot::SaveReport& report) {
    Object object;
    object.add("tag", tag)
        .add("store", store)
        .add("count", count.value())
        .add("machineDigest", to_hex(report.machine_digest))
        .add("manifest", to_hex(report.manifest))
        .add("parent", report.parent)
        .add("pages", report.pages)
        .add("dirtyPages", report.dirty_pages)
        .add("newPages", report.new_pages)
        .add("newImagePages", report.new_image_pages)
        .add("bytesWritten", report.bytes_written)
        .add("milliseconds", report.total_ms);
    return object;
}

bool send_progress(int fd, u64 done, u64 total) {
    Reply reply{Reply::Kind::progress, {}};
    reply.body.add("done", done).add("total", total);
    return send_message(fd, encode(reply)).has_value();
}

/// "" is the first of `words`.
Result<std::string> one_of(const Object& arguments, const std::string& option,
                           std::initializer_list<const char*> words) {
    const std::string given = arguments.text(option);
    std::string all;
    for (const char* const word : words) {
        if (given.empty() || given == word) {
            return std::string(word);
        }
        all += (all.empty() ? "" : ", ") + std::string(word);
    }
    return fail(ErrorCode::usage, "--" + option + " " + given + ": there is no such choice",
                "write one of " + all);
}

} // namespace

Result<Object> Supervisor::save_now(const std::string& store_directory,
                                    const SaveOptions& options) {
    auto store = TRY(snapshot::Store::open(store_directory, snapshot::Store::Mode::create));
    SaveOptions named = options;
    named.machine = plan_.name;
    const auto report = TRY(keeper_.save(store, named));
    return told(options.tag, store.directory(), machine_.count(), report)
        .add("mode", "stop")
        .add("pauseMs", keeper_.pause_ms());
}

Result<std::optional<Object>> Supervisor::save(const Object& arguments, const Client& client) {
    std::string after = TRY(one_of(arguments, "after", {"resume", "pause", "stop"}));
    if (arguments.text("after").empty() && paused_) {
        after = "pause"; // as it is
    }
    const std::string mode = TRY(one_of(arguments, "mode", {"stop", "live"}));
    SaveOptions options;
    options.tag = arguments.text("tag");
    options.parent = arguments.text("parent").empty() ? "auto" : arguments.text("parent");
    options.replace = arguments.flag("replace");
    options.goes_on = after != "stop";
    options.clone_forbidden = arguments.flag("cloneForbidden");
    if (options.clone_forbidden && options.goes_on) {
        return fail(ErrorCode::usage,
                    "--no-clones: this machine goes on, so that nothing could be made of the "
                    "snapshot but another one",
                    "save it with --after stop, or without --no-clones");
    }
    const std::string durability = TRY(one_of(arguments, "durability", {"commit", "deferred"}));
    if (durability == "deferred") {
        options.durability = snapshot::Durability::deferred;
    }
    const std::string store =
        arguments.text("store").empty() ? plan_.store : arguments.text("store");
    TRY(console_.flush());
    if (mode == "live") {
        if (after == "stop") {
            return fail(ErrorCode::usage,
                        "--mode live --after stop: a machine that is to stop need not run on",
                        "leave one of them out");
        }
        TRY(begin_live_save(store, options, client));
        set_paused(after == "pause");
        return std::optional<Object>();
    }
    options.progress = [&client, last = Clock::now()](u64 done, u64 total) mutable {
        if (Clock::now() - last < progress_interval) {
            return true;
        }
        last = Clock::now();
        return send_progress(client.fd.get(), done, total);
    };
    Object done = TRY(save_now(store, options));
    if (after == "stop") {
        outcome_ = Outcome{Outcome::Kind::stopped, 0};
    } else {
        set_paused(after == "pause");
        start_pacing();
    }
    return std::optional(std::move(done));
}

// --- live saves ---------------------------------------------------------------------------------

Result<> Supervisor::begin_live_save(const std::string& store, const SaveOptions& options,
                                     const Client& client) {
    SaveOptions named = options;
    named.machine = plan_.name;
    TRY(keeper_.begin_live_save(store, named));
    live_ = LiveRequest{options.tag, store, client.number, machine_.count(), Clock::now()};
    return {};
}

/// Tells its progress to whoever asked, and its end.
void Supervisor::look_after_live_save() {
    if (!live_) {
        return;
    }
    LiveSave& save = *keeper_.live();
    if (save.ended()) {
        end_live_save();
        return;
    }
    Client* const client = find_client(live_->client);
    if (client == nullptr) {
        save.interrupt();
        return;
    }
    if (Clock::now() - live_->told >= progress_interval) {
        live_->told = Clock::now();
        const LiveSave::Progress p = save.progress();
        if (!send_progress(client->fd.get(), p.done, p.total)) {
            client->fd.reset();
        }
    }
}

/// Waits for it, where it has not ended yet.
void Supervisor::end_live_save() {
    const LiveRequest request = *std::exchange(live_, std::nullopt);
    LiveSave& save = *keeper_.live();
    save.wait();
    const double stalled = milliseconds(save.stalled());
    const u64 copied = save.copied_pages();
    const auto report = keeper_.finish_live_save();
    Client* const client = find_client(request.client);
    if (client == nullptr) {
        console_.tell("the live save of " + request.tag +
                      (report ? " is complete" : " failed: " + report.error().message));
    } else if (!report) {
        reply(*client, Failure(report.error()));
    } else {
        reply(*client, told(request.tag, request.store, request.count, *report)
                           .add("mode", "live")
                           .add("pauseMs", keeper_.pause_ms())
                           .add("stalledMs", stalled)
                           .add("copiedPages", copied)
                           .add("loggedPages", keeper_.logged_pages()));
    }
}

} // namespace nestor::control
