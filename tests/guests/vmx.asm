; VMX for L1: the instructions and their errors, VM entry and exit, exits for one reason after another
; with what they leave, injection, windows, timer, without EPT. SDM 3C chapters 24 to 31.
%include "common.inc"
%include "irq.inc"
%include "vmx.inc"

%define CF_ 1
%define ZF_ 0x40
%macro flags_are 2              ; name, arithmetic flags after a VMX instruction
    pushfq
    pop rcx
    and ecx, 0x8d5
    check %1, rcx, %2
%endmacro
%macro error_is 2               ; VMfailValid with a number
    flags_are %1, ZF_
    check_field %1, X_ERROR, %2
%endmacro

align 8
want: dq 0

main:
    call pic_init
    try
    vmxoff
    endtry_fault "vmxoff outside is #UD", V_UD, 0
    mov qword [pointer], VMXON_REGION
    try
    vmxon [pointer]
    endtry_fault "vmxon needs CR4.VMXE", V_UD, 0
    or_cr4 1 << 13
    mov qword [pointer], VMXON_REGION + 1
    vmxon [pointer]
    flags_are "vmxon wants an aligned pointer", CF_
    mov dword [abs VMXON_REGION], 0x1234
    mov qword [pointer], VMXON_REGION
    vmxon [pointer]
    flags_are "vmxon wants the revision", CF_
    mov rax, A(pointer) + UALIAS
    try_user
    vmxon [rax]
    endtry_user_fault "vmxon at CPL 3", V_GP, 0
    or_cr4 1 << 18              ; OSXSAVE, for XSETBV
    call vmx_on
    flags_are "vmxon", 0
    try
    and_cr4 ~(1 << 13)
    endtry_fault "CR4.VMXE is fixed in VMX operation", V_GP, 0, -1
    try
    and_cr0 ~0x20
    endtry_fault "CR0.NE is fixed in VMX operation", V_GP, 0, -1

    ; Pointers and the current VMCS.
    vmptrst [pointer]
    check "no current VMCS", [pointer], -1
    mov eax, X_ERROR
    vmread rax, rax
    flags_are "vmread without a VMCS", CF_
    vmptr vmclear, VMCS_A
    flags_are "vmclear", 0
    vmptr vmptrld, VMCS_A
    flags_are "vmptrld", 0
    vmptrst [pointer]
    check "current VMCS", [pointer], VMCS_A
    vmptr vmclear, VMXON_REGION
    error_is "vmclear of the VMXON region", 3
    vmptr vmclear, VMCS_B + 8
    error_is "vmclear, not aligned", 2
    vmptr vmptrld, VMXON_REGION
    error_is "vmptrld of the VMXON region", 10
    mov rax, 1 << 50
    mov [pointer], rax
    vmptrld [pointer]
    error_is "vmptrld beyond the address width", 9
    vmptr vmptrld, MSR_BITMAP
    error_is "vmptrld of another revision", 11
    mov qword [pointer], VMXON_REGION
    vmxon [pointer]
    error_is "vmxon again", 15
    vmcall
    error_is "vmcall in root operation", 1
    mov edx, 0x7ffe
    vmread rax, rdx
    error_is "vmread of no field", 12
    mov edx, 0x7ffe
    vmwrite rdx, rax
    error_is "vmwrite of no field", 12
    mov edi, 0x1234
    vmw GUEST_CS_SEL, rdi
    vmr GUEST_CS_SEL
    check "a 16-bit field", rax, 0x1234
    mov rcx, 0x123456789abcdef0
    mov [want], rcx
    vmw TSC_OFFSET, rcx
    vmr TSC_OFFSET
    check "a 64-bit field", rax, [want]
    vmr TSC_OFFSET + 1
    check "the high half of a 64-bit field", rax, 0x12345678
    mov rbx, [want]
    vmptr vmclear, VMCS_B
    vmptr vmptrld, VMCS_B
    vmptr vmptrld, VMCS_A
    vmr TSC_OFFSET
    check "a VMCS keeps its fields in memory", rax, rbx
    mov edx, TSC_OFFSET
    vmread [pointer], rdx
    check "vmread to memory", [pointer], rbx
    mov qword [pointer], 5
    vmwrite rdx, [pointer]
    vmr TSC_OFFSET
    check "vmwrite from memory", rax, 5
    mov eax, 7
    invept rax, [pointer]
    error_is "invept type", 28
    mov eax, 7
    invvpid rax, [pointer]
    error_is "invvpid type", 28
    call invalidations

    ; Entries that fail.
    vmlaunch
    error_is "controls of zero", 7
    call vmcs_fill
    vmresume
    error_is "vmresume of a clear VMCS", 5
    vmw HOST_CS_SEL, 3
    vmlaunch
    error_is "host CS", 8
    vmw HOST_CS_SEL, KCS64
    vmw GUEST_CS_RIGHTS, 0
    l2_at l2_cpuid
    l2_expect "guest CS", 0x80000021
    check_field "guest CS: qualification", X_QUALIFICATION, 0
    vmw GUEST_CS_RIGHTS, 0xa09b
    vmw LINK_POINTER, VMCS_A
    l2_expect "link pointer", 0x80000021
    check_field "link pointer: qualification", X_QUALIFICATION, 4
    vmw LINK_POINTER, -1
    mov dword [abs MSR_LISTS], 0xc0000100
    vmw ENTRY_LOAD_ADDR, MSR_LISTS
    vmw ENTRY_LOAD_COUNT, 1
    l2_expect "MSR load list", 0x80000022
    check_field "MSR load list: entry", X_QUALIFICATION, 1
    vmw ENTRY_LOAD_COUNT, 0

    ; CPUID and back again.
    mov qword [g_regs], 1
    mov qword [g_regs + 15 * 8], 0x15
    l2_expect "cpuid exits", 10
    check_field "cpuid: length", X_LENGTH, 2
    check_field "cpuid: rip", GUEST_RIP, A(l2_cpuid.at)
    check "L2's registers", [g_regs + 15 * 8], 0x16
    vmlaunch
    error_is "vmlaunch of a launched VMCS", 4
    call skip_instruction
    l2_expect "vmcall exits", 18
    check_field "vmcall: length", X_LENGTH, 3
    check "L2 went on", [g_regs + 15 * 8], 0x17

    call controls_tests
    call memory_tests
    call event_tests
    call time_tests

    vmxoff
    flags_are "vmxoff", 0
    and_cr4 ~(1 << 13)
    try
    vmxoff
    endtry_fault "vmxoff again is #UD", V_UD, 0
    jmp finish

