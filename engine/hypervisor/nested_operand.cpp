// Operands of VMX instructions, and L1's memory as L0 reads and writes it.
//
// An instruction that exited tells where its operand is in the instruction-information field
// (SDM 3C tables 28-13, 28-14) and the qualification, which holds the displacement. L0 goes through
// L1's segmentation and paging as the instruction would have; a fault is the instruction's. Nothing
// of an instruction happens before its operand is there, so it can start again.
#include <algorithm>

#include "engine/arch/bits.hpp"
#include "engine/cpu/package.hpp"
#include "engine/hypervisor/nested.hpp"
#include "engine/hypervisor/vcpu_impl.hpp"

namespace nestor::hv {

using arch::Seg;
using cpu::MemoryStatus;
using cpu::Outcome;

namespace {

constexpr u32 no_index = bit<u32>(22), no_base = bit<u32>(27);

} // namespace

bool Nested::mode64() const { return v_.cpu.mode.is64(); }

u64 Nested::register_operand(unsigned shift) const {
    return v_.cpu.s.gpr[v_.cpu.exit.instruction_info >> shift & 15];
}

bool Nested::memory_operand(unsigned size, cpu::Access access, u64& linear) {
    const u32 info = v_.cpu.exit.instruction_info;
    u64 offset = v_.cpu.exit.qualification;
    if ((info & no_base) == 0) {
        offset += register_operand(23);
    }
    if ((info & no_index) == 0) {
        offset += register_operand(18) << (info & 3);
    }
    switch (info >> 7 & 7) {
    case 0:
        offset = static_cast<u16>(offset);
        break;
    case 1:
        offset = static_cast<u32>(offset);
        break;
    default:
        break;
    }
    return v_.cpu.segment_access(static_cast<Seg>(info >> 15 & 7), offset, size, access, linear) ||
           stop_for_cpu();
}

/// The silicon could not make an access for L0. Always false.
bool Nested::stop_for_cpu() {
    switch (v_.cpu.outcome) {
    case Outcome::page_needed:
        stop_ = PageNeeded{Gfn(v_.cpu.wanted_page)};
        break;
    case Outcome::copy_needed:
        stop_ = CopyNeeded{Gfn(v_.cpu.wanted_page)};
        break;
    case Outcome::vm_exit: // L2's operand, and L1's EPT or APIC-access page
        exit_to_l1(v_.cpu.exit);
        break;
    default:
        v_.raise(v_.cpu.event);
        break;
    }
    return false;
}

bool Nested::load_operand(unsigned size, void* out) {
    u64 linear = 0;
    const auto segment = static_cast<Seg>(v_.cpu.exit.instruction_info >> 15 & 7);
    return memory_operand(size, cpu::Access::read, linear) &&
           (v_.cpu.load_slow(nullptr, linear, out, size, segment) || stop_for_cpu());
}

bool Nested::store_operand(unsigned size, const void* in) {
    u64 linear = 0;
    const auto segment = static_cast<Seg>(v_.cpu.exit.instruction_info >> 15 & 7);
    return memory_operand(size, cpu::Access::write, linear) &&
           (v_.cpu.store_slow(nullptr, linear, in, size, segment) || stop_for_cpu());
}

// --- L1's memory --------------------------------------------------------------------------------

std::optional<Exit> Nested::read_memory(u64 address, std::span<u8> out) {
    Gpa stopped;
    switch (v_.config.package->memory().read(Gpa(address), out, &stopped)) {
    case MemoryStatus::page_needed:
        return PageNeeded{gfn_of(stopped)};
    case MemoryStatus::no_ram:
        std::fill(out.begin(), out.end(), u8{0xff});
        break;
    case MemoryStatus::ok:
    case MemoryStatus::copy_needed:
        break;
    }
    return std::nullopt;
}

std::optional<Exit> Nested::write_memory(u64 address, std::span<const u8> in) {
    if (auto stop = reach(address, in.size(), true)) {
        return stop;
    }
    // Where no RAM is, the bytes are lost.
    static_cast<void>(v_.config.package->memory().write(Gpa(address), in));
    return std::nullopt;
}

std::optional<Exit> Nested::reach(u64 address, u64 size, bool write) {
    if (size == 0) {
        return std::nullopt;
    }
    const u64 last = (address + size - 1) >> page_shift;
    for (u64 frame = address >> page_shift; frame <= last; ++frame) {
        const auto page = v_.config.package->memory().page(Gfn(frame));
        if (page.host == nullptr) {
            continue;
        }
        if ((*page.state & cpu::page_state::absent) != 0) {
            return PageNeeded{Gfn(frame)};
        }
        if (write && (*page.state & cpu::page_state::cow) != 0) {
            return CopyNeeded{Gfn(frame)};
        }
    }
    return std::nullopt;
}

} // namespace nestor::hv
