// A vCPU whose L1 stands in front of VMLAUNCH, without a boot: its VMX operation, current VMCS and
// 64-bit mode are loaded as state. Handlers and descriptors there are none: a fault ends a level.
#pragma once

#include <cstring>
#include <vector>

#include "engine/arch/bits.hpp"
#include "engine/cpu/package.hpp"
#include "engine/hypervisor/cpu_caps.hpp"
#include "engine/hypervisor/vcpu.hpp"
#include "src/base/check.hpp"
#include "tests/engine/cpu/entry_fixture.hpp"

namespace nestor::hv {

struct NestedHost {
    static constexpr u64 ram_size = u64{256} << 10;
    // The first 64 KiB are cpu::Entry's.
    static constexpr u64 l2_code = 0x10000, l1_code = 0x20000, l1_handler = 0x21000,
                         msr_list = 0x22000, l1_stack = 0x2f000, tables = 0x30000,
                         ept_tables = 0x34000;
    static constexpr u64 vmxon_region = 0xffff0000, vmcs_region = 0x1000;

    std::vector<u8> ram;
    std::vector<u8> states = std::vector<u8>(ram_size >> page_shift);
    cpu::GuestMemory memory;
    cpu::Package package;
    Vcpu vcpu;

    explicit NestedHost(std::vector<u8> content, unsigned tlb = 64)
        : ram(std::move(content)),
          package((memory.add_region({Gpa(0), ram_size, ram.data(), states.data()}), memory),
                  {silicon_features(model()), tlb}),
          vcpu({.index = VcpuIndex(0), .package = &package, .board = nullptr, .cpuid = model()}) {}
    NestedHost(const NestedHost&) = delete;
    NestedHost& operator=(const NestedHost&) = delete;

    static const std::vector<state::CpuidEntry>& model() {
        static const auto cpuid = *cpu_model_cpuid("nestor-v1", 0, 1);
        return cpuid;
    }

    /// Memory with identity maps of 2 MiB for L1, and for L2 with EPT or without.
    static std::vector<u8> memory_of(cpu::Entry& entry) {
        std::vector<u8> ram(ram_size);
        std::memcpy(ram.data(), entry.ram.data(), cpu::EntryRam::size);
        const auto put = [&](u64 at, u64 value) {
            std::memcpy(ram.data() + at, &value, sizeof value);
        };
        put(vmcs_region, arch::vmx_basic::revision);
        put(tables, tables + 0x1007);
        put(tables + 0x1000, tables + 0x2007);
        put(tables + 0x2000, 0x87);
        put(tables + 0x3000, tables + 0x2001);
        put(ept_tables, ept_tables + 0x1407); // bit 10: pages of user mode too
        put(ept_tables + 0x1000, ept_tables + 0x2407);
        put(ept_tables + 0x2000, 0x4b7);
        constexpr u8 launch[] = {0x0f, 0x01, 0xc2, 0xf4}; // VMLAUNCH; HLT
        std::memcpy(ram.data() + l1_code, launch, sizeof launch);
        ram[l1_handler] = 0xf4; // HLT
        return ram;
    }

    /// Host state that is L1's, in a VMCS that is otherwise as it was.
    static void set_host(state::Vmcs& v) {
        v.host_cr3 = tables;
        v.host_rip = l1_handler;
        v.host_rsp = l1_stack;
        v.host_gdtr_base = v.host_idtr_base = v.host_tr_base = 0x2e000;
    }

    /// The vCPU in front of VMLAUNCH with this VMCS as the current one.
    [[nodiscard]] state::Vcpu before_launch(const state::Vmcs& vmcs12) const {
        using namespace arch;
        state::Vcpu v = vcpu.save();
        state::Cpu& s = v.cpu;
        const auto segment = [](u16 selector, u32 attributes) {
            state::Segment out;
            out.selector = selector;
            out.limit = 0xffffffff;
            out.attributes = attributes;
            return out;
        };
        s.segments.fill(segment(0x18, 0xc093));
        s.segments[1] = segment(0x10, 0xa09b);
        s.tr = segment(0x40, 0x8b);
        s.tr.limit = 0x67;
        s.ldtr = segment(0, 0x82 | seg_attr::unusable);
        s.cr0 = 0x80050033;
        s.cr3 = tables;
        s.cr4 = cr4::pae | cr4::vmxe | cr4::osfxsr;
        s.efer = efer::sce | efer::lme | efer::lma | efer::nxe;
        s.rip = l1_code;
        s.gpr[4] = l1_stack;
        s.rflags = 2;
        s.activity = state::ActivityState::active;
        v.msrs.feature_control = 5;
        v.nested.vmxon = true;
        v.nested.vmxon_pointer = vmxon_region;
        v.nested.current = vmcs_region;
        v.nested.vmcs12 = vmcs12;
        return v;
    }
};

} // namespace nestor::hv
