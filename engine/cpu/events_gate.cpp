// One delivery through the IDT: gates, frames, what is committed (SDM 2 INT n, SDM 3A 6.12, 6.14).
//
// Owns nothing. The frame is checked whole before anything changes; faults of the delivery are left
// in Cpu::event for Cpu::deliver, which combines them.
#include "engine/cpu/injection.hpp"
#include "engine/cpu/system.hpp"

namespace nestor::cpu {

using namespace arch;

namespace {

/// INT n, INT3 and INTO: gate DPL is checked and EXT is clear (SDM 3A 6.12.1.1, 6.13).
bool is_software(EventType type) {
    return type == EventType::software_interrupt || type == EventType::software_exception;
}

} // namespace

bool is_software_kind(EventType type) {
    return is_software(type) || type == EventType::privileged_software_exception;
}

bool pushes_rf(const Event& e) {
    if (e.type != EventType::hardware_exception) {
        return false;
    }
    switch (e.vector) {
    case 1:
        return (e.address & dr6::bd) != 0;
    case 3:
    case 4:
    case 8:
    case 18:
        return false;
    default:
        return true;
    }
}

namespace {

/// One delivery: the event, where it returns to, and what the gate says.
struct Delivery {
    Cpu& cpu;
    const Event& event;
    Site site;
    u64 return_rip;
    u64 flags; ///< image to push
    Descriptor gate{};
    state::Segment code{};
    u8 level = 0; ///< new CPL
    bool interrupt_gate = false;