; Types and descriptors of INVEPT and INVVPID (SDM 3C 31.3).
%macro invalidate 5             ; instruction, type, descriptor, its second half, error number or 0
    mov rax, %3
    mov [pointer], rax
    mov rax, %4
    mov [pointer + 8], rax
    mov eax, %2
    %1 rax, [pointer]
    %defstr %%what %1 type %2 of %3 and %4
    %if %5 == 0
        flags_are %%what, 0
    %else
        error_is %%what, %5
    %endif
%endmacro
invalidations:
    invalidate invept, 0, EPT_PML4 | 0x1e, 0, 28
    invalidate invept, 1, EPT_PML4 | 0x1e, 0, 0
    invalidate invept, 1, EPT_PML4 | 0x5e, 0, 0
    invalidate invept, 1, EPT_PML4 | 0x18, 0, 0
    invalidate invept, 1, EPT_PML4 | 0x1a, 0, 28
    invalidate invept, 1, EPT_PML4 | 0x16, 0, 28
    invalidate invept, 1, EPT_PML4 | 0x81e, 0, 28
    invalidate invept, 1, 0x4000000000001e, 0, 28
    invalidate invept, 2, -1, -1, 0
    invalidate invvpid, 0, 1, 0x1000, 0
    invalidate invvpid, 0, 1, 0x800000000000, 28
    invalidate invvpid, 0, 0, 0x1000, 28
    invalidate invvpid, 1, 1, 0x800000000000, 0
    invalidate invvpid, 1, 0, 0, 28
    invalidate invvpid, 1, 0x10001, 0, 28
    invalidate invvpid, 2, 0, 0, 0
    invalidate invvpid, 2, 0x10000, 0, 28
    invalidate invvpid, 3, 0xffff, 0, 0
    invalidate invvpid, 3, 0, 0, 28
    ret

