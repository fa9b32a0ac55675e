// How integer handlers reach their operands: register or memory, fast or through the slow path.
//
// A handler is a template over an operand size T and a Body. The Body computes and never stops;
// what can stop is the access, and that happens before the Body runs or, for a store, is undone.
// The fast path must keep no local in memory: a handler whose locals have addresses would call the
// next handler instead of jumping to it. So slow paths are functions of their own.
#pragma once

#include <type_traits>

#include "engine/cpu/cpu.hpp"
#include "engine/cpu/emit.hpp"

namespace nestor::cpu {

template <class T>
inline constexpr unsigned bits_of = sizeof(T) * 8;
template <class T>
using Signed = std::make_signed_t<T>;

// --- fast accesses
// --------------------------------------------------------------------------------

/// How a handler forms its address: base and displacement only, or with an index. Operands that
/// need more (ea::general) get the slow handler when they are emitted.
enum class Ea : u8 { base, indexed };

template <Ea form>
[[gnu::always_inline]] inline u64 fast_address(const Cpu& cpu, const Op* op) {
    const u64 address = cpu.slot(op->base) + static_cast<u64>(static_cast<i64>(op->disp));
    if constexpr (form == Ea::indexed) {
        return address + (cpu.slot(op->index) << (op->ea & ea::scale));
    } else {
        return address;
    }
}

/// Host address for a read of T at a linear address, or false when the slow path decides.
template <class T>
[[gnu::always_inline]] inline bool fast_read(const Cpu& cpu, u64 address, const u8*& host) {
    const TlbEntry& e = cpu.tlb[(address >> page_shift) & cpu.tlb_mask];
    host = reinterpret_cast<const u8*>(e.addend + address);
    return ((address + (sizeof(T) - 1)) & ~page_mask) == e.read;
}
template <class T>
[[gnu::always_inline]] inline bool fast_write(const Cpu& cpu, u64 address, u8*& host) {
    const TlbEntry& e = cpu.tlb[(address >> page_shift) & cpu.tlb_mask];
    host = reinterpret_cast<u8*>(e.addend + address);
    return ((address + (sizeof(T) - 1)) & ~page_mask) == e.write;
}
/// Both rights.
template <class T>
[[gnu::always_inline]] inline bool fast_modify(const Cpu& cpu, u64 address, u8*& host) {
    const TlbEntry& e = cpu.tlb[(address >> page_shift) & cpu.tlb_mask];
    const u64 page = (address + (sizeof(T) - 1)) & ~page_mask;
    host = reinterpret_cast<u8*>(e.addend + address);
    return page == e.write && page == e.read;
}
[[gnu::always_inline]] inline bool is_general(const Op* op) { return (op->ea & ea::general) != 0; }

template <class T>
[[gnu::always_inline]] inline T host_load(const u8* host) {
    T v;
    std::memcpy(&v, host, sizeof v);
    return v;
}
template <class T>
[[gnu::always_inline]] inline void host_store(u8* host, T v) {
    std::memcpy(host, &v, sizeof v);
}

/// What a Body may change, to take it back when the store behind it stops.
class Undo final {
public:
    explicit Undo(const Cpu& cpu) : gpr_(cpu.s.gpr), rflags_(cpu.s.rflags), lazy_(cpu.lazy) {}
    void restore(Cpu& cpu) const {
        cpu.s.gpr = gpr_;
        cpu.s.rflags = rflags_;
        cpu.lazy = lazy_;
    }

private:
    decltype(state::Cpu::gpr) gpr_;
    u64 rflags_;
    LazyFlags lazy_;
};

// --- read: `void` or `bool` Body::run(cpu, op, T value); false: `event` holds the fault
// -----------

template <class T, class Body>
[[gnu::always_inline]] inline bool run_read(Cpu& cpu, const Op* op, T v) {
    if constexpr (std::is_void_v<decltype(Body::run(cpu, op, v))>) {
        Body::run(cpu, op, v);
        return true;
    } else {
        return Body::run(cpu, op, v);
    }
}
/// The operand is the register op->src.
template <class T, class Body>
const Op* read_reg(Cpu& cpu, const Op* op) {
    if (!run_read<T, Body>(cpu, op, cpu.reg<T>(op->src))) [[unlikely]] {
        return cpu.abandon(op);
    }
    return next(cpu, op);
}
template <class T, class Body>
[[gnu::noinline]] bool read_slow_body(Cpu& cpu, const Op* op) {
    T v;
    return cpu.load(op, v) && run_read<T, Body>(cpu, op, v);
}
template <class T, class Body>
[[gnu::noinline]] const Op* read_slow(Cpu& cpu, const Op* op) {
    if (!read_slow_body<T, Body>(cpu, op)) [[unlikely]] {
        return cpu.abandon(op);
    }
    return next(cpu, op);
}
template <class T, class Body, Ea form>
const Op* read_mem(Cpu& cpu, const Op* op) {
    const u8* host;
    if (!fast_read<T>(cpu, fast_address<form>(cpu, op), host)) [[unlikely]] {
        return read_slow<T, Body>(cpu, op);
    }
    if (!run_read<T, Body>(cpu, op, host_load<T>(host))) [[unlikely]] {
        return cpu.abandon(op);
    }
    return next(cpu, op);
}

// --- write: T Body::run(cpu, op)
// -------------------------------------------------------------------

/// The operand is the register op->dst.
template <class T, class Body>
const Op* write_reg(Cpu& cpu, const Op* op) {
    cpu.set_reg<T>(op->dst, Body::run(cpu, op));
    return next(cpu, op);
}
template <class T, class Body>
[[gnu::noinline]] bool write_slow_body(Cpu& cpu, const Op* op) {
    return cpu.store<T>(op, Body::run(cpu, op));
}
template <class T, class Body>
[[gnu::noinline]] const Op* write_slow(Cpu& cpu, const Op* op) {
    if (!write_slow_body<T, Body>(cpu, op)) [[unlikely]] {
        return cpu.abandon(op);
    }
    return next(cpu, op);
}
template <class T, class Body, Ea form>
const Op* write_mem(Cpu& cpu, const Op* op) {
    u8* host;
    if (!fast_write<T>(cpu, fast_address<form>(cpu, op), host)) [[unlikely]] {
        return write_slow<T, Body>(cpu, op);
    }
    host_store<T>(host, Body::run(cpu, op));
    return next(cpu, op);
}

// --- modify: T Body::run(cpu, op, T value); may change other registers and flags
// --------------------

/// The operand is the register op->dst, written last.
template <class T, class Body>
const Op* modify_reg(Cpu& cpu, const Op* op) {
    cpu.set_reg<T>(op->dst, Body::run(cpu, op, cpu.reg<T>(op->dst)));
    return next(cpu, op);
}
template <class T, class Body>
[[gnu::noinline]] bool modify_slow_body(Cpu& cpu, const Op* op) {
    u64 address;
    T v;
    if (!cpu.load_for_write(op, address, v)) {
        return false;
    }
    const Undo undo(cpu);
    v = Body::run(cpu, op, v);
    if (!cpu.store_linear(op, address, v, Cpu::operand_segment(op))) {
        undo.restore(cpu);
        return false;
    }
    return true;
}
template <class T, class Body>
[[gnu::noinline]] const Op* modify_slow(Cpu& cpu, const Op* op) {
    if (!modify_slow_body<T, Body>(cpu, op)) [[unlikely]] {
        return cpu.abandon(op);
    }
    return next(cpu, op);
}
template <class T, class Body, Ea form>
const Op* modify_mem(Cpu& cpu, const Op* op) {
    u8* host;
    if (!fast_modify<T>(cpu, fast_address<form>(cpu, op), host)) [[unlikely]] {
        return modify_slow<T, Body>(cpu, op);
    }
    host_store<T>(host, Body::run(cpu, op, host_load<T>(host)));
    return next(cpu, op);
}

/// Handler of an instruction that `body` does as a whole; false: outcome says why it stopped. The
/// body must be noinline, see above.
template <bool (*body)(Cpu&, const Op*)>
const Op* whole(Cpu& cpu, const Op* op) {
    if (!body(cpu, op)) [[unlikely]] {
        return cpu.abandon(op);
    }
    return next(cpu, op);
}

// --- emitting
// ---------------------------------------------------------------------------------------

[[nodiscard]] inline u8 reg_of(const Emit& e, unsigned i) {
    return Emit::reg_offset(e.operand(i).reg.value);
}
/// The immediate operand, sign-extended to 64 bits where the instruction does so.
[[nodiscard]] inline u64 imm_of(const Emit& e, unsigned i) { return e.operand(i).imm.value.u; }

/// Chooses by the memory operand's form. `hot` instructions have a handler for addresses without an
/// index; for the others the general kind will do.
[[nodiscard]] inline OpFn by_address(const Op& op, OpFn slow, OpFn base, OpFn indexed) {
    if (is_general(&op)) {
        return slow;
    }
    return op.index == Cpu::zero_slot ? base : indexed;
}
template <class T, class Body, bool hot = false>
bool emit_read(Emit& e, unsigned i) {
    if (e.is_mem(i)) {
        e.set_memory(i);
        constexpr Ea base = hot ? Ea::base : Ea::indexed;
        e.op.fn = by_address(e.op, read_slow<T, Body>, read_mem<T, Body, base>,
                             read_mem<T, Body, Ea::indexed>);
    } else {
        e.op.src = reg_of(e, i);
        e.op.fn = read_reg<T, Body>;
    }
    return true;
}
template <class T, class Body, bool hot = false>
bool emit_write(Emit& e, unsigned i) {
    if (e.is_mem(i)) {
        e.set_memory(i);
        constexpr Ea base = hot ? Ea::base : Ea::indexed;
        e.op.fn = by_address(e.op, write_slow<T, Body>, write_mem<T, Body, base>,
                             write_mem<T, Body, Ea::indexed>);
    } else {
        e.op.dst = reg_of(e, i);
        e.op.fn = write_reg<T, Body>;
    }
    return true;
}
template <class T, class Body, bool hot = false>
bool emit_modify(Emit& e, unsigned i) {
    if (e.is_mem(i)) {
        e.set_memory(i);
        constexpr Ea base = hot ? Ea::base : Ea::indexed;
        e.op.fn = by_address(e.op, modify_slow<T, Body>, modify_mem<T, Body, base>,
                             modify_mem<T, Body, Ea::indexed>);
    } else {
        e.op.dst = reg_of(e, i);
        e.op.fn = modify_reg<T, Body>;
    }
    return true;
}

/// Calls f with a value of the unsigned type of `size` bytes.
template <class F>
bool by_size(unsigned size, F f) {
    switch (size) {
    case 1:
        return f(u8{});
    case 2:
        return f(u16{});
    case 4:
        return f(u32{});
    default:
        return f(u64{});
    }
}
/// Sizes 2, 4 and 8.
template <class F>
bool by_wide_size(unsigned size, F f) {
    switch (size) {
    case 2:
        return f(u16{});
    case 4:
        return f(u32{});
    default:
        return f(u64{});
    }
}
/// Calls f with a compile-time bool.
template <class F>
bool by_bool(bool value, F f) {
    return value ? f(std::true_type{}) : f(std::false_type{});
}

} // namespace nestor::cpu
