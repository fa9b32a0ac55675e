// vm debug: switches of a running machine for whoever debugs what runs in it.
#include <memory>

#include "src/cli/verbs.hpp"

namespace nestor::cli {

namespace {

struct DebugVerb {
    std::string name;
    std::string socket;
    std::string block_irq;
    std::string apicv;
    bool json = false;
};

Result<int> debug(const DebugVerb& o) {
    control::Request request{.verb = "debug", .arguments = {}};
    request.arguments.add("block-irq", o.block_irq).add("apicv", o.apicv);
    const control::Object done = TRY(ask_machine(o.name, o.socket, request));
    if (o.json) {
        print_line(done.to_json());
    } else {
        print_line(o.name + " at count " + std::to_string(done.number("count")) + ": interrupts " +
                   (done.flag("blockIrq") ? "wait" : "are delivered") +
                   ", APIC virtualization is " + (done.flag("apicv") ? "allowed" : "off"));
    }
    return 0;
}

} // namespace

void add_debug(CLI::App& app, int& status) {
    auto o = std::make_shared<DebugVerb>();
    CLI::App* const verb =
        add_verb(app, "debug", "Switches of a running machine; without any, tells how they are",
                 "vm debug web --block-irq on", o->json);
    add_argument(verb, "name", o->name, "Machine");
    add_option(verb, "--socket", o->socket,
               "Path of its control socket, where its name does not lead to it");
    add_choice(verb, "--block-irq", o->block_irq, {"on", "off"},
               "on: NMIs, SMIs and interrupts wait until it is off again");
    add_choice(verb, "--apicv", o->apicv, {"on", "off"},
               "off: vmcs01 runs without APIC virtualization; no guest sees the difference");
    on_chosen(verb, status, o->json, [o] { return debug(*o); });
}

} // namespace nestor::cli
