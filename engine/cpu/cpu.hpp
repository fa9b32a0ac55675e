// The virtual silicon: one logical processor (floor 5).
//
// Cpu holds the architectural state (`s`, generated from schema/cpu.capnp), what is derived from it
// (TLB, mode key, lazy flags) and what the current VMCS asks for (`controls`). It executes under
// that VMCS until a VM exit; it knows nothing of who reads the exit. Handlers are free functions in
// ops_*.cpp that work on the public members: inside this folder a Cpu is an open record, outside it
// only the functions marked "contract" are used.
//
// Position within a block: s.rip is the RIP of the block's first instruction while the block runs,
// and `budget` has already been charged for all of it. Whoever stops inside a block uses abandon()
// or leave(), which put both right.
#pragma once

#include <cstring>
#include <memory>
#include <optional>
#include <vector>

#include "engine/cpu/event.hpp"
#include "engine/cpu/flags.hpp"
#include "engine/cpu/mode.hpp"
#include "engine/cpu/op.hpp"
#include "engine/cpu/translations.hpp"
#include "engine/cpu/vmx_controls.hpp"
#include "engine/state/cpu.hpp"

namespace nestor::cpu {

class Package;
class Decoder;

/// Access rights a memory access needs, and who makes it.
enum class Access : u8 { read, write, exec };

/// Ticks as a function of the machine-wide count (DESIGN.md, rule 2).
struct Clock {
    u64 count = 0; ///< machine-wide count at which `ticks` held
    u64 ticks = 0;
    u32 numerator = 1;
    u32 denominator = 1;
};

/// A successful translation of one linear page.
struct Translation {
    u64 physical = 0;   ///< guest-physical address of the byte asked for
    u8* host = nullptr; ///< host address of that byte; null when no RAM backs it
    u8* state = nullptr;
    bool user = false; ///< U/S of the mapping: accessible at CPL 3
    // What the same kind of accessor may do without another fault.
    bool readable = false;
    bool writable = false;
    bool executable = false;
    bool dirty = false; ///< D is set, so a write needs no walk
};

class alignas(page_size) Cpu final {
public:
    /// Boundary work that stops chained execution; see run().
    struct Attention {
        static constexpr u32 event = 1;  ///< pending debug exception, NMI or interrupt window...
        static constexpr u32 step = 2;   ///< TF, RF or an instruction breakpoint: one at a time
        static constexpr u32 shadow = 4; ///< STI or MOV SS blocking ends after one instruction
        static constexpr u32 yield = 8;  ///< PAUSE: the scheduler may run somebody else
        static constexpr u32 injection = 16; ///< `injected` is to be delivered
        static constexpr u32 entry = 32;     ///< a VM entry happened and nothing of it ran yet
    };

    /// Why run() returned.
    enum class Stop : u8 {
        count,       ///< the budget is used up
        exit,        ///< `exit`
        access,      ///< `access`: answer with answer_access()
        page_needed, ///< `wanted_page`
        copy_needed, ///< `wanted_page`
        yield,       ///< PAUSE or an event the scheduler should look at
        inactive,    ///< s.activity is not active
    };

    Cpu(Package& package, unsigned index, unsigned tlb_entries);
    ~Cpu();
    Cpu(const Cpu&) = delete;
    Cpu& operator=(const Cpu&) = delete;

    // --- contract -------------------------------------------------------------------------------

    /// Executes up to `instructions` counts (DESIGN.md, rule 2), starting at machine-wide count
    /// `count`. `retired_in_run()` tells how many were used.
    Stop run(u64 count, u64 instructions);
    [[nodiscard]] u64 retired_in_run() const { return used_; }
    /// Counts used at CPL 1 to 3 since this object exists, for the privilege filter of performance
    /// counters. The delivery of an event counts where the event came from.
    [[nodiscard]] u64 retired_outside_cpl0() const { return outside_cpl0_; }

    /// After a change of `s` from outside: drops everything derived from it.
    void rehydrate();
    /// After a VM transition loaded `s` and `controls`: recomputes what depends on them. Decoded
    /// code is kept; an injection, a pending monitor trap and the preemption timer are gone.
    void transition();
    /// Writes lazily kept flags and shadows into `s`; `s` is exact afterwards.
    void materialize();

