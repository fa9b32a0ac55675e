// Fetch: the linear address of the next instruction, its page, and the block that begins there,
// which is decoded where there is none yet.
//
// An instruction that crosses into another page is a block of its own and is checked on every
// fetch: the second page may be mapped elsewhere by then.
#include "engine/cpu/code_cache.hpp"
#include "engine/cpu/cpu.hpp"
#include "engine/cpu/decode.hpp"
#include "engine/cpu/package.hpp"

namespace nestor::cpu {

using namespace arch;

bool Cpu::fetch_linear(u64& address) {
    const state::Segment& cs = s.segments[static_cast<unsigned>(Seg::cs)];
    if (mode.is64()) {
        address = s.rip;
        const unsigned width = (s.cr4 & cr4::la57) != 0 ? 57 : 48;
        return is_canonical(address, width) || set_fault(Exception::gp, 0);
    }
    if (s.rip > cs.limit) {
        return set_fault(Exception::gp, 0);
    }
    address = static_cast<u32>(cs.base + s.rip);
    return true;
}

bool Cpu::second_page_matches(const Block& b, u64 linear) {
    Translation t;
    u64 second = (linear & ~page_mask) + page_size;
    if (!mode.is64()) {
        second = static_cast<u32>(second);
    }
    return translate(second, Access::exec, cpl == 3, false, t) &&
           (t.physical & ~page_mask) == b.second_page;
}

namespace {

/// A fetch from where no RAM is: the APIC-access page (SDM 3C table 28-6), or nothing at all.
void fetch_exit(Cpu& cpu, u64 linear, u64 physical) {
    if (physical >> page_shift == cpu.controls.apic_access_page >> page_shift &&
        !cpu.controls.assisted) {
        cpu.set_exit(ExitReason::apic_access, (physical & page_mask) | 2 << 12);
        return;
    }
    cpu.set_exit(ExitReason::ept_violation, 4);
    cpu.exit.guest_physical = physical;
    cpu.exit.guest_linear = linear;
    cpu.exit.assist = true;
}

} // namespace

Block* Cpu::find_block(bool exact) {
    u64 linear = 0;
    if (!fetch_linear(linear)) {
        return nullptr;
    }
    const TlbEntry& e = tlb.at(linear);
    const u8* host = nullptr;
    if (e.executes(linear)) {
        host = e.host(linear);
    } else {
        Translation t;
        if (!translate(linear, Access::exec, cpl == 3, false, t)) {
            return nullptr;
        }
        if (t.host == nullptr) {
            fetch_exit(*this, linear, t.physical);
            return nullptr;
        }
        if (view != TlbView::checked) {
            fill_tlb(linear, t, cpl == 3, false);
        }
        host = t.host;
    }
    const u32 key = mode.key | (exact ? Block::exact : 0);
    Block* b = package.code().find(host, key);
    if (b != nullptr && b->crosses && !second_page_matches(*b, linear)) {
        package.code().kill(b);
        b = nullptr;
    }
    if (b == nullptr) {
        b = decode_at(linear, host, exact);
    }
    if (b != nullptr && !exact && !b->crosses && mode.has(Mode::flat_code)) {
        jump_cache_[(s.rip ^ s.rip >> 12) & (jump_cache_entries - 1)] = {s.rip, b};
    }
    return b;
}

Block* Cpu::decode_at(u64 linear, const u8* host, bool exact) {
    CodeCache& code = package.code();
    if (code.full()) {
        code.reset();
        for (Cpu* cpu : package.cpus_) {
            cpu->forget_jumps();
        }
    }
    Translation t;
    if (!translate(linear, Access::exec, cpl == 3, false, t)) {
        return nullptr;
    }
    const auto room = static_cast<unsigned>(page_size - (linear & page_mask));
    FetchWindow window{host, room, true};
    if (!mode.is64()) {
        const u64 limit = s.segments[static_cast<unsigned>(Seg::cs)].limit;
        const u64 left = limit - s.rip + 1;
        if (left <= room) {
            window.size = static_cast<unsigned>(left);
            window.more_exists = false;
        }
    }
    Block fresh;
    fresh.mode = mode.key | (exact ? Block::exact : 0);
    fresh.host = host;
    fresh.phys = t.physical;
    auto status = decoder_->decode(window, mode, package.features(), exact, max_block_ops, fresh);
    u8 bytes[32];
    if (status == Decoder::Status::needs_more) {
        u64 second = (linear & ~page_mask) + page_size;
        if (!mode.is64()) {
            second = static_cast<u32>(second);
        }
        Translation tail;
        if (!translate(second, Access::exec, cpl == 3, false, tail)) {
            return nullptr;
        }
        std::memcpy(bytes, host, room);
        std::memset(bytes + room, 0xff, sizeof bytes - room);
        if (tail.host != nullptr) {
            std::memcpy(bytes + room, tail.host, sizeof bytes - room);
        }
        window = {bytes, room + 15, false};
        fresh.crosses = true;
        fresh.second_page = tail.physical & ~page_mask;
        status = decoder_->decode(window, mode, package.features(), exact, 1, fresh);
        if (tail.host != nullptr) {
            package.memory().set_state(gfn_of(Gpa(tail.physical)), page_state::code);
        }
    }
    if (status != Decoder::Status::ok) {
        set_fault(Exception::gp, 0);
        return nullptr;
    }
    package.memory().set_state(gfn_of(Gpa(t.physical)), page_state::code);
    return code.insert(fresh, decoder_->ops());
}

} // namespace nestor::cpu
