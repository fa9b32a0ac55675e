// vm run: makes a machine, boots a kernel in it and connects its serial port.
#include <memory>

#include "src/base/log.hpp"
#include "src/cli/session.hpp"
#include "src/cli/verbs.hpp"
#include "src/machine/machine.hpp"

namespace nestor::cli {

namespace {

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
    SessionOptions session;
};

Result<std::vector<snapshot::Images::File>> read_images(const RunOptions& o) {
    using snapshot::ImageBytes;
    using snapshot::ImageKind;
    std::vector<snapshot::Images::File> images;
    auto kernel = TRY(ImageBytes::read(o.kernel, snapshot::max_image_bytes), "kernel");
    const u64 left = snapshot::max_image_bytes - kernel->size();
    images.push_back({ImageKind::kernel, o.kernel, false, o.append, std::move(kernel)});
    if (!o.initrd.empty()) {
        auto initrd = TRY(ImageBytes::read(o.initrd, left), "initrd");
        images.push_back({ImageKind::module, o.initrd, false, "", std::move(initrd)});
    }
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
    std::vector<snapshot::Images::File> images = TRY(read_images(o));
    TRY(keeper.boot(std::move(images)), "loading the kernel");
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
    add_choice(verb, "--engine", o->engine, {"soft", "kvm"},
               "soft or kvm (kvm: not in this build)");
    add_option(verb, "--seed", o->seed, "Seed of the guest's random numbers");
    add_choice(verb, "--apicv", o->apicv, {"on", "off"},
               "off: run without APIC virtualization; no guest sees the difference");
    add_choice(verb, "--clock", o->session.clock, {"virtual", "realtime"},
               "virtual: idle time passes at once; realtime: guest time follows the host's");
    add_session_options(verb, o->session);
    on_chosen(verb, status, o->session.json, [o] { return run(*o); });
}

} // namespace nestor::cli
