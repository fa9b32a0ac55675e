// Stacks of far transfers and event delivery: frames pushed, frames popped, inner stacks.
//
// Owns nothing. A frame is checked element by element in push order, so that a fault names the
// address that the silicon would have named first, and is written only when all of it will succeed.
#include "engine/cpu/system.hpp"

namespace nestor::cpu {

using namespace arch;

bool Frame::check_room(const Site& site, u32 error) const {
    for (unsigned i = 0; i < count_; ++i) {
        const bool ok =
            long_ ? canonical(site.cpu, offset(i)) && canonical(site.cpu, offset(i) + width_ - 1)
                  : within_limit(ss_, offset(i), width_);
        if (!ok) {
            return site.fault(Exception::ss, error);
        }
    }
    return true;
}

bool Frame::write(const Site& site, u8 level) const {
    Cpu& cpu = site.cpu;
    const PrivilegeScope scope(cpu, level, long_);
    u8 bytes[most * 8];
    for (unsigned i = 0; i < count_; ++i) {
        std::memcpy(bytes + u64{count_ - 1 - i} * width_, &values_[i], width_);
    }
    const u64 size = u64{count_} * width_;
    const u64 lowest = linear(offset(count_ - 1));
    const bool contiguous = linear(offset(0)) - lowest == size - width_;
    if (contiguous) {
        const TlbEntry& e = cpu.tlb.at(lowest);
        if (e.writes(lowest, size)) {
            std::memcpy(e.host(lowest), bytes, size);
            return true;
        }
    }
    for (unsigned i = 0; i < count_; ++i) {
        if (!cpu.probe_write(site.op, linear(offset(i)), width_, Seg::ss)) {
            return false;
        }
    }
    if (contiguous) {
        return cpu.store_slow(site.op, lowest, bytes, static_cast<unsigned>(size), Seg::ss);
    }
    for (unsigned i = 0; i < count_; ++i) {
        if (!cpu.store_slow(site.op, linear(offset(i)), &values_[i], width_, Seg::ss)) {
            return false;
        }
    }
    return true;
}

bool Popper::pop(u64& value) {
    u64 address;
    value = 0;
    if (!cpu_.segment_access(Seg::ss, sp_ & mask_, width_, Access::read, address)) {
        return false;
    }
    const TlbEntry& e = cpu_.tlb.at(address);
    if (e.reads(address, width_)) {
        std::memcpy(&value, e.host(address), width_);
    } else if (!cpu_.load_slow(op_, address, &value, width_, Seg::ss)) {
        return false;
    }
    sp_ += width_;
    return true;
}

bool inner_stack(const Site& site, u8 level, bool long_frame, unsigned ist, InnerStack& out) {
    Cpu& cpu = site.cpu;
    const state::Segment& tr = cpu.s.tr;
    const u32 tss_error = selector_error(tr.selector);
    if (long_frame) {
        // SDM 3A 8.7: RSP0..2 at 4, IST1..7 at 36.
        const u32 offset = ist != 0 ? 36 + (ist - 1) * 8 : 4 + u32{level} * 8;
        if (offset + 7 > tr.limit) {
            return site.fault(Exception::ts, tss_error);
        }
        if (!cpu.load_system(site.op, tr.base + offset, &out.sp, 8)) {
            return false;
        }
        out.ss = null_segment(level, level);
        return true;
    }
    u16 selector = 0;
    const bool tss32 = (tr.attributes & 8) != 0;
    const u32 offset = tss32 ? 4 + u32{level} * 8 : 2 + u32{level} * 4;
    const unsigned sp_size = tss32 ? 4 : 2;
    if (offset + sp_size + 1 > tr.limit) {
        return site.fault(Exception::ts, tss_error);
    }
    const u64 address = static_cast<u32>(tr.base + offset);
    if (!cpu.load_system(site.op, address, &out.sp, sp_size) ||
        !cpu.load_system(site.op, static_cast<u32>(address + sp_size), &selector, 2)) {
        return false;
    }
    return check_stack_segment(site, selector, level, Exception::ts, out.ss);
}

} // namespace nestor::cpu
