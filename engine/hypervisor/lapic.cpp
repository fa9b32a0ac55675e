// Registers of the local APIC (SDM 3A chapter 11): what a read gives, what a write sets off.
//
// Owns state::Lapic. PPR is a word of the page that only the silicon writes, where it delivers
// virtual interrupts; everybody else computes it. The timer is in lapic_timer.cpp, what comes of
// interrupts in lapic_delivery.cpp.
#include "engine/hypervisor/lapic.hpp"

#include <bit>
#include <cstring>

#include <fmt/format.h>

#include "src/base/bits.hpp"

namespace nestor::hv {

namespace {

constexpr u16 page_bytes = 1024;
constexpr u32 version_value = 0x00050014; ///< max LVT entry 5 (no CMCI), integrated APIC

/// Vector, software enable, focus checking, EOI-broadcast suppression (SDM 3A figure 11-23).
constexpr u32 svr_writable = 0x13ff;

bool is_lvt(u16 offset) { return offset >= 0x320 && offset <= 0x370; }

/// Writable bits of each LVT entry, from 0x320 on (SDM 3A figure 11-8).
constexpr u32 lvt_writable[] = {0x700ff, 0x107ff, 0x107ff, 0x1a7ff, 0x1a7ff, 0x100ff};

/// Registers that exist, and may be written.
bool readable(u16 offset) {
    using enum ApicRegister;
    switch (static_cast<ApicRegister>(offset)) {
    case id:
    case version:
    case tpr:
    case apr:
    case ppr:
    case ldr:
    case dfr:
    case svr:
    case esr:
    case icr:
    case icr2:
    case timer_initial:
    case timer_current:
    case timer_divide:
        return true;
    default:
        return is_lvt(offset) || (offset >= 0x100 && offset < 0x280);
    }
}

} // namespace

// --- registers ----------------------------------------------------------------------------------

void Lapic::reset() {
    const u64 bsp = id_ == 0 ? apic_base_bsp : 0;
    s_ = state::Lapic{};
    s_.base = 0xfee00000 | apic_base_enable | bsp;
    init();
}

void Lapic::init() {
    const u64 base_kept = s_.base;
    s_ = state::Lapic{};
    s_.base = base_kept;
    s_.x2apic_id = id_;
    reg(ApicRegister::id) = u32{id_} << 24;
    reg(ApicRegister::version) = version_value;
    reg(ApicRegister::dfr) = ~u32{0};
    reg(ApicRegister::svr) = 0xff;
    for (u16 offset = 0x320; offset <= 0x370; offset += 0x10) {
        s_.page[offset / 4] = lvt_masked;
    }
    if (id_ == 0) {
        reg(ApicRegister::lvt_lint0) = 0x700; // virtual wire: ExtINT, as firmware leaves the BSP's
    }
    if (x2apic()) {
        set_x2apic_ids();
    }
    note_timer();
}

void Lapic::set_x2apic_ids() {
    reg(ApicRegister::id) = s_.x2apic_id;
    // SDM 3A 11.12.10.2: the logical ID follows from the x2APIC ID.
    reg(ApicRegister::ldr) = (s_.x2apic_id >> 4 << 16) | u32{1} << (s_.x2apic_id & 15);
}

bool Lapic::write_base(u64 value, u64 physical_bits) {
    const u64 reserved = ~(mask(static_cast<unsigned>(physical_bits) - 1, 12) | apic_base_bsp |
                           apic_base_x2apic | apic_base_enable);
    const auto mode_of = [](u64 v) { return v & (apic_base_enable | apic_base_x2apic); };
    const u64 from = mode_of(s_.base);
    const u64 to = mode_of(value);
    // SDM 3A figure 11-27: EXTD needs EN; x2APIC goes only to disabled; disabled only to xAPIC.
    const bool illegal = to == apic_base_x2apic ||
                         (from == 0 && to == (apic_base_enable | apic_base_x2apic)) ||
                         (from == (apic_base_enable | apic_base_x2apic) && to == apic_base_enable);
    if ((value & reserved) != 0 || illegal) {
        return false;
    }
    s_.base = value;
    if (to == 0 && from != 0) {
        init();
    } else if (x2apic() && from == apic_base_enable) {
        set_x2apic_ids();
    }
    return true;
}

bool Lapic::bit_set(ApicRegister bank, u8 vector) const {
    return (s_.page[static_cast<u16>(bank) / 4 + vector / 32u * 4] >> (vector & 31) & 1) != 0;
}

void Lapic::set_bit(ApicRegister bank, u8 vector, bool on) {
    u32& word = s_.page[static_cast<u16>(bank) / 4 + vector / 32u * 4];
    const u32 b = u32{1} << (vector & 31);
    word = on ? word | b : word & ~b;
}

int Lapic::highest(ApicRegister bank) const {
    for (int w = 7; w >= 0; --w) {
        const u32 word = s_.page[static_cast<u16>(bank) / 4 + static_cast<unsigned>(w) * 4];
        if (word != 0) {
            return w * 32 + static_cast<int>(std::bit_width(word)) - 1;
        }
    }
    return -1;
}

u32 Lapic::read(u16 offset, u64 ticks) const {
    switch (static_cast<ApicRegister>(offset)) {
    case ApicRegister::ppr:
        return processor_priority();
    case ApicRegister::timer_current:
        return timer_count(ticks);
    default:
        return s_.page[offset / 4];
    }
}

u32 Lapic::mmio_read(u16 offset, u64 ticks) {
    if ((offset & 15) != 0 || static_cast<ApicRegister>(offset) == ApicRegister::eoi) {
        return 0; // EOI is there, to be written
    }
    if (!readable(offset)) {
        error(esr_illegal_register);
        return 0;
    }
    return read(offset, ticks);
}

Lapic::Effects Lapic::mmio_write(u16 offset, u32 value, u64 ticks) {
    Effects effects;
    if ((offset & 15) != 0 || offset >= 0x400) {
        return effects;
    }
    switch (static_cast<ApicRegister>(offset)) {
    case ApicRegister::id:
        reg(ApicRegister::id) = value & 0xff000000;
        break;
    case ApicRegister::ldr:
        reg(ApicRegister::ldr) = value & 0xff000000;
        break;
    case ApicRegister::dfr:
        reg(ApicRegister::dfr) = value | 0x0fffffff;
        break;
    case ApicRegister::icr2:
        reg(ApicRegister::icr2) = value & 0xff000000;
        break;
    case ApicRegister::icr:
        send_command(u64{reg(ApicRegister::icr2) >> 24} << 32 | value, effects);
        break;
    case ApicRegister::self_ipi:
        break; // x2APIC only
    default:
        write(offset, value, ticks, effects);
    }
    note_timer();
    return effects;
}

Lapic::Effects Lapic::mmio_write_part(u16 offset, u32 value, unsigned size, u64 ticks) {
    const u16 at = offset & 0xff0;
    u32 word = at < page_bytes ? s_.page[at / 4] : 0;
    std::memcpy(reinterpret_cast<u8*>(&word) + (offset & 3), &value, size);
    return mmio_write(at, word, ticks);
}

Lapic::Effects Lapic::written(u16 offset, u64 ticks) {
    const u16 at = offset & 0xff0;
    const u32 value = s_.page[at / 4];
    if (static_cast<ApicRegister>(at) == ApicRegister::self_ipi) {
        accept(Vector(static_cast<u8>(value)), false);
        return {};
    }
    restore_timer();
    return mmio_write(at, value, ticks);
}

void Lapic::write(u16 offset, u32 value, u64 ticks, Effects& effects) {
    switch (static_cast<ApicRegister>(offset)) {
    case ApicRegister::tpr:
        reg(ApicRegister::tpr) = value & 0xff;
        break;
    case ApicRegister::eoi:
        end_of_interrupt(effects);
        break;
    case ApicRegister::svr:
        reg(ApicRegister::svr) = value & svr_writable;
        if ((value & 0x100) == 0) {
            // SDM 3A 11.4.7.2: every LVT entry is masked while the APIC is software disabled.
            for (u16 lvt = 0x320; lvt <= 0x370; lvt += 0x10) {
                s_.page[lvt / 4] |= lvt_masked;
            }
        }
        break;
    case ApicRegister::esr:
        reg(ApicRegister::esr) = s_.errors_pending;
        s_.errors_pending = 0;
        break;
    case ApicRegister::timer_initial:
        write_timer_initial(value, ticks);
        break;
    case ApicRegister::timer_divide:
        write_timer_divide(value, ticks);
        break;
    default:
        if (is_lvt(offset)) {
            write_lvt(offset, value, ticks);
        } else if (!readable(offset)) {
            error(esr_illegal_register);
        }
    }
}

void Lapic::write_lvt(u16 offset, u32 value, u64 ticks) {
    value &= lvt_writable[(offset - 0x320) / 0x10]; // delivery status, remote IRR: never set
    if (!software_enabled()) {
        value |= lvt_masked;
    }
    if (offset == static_cast<u16>(ApicRegister::lvt_timer)) {
        write_lvt_timer(value, ticks);
    } else {
        s_.page[offset / 4] = value;
    }
}

bool Lapic::msr_read(u32 index, u64 ticks, u64& value) const {
    const u16 offset = static_cast<u16>((index - 0x800) << 4);
    if (!x2apic() || offset >= 0x400) {
        return false;
    }
    switch (static_cast<ApicRegister>(offset)) {
    case ApicRegister::icr:
        value = u64{reg(ApicRegister::icr2)} << 32 | reg(ApicRegister::icr);
        return true;
    case ApicRegister::icr2:
    case ApicRegister::dfr:
    case ApicRegister::apr:
    case ApicRegister::eoi:
    case ApicRegister::self_ipi:
        return false;
    default:
        if (!readable(offset)) {
            return false;
        }
        value = read(offset, ticks);
        return true;
    }
}

bool Lapic::msr_write(u32 index, u64 value, u64 ticks, Effects& effects) {
    const u16 offset = static_cast<u16>((index - 0x800) << 4);
    if (!x2apic() || offset >= 0x400) {
        return false;
    }
    const bool narrow = value >> 32 == 0;
    switch (static_cast<ApicRegister>(offset)) {
    case ApicRegister::icr:
        // SDM 3A 11.12.9: no delivery status; reserved bits fault.
        if ((value & (mask(31, 20) | mask(17, 16) | bit(13) | bit(12))) != 0) {
            return false;
        }
        reg(ApicRegister::icr2) = static_cast<u32>(value >> 32);
        send_command(value, effects);
        return true;
    case ApicRegister::self_ipi:
        if (value > 0xff) {
            return false;
        }
        accept(Vector(static_cast<u8>(value)), false);
        return true;
    case ApicRegister::eoi:
    case ApicRegister::esr:
        if (value != 0) {
            return false; // SDM 3A 11.12.1.3
        }
        break;
    case ApicRegister::timer_initial:
        break;
    case ApicRegister::tpr:
        if (value > 0xff) {
            return false;
        }
        break;
    case ApicRegister::svr:
        if ((value & ~u64{svr_writable}) != 0) {
            return false;
        }
        break;
    case ApicRegister::timer_divide:
        if ((value & ~u64{0xb}) != 0) {
            return false;
        }
        break;
    default:
        if (!is_lvt(offset)) {
            return false;
        }
        if ((value & ~u64{lvt_writable[(offset - 0x320) / 0x10]}) != 0) {
            return false;
        }
    }
    if (!narrow) {
        return false;
    }
    write(offset, static_cast<u32>(value), ticks, effects);
    note_timer();
    return true;
}

void Lapic::error(u32 error_bit) {
    s_.errors_pending |= error_bit;
    const u32 entry = reg(ApicRegister::lvt_error);
    if ((entry & lvt_masked) == 0 && (entry & 0xff) < 16) {
        s_.errors_pending |= esr_receive_illegal; // an error of its own, which raises nothing more
        return;
    }
    raise_local(ApicRegister::lvt_error);
}

/// With what the page holds for the silicon's sake as it would be without.
state::Lapic Lapic::state() const {
    state::Lapic out = s_;
    out.page[static_cast<u16>(ApicRegister::ppr) / 4] = 0;
    out.page[static_cast<u16>(ApicRegister::self_ipi) / 4] = 0;
    return out;
}

Result<> Lapic::load(const state::Lapic& from) {
    if ((from.base & (apic_base_enable | apic_base_x2apic)) == apic_base_x2apic) {
        return fail(ErrorCode::corrupt, "lapic: field base: x2APIC mode without the APIC enabled");
    }
    if (from.x2apic_id != id_) {
        return fail(
            ErrorCode::corrupt,
            fmt::format("lapic: field x2apicId: {} in the state of vCPU {}", from.x2apic_id, id_));
    }
    s_ = from;
    note_timer();
    return {};
}

} // namespace nestor::hv