    [[nodiscard]] u32 gate_error() const { return event.vector * 8u + 2; }
    bool read_gate(unsigned size);
    bool check_gate_access() const;
    bool check_code();
    bool protected_mode();
    bool long_mode();
    bool from_v86(InnerStack& stack);
    bool through_task_gate();
    /// Pushes what every frame ends with, checks room and target, writes the frame, and makes its
    /// stack the current one. `room_error`: error code of #SS when the frame does not fit.
    bool switch_stack(Frame& frame, const InnerStack& stack, u64 rip, u32 room_error);
    void finish(u64 rip);
};

bool Delivery::read_gate(unsigned size) {
    const u32 offset = event.vector * size;
    if (offset + size - 1 > cpu.s.idtr.limit) {
        return site.gp(gate_error());
    }
    u64 words[2] = {};
    const u64 address = cpu.s.idtr.base + offset;
    if (!cpu.load_system(nullptr, size == 16 ? address : static_cast<u32>(address), words, size)) {
        return false;
    }
    gate.low = words[0];
    gate.high = words[1];
    return true;
}

bool Delivery::check_gate_access() const {
    if (is_software(event.type) && gate.dpl() < cpu.cpl) {
        return site.gp(gate_error());
    }
    return gate.present() || site.fault(Exception::np, gate_error());
}

/// The handler's code segment (SDM 2 INT n, TRAP-OR-INTERRUPT-GATE).
bool Delivery::check_code() {
    const u16 selector = gate.gate_selector();
    if (is_null(selector)) {
        return site.gp(0);
    }
    const u32 error = selector_error(selector);
    Descriptor d;
    if (!read_descriptor(site, selector, d)) {
        return false;
    }
    if (!d.is_code() || d.dpl() > cpu.cpl) {
        return site.gp(error);
    }
    if (ia32e(cpu) && (!d.long_code() || d.big())) {
        return site.gp(error); // SDM 3A 6.14.1: only 64-bit handlers
    }
    if (!d.present()) {
        return site.fault(Exception::np, error);
    }
    if (cpu.mode.has(Mode::v86) && (d.conforming() || d.dpl() != 0)) {
        return site.gp(error); // SDM 3B 21.3.1.1
    }
    level = d.conforming() ? cpu.cpl : d.dpl();
    if (!mark_accessed(site, d)) {
        return false;
    }
    code = make_segment(d, with_rpl(selector, level));
    return true;
}

void Delivery::finish(u64 rip) {
    u64 clear = rflags::tf | rflags::nt | rflags::rf | rflags::vm;
    clear |= interrupt_gate ? rflags::if_ : 0;
    cpu.s.rflags &= ~clear;
    cpu.seg(Seg::cs) = code;
    cpu.s.rip = rip;
}

bool Delivery::through_task_gate() {
    Descriptor tss;
    const u16 selector = gate.gate_selector();
    if (!check_tss(site, selector, false, Exception::gp, tss)) {
        return false;
    }
    bool committed = false;
    const u32* error = event.has_error ? &event.error : nullptr;
    return task_switch(site, selector, tss, TaskSwitchSource::gate, return_rip, error, committed);
}

bool Delivery::switch_stack(Frame& frame, const InnerStack& stack, u64 rip, u32 room_error) {
    frame.push(flags);
    frame.push(cpu.seg(Seg::cs).selector);
    frame.push(return_rip);
    if (event.has_error) {
        frame.push(event.error);
    }
    if (!frame.check_room(site, room_error)) {
        return false;
    }
    if (!rip_fits(cpu, code, rip)) {
        return site.gp(0);
    }
    if (!frame.write(site, level)) {
        return false;
    }
    cpu.seg(Seg::ss) = stack.ss;
    cpu.s.gpr[4] = frame.new_sp(cpu.s.gpr[4]);
    return true;
}

/// From virtual-8086 mode to CPL 0: the data segments are pushed too (SDM 3B 21.3.1.1).
bool Delivery::from_v86(InnerStack& stack) {
    const bool wide = gate.type() >= system_type::int32;
    Frame frame(stack.ss, stack.sp, false, wide ? 4 : 2);
    for (const Seg which : {Seg::gs, Seg::fs, Seg::ds, Seg::es, Seg::ss}) {
        frame.push(cpu.seg(which).selector);
    }
    frame.push(cpu.s.gpr[4]);
    const u64 rip = gate.gate_offset() & (wide ? 0xffffffff : 0xffff);
    if (!switch_stack(frame, stack, rip, selector_error(stack.ss.selector))) {
        return false;
    }
    for (const Seg which : {Seg::gs, Seg::fs, Seg::ds, Seg::es}) {
        cpu.seg(which) = null_segment(0);
    }
    finish(rip);
    return true;
}

bool Delivery::protected_mode() {
    if (!read_gate(8)) {
        return false;
    }
    const u32 type = gate.type();
    const bool task = type == system_type::task_gate;
    const bool known = task || type == system_type::int16 || type == system_type::trap16 ||
                       type == system_type::int32 || type == system_type::trap32;
    if (gate.segment() || !known) {
        return site.gp(gate_error());
    }
    if (!check_gate_access()) {
        return false;
    }
    if (task) {
        return through_task_gate();
    }
    interrupt_gate = type == system_type::int16 || type == system_type::int32;
    if (!check_code()) {
        return false;
    }
    const bool wide = type >= system_type::int32;
    const bool inner = level != cpu.cpl;
    InnerStack stack{cpu.seg(Seg::ss), cpu.s.gpr[4]};
    if (inner && !inner_stack(site, level, false, 0, stack)) {
        return false;
    }
    if (cpu.mode.has(Mode::v86)) {
        return from_v86(stack);
    }
    Frame frame(stack.ss, stack.sp, false, wide ? 4 : 2);
    if (inner) {
        frame.push(cpu.seg(Seg::ss).selector);
        frame.push(cpu.s.gpr[4]);
    }
    const u64 rip = gate.gate_offset() & (wide ? 0xffffffff : 0xffff);
    if (!switch_stack(frame, stack, rip, inner ? selector_error(stack.ss.selector) : 0)) {
        return false;
    }
    finish(rip);
    return true;
}

/// SDM 3A 6.14: 16-byte gates, aligned frames of five quadwords, IST.
bool Delivery::long_mode() {
    if (!read_gate(16)) {
        return false;
    }
    const u32 type = gate.type();
    if (gate.segment() || (type != system_type::int32 && type != system_type::trap32)) {
        return site.gp(gate_error());
    }
    if (!check_gate_access()) {
        return false;
    }
    interrupt_gate = type == system_type::int32;
    if (!check_code()) {
        return false;
    }
    const bool inner = level != cpu.cpl;
    InnerStack stack{cpu.seg(Seg::ss), cpu.s.gpr[4]};
    if ((inner || gate.gate_ist() != 0) &&
        !inner_stack(site, level, true, gate.gate_ist(), stack)) {
        return false;
    }
    if (!inner) {
        stack.ss = cpu.seg(Seg::ss);
    }
    Frame frame(stack.ss, stack.sp & ~u64{15}, true, 8);
    frame.push(cpu.seg(Seg::ss).selector);
    frame.push(cpu.s.gpr[4]);
    const u64 rip = gate.gate_offset();
    if (!switch_stack(frame, stack, rip, 0)) {
        return false;
    }
    finish(rip);
    return true;
}

} // namespace

namespace {

/// `flags`: the image to push.
bool through_table(Cpu& cpu, const Site& site, const Event& e, u64 return_rip, u64 flags) {
    if ((cpu.s.cr0 & cr0::pe) == 0) {
        if (e.vector * 4u + 3 > cpu.s.idtr.limit) {
            return site.gp(e.vector * 8u + 2);
        }
        return deliver_real(site, cpu.s.idtr.base, e.vector, return_rip, flags);
    }
    Delivery delivery{cpu, e, site, return_rip, flags};
    return ia32e(cpu) ? delivery.long_mode() : delivery.protected_mode();
}

Site site_of(Cpu& cpu, const Event& e) { return {cpu, nullptr, is_software(e.type) ? 0u : 1u}; }

u64 return_rip_of(const Cpu& cpu, const Event& e) {
    return is_software_kind(e.type) ? cpu.truncate_rip(cpu.s.rip + e.instruction_length)
                                    : cpu.s.rip;
}

} // namespace

bool deliver_once(Cpu& cpu, const Event& e) {
    u64 flags = cpu.rflags();
    if (is_software_kind(e.type)) {
        flags &= ~rflags::rf;
    } else if (pushes_rf(e)) {
        flags |= rflags::rf;
    }
    return through_table(cpu, site_of(cpu, e), e, return_rip_of(cpu, e), flags);
}

bool deliver_injected_once(Cpu& cpu, const Event& e) {
    const Site site = site_of(cpu, e);
    const u64 return_rip = return_rip_of(cpu, e);
    if (e.type == EventType::software_interrupt && cpu.mode.has(Mode::v86) &&
        (cpu.s.cr4 & cr4::vme) != 0) {
        bool redirect = false;
        if (!vme_redirects(site, e.vector, redirect)) {
            return false;
        }
        if (redirect) {
            return deliver_redirected(site, e.vector, return_rip);
        }
    }
    return through_table(cpu, site, e, return_rip, cpu.rflags());
}

bool deliver_real(const Site& site, u64 table, u8 vector, u64 return_rip, u64 pushed_flags) {
    Cpu& cpu = site.cpu;
    u16 target[2];
    if (!cpu.load_system(site.op, static_cast<u32>(table + vector * 4u), target, sizeof target)) {
        return false;
    }
    Frame frame(cpu.seg(Seg::ss), cpu.s.gpr[4], false, 2);
    frame.push(pushed_flags);
    frame.push(cpu.seg(Seg::cs).selector);
    frame.push(return_rip);
    if (!frame.check_room(site, 0)) {
        return false;
    }
    if (target[0] > cpu.seg(Seg::cs).limit) {
        return site.gp(0);
    }
    if (!frame.write(site, cpu.cpl)) {
        return false;
    }
    cpu.s.gpr[4] = frame.new_sp(cpu.s.gpr[4]);
    state::Segment& cs = cpu.seg(Seg::cs);
    cs = cpu.mode.has(Mode::v86) ? v86_segment(target[1]) : real_segment(cs, target[1]);
    cpu.s.rflags &= ~(rflags::tf | rflags::rf);
    if (!cpu.mode.has(Mode::v86)) {
        cpu.s.rflags &= ~(rflags::if_ | rflags::ac);
    }
    cpu.s.rip = target[0];
    return true;
}

bool vme_redirects(const Site& site, u8 vector, bool& redirect) {
    const state::Segment& tr = site.cpu.s.tr;
    u16 io_base = 0;
    u8 byte = 0;
    if (tr.limit < 103) {
        return site.gp(0);
    }
    if (!site.cpu.load_system(site.op, static_cast<u32>(tr.base + 102), &io_base, 2)) {
        return false;
    }
    const u32 offset = io_base - 32u + vector / 8u;
    if (offset > tr.limit) {
        return site.gp(0);
    }
    if (!site.cpu.load_system(site.op, static_cast<u32>(tr.base + offset), &byte, 1)) {
        return false;
    }
    redirect = (byte >> (vector & 7) & 1) == 0;
    return true;
}

bool deliver_redirected(const Site& site, u8 vector, u64 return_rip) {
    Cpu& cpu = site.cpu;
    u64 flags = cpu.rflags();
    const bool full = (flags & rflags::iopl) == rflags::iopl;
    if (!full) {
        flags =
            (flags & ~rflags::if_) | rflags::iopl | ((flags & rflags::vif) != 0 ? rflags::if_ : 0);
    }
    if (!deliver_real(site, 0, vector, return_rip, flags)) {
        return false;
    }
    cpu.s.rflags &= ~(full ? rflags::if_ : rflags::vif);
    return true;
}

} // namespace nestor::cpu
