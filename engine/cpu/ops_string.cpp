// MOVS, STOS, LODS, CMPS, SCAS, alone and with REP (SDM 2A, 2B).
//
// Each iteration counts one, and between two iterations is an instruction boundary: registers are
// right and RIP stands on the instruction. Runs of elements within pages that the TLB knows are
// done at once; whatever a run cannot do (page crossings, faults, MMIO, code pages, segment limits)
// is one element through the general path. CMPS and SCAS set flags only when they end: what an
// event in between sees are the flags from before (SDM 2B REP).
#include <algorithm>

#include "engine/cpu/alu.hpp"
#include "engine/cpu/string.hpp"

namespace nestor::cpu {

using namespace arch;

void set_string(Emit& e) {
    const unsigned width = e.d.insn.address_width;
    e.op.aux = width == 64 ? ~u64{0} : width == 32 ? 0xffffffff : 0xffff;
    unsigned segment = static_cast<unsigned>(Seg::ds);
    for (unsigned i = 0; i < e.d.insn.operand_count; ++i) {
        if (e.is_mem(i) && ZydisRegisterGetId(e.operand(i).mem.base) == rsi_index) {
            segment = static_cast<unsigned>(e.operand(i).mem.segment - ZYDIS_REGISTER_ES);
        }
    }
    e.op.ea = static_cast<u8>(ea::general | segment << ea::segment_shift);
}

namespace {

enum class String : u8 { movs, stos, lods, cmps, scas };
/// When a repeated compare ends.
enum class Repeat : u8 { none, rep, while_equal, while_not_equal };

constexpr bool compares(String kind) { return kind == String::cmps || kind == String::scas; }
constexpr bool uses_source(String kind) { return kind != String::stos && kind != String::scas; }
constexpr bool uses_destination(String kind) { return kind != String::lods; }

/// The last values compared.
template <class T>
struct Pair {
    T a = 0;
    T b = 0;
};

/// Whether nothing stops the access at ES:DI.
template <class T, String kind>
bool destination_reached(Cpu& cpu, const Op* op, u64 di) {
    constexpr Access access = compares(kind) ? Access::read : Access::write;
    u64 address;
    if (!cpu.segment_access(Seg::es, di, sizeof(T), access, address)) {
        return false;
    }
    return compares(kind) ? cpu.probe_read(op, address, sizeof(T), Seg::es) != Cpu::Probe::stopped
                          : cpu.probe_write(op, address, sizeof(T), Seg::es);
}

/// One element, without moving the registers.
template <class T, String kind>
bool one_element(Cpu& cpu, const Op* op, Pair<T>& pair) {
    const u64 mask = string_mask(op);
    const u64 si = cpu.s.gpr[rsi_index] & mask;
    const u64 di = cpu.s.gpr[rdi_index] & mask;
    u64 address;
    T v = cpu.reg<T>(0);
    if constexpr (uses_source(kind)) {
        const Seg segment = Cpu::operand_segment(op);
        const auto rest = [&] {
            return !uses_destination(kind) || destination_reached<T, kind>(cpu, op, di);
        };
        if (!cpu.segment_access(segment, si, sizeof(T), Access::read, address) ||
            !cpu.load_before(op, address, v, segment, rest)) {
            return false;
        }
    }
    if constexpr (kind == String::lods) {
        cpu.set_reg<T>(0, v);
    } else if constexpr (compares(kind)) {
        pair.a = v;
        return cpu.segment_access(Seg::es, di, sizeof(T), Access::read, address) &&
               cpu.load_linear(op, address, pair.b, Seg::es);
    } else {
        return cpu.segment_access(Seg::es, di, sizeof(T), Access::write, address) &&
               cpu.store_linear(op, address, v, Seg::es);
    }
    return true;
}
template <class T, String kind>
void advance(Cpu& cpu, const Op* op, u64 n) {
    const u64 delta = string_step(cpu, sizeof(T)) * n;
    if constexpr (uses_source(kind)) {
        add_index(cpu, rsi_index, delta, string_mask(op));
    }
    if constexpr (uses_destination(kind)) {
        add_index(cpu, rdi_index, delta, string_mask(op));
    }
}

// --- without REP ---------------------------------------------------------------------------------

template <class T, String kind>
[[gnu::noinline]] bool once(Cpu& cpu, const Op* op) {
    Pair<T> pair;
    if (!one_element<T, kind>(cpu, op, pair)) {
        return false;
    }
    advance<T, kind>(cpu, op, 1);
    if constexpr (compares(kind)) {
        alu<Alu::cmp, T, true>(cpu, pair.a, pair.b);
    }
    return true;
}

// --- runs ----------------------------------------------------------------------------------------

/// How many of `n` elements at an offset, in the direction of DF, lie in one page that the TLB
/// allows to access and within the segment, without wrapping. `host` is that of the first element.
template <class T, Access kind>
u64 reach(Cpu& cpu, Seg segment, u64 offset, u64 mask, bool down, u64 n, u8*& host) {
    constexpr u64 size = sizeof(T);
    const u64 room = mask - offset; // bytes behind the first one of the element
    if (room < size - 1) {
        return 0;
    }
    n = std::min(n, down ? offset / size + 1 : (room - (size - 1)) / size + 1);
    const state::Segment& s = cpu.seg(segment);
    const bool long_mode = cpu.mode.is64();
    const u64 address =
        long_mode ? offset + (segment >= Seg::fs ? s.base : 0) : static_cast<u32>(s.base + offset);
    const u64 in_page = address & page_mask;
    if (in_page + size > page_size) {
        return 0;
    }
    n = std::min(n, down ? in_page / size + 1 : (page_size - in_page) / size);
    if (!long_mode) {
        u64 unused;
        const u64 first = down ? offset - (n - 1) * size : offset;
        if (!cpu.segment_access(segment, first, static_cast<unsigned>(n * size), kind, unused)) {
            return 0; // the elements before the limit go one by one
        }
    }
    const TlbEntry& e = cpu.tlb.at(address);
    if (!(kind == Access::write ? e.writes(address, 1) : e.reads(address, 1))) {
        return 0;
    }
    host = e.host(address);
    return n;
}

template <class T>
u8* element(u8* host, u64 i, bool down) {
    return down ? host - i * sizeof(T) : host + i * sizeof(T);
}

/// As if element by element, also where the two overlap.
template <class T>
void move_run(u8* to, u8* from, u64 n, bool down) {
    const u64 bytes = n * sizeof(T);
    u8* const low_to = down ? to - (bytes - sizeof(T)) : to;
    u8* const low_from = down ? from - (bytes - sizeof(T)) : from;
    const bool repeats = down ? low_to < low_from && low_from < low_to + bytes
                              : low_from < low_to && low_to < low_from + bytes;
    if (!repeats) {
        std::memmove(low_to, low_from, bytes);
        return;
    }
    for (u64 i = 0; i < n; ++i) {
        host_store<T>(element<T>(to, i, down), host_load<T>(element<T>(from, i, down)));
    }
}
template <class T>
void store_run(u8* to, T value, u64 n, bool down) {
    u8* const low = down ? to - (n - 1) * sizeof(T) : to;
    if (sizeof(T) == 1 || value == 0) {
        std::memset(low, static_cast<u8>(value), n * sizeof(T));
        return;
    }
    for (u64 i = 0; i < n; ++i) {
        host_store<T>(low + i * sizeof(T), value);
    }
}

/// Elements done at once, at most `limit`; 0 when the next one must take the general path.
template <class T, String kind, Repeat repeat>
u64 run_elements(Cpu& cpu, const Op* op, u64 limit, Pair<T>& pair, bool& ended) {
    const u64 mask = string_mask(op);
    const bool down = goes_down(cpu);
    u8* from = nullptr;
    u8* to = nullptr;
    u64 n = limit;
    if constexpr (uses_source(kind)) {
        n = reach<T, Access::read>(cpu, Cpu::operand_segment(op), cpu.s.gpr[rsi_index] & mask, mask,
                                   down, n, from);
    }
    if constexpr (uses_destination(kind)) {
        constexpr Access access = compares(kind) ? Access::read : Access::write;
        n = n == 0 ? 0
                   : reach<T, access>(cpu, Seg::es, cpu.s.gpr[rdi_index] & mask, mask, down, n, to);
    }
    if (n == 0) {
        return 0;
    }
    if constexpr (kind == String::movs) {
        move_run<T>(to, from, n, down);
    } else if constexpr (kind == String::stos) {
        store_run<T>(to, cpu.reg<T>(0), n, down);
    } else if constexpr (kind == String::lods) {
        cpu.set_reg<T>(0, host_load<T>(element<T>(from, n - 1, down)));
    } else {
        pair.a = cpu.reg<T>(0);
        for (u64 i = 0; i < n; ++i) {
            if constexpr (kind == String::cmps) {
                pair.a = host_load<T>(element<T>(from, i, down));
            }
            pair.b = host_load<T>(element<T>(to, i, down));
            if ((pair.a == pair.b) != (repeat == Repeat::while_equal)) {
                ended = true;
                return i + 1;
            }
        }
    }
    return n;
}

// --- with REP ------------------------------------------------------------------------------------

template <class T, String kind, Repeat repeat>
[[gnu::noinline]] Progress repeat_elements(Cpu& cpu, const Op* op) {
    const u64 mask = string_mask(op);
    const u64 count = cpu.s.gpr[rcx_index] & mask;
    Progress p;
    p.ended = count == 0;
    const u64 limit = std::min(count, allowed_iterations(cpu));
    Pair<T> pair;
    while (p.done < limit && !p.ended) {
        const i64 deferred = cpu.deferred;
        u64 n = run_elements<T, kind, repeat>(cpu, op, limit - p.done, pair, p.ended);
        if (n == 0) {
            p.ok = one_element<T, kind>(cpu, op, pair);
            if (!p.ok) {
                return p;
            }
            n = 1;
            p.ended = compares(kind) && (pair.a == pair.b) != (repeat == Repeat::while_equal);
        }
        advance<T, kind>(cpu, op, n);
        add_index(cpu, rcx_index, u64{0} - n, mask);
        p.done += n;
        p.ended = p.ended || (cpu.s.gpr[rcx_index] & mask) == 0;
        if (cpu.attention != 0 || cpu.deferred != deferred) {
            break; // a data breakpoint, or an access answered from outside
        }
    }
    if (compares(kind) && p.ended && p.done != 0) {
        alu<Alu::cmp, T, true>(cpu, pair.a, pair.b);
    }
    return p;
}
template <class T, String kind, Repeat repeat>
const Op* op_repeat(Cpu& cpu, const Op* op) {
    Progress p = repeat_elements<T, kind, repeat>(cpu, op);
    if (p.ended && p.done == 0) {
        p.done = 1; // a count of zero: the instruction itself counts
    }
    return finish_repeat(cpu, op, p);
}

// --- emitting ------------------------------------------------------------------------------------

template <String kind>
bool emit(Emit& e, unsigned size) {
    set_string(e);
    const auto attributes = e.d.insn.attributes;
    e.ends_block = has_rep(e);
    return by_size(size, [&](auto t) {
        using T = decltype(t);
        if (!e.ends_block) {
            e.op.fn = whole<once<T, kind>>;
        } else if constexpr (!compares(kind)) {
            e.op.fn = op_repeat<T, kind, Repeat::rep>;
        } else if ((attributes & ZYDIS_ATTRIB_HAS_REPNE) != 0) {
            e.op.fn = op_repeat<T, kind, Repeat::while_not_equal>;
        } else {
            e.op.fn = op_repeat<T, kind, Repeat::while_equal>;
        }
        return true;
    });
}

/// MOVSD and CMPSD are also the names of SSE2 instructions.
bool is_vector(const Emit& e) { return e.d.insn.meta.category != ZYDIS_CATEGORY_STRINGOP; }

} // namespace

bool emit_string(Emit& e) {
    switch (e.mnemonic()) {
    case ZYDIS_MNEMONIC_MOVSB:
        return emit<String::movs>(e, 1);
    case ZYDIS_MNEMONIC_MOVSW:
        return emit<String::movs>(e, 2);
    case ZYDIS_MNEMONIC_MOVSD:
        return !is_vector(e) && emit<String::movs>(e, 4);
    case ZYDIS_MNEMONIC_MOVSQ:
        return emit<String::movs>(e, 8);
    case ZYDIS_MNEMONIC_STOSB:
        return emit<String::stos>(e, 1);
    case ZYDIS_MNEMONIC_STOSW:
        return emit<String::stos>(e, 2);
    case ZYDIS_MNEMONIC_STOSD:
        return emit<String::stos>(e, 4);
    case ZYDIS_MNEMONIC_STOSQ:
        return emit<String::stos>(e, 8);
    case ZYDIS_MNEMONIC_LODSB:
        return emit<String::lods>(e, 1);
    case ZYDIS_MNEMONIC_LODSW:
        return emit<String::lods>(e, 2);
    case ZYDIS_MNEMONIC_LODSD:
        return emit<String::lods>(e, 4);
    case ZYDIS_MNEMONIC_LODSQ:
        return emit<String::lods>(e, 8);
    case ZYDIS_MNEMONIC_CMPSB:
        return emit<String::cmps>(e, 1);
    case ZYDIS_MNEMONIC_CMPSW:
        return emit<String::cmps>(e, 2);
    case ZYDIS_MNEMONIC_CMPSD:
        return !is_vector(e) && emit<String::cmps>(e, 4);
    case ZYDIS_MNEMONIC_CMPSQ:
        return emit<String::cmps>(e, 8);
    case ZYDIS_MNEMONIC_SCASB:
        return emit<String::scas>(e, 1);
    case ZYDIS_MNEMONIC_SCASW:
        return emit<String::scas>(e, 2);
    case ZYDIS_MNEMONIC_SCASD:
        return emit<String::scas>(e, 4);
    case ZYDIS_MNEMONIC_SCASQ:
        return emit<String::scas>(e, 8);
    default:
        return emit_string_port(e);
    }
}

} // namespace nestor::cpu