; One instruction of L2 under controls, then without: %2 the reason, %3 the label, %4 the length.
%macro exits_at 4
    l2_at %3
    l2_expect %1, %2
    check_field %1, X_LENGTH, %4
%endmacro
%macro passes 2                 ; name, label: runs to the VMCALL behind it
    l2_at %2
    l2_expect %1, 18
%endmacro

controls_tests:
    set_proc(PROC_HLT | PROC_SECONDARY)
    exits_at "hlt", 12, l2_hlt, 1
    set_proc(PROC_RDTSC)
    exits_at "rdtsc", 16, l2_rdtsc, 2
    set_proc(PROC_RDTSC | PROC_SECONDARY)
    set_proc2(8)
    exits_at "rdtscp", 51, l2_rdtscp.twice, 3
    set_proc(PROC_INVLPG)
    exits_at "invlpg", 14, l2_invlpg, 3
    check_field "invlpg: address", X_QUALIFICATION, 0x12345678
    set_proc(PROC_RDPMC)
    exits_at "rdpmc", 15, l2_rdpmc, 2
    set_proc(PROC_PAUSE)
    exits_at "pause", 40, l2_pause, 2
    set_proc(PROC_MWAIT | PROC_MONITOR)
    exits_at "monitor", 39, l2_monitor, 3
    exits_at "mwait", 36, l2_monitor.mwait, 3
    set_proc(PROC_MOV_DR)
    exits_at "mov to dr", 29, l2_dr, 3
    check_field "mov to dr: qualification", X_QUALIFICATION, 0x303
    set_proc(PROC_CR3_LOAD | PROC_CR3_STORE)
    exits_at "mov from cr3", 28, l2_cr3, 3
    check_field "mov from cr3: qualification", X_QUALIFICATION, 0x13
    exits_at "mov to cr3", 28, l2_cr3.load, 3
    check_field "mov to cr3: qualification", X_QUALIFICATION, 0x3
    mov rcx, cr3
    vmw 0x6008, rcx
    vmw 0x400a, 1
    mov [g_regs], rcx
    passes "mov to cr3 with its value a target", l2_cr3.load
    vmw 0x400a, 0
    set_proc(PROC_CR8_LOAD | PROC_CR8_STORE)
    exits_at "mov from cr8", 28, l2_cr8, 4
    check_field "mov from cr8: qualification", X_QUALIFICATION, 0x18
    exits_at "mov to cr8", 28, l2_cr8.load, 4
    set_proc(PROC_SECONDARY)
    set_proc2(PROC2_DT | PROC2_WBINVD | PROC2_RDRAND | PROC2_RDSEED | 8)
    exits_at "sgdt", 46, l2_sgdt, 8
    exits_at "wbinvd", 54, l2_wbinvd, 2
    exits_at "rdrand", 57, l2_rdrand, 4
    exits_at "rdseed", 61, l2_rdrand.seed, 4
    set_proc2(8)
    passes "sgdt passes", l2_sgdt
    passes "wbinvd passes", l2_wbinvd
    passes "rdtscp passes", l2_rdtscp.twice
    passes "rdrand passes", l2_rdrand
    passes "rdtsc passes", l2_rdtsc
    exits_at "xsetbv", 55, l2_xsetbv, 3
    exits_at "invd", 13, l2_invd, 2
    exits_at "getsec and VMX instructions: vmxoff", 26, l2_vmx, 3
    exits_at "vmptrld", 21, l2_vmx.vmptrld, 3
    exits_at "vmread", 23, l2_vmx.vmread, 3
    exits_at "vmlaunch", 20, l2_vmx.vmlaunch, 3

    ; CR0 and CR4: mask and shadow.
    vmw CR0_MASK, 0x8           ; TS
    vmw CR0_SHADOW, 0x8
    passes "CR0 is read through the shadow", l2_cr0
    check "CR0.TS as L2 sees it", [g_regs + 8], 8
    exits_at "clts with a shadow of 1", 28, l2_cr0.clts, 2
    check_field "clts: qualification", X_QUALIFICATION, 0x20
    vmw CR0_MASK, 0
    vmw CR4_MASK, 0x2000
    vmw CR4_SHADOW, 0
    passes "CR4.VMXE hidden", l2_cr4
    check "CR4 as L2 sees it", [g_regs + 8], 0
    vmw CR4_MASK, 0

    ; Ports and MSRs.
    set_proc(PROC_IO)
    exits_at "in", 30, l2_in, 1
    check_field "in: qualification", X_QUALIFICATION, 0x510008
    set_proc(PROC_IO_BITMAPS)
    passes "in by the bitmap passes", l2_in
    mov byte [abs IO_BITMAP_A + 0x51 / 8], 1 << (0x51 & 7)
    exits_at "in by the bitmap", 30, l2_in, 1
    mov byte [abs IO_BITMAP_A + 0x51 / 8], 0
    set_proc(0)
    exits_at "rdmsr", 31, l2_rdmsr, 2
    exits_at "wrmsr", 32, l2_rdmsr.wrmsr, 2
    set_proc(PROC_MSR_BITMAPS)
    passes "rdmsr by the bitmap passes", l2_rdmsr
    mov byte [abs MSR_BITMAP + 0x277 / 8], 1 << (0x277 & 7)
    exits_at "rdmsr by the bitmap", 31, l2_rdmsr, 2
    mov byte [abs MSR_BITMAP + 0x277 / 8], 0
    mov qword [g_regs + 8], 0x1b
    passes "an MSR that L0 keeps", l2_rdmsr.any
    mov eax, [g_regs]
    and eax, 0xfffff000
    check "IA32_APIC_BASE as L2 reads it", rax, 0xfee00000
    ; What L0 finds wrong with one is an exception of L2, which L1 may want.
    vmw EXCEPTION_BITMAP, 1 << V_GP
    mov qword [g_regs + 8], 0x123
    l2_at l2_rdmsr.any
    l2_expect "an MSR that there is not", 0
    check_field "there is not: info", X_INTR_INFO, 0x80000b0d
    check_field "there is not: error", X_INTR_ERROR, 0
    check_field "there is not: rip", GUEST_RIP, A(l2_rdmsr.any)
    vmr GUEST_RFLAGS
    and eax, 1 << 16
    check "there is not: RF", rax, 1 << 16
    vmw EXCEPTION_BITMAP, 0
    mov qword [f_vec], V_NONE
    mov rax, A(l2_vmcall)
    mov [recover_rip], rax
    mov qword [recover_rsp], L2_STACK
    passes "L2 takes it itself", l2_rdmsr.any
    mov qword [recover_rip], 0
    check "L2's #GP", [f_vec], V_GP
    mov rax, [f_fl]
    and eax, 1 << 16
    check "its RF", rax, 1 << 16
    ret

