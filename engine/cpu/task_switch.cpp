// Hardware task switches: SDM 3A chapter 8.
//
// Owns nothing. Up to the commit point every fault belongs to the old task; behind it to the new
// one, with the new registers already loaded (SDM 3A 8.3). An access that only waits for a page is
// undone wholly, the busy bit in memory included: the other memory writes repeat themselves.
#include <array>

#include "engine/cpu/system.hpp"

namespace nestor::cpu {

using namespace arch;

namespace {

/// Offsets of what a switch saves and loads (SDM 3A figures 8-2 and 8-10).
struct TssLayout {
    unsigned size;  ///< bytes that must lie within the limit
    unsigned width; ///< of EIP, EFLAGS and the general registers
    unsigned eip;   ///< EIP, EFLAGS and the eight general registers follow each other
    unsigned segments;
    unsigned segment_count;
    unsigned segment_stride;
    unsigned ldt;
};
constexpr TssLayout tss32_layout = {0x68, 4, 0x20, 0x48, 6, 4, 0x60};
constexpr TssLayout tss16_layout = {0x2c, 2, 0x0e, 0x22, 4, 2, 0x2a};
constexpr unsigned cr3_offset = 0x1c;
constexpr unsigned trap_offset = 0x64;

using Image = std::array<u8, 0x68>;

u64 get(const Image& image, unsigned offset, unsigned width) {
    u64 v = 0;
    std::memcpy(&v, image.data() + offset, width);
    return v;
}
void put(Image& image, unsigned offset, unsigned width, u64 v) {
    std::memcpy(image.data() + offset, &v, width);
}

class Switch {
public:
    Switch(const Site& site, u16 selector, const Descriptor& tss, TaskSwitchSource source)
        : site_(site), cpu_(site.cpu), selector_(selector), tss_(tss), source_(source),
          wide_((tss.type() & 8) != 0), layout_(wide_ ? tss32_layout : tss16_layout) {}

    bool save_old(u64 next);
    bool prepare_new();
    bool mark_busy();
    bool load_registers();
    bool load_descriptors();
    bool push_error(u32 error);
    [[nodiscard]] bool debug_trap() const { return wide_ && (get(new_, trap_offset, 2) & 1) != 0; }
    void undo_busy();

private:
    [[nodiscard]] bool nests() const {
        return source_ == TaskSwitchSource::call || source_ == TaskSwitchSource::gate;
    }
    [[nodiscard]] u16 segment_selector(Seg which) const {
        const auto i = static_cast<unsigned>(which);
        return i < layout_.segment_count
                   ? static_cast<u16>(get(new_, layout_.segments + i * layout_.segment_stride, 2))
                   : u16{0};
    }
    bool load_ldt();
    bool load_code();
    bool load_stack();
    bool load_data(Seg which);