    /// After L0 emulated the instruction that exited: RIP past it, one count, its traps.
    void complete_instruction(unsigned length);
    /// The answer to `access`; the instruction starts again with it on the next run.
    void answer_access(u64 data);
    /// Whether an instruction was abandoned for an access and has not been completed since.
    [[nodiscard]] bool answering() const { return !answers_.empty(); }
    /// Sets the machine-wide count between runs, for ticks_at(nullptr).
    void set_count(u64 count) { start_count_ = count; }
    /// Delivers an event at the next run, before the first instruction (VM-entry injection).
    void inject(const Event& event);
    [[nodiscard]] bool injecting() const { return injected.has_value(); }

    /// MONITOR: the line of a guest-physical address is watched. Any write to it clears
    /// s.monitor_armed and, where MWAIT waits, makes the processor active.
    void monitor(u64 address);
    static constexpr u64 monitor_line = 64;

    /// RFLAGS.IF set and no STI, MOV SS blocking: a maskable interrupt could be delivered now.
    [[nodiscard]] bool interruptible() const;
    /// No NMI, MOV SS blocking: an NMI could be delivered now.
    [[nodiscard]] bool nmi_deliverable() const;

    // --- state ----------------------------------------------------------------------------------
    // What nearly every handler touches comes first: short offsets, few cache lines. `zero` and `s`
    // lie next to each other: an operand slot is an offset in words from `zero`.
    //
    // Processors guess by the address within 4 KiB whether a load reads what a store before it has
    // not written yet, and start over when they were wrong. So a Cpu begins a page, and nothing
    // that handlers read all the time lies where its first bytes do in theirs.
    static constexpr std::size_t hot_bytes = 256;

    LazyFlags lazy;
    i64 budget = 0;         ///< counts left, less those of the running block
    i64 deferred = 0;       ///< counts withheld so that the chain stops (raise)
    Block* block = nullptr; ///< the running block
    Block** link = nullptr; ///< successor slot that the chain left through, to be filled
    TlbArray tlb;           ///< the current view's entries
    u64 zero = 0;
    state::Cpu s;

    u32 attention = 0;
    Outcome outcome = Outcome::resume;
    Mode mode;
    u8 cpl = 0;
    TlbView view = TlbView::supervisor;
    bool suppress_trap =
        false;                 ///< the instruction discards a pending single-step (SDM 3B 18.3.1.4)
    bool shadow_fresh = false; ///< the running instruction set blocking by STI or MOV SS

    Event event;          ///< with Outcome::fault
    VmExit exit;          ///< with Outcome::vm_exit
    PendingAccess access; ///< with Outcome::access
    u64 wanted_page = 0;  ///< guest frame, with page_needed and copy_needed
    std::optional<Event> injected;
    std::optional<u64> own_flags;    ///< `injected` is an exception of the program: its RFLAGS
    std::optional<Event> delivering; ///< being delivered: the IDT-vectoring event of an exit

    Controls controls;
    bool monitor_trap_pending = false;     ///< a monitor-trap-flag exit waits for its boundary
    u64 preemption_deadline = no_deadline; ///< tick at which the VMX preemption timer expires
    static constexpr u64 no_deadline = ~u64{0};
    bool nmi_unblocked = false;     ///< the running IRET ended blocking by NMI
    bool task_switched = false;     ///< what is to be delivered came up behind a task switch
    u16 apic_write = no_apic_write; ///< offset in the virtual-APIC page that the instruction wrote
    static constexpr u16 no_apic_write = 0xffff;
    Clock clock;
    Package& package;
    const unsigned index;
    Translations translations;

    // --- registers ------------------------------------------------------------------------------

    template <class T>
    [[nodiscard]] T reg(u8 offset) const {
        T v;
        std::memcpy(&v, reinterpret_cast<const u8*>(s.gpr.data()) + offset, sizeof v);
        return v;
    }
    /// Writes a register part. 32-bit writes clear the upper half (SDM 1 3.4.1.1).
    template <class T>
    void set_reg(u8 offset, T v) {
        u8* p = reinterpret_cast<u8*>(s.gpr.data()) + offset;
        if constexpr (sizeof(T) == 4) {
            const u64 wide = v;
            std::memcpy(p, &wide, sizeof wide);
        } else {
            std::memcpy(p, &v, sizeof v);
        }
    }
    [[nodiscard]] u64& gpr(arch::Gpr r) { return s.gpr[static_cast<unsigned>(r)]; }
    [[nodiscard]] state::Segment& seg(arch::Seg r) { return s.segments[static_cast<unsigned>(r)]; }

