// Devices in any state that they accept, under any accesses and any passing of time: nothing is
// read beyond its end, no CHECK is reached, time always gets past a deadline, and what is saved
// loads into the same.
//
// Input: eight bytes seed the state of every unit, of which two bytes say which are random and the
// next how far time is; then operations, as the switch in `step` has them. Times between two looks
// are those of a machine, which stops at every deadline.
#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <vector>

#include "engine/state/codec.hpp"
#include "engine/state/info.hpp"
#include "src/base/check.hpp"
#include "src/machine/board.hpp"
#include "src/machine/memory.hpp"
#include "tests/tools/schema/random_state.hpp"

namespace {

using namespace nestor;
using machine::Board;
using machine::BoardState;

constexpr u64 memory = u64{64} << 20;
/// More deadlines than this on the way are no way a device behaves, but time may be long.
constexpr unsigned most_deadlines = 200;

struct Input {
    std::span<const u8> left;

    /// Zeroes when nothing is left.
    template <class T>
    T take() {
        T value{};
        const std::size_t size = std::min(left.size(), sizeof value);
        std::memcpy(&value, left.data(), size);
        left = left.subspan(size);
        return value;
    }
};

struct Nobody final : device::MessageSink {
    void send(const hv::InterruptMessage&) override {}
};

/// A Board, and where its interrupts go.
struct Wired {
    std::vector<device::E820Entry> map = machine::memory_map(memory);
    Nobody nobody;
    Board board{{.board = machine::newest_board(),
                 .tick_hz = 1000000000,
                 .start_time = 0,
                 .memory = memory,
                 .memory_map = map},
                nobody};
};

/// Calls visit(unit) for each; does not compile when one is missing.
template <class Visit>
void for_each_unit(BoardState& s, const Visit& visit) {
    auto& [pit, rtc, acpi_pm, generation, uart, keyboard, test, io_apic, pic, pci_host, fw_cfg] = s;
    const auto all = [&visit](auto&... unit) { (visit(unit), ...); };
    all(acpi_pm, fw_cfg, io_apic, keyboard, pci_host, pic, pit, rtc, test, uart, generation);
}

/// Gives some fields of a unit random values; as it was where the board refuses that.
template <class T>
void change(T& unit, BoardState& whole, test::Rng& rng) {
    const T before = unit;
    const state::StructInfo& info = state::Meta<T>::info;
    std::vector<state::FieldInfo> fields;
    for (const state::FieldInfo& field : info.fields) {
        if (rng.below(2) == 0) {
            fields.push_back(field);
        }
    }
    state::StructInfo some = info;
    some.fields = fields;
    test::randomize(&unit, some, rng);
    Wired wired;
    if (!wired.board.load(whole)) {
        unit = before;
    }
}

BoardState random_state(test::Rng& rng, u16 units) {
    Wired wired;
    BoardState s = wired.board.save();
    for_each_unit(s, [&]<class T>(T& unit) {
        for (int attempt = 0; attempt < 4 && (units & 1) != 0; ++attempt) {
            change(unit, s, rng);
        }
        units = static_cast<u16>(units >> 1);
    });
    return s;
}

void check_same(BoardState left, BoardState right) {
    std::vector<std::vector<std::byte>> bytes;
    for_each_unit(left, [&](const auto& unit) { bytes.push_back(state::encode(unit)); });
    std::size_t at = 0;
    for_each_unit(right, [&](const auto& unit) { CHECK(state::encode(unit) == bytes[at++]); });
}

/// One board and its time.
struct Player {
    Input& input;
    Wired wired;
    Ticks now;

    Board& board() { return wired.board; }

    void advance_to(Ticks end) {
        for (unsigned n = 0; n < most_deadlines; ++n) {
            const Ticks next = board().next_deadline();
            if (next > end) {
                now = end;
                return;
            }
            now = std::max(now, next);
            board().advance(next);
            CHECK(board().next_deadline() > next, {next.value()});
        }
    }

    /// Ports that a device has, mostly.
    u16 port() {
        static constexpr u16 starts[] = {0x20, 0x40,  0x60,  0x70,  0x90,  0xa0,  0xe0,
                                         0xf4, 0x3f8, 0x4d0, 0x510, 0x600, 0xcf8, 0x2000};
        const u8 choice = input.take<u8>();
        return choice < std::size(starts) * 16 ? static_cast<u16>(starts[choice / 16] + choice % 16)
                                               : input.take<u16>();
    }

    void access_port(bool write) {
        const u16 where = port();
        const unsigned size = 1u << input.take<u8>() % 3;
        if (write) {
            (void)board().write_port(where, size, input.take<u32>(), now);
        } else {
            (void)board().read_port(where, size, now);
        }
    }

    void access_memory(bool write) {
        const u16 choice = input.take<u16>();
        const u64 page = (choice & 0x8000) != 0 ? device::VmGeneration::base : device::IoApic::base;
        const Gpa where(page + (choice & 0x1fff));
        const unsigned size = 1u << input.take<u8>() % 4;
        if (write) {
            board().write_mmio(where, size, input.take<u64>());
        } else {
            (void)board().read_mmio(where, size);
        }
    }

    void from_outside(u8 what) {
        if (what == 0) {
            board().press_power_button();
        } else if (what == 1) {
            board().set_generation(input.take<device::VmGeneration::Id>());
        } else if (what == 2) {
            board().set_clock(input.take<i64>() >> 26, now);
        } else {
            board().reset(now);
        }
    }

    void save_and_load() {
        const BoardState saved = board().save();
        Wired other;
        const Result<> loaded = other.board.load(saved);
        if (!loaded) {
            std::fprintf(stderr, "what was saved is refused: %s\n", loaded.error().message.c_str());
        }
        CHECK(loaded.has_value());
        check_same(saved, other.board.save());
        CHECK(other.board.next_deadline() == board().next_deadline());
        CHECK(other.board.pic_output() == board().pic_output());
    }

    void step() {
        const u8 what = input.take<u8>() % 16;
        switch (what) {
        case 0:
        case 1:
        case 2:
        case 3:
        case 4:
        case 5:
        case 6:
            access_port(what > 2);
            break;
        case 7:
        case 8:
            access_memory(what == 8);
            break;
        case 9:
            advance_to(now + input.take<u16>());
            break;
        case 10:
            advance_to(now + (u64{input.take<u16>()} << 24));
            break;
        case 11:
            board().end_of_interrupt(Vector(input.take<u8>()));
            break;
        case 12:
            (void)board().acknowledge_pic();
            break;
        case 13: {
            const auto bytes = input.take<std::array<u8, 24>>();
            board().receive_serial(std::span(bytes).first(1 + bytes[0] % 23));
            break;
        }
        case 14:
            from_outside(input.take<u8>() % 4);
            break;
        default:
            save_and_load();
        }
    }
};

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    Input input{{data, size}};
    test::Rng rng(input.take<u64>());
    const u16 units = input.take<u16>();
    const u8 time = input.take<u8>();
    Player player{
        .input = input, .wired = {}, .now = Ticks(time == 0 ? 0 : rng() >> (8 + time % 56))};
    const BoardState start = random_state(rng, units);
    CHECK(player.board().load(start).has_value());
    while (!input.left.empty()) {
        player.step();
    }
    player.save_and_load();
    return 0;
}
