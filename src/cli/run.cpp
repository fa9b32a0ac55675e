// vm run: makes a machine, boots a kernel in it and connects its serial port.
#include <memory>

#include "src/base/fd.hpp"
#include "src/base/log.hpp"
#include "src/cli/session.hpp"
#include "src/cli/verbs.hpp"
#include "src/machine/machine.hpp"

namespace nestor::cli {

namespace {

constexpr std::size_t max_image = std::size_t{4} << 30;

struct RunOptions {
    std::string kernel;
    std::string initrd;
    std::string append;
    std::string memory = "512M";
    std::string cpus = "1";
    std::string cpu_model = "nestor-v1";
    std::string engine = "soft";
    std::string seed;
    std::string apicv = "on";
    bool no_reboot = false;
    SessionOptions session;
};

/// Files of a boot, kept for the next one.
struct Images {
    std::vector<std::byte> kernel;
    std::vector<std::byte> initrd;
    machine::BootImages boot;
};

machine::BootFile boot_file(const std::string& name, const std::vector<std::byte>& bytes) {
    return {name, std::span(reinterpret_cast<const u8*>(bytes.data()), bytes.size())};
}

Result<std::shared_ptr<Images>> read_images(const RunOptions& o) {
    auto images = std::make_shared<Images>();
    images->kernel = TRY(read_file(o.kernel, max_image), "kernel");
    images->boot.kernel = boot_file(o.kernel, images->kernel);
    if (!o.initrd.empty()) {
        images->initrd = TRY(read_file(o.initrd, max_image), "initrd");
        images->boot.modules.push_back(boot_file(o.initrd, images->initrd));
    }
    images->boot.command_line = o.append;
    return images;
}

Result<state::MachineConfig> make_config(const RunOptions& o) {
    if (o.engine == "kvm") {
        return fail(ErrorCode::incompatible, "--engine kvm: it is not in this build",
                    "use --engine soft, which needs no /dev/kvm");
    }
    state::MachineConfig config;
    config.memory = TRY(parse_size("--memory", o.memory));
    config.cpus = static_cast<u16>(TRY(parse_number("--cpus", o.cpus, 0xffff)));
    config.cpu_model = o.cpu_model;
    config.board = machine::newest_board();
    if (!o.seed.empty()) {
        config.seed = TRY(parse_number("--seed", o.seed, ~u64{0}));
    }
    return config;
}

Result<int> run(const RunOptions& o) {
    const state::MachineConfig config = TRY(make_config(o));
    control::Plan plan = TRY(make_plan(o.session));
    control::Keeper keeper(TRY(machine::Machine::create(config)));
    TRY(keeper.begin_zero());
    keeper.machine().input(machine::UseApicv{o.apicv == "on"});
    const auto images = TRY(read_images(o));
    TRY(keeper.machine().boot(images->boot), "loading the kernel");
    if (!o.no_reboot) {
        plan.boot_again = [images](machine::Machine& m) { return m.reboot(images->boot); };
    }
    plan.why_no_boot = ", and --no-reboot was given";
    return run_session(keeper, o.session, std::move(plan));
}

} // namespace

void add_run(CLI::App& app, int& status) {
    auto o = std::make_shared<RunOptions>();
    CLI::App* const verb = add_verb(
        app, "run", "Boot a kernel in a new machine; its serial port is standard input and output",
        "vm run --kernel vmlinuz --initrd shell.cpio --append console=ttyS0 \\\n"
        "         --until 'serial:login:' --save booted\n"
        "Exit status 0 on power-off; ((v << 1) | 1) & 255 after a write of v to port 0xf4; 8 when\n"
        "the machine is halted for good, reset under --no-reboot, or ends before --until comes.",
        o->session.json);
    add_required_option(verb, "--kernel", o->kernel,
                        "bzImage, ELF with a PVH note, or multiboot kernel");
    add_option(verb, "--initrd", o->initrd, "Initial RAM disk");
    add_text_option(verb, "--append", o->append, "Kernel command line");
    add_option(verb, "--memory", o->memory, "RAM: a multiple of 4K from 2M to 64G");
    add_option(verb, "--cpus", o->cpus, "vCPUs: 1 to 16");
    add_option(verb, "--cpu-model", o->cpu_model, "CPU model");
    add_choice(verb, "--engine", o->engine, {"soft", "kvm"}, "soft or kvm");
    add_option(verb, "--seed", o->seed, "Seed of the guest's random numbers");
    add_choice(verb, "--apicv", o->apicv, {"on", "off"},
               "off: run without APIC virtualization; no guest sees the difference");
    add_flag(verb, "--no-reboot", o->no_reboot, "End with status 8 when the guest resets");
    add_choice(verb, "--clock", o->session.clock, {"virtual", "realtime"},
               "virtual: idle time passes at once; realtime: guest time follows the host's");
    add_session_options(verb, o->session);
    on_chosen(verb, status, o->session.json, [o] { return run(*o); });
}

} // namespace nestor::cli
