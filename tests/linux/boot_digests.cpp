// Boots a Linux guest and prints, every so many instructions, one digest for memory, one for the
// serial output and one for each state unit. determinism_test.py compares two such runs line by
// line, so that the first difference names its place.
//
// With "apicv" or "no-apicv" the units are those of the guest digest, without L0's policy.
//
// Usage: boot_digests KERNEL INITRD CPUS EVERY APPEND [apicv|no-apicv]
#include <array>
#include <bit>
#include <cinttypes>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "engine/state/codec.hpp"
#include "engine/state/info.hpp"
#include "src/base/digest.hpp"
#include "src/base/fd.hpp"
#include "src/machine/machine.hpp"

namespace {

using namespace nestor;

constexpr u64 memory_size = u64{128} << 20;

// Not SHA-256: 128 MiB are read at every stop, and an accidental collision is all there is to fear.
class FastHash {
public:
    void add(std::span<const u8> bytes) {
        auto lanes = lanes_; // bytes may be anything, so members would be stored at every word
        std::size_t at = 0;
        for (; at + sizeof lanes <= bytes.size(); at += sizeof lanes) {
            std::array<u64, lane_count> words;
            std::memcpy(words.data(), bytes.data() + at, sizeof words);
            for (std::size_t lane = 0; lane < lane_count; ++lane) {
                lanes[lane] = std::rotl(lanes[lane], 23) + words[lane];
            }
        }
        for (; at < bytes.size(); ++at) {
            lanes[at % lane_count] = std::rotl(lanes[at % lane_count], 23) + bytes[at];
        }
        lanes_ = lanes;
    }
    [[nodiscard]] u64 value() const {
        u64 all = 0;
        for (const u64 lane : lanes_) {
            all = (all ^ lane ^ lane >> 29) * 0xbf58476d1ce4e5b9;
        }
        return all;
    }

private:
    static constexpr std::size_t lane_count = 8;
    std::array<u64, lane_count> lanes_ = {1, 2, 3, 4, 5, 6, 7, 8};
};

/// A unit as the guest digest has it.
Result<std::vector<std::byte>> without_policy(const machine::Unit& unit) {
    const state::StructInfo* const info = state::erased::find(unit.type);
    const std::unique_ptr<void, void (*)(void*)> value(info->create(), info->destroy);
    TRY(state::erased::decode(value.get(), *info, unit.bytes), "unit " + unit.name);
    return state::erased::encode(value.get(), *info, state::erased::Scope::guest);
}

Result<> print_digests(machine::Machine& machine, const FastHash& serial, bool guest_view) {
    FastHash memory;
    for (const cpu::GuestMemory::Region& region : machine.memory().regions()) {
        memory.add({region.host, region.size});
    }
    std::printf("%" PRIu64 " memory=%016" PRIx64 " serial=%016" PRIx64, machine.count().value(),
                memory.value(), serial.value());
    for (const machine::Unit& unit : machine.units()) {
        const auto bytes = guest_view ? TRY(without_policy(unit)) : unit.bytes;
        std::printf(" %s=%.16s", unit.name.c_str(), to_hex(sha256(bytes)).c_str());
    }
    std::printf("\n");
    return {};
}

Result<> run(char** arguments, const std::string& view) {
    state::MachineConfig config;
    config.memory = memory_size;
    config.cpus = static_cast<u16>(std::atoi(arguments[3]));
    const u64 every = std::strtoull(arguments[4], nullptr, 10);
    const auto kernel = TRY(read_file(arguments[1], std::size_t{1} << 30));
    const auto initrd = TRY(read_file(arguments[2], std::size_t{1} << 30));
    const auto bytes = [](const std::vector<std::byte>& v) {
        return std::span(reinterpret_cast<const u8*>(v.data()), v.size());
    };
    const auto machine = TRY(machine::Machine::create(config));
    machine->input(machine::UseApicv{view != "no-apicv"});
    FastHash serial;
    machine->set_serial_sink([&](std::span<const u8> sent) { serial.add(sent); });
    TRY(machine->boot({.kernel = {arguments[1], bytes(kernel)},
                       .modules = {{arguments[2], bytes(initrd)}},
                       .command_line = arguments[5]}));
    while (true) {
        machine::RunLimits limits;
        limits.until = machine->count() + every;
        const machine::Stop stop = machine->run(limits);
        TRY(print_digests(*machine, serial, !view.empty()));
        if (stop.kind == machine::Stop::Kind::powered_off) {
            return {};
        }
        if (stop.kind != machine::Stop::Kind::count) {
            return fail(ErrorCode::failed,
                        "the machine stopped, kind " + std::to_string(static_cast<int>(stop.kind)));
        }
    }
}

} // namespace

int main(int argc, char** argv) {
    const std::string view = argc == 7 ? argv[6] : "";
    if ((argc != 6 && argc != 7) || (argc == 7 && view != "apicv" && view != "no-apicv")) {
        std::fprintf(stderr,
                     "usage: boot_digests KERNEL INITRD CPUS EVERY APPEND [apicv|no-apicv]\n");
        return 2;
    }
    const Result<> result = run(argv, view);
    if (!result) {
        std::fprintf(stderr, "boot_digests: %s\n", result.error().message.c_str());
        return static_cast<int>(result.error().code);
    }
    return 0;
}
