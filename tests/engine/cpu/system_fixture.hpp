// A processor with 4 MiB of RAM, set up straight in a mode: no boot code. Handlers of all 256
// vectors are HLT instructions, so that RIP tells which one an event reached.
#pragma once

#include <initializer_list>
#include <vector>

#include <gtest/gtest.h>

#include "engine/cpu/package.hpp"
#include "engine/cpu/system.hpp"

namespace nestor::cpu {

class SystemTest : public ::testing::Test {
protected:
    static constexpr u64 ram_size = 4 << 20;
    static constexpr u64 gdt = 0x1000, idt = 0x2000, tss = 0x3000, ldt = 0x3800, code = 0x5000,
                         stack_top = 0x7000, inner_stack_top = 0x7800, handlers = 0x8000,
                         tables = 0x10000, data = 0x20000;
    // Selectors of the flat set-up.
    static constexpr u16 code0 = 0x08, data0 = 0x10, code3 = 0x1b, data3 = 0x23,
                         tss_selector = 0x28, code16 = 0x38, data16 = 0x40, free_selector = 0x48;

    SystemTest()
        : ram_(ram_size), state_(ram_size >> page_shift),
          package_((memory_.add_region({Gpa(0), ram_size, ram_.data(), state_.data()}), memory_),
                   config()),
          cpu(package_, 0, 64) {}

    static Package::Config config() {
        Package::Config c;
        c.features.isa.set();
        c.tlb_entries = 64;
        return c;
    }

    // --- memory
    // -----------------------------------------------------------------------------------

    void poke(u64 address, std::initializer_list<int> bytes) {
        for (const int b : bytes) {
            write(address++, static_cast<u8>(b));
        }
    }
    /// Through the page mechanism, so that decoded code follows.
    template <class T>
    void write(u64 address, T value) {
        ASSERT_EQ(memory_.write(Gpa(address), {reinterpret_cast<const u8*>(&value), sizeof value}),
                  MemoryStatus::ok);
    }
    template <class T>
    [[nodiscard]] T read(u64 address) const {
        T v;
        std::memcpy(&v, ram_.data() + address, sizeof v);
        return v;
    }
    /// An 8-byte segment descriptor; `rights` as in bytes 5 and 6 (type, S, DPL, P; flags << 8).
    void descriptor(u16 selector, u32 base, u32 limit, u16 rights) {
        u64 v = (limit & 0xffff) | u64{base & 0xffffff} << 16 | u64{rights & 0xffu} << 40 |
                u64{limit >> 16 & 15} << 48 | u64{rights >> 8 & 0xf0u} << 48 |
                u64{base >> 24} << 56;
        write(gdt + (selector & 0xfff8), v);
    }
    void gate32(u64 address, u16 selector, u32 offset, u8 rights, u8 count = 0) {
        write(address, (offset & 0xffff) | u64{selector} << 16 | u64{count} << 32 |
                           u64{rights} << 40 | u64{offset >> 16} << 48);
    }
    void gate64(u8 vector, u16 selector, u64 offset, u8 rights, u8 ist = 0) {
        gate32(idt + vector * 16u, selector, static_cast<u32>(offset), rights, ist);
        write(idt + vector * 16u + 8, offset >> 32);
    }
    static constexpr u64 handler(u8 vector) { return handlers + vector * 16u; }

    // --- modes
    // ------------------------------------------------------------------------------------

