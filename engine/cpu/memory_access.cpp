// The slow side of every memory access: segmentation, page crossing, TLB fills, the page mechanism,
// MMIO, alignment checks and data breakpoints.
//
// Owns nothing. An access is located whole (one or two pages) before a byte moves, so a fault on
// the second page leaves the first untouched. MMIO is answered from outside: the instruction is
// abandoned and, when it starts again, finds the answers of its earlier accesses in answers_.
#include <algorithm>
#include <array>

#include "engine/cpu/cpu.hpp"
#include "engine/cpu/package.hpp"
#include "engine/cpu/virtual_apic.hpp"

namespace nestor::cpu {

using namespace arch;

/// The part of an access that lies in one page.
struct Cpu::Piece {
    u64 physical = 0;
    u8* host = nullptr; ///< null: nothing but the outside answers here
    u8* state = nullptr;
    unsigned size = 0;
};

struct Cpu::Pieces {
    std::array<Piece, 2> piece;
    unsigned count = 0;
};

// --- segmentation -------------------------------------------------------------------------------

bool Cpu::segment_access(Seg segment, u64 offset, unsigned size, Access kind, u64& address) {
    const state::Segment& sg = s.segments[static_cast<unsigned>(segment)];
    if (mode.is64()) {
        address = offset + (segment >= Seg::fs ? sg.base : 0);
        return true; // canonicality: where the translation is made
    }
    const Exception vector = segment == Seg::ss ? Exception::ss : Exception::gp;
    const u64 first = static_cast<u32>(offset);
    const u64 last = first + size - 1;
    bool ok = (sg.attributes & seg_attr::unusable) == 0;
    // SDM 3A 5.5: code may be read if readable and is never written; data is written if writable.
    const bool is_code = (sg.attributes & seg_attr::code) != 0;
    const bool rw = (sg.attributes & seg_attr::write_or_read) != 0;
    if (!mode.is_real_like()) {
        ok = ok && (kind == Access::write ? !is_code && rw : !is_code || rw);
    }
    // SDM 3A 5.3: expand-down segments hold what lies above the limit.
    if (!is_code && (sg.attributes & seg_attr::expand_down_or_conforming) != 0 &&
        !mode.is_real_like()) {
        const u64 top = (sg.attributes & seg_attr::db) != 0 ? 0xffffffff : 0xffff;
        ok = ok && first > sg.limit && last <= top;
    } else {
        ok = ok && last <= sg.limit;
    }
    if (!ok) {
        return set_fault(vector, 0);
    }
    address = static_cast<u32>(sg.base + first);
    return true;
}

bool Cpu::linear_general(const Op* op, u64 offset, unsigned size, Access kind, u64& address) {
    return segment_access(operand_segment(op), offset, size, kind, address);
}

// --- locating -----------------------------------------------------------------------------------

bool Cpu::set_fault(Exception vector, u32 error, u64 address) {
    event = Event{};
    event.vector = static_cast<u8>(vector);
    event.has_error = exceptions[event.vector].has_error_code;
    event.error = error;
    event.address = address;
    outcome = Outcome::fault;
    return false;
}

bool Cpu::check_address(u64 address, unsigned size, Seg segment) {
    if (mode.is64()) {
        // SDM 1 3.3.7.1: a non-canonical stack reference is #SS(0), any other #GP(0).
        const unsigned width = (s.cr4 & cr4::la57) != 0 ? 57 : 48;
        if (!is_canonical(address, width) || !is_canonical(address + size - 1, width)) {
            return set_fault(segment == Seg::ss ? Exception::ss : Exception::gp, 0);
        }
    }
    // SDM 3A 6.15, #AC: CR0.AM, RFLAGS.AC and CPL 3; operands of 2, 4 and 8 bytes.
    if (view == TlbView::checked && cpl == 3 && (s.cr0 & cr0::am) != 0 &&
        (s.rflags & rflags::ac) != 0 && size <= 8 && is_power_of_two(size) &&
        (address & (size - 1)) != 0) {
        return set_fault(Exception::ac, 0);
    }
    return true;
}

void Cpu::fill_tlb(u64 address, const Translation& t, bool user, bool implicit) {
    if (t.host == nullptr) {
        return;
    }
    TlbView v = user ? TlbView::user : TlbView::supervisor;
    if (!user && !implicit && ((s.cr4 & cr4::smap) == 0 || (s.rflags & rflags::ac) != 0)) {
        v = TlbView::supervisor_ac;
    }
    const u64 page = address & ~page_mask;
    TlbEntry& e = translations.current().entry(v, address);
    e.read = t.readable ? page : TlbEntry::invalid;
    e.write = t.writable && t.dirty && *t.state == 0 ? page : TlbEntry::invalid;
    e.exec = t.executable ? page : TlbEntry::invalid;
    e.addend = reinterpret_cast<u64>(t.host) - address;
}

bool Cpu::locate_one(u64 address, Access kind, bool implicit, Piece& piece) {
    const bool user = cpl == 3 && !implicit;
    if (!implicit && view != TlbView::checked) {
        const TlbEntry& e = tlb.at(address);
        if (e.reads(address, 1) && kind == Access::read) {
            piece.host = e.host(address);
            return true; // reads need neither the physical address nor the state byte
        }
    }
    Translation t;
    if (!translate(address, kind, user, implicit, t)) {
        return false;
    }
    fill_tlb(address, t, user, implicit);
    piece.physical = t.physical;
    piece.host = t.host;
    piece.state = t.state;
    return true;
}

bool Cpu::locate(u64 address, unsigned size, Access kind, bool implicit, Pieces& pieces) {
    const unsigned room = static_cast<unsigned>(page_size - (address & page_mask));
    pieces.count = size > room ? 2 : 1;
    pieces.piece[0].size = std::min(size, room);
    if (!locate_one(address, kind, implicit, pieces.piece[0])) {
        return false;
    }
    if (pieces.count == 2) {
        u64 second = address + room;
        if (!mode.is64()) {
            second = static_cast<u32>(second);
        }
        pieces.piece[1].size = size - room;
        return locate_one(second, kind, implicit, pieces.piece[1]);
    }
    return true;
}

bool Cpu::writable_now(const Pieces& pieces) {
    for (unsigned i = 0; i < pieces.count; ++i) {
        const Piece& p = pieces.piece[i];
        if (p.host != nullptr && (*p.state & page_state::cow) != 0) {
            outcome = Outcome::copy_needed;
            wanted_page = p.physical >> page_shift;
            return false;
        }
    }
    return true;
}

// --- moving bytes -------------------------------------------------------------------------------

namespace {

/// An access that stopped. Exits that memory causes have an instruction length too, although the
/// SDM leaves it undefined: hypervisors skip instructions by it.
bool stopped(Cpu& cpu, const Op* op) {
    if (op != nullptr && cpu.outcome == Outcome::vm_exit) {
        cpu.exit.instruction_length = op->len;
    }
    return false;
}

/// Exit qualification of SDM 3C table 28-6.
void apic_access_exit(Cpu& cpu, u64 offset, bool write) {
    const u64 type = cpu.delivering ? 3 : write ? 1 : 0;
    cpu.set_exit(ExitReason::apic_access, offset | type << 12);
}

/// A virtualized access to the APIC-access page (SDM 3C 30.4). The page is ready.
void access_virtual_apic(Cpu& cpu, u16 offset, unsigned size, bool write, u8* bytes) {
    const u16 reg = offset & 0xffc;
    u32 value = read_virtual_apic(cpu, reg);
    u8* at = reinterpret_cast<u8*>(&value) + (offset & 3);
    if (!write) {
        std::memcpy(bytes, at, size);
        return;
    }
    std::memcpy(at, bytes, size);
    write_virtual_apic(cpu, reg, value);
    cpu.apic_write = offset;
    cpu.raise_attention(0); // its emulation comes behind the instruction
}

} // namespace

bool Cpu::external_piece(const Op* op, const Piece& piece, bool write, u8* bytes) {
    if (piece.physical >> page_shift == controls.apic_access_page >> page_shift) {
        const auto offset = static_cast<u16>(piece.physical & page_mask);
        if (op != nullptr && apic_access_virtualized(*this, offset, piece.size, write)) {
            if (!virtual_apic_ready(*this)) {
                return false;
            }
            if (write && op->number + 1u != block->count && op->number + 1u != cut_) {
                outcome = Outcome::restart_alone;
                return false;
            }
            access_virtual_apic(*this, offset, piece.size, write, bytes);
            return true;
        }
        if (!controls.assisted) {
            apic_access_exit(*this, offset, write);
            return false;
        }
    }
    const auto kind = piece.physical >> page_shift == controls.lapic_page >> page_shift
                          ? PendingAccess::Kind::apic
                          : PendingAccess::Kind::mmio;
    unsigned done = 0;
    while (done < piece.size) {
        const u64 at = piece.physical + done;
        const unsigned room = 8 - static_cast<unsigned>(at & 7);
        unsigned n = std::min(piece.size - done, room);
        while (!is_power_of_two(n)) {
            --n;
        }
        u64 data = 0;
        if (write) {
            std::memcpy(&data, bytes + done, n);
        }
        if (op == nullptr) {
            data = ~u64{0}; // event delivery through MMIO: nobody answers
        } else if (!external_access(op, kind, at, n, write, data)) {
            return false;
        }
        if (!write) {
            std::memcpy(bytes + done, &data, n);
        }
        done += n;
    }
    return true;
}

bool Cpu::read_pieces(const Op* op, const Pieces& pieces, u8* out) {
    for (unsigned i = 0; i < pieces.count; ++i) {
        const Piece& p = pieces.piece[i];
        if (p.host != nullptr) {
            std::memcpy(out, p.host, p.size);
        } else if (!external_piece(op, p, false, out)) {
            return false;
        }
        out += p.size;
    }
    return true;
}

/// RAM comes last: the instruction starts again with each answer, and what it has read must still
/// be there.
bool Cpu::write_pieces(const Op* op, const Pieces& pieces, const u8* in) {
    if (!writable_now(pieces)) {
        return false;
    }
    const u8* from = in;
    for (unsigned i = 0; i < pieces.count; from += pieces.piece[i++].size) {
        const Piece& p = pieces.piece[i];
        if (p.host == nullptr && !external_piece(op, p, true, const_cast<u8*>(from))) {
            return false;
        }
    }
    from = in;
    for (unsigned i = 0; i < pieces.count; from += pieces.piece[i++].size) {
        const Piece& p = pieces.piece[i];
        if (p.host != nullptr) {
            GuestMemory::Page page{p.host - (p.physical & page_mask), p.state};
            package.memory().prepare_write(Gpa(p.physical), from, p.size, page);
            std::memcpy(p.host, from, p.size);
        }
    }
    return true;
}

bool Cpu::load_slow(const Op* op, u64 address, void* out, unsigned size, Seg segment) {
    Pieces pieces;
    if (!check_address(address, size, segment) ||
        !locate(address, size, Access::read, false, pieces) ||
        !read_pieces(op, pieces, static_cast<u8*>(out))) {
        return stopped(*this, op);
    }
    if (view == TlbView::checked) {
        data_breakpoint(address, size, false);
    }
    return true;
}

bool Cpu::store_slow(const Op* op, u64 address, const void* in, unsigned size, Seg segment) {
    Pieces pieces;
    if (!check_address(address, size, segment) ||
        !locate(address, size, Access::write, false, pieces) ||
        !write_pieces(op, pieces, static_cast<const u8*>(in))) {
        return stopped(*this, op);
    }
    if (view == TlbView::checked) {
        data_breakpoint(address, size, true);
    }
    return true;
}

bool Cpu::load_for_write_slow(const Op* op, u64 address, void* out, unsigned size, Seg segment) {
    Pieces pieces;
    if (!check_address(address, size, segment) ||
        !locate(address, size, Access::write, false, pieces) || !writable_now(pieces) ||
        !read_pieces(op, pieces, static_cast<u8*>(out))) {
        return stopped(*this, op);
    }
    if (view == TlbView::checked) {
        data_breakpoint(address, size, false);
    }
    return true;
}

bool Cpu::probe_write(const Op* op, u64 address, unsigned size, Seg segment) {
    Pieces pieces;
    return (check_address(address, size, segment) &&
            locate(address, size, Access::write, false, pieces) && writable_now(pieces)) ||
           stopped(*this, op);
}

Cpu::Probe Cpu::probe_read(const Op* op, u64 address, unsigned size, Seg segment) {
    Pieces pieces;
    if (!check_address(address, size, segment) ||
        !locate(address, size, Access::read, false, pieces)) {
        stopped(*this, op);
        return Probe::stopped;
    }
    for (unsigned i = 0; i < pieces.count; ++i) {
        if (pieces.piece[i].host == nullptr) {
            return Probe::outside;
        }
    }
    return Probe::inside;
}

bool Cpu::load_system(const Op* op, u64 address, void* out, unsigned size) {
    // The supervisor view's rights are those of an implicit access: SMAP without AC's excuse.
    const TlbEntry& e = translations.current().view(TlbView::supervisor).at(address);
    if (e.reads(address, size)) {
        std::memcpy(out, e.host(address), size);
        return true;
    }
    Pieces pieces;
    return (locate(address, size, Access::read, true, pieces) &&
            read_pieces(op, pieces, static_cast<u8*>(out))) ||
           stopped(*this, op);
}

bool Cpu::store_system(const Op* op, u64 address, const void* in, unsigned size) {
    Pieces pieces;
    return (locate(address, size, Access::write, true, pieces) &&
            write_pieces(op, pieces, static_cast<const u8*>(in))) ||
           stopped(*this, op);
}

// --- outside and debug --------------------------------------------------------------------------

bool Cpu::external_access(const Op* op, PendingAccess::Kind kind, u64 address, unsigned size,
                          bool write, u64& data) {
    if (answer_next_ < answers_.size()) {
        const PendingAccess& a = answers_[answer_next_];
        if (a.kind == kind && a.address == address && a.size == size && a.write == write) {
            ++answer_next_;
            data = a.data;
            raise_attention(0); // the dispatcher forgets the answers once the instruction is done
            return true;
        }
        forget_answers();
    }
    if (op->number + 1u != block->count && op->number + 1u != cut_) {
        outcome = Outcome::restart_alone;
        return false;
    }
    access = {kind, write, static_cast<u8>(size), address, data};
    outcome = Outcome::access;
    return false;
}

void Cpu::answer_access(u64 data) {
    if (!access.write) {
        const u64 keep = access.size == 8 ? ~u64{0} : (u64{1} << (access.size * 8)) - 1;
        access.data = data & keep;
    }
    answers_.push_back(access);
    access = {};
}

// SDM 3B 18.2.4: data breakpoints trap after the access. DR7: L/G bits 7:0, R/W and LEN from 16 on.
void Cpu::data_breakpoint(u64 address, unsigned size, bool write) {
    for (unsigned i = 0; i < 4; ++i) {
        const unsigned rw = static_cast<unsigned>(s.dr7 >> (16 + 4 * i) & 3);
        if ((s.dr7 >> (2 * i) & 3) == 0 || rw == 0 || rw == 2 || (rw == 1 && !write)) {
            continue;
        }
        static constexpr u64 lengths[] = {1, 2, 8, 4};
        const u64 length = lengths[s.dr7 >> (18 + 4 * i) & 3];
        const u64 start = align_down(s.dr[i], length);
        if (start < address + size && address < start + length) {
            s.pending_debug |= bit(i) | pending_debug::enabled_breakpoint;
            raise_attention(Attention::event);
        }
    }
}

} // namespace nestor::cpu
