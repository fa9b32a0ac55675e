; L2 in one of many situations, for tests/matrix: the last word of the command line says in hexadecimal
; which L1 this is, what L2 does to L1's local APIC, and which event comes. L1 prints M in front of the
; entry behind which the situation is; afterwards L2 works on and L1 dumps what it can read.
; Bits 3:0 EPT, unrestricted guest, shadowing, unused; 7:4 mode; 11:8 APIC features; 15:12 event; 19:16 action.
; L2's code is assembled once and runs in 64-bit and in 32-bit mode: only encodings that mean the same.
%define WITH_BOOT_INFO
%include "common.inc"
%include "irq.inc"
%include "smm.inc"
%include "vmx.inc"

%define P_EPT 1
%define P_UNRESTRICTED 2
%define P_SHADOW 4
%define PROC2_APIC_ACCESS 1
%define PROC2_X2APIC 0x10
%define PROC2_APIC_REGISTERS 0x100
%define PROC2_VID 0x200
%define PROC2_PLE 0x400
; What L1 gives L2 of an APIC.
%define APIC_TPR 1              ; TPR shadow
%define APIC_ACCESS 2           ; and APIC accesses
%define APIC_REGISTERS 3        ; and APIC-register virtualization
%define APIC_X2 4               ; x2APIC mode with virtual-interrupt delivery
%define APIC_POSTED 5           ; APIC accesses, virtual-interrupt delivery, posted interrupts
; What comes.
%define EV_EXCEPTION 1
%define EV_NMI 2
%define EV_INTERRUPT 3
%define EV_MTF 4
%define EV_TIMER_PAST 5
%define EV_TIMER_FUTURE 6
%define EV_POSTED 7
%define EV_SMM 8
%define EV_HALT 9
%define EV_RUN_PENDING 10       ; right behind the entry
%define EV_EXITED 11            ; by an EPT violation, or a page fault where there is no EPT
%define EV_PENDING_DEBUG 12
%define EV_MWAIT 13
%define EV_INIT 14
%define EV_SMI 15
; What L2 does first to L1's own APIC.
%define ACT_BASE 1
%define ACT_X2APIC 2
%define ACT_EOI 3
%define ACT_CR8 4              ; in 64-bit mode
%define ACT_ID 5

%define NOTES 0x530000          ; L2's
%define WORD_SUM 0
%define WORD_FAULTS 0x10
%define WORD_NMIS 0x14
%define WORD_IRQS 0x18
%define WORD_VIRTUAL 0x1c
%define WORD_SMIS 0x20
%define WORD_DEBUGS 0x28
%define WORD_RESULTS 0x40
%define WORD_SS 0x60            ; what L2 loads into SS
%define LOG 0x531000            ; L1's: what each exit left, 128 bytes an exit
%define DUMP 0x534000           ; all fields, then MSRs and registers of the local APIC
%define PAE_PDPT 0x53f000
%define SMRAM_NEXT 0x34000
%define UNMAPPED 0x3ff00000     ; no EPT entry for it
%define UNMAPPED_LINEAR 0x80000000 ; no entry of L2's own tables
%define NOTIFY 0xf2
%define VECTOR 0x61             ; of L1's own interrupts
%define SERVED 0x31             ; one that is in service at L1 all the time
%define BLOCKED 0x35            ; one that waits behind it
%define VIRTUAL 0x51

%define FIELDS 512
align 8
params: dd 0
stage: dd 0
exits: dd 0
log_at: dq LOG

main:
    call read_params
    call pic_init
    call apic_enable
    set_hook V_NMI, count_hook
    set_hook VECTOR, eoi_hook
    set_hook 0x62, eoi_hook
    set_hook SERVED, no_hook
    set_hook BLOCKED, eoi_hook
    set_hook NOTIFY, eoi_hook
    lea rsi, [smi_handler]
    mov ecx, smi_handler_end - smi_handler
    call install_smi_handler
    lea rsi, [smi_handler]
    mov edi, SMRAM_NEXT + 0x8000
    mov ecx, smi_handler_end - smi_handler
    rep movsb
    send_smi                    ; moves SMBASE
    nop
    call fill_registers
    apic_write APIC_TPR, 0x10
    apic_write APIC_ICR, 0x40000 | SERVED
    sti
    nop
    cli                         ; it is in service from here on
    enter_vmx
    call fill_fields
    call vmcs_fill
    call set_kind
    mov eax, [params]
    mov [g_regs + 6 * 8], rax
    call set_entry_point        ; the first entry: L2 works and asks for the situation
.run:
    call l2_run
    call log_exit
    call take_exit
    cmp dword [stage], 4
    jb .run
    call dump
    vmxoff
    check32 "L2 came to its end", [stage], 4
    jmp finish

; The last word of the command line, in hexadecimal.
read_params:
    mov eax, [boot_info]
    mov esi, [rax + 16]
    xor ebx, ebx
.next:
    lodsb
    test al, al
    jz .end
    cmp al, ' '
    jne .digit
    xor ebx, ebx
    jmp .next
.digit:
    or al, 0x20
    sub al, '0' | 0x20
    cmp al, 9
    jbe .add
    sub al, 'a' - 10 - '0'
.add:
    movzx eax, al
    shl ebx, 4
    add ebx, eax
    jmp .next
.end:
    mov [params], ebx
    ret
%macro param 2                  ; eax = four bits of the parameters
    mov eax, [params]
    shr eax, %1
    and eax, %2
%endmacro
%define mode_of param 4, 15
%define apic_of param 8, 15
%define event_of param 12, 15
%define action_of param 16, 15

%include "l2_matrix_fill.inc"
%include "l2_matrix_kind.inc"
%include "l2_matrix_l1.inc"
%include "l2_matrix_l2.inc"
