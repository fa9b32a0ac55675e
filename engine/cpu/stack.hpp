// Pushes and pops of near instructions, for ops_integer_stack.cpp and ops_control.cpp.
#pragma once

#include "engine/cpu/operands.hpp"

namespace nestor::cpu {

inline constexpr u8 rsp_offset = 32;
inline constexpr u8 rbp_offset = 40;

/// Mask of the stack pointer (SDM 1 6.2.3).
[[nodiscard]] inline u64 sp_mask(const Cpu& cpu) {
    const unsigned width = cpu.mode.stack();
    return width == 2 ? ~u64{0} : width == 1 ? 0xffffffff : 0xffff;
}
[[nodiscard]] inline u64 sp(const Cpu& cpu) { return cpu.s.gpr[4] & sp_mask(cpu); }
/// A 16-bit stack pointer leaves the rest of RSP alone.
inline void set_sp(Cpu& cpu, u64 value) {
    const u64 mask = sp_mask(cpu);
    cpu.s.gpr[4] = mask == 0xffff ? (cpu.s.gpr[4] & ~mask) | (value & mask) : value & mask;
}

/// Reads at an offset of the stack segment. False: outcome says why.
template <class T>
[[nodiscard]] bool load_stack(Cpu& cpu, const Op* op, u64 offset, T& out) {
    u64 address;
    return cpu.segment_access(arch::Seg::ss, offset & sp_mask(cpu), sizeof(T), Access::read,
                              address) &&
           cpu.load_linear(op, address, out, arch::Seg::ss);
}
/// The same for an instruction that has other accesses to make; see Cpu::load_before.
template <class T, class Rest>
[[nodiscard]] bool load_stack(Cpu& cpu, const Op* op, u64 offset, T& out, const Rest& rest) {
    u64 address;
    return cpu.segment_access(arch::Seg::ss, offset & sp_mask(cpu), sizeof(T), Access::read,
                              address) &&
           cpu.load_before(op, address, out, arch::Seg::ss, rest);
}
/// Whether a read there would be stopped. False: outcome says why.
template <class T>
[[nodiscard]] bool probe_stack_read(Cpu& cpu, const Op* op, u64 offset) {
    u64 address;
    return cpu.segment_access(arch::Seg::ss, offset & sp_mask(cpu), sizeof(T), Access::read,
                              address) &&
           cpu.probe_read(op, address, sizeof(T), arch::Seg::ss) != Cpu::Probe::stopped;
}
template <class T>
[[nodiscard]] bool store_stack(Cpu& cpu, const Op* op, u64 offset, T value) {
    u64 address;
    return cpu.segment_access(arch::Seg::ss, offset & sp_mask(cpu), sizeof(T), Access::write,
                              address) &&
           cpu.store_linear(op, address, value, arch::Seg::ss);
}
template <class T>
[[nodiscard]] bool probe_stack(Cpu& cpu, const Op* op, u64 offset) {
    u64 address;
    return cpu.segment_access(arch::Seg::ss, offset & sp_mask(cpu), sizeof(T), Access::write,
                              address) &&
           cpu.probe_write(op, address, sizeof(T), arch::Seg::ss);
}
/// The memory operand of an instruction that goes on to push.
template <class T>
[[nodiscard]] bool load_before_push(Cpu& cpu, const Op* op, T& out) {
    u64 address;
    const auto push_reached = [&] { return probe_stack<T>(cpu, op, sp(cpu) - sizeof(T)); };
    return cpu.linear(op, sizeof(T), Access::read, address) &&
           cpu.load_before(op, address, out, Cpu::operand_segment(op), push_reached);
}
template <class T>
[[nodiscard]] bool push(Cpu& cpu, const Op* op, T value) {
    const u64 moved = sp(cpu) - sizeof(T);
    if (!store_stack<T>(cpu, op, moved, value)) {
        return false;
    }
    set_sp(cpu, moved);
    return true;
}
/// Out of line, for handlers that end in a jump.
template <class T>
[[gnu::noinline]] inline bool push_slow(Cpu& cpu, const Op* op, T value) {
    return push<T>(cpu, op, value);
}

/// 64-bit mode: the push that needs no slow path. False: nothing happened.
[[gnu::always_inline]] inline bool fast_push(Cpu& cpu, u64 value) {
    const u64 address = cpu.s.gpr[4] - 8;
    const TlbEntry& e = cpu.tlb.at(address);
    if (!e.writes(address, sizeof value)) [[unlikely]] {
        return false;
    }
    host_store(e.host(address), value);
    cpu.s.gpr[4] = address;
    return true;
}
[[gnu::always_inline]] inline bool fast_load(const Cpu& cpu, u64 address, u64& value) {
    const TlbEntry& e = cpu.tlb.at(address);
    if (!e.reads(address, sizeof value)) [[unlikely]] {
        return false;
    }
    value = host_load<u64>(e.host(address));
    return true;
}
[[gnu::always_inline]] inline bool fast_peek(Cpu& cpu, u64& value) {
    return fast_load(cpu, cpu.s.gpr[4], value);
}

} // namespace nestor::cpu
