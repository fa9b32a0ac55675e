// The PC's pair of 8259A interrupt controllers: Intel 8259A data sheet (231468), ELCR as in PIIX.
#pragma once

#include "engine/state/board.hpp"
#include "src/base/result.hpp"
#include "src/base/types.hpp"

namespace nestor::device {

/// Master at 0x20, slave at 0xa0 on the master's input 2, ELCR at 0x4d0 and 0x4d1.
class Pic final {
public:
    /// Ports 0x20, 0x21, 0xa0, 0xa1, 0x4d0, 0x4d1. A read in poll mode acknowledges.
    [[nodiscard]] u8 read(u16 port);
    void write(u16 port, u8 value);
    /// Level of input 0..15; input 2 is the cascade and ignores this.
    void set_line(unsigned irq, bool level);
    /// Level of INTR towards the CPUs.
    [[nodiscard]] bool output() const { return pending(master) >= 0; }
    /// The INTA cycle: the vector of the highest request, now in service; the spurious vector of
    /// input 7 when there is none.
    Vector acknowledge();

    void reset();
    [[nodiscard]] const state::Pic& save() const { return s_; }
    [[nodiscard]] Result<> load(const state::Pic& from);

private:
    static constexpr unsigned master = 0;
    static constexpr unsigned slave = 1;

    [[nodiscard]] u8 requests(unsigned chip) const;
    [[nodiscard]] int pending(unsigned chip) const;
    void acknowledge_input(unsigned chip, unsigned irq);
    u8 poll(unsigned chip);
    void write_command(unsigned chip, u8 value);
    void write_ocw2(unsigned chip, u8 value);
    void write_data(unsigned chip, u8 value);

    state::Pic s_;
};

} // namespace nestor::device
