// The mode key: what of the state decides how instructions decode and which faults they meet first.
//
// Owns nothing; recomputes derived members of Cpu. CPL is SS.DPL (SDM 3C 27.3.1.5 keeps them
// equal), 3 in virtual-8086 mode and 0 in real-address mode.
#include "engine/cpu/system.hpp"

namespace nestor::cpu {

using namespace arch;

namespace {

/// One register file's state: #UD conditions first, then #NM (SDM 3A table 2-2, SDM 2 2.5).
u32 unit(u32 shift, bool ud, bool nm) {
    const UnitState state = ud ? UnitState::ud : nm ? UnitState::nm : UnitState::ok;
    return static_cast<u32>(state) << shift;
}

u32 unit_key(const state::Cpu& s, bool real_like) {
    const bool em = (s.cr0 & cr0::em) != 0;
    const bool ts = (s.cr0 & cr0::ts) != 0;
    const bool avx_on = (s.cr4 & cr4::osxsave) != 0 &&
                        (s.xcr0 & (xcr0::sse | xcr0::avx)) == (xcr0::sse | xcr0::avx);
    u32 key = unit(Mode::x87_shift, false, em || ts);
    key |= unit(Mode::mmx_shift, em, ts);
    key |= unit(Mode::sse_shift, em || (s.cr4 & cr4::osfxsr) == 0, ts);
    key |= unit(Mode::avx_shift, !avx_on || real_like, ts);
    key |= (s.cr0 & cr0::mp) != 0 && ts ? Mode::wait_nm : 0;
    return key;
}

bool flat(const state::Segment& s) {
    return s.base == 0 && s.limit == 0xffffffff &&
           (s.attributes & (seg_attr::unusable | seg_attr::p)) == seg_attr::p;
}

bool flat_data(const state::Segment& s) {
    constexpr u32 kind =
        seg_attr::code | seg_attr::expand_down_or_conforming | seg_attr::write_or_read;
    return flat(s) && (s.attributes & kind) == seg_attr::write_or_read;
}

/// Breakpoint n of DR7 is enabled, locally or globally.
bool enabled(u64 dr7, unsigned n) { return (dr7 >> (2 * n) & 3) != 0; }
unsigned condition(u64 dr7, unsigned n) { return static_cast<unsigned>(dr7 >> (16 + 4 * n) & 3); }

bool data_breakpoints(u64 dr7) {
    for (unsigned n = 0; n < 4; ++n) {
        if (enabled(dr7, n) && (condition(dr7, n) & 1) != 0) {
            return true;
        }
    }
    return false;
}

} // namespace

TlbView view_for(const Cpu& cpu, u8 level) {
    const state::Cpu& s = cpu.s;
    const bool ac = (s.rflags & rflags::ac) != 0;
    const bool alignment = ac && level == 3 && (s.cr0 & cr0::am) != 0; // SDM 3A 6.15, #AC
    if (alignment || ((s.dr7 & dr7::enables) != 0 && data_breakpoints(s.dr7))) {
        return TlbView::checked;
    }
    if (level == 3) {
        return TlbView::user;
    }
    return ac || (s.cr4 & cr4::smap) == 0 ? TlbView::supervisor_ac : TlbView::supervisor;
}

void Cpu::update_flags_mode() {
    view = view_for(*this, cpl);
    tlb = translations.current().view(view);
    // With breakpoints of any kind, so that a trap follows its instruction and RF ends with the
    // next. So too with the monitor trap flag.
    const bool one_at_a_time = (s.rflags & rflags::tf) != 0 || (s.dr7 & dr7::enables) != 0 ||
                               (controls.proc & proc_control::monitor_trap_flag) != 0;
    attention = one_at_a_time ? attention | Attention::step : attention & ~Attention::step;
}

void Cpu::update_mode() {
    const bool pe = (s.cr0 & cr0::pe) != 0;
    const bool vm = pe && (s.rflags & rflags::vm) != 0;
    const state::Segment& cs = seg(Seg::cs);
    const state::Segment& ss = seg(Seg::ss);
    cpl = !pe ? u8{0} : vm ? u8{3} : segment_dpl(ss);

    u32 key = 0;
    if ((s.efer & efer::lma) != 0) {
        key |= Mode::long_mode;
    }
    if (key != 0 && (cs.attributes & seg_attr::l) != 0) {
        key |= 2u << Mode::code_shift | 2u << Mode::stack_shift | Mode::flat_code | Mode::flat_data;
    } else {
        key |= (cs.attributes & seg_attr::db) != 0 ? 1u << Mode::code_shift : 0;
        key |= (ss.attributes & seg_attr::db) != 0 ? 1u << Mode::stack_shift : 0;
        key |= flat(cs) ? Mode::flat_code : 0;
        const bool all_flat = flat_data(seg(Seg::ds)) && flat_data(seg(Seg::es)) && flat_data(ss);
        key |= all_flat ? Mode::flat_data : 0;
    }
    key |= pe ? 0 : Mode::real;
    key |= vm ? Mode::v86 : 0;
    key |= unit_key(s, !pe || vm);
    key |= cpl == 3 ? Mode::cpl3 : 0;
    mode.key = key;
    update_flags_mode();
}

} // namespace nestor::cpu
