// vm pause, vm resume, vm stop: short requests to a running machine.
#include <memory>

#include "src/cli/verbs.hpp"

namespace nestor::cli {

namespace {

struct MachineVerb {
    std::string name;
    std::string socket;
    bool power_button = false;
    bool json = false;
};

Result<int> tell_machine(const std::string& verb, const MachineVerb& o) {
    const control::Request request{.verb = o.power_button ? "power_button" : verb, .arguments = {}};
    const control::Object done = TRY(ask_machine(o.name, o.socket, request));
    if (o.json) {
        print_line(done.to_json());
    } else {
        const std::string now = o.power_button     ? "was asked to shut down"
                                : verb == "pause"  ? "is paused"
                                : verb == "resume" ? "runs"
                                                   : "is stopped";
        print_line(o.name + " " + now + ", count " + std::to_string(done.number("count")));
    }
    return 0;
}

} // namespace

void add_machine_verbs(CLI::App& app, int& status) {
    constexpr const char* verbs[][3] = {
        {"pause", "Let a machine stand still between two instructions", "vm pause web"},
        {"resume", "Let a paused machine run on", "vm resume web"},
        {"stop", "End a machine; what was not saved is lost", "vm stop web"}};
    for (const auto& [name, description, example] : verbs) {
        auto o = std::make_shared<MachineVerb>();
        CLI::App* const verb = add_verb(app, name, description, example, o->json);
        add_argument(verb, "name", o->name, "Machine");
        add_option(verb, "--socket", o->socket,
                   "Path of its control socket, where its name does not lead to it");
        if (std::string(name) == "stop") {
            add_flag(verb, "--power-button", o->power_button,
                     "Ask the guest's operating system to shut down instead");
        }
        on_chosen(verb, status, o->json,
                  [o, n = std::string(name)] { return tell_machine(n, *o); });
    }
}

} // namespace nestor::cli