memory_tests:
    ; MSR lists.
    mov dword [abs MSR_LISTS], 0xc0000102
    mov dword [abs MSR_LISTS + 4], 0
    mov dword [abs MSR_LISTS + 8], 0x1111
    mov dword [abs MSR_LISTS + 12], 0
    mov dword [abs MSR_LISTS + 0x100], 0xc0000102
    mov dword [abs MSR_LISTS + 0x200], 0xc0000102
    mov dword [abs MSR_LISTS + 0x208], 0x2222
    vmw ENTRY_LOAD_ADDR, MSR_LISTS
    vmw ENTRY_LOAD_COUNT, 1
    vmw EXIT_STORE_ADDR, MSR_LISTS + 0x100
    vmw EXIT_STORE_COUNT, 1
    vmw EXIT_LOAD_ADDR, MSR_LISTS + 0x200
    vmw EXIT_LOAD_COUNT, 1
    passes "with MSR lists", l2_vmcall
    check "stored MSR", [abs MSR_LISTS + 0x108], 0x1111
    mov ecx, 0xc0000102
    rdmsr
    check "loaded MSR", rax, 0x2222
    vmw ENTRY_LOAD_COUNT, 0
    vmw EXIT_STORE_COUNT, 0
    vmw EXIT_LOAD_COUNT, 0

    ; Page faults and the exception bitmap.
    vmw EXCEPTION_BITMAP, 1 << V_PF
    l2_at l2_pf
    l2_expect "#PF", 0
    check_field "#PF: info", X_INTR_INFO, 0x80000b0e
    check_field "#PF: error", X_INTR_ERROR, 2
    check_field "#PF: address", X_QUALIFICATION, 0xffff8000_00000000
    vmw PF_MASK, 2
    vmw PF_MATCH, 0
    vmw EXCEPTION_BITMAP, (1 << V_PF) | (1 << V_UD)
    l2_at l2_ud
    l2_expect "#UD", 0
    check_field "#UD: info", X_INTR_INFO, 0x80000306
    vmw EXCEPTION_BITMAP, 0
    vmw PF_MASK, 0
    vmw 0x4812, 0               ; no IDT
    l2_at l2_ud
    l2_expect "triple fault", 2
    vmw 0x4812, idt_end - idt - 1
    ret

