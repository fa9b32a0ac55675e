; L1's local APIC in the hands of L2: L1 intercepts nothing of it, so L2 ends L1's interrupts, lowers its
; task priority, moves its APIC, renames it and changes its mode. Then L1 has to find what L2 left.
; SDM 3A chapter 11, SDM 3C chapters 26 and 30.
%include "common.inc"
%include "irq.inc"
%include "vmx.inc"

%define MOVED 0x700000          ; RAM otherwise
%define DEFAULT_BASE 0xfee00900

%macro l2_sets_base 2           ; name, IA32_APIC_BASE
    l2_at l2_base
    mov eax, %2
    mov [g_regs + 3 * 8], rax   ; rbx
    l2_expect %1, 18
%endmacro

main:
    call pic_init
    call apic_enable
    enter_vmx
    call vmcs_fill
    set_proc(PROC_MSR_BITMAPS)  ; the bitmap is zero: nothing exits
    set_hook 0x61, irq_hook
    set_hook 0x68, irq_hook
    set_hook 0x75, irq_hook
    call service_tests
    call priority_tests
    call place_tests
    call id_tests
    call mode_tests
    jmp finish

; Without the hook's EOI an interrupt stays in service.
service_tests:
    call log_clear
    mov byte [apic_eoi], 0
    apic_write APIC_ICR, 0x40068
    sti
    nop
    cli
    check32 "68 is taken", [irq_n], 1
    apic_write APIC_ICR, 0x40061 ; has to wait for its end
    sti
    nop
    cli
    check32 "61 waits behind it", [irq_n], 1
    mov byte [apic_eoi], 1
    l2_at l2_eoi
    l2_expect "L2 ends L1's interrupt", 18
    apic_read APIC_PPR
    check32 "nothing is in service", eax, 0
    sti
    nop
    cli
    check32 "61 comes then", [irq_n], 2
    check32 "61", [irq_vec + 4], 0x61
    apic_read APIC_ISR + 0x30
    check32 "and L1 ended it", eax, 0

    ; No exiting for interrupts: L1's arrives in L2, through L2's IDT, which is L1's.
    call log_clear
    mov byte [apic_eoi], 0
    apic_write APIC_ICR, 0x40075
    l2_at l2_sti
    l2_expect "L2 takes L1's interrupt", 18
    check32 "75 is taken", [irq_n], 1
    apic_read APIC_ISR + 0x30
    check32 "75 is in service in L1", eax, 1 << 0x15
    apic_read APIC_PPR
    check32 "its class is L1's priority", eax, 0x70
    apic_write APIC_ICR, 0x40061
    sti
    nop
    cli
    check32 "61 waits in L1", [irq_n], 1
    mov byte [apic_eoi], 1
    apic_write APIC_EOI, 0
    sti
    nop
    cli
    check32 "61 follows L1's EOI", [irq_n], 2
    apic_read APIC_ISR + 0x30
    check32 "nothing is left", eax, 0
    ret

; Without a TPR shadow of its own L2's CR8 is L1's.
priority_tests:
    call log_clear
    mov eax, 9
    mov cr8, rax
    apic_write APIC_ICR, 0x40061
    sti
    nop
    cli
    check32 "held back by CR8", [irq_n], 0
    l2_at l2_cr8
    mov qword [g_regs + 8], 7   ; rcx: still above 61
    l2_expect "L2 lowers CR8", 18
    mov rax, cr8
    check "CR8 is what L2 left", rax, 7
    apic_read APIC_TPR
    check32 "and so is TPR", eax, 0x70
    sti
    nop
    cli
    check32 "still held back", [irq_n], 0
    l2_at l2_cr8
    mov qword [g_regs + 8], 5
    l2_expect "L2 lowers it further", 18
    sti
    nop
    cli
    check32 "61 comes below 6", [irq_n], 1
    mov eax, 3
    mov cr8, rax
    l2_at l2_cr8
    mov qword [g_regs + 8], 8
    l2_expect "L2 raises CR8", 18
    apic_write APIC_ICR, 0x40075
    sti
    nop
    check32 "75 waits", [irq_n], 1
    mov eax, 0
    mov cr8, rax                ; with interrupts on: at once
    nop
    cli
    check32 "75 comes", [irq_n], 2
    check32 "75", [irq_vec + 4], 0x75
    ret

%macro in_service 1             ; takes an interrupt and leaves it in service
    call log_clear
    mov byte [apic_eoi], 0
    apic_write APIC_ICR, 0x40000 + %1
    sti
    nop
    cli
    check32 "in service", [irq_n], 1
    mov byte [apic_eoi], 1
%endmacro

