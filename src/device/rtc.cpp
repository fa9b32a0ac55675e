// Real-time clock and CMOS RAM.
//
// Owns the 128 bytes and the relation of seconds to ticks. Time is never stepped: while the clock
// runs, registers 0 to 9 are computed when they are read, and the flags of register C are set for
// everything that happened since they were last looked at. Follows the MC146818A data sheet; the
// century byte at 0x32 and the memory sizes are where PC firmware puts them.
#include "src/device/rtc.hpp"

#include <algorithm>
#include <chrono>
#include <limits>

#include "src/base/bits.hpp"

namespace nestor::device {
namespace {

enum : u8 {
    reg_seconds = 0,
    reg_seconds_alarm = 1,
    reg_minutes = 2,
    reg_minutes_alarm = 3,
    reg_hours = 4,
    reg_hours_alarm = 5,
    reg_weekday = 6,
    reg_day = 7,
    reg_month = 8,
    reg_year = 9,
    reg_a = 10,
    reg_b = 11,
    reg_c = 12,
    reg_d = 13,
    reg_century = 0x32,
};

constexpr u8 a_update_in_progress = 0x80;
constexpr u8 a_divider = 0x70;
constexpr u8 a_divider_run = 0x20;
constexpr u8 b_set = 0x80;
constexpr u8 b_periodic = 0x40;
constexpr u8 b_alarm = 0x20;
constexpr u8 b_update = 0x10;
constexpr u8 b_binary = 0x04;
constexpr u8 b_24_hours = 0x02;
constexpr u8 c_flags = b_periodic | b_alarm | b_update;

constexpr i64 seconds_limit = i64{1} << 40; // about 34,000 years either way
constexpr i64 never = std::numeric_limits<i64>::max();

bool is_time(u8 index) {
    const bool alarm = index <= reg_hours_alarm && index % 2 != 0;
    return (index <= reg_year && !alarm) || index == reg_century;
}

u8 encode(const state::Rtc& s, unsigned value) {
    if ((s.cmos[reg_b] & b_binary) != 0) {
        return static_cast<u8>(value);
    }
    return static_cast<u8>((value / 10 % 10) << 4 | value % 10);
}

unsigned decode(const state::Rtc& s, u8 value) {
    return (s.cmos[reg_b] & b_binary) != 0 ? value : (value >> 4) * 10u + (value & 15u);
}

u8 encode_hour(const state::Rtc& s, unsigned hour) {
    if ((s.cmos[reg_b] & b_24_hours) != 0) {
        return encode(s, hour);
    }
    const unsigned shown = hour % 12 == 0 ? 12 : hour % 12;
    return static_cast<u8>(encode(s, shown) | (hour >= 12 ? 0x80 : 0));
}

unsigned decode_hour(const state::Rtc& s, u8 value) {
    if ((s.cmos[reg_b] & b_24_hours) != 0) {
        return decode(s, value);
    }
    return decode(s, value & 0x7f) % 12 + ((value & 0x80) != 0 ? 12 : 0);
}

void store_memory_size(state::Rtc& s, unsigned index, u64 value) {
    value = std::min<u64>(value, 0xffff);
    s.cmos[index] = static_cast<u8>(value);
    s.cmos[index + 1] = static_cast<u8>(value >> 8);
}

} // namespace

Rtc::Rtc(const Config& config) : tick_hz_(config.tick_hz) {
    s_.base_seconds = config.start_time;
    s_.seen_seconds = config.start_time;
    s_.cmos[reg_a] = 0x26;
    s_.cmos[reg_b] = b_24_hours;
    s_.cmos[reg_d] = 0x80; // the battery is good
    const u64 kib = config.memory_below_4g >> 10;
    store_memory_size(s_, 0x15, 640);
    store_memory_size(s_, 0x17, kib > 1024 ? kib - 1024 : 0);
    store_memory_size(s_, 0x30, kib > 1024 ? kib - 1024 : 0);
    store_memory_size(s_, 0x34, kib > 16384 ? (kib - 16384) / 64 : 0);
    store_memory_size(s_, 0x5b, config.memory_above_4g >> 16);
    s_.cmos[0x5d] = static_cast<u8>(config.memory_above_4g >> 32);
    s_.cmos[0x5f] = static_cast<u8>(config.cpus - 1);
}

bool Rtc::stopped() const {
    return (s_.cmos[reg_b] & b_set) != 0 || (s_.cmos[reg_a] & a_divider) != a_divider_run;
}

i64 Rtc::seconds(Ticks now) const {
    return s_.base_seconds + static_cast<i64>((now.value() - s_.base_tick) / tick_hz_);
}

Ticks Rtc::tick_of_second(i64 second) const {
    const u128 wait = u128{static_cast<u64>(second - s_.base_seconds)} * tick_hz_;
    const u128 tick = s_.base_tick + wait;
    return wait >> 63 != 0 ? no_deadline : Ticks(static_cast<u64>(tick));
}

u64 Rtc::periodic_hz() const {
    const unsigned rate = s_.cmos[reg_a] & 15u;
    if (rate == 0 || (s_.cmos[reg_a] & a_divider) != a_divider_run) {
        return 0;
    }
    return u64{32768} >> ((rate <= 2 ? rate + 7 : rate) - 1); // 1 and 2 are 256 and 128 Hz
}

u64 Rtc::periods(Ticks now) const {
    const u64 rate = periodic_hz();
    return rate == 0 ? s_.periodic_seen
                     : Oscillator(rate, tick_hz_).cycles(Ticks(now.value() - s_.periodic_base));
}

i64 Rtc::next_alarm(i64 after) const {
    const u8 second = s_.cmos[reg_seconds_alarm];
    const u8 minute = s_.cmos[reg_minutes_alarm];
    const u8 hour = s_.cmos[reg_hours_alarm];
    // 0xc0 and above match everything. At most 24 + 60 + 60 steps are needed.
    const i64 last = after + 86400;
    for (i64 t = after + 1; t <= last;) {
        const unsigned of_day = static_cast<unsigned>((t % 86400 + 86400) % 86400);
        if (hour < 0xc0 && decode_hour(s_, hour) != of_day / 3600) {
            t += 3600 - of_day % 3600;
        } else if (minute < 0xc0 && decode(s_, minute) != of_day / 60 % 60) {
            t += 60 - of_day % 60;
        } else if (second < 0xc0 && decode(s_, second) != of_day % 60) {
            ++t;
        } else {
            return t;
        }
    }
    return never;
}

bool Rtc::update_in_progress(Ticks now) const {
    if (stopped()) {
        return false;
    }
    const u64 into = (now.value() - s_.base_tick) % tick_hz_;
    return into >= tick_hz_ - tick_hz_ * 244 / 1000000; // the last 244 us of a second
}

/// Sets the flags of register C for all that happened up to `now`.
void Rtc::advance(Ticks now) {
    u8& flags = s_.cmos[reg_c];
    if (!stopped()) {
        const i64 current = seconds(now);
        if (current > s_.seen_seconds) {
            flags |= b_update;
            if ((flags & b_alarm) == 0 && next_alarm(s_.seen_seconds) <= current) {
                flags |= b_alarm;
            }
            s_.seen_seconds = current;
        }
    }
    const u64 current_period = periods(now);
    if (current_period > s_.periodic_seen) {
        flags |= b_periodic;
        s_.periodic_seen = current_period;
    }
    update_deadline();
}

void Rtc::update_deadline() {
    deadline_ = no_deadline;
    const u8 wanted = s_.cmos[reg_b] & static_cast<u8>(~s_.cmos[reg_c]);
    if (!stopped() && (wanted & b_update) != 0) {
        deadline_ = tick_of_second(s_.seen_seconds + 1);
    }
    if (!stopped() && (wanted & b_alarm) != 0) {
        const i64 alarm = next_alarm(s_.seen_seconds);
        if (alarm != never) {
            deadline_ = std::min(deadline_, tick_of_second(alarm));
        }
    }
    const u64 rate = periodic_hz();
    if ((wanted & b_periodic) != 0 && rate != 0) {
        const Ticks wait = Oscillator(rate, tick_hz_).tick_of(s_.periodic_seen + 1);
        if (wait != no_deadline) {
            deadline_ = std::min(deadline_, Ticks(s_.periodic_base + wait.value()));
        }
    }
}

bool Rtc::irq() const { return (s_.cmos[reg_b] & s_.cmos[reg_c] & c_flags) != 0; }

/// Puts the time of `now` into the time registers.
void Rtc::show_time(Ticks now) {
    const std::chrono::sys_seconds time{std::chrono::seconds{seconds(now)}};
    const auto day = std::chrono::floor<std::chrono::days>(time);
    const std::chrono::year_month_day date{day};
    const std::chrono::hh_mm_ss clock{time - day};
    const int year = static_cast<int>(date.year());
    const unsigned positive = static_cast<unsigned>((year % 10000 + 10000) % 10000);
    s_.cmos[reg_seconds] = encode(s_, static_cast<unsigned>(clock.seconds().count()));
    s_.cmos[reg_minutes] = encode(s_, static_cast<unsigned>(clock.minutes().count()));
    s_.cmos[reg_hours] = encode_hour(s_, static_cast<unsigned>(clock.hours().count()));
    s_.cmos[reg_weekday] = encode(s_, std::chrono::weekday{day}.c_encoding() + 1);
    s_.cmos[reg_day] = encode(s_, static_cast<unsigned>(date.day()));
    s_.cmos[reg_month] = encode(s_, static_cast<unsigned>(date.month()));
    s_.cmos[reg_year] = encode(s_, positive % 100);
    s_.cmos[reg_century] = encode(s_, positive / 100);
}

/// Starts the clock from the time registers, `ticks_into_second` after a full second.
void Rtc::set_time(Ticks now, u64 ticks_into_second) {
    const int year =
        static_cast<int>(decode(s_, s_.cmos[reg_century]) * 100 + decode(s_, s_.cmos[reg_year]));
    // Out-of-range months and days count on from the start of the year.
    const unsigned month = (std::max(decode(s_, s_.cmos[reg_month]), 1u) - 1) % 12 + 1;
    const auto first = std::chrono::sys_days{std::chrono::year{year} / static_cast<int>(month) / 1};
    const i64 days = first.time_since_epoch().count() +
                     static_cast<i64>(std::max(decode(s_, s_.cmos[reg_day]), 1u)) - 1;
    s_.base_seconds = days * 86400 + i64{decode_hour(s_, s_.cmos[reg_hours])} * 3600 +
                      i64{decode(s_, s_.cmos[reg_minutes])} * 60 +
                      i64{decode(s_, s_.cmos[reg_seconds])};
    s_.base_tick = now.value() - ticks_into_second;
    s_.seen_seconds = s_.base_seconds;
}

void Rtc::set_seconds(i64 seconds, Ticks now) {
    advance(now);
    s_.base_seconds = seconds;
    s_.base_tick = now.value();
    s_.seen_seconds = seconds;
    if (stopped()) {
        show_time(now);
    }
    update_deadline();
}

void Rtc::restart_periodic(Ticks now) {
    s_.periodic_base = now.value();
    s_.periodic_seen = 0;
}

u8 Rtc::read_register(u8 index, Ticks now) {
    if (is_time(index) && !stopped()) {
        show_time(now);
    }
    switch (index) {
    case reg_a:
        return static_cast<u8>(s_.cmos[reg_a] |
                               (update_in_progress(now) ? a_update_in_progress : 0));
    case reg_c: {
        const u8 flags = static_cast<u8>(s_.cmos[reg_c] | (irq() ? 0x80 : 0));
        s_.cmos[reg_c] = 0;
        return flags;
    }
    default:
        return s_.cmos[index];
    }
}

void Rtc::write_register(u8 index, u8 value, Ticks now) {
    const bool was_stopped = stopped();
    const u64 phase = (now.value() - s_.base_tick) % tick_hz_;
    switch (index) {
    case reg_a: {
        const bool divider_starts =
            (value & a_divider) == a_divider_run && (s_.cmos[reg_a] & a_divider) != a_divider_run;
        if (!was_stopped) {
            show_time(now);
        }
        if (((value ^ s_.cmos[reg_a]) & 0x7f) != 0) {
            s_.cmos[reg_a] = value & 0x7f;
            restart_periodic(now);
        }
        if (was_stopped && !stopped()) {
            // The first update comes half a second after the divider is let go.
            set_time(now, divider_starts ? tick_hz_ / 2 : phase);
        }
        return;
    }
    case reg_b:
        if (!was_stopped) {
            show_time(now);
        }
        // SET clears UIE.
        s_.cmos[reg_b] = (value & b_set) != 0 ? value & static_cast<u8>(~b_update) : value;
        if (was_stopped && !stopped()) {
            set_time(now, phase);
        } else if (!was_stopped && !stopped()) {
            show_time(now); // in the format now chosen
        }
        return;
    case reg_c:
    case reg_d:
        return; // read-only
    default:
        if (is_time(index) && !was_stopped) {
            show_time(now);
            s_.cmos[index] = value;
            set_time(now, phase);
        } else {
            s_.cmos[index] = value;
        }
        return;
    }
}

u8 Rtc::read(u16 port, Ticks now) {
    if (port != 0x71) {
        return 0xff; // the index register is write-only
    }
    advance(now);
    const u8 value = read_register(s_.index & 0x7f, now);
    update_deadline();
    return value;
}

void Rtc::write(u16 port, u8 value, Ticks now) {
    if (port == 0x70) {
        s_.index = value;
    } else if (port == 0x71) {
        advance(now);
        write_register(s_.index & 0x7f, value, now);
        update_deadline();
    }
}

void Rtc::reset() {
    s_.index = 0;
    s_.cmos[reg_b] &= static_cast<u8>(~(c_flags | 0x08));
    s_.cmos[reg_c] = 0;
    update_deadline();
}

Result<> Rtc::load(const state::Rtc& from) {
    const auto sane = [](i64 s) { return s > -seconds_limit && s < seconds_limit; };
    if (!sane(from.base_seconds) || !sane(from.seen_seconds)) {
        return fail(ErrorCode::corrupt, "baseSeconds or seenSeconds: out of range");
    }
    if ((from.cmos[reg_a] & 0x80) != 0 || (from.cmos[reg_c] & ~c_flags) != 0) {
        return fail(ErrorCode::corrupt, "cmos: register A or C has bits that are not stored");
    }
    s_ = from;
    update_deadline();
    return {};
}

} // namespace nestor::device
