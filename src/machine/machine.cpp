// Makes, boots and resets machines.
//
// Owns the parts: memory, board, silicon and vCPUs. What firmware would have done before the kernel
// starts is here: the tables in memory, and the MSRs and the local APIC's virtual-wire setting that
// operating systems expect to find (SDM 3A 11.5.1, MultiProcessor Specification 3.6.2.2).
#include "src/machine/machine.hpp"

#include <algorithm>
#include <cstring>

#include "engine/hypervisor/cpu_caps.hpp"
#include "engine/hypervisor/host_simd.hpp"
#include "src/base/bits.hpp"
#include "src/base/check.hpp"
#include "src/machine/acpi.hpp"
#include "src/machine/machine_impl.hpp"

namespace nestor::machine {
namespace {

// IA32_FEATURE_CONTROL: locked, VMX outside SMX (SDM 3C 24.7).
constexpr u64 feature_control_vmx = bit(0) | bit(2);
// IA32_MTRR_DEF_TYPE: enabled, write-back, no fixed ranges (SDM 3A 12.11.2.1).
constexpr u64 mtrr_write_back = bit(11) | 6;
// IA32_BIOS_SIGN_ID: the revision is in the high half.
constexpr u64 microcode_revision = u64{1} << 32;

// Local APIC registers by offset / 4 (SDM 3A 11.4.1).
constexpr unsigned apic_spurious = 0xf0 / 4;
constexpr unsigned apic_lint0 = 0x350 / 4;
constexpr unsigned apic_lint1 = 0x360 / 4;
constexpr u32 apic_enabled = 0x1ff;
constexpr u32 lvt_ext_int = 0x700;
constexpr u32 lvt_nmi = 0x400;

constexpr u64 bda_ebda_segment = 0x40e;
constexpr u64 bda_memory_kib = 0x413;

Result<> check_config(const state::MachineConfig& config) {
    const std::vector<Fault> faults = config_faults(config);
    if (faults.empty()) {
        return {};
    }
    const Fault& f = faults.front();
    const std::string name = f.path.substr(f.path.find('.') + 1);
    return fail(ErrorCode::usage, name + " " + f.need + ": this vm offers " + f.have);
}

/// Four words for a xoshiro generator out of one seed, by splitmix64.
std::array<u64, 4> generator_seed(u64 seed, u16 vcpu) {
    u64 x = seed + u64{vcpu} * 0x9e3779b97f4a7c15;
    std::array<u64, 4> words{};
    for (u64& word : words) {
        x += 0x9e3779b97f4a7c15;
        u64 z = x;
        z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
        z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
        word = z ^ (z >> 31);
    }
    return words;
}

/// The generation ID of a machine that is no copy of another.
device::VmGeneration::Id first_generation(u64 seed) {
    const std::array<u64, 4> words = generator_seed(seed, max_cpus);
    device::VmGeneration::Id id{};
    std::memcpy(id.data(), words.data(), id.size());
    return id;
}

Result<> change(hv::Vcpu& vcpu, const std::function<void(state::Vcpu&)>& edit) {
    state::Vcpu s = vcpu.save();
    edit(s);
    return vcpu.load(s);
}

Result<> write_firmware_tables(cpu::GuestMemory& guest, const state::MachineConfig& config) {
    const std::vector<u8> tables = acpi_tables(acpi_start, config.cpus, config.board);
    CHECK(tables.size() <= bios_end - acpi_start, {tables.size()});
    const u16 ebda = static_cast<u16>(ebda_start >> 4);
    const u16 kib = static_cast<u16>(ebda_start >> 10);
    const auto write16 = [&guest](u64 at, u16 value) {
        const u8 bytes[2] = {static_cast<u8>(value), static_cast<u8>(value >> 8)};
        return guest.write(Gpa(at), bytes) == cpu::MemoryStatus::ok;
    };
    const u8 ebda_kib = static_cast<u8>((0xa0000 - ebda_start) >> 10);
    const bool written = guest.write(Gpa(acpi_start), tables) == cpu::MemoryStatus::ok &&
                         write16(bda_ebda_segment, ebda) && write16(bda_memory_kib, kib) &&
                         write16(ebda_start, ebda_kib);
    return written ? Result<>{} : fail(ErrorCode::failed, "writing firmware tables");
}

} // namespace

Machine::Impl::Impl(const state::MachineConfig& machine_config, std::unique_ptr<Memory> backing)
    : config(machine_config), map(memory_map(machine_config.memory)), ram(std::move(backing)),
      board(std::make_unique<Board>(board_config(), *this)), served(machine_config.cpus, Ticks(0)) {
}

Board::Config Machine::Impl::board_config() const {
    return {.board = config.board,
            .tick_hz = config.tick_hz,
            .start_time = config.start_time,
            .memory = config.memory,
            .cpus = config.cpus,
            .generation = first_generation(config.seed),
            .memory_map = map};
}

Machine::Machine(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Machine::~Machine() = default;

Result<std::unique_ptr<Machine>> Machine::create(const state::MachineConfig& config,
                                                 const MachineOptions& options) {
    TRY(check_config(config));
    const auto models = options.cpu_models.empty() ? hv::cpu_models() : options.cpu_models;
    const hv::CpuModel* const model = hv::find_model(config.cpu_model, models);
    if (model == nullptr) {
        return hv::unknown_model(config.cpu_model, models);
    }
    std::vector<std::vector<state::CpuidEntry>> cpuid;
    for (u16 i = 0; i < config.cpus; ++i) {
        cpuid.push_back(hv::cpu_model_cpuid(*model, i, config.cpus));
        TRY(hv::check_cpuid(cpuid[i], {i, config.cpus}, hv::engine_offer()),
            "CPU model " + config.cpu_model);
    }
    TRY(hv::check_simd(hv::this_processor()));
    auto impl = std::make_unique<Impl>(config, TRY(Memory::create(config.memory)));
    impl->model = model;
    impl->package = std::make_unique<cpu::Package>(
        impl->ram->guest(), cpu::Package::Config{.features = hv::silicon_features(cpuid[0]),
                                                 .tlb_entries = options.tlb_entries});
    for (u16 i = 0; i < config.cpus; ++i) {
        impl->vcpus.push_back(
            std::make_unique<hv::Vcpu>(hv::Vcpu::Config{.index = VcpuIndex(i),
                                                        .vcpu_count = config.cpus,
                                                        .package = impl->package.get(),
                                                        .board = impl.get(),
                                                        .cpuid = cpuid[i],
                                                        .model = model}));
        TRY(change(*impl->vcpus.back(),
                   [&](state::Vcpu& s) { s.cpu.random = generator_seed(config.seed, i); }));
    }
    return std::unique_ptr<Machine>(new Machine(std::move(impl)));
}

Result<> Machine::boot(const BootImages& images) {
    Impl& m = *impl_;
    const Entry entry = TRY(load_kernel(m.ram->guest(), m.config.memory, images));
    TRY(write_firmware_tables(m.ram->guest(), m.config));
    m.package->forget_all();
    m.board->set_up_as_firmware();
    for (u16 i = 0; i < m.config.cpus; ++i) {
        TRY(change(*m.vcpus[i], [&](state::Vcpu& s) {
            s.msrs.feature_control = feature_control_vmx;
            s.msrs.mtrr_def_type = mtrr_write_back;
            s.msrs.microcode_revision = microcode_revision;
            if (i == 0) {
                s.lapic.page[apic_spurious] = apic_enabled;
                s.lapic.page[apic_lint0] = lvt_ext_int;
                s.lapic.page[apic_lint1] = lvt_nmi;
                apply_entry(entry, s.cpu);
            }
        }));
    }
    return {};
}

Result<> Machine::reboot(const BootImages& images) {
    Impl& m = *impl_;
    CHECK(!m.completing);
    TRY(m.ram->clear());
    for (auto& vcpu : m.vcpus) {
        vcpu->reset();
    }
    m.board->reset(m.ticks());
    m.s.owner = 0;
    m.s.turn_left = 0;
    m.s.fruitless_jumps = 0;
    m.s.ending = state::Ending::running;
    m.s.exit_status = 0;
    return boot(images);
}

Stop Machine::run(const RunLimits& limits) { return impl_->run(limits); }

bool Machine::in_instruction() const { return impl_->completing; }

void Machine::input(const Input& input) {
    Impl& m = *impl_;
    CHECK(!m.completing);
    if (const auto* serial = std::get_if<SerialInput>(&input)) {
        m.board->receive_serial(serial->bytes);
    } else if (const auto* advance = std::get_if<AdvanceTicks>(&input)) {
        m.s.idle_ticks += std::min(advance->ticks, time_limit - 1 - m.s.idle_ticks);
    } else if (std::holds_alternative<PowerButton>(input)) {
        m.board->press_power_button();
    } else if (const auto* entropy = std::get_if<Entropy>(&input)) {
        for (u16 i = 0; i < m.config.cpus; ++i) {
            const Result<> done = change(*m.vcpus[i], [&](state::Vcpu& s) {
                s.cpu.random = generator_seed(entropy->seed, i);
            });
            CHECK(done.has_value()); // a vCPU takes back what it saved
        }
    } else if (const auto* generation = std::get_if<NewGeneration>(&input)) {
        m.board->set_generation(generation->id);
    } else if (const auto* clock = std::get_if<SetClock>(&input)) {
        m.board->set_clock(clock->seconds, m.ticks());
    } else if (const auto* block = std::get_if<BlockInterrupts>(&input)) {
        m.s.inhibits.block_irq = block->on;
        m.tell_inhibits();
    } else if (const auto* use = std::get_if<UseApicv>(&input)) {
        m.s.inhibits.disabled = !use->on;
        m.tell_inhibits();
    }
}

void Machine::set_serial_sink(std::function<void(std::span<const u8>)> sink) {
    impl_->serial_sink = std::move(sink);
}

std::vector<u8> Machine::take_serial_output() { return std::exchange(impl_->serial_kept, {}); }

u64 Machine::serial_input_waiting() const { return impl_->board->serial_input_waiting(); }

Icount Machine::count() const { return Icount(impl_->s.count); }
Ticks Machine::ticks() const { return impl_->ticks(); }
i64 Machine::clock_seconds() const { return impl_->board->clock_seconds(impl_->ticks()); }
const state::MachineConfig& Machine::config() const { return impl_->config; }
const hv::CpuModel& Machine::cpu_model() const { return *impl_->model; }
const state::Machine& Machine::schedule() const { return impl_->s; }
state::Vcpu Machine::vcpu(VcpuIndex index) const { return impl_->vcpus[index.value()]->save(); }
void Machine::set_dirty_logging(bool on) {
    for (const auto& vcpu : impl_->vcpus) {
        vcpu->set_dirty_logging(on);
    }
}
std::vector<Gfn> Machine::take_logged_pages() {
    std::vector<Gfn> pages;
    for (const auto& vcpu : impl_->vcpus) {
        const std::vector<Gfn> logged = vcpu->take_logged_pages();
        pages.insert(pages.end(), logged.begin(), logged.end());
    }
    return pages;
}
cpu::GuestMemory& Machine::memory() { return impl_->ram->guest(); }
Result<> Machine::fill_page_states(u8 state) { return impl_->ram->fill_states(state); }
void Machine::memory_replaced() { impl_->package->forget_all(); }

} // namespace nestor::machine
