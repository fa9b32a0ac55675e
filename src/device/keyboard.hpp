// Intel 8042 keyboard controller with nothing plugged in: IBM PC/AT Technical Reference.
#pragma once

#include "engine/state/board.hpp"
#include "src/base/result.hpp"
#include "src/base/types.hpp"

namespace nestor::device {

/// Enough of a controller to answer its self test and to pull the reset line.
class Keyboard final {
public:
    /// Ports 0x60 and 0x64.
    [[nodiscard]] u8 read(u16 port);
    /// Returns whether the write pulled the reset line.
    bool write(u16 port, u8 value);
    /// Level of IRQ 1.
    [[nodiscard]] bool irq() const { return s_.output_full && (s_.configuration & 1) != 0; }

    void reset() { s_ = {}; }
    [[nodiscard]] const state::Keyboard& save() const { return s_; }
    [[nodiscard]] Result<> load(const state::Keyboard& from);

private:
    void answer(u8 value);
    bool command(u8 value);
    bool data(u8 value);

    state::Keyboard s_;
};

} // namespace nestor::device