place_tests:
    mov dword [abs MOVED + APIC_TPR], 0x12345678
    mov eax, [abs MOVED + APIC_TPR]
    check32 "RAM", eax, 0x12345678
    apic_write APIC_TPR, 0x20
    l2_sets_base "L2 moves L1's APIC", MOVED + 0x900
    mov eax, [abs MOVED + APIC_TPR]
    check32 "the APIC covers the RAM", eax, 0x20
    apic_read APIC_TPR
    check32 "nothing is where it was", eax, 0xffffffff
    apic_write APIC_TPR, 0x70           ; goes nowhere
    mov rax, cr8
    check "no second TPR", rax, 2
    mov dword [abs MOVED + APIC_TPR], 0
    call log_clear
    mov byte [apic_eoi], 0
    mov dword [abs MOVED + APIC_ICR], 0x40068
    sti
    nop
    cli
    check32 "interrupts come from there", [irq_n], 1
    mov dword [abs MOVED + APIC_EOI], 0
    mov byte [apic_eoi], 1
    mov eax, [abs MOVED + APIC_ISR + 0x30]
    check32 "and end there", eax, 0
    wrmsr_imm MSR_APICBASE, DEFAULT_BASE
    mov eax, [abs MOVED + APIC_TPR]
    check32 "the RAM is back", eax, 0x12345678
    ; L1 itself moves it over RAM that it has just used, and L2 moves it back.
    wrmsr_imm MSR_APICBASE, MOVED + 0x900
    mov eax, [abs MOVED + APIC_VER]
    check32 "L1 moves it over RAM", eax, 0x50014
    l2_sets_base "L2 moves it back", DEFAULT_BASE
    apic_read APIC_VER
    check32 "it is where it was", eax, 0x50014
    mov eax, [abs MOVED + APIC_TPR]
    check32 "RAM again", eax, 0x12345678
    ret

id_tests:
    l2_at l2_id
    l2_expect "L2 renames L1's APIC", 18
    apic_read APIC_ID
    check32 "its ID", eax, 0x05000000
    call log_clear
    apic_write APIC_ICR2, 0x05000000
    apic_write APIC_ICR, 0x68
    sti
    nop
    cli
    check32 "it answers to its new name", [irq_n], 1
    apic_write APIC_ID, 0
    apic_read APIC_ID
    check32 "and back", eax, 0
    ret

%macro x2_read 1
    mov ecx, 0x800 + (%1 >> 4)
    rdmsr
%endmacro
%macro x2_write 2
    mov ecx, 0x800 + (%1 >> 4)
    mov eax, %2
    xor edx, edx
    wrmsr
%endmacro

mode_tests:
    in_service 0x68
    l2_sets_base "L2 turns on x2APIC mode", DEFAULT_BASE + 0x400
    apic_read APIC_VER
    check32 "no page any more", eax, 0xffffffff
    x2_read APIC_VER
    check32 "but MSRs", eax, 0x50014
    x2_read APIC_ISR + 0x30
    check32 "68 is still in service", eax, 1 << 8
    x2_read APIC_PPR
    check32 "PPR", eax, 0x60
    x2_write APIC_EOI, 0
    x2_read APIC_ISR + 0x30
    check32 "EOI by MSR", eax, 0
    x2_write APIC_TPR, 0x40
    mov rax, cr8
    check "TPR by MSR", rax, 4
    call log_clear
    mov byte [apic_eoi], 0
    x2_write 0x3f0, 0x61        ; SELF IPI
    sti
    nop
    cli
    check32 "self-IPI by MSR", [irq_n], 1
    l2_at l2_x2_eoi
    l2_expect "L2 ends it by MSR", 18
    x2_read APIC_PPR
    check32 "PPR is the TPR", eax, 0x40
    x2_write 0x3f0, 0x61
    sti
    nop
    cli
    check32 "the same again", [irq_n], 2
    x2_write APIC_EOI, 0
    x2_write APIC_TPR, 0
    mov byte [apic_eoi], 1
    try
    x2_write 0x3f0, 0x161
    endtry_fault "a self-IPI of nine bits", V_GP, 0, -1
    try
    x2_write APIC_EOI, 1
    endtry_fault "EOI takes zero only", V_GP, 0, -1
    ; Through "disabled" back to xAPIC mode.
    l2_sets_base "L2 turns it off", DEFAULT_BASE - 0x800
    apic_read APIC_VER
    check32 "off", eax, 0xffffffff
    l2_sets_base "and on", DEFAULT_BASE
    call apic_enable
    call log_clear
    apic_write APIC_ICR, 0x40068
    sti
    nop
    cli
    check32 "it works as ever", [irq_n], 1
    ret

l2_eoi: apic_write APIC_EOI, 0
    vmcall
l2_sti: sti
    nop
    cli
    vmcall
l2_cr8: mov cr8, rcx
    vmcall
l2_base: mov ecx, MSR_APICBASE
    mov eax, ebx
    xor edx, edx
    wrmsr
    vmcall
l2_id: apic_write APIC_ID, 0x05000000
    vmcall
l2_x2_eoi: mov ecx, 0x80b
    xor eax, eax
    xor edx, edx
    wrmsr
    vmcall
    end_image
