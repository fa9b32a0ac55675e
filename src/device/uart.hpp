// 16550A serial port: National Semiconductor PC16550D data sheet, 1995.
#pragma once

#include <optional>
#include <span>

#include "engine/state/board.hpp"
#include "src/base/result.hpp"
#include "src/base/types.hpp"

namespace nestor::device {

/// The register file of one 16550A. It has no notion of time: a byte written leaves at once, and a
/// byte received is there at once. What the FIFO cannot hold waits on the wire, in order.
class Uart final {
public:
    /// Reads register 0..7. Reading RBR, LSR, IIR and MSR has the data sheet's side effects.
    [[nodiscard]] u8 read(unsigned reg);
    /// Writes register 0..7. Returns the byte that leaves on the line, if this write sent one.
    std::optional<u8> write(unsigned reg, u8 value);
    /// Bytes that arrive on the line.
    void receive(std::span<const u8> bytes);
    /// Level of the interrupt output.
    [[nodiscard]] bool irq() const { return interrupt_id() != 1; }

    void reset() { s_ = {}; }
    [[nodiscard]] const state::Uart& save() const { return s_; }
    /// Fails where no sequence of accesses could have led to `from`.
    [[nodiscard]] Result<> load(const state::Uart& from);

private:
    [[nodiscard]] bool fifo_enabled() const;
    [[nodiscard]] std::size_t fifo_capacity() const { return fifo_enabled() ? 16 : 1; }
    [[nodiscard]] bool loopback() const;
    [[nodiscard]] u8 interrupt_id() const;
    [[nodiscard]] u8 line_status() const;
    [[nodiscard]] u8 modem_lines() const;
    u8 take_received();
    void take_from_wire();
    std::optional<u8> transmit(u8 value);
    void write_fifo_control(u8 value);
    void write_modem_control(u8 value);

    state::Uart s_;
};

} // namespace nestor::device
