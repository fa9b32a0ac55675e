; VMX around memory and the APIC: EPT with violations, misconfigurations, accessed and dirty flags and
; page-modification logging, EPTP switching, VMCS shadowing, virtual APIC with posted interrupts, SMM with
; L2 behind it. SDM 3C chapters 25, 26, 29, 30, 32.
%include "common.inc"
%include "irq.inc"
%include "smm.inc"
%include "vmx.inc"
%include "ept.inc"

%define NOTES 0x600000
%define F_R15 0

main:
    call pic_init
    call apic_enable
    enter_vmx
    call vmcs_fill
    call ept_fill
    call ept_tests
    call ve_tests
    call shadow_tests
    call apic_tests
    call smm_tests
    vmxoff
    jmp finish

%macro l2_reads 1
    l2_at l2_read
    l2_expect %1, 18
%endmacro

ept_tests:
    set_proc(PROC_SECONDARY)
    set_proc2(PROC2_EPT | PROC2_VPID)
    vmw VPID, 1
    vmw EPTP, EPT_PML4 | 0x1e   ; write-back, four levels
    mov qword [abs HOLE], 0x77
    l2_reads "a read through EPT"
    check "what it read", [g_regs], 0x77
    ; No derived structure shows: the entry changes and no INVEPT is made.
    mov qword [abs HOLE_ENTRY], (HOLE + 0x1000) | 0x37
    mov qword [abs HOLE + 0x1000], 0x88
    l2_reads "a read behind a changed entry"
    check "what that read", [g_regs], 0x88
    mov qword [abs HOLE_ENTRY], 0
    l2_at l2_read
    l2_expect "EPT violation", 48
    check_field "violation: address", X_GPA, HOLE
    check_field "violation: linear address", X_LINEAR, HOLE
    check_field "violation: qualification", X_QUALIFICATION, 0x181
    mov qword [abs HOLE_ENTRY], HOLE | 0x31 ; read only
    l2_at l2_write
    l2_expect "EPT violation on a write", 48
    check_field "write: qualification", X_QUALIFICATION, 0x18a
    mov qword [abs HOLE_ENTRY], HOLE | 0x32 ; write only
    l2_at l2_read
    l2_expect "EPT misconfiguration", 49
    check_field "misconfiguration: address", X_GPA, HOLE
    mov qword [abs HOLE_ENTRY], HOLE | 0x37
    l2_reads "it goes on"

    ; Accessed and dirty, and the log.
    vmw EPTP, EPT_PML4 | 0x5e
    set_proc2(PROC2_EPT | PROC2_PML)
    vmw F_PML_LOG, PML_LOG
    vmw PML_INDEX, 511
    l2_reads "a read with A/D"
    mov eax, [abs HOLE_ENTRY]
    and eax, 0x300
    check "accessed", rax, 0x100
    l2_at l2_write
    l2_expect "a write with A/D", 18
    mov eax, [abs HOLE_ENTRY]
    and eax, 0x300
    check "dirty", rax, 0x300
    xor eax, eax
    mov ecx, 511
.find:
    cmp qword [PML_LOG + rcx * 8], HOLE
    sete dl
    or al, dl
    dec ecx
    jns .find
    check "logged", rax, 1
    mov qword [abs HOLE_ENTRY], HOLE | 0x37
    vmw PML_INDEX, 0xffff
    l2_at l2_write
    l2_expect "the log is full", 62
    set_proc2(PROC2_EPT)
    vmw EPTP, EPT_PML4 | 0x1e

    ; EPTP switching.
    set_proc2(PROC2_EPT | PROC2_VMFUNC)
    vmw VM_FUNCTIONS, 1
    vmw F_EPTP_LIST, EPTP_LIST
    l2_at l2_vmfunc
    l2_expect "vmfunc", 18
    check_field "the other EPTP", EPTP, EPT2_PML4 | 0x1e
    l2_at l2_vmfunc.bad
    l2_expect "vmfunc of an entry beyond the list", 59
    set_proc2(PROC2_EPT)
    vmw EPTP, EPT_PML4 | 0x1e
    ret

