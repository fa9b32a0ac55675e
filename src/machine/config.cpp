// What configurations this build makes machines of.
//
// Owns the limits. They are asked for a new machine, where a value beyond them is a usage error,
// and for a saved one, where it is a finding.
#include <string>

#include "src/base/bits.hpp"
#include "src/machine/memory.hpp"
#include "src/machine/units.hpp"

namespace nestor::machine {
namespace {

constexpr u64 tick_hz_offered = 1000000000;
constexpr u64 max_ticks_per_instruction = 1000;
constexpr u64 max_turn = u64{1} << 30;
constexpr i64 max_start_time = i64{1} << 38; // in the year 10680

std::string range_text(u64 low, u64 high) {
    return low == high ? std::to_string(low) : std::to_string(low) + " to " + std::to_string(high);
}

} // namespace

std::vector<RamRange> ram_of(const state::MachineConfig& config) { return ram(config.memory); }

std::vector<Fault> config_faults(const state::MachineConfig& config) {
    constexpr const char* newer_vm = "use a newer vm there";
    std::vector<Fault> faults;
    const auto within = [&](const char* path, u64 value, u64 low, u64 high, const char* unit = "") {
        if (value < low || value > high) {
            faults.push_back(
                {path, range_text(low, high) + unit, std::to_string(value) + unit, newer_vm});
        }
    };
    within("config.board", config.board, 1, newest_board());
    within("config.cpus", config.cpus, 1, max_cpus);
    within("config.memory", config.memory, min_memory, max_memory, " bytes");
    if (config.memory % page_size != 0) {
        faults.push_back({"config.memory", "a multiple of 4 KiB",
                          std::to_string(config.memory) + " bytes", newer_vm});
    }
    within("config.tickHz", config.tick_hz, tick_hz_offered, tick_hz_offered, " Hz");
    within("config.ticksPerInstruction", config.ticks_per_instruction, 1,
           max_ticks_per_instruction);
    within("config.turn", config.turn, 1, max_turn, " instructions");
    if (config.start_time < 0 || config.start_time > max_start_time) {
        faults.push_back({"config.startTime", "0 to " + std::to_string(max_start_time),
                          std::to_string(config.start_time) + " seconds since 1970", newer_vm});
    }
    return faults;
}

} // namespace nestor::machine
