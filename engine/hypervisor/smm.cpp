// System-management mode: entry on SMI, the state-save map, RSM (SDM 3C chapter 32).
//
// Owns nothing. The map is Intel 64's (table 32-3); segment caches and what else RSM needs lie in
// the part that the SDM reserves. RSM trusts nothing of it: reserved bits and impossible
// combinations are a shutdown (SDM 3C 32.4.2), and hidden bits are masked.
#include "engine/arch/bits.hpp"
#include "engine/cpu/package.hpp"
#include "engine/cpu/system.hpp"
#include "engine/hypervisor/vcpu_impl.hpp"

namespace nestor::hv {

using namespace arch;
using cpu::MemoryStatus;
using state::ActivityState;

namespace {

/// Offsets in the map, from SMBASE + 0x8000 (SDM 3C table 32-3).
namespace map {
constexpr unsigned cr0 = 0x7ff8, cr3 = 0x7ff0, rflags = 0x7fe8, efer = 0x7fe0, rip = 0x7fd8,
                   dr6 = 0x7fd0, dr7 = 0x7fc8, tr_selector = 0x7fc4, ldtr_selector = 0x7fc0,
                   es_selector = 0x7fa8, rdi = 0x7f94, r8 = 0x7f54, halt_restart = 0x7f02,
                   revision = 0x7efc, smbase = 0x7ef8, ldt_base = 0x7e9c, idt_base = 0x7e94,
                   gdt_base = 0x7e8c, cr4 = 0x7e40, idt_base_high = 0x7dd8, ldt_base_high = 0x7dd4,
                   gdt_base_high = 0x7dd0;
// Ours, in the reserved range 0x7c00..0x7dcf.
constexpr unsigned segments = 0x7c00, gdt_limit = 0x7c80, idt_limit = 0x7c82, blocked_nmi = 0x7c84,
                   pending_debug = 0x7c88;
constexpr unsigned first = 0x7c00, size = 0x400;
} // namespace map

/// SMBASE relocation, no I/O restart: nothing here raises an SMI within an I/O instruction.
constexpr u32 revision_id = 0x20100;

/// RDI, RSI, RBP, RSP, RBX, RDX, RCX, RAX in the map's order, each 8 bytes apart, downwards.
constexpr unsigned low_gprs[] = {7, 6, 5, 4, 3, 2, 1, 0};

class Image {
public:
    std::array<u8, map::size> bytes{};

