// Gathers and masked moves: each enabled element is an access of its own (SDM 2C VGATHERDPS,
// VMASKMOV, VPMASKMOV; SDM 2B MASKMOVDQU, MASKMOVQ).
//
// A gather that faults has done the elements before: they are in the destination and their mask is
// clear; the other mask elements are as they were. Where the machine has to fetch a page or an
// answer first, nothing has happened yet and the whole instruction starts again. Stores check all
// enabled elements before they write one. With no element enabled there is no access and no fault.
#include <cstring>
#include <type_traits>

#include "engine/cpu/simd.hpp"

namespace nestor::cpu::simd {

namespace {

using arch::Seg;

/// Linear address of an element at `displacement` from the operand's address.
bool element_address(Cpu& cpu, const Op* op, u64 displacement, unsigned size, Access kind,
                     u64& address) {
    u64 offset = cpu.slot(op->base) + (cpu.slot(op->index) << (op->ea & ea::scale)) +
                 static_cast<u64>(static_cast<i64>(op->disp)) + displacement;
    if ((op->ea & ea::general) == 0) {
        address = offset;
        return true;
    }
    if ((op->ea & ea::address32) != 0) {
        offset = static_cast<u32>(offset);
    } else if ((op->ea & ea::address16) != 0) {
        offset = static_cast<u16>(offset);
    }
    return cpu.linear_general(op, offset, size, kind, address);
}

template <class T>
bool load_element(Cpu& cpu, const Op* op, u64 displacement, T& out) {
    u64 address;
    return element_address(cpu, op, displacement, sizeof(T), Access::read, address) &&
           cpu.load_linear(op, address, out, Cpu::operand_segment(op));
}

template <class T>
bool enabled(T mask) {
    return (mask >> (sizeof(T) * 8 - 1)) != 0;
}

/// A handler from a body that says whether the instruction is done. Bodies have addressable locals,
/// which would keep the call of the next handler from becoming a jump.
template <bool (*body)(Cpu&, const Op*)>
const Op* handler(Cpu& cpu, const Op* op) {
    return body(cpu, op) ? next(cpu, op) : cpu.abandon(op);
}

// --- gather: dst = destination, src = mask, imm = index slot | scale << 8 | bytes << 16
// ------------

/// Elements of a whole vector register, whatever their number.
template <class T>
struct Vector {
    T e[32 / sizeof(T)];
};

template <class Data, class Index>
[[gnu::noinline]] bool gather(Cpu& cpu, const Op* op) {
    const u32 imm = static_cast<u32>(op->imm);
    const unsigned bytes = imm >> 16;
    const unsigned count = bytes / (sizeof(Data) > sizeof(Index) ? sizeof(Data) : sizeof(Index));
    Vector<Data> data;
    Vector<Data> mask;
    Vector<Index> index;
    std::memcpy(&data, at(cpu, op->dst), sizeof data);
    std::memcpy(&mask, at(cpu, op->src), sizeof mask);
    std::memcpy(&index, at(cpu, static_cast<u8>(imm)), sizeof index);
    bool done = true;
    for (unsigned i = 0; i < count && done; ++i) {
        if (enabled(mask.e[i])) {
            const i64 element = std::make_signed_t<Index>(index.e[i]);
            Data value;
            done = load_element(cpu, op, static_cast<u64>(element) << (imm >> 8 & 3), value);
            data.e[i] = done ? value : data.e[i];
        }
        mask.e[i] = done ? Data{0} : mask.e[i];
    }
    if (!done && cpu.outcome != Outcome::fault && cpu.outcome != Outcome::vm_exit) {
        return false;
    }
    if (done) {
        const unsigned used = count * static_cast<unsigned>(sizeof(Data));
        std::memset(&mask, 0, sizeof mask);
        std::memset(reinterpret_cast<u8*>(&data) + used, 0, sizeof data - used);
    }
    std::memcpy(at(cpu, op->dst), &data, sizeof data);
    std::memcpy(at(cpu, op->src), &mask, sizeof mask);
    return done;
}

bool set_gather(Emit& e, OpFn fn) {
    const auto& memory = e.operand(1).mem;
    const unsigned index = static_cast<unsigned>(ZydisRegisterGetId(memory.index));
    const unsigned destination = number(e.operand(0));
    const unsigned mask = number(e.operand(2));
    // SDM 2C VGATHERDPS: #UD unless destination, mask and index differ.
    if (index == destination || index == mask || destination == mask) {
        emit_undefined(e);
        return true;
    }
    const unsigned shift = memory.scale == 8   ? 3
                           : memory.scale == 4 ? 2
                           : memory.scale == 2 ? 1
                                               : 0;
    e.set_memory(1);
    e.op.index = Cpu::zero_slot;
    e.op.ea &= static_cast<u8>(~ea::scale);
    e.op.dst = vector_slot(destination);
    e.op.src = vector_slot(mask);
    const unsigned bytes = e.d.insn.avx.vector_length / 8u;
    e.op.imm = static_cast<i32>(vector_slot(index) | shift << 8 | bytes << 16);
    e.op.fn = fn;
    return true;
}

// --- VMASKMOV: dst = register, src = mask, imm = bytes -------------------------------------------

template <class T>
[[gnu::noinline]] bool masked_load(Cpu& cpu, const Op* op) {
    const unsigned bytes = static_cast<unsigned>(op->imm);
    Vector<T> mask;
    Vector<T> data{};
    std::memcpy(&mask, at(cpu, op->src), bytes);
    const unsigned count = bytes / static_cast<unsigned>(sizeof(T));
    const Seg segment = Cpu::operand_segment(op);
    for (unsigned i = 0; i < count; ++i) {
        u64 address;
        const auto others_reached = [&] {
            bool reached = true;
            for (unsigned k = i + 1; k < count && reached; ++k) {
                u64 other;
                reached =
                    !enabled(mask.e[k]) ||
                    (element_address(cpu, op, k * sizeof(T), sizeof(T), Access::read, other) &&
                     cpu.probe_read(op, other, sizeof(T), segment) != Cpu::Probe::stopped);
            }
            return reached;
        };
        if (enabled(mask.e[i]) &&
            (!element_address(cpu, op, i * sizeof(T), sizeof(T), Access::read, address) ||
             !cpu.load_before(op, address, data.e[i], segment, others_reached))) {
            return false;
        }
    }
    std::memcpy(at(cpu, op->dst), &data, sizeof data);
    return true;
}

/// Stores the elements of `data` whose mask is set.
template <class T>
bool store_masked(Cpu& cpu, const Op* op, const T* data, const T* mask, unsigned count) {
    u64 address[32];
    for (unsigned i = 0; i < count; ++i) {
        if (enabled(mask[i]) &&
            (!element_address(cpu, op, i * sizeof(T), sizeof(T), Access::write, address[i]) ||
             !cpu.probe_write(op, address[i], sizeof(T), Cpu::operand_segment(op)))) {
            return false;
        }
    }
    for (unsigned i = 0; i < count; ++i) {
        if (enabled(mask[i]) &&
            !cpu.store_linear(op, address[i], data[i], Cpu::operand_segment(op))) {
            return false;
        }
    }
    return true;
}

template <class T>
[[gnu::noinline]] bool masked_store(Cpu& cpu, const Op* op) {
    Vector<T> mask;
    Vector<T> data;
    std::memcpy(&mask, at(cpu, op->src), sizeof mask);
    std::memcpy(&data, at(cpu, op->dst), sizeof data);
    const unsigned count = static_cast<unsigned>(op->imm) / static_cast<unsigned>(sizeof(T));
    return store_masked(cpu, op, data.e, mask.e, count);
}

bool set_masked_move(Emit& e, OpFn load, OpFn store) {
    const bool is_store = e.is_mem(0);
    e.set_memory(is_store ? 0 : 2);
    e.op.src = slot_of(e.operand(1));
    e.op.dst = slot_of(e.operand(is_store ? 2 : 0));
    e.op.imm = e.d.insn.avx.vector_length / 8;
    e.op.fn = is_store ? store : load;
    return true;
}

// --- MASKMOVDQU, MASKMOVQ: dst = data, src = mask ------------------------------------------------

[[gnu::noinline]] bool maskmovdqu(Cpu& cpu, const Op* op) {
    u8 data[16];
    u8 mask[16];
    std::memcpy(data, at(cpu, op->dst), sizeof data);
    std::memcpy(mask, at(cpu, op->src), sizeof mask);
    return store_masked(cpu, op, data, mask, 16);
}

[[gnu::noinline]] bool maskmovq(Cpu& cpu, const Op* op) {
    if (mf_pending(cpu)) {
        return cpu.set_fault(arch::Exception::mf, 0);
    }
    const unsigned top = cpu.s.x87.status >> 11 & 7;
    const auto physical = [&](u8 slot) {
        return cpu.s.x87.significand[(slot - mmx_slot(0) + 8u - top) & 7];
    };
    u8 data[8];
    u8 mask[8];
    const u64 d = physical(op->dst);
    const u64 m = physical(op->src);
    std::memcpy(data, &d, sizeof data);
    std::memcpy(mask, &m, sizeof mask);
    if (!store_masked(cpu, op, data, mask, 8)) {
        return false;
    }
    enter_mmx(cpu);
    return true;
}

bool set_byte_mask(Emit& e, OpFn fn) {
    e.set_memory(2);
    e.op.dst = slot_of(e.operand(0));
    e.op.src = slot_of(e.operand(1));
    e.op.fn = fn;
    return true;
}

} // namespace

bool emit_masked(Emit& e) {
    switch (e.mnemonic()) {
    case ZYDIS_MNEMONIC_VPGATHERDD:
    case ZYDIS_MNEMONIC_VGATHERDPS:
        return set_gather(e, handler<gather<u32, u32>>);
    case ZYDIS_MNEMONIC_VPGATHERDQ:
    case ZYDIS_MNEMONIC_VGATHERDPD:
        return set_gather(e, handler<gather<u64, u32>>);
    case ZYDIS_MNEMONIC_VPGATHERQD:
    case ZYDIS_MNEMONIC_VGATHERQPS:
        return set_gather(e, handler<gather<u32, u64>>);
    case ZYDIS_MNEMONIC_VPGATHERQQ:
    case ZYDIS_MNEMONIC_VGATHERQPD:
        return set_gather(e, handler<gather<u64, u64>>);
    case ZYDIS_MNEMONIC_VMASKMOVPS:
    case ZYDIS_MNEMONIC_VPMASKMOVD:
        return set_masked_move(e, handler<masked_load<u32>>, handler<masked_store<u32>>);
    case ZYDIS_MNEMONIC_VMASKMOVPD:
    case ZYDIS_MNEMONIC_VPMASKMOVQ:
        return set_masked_move(e, handler<masked_load<u64>>, handler<masked_store<u64>>);
    case ZYDIS_MNEMONIC_MASKMOVDQU:
    case ZYDIS_MNEMONIC_VMASKMOVDQU:
        return set_byte_mask(e, handler<maskmovdqu>);
    case ZYDIS_MNEMONIC_MASKMOVQ:
        return set_byte_mask(e, handler<maskmovq>);
    default:
        return false;
    }
}

} // namespace nestor::cpu::simd
