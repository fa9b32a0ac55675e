// Reading descriptors and checking segment loads.
//
// Owns nothing. Descriptor tables are read with supervisor rights whatever the CPL (SDM 3A 4.6.1).
// The accessed bit is set before the load is committed; that is idempotent, so a fault later in the
// same instruction does no harm.
#include "engine/cpu/descriptors.hpp"

namespace nestor::cpu {

using namespace arch;

bool descriptor_address(const Cpu& cpu, u16 selector, unsigned size, u64& address) {
    const u32 offset = selector & 0xfff8u;
    u64 base = cpu.s.gdtr.base;
    u64 limit = cpu.s.gdtr.limit;
    if ((selector & 4) != 0) {
        if ((cpu.s.ldtr.attributes & seg_attr::unusable) != 0) {
            return false;
        }
        base = cpu.s.ldtr.base;
        limit = cpu.s.ldtr.limit;
    }
    if (u64{offset} + size - 1 > limit) {
        return false;
    }
    address = base + offset;
    if (!ia32e(cpu)) {
        address = static_cast<u32>(address);
    }
    return true;
}

bool read_descriptor(const Site& site, u16 selector, Descriptor& out, Exception vector) {
    out = Descriptor{};
    if (!descriptor_address(site.cpu, selector, 8, out.address)) {
        return site.fault(vector, selector_error(selector));
    }
    return site.cpu.load_system(site.op, out.address, &out.low, 8);
}

bool read_descriptor_high(const Site& site, u16 selector, Descriptor& d, Exception vector) {
    u64 address;
    if (!descriptor_address(site.cpu, selector, 16, address)) {
        return site.fault(vector, selector_error(selector));
    }
    return site.cpu.load_system(site.op, address + 8, &d.high, 8);
}

bool mark_accessed(const Site& site, Descriptor& d) {
    if ((d.type() & 1) != 0) {
        return true;
    }
    const u8 rights = static_cast<u8>(d.low >> 40 | 1);
    if (!site.cpu.store_system(site.op, d.address + 5, &rights, 1)) {
        return false;
    }
    d.low |= bit(40);
    return true;
}

bool write_busy(const Site& site, const Descriptor& d, bool busy) {
    const u8 old = static_cast<u8>(d.low >> 40);
    const u8 rights = static_cast<u8>(busy ? old | system_type::busy : old & ~system_type::busy);
    return site.cpu.store_system(site.op, d.address + 5, &rights, 1);
}

state::Segment make_segment(const Descriptor& d, u16 selector) {
    state::Segment s;
    s.selector = selector;
    s.base = d.base();
    s.limit = d.limit();
    s.attributes = d.attributes() | seg_attr::accessed;
    return s;
}

state::Segment null_segment(u16 selector, u8 dpl) {
    state::Segment s;
    s.selector = selector;
    s.attributes = seg_attr::unusable | static_cast<u32>(dpl) << seg_attr::dpl_shift;
    return s;
}

state::Segment real_segment(const state::Segment& old, u16 selector) {
    state::Segment s = old;
    if ((s.attributes & seg_attr::unusable) != 0) {
        s.attributes = 0x93;
        s.limit = 0xffff;
    }
    s.selector = selector;
    s.base = u64{selector} << 4;
    return s;
}

state::Segment v86_segment(u16 selector) {
    state::Segment s;
    s.selector = selector;
    s.base = u64{selector} << 4;
    s.limit = 0xffff;
    s.attributes = 0xf3;
    return s;
}

bool within_limit(const state::Segment& segment, u64 offset, unsigned size) {
    const u64 last = offset + size - 1;
    const bool code = (segment.attributes & seg_attr::code) != 0;
    if (!code && (segment.attributes & seg_attr::expand_down_or_conforming) != 0) {
        const u64 top = (segment.attributes & seg_attr::db) != 0 ? 0xffffffff : 0xffff;
        return offset > segment.limit && last <= top;
    }
    return last <= segment.limit;
}

bool check_segment_load(const Site& site, Seg which, u16 selector, state::Segment& out) {
    Cpu& cpu = site.cpu;
    if (cpu.mode.is_real_like()) {
        out = cpu.mode.has(Mode::v86) ? v86_segment(selector)
                                      : real_segment(cpu.seg(which), selector);
        return true;
    }
    const u8 cpl = cpu.cpl;
    if (is_null(selector)) {
        // SDM 2 MOV: a null SS only in 64-bit mode below CPL 3, with RPL = CPL.
        if (which == Seg::ss && !(cpu.mode.is64() && cpl != 3 && rpl_of(selector) == cpl)) {
            return site.gp(0);
        }
        out = null_segment(selector, which == Seg::ss ? cpl : u8{0});
        return true;
    }
    const u32 error = selector_error(selector);
    Descriptor d;
    if (!read_descriptor(site, selector, d)) {
        return false;
    }
    if (which == Seg::ss) {
        if (rpl_of(selector) != cpl || !d.is_data() || !d.write_or_read() || d.dpl() != cpl) {
            return site.gp(error);
        }
        if (!d.present()) {
            return site.fault(Exception::ss, error);
        }
    } else {
        if (!d.segment() || (d.is_code() && !d.write_or_read())) {
            return site.gp(error);
        }
        const bool privileged = d.is_data() || !d.conforming();
        if (privileged && (rpl_of(selector) > d.dpl() || cpl > d.dpl())) {
            return site.gp(error);
        }
        if (!d.present()) {
            return site.fault(Exception::np, error);
        }
    }
    if (!mark_accessed(site, d)) {
        return false;
    }
    out = make_segment(d, selector);
    return true;
}

bool check_stack_segment(const Site& site, u16 selector, u8 level, Exception vector,
                         state::Segment& out, Exception absent) {
    if (is_null(selector)) {
        return site.fault(vector, 0);
    }
    const u32 error = selector_error(selector);
    Descriptor d;
    if (!read_descriptor(site, selector, d, vector)) {
        return false;
    }
    if (rpl_of(selector) != level || d.dpl() != level || !d.is_data() || !d.write_or_read()) {
        return site.fault(vector, error);
    }
    if (!d.present()) {
        return site.fault(absent, error);
    }
    if (!mark_accessed(site, d)) {
        return false;
    }
    out = make_segment(d, selector);
    return true;
}

void drop_privileged_segments(Cpu& cpu, u8 level) {
    for (const Seg which : {Seg::es, Seg::fs, Seg::gs, Seg::ds}) {
        state::Segment& s = cpu.seg(which);
        if ((s.attributes & seg_attr::unusable) != 0) {
            continue;
        }
        const bool conforming_code = (s.attributes & seg_attr::code) != 0 &&
                                     (s.attributes & seg_attr::expand_down_or_conforming) != 0;
        if (!conforming_code && segment_dpl(s) < level) {
            s = null_segment(0);
        }
    }
}

bool rip_fits(const Cpu& cpu, const state::Segment& code, u64 rip) {
    if (ia32e(cpu) && (code.attributes & seg_attr::l) != 0) {
        return canonical(cpu, rip);
    }
    return rip <= code.limit;
}

} // namespace nestor::cpu