    template <class T>
    void put(unsigned offset, T v) {
        std::memcpy(bytes.data() + (offset - map::first), &v, sizeof v);
    }
    template <class T>
    [[nodiscard]] T get(unsigned offset) const {
        T v;
        std::memcpy(&v, bytes.data() + (offset - map::first), sizeof v);
        return v;
    }
};

struct HiddenSegment {
    u64 base;
    u32 limit;
    u32 attributes;
};

void put_hidden(Image& m, unsigned i, const state::Segment& s) {
    m.put(map::segments + i * 16, HiddenSegment{s.base, s.limit, s.attributes});
}
void get_hidden(const Image& m, unsigned i, u16 selector, state::Segment& s) {
    const auto h = m.get<HiddenSegment>(map::segments + i * 16);
    s.selector = selector;
    s.base = h.base;
    s.limit = h.limit;
    s.attributes = h.attributes & 0x1f0ff;
}

void save_state(const state::Cpu& s, Image& m) {
    m.put(map::cr0, s.cr0);
    m.put(map::cr3, s.cr3);
    m.put(map::cr4, static_cast<u32>(s.cr4));
    m.put(map::rflags, s.rflags);
    m.put(map::efer, s.efer);
    m.put(map::rip, s.rip);
    m.put(map::dr6, s.dr6);
    m.put(map::dr7, s.dr7);
    for (unsigned i = 0; i < 8; ++i) {
        m.put(map::rdi - 8 * i, s.gpr[low_gprs[i]]);
        m.put(map::r8 - 8 * i, s.gpr[8 + i]);
    }
    for (unsigned i = 0; i < 6; ++i) {
        m.put(map::es_selector + 4 * i, u32{s.segments[i].selector});
        put_hidden(m, i, s.segments[i]);
    }
    m.put(map::ldtr_selector, u32{s.ldtr.selector});
    put_hidden(m, 6, s.ldtr);
    m.put(map::tr_selector, u32{s.tr.selector});
    put_hidden(m, 7, s.tr);
    m.put(map::gdt_base, static_cast<u32>(s.gdtr.base));
    m.put(map::gdt_base_high, static_cast<u32>(s.gdtr.base >> 32));
    m.put(map::gdt_limit, s.gdtr.limit);
    m.put(map::idt_base, static_cast<u32>(s.idtr.base));
    m.put(map::idt_base_high, static_cast<u32>(s.idtr.base >> 32));
    m.put(map::idt_limit, s.idtr.limit);
    m.put(map::ldt_base, static_cast<u32>(s.ldtr.base));
    m.put(map::ldt_base_high, static_cast<u32>(s.ldtr.base >> 32));
    m.put(map::halt_restart, u16{s.activity == ActivityState::hlt});
    m.put(map::revision, revision_id);
    m.put(map::smbase, s.smbase);
    m.put(map::blocked_nmi, u8{s.blocking_by_nmi});
    m.put(map::pending_debug, s.pending_debug);
}

u64 split_base(const Image& m, unsigned low, unsigned high) {
    return m.get<u32>(low) | u64{m.get<u32>(high)} << 32;
}

/// What RSM loads, without checks.
void load_state(const Image& m, state::Cpu& s) {
    s.cr0 = m.get<u64>(map::cr0);
    s.cr3 = m.get<u64>(map::cr3);
    s.cr4 = m.get<u32>(map::cr4);
    s.efer = m.get<u64>(map::efer);
    s.rflags = (m.get<u64>(map::rflags) & rflags::writable) | rflags::fixed1;
    s.rip = m.get<u64>(map::rip);
    s.dr6 = (m.get<u64>(map::dr6) & (dr6::b | dr6::bd | dr6::bs | dr6::bt)) | dr6::fixed1;
    s.dr7 = (m.get<u64>(map::dr7) & 0xffff27ff) | dr7::fixed1;
    for (unsigned i = 0; i < 8; ++i) {
        s.gpr[low_gprs[i]] = m.get<u64>(map::rdi - 8 * i);
        s.gpr[8 + i] = m.get<u64>(map::r8 - 8 * i);
    }
    for (unsigned i = 0; i < 6; ++i) {
        get_hidden(m, i, m.get<u16>(map::es_selector + 4 * i), s.segments[i]);
    }
    get_hidden(m, 6, m.get<u16>(map::ldtr_selector), s.ldtr);
    get_hidden(m, 7, m.get<u16>(map::tr_selector), s.tr);
    s.ldtr.base = split_base(m, map::ldt_base, map::ldt_base_high);
    s.gdtr = {split_base(m, map::gdt_base, map::gdt_base_high), m.get<u16>(map::gdt_limit)};
    s.idtr = {split_base(m, map::idt_base, map::idt_base_high), m.get<u16>(map::idt_limit)};
    s.smbase = m.get<u32>(map::smbase);
    s.blocking_by_nmi = (m.get<u8>(map::blocked_nmi) & 1) != 0;
    s.pending_debug = m.get<u64>(map::pending_debug) &
                      (pending_debug::b | pending_debug::enabled_breakpoint | pending_debug::bs);
    s.activity =
        (m.get<u16>(map::halt_restart) & 1) != 0 ? ActivityState::hlt : ActivityState::active;
}

/// SDM 3C 32.4.2: reserved bits of CR4, illegal combinations in CR0; and what an IA-32e processor
/// cannot be in.
bool valid(const state::Cpu& s, const cpu::Features& features) {
    constexpr u64 known_efer = efer::sce | efer::lme | efer::lma | efer::nxe;
    const bool pe = (s.cr0 & cr0::pe) != 0;
    const bool pg = (s.cr0 & cr0::pg) != 0;
    const bool lma = (s.efer & efer::lma) != 0;
    const bool lme = (s.efer & efer::lme) != 0;
    const bool pae = (s.cr4 & cr4::pae) != 0;
    const bool cr0_ok =
        s.cr0 >> 32 == 0 && (!pg || pe) && ((s.cr0 & cr0::nw) == 0 || (s.cr0 & cr0::cd) != 0);
    const bool cr4_ok = (s.cr4 & features.cr4_reserved) == 0 && (lma || (s.cr4 & cr4::pcide) == 0);
    const bool long_ok = lma == (pg && lme) && (!lma || pae);
    const bool vm_ok = (s.rflags & rflags::vm) == 0 || (pe && !lma);
    const u64 cr3_limit = lma ? mask(features.physical_bits - 1, 0) : 0xffffffff;
    return cr0_ok && cr4_ok && long_ok && vm_ok && (s.cr3 & ~cr3_limit) == 0 &&
           (s.efer & (~known_efer | features.efer_reserved)) == 0;
}

} // namespace

std::optional<Exit> Vcpu::Impl::enter_smm() {
    cpu.materialize();
    Image image;
    save_state(cpu.s, image);
    Gpa stopped;
    const Gpa area(u64{cpu.s.smbase} + 0x8000 + map::first);
    // Where no RAM is, the map is lost and RSM will find nothing.
    switch (config.package->memory().write(area, image.bytes, &stopped)) {
    case MemoryStatus::page_needed:
        return PageNeeded{gfn_of(stopped)};
    case MemoryStatus::copy_needed:
        return CopyNeeded{gfn_of(stopped)};
    case MemoryStatus::ok:
    case MemoryStatus::no_ram:
        break;
    }
    events.smi = false;
    ++msrs.smi_count;
    const bool from_l2 = nested.s.guest_mode;
    nested.enter_smm();
    if (from_l2) {
        back_to_vmcs01();
    } else {
        vmcs01_changed();
    }
    state::Cpu& s = cpu.s;
    // SDM 3C table 32-4: real-address-like, with 4 GiB segments.
    state::Segment flat;
    flat.limit = 0xffffffff;
    flat.attributes = 0x8093;
    s.segments.fill(flat);
    s.segments[static_cast<unsigned>(Seg::cs)].selector = static_cast<u16>(s.smbase >> 4);
    s.segments[static_cast<unsigned>(Seg::cs)].base = s.smbase;
    s.cr0 &= ~(cr0::pe | cr0::em | cr0::ts | cr0::pg);
    s.cr4 = 0;
    s.efer = 0;
    s.dr7 = dr7::fixed1;
    s.rflags = rflags::fixed1;
    s.rip = 0x8000;
    s.activity = ActivityState::active;
    s.blocking_by_nmi = true;
    s.pending_debug = 0;
    s.in_smm = true;
    cpu.rehydrate();
    return std::nullopt;
}

std::optional<Exit> Vcpu::Impl::leave_smm() {
    Image image;
    Gpa stopped;
    const Gpa area(u64{cpu.s.smbase} + 0x8000 + map::first);
    switch (config.package->memory().read(area, image.bytes, &stopped)) {
    case MemoryStatus::page_needed:
        return PageNeeded{gfn_of(stopped)};
    case MemoryStatus::no_ram:
        image.bytes.fill(0xff);
        break;
    case MemoryStatus::ok:
    case MemoryStatus::copy_needed:
        break;
    }
    const state::Cpu before = cpu.s;
    load_state(image, cpu.s);
    bool ok = valid(cpu.s, config.package->features());
    const bool pae_paging =
        (cpu.s.cr0 & cr0::pg) != 0 && (cpu.s.cr4 & cr4::pae) != 0 && (cpu.s.efer & efer::lma) == 0;
    if (ok && pae_paging && !cpu.load_pdptrs(nullptr, cpu.s.cr3)) {
        ok = false;
        if (cpu.outcome == cpu::Outcome::page_needed) {
            cpu.s = before;
            return PageNeeded{Gfn(cpu.wanted_page)};
        }
    }
    state::Cpu after = cpu.s;
    cpu.s = before;
    complete_exit(); // counts RSM
    after.retired = cpu.s.retired;
    cpu.s = after;
    cpu.s.in_smm = false;
    cpu.s.blocking_by_sti = false;
    cpu.s.blocking_by_mov_ss = false;
    cpu.lazy.settle();
    ok = nested.leave_smm() && ok;
    vmcs01_changed();
    if (!ok) {
        cpu.s.activity = ActivityState::shutdown;
        cpu.rehydrate();
        return Shutdown{};
    }
    cpu.rehydrate();
    if (nested.s.guest_mode) {
        leave_vmcs01();
        nested.resume_l2();
    }
    return std::nullopt;
}

} // namespace nestor::hv
