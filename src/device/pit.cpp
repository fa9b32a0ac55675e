// Intel 8254 timer with the PC's port 0x61.
//
// Owns three counters. A counter is never stepped: its state is the clock at which its cycle was
// loaded, and its value and output are functions of the clock now, so read-back is exact at any
// time. Follows the mode definitions of the 8254 data sheet; what a clock's delay between write and
// load would change there is left out. A count written during a cycle of mode 2 (3) is loaded at
// the end of the cycle (half cycle).
#include "src/device/pit.hpp"

#include <algorithm>

#include "src/base/bits.hpp"
#include "src/base/check.hpp"

namespace nestor::device {
namespace {

constexpr u32 max_count = 65536;
constexpr u64 refresh_clocks = 18; // the refresh request that port 0x61 bit 4 shows: 15.09 us

u32 modulus(const state::PitChannel& c) { return c.bcd ? 10000 : 65536; }

u64 high_clocks(u32 count) { return (u64{count} + 1) / 2; }

u16 to_bcd(u32 v) {
    return static_cast<u16>((v / 1000 % 10) << 12 | (v / 100 % 10) << 8 | (v / 10 % 10) << 4 |
                            v % 10);
}

u32 from_bcd(u16 v) {
    return bits<u32>(v, 15, 12) * 1000 + bits<u32>(v, 11, 8) * 100 + bits<u32>(v, 7, 4) * 10 +
           bits<u32>(v, 3, 0);
}

bool gate_triggered(const state::PitChannel& c) { return c.mode == 1 || c.mode == 5; }

bool periodic(const state::PitChannel& c) { return c.mode == 2 || c.mode == 3; }

} // namespace

Pit::Pit(u64 tick_hz) : oscillator_(hz, tick_hz) {
    CHECK(tick_hz >= 2 * hz, {tick_hz});
    s_.channels[2].gate = false;
}

bool Pit::running(const state::PitChannel& c) const {
    return gate_triggered(c) ? c.triggered : c.counting && c.gate;
}

u64 Pit::elapsed(const state::PitChannel& c, u64 clock) const {
    return (c.mode == 0 || c.mode == 4) && !c.gate ? c.held_clocks : clock - c.start_clock;
}

bool Pit::output(unsigned channel, u64 clock) const {
    const state::PitChannel& c = s_.channels[channel];
    const u64 e = elapsed(c, clock);
    switch (c.mode) {
    case 0:
        return c.counting && e >= c.count;
    case 1:
        return !c.triggered || e >= c.count;
    case 2:
        return !running(c) || e % c.count != c.count - 1;
    case 3:
        return !running(c) || e % c.count < high_clocks(c.count);
    case 4:
        return !c.counting || e != c.count;
    default:
        return !c.triggered || e != c.count;
    }
}

u64 Pit::next_change(unsigned channel, u64 clock) const {
    const state::PitChannel& c = s_.channels[channel];
    if (!running(c)) {
        return 0;
    }
    const u64 e = elapsed(c, clock);
    const u64 n = c.count;
    u64 wait = 0;
    switch (c.mode) {
    case 0:
    case 1:
        wait = e < n ? n - e : 0;
        break;
    case 2:
        wait = n < 2 ? 0 : e % n < n - 1 ? n - 1 - e % n : 1;
        break;
    case 3:
        wait = n < 2 ? 0 : e % n < high_clocks(c.count) ? high_clocks(c.count) - e % n : n - e % n;
        break;
    default:
        wait = e < n ? n - e : e == n ? 1 : 0;
        break;
    }
    u64 change = wait == 0 ? 0 : clock + wait;
    if (periodic(c) && c.pending_count != 0 && (change == 0 || change > c.pending_clock)) {
        change = c.pending_clock;
    }
    return change;
}

u16 Pit::counter(const state::PitChannel& c, u64 clock) const {
    const u64 e = elapsed(c, clock);
    u64 value = c.count;
    if (c.mode == 3) {
        if (running(c)) {
            const u64 phase = e % c.count;
            const u64 step = phase < high_clocks(c.count) ? phase : phase - high_clocks(c.count);
            value = (c.count & ~u64{1}) - 2 * step;
        }
    } else if (c.mode == 2) {
        value = running(c) ? c.count - e % c.count : c.count;
    } else if (gate_triggered(c) ? c.triggered : c.counting) {
        const u64 m = modulus(c);
        value = (c.count + m - e % m) % m;
    }
    value %= modulus(c);
    return c.bcd ? to_bcd(static_cast<u32>(value)) : static_cast<u16>(value);
}

u8 Pit::status(unsigned channel, u64 clock) const {
    const state::PitChannel& c = s_.channels[channel];
    const bool null_count = !c.counting || c.pending_count != 0;
    return static_cast<u8>((output(channel, clock) ? 0x80 : 0) | (null_count ? 0x40 : 0) |
                           c.access << 4 | c.mode << 1 | (c.bcd ? 1 : 0));
}

/// Loads pending counts whose cycle has ended.
void Pit::settle(u64 clock) {
    for (state::PitChannel& c : s_.channels) {
        if (!periodic(c) || c.pending_count == 0 || !running(c) || clock < c.pending_clock) {
            continue;
        }
        const bool at_cycle_end = (c.pending_clock - c.start_clock) % c.count == 0;
        c.count = c.pending_count;
        c.pending_count = 0;
        c.start_clock = at_cycle_end ? c.pending_clock : c.pending_clock - high_clocks(c.count);
    }
}

void Pit::load_count(state::PitChannel& c, u16 value, u64 clock) {
    u32 count = c.bcd ? from_bcd(value) : value;
    if (count == 0) {
        count = modulus(c);
    }
    if (gate_triggered(c)) {
        c.pending_count = count;
        c.counting = true;
        return;
    }
    if (periodic(c) && running(c)) {
        if (c.pending_count == 0) {
            const u64 phase = (clock - c.start_clock) % c.count;
            const u64 half = high_clocks(c.count);
            const u64 end = c.mode == 3 && phase < half ? half : c.count;
            c.pending_clock = clock - phase + end;
        }
        c.pending_count = count;
        return;
    }
    c.count = count;
    c.pending_count = 0;
    c.counting = true;
    c.start_clock = clock;
    c.held_clocks = 0;
}

void Pit::set_gate(state::PitChannel& c, bool level, u64 clock) {
    if (level == c.gate) {
        return;
    }
    if (!level) {
        c.held_clocks = c.counting ? clock - c.start_clock : 0;
        c.gate = false;
        return;
    }
    c.gate = true;
    if (!c.counting) {
        return;
    }
    if (c.mode == 0 || c.mode == 4) {
        c.start_clock = clock - c.held_clocks;
        return;
    }
    if (c.pending_count != 0) {
        c.count = c.pending_count;
        c.pending_count = 0;
    }
    c.start_clock = clock;
    c.triggered = gate_triggered(c);
}

void Pit::latch(state::PitChannel& c, u64 clock) {
    if (c.latched_bytes == 0) {
        c.latched = counter(c, clock);
        c.latched_bytes = c.access == 3 ? 2 : 1;
    }
}

void Pit::write_control(u8 value, u64 clock) {
    const unsigned select = bits(value, 7, 6);
    if (select == 3) { // read-back: a zero bit asks
        for (unsigned i = 0; i < 3; ++i) {
            state::PitChannel& c = s_.channels[i];
            if ((value & bit<u8>(i + 1)) == 0) {
                continue;
            }
            if ((value & 0x20) == 0) {
                latch(c, clock);
            }
            if ((value & 0x10) == 0 && !c.status_latched) {
                c.status = status(i, clock);
                c.status_latched = true;
            }
        }
        return;
    }
    state::PitChannel& c = s_.channels[select];
    const u8 access = bits(value, 5, 4);
    if (access == 0) {
        latch(c, clock);
        return;
    }
    const bool gate = c.gate;
    c = {};
    c.gate = gate;
    c.access = access;
    const u8 mode = bits(value, 3, 1);
    c.mode = mode > 5 ? mode - 4 : mode;
    c.bcd = (value & 1) != 0;
    c.count = modulus(c);
    c.start_clock = clock;
    c.seen_clock = clock;
}

void Pit::write_counter(state::PitChannel& c, u8 value, u64 clock) {
    if (c.access == 1) {
        load_count(c, value, clock);
    } else if (c.access == 2) {
        load_count(c, static_cast<u16>(value << 8), clock);
    } else if (!c.write_high_next) {
        c.low_byte = value;
        c.write_high_next = true;
        if (c.mode == 0) {
            c.counting = false; // the first byte stops mode 0
        }
    } else {
        c.write_high_next = false;
        load_count(c, static_cast<u16>(value << 8 | c.low_byte), clock);
    }
}

u8 Pit::read_counter(state::PitChannel& c, u64 clock) {
    if (c.status_latched) {
        c.status_latched = false;
        return c.status;
    }
    const u16 value = c.latched_bytes != 0 ? c.latched : counter(c, clock);
    if (c.latched_bytes != 0) {
        --c.latched_bytes;
    }
    bool high = c.access == 2;
    if (c.access == 3) {
        high = c.read_high_next;
        c.read_high_next = !c.read_high_next;
    }
    return static_cast<u8>(high ? value >> 8 : value);
}

u8 Pit::read(u16 port, Ticks now) {
    advance(now);
    const u64 clock = oscillator_.cycles(now);
    if (port == 0x61) {
        return static_cast<u8>((s_.channels[2].gate ? 1 : 0) | (s_.speaker ? 2 : 0) |
                               (clock / refresh_clocks % 2 != 0 ? 0x10 : 0) |
                               (output(2, clock) ? 0x20 : 0));
    }
    return port >= 0x40 && port <= 0x42 ? read_counter(s_.channels[port - 0x40], clock) : 0xff;
}

void Pit::write(u16 port, u8 value, Ticks now) {
    advance(now);
    const u64 clock = oscillator_.cycles(now);
    if (port == 0x61) {
        set_gate(s_.channels[2], (value & 1) != 0, clock);
        s_.speaker = (value & 2) != 0;
    } else if (port == 0x43) {
        write_control(value, clock);
    } else if (port >= 0x40 && port <= 0x42) {
        write_counter(s_.channels[port - 0x40], value, clock);
    }
    update_deadline();
}

void Pit::advance(Ticks now) {
    const u64 clock = oscillator_.cycles(now);
    settle(clock);
    s_.channels[0].seen_clock = std::max(s_.channels[0].seen_clock, clock);
    update_deadline();
}

void Pit::update_deadline() {
    const u64 change = next_change(0, s_.channels[0].seen_clock);
    deadline_ = change == 0 ? no_deadline : oscillator_.tick_of(change);
}

void Pit::reset(Ticks now) {
    s_ = {};
    s_.channels[2].gate = false;
    s_.channels[0].seen_clock = oscillator_.cycles(now);
    update_deadline();
}

Result<> Pit::load(const state::Pit& from) {
    for (const state::PitChannel& c : from.channels) {
        // BCD or not: digits above 9 count too, and a change to BCD leaves the count as it is.
        if (c.mode > 5 || c.access < 1 || c.access > 3 || c.count < 1 || c.count > max_count ||
            c.pending_count > max_count || c.latched_bytes > 2) {
            return fail(ErrorCode::corrupt, "channels: no such mode, access or count");
        }
    }
    s_ = from;
    update_deadline();
    return {};
}

} // namespace nestor::device
