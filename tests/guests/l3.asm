; A small hypervisor that may be a guest itself: as L2 under an L1's KVM its guest is an L3. Only what every
; implementation of VMX for guests has: exits, EPT, injection, interrupts, and a long computation.
%include "common.inc"
%include "irq.inc"
%include "vmx.inc"
%include "ept.inc"

%define ROUNDS 1000             ; with an exit between them
%define STEPS 100000            ; in each

main:
    call apic_enable
    enter_vmx
    call vmcs_fill
    mov qword [g_regs], 1
    l2_at l3_cpuid
    l2_expect "cpuid exits", 10
    check_field "cpuid: length", X_LENGTH, 2
    call skip_instruction
    l2_expect "vmcall exits", 18
    check "its registers", [g_regs + 15 * 8], 0x77

    ; Second-level translation.
    call ept_fill
    set_proc2(PROC2_EPT)
    vmw EPTP, EPT_PML4 | 0x1e
    mov qword [abs HOLE], 0x1234
    mov qword [abs HOLE_ENTRY], 0
    call invept_all
    l2_at l3_read
    l2_expect "EPT violation", 48
    check_field "violation: address", X_GPA, HOLE
    mov qword [abs HOLE_ENTRY], HOLE | 0x37
    l2_expect "it goes on", 18
    check "what it read", [g_regs], 0x1234

    ; Injection, and an interrupt for the hypervisor.
    vmw ENTRY_INFO, 0x80000306
    mov qword [f_vec], V_NONE
    mov rax, A(l3_call)
    mov [recover_rip], rax
    mov qword [recover_rsp], L2_STACK
    l2_at l3_call
    l2_expect "after an injected #UD", 18
    mov qword [recover_rip], 0
    check "injected #UD arrived", [f_vec], V_UD
    set_pin(PIN_INTR)
    set_exit(EXIT_ACK)
    apic_write 0x300, 0x40060   ; self, vector 0x60
    l2_at l3_loop
    l2_expect "external interrupt", 1
    check_field "acknowledged", X_INTR_INFO, 0x80000060
    apic_write APIC_EOI, 0
    set_exit(0)
    set_pin(0)

    ; A linear congruential generator.
    mov qword [g_regs], 1
    l2_at l3_generator
    mov ebx, ROUNDS
.next:
    call l2_run
    cmp qword [x_reason], 18
    jne .done
    call skip_instruction
    dec ebx
    jnz .next
.done:
    check "every round exited", rbx, 0
    mov eax, 1
    mov ecx, ROUNDS * STEPS
.step:
    imul eax, eax, 1664525
    add eax, 1013904223
    dec ecx
    jnz .step
    check "the generator's value", [g_regs], rax
    vmxoff
    jmp finish

invept_all:
    mov qword [pointer], 0
    mov qword [pointer + 8], 0
    mov eax, 2
    invept rax, [pointer]
    ret

; --- L3 ---------------------------------------------------------------------------------------------
l3_cpuid:
    mov r15d, 0x77
    cpuid
l3_call:
    vmcall
l3_read:
    mov rax, [abs HOLE]
    vmcall
l3_loop: jmp l3_loop
l3_generator:
    mov ecx, STEPS
.step:
    imul eax, eax, 1664525
    add eax, 1013904223
    dec ecx
    jnz .step
    vmcall
    jmp l3_generator
    end_image
