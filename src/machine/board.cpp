// All devices of the machine, their ports and their interrupt lines.
//
// Owns the devices, which are the rows of devices.def that its revision has; the others claim
// nothing, save nothing and do nothing, also after a reset. Outputs are levels that are looked at
// after every access and every deadline, so a device needs to know nothing about interrupt
// controllers. A line shared by several outputs is their OR. ISA line 0 arrives at the I/O APIC's
// input 2, as the MADT says.
#include "src/machine/board.hpp"

#include <algorithm>
#include <array>
#include <type_traits>

#include "src/base/bits.hpp"

namespace nestor::machine {
namespace {

/// Places in devices.def, from 1 on; 0 is nobody.
enum class Place : u8 {
    nobody,
#define NESTOR_DEVICE(member, Type, unit, revision) member,
#include "src/machine/devices.def"
#undef NESTOR_DEVICE
};

/// By place: the first revision that has the device.
constexpr u32 since[] = {
    0,
#define NESTOR_DEVICE(member, Type, unit, revision) revision,
#include "src/machine/devices.def"
#undef NESTOR_DEVICE
};

/// Who claims a port, on the newest board. Two claims of one port do not compile.
constexpr std::array<Place, 65536> port_table = [] {
    std::array<Place, 65536> table{};
    const auto claim = [&table]<class W>(W, Place place) {
        if constexpr (requires { &W::ports; }) {
            for (const PortRange& range : W::ports) {
                for (unsigned i = 0; i < range.count; ++i) {
                    Place& owner = table[range.first + i];
                    owner = owner == Place::nobody ? place : throw "a port has two owners";
                }
            }
        }
    };
#define NESTOR_DEVICE(member, Type, unit, revision) claim(wiring::member{}, Place::member);
#include "src/machine/devices.def"
#undef NESTOR_DEVICE
    return table;
}();

/// Rows stand in the order of ranks, which breaks ties of deadlines (DESIGN.md, rule 2).
constexpr bool ordered_by_rank = [] {
    u32 last = 0;
    bool good = true;
#define NESTOR_DEVICE(member, Type, unit, revision)                                                \
    good = good && last <= state::Meta<state::Type>::rank;                                         \
    last = state::Meta<state::Type>::rank;
#include "src/machine/devices.def"
#undef NESTOR_DEVICE
    return good;
}();
static_assert(ordered_by_rank);

template <class Wiring, class Device>
Device make(const BoardConfig& config, device::MessageSink& sink) {
    if constexpr (requires { &Wiring::make; }) {
        return Wiring::make(config, sink);
    } else {
        return Device();
    }
}

u64 low_bytes(unsigned size) { return size >= 8 ? ~u64{0} : bit(8 * size) - 1; }

} // namespace

template <class Visit>
void Board::with(std::size_t owner, const Visit& visit) {
    switch (static_cast<Place>(owner)) {
    case Place::nobody:
        break;
#define NESTOR_DEVICE(member, Type, unit, revision)                                                \
    case Place::member:                                                                            \
        visit(wiring::member{}, member##_);                                                        \
        break;
#include "src/machine/devices.def"
#undef NESTOR_DEVICE
    }
}

Board::Board(const Config& config, device::MessageSink& sink)
    : revision_(config.board)
#define NESTOR_DEVICE(member, Type, unit, revision)                                                \
    , member##_(make<wiring::member, device::Type>(config, sink))
#include "src/machine/devices.def"
#undef NESTOR_DEVICE
{
}

/// Place of the device whose port it is on this revision.
std::size_t Board::owner_of(u16 port) const {
    const auto place = static_cast<std::size_t>(port_table[port]);
    return since[place] <= revision_ ? place : 0;
}

u8 Board::read_byte(Access access) {
    u8 value = 0xff;
    with(owner_of(access.port), [&]<class W>(W, auto& device) {
        if constexpr (requires { &W::read; }) {
            value = W::read(device, access);
        }
    });
    return value;
}

BoardEvent Board::write_byte(Access access, u8 value) {
    BoardEvent event;
    with(owner_of(access.port), [&]<class W>(W, auto& device) {
        if constexpr (requires { &W::write; }) {
            event = W::write(device, access, value);
        }
    });
    return event;
}

u32 Board::read_port(u16 port, unsigned size, Ticks now) {
    std::optional<u32> value;
    with(owner_of(port), [&]<class W>(W, auto& device) {
        if constexpr (requires { &W::read_wide; }) {
            value = W::read_wide(device, port, size);
        }
    });
    if (!value) {
        value = 0;
        for (unsigned i = 0; i < size; ++i) {
            const u8 byte = read_byte({static_cast<u16>(port + i), now, serial_output_});
            *value |= u32{byte} << (8 * i);
        }
    }
    update_lines();
    return *value & static_cast<u32>(low_bytes(size));
}

BoardEvent Board::write_port(u16 port, unsigned size, u32 value, Ticks now) {
    std::optional<BoardEvent> event;
    with(owner_of(port), [&]<class W>(W, auto& device) {
        if constexpr (requires { &W::write_wide; }) {
            event = W::write_wide(device, port, size, value);
        }
    });
    if (!event) {
        event.emplace();
        for (unsigned i = 0; i < size; ++i) {
            const BoardEvent more = write_byte({static_cast<u16>(port + i), now, serial_output_},
                                               static_cast<u8>(value >> (8 * i)));
            if (more.kind != BoardEvent::Kind::none) {
                event = more;
            }
        }
    }
    update_lines();
    return *event;
}

u64 Board::read_mmio(Gpa address, unsigned size) const {
    u64 value = ~u64{0};
    for_each(*this, [&]<class W>(W, const auto& device) {
        if constexpr (requires { &W::mmio; }) {
            if (const u64 at = address.value() - W::mmio; at < page_size) {
                value = W::read_mmio(device, static_cast<u32>(at), size);
            }
        }
    });
    return value & low_bytes(size);
}

void Board::write_mmio(Gpa address, unsigned size, u64 value) {
    for_each(*this, [&]<class W>(W, auto& device) {
        if constexpr (requires { &W::write_mmio; }) {
            if (const u64 at = address.value() - W::mmio; at < page_size) {
                W::write_mmio(device, static_cast<u32>(at), value & low_bytes(size));
            }
        }
    });
}

Ticks Board::next_deadline() const {
    Ticks next = device::no_deadline;
    for_each(*this, [&](auto, const auto& device) {
        if constexpr (requires { device.next_deadline(); }) {
            next = std::min(next, device.next_deadline());
        }
    });
    return next;
}

void Board::advance(Ticks now) {
    for_each(*this, [&](auto, auto& device) {
        if constexpr (requires { device.next_deadline(); }) {
            if (device.next_deadline() <= now) {
                device.advance(now);
            }
        }
    });
    update_lines();
}

/// Carries the levels of all outputs to the inputs that they drive.
void Board::update_lines() {
    u32 levels = 0;
    for_each(*this, [&]<class W>(W, const auto& device) {
        if constexpr (requires { &W::levels; }) {
            levels |= W::levels(device);
        }
    });

    const auto& chips = pic_.save().chips;
    const u32 pic_before = u32{chips[0].lines} | u32{chips[1].lines} << 8;
    for (u32 changed = (levels ^ pic_before) & 0xffff & ~bit<u32>(wiring::irq_cascade);
         changed != 0; changed &= changed - 1) {
        const unsigned irq = static_cast<unsigned>(std::countr_zero(changed));
        pic_.set_line(irq, (levels & bit<u32>(irq)) != 0);
    }

    const u32 timer = bit<u32>(wiring::irq_timer);
    const u32 pins = (levels & ~timer) | (levels & timer) << 2;
    for (u32 changed = pins ^ io_apic_.save().lines; changed != 0; changed &= changed - 1) {
        const unsigned pin = static_cast<unsigned>(std::countr_zero(changed));
        io_apic_.set_line(pin, (pins & bit<u32>(pin)) != 0);
    }
}

void Board::receive_serial(std::span<const u8> bytes) {
    uart_.receive(bytes);
    update_lines();
}

void Board::press_power_button() {
    acpi_pm_.press_power_button();
    update_lines();
}

void Board::set_generation(const device::VmGeneration::Id& id) {
    vm_generation_.set(id);
    acpi_pm_.raise_event(device::VmGeneration::event);
    update_lines();
}

void Board::set_clock(i64 seconds, Ticks now) {
    rtc_.set_seconds(seconds, now);
    update_lines();
}

void Board::reset(Ticks now) {
    for_each(*this, [&]<class W>(W, auto& device) {
        if constexpr (requires { &W::stays_on_reset; }) {
            return;
        } else if constexpr (requires { device.reset(now); }) {
            device.reset(now);
        } else {
            device.reset();
        }
    });
    update_lines();
}

void Board::set_up_as_firmware() {
    struct Chip {
        u16 port;
        u8 vector;
        u8 wiring;
    };
    for (const Chip& chip : {Chip{0x20, 0x08, 4}, Chip{0xa0, 0x70, 2}}) {
        const u16 data = chip.port + 1;
        pic_.write(chip.port, 0x11); // ICW1: edge triggered, cascaded, ICW4 follows
        pic_.write(data, chip.vector);
        pic_.write(data, chip.wiring);
        pic_.write(data, 0x01); // ICW4: 8086 mode
        pic_.write(data, 0xff);
    }
    update_lines();
}

BoardState Board::save() const {
    BoardState saved;
#define NESTOR_DEVICE(member, Type, unit, revision)                                                \
    if (revision <= revision_) {                                                                   \
        saved.member = member##_.save();                                                           \
    }
#include "src/machine/devices.def"
#undef NESTOR_DEVICE
    return saved;
}

Result<> Board::load(const BoardState& from) {
    const auto load = []<class Device>(Device& device, const auto& state) -> Result<> {
        if constexpr (std::is_void_v<decltype(device.load(state))>) {
            device.load(state);
            return {};
        } else {
            return device.load(state);
        }
    };
#define NESTOR_DEVICE(member, Type, unit, revision)                                                \
    if (revision <= revision_) {                                                                   \
        TRY(load(member##_, from.member), unit);                                                   \
    }
#include "src/machine/devices.def"
#undef NESTOR_DEVICE
    return {};
}

} // namespace nestor::machine