; Violations that L2 gets itself, as exceptions (SDM 3C 26.5.7). The handler is L1's: it records and recovers.
%define V_VE 20
ve_tests:
    mov edi, VE_INFO
    mov ecx, 0x1000 / 8
    mov rax, -1
    rep stosq
    mov dword [abs VE_INFO + 4], 0
    vmw F_VE_INFO, VE_INFO
    vmw 0x0004, 0x123           ; EPTP index
    set_proc2(PROC2_EPT | PROC2_VE)
    mov qword [abs HOLE_ENTRY], 0
    mov qword [f_vec], V_NONE
    mov rax, A(l2_write.done)
    mov [recover_rip], rax
    mov qword [recover_rsp], L2_STACK
    l2_at l2_write
    l2_expect "behind a violation that is #VE", 18
    check "#VE", [f_vec], V_VE
    check "#VE: at the instruction", [f_rip], A(l2_write)
    check32 "#VE: reason", [abs VE_INFO], 48
    check32 "#VE: the area is in use", [abs VE_INFO + 4], -1
    check "#VE: qualification", [abs VE_INFO + 8], 0x182
    check "#VE: linear address", [abs VE_INFO + 16], HOLE
    check "#VE: guest-physical address", [abs VE_INFO + 24], HOLE
    movzx eax, word [abs VE_INFO + 32]
    check "#VE: EPTP index", rax, 0x123
    movzx eax, word [abs VE_INFO + 34]
    check "#VE: no more than that", rax, 0xffff
    l2_at l2_write
    l2_expect "a violation while the area is in use", 48
    check_field "an exit like any other", X_QUALIFICATION, 0x182
    mov dword [abs VE_INFO + 4], 0
    mov rax, 1 << 63
    mov [abs HOLE_ENTRY], rax
    l2_at l2_write
    l2_expect "a violation that suppresses #VE", 48
    check32 "the area is free", [abs VE_INFO + 4], 0
    mov qword [abs HOLE_ENTRY], 0
    vmw EXCEPTION_BITMAP, 1 << V_VE
    l2_at l2_write
    l2_expect "#VE that L1 wants", 0
    check_field "#VE that L1 wants: info", X_INTR_INFO, 0x80000314
    vmw EXCEPTION_BITMAP, 0
    ; Read-modify-write counts as a write, whatever is missing (SDM 3C 29.3.3.2).
    set_proc2(PROC2_EPT)
    l2_at l2_add
    l2_expect "read-modify-write of no page", 48
    check_field "read-modify-write: qualification", X_QUALIFICATION, 0x182
    mov qword [abs HOLE_ENTRY], HOLE | 0x31 ; read only
    l2_at l2_add
    l2_expect "read-modify-write of a page to read", 48
    check_field "read-modify-write of it: qualification", X_QUALIFICATION, 0x18a
    mov qword [abs HOLE_ENTRY], HOLE | 0x37
    mov qword [recover_rip], 0
    ret

; L2's VMREAD and VMWRITE without an exit.
shadow_tests:
    mov eax, [abs VMXON_REGION]
    or eax, 1 << 31
    mov [abs SHADOW_VMCS], eax
    vmw LINK_POINTER, SHADOW_VMCS
    vmw F_VMREAD_BITMAP, VMREAD_BITMAP
    vmw F_VMWRITE_BITMAP, VMWRITE_BITMAP
    set_proc2(PROC2_EPT | PROC2_SHADOW)
    l2_at l2_shadow
    l2_expect "vmwrite and vmread of a shadow VMCS", 18
    check "what came back", [g_regs], 0x4321
    ; A memory operand, of which L0 finds out that L1 or L2 has to do something first.
    mov qword [abs HOLE_ENTRY], 0
    l2_at l2_shadow_memory
    l2_expect "vmread to a page that EPT does not map", 48
    check_field "its qualification", X_QUALIFICATION, 0x182
    check_field "its address", X_GPA, HOLE
    check_field "at the instruction", GUEST_RIP, A(l2_shadow_memory.at)
    mov qword [abs HOLE_ENTRY], HOLE | 0x37
    l2_expect "it goes on", 18
    check "what came there", [abs HOLE], 0x4321
    vmw EXCEPTION_BITMAP, 1 << V_PF
    l2_at l2_shadow_fault
    l2_expect "vmread to a page that L2 does not map", 0
    check_field "#PF: info", X_INTR_INFO, 0x80000b0e
    check_field "#PF: error", X_INTR_ERROR, 2
    mov rcx, 0xffff800000000000
    check_field "#PF: address", X_QUALIFICATION, rcx
    vmw EXCEPTION_BITMAP, 0
    mov byte [abs VMREAD_BITMAP + GUEST_RIP / 8], 1 << (GUEST_RIP & 7)
    l2_at l2_shadow
    l2_expect "vmread by the bitmap", 23
    mov byte [abs VMREAD_BITMAP + GUEST_RIP / 8], 0
    vmw LINK_POINTER, -1
    set_proc2(PROC2_EPT)
    ret