    [[nodiscard]] u64 slot(u8 n) const {
        u64 v;
        std::memcpy(&v, reinterpret_cast<const u8*>(&zero) + std::size_t{n} * 8, sizeof v);
        return v;
    }
    static constexpr u8 zero_slot = 0;
    static constexpr u8 rip_slot = 17; ///< RIP of the block's start; disp carries the rest
    static constexpr u8 gpr_slot(unsigned r) { return static_cast<u8>(1 + r); }
    static constexpr u8 segment_base_slot(unsigned segment) {
        return static_cast<u8>(
            1 + (offsetof(state::Cpu, segments) + segment * sizeof(state::Segment)) / 8);
    }

    // --- flags ----------------------------------------------------------------------------------

    /// RFLAGS as the guest would read it.
    [[nodiscard]] u64 rflags() const { return lazy.settled() ? s.rflags : lazy.apply(s.rflags); }
    void materialize_flags() {
        s.rflags = rflags();
        lazy.settle();
    }
    /// Sets the arithmetic flags in `changed` to those of `values`, eagerly.
    void set_flags(u64 changed, u64 values) {
        s.rflags = (rflags() & ~changed) | (values & changed);
        lazy.settle();
    }
    [[nodiscard]] bool cf() const { return lazy.cf(s.rflags); }
    /// Condition code cc, 0..15 (SDM 1 appendix B).
    [[nodiscard]] bool condition(unsigned cc) const;

    // --- memory ---------------------------------------------------------------------------------

    /// Effective address without segment base, truncated to the address size.
    [[nodiscard]] u64 offset_of(const Op* op) const {
        const u64 offset = slot(op->base) + (slot(op->index) << (op->ea & ea::scale)) +
                           static_cast<u64>(static_cast<i64>(op->disp));
        if ((op->ea & ea::address32) != 0) {
            return static_cast<u32>(offset);
        }
        return (op->ea & ea::address16) != 0 ? static_cast<u16>(offset) : offset;
    }

    /// Linear address of the memory operand of `size` bytes. False: `event` holds the fault.
    [[nodiscard]] bool linear(const Op* op, unsigned size, Access access_kind, u64& address) {
        if ((op->ea & ea::general) == 0) [[likely]] {
            address = slot(op->base) + (slot(op->index) << (op->ea & ea::scale)) +
                      static_cast<u64>(static_cast<i64>(op->disp));
            return true;
        }
        return linear_general(op, offset_of(op), size, access_kind, address);
    }
    /// The same for an offset computed elsewhere, with the segment of op->ea.
    bool linear_general(const Op* op, u64 offset, unsigned size, Access access_kind, u64& address);
    /// Segmentation for one access: base, limit, type, canonicality (SDM 3A 5.3, 5.4; SDM
    /// 3A 3.4.4).
    bool segment_access(arch::Seg segment, u64 offset, unsigned size, Access access_kind,
                        u64& address);

