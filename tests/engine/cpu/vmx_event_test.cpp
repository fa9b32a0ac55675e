// Exceptions, injection, windows, monitor trap flag and preemption timer in VMX non-root operation.
#include "engine/cpu/virtual_apic.hpp"
#include "tests/engine/cpu/vmx_fixture.hpp"

namespace nestor::cpu {

using namespace arch;

namespace {
constexpr u32 valid = 1u << 31, with_error = 1u << 11;
constexpr u32 hardware = 3u << 8, nmi = 2u << 8, software = 4u << 8, external = 0,
              software_exception = 6u << 8, other = 7u << 8;
} // namespace

// --- exceptions ---------------------------------------------------------------------------------

TEST_F(VmxTest, ExceptionOfTheBitmapExits) {
    vmcs.exception_bitmap = 1 << 6;
    run_guest({0x0f, 0x0b});
    expect_exit(ExitReason::exception_or_nmi);
    EXPECT_EQ(cpu.exit.interruption_info, valid | hardware | 6);
    EXPECT_EQ(cpu.s.rip, code);
    EXPECT_NE(cpu.s.rflags & rflags::rf, 0u); // as its frame would have had it
}

TEST_F(VmxTest, BreakpointExitHasItsLengthAndNoRf) {
    vmcs.exception_bitmap = 1 << 3;
    run_guest({0xcc});
    EXPECT_EQ(cpu.exit.interruption_info, valid | software_exception | 3);
    EXPECT_EQ(cpu.exit.instruction_length, 1u);
    EXPECT_EQ(cpu.s.rflags & rflags::rf, 0u);
}

TEST_F(VmxTest, PageFaultExitsWhereMaskedErrorCodeMatches) {
    vmcs.exception_bitmap = 1 << 14;
    vmcs.page_fault_error_code_mask = pf_error::w;
    vmcs.page_fault_error_code_match = pf_error::w;
    cpu.s.gpr[0] = 0xdead0000;
    run_guest({0x88, 0x00}); // mov [rax], al
    expect_exit(ExitReason::exception_or_nmi, 0xdead0000);
    EXPECT_EQ(cpu.exit.interruption_info, valid | with_error | hardware | 14);
    EXPECT_EQ(cpu.exit.interruption_error, pf_error::w);
    EXPECT_EQ(cpu.s.cr2, 0u);
}

TEST_F(VmxTest, PageFaultDoesNotExitWhereItDoesNotMatch) {
    vmcs.exception_bitmap = 1 << 14;
    vmcs.page_fault_error_code_mask = pf_error::w;
    vmcs.page_fault_error_code_match = pf_error::w;
    cpu.s.gpr[0] = 0xdead0000;
    run_guest({0x8a, 0x00});
    EXPECT_EQ(reached(), 14);
}

TEST_F(VmxTest, MatchInvertsWithTheBitmapBitClear) {
    vmcs.page_fault_error_code_mask = pf_error::w;
    vmcs.page_fault_error_code_match = pf_error::w;
    cpu.s.gpr[0] = 0xdead0000;
    run_guest({0x8a, 0x00});
    expect_exit(ExitReason::exception_or_nmi, 0xdead0000);
}

TEST_F(VmxTest, DebugExceptionExitsWithItsBitsAndLeavesDr6) {
    vmcs.exception_bitmap = 1 << 1;
    cpu.s.rflags |= rflags::tf;
    cpu.rehydrate();
    run_guest({0x90, 0xf4});
    expect_exit(ExitReason::exception_or_nmi, dr6::bs);
    EXPECT_EQ(cpu.exit.interruption_info, valid | hardware | 1);
    EXPECT_EQ(cpu.s.dr6, dr6::fixed1);
    EXPECT_EQ(cpu.s.rip, code + 1);
}

TEST_F(VmxTest, FaultDuringDeliveryExitsWithIdtVectoring) {
    vmcs.exception_bitmap = 1 << 11;
    gate64(6, code0, handler(6), 0x0e); // not present
    run_guest({0x0f, 0x0b});
    EXPECT_EQ(cpu.exit.interruption_info, valid | with_error | hardware | 11);
    EXPECT_EQ(cpu.exit.interruption_error, 6u * 8 + 3);
    EXPECT_EQ(cpu.exit.idt_vectoring_info, valid | hardware | 6);
}

TEST_F(VmxTest, DoubleFaultExitHasNoIdtVectoring) {
    vmcs.exception_bitmap = 1 << 8;
    gate64(13, code0, handler(13), 0x0e);
    cpu.s.gpr[0] = u64{1} << 60;
    run_guest({0x8a, 0x00}); // #GP, then #NP
    EXPECT_EQ(cpu.exit.interruption_info, valid | with_error | hardware | 8);
    EXPECT_EQ(cpu.exit.idt_vectoring_info, 0u);
}

TEST_F(VmxTest, TripleFaultExits) {
    cpu.s.idtr.limit = 0;
    run_guest({0x0f, 0x0b});
    expect_exit(ExitReason::triple_fault);
    EXPECT_EQ(cpu.exit.idt_vectoring_info, 0u);
}

TEST_F(VmxTest, FaultOfIretTellsThatNmisAreUnblocked) {
    vmcs.exception_bitmap = 1 << 13;
    cpu.s.blocking_by_nmi = true;
    write(stack_top + 8, u64{0xfff8}); // a CS beyond the table
    run_guest({0x48, 0xcf});
    EXPECT_EQ(cpu.exit.interruption_info, valid | 1u << 12 | with_error | hardware | 13);
    EXPECT_FALSE(cpu.s.blocking_by_nmi);
}

TEST_F(VmxTest, IretKeepsNmiBlockingWithoutVirtualNmis) {
    pin(pin_control::nmi_exiting);
    cpu.s.blocking_by_nmi = true;
    write(stack_top, u64{code + 2});
    write(stack_top + 8, u64{code0});
    write(stack_top + 16, u64{2});
    write(stack_top + 24, u64{stack_top});
    write(stack_top + 32, u64{data0});
    run_guest({0x48, 0xcf, 0xf4});
    EXPECT_TRUE(halted());
    EXPECT_TRUE(cpu.s.blocking_by_nmi);
}

// --- injection ----------------------------------------------------------------------------------

TEST_F(VmxTest, InjectedInterruptIsDeliveredBeforeTheFirstInstruction) {
    inject(external | 0x41);
    run_guest({0x90});
    EXPECT_EQ(reached(), 0x41);
    EXPECT_EQ(read<u64>(rsp()), code);
}

TEST_F(VmxTest, InjectedExceptionPushesItsErrorAndIsNotIntercepted) {
    vmcs.exception_bitmap = ~u32{0};
    vmcs.cpu_based_vm_exec_control |= 0;
    inject(hardware | with_error | 14, 7);
    cpu.s.cr2 = 0x1234;
    run_guest({0x90});
    EXPECT_EQ(reached(), 14);
    EXPECT_EQ(read<u64>(rsp()), 7u);
    EXPECT_EQ(cpu.s.cr2, 0x1234u);
}

TEST_F(VmxTest, InjectedSoftwareInterruptReturnsBehindItsInstruction) {
    inject(software | 0x80, 0, 2);
    gate64(0x80, code0, handler(0x80), 0xee);
    run_guest({0xcd, 0x80});
    EXPECT_EQ(reached(), 0x80);
    EXPECT_EQ(read<u64>(rsp()), code + 2);
}

TEST_F(VmxTest, InjectionPushesRfAsItStands) {
    for (const u64 rf : {u64{0}, rflags::rf}) {
        for (const u32 info : {hardware | with_error | 13, software | 0x80, external | 0x41}) {
            long_mode();
            cpu.s.rflags |= rf;
            inject(info, 0, 2);
            gate64(0x80, code0, handler(0x80), 0xee);
            run_guest({0x90});
            const u64 frame = rsp() + ((info & with_error) != 0 ? 8 : 0);
            EXPECT_EQ(read<u64>(frame + 16) & rflags::rf, rf) << info;
            EXPECT_EQ(cpu.s.rflags & rflags::rf, 0u);
        }
    }
}

namespace {

/// Injection into virtual-8086 mode. The vector is redirected where the TSS has its bit clear.
struct V86Injection {
    u32 type;
    u64 iopl;
    bool vme, bit;
    bool redirected;
};
constexpr V86Injection v86_injections[] = {
    {software, 0, false, false, false}, {software, 3, false, false, false},
    {software, 0, true, false, true},   {software, 3, true, false, true},
    {software, 0, true, true, false},   {software, 3, true, true, false},
    {external, 0, true, false, false},  {hardware, 0, true, false, false},
};

class V86InjectionTest : public VmxTest, public ::testing::WithParamInterface<V86Injection> {};

} // namespace

// SDM 3C 27.6.1.1: IOPL never makes #GP of an injected software interrupt.
TEST_P(V86InjectionTest, IgnoresIoplAndFollowsTheRedirectionBitmap) {
    const V86Injection& p = GetParam();
    constexpr u8 vector = 0x11;
    constexpr u16 io_base = 0x88;
    protected_mode();
    gate32(idt + vector * 8u, code0, static_cast<u32>(handler(vector)), 0xee);
    write(tss + 102, io_base);
    write(tss + io_base - 32 + vector / 8, static_cast<u8>(p.bit ? 1 << vector % 8 : 0));
    write(vector * 4u, u32{0x06000010});
    state::Segment s = segment(0x500, 0xf3, 0xffff);
    s.base = 0x5000;
    data_segments(s);
    cpu.seg(Seg::cs) = s;
    cpu.s.tr.limit = 0xff;
    cpu.s.rip = 0x100;
    cpu.s.gpr[4] = 0x1000;
    cpu.s.cr4 = cr4::vmxe | (p.vme ? cr4::vme : 0);
    cpu.s.rflags = rflags::fixed1 | rflags::vm | p.iopl << 12 | rflags::vif;
    inject(p.type | vector, 0, 2);
    enter();
    stop = cpu.run(0, 1);
    const u16 return_ip = p.type == software ? 0x102 : 0x100;
    if (p.redirected) {
        EXPECT_EQ(cpu.seg(Seg::cs).selector, 0x600);
        EXPECT_EQ(cpu.s.rip, 0x10u);
        EXPECT_NE(cpu.s.rflags & rflags::vm, 0u);
        const u64 frame = 0x5000 + 0x1000 - 6;
        EXPECT_EQ(read<u16>(frame), return_ip);
        const u64 image = read<u16>(frame + 4);
        EXPECT_EQ(image & rflags::iopl, rflags::iopl);
        EXPECT_EQ((image & rflags::if_) != 0, p.iopl < 3); // VIF's value
        return;
    }
    EXPECT_EQ(cpu.s.rip, handler(vector));
    EXPECT_EQ(cpu.s.rflags & rflags::vm, 0u);
    EXPECT_EQ(read<u32>(inner_stack_top - 36), return_ip);
    EXPECT_EQ(read<u32>(inner_stack_top - 28) & rflags::iopl, p.iopl << 12);
}

INSTANTIATE_TEST_SUITE_P(Vmx, V86InjectionTest, ::testing::ValuesIn(v86_injections));

TEST_F(VmxTest, InjectedNmiBlocksNmis) {
    inject(nmi | 2);
    run_guest({0x90});
    EXPECT_EQ(reached(), 2);
    EXPECT_TRUE(cpu.s.blocking_by_nmi);
}

TEST_F(VmxTest, FaultOfAnInjectionExitsWithIt) {
    vmcs.exception_bitmap = 1 << 11;
    gate64(0x41, code0, handler(0x41), 0x0e);
    inject(external | 0x41);
    run_guest({0x90});
    EXPECT_EQ(cpu.exit.interruption_info, valid | with_error | hardware | 11);
    EXPECT_EQ(cpu.exit.idt_vectoring_info, valid | 0x41);
    EXPECT_EQ(cpu.s.rip, code);
}

TEST_F(VmxTest, InjectionWakesFromHlt) {
    cpu.s.activity = state::ActivityState::hlt;
    inject(external | 0x41);
    run_guest({0x90});
    EXPECT_EQ(reached(), 0x41);
}

TEST_F(VmxTest, InjectionDropsPendingDebugExceptions) {
    cpu.s.pending_debug = pending_debug::bs;
    inject(external | 0x41);
    run_guest({0x90});
    EXPECT_EQ(reached(), 0x41);
}

// --- monitor trap flag --------------------------------------------------------------------------

TEST_F(VmxTest, MonitorTrapExitsBehindOneInstruction) {
    proc(proc_control::monitor_trap_flag);
    run_guest({0x90, 0x90, 0x90});
    expect_exit(ExitReason::monitor_trap_flag);
    EXPECT_EQ(cpu.s.rip, code + 1);
    EXPECT_EQ(cpu.retired_in_run(), 1u);
}

TEST_F(VmxTest, MonitorTrapExitsBehindAnInjectedEvent) {
    proc(proc_control::monitor_trap_flag);
    inject(external | 0x41);
    run_guest({0x90});
    expect_exit(ExitReason::monitor_trap_flag);
    EXPECT_EQ(cpu.s.rip, handler(0x41));
}

TEST_F(VmxTest, MonitorTrapExitsBehindTheDeliveryOfAFault) {
    proc(proc_control::monitor_trap_flag);
    run_guest({0x0f, 0x0b});
    expect_exit(ExitReason::monitor_trap_flag);
    EXPECT_EQ(cpu.s.rip, handler(6));
}

TEST_F(VmxTest, InjectedMonitorTrapExitsAtOnce) {
    inject(other);
    run_guest({0x90});
    expect_exit(ExitReason::monitor_trap_flag);
    EXPECT_EQ(cpu.s.rip, code);
    EXPECT_EQ(cpu.retired_in_run(), 0u);
}

TEST_F(VmxTest, MonitorTrapComesBeforeTheSingleStepTrap) {
    proc(proc_control::monitor_trap_flag);
    cpu.s.rflags |= rflags::tf;
    run_guest({0x90, 0x90});
    expect_exit(ExitReason::monitor_trap_flag);
    EXPECT_EQ(cpu.s.pending_debug, pending_debug::bs);
}

TEST_F(VmxTest, MonitorTrapWaitsOverACut) {
    proc(proc_control::monitor_trap_flag);
    run_guest({0x90, 0x90}, 1);
    EXPECT_EQ(stop, Cpu::Stop::count);
    EXPECT_TRUE(cpu.monitor_trap_pending);
    stop = cpu.run(1, 1);
    expect_exit(ExitReason::monitor_trap_flag);
    EXPECT_EQ(cpu.s.rip, code + 1);
}

// --- preemption timer ---------------------------------------------------------------------------

TEST_F(VmxTest, PreemptionTimerExitsAtItsTick) {
    pin(pin_control::activate_preemption_timer);
    vmcs.vmx_preemption_timer_value = 3;
    cpu.clock = {0, 10, 1, 1}; // expires when bits 63:5 of the TSC have gone up by three: at 96
    run_guest({0xeb, 0xfe}, 1000);
    expect_exit(ExitReason::preemption_timer);
    EXPECT_EQ(cpu.retired_in_run(), 86u);
    EXPECT_EQ(preemption_timer_value(cpu), 0u);
}

TEST_F(VmxTest, PreemptionTimerOfZeroExitsBeforeTheFirstInstruction) {
    pin(pin_control::activate_preemption_timer);
    run_guest({0x90});
    expect_exit(ExitReason::preemption_timer);
    EXPECT_EQ(cpu.s.rip, code);
    EXPECT_EQ(cpu.retired_in_run(), 0u);
}

TEST_F(VmxTest, PreemptionTimerExitsInHlt) {
    pin(pin_control::activate_preemption_timer);
    cpu.s.activity = state::ActivityState::hlt;
    run_guest({0x90});
    expect_exit(ExitReason::preemption_timer);
    EXPECT_EQ(cpu.s.activity, state::ActivityState::hlt);
}

TEST_F(VmxTest, PreemptionTimerTellsWhatIsLeft) {
    pin(pin_control::activate_preemption_timer);
    vmcs.vmx_preemption_timer_value = 100;
    run_guest({0xeb, 0xfe}, 64);
    EXPECT_EQ(stop, Cpu::Stop::count);
    EXPECT_EQ(preemption_timer_value(cpu), 98u);
}

TEST_F(VmxTest, PreemptionTimerDoesNotDependOnCuts) {
    pin(pin_control::activate_preemption_timer);
    vmcs.vmx_preemption_timer_value = 2;
    enter();
    poke(code, {0xeb, 0xfe});
    u64 count = 0;
    do {
        stop = cpu.run(count, 7);
        count += cpu.retired_in_run();
    } while (stop == Cpu::Stop::count && count < 1000);
    expect_exit(ExitReason::preemption_timer);
    EXPECT_EQ(count, 64u);
}

// --- windows ------------------------------------------------------------------------------------

TEST_F(VmxTest, InterruptWindowOpensBehindSti) {
    proc(proc_control::interrupt_window_exiting);
    run_guest({0xfb, 0x90, 0x90});
    expect_exit(ExitReason::interrupt_window);
    EXPECT_EQ(cpu.s.rip, code + 2);
}

TEST_F(VmxTest, NmiWindowOpensBehindIret) {
    pin(pin_control::nmi_exiting | pin_control::virtual_nmis);
    proc(proc_control::nmi_window_exiting);
    cpu.s.blocking_by_nmi = true;
    write(stack_top, u64{code + 2});
    write(stack_top + 8, u64{code0});
    write(stack_top + 16, u64{2});
    write(stack_top + 24, u64{stack_top});
    write(stack_top + 32, u64{data0});
    run_guest({0x48, 0xcf, 0xf4});
    expect_exit(ExitReason::nmi_window);
    EXPECT_EQ(cpu.s.rip, code + 2);
}

TEST_F(VmxTest, WindowsWaitForPendingDebugExceptions) {
    proc(proc_control::interrupt_window_exiting);
    vmcs.exception_bitmap = 1 << 1;
    cpu.s.rflags |= rflags::if_;
    cpu.s.pending_debug = pending_debug::bs;
    run_guest({0x90});
    expect_exit(ExitReason::exception_or_nmi, dr6::bs);
}

// --- what an instruction's exit saves -----------------------------------------------------------

TEST_F(VmxTest, InstructionExitClearsRf) {
    cpu.s.rflags |= rflags::rf;
    run_guest({0x0f, 0xa2});
    expect_exit(ExitReason::cpuid);
    EXPECT_EQ(cpu.s.rflags & rflags::rf, 0u);
}

} // namespace nestor::cpu
