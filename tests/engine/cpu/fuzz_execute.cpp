// Any bytes as code, in any mode, from random registers: decoder and executor survive, and a run
// that is saved, encoded, decoded and loaded into a fresh processor every few instructions, with
// another TLB size, ends in the very state of the unbroken one.
//
// Input: byte 0 the mode, byte 1 the leg length, bytes 2 to 9 a seed for registers and memory, then
// the code, which starts at 0x5000 and whose handlers return.
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <vector>

#include "engine/arch/bits.hpp"
#include "engine/cpu/package.hpp"
#include "engine/hypervisor/cpu_caps.hpp"
#include "tests/engine/hypervisor/saved_legs.hpp"

namespace {

using namespace nestor;

constexpr u64 ram_size = u64{256} << 10;
constexpr u64 gdt = 0x1000, idt = 0x2000, tss = 0x3000, code = 0x5000, handlers = 0x8000,
              tables = 0x10000, stack_top = 0x28000, inner_stack = 0x2c000;
constexpr u64 most_counts = 200;

struct Random {
    u64 s;
    u64 next() {
        s += 0x9e3779b97f4a7c15;
        u64 z = s;
        z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
        z = (z ^ z >> 27) * 0x94d049bb133111eb;
        return z ^ z >> 31;
    }
};

/// RAM, its state bytes, and a package over them.
struct Host {
    std::vector<u8> ram;
    std::vector<u8> states = std::vector<u8>(ram_size >> page_shift);
    cpu::GuestMemory memory;
    cpu::Package package;
    hv::Vcpu vcpu;

