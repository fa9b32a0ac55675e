// The PC's pair of 8259A interrupt controllers.
//
// Owns both chips' registers. Follows the 8259A data sheet's sections on priority, EOI, masks and
// poll. The cascade is not a latch: the master sees the slave's output as it is now, so a request
// that the slave withdrew leaves nothing behind on the master. An edge stays latched until it is
// acknowledged, also when its line falls before that, as in the chipsets that Linux meets.
#include "src/device/pic.hpp"

#include "src/base/bits.hpp"

namespace nestor::device {
namespace {

constexpr u8 cascade_bit = 1 << 2;
constexpr u8 elcr_writable[2] = {0xf8, 0xde};

/// The set bit of `mask` with the highest priority as its distance from the top, 8 for none.
unsigned rank_of(const state::PicChip& chip, u8 mask) {
    for (unsigned rank = 0; rank < 8; ++rank) {
        if ((mask & bit<u8>((chip.lowest_priority + 1 + rank) & 7)) != 0) {
            return rank;
        }
    }
    return 8;
}

unsigned input_at(const state::PicChip& chip, unsigned rank) {
    return (chip.lowest_priority + 1 + rank) & 7;
}

void initialise(state::PicChip& chip, u8 icw1) {
    const u8 elcr = chip.elcr;
    const u8 lines = chip.lines;
    chip = {};
    chip.elcr = elcr;
    chip.lines = lines;
    chip.irr = lines & elcr;
    chip.expected = 2;
    chip.expect_icw4 = (icw1 & 1) != 0;
    chip.single = (icw1 & 2) != 0;
}

} // namespace

u8 Pic::requests(unsigned chip) const {
    const u8 irr = s_.chips[chip].irr;
    if (chip == slave || s_.chips[master].single) {
        return irr;
    }
    const u8 others = irr & static_cast<u8>(~cascade_bit);
    return pending(slave) >= 0 ? others | cascade_bit : others;
}

int Pic::pending(unsigned chip) const {
    const state::PicChip& c = s_.chips[chip];
    const unsigned request = rank_of(c, requests(chip) & static_cast<u8>(~c.imr));
    if (request == 8) {
        return -1;
    }
    u8 blocking = c.isr;
    if (c.special_mask) {
        blocking &= static_cast<u8>(~c.imr);
    }
    // Special fully nested mode: a slave in service does not block its other inputs.
    if (c.special_fully_nested && chip == master) {
        blocking &= static_cast<u8>(~cascade_bit);
    }
    return request < rank_of(c, blocking) ? static_cast<int>(input_at(c, request)) : -1;
}

void Pic::acknowledge_input(unsigned chip, unsigned irq) {
    state::PicChip& c = s_.chips[chip];
    const u8 mask = bit<u8>(irq);
    if (!c.auto_eoi) {
        c.isr |= mask;
    } else if (c.rotate_on_auto_eoi) {
        c.lowest_priority = static_cast<u8>(irq);
    }
    if ((c.elcr & mask) == 0) {
        c.irr &= static_cast<u8>(~mask);
    }
}

Vector Pic::acknowledge() {
    const state::PicChip& m = s_.chips[master];
    const int irq = pending(master);
    if (irq < 0) {
        return Vector(static_cast<u8>(m.vector_base + 7));
    }
    const int slave_irq = irq == 2 && !m.single ? pending(slave) : -1;
    acknowledge_input(master, static_cast<unsigned>(irq));
    if (slave_irq < 0) {
        return Vector(static_cast<u8>(m.vector_base + irq));
    }
    acknowledge_input(slave, static_cast<unsigned>(slave_irq));
    return Vector(static_cast<u8>(s_.chips[slave].vector_base + slave_irq));
}

u8 Pic::poll(unsigned chip) {
    s_.chips[chip].poll = false;
    const int irq = pending(chip);
    if (irq < 0) {
        return 7;
    }
    acknowledge_input(chip, static_cast<unsigned>(irq));
    return static_cast<u8>(0x80 | irq);
}

void Pic::set_line(unsigned irq, bool level) {
    if (irq == 2 || irq > 15) {
        return;
    }
    state::PicChip& c = s_.chips[irq / 8];
    const u8 mask = bit<u8>(irq % 8);
    const bool before = (c.lines & mask) != 0;
    const bool level_triggered = (c.elcr & mask) != 0;
    if (level) {
        c.lines |= mask;
        if (level_triggered || !before) {
            c.irr |= mask;
        }
    } else {
        c.lines &= static_cast<u8>(~mask);
        if (level_triggered) {
            c.irr &= static_cast<u8>(~mask);
        }
    }
}

u8 Pic::read(u16 port) {
    switch (port) {
    case 0x20:
    case 0xa0: {
        const unsigned chip = port == 0xa0 ? slave : master;
        if (s_.chips[chip].poll) {
            return poll(chip);
        }
        return s_.chips[chip].read_isr ? s_.chips[chip].isr : requests(chip);
    }
    case 0x21:
    case 0xa1: {
        const unsigned chip = port == 0xa1 ? slave : master;
        return s_.chips[chip].poll ? poll(chip) : s_.chips[chip].imr;
    }
    case 0x4d0:
        return s_.chips[master].elcr;
    case 0x4d1:
        return s_.chips[slave].elcr;
    default:
        return 0xff;
    }
}

void Pic::write(u16 port, u8 value) {
    switch (port) {
    case 0x20:
        return write_command(master, value);
    case 0xa0:
        return write_command(slave, value);
    case 0x21:
        return write_data(master, value);
    case 0xa1:
        return write_data(slave, value);
    case 0x4d0:
    case 0x4d1: {
        state::PicChip& c = s_.chips[port - 0x4d0];
        const u8 elcr = value & elcr_writable[port - 0x4d0];
        // An input that becomes level triggered requests what its line says; one that becomes
        // edge triggered keeps no request that was only a level.
        const u8 changed = elcr ^ c.elcr;
        c.irr = static_cast<u8>((c.irr & ~changed) | (c.lines & elcr & changed));
        c.elcr = elcr;
        return;
    }
    default:
        return;
    }
}

void Pic::write_command(unsigned chip, u8 value) {
    state::PicChip& c = s_.chips[chip];
    if ((value & 0x10) != 0) {
        initialise(c, value);
    } else if ((value & 0x08) != 0) { // OCW3
        c.poll = (value & 0x04) != 0;
        if ((value & 0x02) != 0) {
            c.read_isr = (value & 0x01) != 0;
        }
        if ((value & 0x40) != 0) {
            c.special_mask = (value & 0x20) != 0;
        }
    } else {
        write_ocw2(chip, value);
    }
}

void Pic::write_ocw2(unsigned chip, u8 value) {
    state::PicChip& c = s_.chips[chip];
    const bool rotate = (value & 0x80) != 0;
    const bool specific = (value & 0x40) != 0;
    const bool eoi = (value & 0x20) != 0;
    const u8 level = value & 7;
    if (!eoi && !specific) {
        c.rotate_on_auto_eoi = rotate;
        return;
    }
    if (!eoi) {
        if (rotate) {
            c.lowest_priority = level; // set priority
        }
        return;
    }
    u8 target = level;
    if (!specific) {
        // In special mask mode a masked input in service is left alone.
        const u8 candidates = c.special_mask ? c.isr & static_cast<u8>(~c.imr) : c.isr;
        const unsigned rank = rank_of(c, candidates);
        if (rank == 8) {
            return;
        }
        target = static_cast<u8>(input_at(c, rank));
    }
    c.isr &= static_cast<u8>(~bit<u8>(target));
    if (rotate) {
        c.lowest_priority = target;
    }
}

void Pic::write_data(unsigned chip, u8 value) {
    state::PicChip& c = s_.chips[chip];
    const u8 after_icw3 = c.expect_icw4 ? 4 : 0;
    switch (c.expected) {
    case 2:
        c.vector_base = value & 0xf8;
        c.expected = c.single ? after_icw3 : 3;
        return;
    case 3: // the wiring is fixed
        c.expected = after_icw3;
        return;
    case 4:
        c.special_fully_nested = (value & 0x10) != 0;
        c.auto_eoi = (value & 0x02) != 0;
        c.expected = 0;
        return;
    default:
        c.imr = value;
        return;
    }
}

void Pic::reset() {
    const state::Pic before = s_;
    s_ = {};
    for (unsigned chip = 0; chip < 2; ++chip) {
        s_.chips[chip].lines = before.chips[chip].lines;
    }
}

Result<> Pic::load(const state::Pic& from) {
    for (unsigned chip = 0; chip < 2; ++chip) {
        const state::PicChip& c = from.chips[chip];
        const bool expected_ok = c.expected == 0 || (c.expected >= 2 && c.expected <= 4);
        if (c.lowest_priority > 7 || !expected_ok || (c.vector_base & 7) != 0 ||
            (c.elcr & ~elcr_writable[chip]) != 0) {
            return fail(ErrorCode::corrupt, chip == master ? "chips[0]: no such register value"
                                                           : "chips[1]: no such register value");
        }
    }
    s_ = from;
    return {};
}

} // namespace nestor::device
