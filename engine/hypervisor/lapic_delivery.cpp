// Interrupts of the local APIC: commands sent, messages accepted, priorities, service and its end
// (SDM 3A 11.6, 11.8).
//
// Works on the banks of state::Lapic::page, whoever else does: L0, while it serves the page, or
// what it tells the silicon about it.
#include <algorithm>

#include "engine/hypervisor/lapic.hpp"

namespace nestor::hv {

void Lapic::send_command(u64 icr, Effects& effects) {
    reg(ApicRegister::icr) = static_cast<u32>(icr) & 0xccfff;
    InterruptMessage m;
    m.vector = Vector(static_cast<u8>(icr));
    m.delivery = static_cast<InterruptMessage::Delivery>(icr >> 8 & 7);
    m.logical = (icr >> 11 & 1) != 0;
    m.assert_level = (icr >> 14 & 1) != 0;
    m.level_triggered = (icr >> 15 & 1) != 0;
    m.shorthand = static_cast<InterruptMessage::Shorthand>(icr >> 18 & 3);
    m.destination = static_cast<u32>(icr >> 32);
    using Delivery = InterruptMessage::Delivery;
    const bool plain = m.delivery == Delivery::fixed || m.delivery == Delivery::lowest_priority;
    if (plain && m.vector.value() < 16) {
        error(esr_send_illegal);
        return;
    }
    // SDM 3A 11.6.1: INIT level de-assert does nothing on these processors.
    if (m.delivery == Delivery::init && m.level_triggered && !m.assert_level) {
        return;
    }
    if (plain) {
        m.level_triggered = false; // IPIs are edge triggered, whatever the ICR says
    }
    effects.send = m;
}

bool Lapic::matches(const InterruptMessage& m) const {
    if (!enabled()) {
        return !m.logical && m.destination == id_;
    }
    const bool broadcast = m.destination == 0xff || m.destination == ~u32{0};
    if (!m.logical) {
        const u32 own = x2apic() ? s_.x2apic_id : reg(ApicRegister::id) >> 24;
        return broadcast || m.destination == own;
    }
    if (x2apic()) {
        const u32 ldr = reg(ApicRegister::ldr);
        return m.destination == ~u32{0} ||
               (m.destination >> 16 == ldr >> 16 && (m.destination & ldr & 0xffff) != 0);
    }
    const u32 ldr = reg(ApicRegister::ldr) >> 24;
    if (reg(ApicRegister::dfr) >> 28 == 0xf) { // flat
        return (m.destination & ldr & 0xff) != 0;
    }
    // SDM 3A 11.6.2.2: cluster model.
    return (m.destination >> 4 & 15) == 15 ||
           ((m.destination >> 4 & 15) == ldr >> 4 && (m.destination & ldr & 15) != 0);
}

bool Lapic::admit(Vector vector, bool level_triggered) {
    if (!software_enabled()) {
        return false;
    }
    if (vector.value() < 16) {
        error(esr_receive_illegal);
        return false;
    }
    set_bit(ApicRegister::tmr, vector.value(), level_triggered);
    return true;
}

void Lapic::accept(Vector vector, bool level_triggered) {
    if (admit(vector, level_triggered)) {
        request(vector);
    }
}

void Lapic::take_posted(std::span<u32> descriptor) {
    for (unsigned i = 0; i < 8; ++i) {
        s_.page[static_cast<u16>(ApicRegister::irr) / 4 + i * 4] |= descriptor[i];
        descriptor[i] = 0;
    }
    descriptor[8] &= ~u32{1}; // ON
}

std::optional<InterruptMessage> Lapic::raise_local(ApicRegister lvt) {
    const u32 entry = reg(lvt);
    if (!enabled() || (entry & lvt_masked) != 0) {
        return std::nullopt;
    }
    InterruptMessage m;
    m.vector = Vector(static_cast<u8>(entry));
    m.delivery = lvt == ApicRegister::lvt_timer || lvt == ApicRegister::lvt_error
                     ? InterruptMessage::Delivery::fixed
                     : static_cast<InterruptMessage::Delivery>(entry >> 8 & 7);
    if (lvt == ApicRegister::lvt_pmi) {
        reg(lvt) |= lvt_masked; // SDM 3B 20.6.3: a PMI masks its entry
    }
    if (m.delivery == InterruptMessage::Delivery::fixed) {
        accept(m.vector, false);
        return std::nullopt;
    }
    return m;
}

u8 Lapic::processor_priority() const {
    const int isr = highest(ApicRegister::isr);
    const u32 in_service = isr < 0 ? 0 : static_cast<u32>(isr) & 0xf0;
    const u32 task = reg(ApicRegister::tpr);
    return static_cast<u8>((task & 0xf0) >= in_service ? task : in_service);
}

std::optional<Vector> Lapic::deliverable() const {
    if (!software_enabled()) {
        return std::nullopt;
    }
    const int irr = highest(ApicRegister::irr);
    if (irr < 0 || (static_cast<u32>(irr) & 0xf0) <= (processor_priority() & 0xf0u)) {
        return std::nullopt;
    }
    return Vector(static_cast<u8>(irr));
}

void Lapic::acknowledge(Vector vector) {
    set_bit(ApicRegister::irr, vector.value(), false);
    set_bit(ApicRegister::isr, vector.value(), true);
}

void Lapic::end_of_interrupt(Effects& effects) {
    const int isr = highest(ApicRegister::isr);
    if (isr < 0) {
        return;
    }
    const Vector vector(static_cast<u8>(isr));
    set_bit(ApicRegister::isr, vector.value(), false);
    effects = ended(vector);
}

Lapic::Effects Lapic::ended(Vector vector) const {
    Effects effects;
    effects.interrupt_ended = true;
    const bool suppressed = (reg(ApicRegister::svr) & 0x1000) != 0;
    if (bit_set(ApicRegister::tmr, vector.value()) && !suppressed) {
        effects.eoi_broadcast = vector;
    }
    return effects;
}

u8 Lapic::highest_requested() const {
    return static_cast<u8>(std::max(0, highest(ApicRegister::irr)));
}

u8 Lapic::highest_in_service() const {
    return static_cast<u8>(std::max(0, highest(ApicRegister::isr)));
}

std::array<u64, 4> Lapic::level_triggered() const {
    std::array<u64, 4> out{};
    for (unsigned i = 0; i < 8; ++i) {
        out[i / 2] |= u64{s_.page[static_cast<u16>(ApicRegister::tmr) / 4 + i * 4]} << i % 2 * 32;
    }
    return out;
}

u8 Lapic::tpr_threshold() const {
    const u8 wanted = highest_requested() >> 4;
    return !software_enabled() || cr8() < wanted ? u8{0} : wanted;
}

bool Lapic::accepts_pic() const {
    if (!enabled()) {
        return true; // SDM 3A 11.4.3: LINT0 is INTR then
    }
    const u32 lint0 = reg(ApicRegister::lvt_lint0);
    return (lint0 & lvt_masked) == 0 && (lint0 >> 8 & 7) == 7;
}

} // namespace nestor::hv