    static state::Segment segment(u16 selector, u32 attributes, u32 limit = 0xffffffff) {
        state::Segment s;
        s.selector = selector;
        s.limit = limit;
        s.attributes = attributes;
        return s;
    }
    void data_segments(const state::Segment& s) {
        for (const auto r :
             {arch::Seg::es, arch::Seg::ss, arch::Seg::ds, arch::Seg::fs, arch::Seg::gs}) {
            cpu.seg(r) = s;
        }
    }
    void common() {
        for (unsigned v = 0; v < 256; ++v) {
            poke(handlers + v * 16u, {0xf4});
        }
        cpu.s = state::Cpu{};
        cpu.s.rip = code;
        cpu.s.gpr[4] = stack_top;
        descriptor(code0, 0, 0xfffff, 0xc09b);
        descriptor(data0, 0, 0xfffff, 0xc093);
        descriptor(code3, 0, 0xfffff, 0xc0fb);
        descriptor(data3, 0, 0xfffff, 0xc0f3);
        descriptor(tss_selector, tss, 0x67, 0x008b);
        descriptor(code16, 0, 0xffff, 0x009b);
        descriptor(data16, 0, 0xffff, 0x0093);
        cpu.s.gdtr = {gdt, 0x7ff};
        cpu.s.tr = segment(tss_selector, 0x8b, 0x67);
        cpu.s.tr.base = tss;
        cpu.s.ldtr = segment(0, arch::seg_attr::unusable, 0);
    }
    void real_mode() {
        common();
        for (unsigned v = 0; v < 256; ++v) {
            write(v * 4u, static_cast<u32>(handler(static_cast<u8>(v))));
        }
        cpu.seg(arch::Seg::cs) = segment(0, 0x9b, 0xffff);
        data_segments(segment(0, 0x93, 0xffff));
        cpu.s.idtr = {0, 0x3ff};
        cpu.rehydrate();
    }
    void protected_mode(u8 cpl = 0) {
        common();
        for (unsigned v = 0; v < 256; ++v) {
            gate32(idt + v * 8u, code0, static_cast<u32>(handler(static_cast<u8>(v))), 0x8e);
        }
        cpu.s.idtr = {idt, 0x7ff};
        cpu.s.cr0 = 0x60000011;
        write(tss + 4, static_cast<u32>(inner_stack_top));
        write(tss + 8, data0);
        level(cpl, 0xc000);
    }
    /// CS, SS and the data segments for a level; `code_flags` D, L and G.
    void level(u8 cpl, u32 code_flags) {
        const u32 dpl = u32{cpl} << 5;
        cpu.seg(arch::Seg::cs) = segment(cpl == 3 ? code3 : code0, 0x9b | dpl | code_flags);
        data_segments(segment(cpl == 3 ? data3 : data0, 0xc093 | dpl));
        cpu.rehydrate();
    }
    /// Four-level paging, identity, 2 MiB pages, all user and writable.
    void long_mode(u8 cpl = 0) {
        common();
        for (unsigned v = 0; v < 256; ++v) {
            gate64(static_cast<u8>(v), code0, handler(static_cast<u8>(v)), 0x8e);
        }
        descriptor(code0, 0, 0xfffff, 0xa09b);
        descriptor(code3, 0, 0xfffff, 0xa0fb);
        write(tables, u64{tables + 0x1007});
        write(tables + 0x1000, u64{tables + 0x2007});
        write(tables + 0x2000, u64{0x000087});
        write(tables + 0x2008, u64{0x200087});
        cpu.s.idtr = {idt, 0xfff};
        cpu.s.cr0 = 0x80000011;
        cpu.s.cr4 = arch::cr4::pae | arch::cr4::osfxsr;
        cpu.s.cr3 = tables;
        cpu.s.efer = arch::efer::lme | arch::efer::lma | arch::efer::sce | arch::efer::nxe;
        write(tss + 4, u64{inner_stack_top});
        level(cpl, 0xa000);
    }

    // --- running
    // ----------------------------------------------------------------------------------

    /// Puts code at `code` and runs until HLT, an exit or 100 counts.
    Cpu::Stop execute(std::initializer_list<int> bytes, u64 count = 100) {
        poke(code, bytes);
        stop = cpu.run(0, count);
        cpu.materialize();
        return stop;
    }
    /// The vector whose handler halted, or -1.
    [[nodiscard]] int reached() const {
        const u64 at = cpu.s.rip - 1 - handlers;
        return stop == Cpu::Stop::inactive && at % 16 == 0 && at < 4096 ? static_cast<int>(at / 16)
                                                                        : -1;
    }
    [[nodiscard]] u64 rsp() const { return cpu.s.gpr[4]; }
    [[nodiscard]] u64 rax() const { return cpu.s.gpr[0]; }
    void expect_exit(arch::ExitReason reason, u64 qualification = 0) {
        EXPECT_EQ(stop, Cpu::Stop::exit);
        EXPECT_EQ(cpu.exit.reason, reason) << arch::name_of(cpu.exit.reason);
        EXPECT_EQ(cpu.exit.qualification, qualification);
    }
    /// #vector(error) taken at CPL 0 of protected mode from CPL 0: the frame on the same stack.
    void expect_fault32(int vector, u32 error, u32 eip) {
        EXPECT_EQ(reached(), vector);
        EXPECT_EQ(read<u32>(rsp()), error);
        EXPECT_EQ(read<u32>(rsp() + 4), eip);
    }
    void expect_fault64(int vector, u64 error, u64 rip) {
        EXPECT_EQ(reached(), vector);
        EXPECT_EQ(read<u64>(rsp()), error);
        EXPECT_EQ(read<u64>(rsp() + 8), rip);
    }

    std::vector<u8> ram_;
    std::vector<u8> state_;
    GuestMemory memory_;
    Package package_;
    Cpu cpu;
    Cpu::Stop stop{};
};

} // namespace nestor::cpu