; TPR shadow, virtual-interrupt delivery, posted interrupts.
%define PROC2_APIC_REGISTERS 0x100
%define PROC2_VID 0x200
%define PROC2_X2APIC 0x10
apic_tests:
    vmw F_VAPIC, VAPIC
    vmw TPR_THRESHOLD, 0
    set_proc(PROC_TPR_SHADOW | PROC_SECONDARY)
    mov dword [abs VAPIC + 0x80], 0x50
    l2_at l2_cr8
    l2_expect "CR8 with a TPR shadow", 18
    check "CR8 is the virtual TPR", [g_regs], 5
    check32 "and was written", [abs VAPIC + 0x80], 0x30
    vmw TPR_THRESHOLD, 3
    l2_at l2_cr8.lower
    l2_expect "TPR below threshold", 43
    vmw TPR_THRESHOLD, 0
    mov dword [abs VAPIC + 0x80], 0
    ; A virtual interrupt waits, is delivered and ends in a virtual EOI.
    set_pin(PIN_INTR)
    set_proc2(PROC2_EPT | PROC2_APIC_REGISTERS | PROC2_VID | PROC2_X2APIC)
    set_proc(PROC_TPR_SHADOW | PROC_SECONDARY | PROC_MSR_BITMAPS)
    mov dword [abs VAPIC + 0x200 + 0x20], 1 << 17 ; IRR: vector 0x51
    vmw GUEST_INTR_STATUS, 0x51
    set_hook 0x51, l2_handler
    mov qword [g_regs + 15 * 8], 0
    l2_at l2_interrupts
    l2_expect "a virtual interrupt", 18
    check "its handler ran", [g_regs + 15 * 8], 0x100
    check_field "RVI and SVI", GUEST_INTR_STATUS, 0
    ; Posted.
    set_pin(PIN_INTR | PIN_POSTED)
    set_exit(EXIT_ACK)
    vmw POSTED_VECTOR, 0xf2
    vmw F_PI_DESC, PI_DESC
    mov qword [abs PI_DESC + 0x51 / 64 * 8], 1 << (0x51 & 63)
    mov byte [abs PI_DESC + 32], 1
    apic_write 0x300, 0x400f2   ; self: the notification vector
    mov qword [g_regs + 15 * 8], 0
    l2_at l2_interrupts
    l2_expect "a posted interrupt", 18
    check "was delivered", [g_regs + 15 * 8], 0x100
    check "the notification is cleared", [abs PI_DESC + 32], 0
    set_hook 0x51, 0
    set_exit(0)
    set_pin(0)
    set_proc(PROC_SECONDARY)
    set_proc2(PROC2_EPT)
    ret

; An SMI in L2: the handler runs outside VMX operation, RSM goes back to L2.
smm_tests:
    mov dword [abs NOTES], 0
    lea rsi, [smi_handler]
    mov ecx, smi_handler_end - smi_handler
    call install_smi_handler
    l2_at l2_smi
    l2_expect "back in L2 behind the SMI", 18
    check32 "the handler ran", [abs NOTES], 1
    checkm "without CR4.VMXE", [abs NOTES + 4], 0x2000, 0
    check "L2 kept its registers", [g_regs + 15 * 8], 0x5a5a
    ret

; --- L2 ---------------------------------------------------------------------------------------------
l2_read:
    mov rax, [abs HOLE]
    vmcall
l2_write:
    mov qword [abs HOLE], 0x99
.done:
    vmcall
l2_add:
    lock add qword [abs HOLE], 1
    vmcall
l2_vmfunc:
    xor eax, eax
    mov ecx, 1
    vmfunc
    vmcall
.bad:
    xor eax, eax
    mov ecx, 512
    vmfunc
    vmcall
l2_shadow:
    mov edx, GUEST_RIP
    mov ecx, 0x4321
    vmwrite rdx, rcx
    vmread rax, rdx
    vmcall
l2_shadow_memory:
    mov edx, GUEST_RIP
.at:
    vmread [abs HOLE], rdx
    vmcall
l2_shadow_fault:
    mov rax, 0xffff800000000000
    mov edx, GUEST_RIP
    vmread [rax], rdx
    vmcall
l2_cr8:
    mov rax, cr8
    mov ecx, 3
    mov cr8, rcx
    vmcall
.lower:
    mov ecx, 2
    mov cr8, rcx
    vmcall
l2_interrupts:
    sti
    nop
    cli
    vmcall
l2_handler:                     ; rdi = frame; the interrupted R15 is changed through a global
    mov ecx, 0x80b              ; EOI
    xor eax, eax
    xor edx, edx
    wrmsr
    mov qword [rdi + F_R15], 0x100
    ret
l2_smi:
    mov r15d, 0x5a5a
    send_smi
    nop
    nop
    vmcall

bits 16
align 16
smi_handler:
    push eax
    push ecx
    mov ecx, NOTES
    inc dword [ecx]
    mov eax, cr4
    mov [ecx + 4], eax
    pop ecx
    pop eax
    rsm
smi_handler_end:
bits 64
    end_image