    Host(std::vector<u8> content, const std::vector<state::CpuidEntry>& cpuid, unsigned tlb)
        : ram(std::move(content)), package((attach(), memory), {hv::silicon_features(cpuid), tlb}),
          vcpu({.index = VcpuIndex(0), .package = &package, .board = nullptr, .cpuid = cpuid}) {}

private:
    void attach() { memory.add_region({Gpa(0), ram_size, ram.data(), states.data()}); }
};

template <class T>
void put(std::vector<u8>& ram, u64 at, T value) {
    std::memcpy(ram.data() + at, &value, sizeof value);
}

/// The same descriptors, gates and identity map for every input; a seed may spoil some.
void write_tables(std::vector<u8>& ram, bool long_mode, Random& random) {
    constexpr u64 flat[] = {0,
                            0x00cf9a000000ffff, // 08 code 32, ring 0
                            0x00cf92000000ffff, // 10 data, ring 0
                            0x00affa000000ffff, // 18 code 64, ring 3
                            0x00cff2000000ffff, // 20 data, ring 3
                            0x00af9a000000ffff, // 28 code 64, ring 0
                            0x00008b0030000067, // 30 TSS at 0x3000, busy
                            0x0,
                            0x000f9a000000ffff}; // 40 code 16, ring 0
    for (unsigned i = 0; i < std::size(flat); ++i) {
        put(ram, gdt + i * 8, flat[i]);
    }
    put(ram, tss + 4, long_mode ? inner_stack : inner_stack | u64{0x10} << 32);
    for (u64 v = 0; v < 256; ++v) {
        const u64 target = handlers + v * 16;
        const u64 gate = (target & 0xffff) | u64{long_mode ? 0x28u : 0x08u} << 16 |
                         u64{0xee00} << 32 | target >> 16 << 48;
        put(ram, idt + v * (long_mode ? 16 : 8), gate);
        ram[target] = 0x90;
        ram[target + 1] = 0x48; // REX.W in 64-bit mode, DEC EAX elsewhere
        ram[target + 2] = 0xcf; // IRET
    }
    put(ram, tables, u64{tables + 0x1007});
    put(ram, tables + 0x1000, u64{tables + 0x2007});
    put(ram, tables + 0x2000, u64{tables + 0x3007});
    for (u64 page = 0; page < ram_size >> page_shift; ++page) {
        put(ram, tables + 0x3000 + page * 8, page << page_shift | 7);
    }
    for (unsigned spoiled = random.next() % 4; spoiled > 0; --spoiled) {
        const u64 page = 0x20 + random.next() % 0x10;
        put(ram, tables + 0x3000 + page * 8, page << page_shift | (random.next() & 7));
    }
}

state::Segment segment(u16 selector, u32 attributes) {
    state::Segment s;
    s.selector = selector;
    s.limit = 0xffffffff;
    s.attributes = attributes;
    return s;
}

void set_mode(state::Cpu& s, unsigned mode) {
    using namespace arch;
    const bool user = (mode & 8) != 0;
    const u32 dpl = user ? seg_attr::dpl : 0;
    const u16 rpl = user ? 3 : 0;
    s.cr4 = cr4::osfxsr | cr4::osxmmexcpt | cr4::osxsave | cr4::fsgsbase;
    s.xcr0 = 7;
    s.tr = segment(0x30, 0x8b);
    s.tr.base = tss;
    s.tr.limit = 0x67;
    s.ldtr = segment(0, seg_attr::unusable);
    s.gdtr = {gdt, 0xff};
    s.idtr = {idt, 0xfff};
    s.segments.fill(segment(static_cast<u16>((user ? 0x20 : 0x10) | rpl), 0xc093 | dpl));
    state::Segment& cs = s.segments[1];
    switch (mode & 7) {
    case 0: // real mode
        s.cr0 = cr0::et | cr0::ne;
        s.segments.fill(segment(0, 0x93));
        for (state::Segment& sg : s.segments) {
            sg.limit = 0xffff;
        }
        s.idtr = {0, 0x3ff};
        break;
    case 1: // 16-bit protected mode
        s.cr0 = cr0::et | cr0::ne | cr0::pe;
        cs = segment(0x40, 0x809b);
        cs.limit = 0xfffff;
        break;
    case 2:
    case 3: // 32-bit protected mode
        s.cr0 = cr0::et | cr0::ne | cr0::pe;
        cs = segment(static_cast<u16>(0x08 | rpl), 0xc09b | dpl);
        break;
    default: // 64-bit mode
        s.cr0 = cr0::et | cr0::ne | cr0::pe | cr0::pg | cr0::wp;
        s.cr4 |= cr4::pae;
        s.efer = efer::sce | efer::lme | efer::lma | efer::nxe;
        s.cr3 = tables;
        s.idtr.limit = 0xffff;
        cs = segment(static_cast<u16>((user ? 0x18 : 0x28) | rpl), 0xa09b | dpl);
        break;
    }
}

state::Vcpu start_state(hv::Vcpu& vcpu, unsigned mode, Random& random) {
    state::Vcpu v = vcpu.save();
    state::Cpu& s = v.cpu;
    set_mode(s, mode);
    for (u64& r : s.gpr) {
        // Mostly addresses in RAM, sometimes anything.
        r = (random.next() & 3) == 0 ? random.next() : 0x20000 + (random.next() & 0xffff);
    }
    s.gpr[4] = (mode & 7) == 0 ? 0xf000 : stack_top;
    s.rip = code;
    s.rflags = 2 | (random.next() & (arch::rflags::arithmetic | arch::rflags::if_));
    if ((random.next() & 15) == 0) {
        s.rflags |= arch::rflags::tf;
    }
    for (u64& w : s.vector) {
        w = random.next();
    }
    s.activity = state::ActivityState::active;
    return v;
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    if (size < 12) {
        return 0;
    }
    const unsigned mode = data[0] & 15;
    const u64 leg = 5 + data[1] % 37;
    Random random{};
    std::memcpy(&random.s, data + 2, sizeof random.s);
    static const std::vector<state::CpuidEntry> cpuid = *hv::cpu_model_cpuid("nestor-v1", 0, 1);

    std::vector<u8> ram(ram_size);
    write_tables(ram, (mode & 7) >= 4, random);
    const std::size_t length = std::min<std::size_t>(size - 10, handlers - code);
    std::memcpy(ram.data() + code, data + 10, length);

    Host whole(ram, cpuid, 256);
    CHECK(whole.vcpu.load(start_state(whole.vcpu, mode, random)).has_value());
    hv::check_saved_legs(whole, leg, most_counts, [](const std::vector<u8>& content, unsigned tlb) {
        return std::make_unique<Host>(content, cpuid, tlb);
    });
    return 0;
}
