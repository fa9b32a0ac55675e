// All devices of the machine, their ports and their interrupt lines.
#pragma once

#include <span>
#include <vector>

#include "src/base/result.hpp"
#include "src/machine/devices.hpp"

namespace nestor::machine {

/// State of every device, unit by unit; those that the board's revision lacks at their defaults.
struct BoardState {
#define NESTOR_DEVICE(member, Type, unit, revision) state::Type member;
#include "src/machine/devices.def"
#undef NESTOR_DEVICE
};

/// The newest board revision that a device belongs to, and so the newest that can be made.
inline constexpr u32 newest_revision = [] {
    u32 newest = 1;
#define NESTOR_DEVICE(member, Type, unit, revision) newest = newest < revision ? revision : newest;
#include "src/machine/devices.def"
#undef NESTOR_DEVICE
    return newest;
}();

class Board final {
public:
    using Config = BoardConfig;

    /// `sink` takes the interrupt messages of the I/O APIC.
    Board(const Config& config, device::MessageSink& sink);

    /// Accesses of 1, 2 or 4 bytes. Ports that nothing claims read as all ones and ignore writes.
    [[nodiscard]] u32 read_port(u16 port, unsigned size, Ticks now);
    BoardEvent write_port(u16 port, unsigned size, u32 value, Ticks now);
    /// Accesses of up to 8 bytes to addresses without RAM.
    [[nodiscard]] u64 read_mmio(Gpa address, unsigned size) const;
    void write_mmio(Gpa address, unsigned size, u64 value);

    /// The earliest tick at which a device does something by itself.
    [[nodiscard]] Ticks next_deadline() const;
    /// Lets devices do what is due at `now`. Call it for every deadline in turn.
    void advance(Ticks now);

    void end_of_interrupt(Vector vector) { io_apic_.end_of_interrupt(vector); }
    [[nodiscard]] bool pic_output() const { return pic_.output(); }
    Vector acknowledge_pic() { return pic_.acknowledge(); }

    void receive_serial(std::span<const u8> bytes);
    /// Bytes received that the guest has not read yet.
    [[nodiscard]] u64 serial_input_waiting() const {
        return uart_.save().fifo.size() + uart_.save().wire.size();
    }
    /// Bytes the guest sent since this was last cleared, oldest first.
    [[nodiscard]] std::vector<u8>& serial_output() { return serial_output_; }
    void press_power_button();
    /// The machine became another one: sets the generation ID and says so.
    void set_generation(const device::VmGeneration::Id& id);
    /// What the real-time clock shows, in seconds since 1970.
    [[nodiscard]] i64 clock_seconds(Ticks now) const { return rtc_.seconds(now); }
    void set_clock(i64 seconds, Ticks now);

    void reset(Ticks now);
    /// Leaves the PIC pair as PC firmware does, vectors 0x08 and 0x70, but with every input masked.
    void set_up_as_firmware();
    [[nodiscard]] BoardState save() const;
    /// Checks each unit that the revision has and takes it over. On failure the board is partly
    /// loaded.
    [[nodiscard]] Result<> load(const BoardState& from);

private:
    [[nodiscard]] std::size_t owner_of(u16 port) const;
    [[nodiscard]] u8 read_byte(Access access);
    BoardEvent write_byte(Access access, u8 value);
    void update_lines();

    /// Calls visit(wiring, device) for every device that the revision has, in the order of ranks.
    template <class Self, class Visit>
    static void for_each(Self& self, const Visit& visit) {
#define NESTOR_DEVICE(member, Type, unit, revision)                                                \
    if (revision <= self.revision_) {                                                              \
        visit(wiring::member{}, self.member##_);                                                   \
    }
#include "src/machine/devices.def"
#undef NESTOR_DEVICE
    }
    /// The same for the one with that place in the table, or for none.
    template <class Visit>
    void with(std::size_t owner, const Visit& visit);

    u32 revision_;
#define NESTOR_DEVICE(member, Type, unit, revision) device::Type member##_;
#include "src/machine/devices.def"
#undef NESTOR_DEVICE
    std::vector<u8> serial_output_;
};

} // namespace nestor::machine
