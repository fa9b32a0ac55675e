// Runs cases on a judge and on Cpu, and leaves out what the judge cannot tell.
#include "tests/engine/cpu/oracle/harness.hpp"

#include <cstring>

#include <fmt/format.h>

#include "tests/engine/cpu/oracle/abilities.hpp"
#include "tests/engine/cpu/oracle/guest.hpp"
#include "tests/engine/cpu/oracle/host.hpp"
#include "tests/engine/cpu/oracle/qemu.hpp"

namespace nestor::test {

namespace {

u64 tally[2][need_count];

void leave_out(JudgeKind kind, Need need) {
    ++tally[static_cast<unsigned>(kind)][static_cast<unsigned>(need)];
}

std::unique_ptr<Judge> make_judge(JudgeKind kind) {
    if (kind == JudgeKind::host) {
        return std::make_unique<HostSide>();
    }
    return std::make_unique<QemuSide>();
}

const std::vector<u8>& pattern() {
    static const std::vector<u8> bytes = [] {
        std::vector<u8> p(0x3000);
        for (std::size_t i = 0; i < p.size(); ++i) {
            p[i] = static_cast<u8>(i * 37 + (i >> 8) * 11);
        }
        return p;
    }();
    return bytes;
}

Abilities find_and_print(JudgeKind kind) {
    const auto judge = make_judge(kind);
    judge->fill_data(pattern().data());
    const Abilities a = find_abilities(*judge, kind == JudgeKind::qemu);
    fmt::print("judge: {}: {}\n", kind == JudgeKind::host ? "this host" : "qemu-i386", describe(a));
    return a;
}

/// Whether some instruction of the case is of a set that the judge does not execute.
bool lacks_instruction(const Abilities& a, const Case& c) {
    ZydisDecoder decoder;
    ZydisDecoderInit(&decoder, c.mode32 ? ZYDIS_MACHINE_MODE_LEGACY_32 : ZYDIS_MACHINE_MODE_LONG_64,
                     c.mode32 ? ZYDIS_STACK_WIDTH_32 : ZYDIS_STACK_WIDTH_64);
    std::size_t at = 0;
    ZydisDecodedInstruction insn;
    while (at < c.code.size() &&
           ZYAN_SUCCESS(ZydisDecoderDecodeInstruction(&decoder, nullptr, c.code.data() + at,
                                                      c.code.size() - at, &insn))) {
        if (a.without[insn.meta.isa_set]) {
            return true;
        }
        at += insn.length;
    }
    return false;
}

/// What a case needs, by its start, and the judge has not.
std::optional<Need> lacks_to_begin(const Abilities& a, const Case& c) {
    if (c.mode32 && !a.can(Need::code32)) {
        return Need::code32;
    }
    if (!c.mode32 && !is_canonical(c.start.gpr[4]) && !a.can(Need::wild_stack)) {
        return Need::wild_stack;
    }
    if (c.vector && !a.can(Need::vector_state)) {
        return Need::vector_state;
    }
    if (a.without.any() && lacks_instruction(a, c)) {
        return Need::instructions;
    }
    return {};
}
/// The same by its end.
std::optional<Need> lacks_to_end(const Abilities& a, const Case& c, const Result& guest) {
    if (!c.mode32 && !is_canonical(guest.end.gpr[4]) && !a.can(Need::wild_stack)) {
        return Need::wild_stack;
    }
    if (guest.vector == 12 && !a.can(Need::stack_fault)) {
        return Need::stack_fault;
    }
    return {};
}

/// LOCK, or XCHG, which needs no LOCK.
bool is_locked(const Case& c) {
    for (const u8 b : c.code) {
        if (b != 0x66 && b != 0xf2 && b != 0xf3) {
            return b == 0xf0 || b == 0x86 || b == 0x87;
        }
    }
    return false;
}

/// What QEMU 7.2 does not tell of a fault that it agrees about.
void complete_qemu(const Case& c, Ends& ends) {
    constexpr u32 write = 2;
    if (ends.judge.vector != 14 || ends.guest.vector != 14 || (ends.guest.error & write) == 0) {
        return;
    }
    if ((ends.judge.error & write) == 0) {
        // It reads before it writes, and reports a read-modify-write that faults as a read: of the
        // same bytes, but of the absent one where the first is read-only.
        ends.judge.error = ends.guest.error;
        ends.judge.address = ends.guest.address;
    }
    if (is_locked(c)) {
        ends.judge.end.rflags = ends.guest.end.rflags; // lost on the way out of an atomic access
    }
}

} // namespace

const Abilities& abilities_of(JudgeKind kind) {
    if (kind == JudgeKind::host) {
        static const Abilities host = find_and_print(kind);
        return host;
    }
    static const Abilities qemu = find_and_print(kind);
    return qemu;
}

u64 left_out(JudgeKind kind, Need need) {
    return tally[static_cast<unsigned>(kind)][static_cast<unsigned>(need)];
}

struct Harness::Sides {
    JudgeKind kind;
    const Abilities& abilities; // before the judge, of which there is one at a time
    std::unique_ptr<Judge> judge;
    GuestSide guest;

    explicit Sides(JudgeKind k) : kind(k), abilities(abilities_of(k)), judge(make_judge(k)) {}
};

Harness::Harness(JudgeKind kind) : sides_(std::make_unique<Sides>(kind)) { reset_memory(); }
Harness::~Harness() = default;

Result Harness::run_guest(const Case& c) { return sides_->guest.run(c, false); }
Result Harness::run_guest_stepwise(const Case& c) { return sides_->guest.run(c, true); }
cpu::Cpu& Harness::cpu() { return sides_->guest.cpu(); }

std::optional<Ends> Harness::run(const Case& c, bool stepwise) {
    const Abilities& can = sides_->abilities;
    if (const auto need = lacks_to_begin(can, c)) {
        leave_out(sides_->kind, *need);
        return {};
    }
    Ends ends;
    ends.guest = sides_->guest.run(c, stepwise);
    if (const auto need = lacks_to_end(can, c, ends.guest)) {
        leave_out(sides_->kind, *need);
        reset_memory();
        return {};
    }
    ends.judge = sides_->judge->run(c);
    if (sides_->kind == JudgeKind::qemu) {
        complete_qemu(c, ends);
    }
    if (ends.judge.vector == 14 && ends.guest.vector == 14 && !can.can(Need::page_fault)) {
        leave_out(sides_->kind, Need::page_fault);
        ends.judge.error = ends.guest.error;
        ends.judge.address = ends.guest.address;
    }
    return ends;
}

bool Harness::same_memory() const {
    return std::memcmp(sides_->guest.data(), sides_->judge->data(), 0x3000) == 0;
}

void Harness::reset_memory() {
    sides_->judge->fill_data(pattern().data());
    reset_guest_memory();
}
void Harness::reset_guest_memory() { sides_->guest.reset(pattern().data()); }

} // namespace nestor::test
