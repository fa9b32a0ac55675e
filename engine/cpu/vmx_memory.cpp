// L1's memory as VMX structures see it: physical addresses, no paging, no faults.
//
// Owns nothing. An absent page stops what was going on, which starts again once the page is there;
// so everything that must be read or written is looked at before the first change.
#include "engine/cpu/vmx_memory.hpp"

#include "engine/cpu/package.hpp"

namespace nestor::cpu {

namespace {

bool wait_for(Cpu& cpu, u64 address, Outcome why) {
    cpu.outcome = why;
    cpu.wanted_page = address >> page_shift;
    return false;
}

} // namespace

bool read_structure(Cpu& cpu, u64 address, void* out, unsigned size) {
    const auto page = cpu.package.memory().page(gfn_of(Gpa(address)));
    if (page.host == nullptr) {
        std::memset(out, 0xff, size);
        return true;
    }
    if ((*page.state & page_state::absent) != 0) {
        return wait_for(cpu, address, Outcome::page_needed);
    }
    std::memcpy(out, page.host + (address & page_mask), size);
    return true;
}

bool structure_writable(Cpu& cpu, u64 address) {
    const auto page = cpu.package.memory().page(gfn_of(Gpa(address)));
    if (page.host == nullptr) {
        return true;
    }
    if ((*page.state & page_state::absent) != 0) {
        return wait_for(cpu, address, Outcome::page_needed);
    }
    return (*page.state & page_state::cow) == 0 || wait_for(cpu, address, Outcome::copy_needed);
}

bool write_structure(Cpu& cpu, u64 address, const void* in, unsigned size) {
    if (!structure_writable(cpu, address)) {
        return false;
    }
    cpu.package.memory().write(Gpa(address), {static_cast<const u8*>(in), size});
    return true;
}

void log_own_write(Cpu& cpu, u64 address, u8& state) {
    Controls& c = cpu.controls;
    if (c.own_log == nullptr || (state & page_state::clean) == 0 || c.pml_index >= log_entries) {
        return;
    }
    c.own_log[c.pml_index] = address & ~page_mask;
    --c.pml_index; // wraps, as SDM 3C 29.3.6 has it
    state &= static_cast<u8>(~page_state::clean);
    if (c.pml_index < own_log_reserve) {
        cpu.raise_attention(Cpu::Attention::event);
    }
}

} // namespace nestor::cpu