    /// As load_linear, for an instruction that has another access to make: `rest()` probes it, and
    /// is false with the outcome set. Called where the value comes from outside, before anybody
    /// there is asked; elsewhere the accesses are made one after the other.
    template <class T, class Rest>
    [[nodiscard]] bool load_before(const Op* op, u64 address, T& out, arch::Seg segment,
                                   const Rest& rest) {
        if (!tlb.at(address).reads(address, sizeof(T))) [[unlikely]] {
            const Probe found = probe_read(op, address, sizeof(T), segment);
            if (found == Probe::stopped || (found == Probe::outside && !rest())) {
                return false;
            }
        }
        return load_linear(op, address, out, segment);
    }
    /// Reads `T` at a linear address with the current privilege. False: outcome says why.
    template <class T>
    [[nodiscard]] bool load_linear(const Op* op, u64 address, T& out,
                                   arch::Seg segment = arch::Seg::ds) {
        const TlbEntry& e = tlb.at(address);
        if (e.reads(address, sizeof(T))) [[likely]] {
            std::memcpy(&out, e.host(address), sizeof(T));
            return true;
        }
        return load_slow(op, address, &out, sizeof(T), segment);
    }
    template <class T>
    [[nodiscard]] bool store_linear(const Op* op, u64 address, const T& value,
                                    arch::Seg segment = arch::Seg::ds) {
        const TlbEntry& e = tlb.at(address);
        if (e.writes(address, sizeof(T))) [[likely]] {
            std::memcpy(e.host(address), &value, sizeof(T));
            return true;
        }
        return store_slow(op, address, &value, sizeof(T), segment);
    }
    /// The memory operand of `op`.
    template <class T>
    [[nodiscard]] bool load(const Op* op, T& out) {
        u64 address;
        return linear(op, sizeof(T), Access::read, address) &&
               load_linear(op, address, out, operand_segment(op));
    }
    template <class T>
    [[nodiscard]] bool store(const Op* op, const T& value) {
        u64 address;
        return linear(op, sizeof(T), Access::write, address) &&
               store_linear(op, address, value, operand_segment(op));
    }
    /// For read-modify-write: reads with write rights checked first, so that the later store to the
    /// same address cannot fault. Locked and unlocked forms are the same: one vCPU runs at a time.
    template <class T>
    [[nodiscard]] bool load_for_write(const Op* op, u64& address, T& out) {
        if (!linear(op, sizeof(T), Access::write, address)) {
            return false;
        }
        const TlbEntry& e = tlb.at(address);
        if (e.writes(address, sizeof(T)) && e.reads(address, sizeof(T))) [[likely]] {
            std::memcpy(&out, e.host(address), sizeof(T));
            return true;
        }
        return load_for_write_slow(op, address, &out, sizeof(T), operand_segment(op));
    }
    [[nodiscard]] static arch::Seg operand_segment(const Op* op) {
        return static_cast<arch::Seg>((op->ea & ea::segment) >> ea::segment_shift);
    }

    // Any size up to 4096, page-crossing included. `op` is the running instruction (null at an
    // instruction boundary: event delivery).
    bool load_slow(const Op* op, u64 address, void* out, unsigned size, arch::Seg segment);
    bool store_slow(const Op* op, u64 address, const void* in, unsigned size, arch::Seg segment);
    bool load_for_write_slow(const Op* op, u64 address, void* out, unsigned size,
                             arch::Seg segment);
    /// Checks write rights for all bytes without writing (ENTER, PUSHA, multi-part stores).
    bool probe_write(const Op* op, u64 address, unsigned size, arch::Seg segment);
    /// The same for reading, and who would be asked. What an instruction reads from outside, it
    /// reads once: whatever of its other accesses can stop it is probed before.
    enum class Probe : u8 {
        stopped, ///< outcome says why
        inside,  ///< RAM, or nothing that a second read would change
        outside, ///< somebody outside answers
    };
    Probe probe_read(const Op* op, u64 address, unsigned size, arch::Seg segment);

    // Implicit supervisor accesses: descriptor tables, TSS (SDM 3A 4.6.1). Privilege and AC do not
    // matter; paging and page mechanism do.
    bool load_system(const Op* op, u64 address, void* out, unsigned size);
    bool store_system(const Op* op, u64 address, const void* in, unsigned size);

    /// Translates one linear address: the page walk of SDM 3A chapter 4 with A/D updates. False:
    /// outcome is fault (#PF, CR2 in event.address), page_needed, copy_needed or vm_exit.
    /// Under EPT the result is what the guest-physical address translates to.
    bool translate(u64 address, Access kind, bool user, bool implicit, Translation& out);
    /// Drops cached translations (CR3, CR0.WP, CR4 and EFER changes, INVPCID...).
    void flush_tlb();
    /// Drops them for every guest: after a change from outside, or of the EPTP by VMFUNC.
    void flush_all_translations();
    /// Registers or controls are being replaced; the next run chooses what is still good.
    void leave_translations();
    void flush_tlb_page(u64 address);
    /// Drops the cache of jump targets; after CodeCache::reset.
    void forget_jumps();
    /// Loads the PDPTE registers from CR3 (SDM 3A 4.4.1). False: fault #GP(0), or page_needed.
    bool load_pdptrs(const Op* op, u64 cr3_value);

    // --- stopping -------------------------------------------------------------------------------

    /// #vector without an error code, on the running instruction.
    const Op* raise(const Op* op, arch::Exception vector) {
        set_fault(vector, 0);
        return abandon(op);
    }
    const Op* raise(const Op* op, arch::Exception vector, u32 error) {
        set_fault(vector, error);
        return abandon(op);
    }
    /// Fills `event` and outcome; for functions that return false rather than stop.
    bool set_fault(arch::Exception vector, u32 error, u64 address = 0);

