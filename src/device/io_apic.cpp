// I/O APIC.
//
// Owns the redirection table and the levels of the 24 inputs. Follows the 82093AA data sheet,
// section 3. An edge on a masked input is lost, as the data sheet says; a level on a masked input
// is sent when it is unmasked. Making an entry edge triggered clears its remote IRR: older drivers
// end an interrupt that way.
#include "src/device/io_apic.hpp"

#include "src/base/bits.hpp"

namespace nestor::device {
namespace {

constexpr u32 reg_select = 0x00;
constexpr u32 reg_window = 0x10;
constexpr u32 reg_eoi = 0x40;

constexpr u64 remote_irr = bit(14);
constexpr u64 level_trigger = bit(15);
constexpr u64 masked = bit(16);
constexpr u64 writable = mask(63, 56) | mask(16, 15) | mask(13, 13) | mask(11, 0);
constexpr u32 version = 0x20 | (IoApic::pins - 1) << 16;

bool has_remote_irr(u64 entry) {
    // Fixed and lowest priority are what a local APIC answers with an EOI.
    return (entry & level_trigger) != 0 && bits(entry, 10, 8) <= 1;
}

} // namespace

IoApic::IoApic(MessageSink& sink) : sink_(sink) { reset(); }

void IoApic::reset() {
    const u32 lines = s_.lines;
    s_ = {};
    s_.lines = lines;
    s_.redirection.fill(masked);
}

u32 IoApic::read(u32 offset) const {
    if (offset == reg_select) {
        return s_.select;
    }
    if (offset != reg_window) {
        return 0;
    }
    switch (s_.select) {
    case 0:
    case 2:
        return u32{s_.id} << 24;
    case 1:
        return version;
    default: {
        const unsigned index = s_.select - 0x10u;
        if (index >= 2 * pins) {
            return 0;
        }
        const u64 entry = s_.redirection[index / 2];
        return static_cast<u32>(index % 2 != 0 ? entry >> 32 : entry);
    }
    }
}

void IoApic::write(u32 offset, u32 value) {
    if (offset == reg_select) {
        s_.select = static_cast<u8>(value);
    } else if (offset == reg_eoi) {
        end_of_interrupt(Vector(static_cast<u8>(value)));
    } else if (offset == reg_window) {
        if (s_.select == 0) {
            s_.id = bits(value, 27, 24);
            return;
        }
        const unsigned index = s_.select - 0x10u;
        if (s_.select >= 0x10 && index < 2 * pins) {
            write_entry(index / 2, index % 2 != 0, value);
        }
    }
}

void IoApic::write_entry(unsigned pin, bool high, u32 value) {
    u64& entry = s_.redirection[pin];
    const u64 next =
        high ? (entry & mask(31, 0)) | u64{value} << 32 : (entry & mask(63, 32)) | value;
    entry = (next & writable) | (entry & remote_irr);
    if (!has_remote_irr(entry)) {
        entry &= ~remote_irr;
    }
    send_if_level(pin);
}

void IoApic::set_line(unsigned pin, bool level) {
    if (pin >= pins) {
        return;
    }
    const u32 pin_bit = bit<u32>(pin);
    const bool before = (s_.lines & pin_bit) != 0;
    s_.lines = level ? s_.lines | pin_bit : s_.lines & ~pin_bit;
    if (!level || before) {
        return;
    }
    if ((s_.redirection[pin] & level_trigger) != 0) {
        send_if_level(pin);
    } else if ((s_.redirection[pin] & masked) == 0) {
        send(pin);
    }
}

void IoApic::send_if_level(unsigned pin) {
    const u64 entry = s_.redirection[pin];
    const bool asserted = (s_.lines & bit<u32>(pin)) != 0;
    if (asserted && (entry & level_trigger) != 0 && (entry & (masked | remote_irr)) == 0) {
        send(pin);
    }
}

void IoApic::send(unsigned pin) {
    u64& entry = s_.redirection[pin];
    if (has_remote_irr(entry)) {
        entry |= remote_irr;
    }
    sink_.send(hv::InterruptMessage{
        .destination = static_cast<u32>(bits(entry, 63, 56)),
        .logical = bits(entry, 11, 11) != 0,
        .delivery = static_cast<hv::InterruptMessage::Delivery>(bits(entry, 10, 8)),
        .vector = Vector(static_cast<u8>(entry)),
        .level_triggered = (entry & level_trigger) != 0,
    });
}

void IoApic::end_of_interrupt(Vector vector) {
    for (unsigned pin = 0; pin < pins; ++pin) {
        u64& entry = s_.redirection[pin];
        if (static_cast<u8>(entry) == vector.value() && (entry & remote_irr) != 0) {
            entry &= ~remote_irr;
            send_if_level(pin);
        }
    }
}

Result<> IoApic::load(const state::IoApic& from) {
    for (const u64 entry : from.redirection) {
        if ((entry & ~(writable | remote_irr)) != 0 ||
            ((entry & remote_irr) != 0 && !has_remote_irr(entry))) {
            return fail(ErrorCode::corrupt, "redirection: bits that no write can set");
        }
    }
    if (from.id > 15 || (from.lines >> pins) != 0) {
        return fail(ErrorCode::corrupt, "id or lines: out of range");
    }
    s_ = from;
    return {};
}

} // namespace nestor::device
