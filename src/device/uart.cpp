// 16550A serial port.
//
// Owns the registers, the receive FIFO and what still waits on the wire. Follows the register
// descriptions of the PC16550D data sheet (section 8). Two simplifications are part of the
// contract: transmission takes no time, so THRE and TEMT are always set, and the character timeout
// of the receiver is immediate, so that a driver never waits for bytes below its trigger level.
#include "src/device/uart.hpp"

#include <array>

#include "src/base/bits.hpp"

namespace nestor::device {
namespace {

constexpr u8 ier_received = 1;
constexpr u8 ier_transmit_empty = 2;
constexpr u8 ier_line_status = 4;
constexpr u8 ier_modem_status = 8;

constexpr u8 iir_none = 1;
constexpr u8 iir_modem_status = 0;
constexpr u8 iir_transmit_empty = 2;
constexpr u8 iir_received = 4;
constexpr u8 iir_line_status = 6;
constexpr u8 iir_timeout = 12;

constexpr u8 fcr_enable = 1;
constexpr u8 fcr_clear_receiver = 2;

constexpr u8 lcr_divisor_latch = 0x80;
constexpr u8 mcr_loopback = 0x10;

constexpr u8 lsr_data_ready = 1;
constexpr u8 lsr_overrun = 2;
constexpr u8 lsr_transmitter_empty = 0x60;

constexpr std::array<std::size_t, 4> trigger_levels{1, 4, 8, 14};

} // namespace

bool Uart::fifo_enabled() const { return (s_.fifo_control & fcr_enable) != 0; }

bool Uart::loopback() const { return (s_.modem_control & mcr_loopback) != 0; }

u8 Uart::read(unsigned reg) {
    const bool latch = (s_.line_control & lcr_divisor_latch) != 0;
    switch (reg) {
    case 0:
        return latch ? static_cast<u8>(s_.divisor) : take_received();
    case 1:
        return latch ? static_cast<u8>(s_.divisor >> 8) : s_.interrupt_enable;
    case 2: {
        const u8 id = interrupt_id();
        if (id == iir_transmit_empty) {
            s_.transmit_empty_pending = false;
        }
        return static_cast<u8>(id | (fifo_enabled() ? 0xc0 : 0));
    }
    case 3:
        return s_.line_control;
    case 4:
        return s_.modem_control;
    case 5: {
        const u8 status = line_status();
        s_.overrun = false;
        return status;
    }
    case 6: {
        const u8 status = static_cast<u8>(modem_lines() | s_.modem_delta);
        s_.modem_delta = 0;
        return status;
    }
    default:
        return s_.scratch;
    }
}

std::optional<u8> Uart::write(unsigned reg, u8 value) {
    const bool latch = (s_.line_control & lcr_divisor_latch) != 0;
    switch (reg) {
    case 0:
        if (latch) {
            s_.divisor = static_cast<u16>((s_.divisor & 0xff00) | value);
            return std::nullopt;
        }
        return transmit(value);
    case 1:
        if (latch) {
            s_.divisor = static_cast<u16>((s_.divisor & 0x00ff) | (value << 8));
            return std::nullopt;
        }
        // Enabling the interrupt while the transmitter is empty, which it always is, raises it.
        if ((value & ~s_.interrupt_enable & ier_transmit_empty) != 0) {
            s_.transmit_empty_pending = true;
        }
        s_.interrupt_enable = value & 0x0f;
        return std::nullopt;
    case 2:
        write_fifo_control(value);
        return std::nullopt;
    case 3:
        s_.line_control = value;
        return std::nullopt;
    case 4:
        write_modem_control(value);
        return std::nullopt;
    case 7:
        s_.scratch = value;
        return std::nullopt;
    default: // LSR and MSR are read-only
        return std::nullopt;
    }
}

void Uart::receive(std::span<const u8> bytes) {
    s_.wire.insert(s_.wire.end(), bytes.begin(), bytes.end());
    take_from_wire();
}

u8 Uart::interrupt_id() const {
    // PC16550D table IV: line status, received data or timeout, transmitter empty, modem status.
    if ((s_.interrupt_enable & ier_line_status) != 0 && s_.overrun) {
        return iir_line_status;
    }
    if ((s_.interrupt_enable & ier_received) != 0 && !s_.fifo.empty()) {
        const std::size_t trigger = trigger_levels[bits(s_.fifo_control, 7, 6)];
        return !fifo_enabled() || s_.fifo.size() >= trigger ? iir_received : iir_timeout;
    }
    if ((s_.interrupt_enable & ier_transmit_empty) != 0 && s_.transmit_empty_pending) {
        return iir_transmit_empty;
    }
    if ((s_.interrupt_enable & ier_modem_status) != 0 && s_.modem_delta != 0) {
        return iir_modem_status;
    }
    return iir_none;
}

u8 Uart::line_status() const {
    return static_cast<u8>(lsr_transmitter_empty | (s_.fifo.empty() ? 0 : lsr_data_ready) |
                           (s_.overrun ? lsr_overrun : 0));
}

u8 Uart::modem_lines() const {
    if (!loopback()) {
        return 0xb0; // carrier, data set ready, clear to send
    }
    // RTS feeds CTS, DTR feeds DSR, OUT1 feeds RI, OUT2 feeds DCD.
    const u8 mcr = s_.modem_control;
    return static_cast<u8>(((mcr & 2) << 3) | ((mcr & 1) << 5) | ((mcr & 4) << 4) |
                           ((mcr & 8) << 4));
}

u8 Uart::take_received() {
    if (s_.fifo.empty()) {
        return 0;
    }
    const u8 value = s_.fifo.front();
    s_.fifo.erase(s_.fifo.begin());
    take_from_wire();
    return value;
}

void Uart::take_from_wire() {
    if (loopback()) {
        return;
    }
    const std::size_t room = fifo_capacity() - std::min(fifo_capacity(), s_.fifo.size());
    const std::size_t n = std::min(room, s_.wire.size());
    const auto end = s_.wire.begin() + static_cast<std::ptrdiff_t>(n);
    s_.fifo.insert(s_.fifo.end(), s_.wire.begin(), end);
    s_.wire.erase(s_.wire.begin(), end);
}

std::optional<u8> Uart::transmit(u8 value) {
    s_.transmit_empty_pending = true;
    if (!loopback()) {
        return value;
    }
    if (s_.fifo.size() < fifo_capacity()) {
        s_.fifo.push_back(value);
    } else {
        s_.overrun = true;
        if (!fifo_enabled()) {
            s_.fifo.back() = value; // RBR is overwritten, the FIFO is not
        }
    }
    return std::nullopt;
}

void Uart::write_fifo_control(u8 value) {
    const bool switched = ((value ^ s_.fifo_control) & fcr_enable) != 0;
    if (switched ||
        (value & (fcr_enable | fcr_clear_receiver)) == (fcr_enable | fcr_clear_receiver)) {
        s_.fifo.clear();
    }
    s_.fifo_control = (value & fcr_enable) != 0 ? value & 0xc9 : 0;
    take_from_wire();
}

void Uart::write_modem_control(u8 value) {
    const u8 before = modem_lines();
    s_.modem_control = value & 0x1f;
    const u8 after = modem_lines();
    const u8 changed = before ^ after;
    // TERI tells only of a falling ring indicator.
    const u8 delta = static_cast<u8>(bits(changed, 5, 4) | (bits(changed, 7, 7) << 3) |
                                     (bits(static_cast<u8>(before & ~after), 6, 6) << 2));
    s_.modem_delta |= delta;
    take_from_wire();
}

Result<> Uart::load(const state::Uart& from) {
    const std::size_t capacity = (from.fifo_control & fcr_enable) != 0 ? 16 : 1;
    if (from.fifo.size() > capacity) {
        return fail(ErrorCode::corrupt, "fifo: more bytes than the receiver holds");
    }
    if ((from.interrupt_enable & 0xf0) != 0 || (from.modem_control & 0xe0) != 0 ||
        (from.modem_delta & 0xf0) != 0) {
        return fail(ErrorCode::corrupt,
                    "interruptEnable, modemControl or modemDelta: reserved bits");
    }
    s_ = from;
    return {};
}

} // namespace nestor::device
