// What the system instructions share inside engine/cpu, and what L0's policy uses of the silicon:
// MSRs that live in it, I/O permission, control-register writes.
#pragma once

#include "engine/arch/vmx_control.hpp"
#include "engine/cpu/descriptors.hpp"
#include "engine/cpu/emit.hpp"

namespace nestor::cpu {

// --- model-specific registers that the silicon holds --------------------------------------------

enum class MsrResult : u8 {
    ok,
    gp,          ///< #GP(0): a reserved bit or a value that may not be written
    not_silicon, ///< not one of the silicon's; L0 knows
};
/// Does what RDMSR does, without privilege checks and bitmaps.
MsrResult read_silicon_msr(Cpu& cpu, u32 index, u64& value);
/// Does what WRMSR does, derived state included; the caller is at an instruction boundary or
/// leaves.
MsrResult write_silicon_msr(Cpu& cpu, u32 index, u64 value);

// --- control registers --------------------------------------------------------------------------

/// MOV to CR0, CR3, CR4 without privilege checks and guest/host masks: value checks, PDPTE loads,
/// flushes, the mode. False: a fault or another outcome, nothing changed.
bool write_cr0(const Site& site, u64 value);
bool write_cr3(const Site& site, u64 value);
bool write_cr4(const Site& site, u64 value);

// --- ports --------------------------------------------------------------------------------------

/// IOPL and the TSS bitmap (SDM 1 19.5). False: #GP(0) or another outcome.
bool io_permitted(Cpu& cpu, const Op* op, u16 port, unsigned size);
/// Whether IN, OUT, INS and OUTS exit: unconditionally, or by the I/O bitmaps (SDM 3C 26.1.3).
/// False: a bitmap's page is needed.
bool io_exits(Cpu& cpu, u16 port, unsigned size, bool& exits);
/// Exit qualification of an I/O instruction without the string and REP bits (SDM 3C table 28-5).
constexpr u64 io_qualification(u16 port, unsigned size, bool in, bool immediate) {
    return (size - 1) | u64{in} << 3 | u64{immediate} << 6 | u64{port} << 16;
}
/// DR6 bits of the I/O breakpoints that an access matches (SDM 3B 18.2.4); zero mostly.
u64 io_breakpoints(const Cpu& cpu, u16 port, unsigned size);
/// Notes I/O breakpoints that an access met; #DB follows the instruction, whose handler leaves.
void note_io_breakpoints(Cpu& cpu, u64 dr6_bits);

// --- privilege and stacks -----------------------------------------------------------------------

/// The TLB view for a privilege level with the current RFLAGS, CR0, CR4 and DR7.
TlbView view_for(const Cpu& cpu, u8 level);

/// Memory accesses of this scope are made with the rights of another privilege level, and with
/// 64-bit addresses in IA-32e mode: what goes to the stack of an event's or gate's handler.
class PrivilegeScope final {
public:
    PrivilegeScope(Cpu& cpu, u8 level, bool long_addresses)
        : cpu_(cpu), cpl_(cpu.cpl), view_(cpu.view), mode_(cpu.mode) {
        cpu.cpl = level;
        cpu.view = view_for(cpu, level);
        cpu.tlb = cpu.translations.current().view(cpu.view);
        if (long_addresses) {
            cpu.mode.key =
                (cpu.mode.key & ~0xfu) | 2u << Mode::code_shift | 2u << Mode::stack_shift;
        }
    }
    ~PrivilegeScope() {
        cpu_.cpl = cpl_;
        cpu_.view = view_;
        cpu_.mode = mode_;
        cpu_.tlb = cpu_.translations.current().view(view_);
    }
    PrivilegeScope(const PrivilegeScope&) = delete;
    PrivilegeScope& operator=(const PrivilegeScope&) = delete;

private:
    Cpu& cpu_;
    u8 cpl_;
    TlbView view_;
    Mode mode_;
};

/// Mask of the stack pointer for a stack segment (SDM 1 6.2.3); `long_stack` in 64-bit mode.
inline u64 stack_mask(const state::Segment& ss, bool long_stack) {
    if (long_stack) {
        return ~u64{0};
    }
    return (ss.attributes & arch::seg_attr::db) != 0 ? 0xffffffff : 0xffff;
}

/// A frame to be pushed on a stack that need not be the current one: collected, checked as a whole,
/// then written. Nothing is committed but memory.
class Frame final {
public:
    /// `width` bytes per element.
    Frame(const state::Segment& ss, u64 sp, bool long_stack, unsigned width)
        : ss_(ss), sp_(sp), mask_(stack_mask(ss, long_stack)), long_(long_stack), width_(width) {}
    void push(u64 value) { values_[count_++] = value; }
    /// Limit or canonicality of every element: #SS(`error`) otherwise (EXT is the site's).
    [[nodiscard]] bool check_room(const Site& site, u32 error) const;
    /// Writes with the rights of `level`, after all elements were found writable.
    [[nodiscard]] bool write(const Site& site, u8 level) const;
    /// Stack pointer after the pushes; bits outside the stack's width are those of `old`.
    [[nodiscard]] u64 new_sp(u64 old) const {
        const u64 moved = (sp_ - u64{count_} * width_) & mask_;
        return mask_ == 0xffff ? (old & ~mask_) | moved : moved;
    }

private:
    [[nodiscard]] u64 offset(unsigned i) const { return (sp_ - u64{i + 1} * width_) & mask_; }
    [[nodiscard]] u64 linear(u64 offset) const {
        return long_ ? offset : static_cast<u32>(ss_.base + offset);
    }