    /// Stops before the running instruction has happened; outcome is already set.
    const Op* abandon(const Op* op) {
        s.rip += op->offset;
        budget += i64{block->count} - op->number;
        block = nullptr;
        return nullptr;
    }
    /// The instruction happened; continue at the next through the dispatcher, which looks at
    /// `attention` and the mode again. For everything that changes what execution means.
    const Op* leave(const Op* op) { return leave_to(op, next_rip(op)); }
    const Op* leave_to(const Op* op, u64 rip) {
        budget += i64{block->count} - op->number - 1;
        s.rip = rip;
        block = nullptr;
        outcome = Outcome::resume;
        return nullptr;
    }
    /// VM exit on the running instruction, which has not happened.
    const Op* vm_exit(const Op* op, arch::ExitReason reason, u64 qualification = 0) {
        set_exit(reason, qualification);
        exit.instruction_length = op->len;
        return abandon(op);
    }
    void set_exit(arch::ExitReason reason, u64 qualification = 0) {
        exit = VmExit{};
        exit.reason = reason;
        exit.qualification = qualification;
        outcome = Outcome::vm_exit;
    }
    /// An access answered from outside. True: `data` is the answer (reads) or it was done (writes).
    /// False: outcome is access or restart_alone.
    bool external_access(const Op* op, PendingAccess::Kind kind, u64 address, unsigned size,
                         bool write, u64& data);

    /// RIP of the running instruction and of the one behind it, truncated to the code size.
    [[nodiscard]] u64 rip_of(const Op* op) const { return s.rip + op->offset; }
    [[nodiscard]] u64 next_rip(const Op* op) const { return truncate_rip(rip_of(op) + op->len); }
    [[nodiscard]] u64 truncate_rip(u64 rip) const {
        switch (mode.code()) {
        case 0:
            return static_cast<u16>(rip);
        case 1:
            return static_cast<u32>(rip);
        default:
            return rip;
        }
    }
    /// Makes run() look at `bits` at the next instruction boundary at the latest at block end.
    /// Handlers that raise attention must end with leave().
    void raise_attention(u32 bits) {
        attention |= bits;
        deferred += budget;
        budget = 0;
    }

    // --- time -----------------------------------------------------------------------------------

    /// Machine-wide count and ticks when the running instruction starts.
    [[nodiscard]] u64 count_at(const Op* op) const {
        const i64 left = budget + deferred + (op != nullptr ? i64{block->count} - op->number : 0);
        return start_count_ + limit_ - static_cast<u64>(left);
    }
    [[nodiscard]] u64 ticks_at(const Op* op) const { return ticks_of(count_at(op)); }
    [[nodiscard]] u64 ticks_of(u64 count) const {
        const u64 elapsed = count - clock.count;
        if (clock.numerator == 1 && clock.denominator == 1) {
            return clock.ticks + elapsed;
        }
        return clock.ticks + static_cast<u64>(u128{elapsed} * clock.numerator / clock.denominator);
    }
    /// TSC as RDTSC returns it at this instruction.
    [[nodiscard]] u64 tsc_at(const Op* op) const {
        const u64 ticks = ticks_at(op);
        if (controls.tsc_multiplier == Controls::tsc_unity) {
            return ticks + controls.tsc_offset;
        }
        return static_cast<u64>(u128{ticks} * controls.tsc_multiplier >> 48) + controls.tsc_offset;
    }
    /// Instructions this vCPU retired since reset, for its performance counters.
    [[nodiscard]] u64 retired_at(const Op* op) const {
        return s.retired + (count_at(op) - start_count_);
    }

    // --- mode -----------------------------------------------------------------------------------

    /// Recomputes mode, CPL, TLB view and step attention from `s`. After any change of CR0, CR4,
    /// EFER, XCR0, RFLAGS (TF, RF, VM, AC), DR7, CS, SS, DS or ES.
    void update_mode();
    /// Only what RFLAGS decides (AC with SMAP or #AC, TF, RF). Cheaper; for STAC, POPF and the
    /// like.
    void update_flags_mode();

