// A vCPU in 64-bit mode, at L1 or in an L2 of it, in front of one instruction that devices answer,
// and a board that keeps a record of what they were asked.
//
// Handlers of all vectors are HLT, so RIP and the frame on the stack tell what an event reached and
// where it came from.
#pragma once

#include <cstring>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "engine/arch/bits.hpp"
#include "engine/cpu/package.hpp"
#include "engine/hypervisor/cpu_caps.hpp"
#include "engine/hypervisor/vcpu.hpp"
#include "src/base/check.hpp"
#include "tests/engine/cpu/entry_fixture.hpp"

namespace nestor::hv {

/// What a device was asked.
struct Asked {
    bool port = false;
    bool write = false;
    u8 size = 0;
    u64 address = 0;
    bool operator==(const Asked&) const = default;
};

struct AnsweredHost final : BoardPort {
    static constexpr u64 ram_size = u64{512} << 10;
    static constexpr u64 code = 0x20000, handlers = 0x21000, data = 0x50000, stack = 0x2f000,
                         gdt = 0x2d000, tss = 0x2e000, idt = 0x24000, tables = 0x30000,
                         ept_tables = 0x34000, l1_code = 0x3a000, l1_handler = 0x3b000,
                         descriptor = 0x3c000, smbase = 0x60000;
    /// Outside RAM, where linear and physical addresses are the same.
    static constexpr u64 device = 0x100000;
    /// The linear address of the local APIC's page.
    static constexpr u64 apic = 0x200000;
    static constexpr u64 vmxon_region = 0xffff0000, vmcs_region = 0x1000;
    static constexpr u8 pic_vector = 0x70;

    std::vector<u8> ram = std::vector<u8>(ram_size);
    std::vector<u8> states = std::vector<u8>(ram_size >> page_shift);
    cpu::GuestMemory memory;
    cpu::Package package;
    Vcpu vcpu;

    std::vector<Asked> asked;
    unsigned sent = 0;   ///< interrupt commands
    unsigned ended = 0;  ///< broadcasts of an EOI
    unsigned pages = 0;  ///< that had to be loaded
    bool pic = false;    ///< level of the PIC's output
    u64 answer = 0x1234; ///< to a read
    /// Called when the n-th access was made and is not complete yet.
    std::function<void(unsigned n)> at_access = [](unsigned) {};
    std::function<void()> at_page = [] {};

    AnsweredHost()
        : package((memory.add_region({Gpa(0), ram_size, ram.data(), states.data()}), memory),
                  {silicon_features(model()), 64}),
          vcpu({.index = VcpuIndex(0), .package = &package, .board = this, .cpuid = model()}) {}

    Vector acknowledge_pic() override {
        pic = false;
        return Vector(pic_vector);
    }
    [[nodiscard]] bool pic_output() const override { return pic; }
    void send(VcpuIndex from, const InterruptMessage& message) override {
        ++sent;
        if (vcpu.accepts(message, from)) {
            vcpu.deliver(message, Ticks(0));
        }
    }
    void apic_changed() override {}

    static const std::vector<state::CpuidEntry>& model() {
        static const auto cpuid = *cpu_model_cpuid("nestor-v1", 0, 1);
        return cpuid;
    }

    template <class T>
    void put(u64 at, T value) {
        std::memcpy(ram.data() + at, &value, sizeof value);
    }
    [[nodiscard]] u64 read(u64 at) const {
        u64 value;
        std::memcpy(&value, ram.data() + at, sizeof value);
        return value;
    }

    /// Page tables, descriptors and handlers; `instruction`, then HLT.
    void fill(const std::vector<u8>& instruction) {
        put(tables, tables + 0x1007);
        put(tables + 0x1000, tables + 0x2007);
        put(tables + 0x2000, u64{0x87});
        put(tables + 0x2008, u64{0xfee00087}); // `apic`
        put(ept_tables, ept_tables + 0x1007);
        put(ept_tables + 0x1000, ept_tables + 0x2007);
        put(ept_tables + 0x2000, u64{0xb7});
        put(ept_tables + 0x2008, u64{0x2000b7});
        put(vmcs_region, arch::vmx_basic::revision);
        put(gdt + 0x10, u64{0x00af9b000000ffff});
        put(gdt + 0x18, u64{0x00cf93000000ffff});
        for (unsigned v = 0; v < 256; ++v) {
            const u64 at = handler(v);
            put(idt + 16 * v,
                (at & 0xffff) | u64{0x10} << 16 | u64{0x8e00} << 32 | (at >> 16 & 0xffff) << 48);
            ram[at] = 0xf4;
        }
        ram[smbase + 0x8000] = 0xf4;
        ram[l1_handler] = 0xf4;
        std::memcpy(ram.data() + code, instruction.data(), instruction.size());
        ram[code + instruction.size()] = 0xf4;
        constexpr u8 launch[] = {0x0f, 0x01, 0xc2, 0xf4}; // VMLAUNCH; HLT
        std::memcpy(ram.data() + l1_code, launch, sizeof launch);
    }
    static constexpr u64 handler(unsigned vector) { return handlers + 16 * vector; }