    static constexpr unsigned most = 40;
    state::Segment ss_;
    u64 sp_;
    u64 mask_;
    bool long_;
    unsigned width_;
    unsigned count_ = 0;
    u64 values_[most] = {};
};

/// Reads elements off the current stack without moving the stack pointer.
class Popper final {
public:
    Popper(Cpu& cpu, const Op* op, unsigned width)
        : cpu_(cpu), op_(op), width_(width),
          mask_(stack_mask(cpu.seg(arch::Seg::ss), cpu.mode.stack() == 2)), sp_(cpu.s.gpr[4]) {}
    [[nodiscard]] bool pop(u64& value);
    void skip(u64 bytes) { sp_ += bytes; }
    /// RSP after the pops so far.
    [[nodiscard]] u64 rsp() const { return merge(cpu_.s.gpr[4], sp_, mask_); }
    /// `sp` put into `old` with a stack mask.
    static u64 merge(u64 old, u64 sp, u64 mask) {
        return mask == 0xffff ? (old & ~mask) | (sp & mask) : sp & mask;
    }

private:
    Cpu& cpu_;
    const Op* op_;
    unsigned width_;
    u64 mask_;
    u64 sp_;
};

// --- control transfers --------------------------------------------------------------------------

/// What started a task switch (SDM 3A 8.3).
enum class TaskSwitchSource : u8 { call, iret, jump, gate };

/// Switches to the task of a TSS descriptor that was found present and of the right type
/// (available; busy for IRET). `next` is the EIP saved for the old task. On success s.rip is the
/// new task's. False with `committed` set: a fault in the context of the new task, s.rip included;
/// otherwise nothing changed.
bool task_switch(const Site& site, u16 selector, const Descriptor& tss, TaskSwitchSource source,
                 u64 next, const u32* error_code, bool& committed);
/// The TSS selector of a task gate or far pointer: global, in the GDT, available or busy, present.
bool check_tss(const Site& site, u16 selector, bool want_busy, arch::Exception vector,
               Descriptor& out);

/// SS:(E/R)SP for a privilege level out of the current TSS (SDM 3A 5.8.5, 6.14.4).
struct InnerStack {
    state::Segment ss;
    u64 sp = 0;
};
bool inner_stack(const Site& site, u8 level, bool long_frame, unsigned ist, InnerStack& out);

/// INT n, INT3, INTO and INT1: what returns behind its instruction.
bool is_software_kind(EventType type);
/// RF in the pushed image: set for faults, except instruction breakpoints (SDM 3B 18.3.1.1).
bool pushes_rf(const Event& e);
/// Takes one event to its handler. False: a fault of the delivery in Cpu::event, or another
/// outcome; nothing changed, except by a task switch that faults in the new task.
bool deliver_once(Cpu& cpu, const Event& e);
/// Delivery through the real-mode IVT at `table` with 16-bit frames; also VME redirection.
bool deliver_real(const Site& site, u64 table, u8 vector, u64 return_rip, u64 pushed_flags);

/// The memory operand as the instruction-information field has it: scaling, address size, segment,
/// index and base (SDM 3C 28.2.5), and the displacement as the exit qualification has it.
u32 memory_instruction_info(const Cpu& cpu, const Op* op);
u64 memory_qualification(const Cpu& cpu, const Op* op);

/// Emitters by subject: each returns false for mnemonics that it does not know.
bool emit_system_far(Emit& e);
bool emit_system_segment(Emit& e);
bool emit_system_table(Emit& e);
bool emit_system_control(Emit& e);
bool emit_system_flags(Emit& e);
bool emit_system_fast_call(Emit& e);
bool emit_system_msr(Emit& e);
bool emit_system_port(Emit& e);
bool emit_system_cache(Emit& e);
bool emit_system_vmx(Emit& e);

/// A handler out of a body that returns `op` to go on and null when it stopped. The body may keep
/// locals in memory: it is called, never inlined, so that this handler can jump to the next one.
template <OpFn body>
const Op* then_next(Cpu& cpu, const Op* op) {
    OpFn called = body;
    asm("" : "+r"(called));
    return called(cpu, op) != nullptr ? next(cpu, op) : nullptr;
}

/// Sets the handler; the instruction ends its block.
inline bool ends_with(Emit& e, OpFn fn) {
    e.op.fn = fn;
    e.ends_block = true;
    return true;
}

/// #GP(0) unless CPL is 0.
inline bool privileged(Cpu& cpu) { return cpu.cpl == 0 || cpu.set_fault(arch::Exception::gp, 0); }

} // namespace nestor::cpu
