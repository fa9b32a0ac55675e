// Inside of Machine: shared by machine.cpp (making and booting), scheduler.cpp (running) and
// units.cpp (saving and loading).
#pragma once

#include <optional>

#include "engine/cpu/package.hpp"
#include "engine/hypervisor/vcpu.hpp"
#include "src/machine/board.hpp"
#include "src/machine/machine.hpp"
#include "src/machine/memory.hpp"

namespace nestor::machine {

/// Ticks from here on never come: about 146 years at 1 GHz. Keeps sums of ticks far from wrapping.
inline constexpr u64 time_limit = u64{1} << 62;

struct Machine::Impl final : hv::BoardPort, device::MessageSink {
    Impl(const state::MachineConfig& machine_config, std::unique_ptr<Memory> backing);

    // BoardPort: what vCPUs ask while they run.
    Vector acknowledge_pic() override { return board->acknowledge_pic(); }
    [[nodiscard]] bool pic_output() const override { return board->pic_output(); }
    void send(VcpuIndex from, const hv::InterruptMessage& message) override;
    void apic_changed() override;
    // MessageSink: the I/O APIC.
    void send(const hv::InterruptMessage& message) override;

    void tell_inhibits();

    [[nodiscard]] Board::Config board_config() const;
    [[nodiscard]] Ticks ticks() const;
    [[nodiscard]] Ticks ticks_at(Icount count) const;

    // Scheduler.
    [[nodiscard]] Stop run(const RunLimits& limits);
    [[nodiscard]] std::optional<Stop> check_limits(const RunLimits& limits) const;
    [[nodiscard]] bool ready(u16 index) const;
    [[nodiscard]] bool choose_owner();
    [[nodiscard]] std::optional<Stop> idle(const RunLimits& limits);
    [[nodiscard]] Icount turn_end(const RunLimits& limits) const;
    [[nodiscard]] std::optional<Stop> step(const RunLimits& limits);
    [[nodiscard]] std::optional<Stop> handle(const hv::Exit& exit, bool progressed);
    void handle_port(const hv::PortAccess& access);
    void handle_mmio(const hv::MmioAccess& access);
    void handle_event(const BoardEvent& event);
    void service_deadlines();
    void route(const hv::InterruptMessage& message, VcpuIndex from, Ticks now);
    [[nodiscard]] bool interrupts_off() const;
    void flush_serial();
    [[nodiscard]] Stop stop_of_ending() const;

    state::MachineConfig config;
    const hv::CpuModel* model = nullptr;
    state::Machine s;
    std::vector<device::E820Entry> map;
    std::unique_ptr<Memory> ram;
    std::unique_ptr<Board> board;
    std::unique_ptr<cpu::Package> package;
    std::vector<std::unique_ptr<hv::Vcpu>> vcpus;

    /// An access of the owner was answered; the instruction has to be completed before anything
    /// else happens. Between two calls of run() only where it needs a page.
    bool completing = false;
    /// Ticks at which a vCPU was last run and stayed halted: its deadline up to then is served.
    std::vector<Ticks> served;

    std::function<void(std::span<const u8>)> serial_sink;
    std::vector<u8> serial_kept;
    std::string serial_wanted;
    std::string serial_tail;
    bool serial_found = false;
    bool l2_found = false;
};

} // namespace nestor::machine