    /// L1 in front of the instruction, its APIC on.
    [[nodiscard]] state::Vcpu at_instruction() const {
        using namespace arch;
        state::Vcpu v = vcpu.save();
        state::Cpu& s = v.cpu;
        s.segments.fill(segment(0x18, 0xc093));
        s.segments[1] = segment(0x10, 0xa09b);
        s.tr = segment(0x40, 0x8b);
        s.tr.base = tss;
        s.tr.limit = 0x67;
        s.ldtr = segment(0, 0x82 | seg_attr::unusable);
        s.gdtr = {gdt, 0xfff};
        s.idtr = {idt, 0xfff};
        s.cr0 = 0x80050033;
        s.cr3 = tables;
        s.cr4 = cr4::pae | cr4::vmxe | cr4::osfxsr | cr4::osxsave;
        s.efer = efer::sce | efer::lme | efer::lma | efer::nxe;
        s.rip = code;
        s.gpr[4] = stack;
        s.rflags = rflags::fixed1 | rflags::if_;
        s.smbase = smbase;
        s.activity = state::ActivityState::active;
        v.msrs.feature_control = 5;
        v.lapic.page[0xf0 / 4] = 0x1ff;
        v.lapic.page[0x350 / 4] = 0x700; // LINT0: the PIC
        return v;
    }

    /// L1 in front of VMLAUNCH; `l2` is what L2's registers shall be.
    [[nodiscard]] static state::Vcpu before_launch(const state::Vcpu& l2, const state::Vmcs& v12) {
        state::Vcpu v = l2;
        v.cpu.rip = l1_code;
        v.cpu.rflags = arch::rflags::fixed1;
        v.nested.vmxon = true;
        v.nested.vmxon_pointer = vmxon_region;
        v.nested.current = vmcs_region;
        v.nested.vmcs12 = v12;
        return v;
    }
    /// A VMCS whose guest is `at_instruction`'s state, with nothing that exits.
    [[nodiscard]] static state::Vmcs plain_vmcs(const state::Vcpu& l2) {
        using namespace arch;
        cpu::Entry e = cpu::valid_entry(cpu::ValidEntry::long64);
        state::Vmcs v = e.v;
        v.pin_based_vm_exec_control &= ~(pin_control::external_interrupt_exiting |
                                         pin_control::nmi_exiting | pin_control::virtual_nmis);
        cpu::activate(v, proc2_control::enable_ept);
        v.ept_pointer = ept_tables | 6 | 3 << 3 | eptp::accessed_dirty;
        v.guest_cr3 = tables;
        v.guest_cr4 |= cr4::osfxsr | cr4::osxsave;
        v.guest_rip = code;
        v.guest_rsp = stack;
        v.guest_rflags = l2.cpu.rflags;
        v.guest_gdtr_base = gdt;
        v.guest_idtr_base = idt;
        v.guest_tr_base = tss;
        v.guest_idtr_limit = v.guest_gdtr_limit = 0xfff;
        v.host_cr3 = tables;
        v.host_rip = l1_handler;
        v.host_rsp = stack - 0x1000;
        v.host_gdtr_base = gdt;
        v.host_idtr_base = idt;
        v.host_tr_base = tss;
        v.host_fs_base = v.host_gs_base = 0;
        return v;
    }

    /// Runs until the vCPU waits for something, an L2 has ended or `counts` are used. The board
    /// answers in between.
    Exit run(u64 counts = 200) {
        for (u64 count = count_; count < counts;) {
            const TimeBase base{Icount(count), Ticks(count), 1, 1};
            const Exit exit = vcpu.run(base, Icount(count + 1));
            count = count_ = vcpu.count().value();
            if (!served(exit)) {
                return exit;
            }
        }
        return CountReached{};
    }

private:
    static state::Segment segment(u16 selector, u32 attributes) {
        state::Segment out;
        out.selector = selector;
        out.limit = 0xffffffff;
        out.attributes = attributes;
        return out;
    }
    void note(const Asked& what) {
        asked.push_back(what);
        at_access(static_cast<unsigned>(asked.size()));
        vcpu.complete(answer);
    }
    /// True: the vCPU may go on.
    bool served(const Exit& exit) {
        if (const auto* port = std::get_if<PortAccess>(&exit)) {
            note({true, port->write, port->size, port->port});
        } else if (const auto* mmio = std::get_if<MmioAccess>(&exit)) {
            note({false, mmio->write, mmio->size, mmio->address.value()});
        } else if (const auto* page = std::get_if<PageNeeded>(&exit)) {
            ++pages;
            at_page();
            states[page->page.value()] &= static_cast<u8>(~cpu::page_state::absent);
        } else if (std::holds_alternative<EoiBroadcast>(exit)) {
            ++ended;
        } else {
            return std::holds_alternative<CountReached>(exit) ||
                   std::holds_alternative<Yielded>(exit);
        }
        return true;
    }

    u64 count_ = 0;
};

} // namespace nestor::hv