    const Site& site_;
    Cpu& cpu_;
    u16 selector_;
    const Descriptor& tss_;
    TaskSwitchSource source_;
    bool wide_;
    const TssLayout& layout_;
    Image new_{};
};

/// Saves the old task in its TSS (steps 6 to 8 of SDM 3A 8.3).
bool Switch::save_old(u64 next) {
    const state::Segment& tr = cpu_.s.tr;
    const TssLayout& old = (tr.attributes & 8) != 0 ? tss32_layout : tss16_layout;
    if (tr.limit < old.size - 1) {
        return site_.fault(Exception::ts, selector_error(tr.selector));
    }
    Image image{};
    const unsigned end = old.segments + old.segment_count * old.segment_stride;
    const unsigned bytes = end - old.eip;
    u64 flags = cpu_.rflags();
    if (source_ == TaskSwitchSource::iret) {
        flags &= ~rflags::nt;
    }
    put(image, old.eip, old.width, next);
    put(image, old.eip + old.width, old.width, flags);
    for (unsigned i = 0; i < 8; ++i) {
        put(image, old.eip + (2 + i) * old.width, old.width, cpu_.s.gpr[i]);
    }
    for (unsigned i = 0; i < old.segment_count; ++i) {
        put(image, old.segments + i * old.segment_stride, 2, cpu_.s.segments[i].selector);
    }
    return cpu_.store_system(site_.op, static_cast<u32>(tr.base + old.eip), image.data() + old.eip,
                             bytes);
}

/// Reads the new TSS, and writes its back link where the tasks nest.
bool Switch::prepare_new() {
    const u32 base = tss_.base();
    if (nests()) {
        const u16 link = cpu_.s.tr.selector;
        if (!cpu_.store_system(site_.op, base, &link, 2)) {
            return false;
        }
    }
    return cpu_.load_system(site_.op, base, new_.data(), layout_.size);
}

/// Busy bits: the old task's is cleared by JMP and IRET, the new one's set unless IRET.
bool Switch::mark_busy() {
    if (!nests()) {
        Descriptor old;
        if (!read_descriptor(site_, cpu_.s.tr.selector, old) || !write_busy(site_, old, false)) {
            return false;
        }
    }
    return source_ == TaskSwitchSource::iret || write_busy(site_, tss_, true);
}

void Switch::undo_busy() {
    if (source_ != TaskSwitchSource::iret) {
        write_busy(site_, tss_, false);
    }
}

/// Registers of the new task. False: PDPTEs that cannot be loaded.
bool Switch::load_registers() {
    state::Cpu& s = cpu_.s;
    if (wide_ && (s.cr0 & cr0::pg) != 0) {
        const u64 value = get(new_, cr3_offset, 4);
        if ((s.cr4 & cr4::pae) != 0 && !cpu_.load_pdptrs(site_.op, value)) {
            return false;
        }
        s.cr3 = value;
        cpu_.flush_tlb();
    }
    for (unsigned i = 0; i < 8; ++i) {
        const u64 v = get(new_, layout_.eip + (2 + i) * layout_.width, layout_.width);
        s.gpr[i] = wide_ ? v : (s.gpr[i] & 0xffff0000) | v;
    }
    u64 flags = get(new_, layout_.eip + layout_.width, layout_.width);
    flags = (flags & rflags::writable) | rflags::fixed1;
    s.rflags = nests() ? flags | rflags::nt : flags;
    cpu_.lazy.settle();
    s.rip = get(new_, layout_.eip, layout_.width);
    s.cr0 |= cr0::ts;
    s.dr7 &= ~u64{0x155}; // L0..L3 and LE (SDM 3B 18.2.4)
    if ((s.dr7 & dr7::enables) == 0) {
        s.rflags &= ~rflags::rf; // as IRET does: matters only to breakpoints
    }
    s.tr = make_segment(tss_, selector_);
    s.tr.attributes |= system_type::busy;
    // Until its descriptor has been checked, a register holds the selector only.
    for (unsigned i = 0; i < 6; ++i) {
        const u16 selector = segment_selector(static_cast<Seg>(i));
        const u8 level = static_cast<Seg>(i) == Seg::ss ? rpl_of(segment_selector(Seg::cs)) : u8{0};
        s.segments[i] =
            (flags & rflags::vm) != 0 ? v86_segment(selector) : null_segment(selector, level);
    }
    s.ldtr = null_segment(static_cast<u16>(get(new_, layout_.ldt, 2)));
    return true;
}

bool Switch::load_ldt() {
    const u16 selector = cpu_.s.ldtr.selector;
    if (is_null(selector)) {
        return true;
    }
    const u32 error = selector_error(selector);
    Descriptor d;
    if ((selector & 4) != 0) {
        return site_.fault(Exception::ts, error);
    }
    if (!read_descriptor(site_, selector, d, Exception::ts)) {
        return false;
    }
    if (d.segment() || d.type() != system_type::ldt || !d.present()) {
        return site_.fault(Exception::ts, error);
    }
    cpu_.s.ldtr = make_segment(d, selector);
    cpu_.s.ldtr.attributes = d.attributes();
    return true;
}

bool Switch::load_code() {
    const u16 selector = segment_selector(Seg::cs);
    const u32 error = selector_error(selector);
    Descriptor d;
    if (is_null(selector)) {
        return site_.fault(Exception::ts, error);
    }
    if (!read_descriptor(site_, selector, d, Exception::ts)) {
        return false;
    }
    const u8 rpl = rpl_of(selector);
    if (!d.is_code() || (d.conforming() ? d.dpl() > rpl : d.dpl() != rpl)) {
        return site_.fault(Exception::ts, error);
    }
    if (!d.present()) {
        return site_.fault(Exception::np, error);
    }
    if (!mark_accessed(site_, d)) {
        return false;
    }
    cpu_.seg(Seg::cs) = make_segment(d, selector);
    return true;
}

bool Switch::load_stack() {
    const u16 selector = segment_selector(Seg::ss);
    const u8 level = rpl_of(segment_selector(Seg::cs));
    return check_stack_segment(site_, selector, level, Exception::ts, cpu_.seg(Seg::ss));
}

bool Switch::load_data(Seg which) {
    const u16 selector = segment_selector(which);
    if (is_null(selector)) {
        return true;
    }
    const u32 error = selector_error(selector);
    Descriptor d;
    if (!read_descriptor(site_, selector, d, Exception::ts)) {
        return false;
    }
    const u8 level = rpl_of(segment_selector(Seg::cs));
    const bool readable = d.is_data() || (d.is_code() && d.write_or_read());
    const bool privileged = d.is_data() || !d.conforming();
    if (!readable || (privileged && (d.dpl() < level || d.dpl() < rpl_of(selector)))) {
        return site_.fault(Exception::ts, error);
    }
    if (!d.present()) {
        return site_.fault(Exception::np, error);
    }
    if (!mark_accessed(site_, d)) {
        return false;
    }
    cpu_.seg(which) = make_segment(d, selector);
    return true;
}

/// Qualifies the new task's descriptors (SDM 3A table 8-1).
bool Switch::load_descriptors() {
    if (!load_ldt()) {
        return false;
    }
    if ((cpu_.s.rflags & rflags::vm) != 0) {
        return true;
    }
    if (!load_code() || !load_stack()) {
        return false;
    }
    for (const Seg which : {Seg::ds, Seg::es, Seg::fs, Seg::gs}) {
        if (!load_data(which)) {
            return false;
        }
    }
    return true;
}

bool Switch::push_error(u32 error) {
    const state::Segment& ss = cpu_.seg(Seg::ss);
    Frame frame(ss, cpu_.s.gpr[4], false, layout_.width);
    frame.push(error);
    if (!frame.check_room(site_, 0) || !frame.write(site_, cpu_.cpl)) {
        return false;
    }
    cpu_.s.gpr[4] = frame.new_sp(cpu_.s.gpr[4]);
    return true;
}

} // namespace

bool check_tss(const Site& site, u16 selector, bool want_busy, Exception vector, Descriptor& out) {
    const u32 error = selector_error(selector);
    if (is_null(selector) || (selector & 4) != 0) {
        return site.fault(vector, error);
    }
    if (!read_descriptor(site, selector, out, vector)) {
        return false;
    }
    const u32 busy = want_busy ? system_type::busy : 0;
    if (out.segment() ||
        (out.type() != (system_type::tss32 | busy) && out.type() != (system_type::tss16 | busy))) {
        return site.fault(vector, error);
    }
    return out.present() || site.fault(Exception::np, error);
}

bool task_switch(const Site& site, u16 selector, const Descriptor& tss, TaskSwitchSource source,
                 u64 next, const u32* error_code, bool& committed) {
    Cpu& cpu = site.cpu;
    committed = false;
    if (!cpu.controls.assisted) {
        // SDM 3C 26.4.2: always an exit; the qualification is that of table 28-2.
        cpu.set_exit(ExitReason::task_switch, selector | static_cast<u64>(source) << 30);
        cpu.exit.instruction_length = site.op != nullptr ? site.op->len : 0;
        return false;
    }
    const bool wide = (tss.type() & 8) != 0;
    if (tss.limit() < (wide ? 0x67u : 0x2bu)) {
        return site.fault(Exception::ts, selector_error(selector));
    }
    Switch s(site, selector, tss, source);
    // The new TSS is read behind the save, which may change it; reading it first finds its faults.
    if (!s.prepare_new() || !s.save_old(next) || !s.prepare_new()) {
        return false;
    }
    const state::Cpu before = cpu.s;
    const LazyFlags lazy = cpu.lazy;
    if (!s.load_registers()) {
        cpu.s = before;
        cpu.lazy = lazy;
        return false;
    }
    state::Cpu after = cpu.s;
    cpu.s = before;
    cpu.flush_tlb();
    if (!s.mark_busy()) {
        cpu.lazy = lazy;
        return false;
    }
    cpu.s = after;
    cpu.flush_tlb();
    bool ok = s.load_descriptors();
    cpu.update_mode();
    if (ok && error_code != nullptr) {
        ok = s.push_error(*error_code);
    }
    if (!ok && cpu.outcome != Outcome::fault) {
        const Outcome outcome = cpu.outcome;
        cpu.s = before;
        cpu.lazy = lazy;
        cpu.flush_tlb();
        cpu.update_mode();
        s.undo_busy();
        cpu.outcome = outcome;
        return false;
    }
    committed = true;
    cpu.task_switched = !ok || s.debug_trap();
    if (ok && s.debug_trap()) {
        // SDM 3B 18.3.1.5: the T flag's #DB comes before the new task's first instruction.
        return cpu.set_fault(Exception::db, 0, dr6::bt);
    }
    return ok;
}

} // namespace nestor::cpu