event_tests:
    ; Injection of #UD through L2's IDT, which is L1's: the handler records and recovers.
    vmw ENTRY_INFO, 0x80000306
    l2_at l2_vmcall
    mov qword [f_vec], V_NONE
    mov rax, A(l2_vmcall)
    mov [recover_rip], rax
    mov qword [recover_rsp], L2_STACK
    l2_expect "after an injected #UD", 18
    mov qword [recover_rip], 0
    check "injected #UD arrived", [f_vec], V_UD
    vmr ENTRY_INFO
    shr eax, 31
    check "an exit clears the injection", rax, 0

    ; An interrupt for L1 while L2 runs: exit, not acknowledged, then acknowledged.
    call apic_enable
    set_pin(PIN_INTR)
    apic_write 0x300, 0x40060   ; self, vector 0x60
    l2_at l2_loop
    l2_expect "external interrupt", 1
    check_field "not acknowledged", X_INTR_INFO, 0
    set_exit(EXIT_ACK)
    l2_at l2_loop
    l2_expect "external interrupt, acknowledged", 1
    check_field "acknowledged", X_INTR_INFO, 0x80000060
    apic_write APIC_EOI, 0
    set_exit(0)
    ; The same wakes L2 from HLT with interrupts off.
    apic_write 0x300, 0x40060
    set_proc(0)
    l2_at l2_hlt
    vmw ACTIVITY, 1
    l2_expect "external interrupt ends L2's HLT", 1
    check_field "activity state", ACTIVITY, 1
    set_exit(EXIT_ACK)
    l2_expect "and is still there", 1
    apic_write APIC_EOI, 0
    set_exit(0)

    ; Interrupt window.
    set_pin(0)
    set_proc(PROC_INTR_WINDOW)
    l2_at l2_sti
    l2_expect "interrupt window", 7
    check_field "interrupt window: rip", GUEST_RIP, A(l2_sti.open)
    l2_at l2_sti_hlt
    l2_expect "interrupt window behind HLT", 7
    check_field "interrupt window: halted", ACTIVITY, 1

    ; NMI: to self, exit; the window for virtual NMIs.
    set_proc(0)
    set_pin(PIN_NMI | PIN_VNMI)
    l2_at l2_nmi                ; L1 has its APIC passed through
    l2_expect "NMI", 0
    check_field "NMI: info", X_INTR_INFO, 0x80000202
    ; L1's NMIs are blocked now, until IRET.
    call unblock_nmi
    set_proc(PROC_NMI_WINDOW)
    l2_at l2_iret
    vmw INTERRUPTIBILITY, 8
    l2_expect "NMI window opens with IRET", 8
    set_proc(0)
    set_pin(0)

    ; Monitor trap flag.
    set_proc(PROC_MTF)
    l2_at l2_nops
    l2_expect "monitor trap flag", 37
    check_field "one instruction", GUEST_RIP, A(l2_nops.second)
    set_proc(0)
    vmw ENTRY_INFO, 0x80000700
    l2_expect "injected monitor trap", 37
    check_field "no instruction", GUEST_RIP, A(l2_nops.second)
    ret

