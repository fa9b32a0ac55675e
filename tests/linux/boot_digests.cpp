// Boots a Linux guest and prints, every so many instructions, one digest for memory, one for the
// serial output and one for each state unit. determinism_test.py compares two such runs line by
// line, so that the first difference names its place.
//
// Usage: boot_digests KERNEL INITRD CPUS EVERY APPEND
#include <cinttypes>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

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
        std::size_t at = 0;
        for (; at + 32 <= bytes.size(); at += 32) {
            u64 words[4];
            std::memcpy(words, bytes.data() + at, sizeof words);
            for (int lane = 0; lane < 4; ++lane) {
                lanes_[lane] = (lanes_[lane] ^ words[lane]) * 0x9e3779b97f4a7c15;
                lanes_[lane] ^= lanes_[lane] >> 32;
            }
        }
        for (; at < bytes.size(); ++at) {
            lanes_[at & 3] = (lanes_[at & 3] ^ bytes[at]) * 0x9e3779b97f4a7c15;
        }
    }
    [[nodiscard]] u64 value() const {
        u64 all = 0;
        for (const u64 lane : lanes_) {
            all = (all ^ lane ^ lane >> 29) * 0xbf58476d1ce4e5b9;
        }
        return all;
    }

private:
    u64 lanes_[4] = {1, 2, 3, 4};
};

void print_digests(machine::Machine& machine, const FastHash& serial) {
    FastHash memory;
    for (const cpu::GuestMemory::Region& region : machine.memory().regions()) {
        memory.add({region.host, region.size});
    }
    std::printf("%" PRIu64 " memory=%016" PRIx64 " serial=%016" PRIx64, machine.count().value(),
                memory.value(), serial.value());
    for (const machine::Unit& unit : machine.units()) {
        std::printf(" %s=%.16s", unit.name.c_str(), to_hex(sha256(unit.bytes)).c_str());
    }
    std::printf("\n");
}

Result<> run(char** arguments) {
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
    FastHash serial;
    machine->set_serial_sink([&](std::span<const u8> sent) { serial.add(sent); });
    TRY(machine->boot({.kernel = {arguments[1], bytes(kernel)},
                       .modules = {{arguments[2], bytes(initrd)}},
                       .command_line = arguments[5]}));
    while (true) {
        machine::RunLimits limits;
        limits.until = machine->count() + every;
        const machine::Stop stop = machine->run(limits);
        print_digests(*machine, serial);
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
    if (argc != 6) {
        std::fprintf(stderr, "usage: boot_digests KERNEL INITRD CPUS EVERY APPEND\n");
        return 2;
    }
    const Result<> result = run(argv);
    if (!result) {
        std::fprintf(stderr, "boot_digests: %s\n", result.error().message.c_str());
        return static_cast<int>(result.error().code);
    }
    return 0;
}
