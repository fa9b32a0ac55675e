// How integer handlers reach their operands: register or memory, fast or through the slow path.
//
// An instruction is a template over an operand size T and a Body. The Body computes and never
// stops; what can stop is the access, and that happens before the Body runs or, for a store, is
// undone. How the operand is reached makes a Step of it, and a Step a handler: `run` does all of
// the instruction or, where the slow path must decide, nothing; `slow` is the handler that does it
// then. The fast path must keep no local in memory: a handler whose locals have addresses would
// call the next handler instead of jumping to it. So slow paths are functions of their own.
#pragma once

#include <type_traits>

#include "engine/cpu/cpu.hpp"
#include "engine/cpu/emit.hpp"

namespace nestor::cpu {

template <class T>
inline constexpr unsigned bits_of = sizeof(T) * 8;
template <class T>
using Signed = std::make_signed_t<T>;

// --- fast accesses -------------------------------------------------------------------------------
// What a handler does itself when the TLB entry of its operand is good.

/// How a handler forms its address: base and displacement only, or with an index. Operands that
/// need more get the slow handler when they are emitted.
enum class Ea : u8 { base, indexed };

/// Without the displacement.
template <Ea form>
[[gnu::always_inline]] inline u64 fast_sum(const Cpu& cpu, const Op* op) {
    if constexpr (form == Ea::indexed) {
        return cpu.slot(op->base) + (cpu.slot(op->index) << (op->ea & ea::scale));
    } else {
        return cpu.slot(op->base);
    }
}
[[gnu::always_inline]] inline u64 displaced(u64 sum, const Op* op) {
    return sum + static_cast<u64>(static_cast<i64>(op->disp));
}
template <Ea form>
[[gnu::always_inline]] inline u64 fast_address(const Cpu& cpu, const Op* op) {
    return displaced(fast_sum<form>(cpu, op), op);
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

// --- steps and handlers --------------------------------------------------------------------------
// A Step does an instruction at once, or leaves it to the slow handler (README.md).

template <class Step>
const Op* handler(Cpu& cpu, const Op* op) {
    if (!Step::run(cpu, op)) [[unlikely]] {
        return Step::slow(cpu, op);
    }
    return next(cpu, op);
}
/// Handler of an instruction that `body` does as a whole; false: outcome says why it stopped. The
/// body must be noinline, see above.
template <bool (*body)(Cpu&, const Op*)>
[[gnu::noinline]] const Op* whole(Cpu& cpu, const Op* op) {
    if (!body(cpu, op)) [[unlikely]] {
        return cpu.abandon(op);
    }
    return next(cpu, op);
}
/// Where a Step without memory operand stops, its Body has said why.
struct RegisterStep {
    static const Op* slow(Cpu& cpu, const Op* op) { return cpu.abandon(op); }
};

/// Where a Step has a memory operand, `run_at` does the work of `run` with an address that is known
/// and the TLB entry in which its translation might be; any other entry does no harm.
template <class Step, Ea address_form>
struct MemoryStep {
    static constexpr Ea form = address_form;
    [[gnu::always_inline]] static bool run(Cpu& cpu, const Op* op) {
        const u64 address = fast_address<form>(cpu, op);
        return Step::run_at(cpu, op, address, cpu.tlb.at(address));
    }
};

// Read: `void` or `bool` Body::run(cpu, op, T value); false: `event` holds the fault.

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
struct ReadReg : RegisterStep {
    [[gnu::always_inline]] static bool run(Cpu& cpu, const Op* op) {
        return run_read<T, Body>(cpu, op, cpu.reg<T>(op->src));
    }
};
template <class T, class Body>
[[gnu::noinline]] bool read_whole(Cpu& cpu, const Op* op) {
    T v;
    return cpu.load(op, v) && run_read<T, Body>(cpu, op, v);
}
template <class T, class Body, Ea form>
struct ReadMem : MemoryStep<ReadMem<T, Body, form>, form> {
    static constexpr OpFn slow = whole<read_whole<T, Body>>;
    [[gnu::always_inline]] static bool run_at(Cpu& cpu, const Op* op, u64 address,
                                              const TlbEntry& e) {
        if (!e.reads(address, sizeof(T))) [[unlikely]] {
            return false;
        }
        return run_read<T, Body>(cpu, op, host_load<T>(e.host(address)));
    }
};

// Write: T Body::run(cpu, op).

/// The operand is the register op->dst.
template <class T, class Body>
struct WriteReg : RegisterStep {
    [[gnu::always_inline]] static bool run(Cpu& cpu, const Op* op) {
        cpu.set_reg<T>(op->dst, Body::run(cpu, op));
        return true;
    }
};
template <class T, class Body>
[[gnu::noinline]] bool write_whole(Cpu& cpu, const Op* op) {
    return cpu.store<T>(op, Body::run(cpu, op));
}
template <class T, class Body, Ea form>
struct WriteMem : MemoryStep<WriteMem<T, Body, form>, form> {
    static constexpr OpFn slow = whole<write_whole<T, Body>>;
    [[gnu::always_inline]] static bool run_at(Cpu& cpu, const Op* op, u64 address,
                                              const TlbEntry& e) {
        if (!e.writes(address, sizeof(T))) [[unlikely]] {
            return false;
        }
        host_store<T>(e.host(address), Body::run(cpu, op));
        return true;
    }
};

// Modify: T Body::run(cpu, op, T value); may change other registers and flags.

/// The operand is the register op->dst, written last.
template <class T, class Body>
struct ModifyReg : RegisterStep {
    [[gnu::always_inline]] static bool run(Cpu& cpu, const Op* op) {
        const u8 dst = op->dst; // read once: a store to `cpu` might change it, for all GCC knows
        cpu.set_reg<T>(dst, Body::run(cpu, op, cpu.reg<T>(dst)));
        return true;
    }
};
/// The slow path, which is the same whatever the Body: it may call it.
template <class T>
[[gnu::noinline]] bool modify_whole(Cpu& cpu, const Op* op, T (*body)(Cpu&, const Op*, T)) {
    u64 address;
    T v;
    if (!cpu.load_for_write(op, address, v)) {
        return false;
    }
    const Undo undo(cpu);
    v = body(cpu, op, v);
    if (!cpu.store_linear(op, address, v, Cpu::operand_segment(op))) {
        undo.restore(cpu);
        return false;
    }
    return true;
}
template <class T, class Body>
[[gnu::noinline]] const Op* modify_slow(Cpu& cpu, const Op* op) {
    if (!modify_whole<T>(cpu, op, Body::run)) [[unlikely]] {
        return cpu.abandon(op);
    }
    return next(cpu, op);
}
template <class T, class Body, Ea form>
struct ModifyMem : MemoryStep<ModifyMem<T, Body, form>, form> {
    static constexpr OpFn slow = modify_slow<T, Body>;
    [[gnu::always_inline]] static bool run_at(Cpu& cpu, const Op* op, u64 address,
                                              const TlbEntry& e) {
        if (!e.writes(address, sizeof(T)) || !e.reads(address, sizeof(T))) [[unlikely]] {
            return false;
        }
        u8* host = e.host(address);
        host_store<T>(host, Body::run(cpu, op, host_load<T>(host)));
        return true;
    }
};

// --- emitting ------------------------------------------------------------------------------------
// From decoded operands to the Step that fits them.

[[nodiscard]] inline u8 reg_of(const Emit& e, unsigned i) {
    return Emit::reg_offset(e.operand(i).reg.value);
}
/// The immediate operand, sign-extended to 64 bits where the instruction does so.
[[nodiscard]] inline u64 imm_of(const Emit& e, unsigned i) { return e.operand(i).imm.value.u; }

/// The handlers of an instruction, by where its operand is.
struct OperandHandlers {
    OpFn in_register;
    OpFn base;    ///< in memory, without an index
    OpFn indexed; ///< in memory, with an index; may be the same
    OpFn slow;    ///< in memory, for the slow path
};
template <class Register, class Base, class Indexed>
inline constexpr OperandHandlers operand_handlers = {handler<Register>, handler<Base>,
                                                     handler<Indexed>, Base::slow};
/// Operand i in memory or in the register that `field` of the Op names. True always, so that
/// emitters chain. (ops_integer.cpp)
bool emit_operand(Emit& e, unsigned i, u8 Op::* field, const OperandHandlers& handlers);

/// `hot` instructions have a handler for addresses without an index; for the others the general
/// kind will do.
template <bool hot>
inline constexpr Ea without_index = hot ? Ea::base : Ea::indexed;

template <class T, class Body, bool hot = false>
bool emit_read(Emit& e, unsigned i) {
    return emit_operand(e, i, &Op::src,
                        operand_handlers<ReadReg<T, Body>, ReadMem<T, Body, without_index<hot>>,
                                         ReadMem<T, Body, Ea::indexed>>);
}
template <class T, class Body, bool hot = false>
bool emit_write(Emit& e, unsigned i) {
    return emit_operand(e, i, &Op::dst,
                        operand_handlers<WriteReg<T, Body>, WriteMem<T, Body, without_index<hot>>,
                                         WriteMem<T, Body, Ea::indexed>>);
}
template <class T, class Body, bool hot = false>
bool emit_modify(Emit& e, unsigned i) {
    return emit_operand(e, i, &Op::dst,
                        operand_handlers<ModifyReg<T, Body>, ModifyMem<T, Body, without_index<hot>>,
                                         ModifyMem<T, Body, Ea::indexed>>);
}

/// Calls f with a value of the unsigned type of `size` bytes: 2, 4 or 8.
template <class F>
bool by_wide_size(unsigned size, F f) {
    return size == 2 ? f(u16{}) : size == 4 ? f(u32{}) : f(u64{});
}
/// Likewise, and 1.
template <class F>
bool by_size(unsigned size, F f) {
    return size == 1 ? f(u8{}) : by_wide_size(size, f);
}
/// Calls f with a compile-time bool.
template <class F>
bool by_bool(bool value, F f) {
    return value ? f(std::true_type{}) : f(std::false_type{});
}

} // namespace nestor::cpu