unblock_nmi:
    iret_here
    ret

time_tests:
    set_pin(PIN_TIMER)
    vmw PREEMPTION_TIMER, 100
    l2_at l2_loop
    l2_expect "preemption timer", 52
    vmw PREEMPTION_TIMER, 0
    l2_at l2_loop
    l2_expect "preemption timer of 0", 52
    check_field "before an instruction", GUEST_RIP, A(l2_loop)
    vmw PREEMPTION_TIMER, 0x100000
    set_exit(EXIT_SAVE_TIMER)
    passes "before the timer", l2_vmcall
    vmr PREEMPTION_TIMER
    xor ecx, ecx
    cmp eax, 0x100000
    setbe cl
    cmp eax, 0xfff00
    seta ch
    check "the timer is saved", rcx, 0x101
    set_exit(0)
    set_pin(0)
    ; Offset and multiplier.
    set_proc(PROC_TSC_OFFSET | PROC_SECONDARY)
    mov rcx, 1 << 40
    vmw TSC_OFFSET, rcx
    passes "rdtsc with an offset", l2_rdtsc
    mov eax, [g_regs + 16]
    shr eax, 8
    check "the offset shows", rax, 1
    ; L2's counter is L1's, which L1 may have moved, times 2.5 and moved once more.
    mov rcx, 1 << 33
    call move_tsc
    set_proc(PROC_TSC_OFFSET | PROC_SECONDARY)
    set_proc2(PROC2_TSC_SCALING)
    mov rcx, 5 << 47
    vmw TSC_MULTIPLIER, rcx
    mov rcx, -(1 << 30)
    vmw TSC_OFFSET, rcx
    call scaled_tsc
    mov [want], rax
    passes "rdtsc with a multiplier", l2_rdtsc
    call scaled_tsc
    mov rdx, [g_regs + 16]
    shl rdx, 32
    mov ecx, [g_regs]
    or rdx, rcx
    xor ecx, ecx
    cmp rdx, [want]
    setae cl
    cmp rdx, rax
    setbe ch
    check "it lies between L1's, scaled", rcx, 0x101
    ; The offset of an L1 that moved its counter back is scaled like a number below zero.
    mov rcx, -(1 << 33)
    call move_tsc
    call scaled_tsc
    mov [want], rax
    passes "rdtsc behind a move back", l2_rdtsc
    mov rdx, [g_regs + 16]
    shl rdx, 32
    mov ecx, [g_regs]
    or rdx, rcx
    sub rdx, [want]
    shr rdx, 16                 ; L0 takes no time: only L1's few instructions lie between
    check "it goes on from L1's, scaled", rdx, 0
    set_proc(0)
    set_proc2(0)
    ret

; IA32_TSC += rcx.
move_tsc:
    mov rdi, rcx
    rdtsc
    shl rdx, 32
    or rax, rdx
    add rax, rdi
    mov rdx, rax
    shr rdx, 32
    mov ecx, 0x10
    wrmsr
    ret
; rax = L1's counter * 2.5 - 2^30
scaled_tsc:
    rdtsc
    shl rdx, 32
    or rax, rdx
    mov rdx, rax
    shl rax, 1
    shr rdx, 1
    add rax, rdx
    sub rax, 1 << 30
    ret

%include "vmx_l2.inc"
    end_image