    /// Delivers through the IDT at an instruction boundary (events.cpp): exceptions nest, #DF,
    /// triple fault. False: outcome is vm_exit, page_needed, copy_needed or access.
    bool deliver(const Event& event);
    /// Sets STI or MOV SS blocking for the next instruction. The handler must leave().
    void set_shadow(bool mov_ss);

private:
    friend class Package;

    // Run loop (run.cpp). Those that return bool return false when run() must return `stop_`.
    Stop loop();
    bool service_boundary();
    bool deliver_injected();
    bool deliver_pending_debug();
    bool code_breakpoint();
    /// What an instruction found that may have to be put back.
    struct Before {
        u64 rflags = 0;
        u64 pending_debug = 0;
    };
    void after_instruction(const Before& before, bool retired);
    void forget_answers();
    bool stop_for(Outcome o);
    /// The block at the current RIP; null when outcome says why there is none.
    Block* find_block(bool exact);
    Block* decode_at(u64 linear, const u8* host, bool exact);
    bool fetch_linear(u64& address);
    bool second_page_matches(const Block& b, u64 linear);
    void execute(Block* b, u64 cut);

    // Memory (memory_access.cpp).
    struct Piece;
    struct Pieces;
    bool locate(u64 address, unsigned size, Access kind, bool implicit, Pieces& pieces);
    bool locate_one(u64 address, Access kind, bool implicit, Piece& piece);
    bool writable_now(const Pieces& pieces);
    bool read_pieces(const Op* op, const Pieces& pieces, u8* out);
    bool write_pieces(const Op* op, const Pieces& pieces, const u8* in);
    bool external_piece(const Op* op, const Piece& piece, bool write, u8* bytes);
    bool check_address(u64 address, unsigned size, arch::Seg segment);
    void data_breakpoint(u64 address, unsigned size, bool write);
    void fill_tlb(u64 address, const Translation& t, bool user, bool implicit);

    u64 limit_ = 0;
    u64 start_count_ = 0;
    Stop stop_ = Stop::count;
    bool alone_ = false; ///< run one instruction only (restart_alone)
    u64 cut_ = 0;        ///< instructions of the running block that may execute, when it was cut

    u64 used_ = 0; ///< counts used by the last run

    void note_level();
    u64 outside_cpl0_ = 0;
    u64 level_since_ = 0; ///< machine-wide count at which `level_` began
    u8 level_ = 0;        ///< CPL

    /// Accesses of the abandoned instruction that were answered; it replays them when it restarts.
    std::vector<PendingAccess> answers_;
    std::size_t answer_next_ = 0;

    std::unique_ptr<Decoder> decoder_;
    struct JumpCacheEntry {
        u64 rip = ~u64{0};
        Block* block = nullptr;
    };
    static constexpr unsigned jump_cache_entries = 4096;
    std::unique_ptr<JumpCacheEntry[]> jump_cache_;

public:
    /// The cached block for a target in the current mode, if it is still what the target's page
    /// maps to; null otherwise. For indirect and page-leaving jumps.
    [[nodiscard]] Block* cached_block(u64 rip) const {
        const JumpCacheEntry& e = jump_cache_[(rip ^ rip >> 12) & (jump_cache_entries - 1)];
        if (e.rip != rip || e.block->mode != mode.key) {
            return nullptr;
        }
        const TlbEntry& t = tlb.at(rip);
        if (!t.executes(rip) || t.host(rip) != e.block->host) {
            return nullptr;
        }
        return e.block;
    }
    /// Continues with a block if the budget covers it; otherwise the dispatcher decides.
    const Op* enter(Block* next_block, u64 rip) {
        s.rip = rip;
        budget -= next_block->n;
        if (budget < 0) [[unlikely]] {
            budget += next_block->n;
            block = nullptr;
            outcome = Outcome::resume;
            return nullptr;
        }
        block = next_block;
        return jump_to(*this, next_block->ops());
    }
};

static_assert(offsetof(state::Cpu, gpr) == 0 && offsetof(state::Cpu, rip) == 128);

/// Runs a fallible access in a handler: stops the instruction when it fails.
#define NESTOR_OR_STOP(cpu, op, expr)                                                              \
    do {                                                                                           \
        if (!(expr)) [[unlikely]] {                                                                \
            return (cpu).abandon(op);                                                              \
        }                                                                                          \
    } while (false)

} // namespace nestor::cpu
