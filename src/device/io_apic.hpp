// I/O APIC: Intel 82093AA data sheet (290566), with the EOI register of version 0x20.
#pragma once

#include "engine/hypervisor/exit.hpp"
#include "engine/state/board.hpp"
#include "src/base/result.hpp"
#include "src/base/types.hpp"

namespace nestor::device {

/// Where interrupt messages go.
class MessageSink {
public:
    virtual ~MessageSink() = default;
    virtual void send(const hv::InterruptMessage& message) = 0;
};

/// 24 inputs. A message is handed to the sink within the call that caused it.
class IoApic final {
public:
    static constexpr u64 base = 0xfec00000;
    static constexpr unsigned pins = 24;

    explicit IoApic(MessageSink& sink);

    /// Offset into the register page.
    [[nodiscard]] u32 read(u32 offset) const;
    void write(u32 offset, u32 value);
    /// Level of an input; the polarity bit is not looked at: true is "asserted".
    void set_line(unsigned pin, bool level);
    /// EOI of a level-triggered vector, from a local APIC or the EOI register. What is still
    /// asserted is sent again.
    void end_of_interrupt(Vector vector);

    void reset();
    [[nodiscard]] const state::IoApic& save() const { return s_; }
    [[nodiscard]] Result<> load(const state::IoApic& from);

private:
    void send(unsigned pin);
    void send_if_level(unsigned pin);
    void write_entry(unsigned pin, bool high, u32 value);

    MessageSink& sink_;
    state::IoApic s_;
};

} // namespace nestor::device
