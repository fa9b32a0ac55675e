// PCI configuration mechanism #1 with a host bridge and nothing else, and the reset control
// register 0xcf9.
#pragma once

#include "engine/state/board.hpp"
#include "src/base/types.hpp"

namespace nestor::device {

/// Ports 0xcf8 to 0xcff. Function 00:00.0 is a host bridge, which is how operating systems know
/// that the mechanism works; all others answer with all ones: there is none (PCI 2.3, 3.2.2.3).
class PciHost final {
public:
    [[nodiscard]] u32 read(u16 port, unsigned size) const;
    /// Returns whether the write asks for a reset.
    bool write(u16 port, unsigned size, u32 value);

    void reset() { s_ = {}; }
    [[nodiscard]] const state::PciHost& save() const { return s_; }
    void load(const state::PciHost& from) { s_ = from; }

private:
    state::PciHost s_;
};

} // namespace nestor::device
