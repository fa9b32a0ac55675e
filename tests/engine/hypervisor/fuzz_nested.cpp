// A vmcs12 near the valid boundary: L1 launches it, L2 runs, exits to L1, which resumes it behind
// the instruction that exited. Nothing crashes, and a vCPU that is saved, encoded, decoded and
// loaded into a fresh one every few counts, with another TLB size, ends as the unbroken one.
//
// Input: as fuzz_entry's; the code is L2's.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>

#include "nested_fixture.hpp"
#include "saved_legs.hpp"

namespace {

using namespace nestor;
using cpu::ValidEntry;
using hv::NestedHost;

constexpr u64 most_counts = 400;
constexpr u64 counter = 0x2e800, page_directory32 = 0x38000;

/// L1's exit handler: twelve times behind the instruction and on, then HLT.
constexpr u8 handler[] = {
    0xff, 0x0c, 0x25, 0x00, 0xe8, 0x02, 0x00, // dec dword [counter]
    0x74, 0x1c,                               // jz hlt
    0xb8, 0x1e, 0x68, 0x00, 0x00,             // mov eax, guest RIP
    0x0f, 0x78, 0xc3,                         // vmread rbx, rax
    0xb9, 0x0c, 0x44, 0x00, 0x00,             // mov ecx, VM-exit instruction length
    0x0f, 0x78, 0xca,                         // vmread rdx, rcx
    0x83, 0xe2, 0x0f,                         // and edx, 15
    0x48, 0x01, 0xd3,                         // add rbx, rdx
    0x0f, 0x79, 0xc3,                         // vmwrite rax, rbx
    0x0f, 0x01, 0xc3,                         // vmresume
    0xf4,                                     // hlt
};

/// Makes a valid VMCS run `l2_code` in NestedHost's memory.
void aim(state::Vmcs& v, ValidEntry kind) {
    NestedHost::set_host(v);
    v.guest_rip = NestedHost::l2_code;
    v.guest_rsp = 0x2d000;
    v.guest_cr3 = NestedHost::tables;
    v.guest_cr4 |= arch::cr4::osfxsr | arch::cr4::pse;
    v.ept_pointer = (v.ept_pointer & page_mask) | NestedHost::ept_tables;
    v.vmx_preemption_timer_value = 1000;
    v.pml_index = 511;
    v.cpu_based_vm_exec_control &=
        ~(arch::proc_control::interrupt_window_exiting | arch::proc_control::nmi_window_exiting |
          arch::proc_control::monitor_trap_flag);
    switch (kind) {
    case ValidEntry::pae32:
    case ValidEntry::pae32_ept:
        v.guest_cr3 = NestedHost::tables + 0x3000;
        v.guest_pdpte0 = NestedHost::tables + 0x2001;
        break;
    case ValidEntry::v8086:
        v.guest_cr3 = page_directory32;
        v.guest_rip = 0;
        v.guest_rsp = 0xf000;
        break;
    case ValidEntry::real:
        v.guest_cs_selector = NestedHost::l2_code >> 4;
        v.guest_cs_base = NestedHost::l2_code;
        v.guest_rip = 0;
        v.guest_rsp = 0xf000;
        break;
    default:
        break;
    }
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    if (size < 4) {
        return 0;
    }
    const ValidEntry kind = cpu::valid_entries[data[0] % std::size(cpu::valid_entries)];
    const u64 leg = 1 + data[1] % 23;
    std::size_t edits = data[2] % 8;
    data += 3;
    size -= 3;
    cpu::Entry entry = cpu::valid_entry(kind);
    aim(entry.v, kind);
    for (; edits > 0 && size >= 11; --edits, data += 11, size -= 11) {
        cpu::edit_field(entry.v, data);
    }
    std::vector<u8> ram = NestedHost::memory_of(entry);
    std::memcpy(ram.data() + NestedHost::l1_handler, handler, sizeof handler);
    ram[counter] = 12;
    ram[page_directory32] = 0x87;
    std::memcpy(ram.data() + NestedHost::l2_code, data, std::min<std::size_t>(size, 0x1000));

    NestedHost whole(ram, 256);
    CHECK(whole.vcpu.load(whole.before_launch(entry.v)).has_value());
    hv::check_saved_legs(whole, leg, most_counts, [](const std::vector<u8>& content, unsigned tlb) {
        return std::make_unique<NestedHost>(content, tlb);
    });
    return 0;
}
