// The run loop: find a block (fetch.cpp), execute it, look at what stopped it, and in between serve
// what stands at an instruction boundary (boundary.cpp).
//
// The loop lands on an exact count: a block that the budget does not cover is run in its exact
// variant, with the handler behind the last affordable instruction replaced for the moment. The
// same cut serves single-stepping, STI and MOV SS shadows, and accesses that must be alone.
//
// An instruction that was answered from outside has happened there, so it retires before anything
// else is taken: while answers wait for it the boundary is not served, whatever came up since.
#include "engine/cpu/cpu.hpp"
#include "engine/cpu/decode.hpp"
#include "engine/cpu/package.hpp"
#include "engine/cpu/virtual_apic.hpp"
#include "engine/cpu/vmx_boundary.hpp"
#include "src/base/check.hpp"

namespace nestor::cpu {

using namespace arch;

namespace {

/// Stands in for the first instruction that a cut block must not execute.
const Op* op_cut(Cpu& cpu, const Op* op) {
    cpu.outcome = Outcome::resume;
    return cpu.abandon(op);
}

} // namespace

Cpu::Cpu(Package& p, unsigned i, unsigned tlb_entries)
    : package(p), index(i), translations(tlb_entries), decoder_(std::make_unique<Decoder>()),
      jump_cache_(std::make_unique<JumpCacheEntry[]>(jump_cache_entries)) {
    // A cache entry is always a block, so that a look-up need not test for null.
    forget_jumps();
    answers_.reserve(16);
    package.attach(this);
    rehydrate();
}

Cpu::~Cpu() { package.detach(this); }

void Cpu::forget_jumps() {
    for (unsigned i = 0; i < jump_cache_entries; ++i) {
        jump_cache_[i] = {~u64{0}, &nowhere};
    }
    link = nullptr;
}

void Cpu::rehydrate() {
    flush_all_translations();
    transition();
    forget_jumps();
    if (s.monitor_armed) {
        monitor(s.monitor_address);
    }
}

void Cpu::monitor(u64 address) {
    s.monitor_armed = true;
    s.monitor_address = align_down(address, monitor_line);
    package.watch(gfn_of(Gpa(address)));
}

void Cpu::transition() {
    lazy.settle();
    attention = 0;
    shadow_fresh = false;
    alone_ = false;
    forget_answers();
    injected.reset();
    delivering.reset();
    task_switched = false;
    own_flags.reset();
    monitor_trap_pending = false;
    preemption_deadline = no_deadline;
    leave_translations();
    update_mode();
    if (s.blocking_by_sti || s.blocking_by_mov_ss) {
        attention |= Attention::shadow;
    }
    if (s.pending_debug != 0) {
        attention |= Attention::event;
    }
}

void Cpu::materialize() { materialize_flags(); }

bool Cpu::interruptible() const {
    return (s.rflags & rflags::if_) != 0 && !s.blocking_by_sti && !s.blocking_by_mov_ss;
}

bool Cpu::nmi_deliverable() const {
    return !s.blocking_by_nmi && !s.blocking_by_mov_ss && !s.blocking_by_sti;
}

void Cpu::set_shadow(bool mov_ss) {
    (mov_ss ? s.blocking_by_mov_ss : s.blocking_by_sti) = true;
    shadow_fresh = true;
    attention |= Attention::shadow;
}

void Cpu::inject(const Event& e) {
    CHECK(!answering());
    injected = e;
    attention |= Attention::injection;
}

void Cpu::complete_instruction(unsigned length) {
    s.rip = truncate_rip(s.rip + length);
    s.rflags &= ~rflags::rf;
    after_instruction({s.rflags, s.pending_debug}, true);
    s.retired += 1;
    start_count_ += 1;
    used_ += 1;
    outside_cpl0_ += cpl != 0 ? 1 : 0;
}

Cpu::Stop Cpu::run(u64 count, u64 instructions) {
    // What this program's own x87 arithmetic left in the host's status word is not the guest's.
    asm volatile("fnclex");
    start_count_ = count;
    used_ = 0;
    level_ = cpl;
    level_since_ = count;
    if (translations.between()) {
        translations.choose(*this, ++package.generation_);
        tlb = translations.current().view(view);
    }
    Stop stop;
    do {
        // The preemption timer stops the chain at its count; what comes of it is seen at the
        // boundary there.
        const u64 timer = counts_until_preemption(*this);
        limit_ = timer == 0 ? instructions - used_ : std::min(instructions - used_, timer);
        budget = static_cast<i64>(limit_);
        deferred = 0;
        link = nullptr;
        if (timer == 0 || boundary_wanted(*this)) {
            attention |= Attention::event;
        }
        stop = loop();
        const u64 part = limit_ - static_cast<u64>(budget + deferred);
        used_ += part;
        s.retired += part;
        start_count_ += part;
        limit_ = 0;
        budget = 0;
        deferred = 0;
    } while (stop == Stop::count && used_ < instructions);
    note_level();
    translations.remember(*this);
    return stop;
}

/// Between two blocks: counts so far belong to the level they began at. What changes the level
/// comes back to the loop.
void Cpu::note_level() {
    const u64 now = count_at(nullptr);
    outside_cpl0_ += level_ != 0 ? now - level_since_ : 0;
    level_ = cpl;
    level_since_ = now;
}

Cpu::Stop Cpu::loop() {
    for (;;) {
        budget += deferred;
        deferred = 0;
        note_level();
        const bool answered = answering();
        if (attention != 0 && !answered) {
            link = nullptr;
            if (!service_boundary()) {
                return stop_;
            }
        }
        if (budget <= 0) {
            return Stop::count;
        }
        if (s.activity != state::ActivityState::active) {
            return Stop::inactive;
        }
        const bool stepping = (attention & (Attention::step | Attention::shadow)) != 0;
        const bool alone = stepping || alone_ || answered;
        bool exact = alone;
        if ((attention & Attention::step) != 0 && !code_breakpoint()) {
            if (!stop_for(outcome)) {
                return stop_;
            }
            continue;
        }
        Block* b = find_block(exact);
        if (b != nullptr && !exact && b->n > budget) {
            exact = true;
            b = find_block(true);
        }
        if (b == nullptr) {
            link = nullptr;
            if (!stop_for(outcome)) {
                return stop_;
            }
            continue;
        }
        if (link != nullptr) {
            if (!exact && !b->crosses) {
                *link = b;
            }
            link = nullptr;
        }
        const Before before{s.rflags, s.pending_debug};
        const u64 count_before = count_at(nullptr);
        if (stepping) {
            s.rflags &= ~rflags::rf;
        }
        const u64 cut = alone ? 1 : static_cast<u64>(std::min<i64>(budget, b->count));
        alone_ = false;
        answer_next_ = 0;
        execute(b, exact ? cut : ~u64{0});
        if (stepping) {
            budget += deferred;
            deferred = 0;
            after_instruction(before, count_at(nullptr) != count_before);
        }
        if (apic_write != no_apic_write) {
            const u16 offset = apic_write;
            apic_write = no_apic_write;
            if (outcome == Outcome::resume) {
                emulate_apic_write(*this, offset);
            }
        }
        if (outcome != Outcome::resume) {
            link = nullptr;
            if (!stop_for(outcome)) {
                return stop_;
            }
        } else if (answered) {
            forget_answers();
        }
    }
}

void Cpu::forget_answers() {
    answers_.clear();
    answer_next_ = 0;
}

void Cpu::execute(Block* b, u64 cut) {
    const bool patched = cut < b->count;
    OpFn kept = nullptr;
    cut_ = cut;
    if (cut != ~u64{0}) {
        // Withhold the rest of the budget, so that nothing chains on.
        deferred += budget - static_cast<i64>(cut);
        budget = static_cast<i64>(cut);
        if (patched) {
            kept = b->ops()[cut].fn;
            b->ops()[cut].fn = op_cut;
        }
    }
    block = b;
    outcome = Outcome::resume;
    budget -= b->n;
    const Op* op = b->ops();
#if defined(NESTOR_TRAMPOLINE)
    while (op != nullptr) {
        op = op->fn(*this, op);
    }
#else
    op->fn(*this, op);
#endif
    if (patched && b->n != Block::dead) {
        b->ops()[cut].fn = kept;
    }
}

// Traps and the end of shadows, after one instruction that ran alone (or that L0 emulated). One
// that did not retire leaves no trap of a data breakpoint behind: it starts again, or has faulted.
void Cpu::after_instruction(const Before& before, bool retired) {
    if (!retired) {
        s.rflags |= before.rflags & rflags::rf;
        s.pending_debug = before.pending_debug;
        suppress_trap = false;
        return;
    }
    // SDM 3B 18.3.1.4: the trap comes after the instruction that began with TF set.
    if ((before.rflags & rflags::tf) != 0 && !suppress_trap) {
        s.pending_debug |= pending_debug::bs;
    }
    note_monitor_trap(*this);
    suppress_trap = false;
    if (s.pending_debug != 0) {
        attention |= Attention::event;
    }
    if (shadow_fresh) {
        shadow_fresh = false;
    } else {
        s.blocking_by_sti = false;
        s.blocking_by_mov_ss = false;
        attention &= ~Attention::shadow;
    }
    update_flags_mode();
}

bool Cpu::stop_for(Outcome o) {
    switch (o) {
    case Outcome::resume:
        return true;
    case Outcome::restart_alone:
        alone_ = true;
        return true;
    case Outcome::fault: {
        forget_answers();
        const Event e = event;
        if (!deliver(e)) {
            return stop_for(outcome);
        }
        budget -= 1;
        note_monitor_trap(*this);
        s.blocking_by_sti = false;
        s.blocking_by_mov_ss = false;
        shadow_fresh = false;
        attention &= ~Attention::shadow;
        return true;
    }
    case Outcome::vm_exit:
        record_exit(*this);
        stop_ = Stop::exit;
        return false;
    case Outcome::access:
        stop_ = Stop::access;
        return false;
    case Outcome::page_needed:
        stop_ = Stop::page_needed;
        return false;
    case Outcome::copy_needed:
        stop_ = Stop::copy_needed;
        return false;
    }
    return true;
}

} // namespace nestor::cpu
