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
    call vmx_on
    vmptr vmclear, VMCS_A
    vmptr vmptrld, VMCS_A
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

; Something in every register that a machine keeps.
fill_registers:
    or_cr4 1 << 18 | 1 << 22    ; OSXSAVE, PKE
    mov eax, 7
    xor edx, edx
    xor ecx, ecx
    xsetbv
    lea rsi, [msr_table]
.msr:
    mov ecx, [rsi]
    cmp ecx, -1
    je .vectors
    mov eax, [rsi + 4]
    mov edx, [rsi + 8]
    wrmsr
    add rsi, 12
    jmp .msr
.vectors:
    xor ecx, ecx
    mov eax, 0x55555550
    xor edx, edx
    wrpkru
%assign i 0
%rep 16
    mov eax, 0x01010101 * (i + 1)
    vmovd xmm%+i, eax
    vpshufd xmm%+i, xmm%+i, 0
    vinsertf128 ymm%+i, ymm%+i, xmm%+i, 1
%assign i i + 1
%endrep
    push qword 0x1f00
    ldmxcsr [rsp]
    push qword 0x27f
    fldcw [rsp]
    add rsp, 16
    push qword 5
    fild qword [rsp]            ; leaves a data pointer
    pop rax
    fldpi
    fldl2e
    fld1
    fldln2
    fldlg2
    fldpi
    mov eax, 0x1000
    mov dr0, rax
    mov eax, NOTES + WORD_SS
    mov dr1, rax
    mov eax, 0x1008
    mov dr2, rax
    mov eax, 0x100c
    mov dr3, rax
    mov eax, 0xffff0ff1
    mov dr6, rax
    mov eax, 0x12345678
    mov cr2, rax
%assign i 0
%rep 16
    mov dword [g_regs + i * 8], 0x11111111 * (i % 15) + 0x01234567
%assign i i + 1
%endrep
    apic_write APIC_TDCR, 0xb
    apic_write APIC_LVTT, 0x10062
    apic_write APIC_TMICT, 0x700000
    apic_write APIC_ESR, 0
    apic_write APIC_ICR, 0x40005 ; an error that nobody has looked at
    test dword [params], P_SHADOW
    jz .end
    apic_write APIC_LVTT, 0x50062
    mov ecx, 0x6e0              ; IA32_TSC_DEADLINE
    mov eax, 0x40000000
    xor edx, edx
    wrmsr
.end:
    mov dword [abs NOTES + WORD_SS], KDS
    ret

%macro msr_is 2
    dd %1
    dq %2
%endmacro
align 4
msr_table:
    msr_is 0x3b, 0x12340        ; IA32_TSC_ADJUST
    msr_is 0x174, 0x08
    msr_is 0x175, 0x2ff000
    msr_is 0x176, 0x110000
    msr_is 0x277, 0x0007040100070406 ; PAT
    msr_is 0xc0000081, 0x001b000800000000
    msr_is 0xc0000082, 0x120000
    msr_is 0xc0000083, 0x121000
    msr_is 0xc0000084, 0x47700
    msr_is 0xc0000102, 0x123000
    msr_is 0xc0000103, 5
    msr_is 0x1d9, 1             ; IA32_DEBUGCTL
    msr_is 0x1a0, 0x40889
    msr_is 0x17a, 1
    msr_is 0x17b, 5
    msr_is 0x400, 3
    msr_is 0x2ff, 0xc00         ; memory types
    msr_is 0x200, 0x80000006
    msr_is 0x201, 0x3fff80000800
    msr_is 0x250, 0x0606060606060606
    msr_is 0x186, 0x4300c0      ; retired instructions
    msr_is 0xc1, 0xffffff00     ; overflows soon
    msr_is 0x187, 0x4100c0
    msr_is 0xc2, 0x200
    msr_is 0x309, 0x300
    msr_is 0x38d, 0x3
    msr_is 0x38f, 0x100000003
    dd -1

; Every field that can be written gets a value of its own; what has to be valid comes after.
fill_fields:
    xor r8d, r8d
.next:
    call field_of
    mov eax, edx
    mov ecx, 0x01010101
    imul rax, rcx
    or al, 1
    vmwrite rdx, rax            ; no such field: no harm
    inc r8d
    cmp r8d, FIELDS
    jb .next
    ret

; edx = the encoding number r8d, by width, type and index. ecx lost.
field_of:
    mov edx, r8d
    and edx, 31
    shl edx, 1
    mov ecx, r8d
    and ecx, 3 << 5
    shl ecx, 5
    or edx, ecx
    mov ecx, r8d
    and ecx, 3 << 7
    shl ecx, 6
    or edx, ecx
    ret

; The VMCS of the L1 that the parameters ask for. L2 stands at its start.
set_kind:
    call ept_fill
    call pae_fill
    vmw VPID, 1
    vmw EPTP, EPT_PML4 | 0x5e
    vmw F_PML_LOG, PML_LOG
    vmw PML_INDEX, 511
    vmw F_VAPIC, VAPIC
    vmw F_APIC_ACCESS, APIC_PAGE
    vmw F_PI_DESC, PI_DESC
    vmw POSTED_VECTOR, NOTIFY
    vmw F_VMREAD_BITMAP, VMREAD_BITMAP
    vmw F_VMWRITE_BITMAP, VMWRITE_BITMAP
    vmw GUEST_INTR_STATUS, 0
    vmw TSC_OFFSET, 0x5000
    mov rcx, 0x0007040600070106
    vmw 0x2804, rcx             ; guest PAT
    mov rcx, 0x0007040600070406
    vmw 0x2c00, rcx             ; host PAT
    vmw 0x2802, 1               ; guest IA32_DEBUGCTL
    vmw 0x2808, 0x3             ; guest IA32_PERF_GLOBAL_CTRL
    mov rcx, 0x100000003
    vmw 0x2c04, rcx             ; host's
    vmw 0x482a, 0x10            ; guest SYSENTER
    vmw 0x6824, 0x124000
    vmw 0x6826, 0x125000
    vmw 0x4c00, 0x18            ; host SYSENTER
    vmw 0x6c10, 0x126000
    vmw 0x6c12, 0x127000
    vmw HOST_EFER, 0xd01
    vmw 0x6c06, 0x12b000        ; host FS and GS
    vmw 0x6c08, 0x12c000
    vmw 0x0c08, KDS
    vmw 0x0c0a, KDS
    vmw 0x0808, KDS             ; L2's FS, GS, ES, LDTR
    vmw 0x080a, KDS
    vmw 0x6806, 0x12e000
    vmw 0x080c, FREE_SEL
    vmw 0x6812, 0x12d000
    vmw 0x4820, 0x82
    vmw 0x681a, 0x700408        ; DR7: reads and writes of WORD_SS
    vmw EXCEPTION_BITMAP, 1 << V_UD
    vmw PF_MASK, 1
    vmw PF_MATCH, 1
    vmw CR0_MASK, 0x20
    vmw CR4_MASK, 0x2000
    vmw 0x400a, 1               ; CR3 targets
    vmw EXIT_STORE_ADDR, MSR_LISTS
    vmw EXIT_STORE_COUNT, 2
    vmw EXIT_LOAD_ADDR, MSR_LISTS + 0x100
    vmw EXIT_LOAD_COUNT, 1
    vmw ENTRY_LOAD_ADDR, MSR_LISTS + 0x200
    vmw ENTRY_LOAD_COUNT, 1
    mov dword [abs MSR_LISTS], 0x10
    mov dword [abs MSR_LISTS + 0x10], 0xc0000102
    mov dword [abs MSR_LISTS + 0x100], 0xc0000102
    mov dword [abs MSR_LISTS + 0x108], 0x123400
    mov dword [abs MSR_LISTS + 0x200], 0xc0000102
    mov dword [abs MSR_LISTS + 0x208], 0x123800
    vmw 0x6818, A(l2_idt64)
    vmw 0x4812, 0xfff
    vmw 0x6814, 0x128000        ; guest TR base
    vmw 0x680e, 0x129000        ; guest FS base
    vmw 0x6810, 0x12a000
    call set_mode
    call set_apic
    ret

; Identity map of the first GiB with 2 MiB pages, RWX, write-back; the local APIC in a page of 1 GiB.
ept_fill:
    mov qword [abs EPT_PML4], EPT_PDPT | 7
    mov qword [abs EPT_PDPT], EPT_PD | 7
    mov edi, EPT_PD
    mov rax, 0xb7
    mov ecx, 512
.next:
    mov [rdi], rax
    add rax, 0x200000
    add rdi, 8
    dec ecx
    jnz .next
    mov eax, 0xc0000087
    mov [abs EPT_PDPT + 24], rax
    mov qword [abs EPT_PD + (UNMAPPED >> 21) * 8], 0
    ret
pae_fill:
    mov qword [abs PAE_PDPT], PT_BASE + 0x2000 + 1
    mov qword [abs PAE_PDPT + 8], PT_BASE + 0x2000 + 1
    mov qword [abs PAE_PDPT + 24], PT_BASE + 0x4000 + 1
    ret

; Long mode, PAE paging, or protected mode without paging.
set_mode:
    mode_of
    test eax, eax
    jnz .mode32
    set_entry(0xe204)
    vmw GUEST_EFER, 0xd01
    ret
.mode32:
    set_entry(0xe004)
    vmw 0x0802, KCS32
    vmw GUEST_CS_RIGHTS, 0xc09b
    vmw 0x6818, A(l2_idt32)
    vmw GUEST_EFER, 0x801
    vmw GUEST_CR3, PAE_PDPT
    vmw 0x280a, PT_BASE + 0x2000 + 1
    vmw 0x280c, PT_BASE + 0x2000 + 1
    vmw 0x280e, 0
    vmw 0x2810, PT_BASE + 0x4000 + 1
    mode_of
    cmp eax, 1
    je .end
    mov rcx, cr0
    and ecx, 0x7fffffff
    vmw GUEST_CR0, rcx
.end:
    ret

; Controls, with what L1 gives of an APIC.
set_apic:
    mov ebx, PROC2_VPID | PROC2_PLE
    mov eax, [params]
    test eax, P_EPT
    jz .unrestricted
    or ebx, PROC2_EPT | PROC2_PML
.unrestricted:
    test eax, P_UNRESTRICTED
    jz .shadow
    or ebx, PROC2_UNRESTRICTED
.shadow:
    test eax, P_SHADOW
    jz .apic
    or ebx, PROC2_SHADOW
    mov eax, [abs VMXON_REGION]
    or eax, 1 << 31
    mov [abs SHADOW_VMCS], eax
    vmw LINK_POINTER, SHADOW_VMCS
.apic:
    mov ebp, PROC_SECONDARY | PROC_MSR_BITMAPS | PROC_TSC_OFFSET
    mov r12d, 0
    apic_of
    test eax, eax
    jz .write
    or ebp, PROC_TPR_SHADOW
    mov r12d, PIN_INTR | PIN_NMI
    cmp eax, APIC_TPR
    je .write
    cmp eax, APIC_X2
    je .x2
    or ebx, PROC2_APIC_ACCESS
    cmp eax, APIC_ACCESS
    je .write
    or ebx, PROC2_APIC_REGISTERS
    cmp eax, APIC_REGISTERS
    je .virtual_nmis
    or ebx, PROC2_VID
    or r12d, PIN_POSTED
    or dword [exit], EXIT_ACK
    jmp .interrupt
.virtual_nmis:
    or r12d, PIN_VNMI
    jmp .write
.x2:
    or ebx, PROC2_X2APIC | PROC2_APIC_REGISTERS | PROC2_VID
.interrupt:
    mov dword [abs VAPIC + 0x200 + VIRTUAL / 32 * 16], 1 << (VIRTUAL & 31)
    vmw GUEST_INTR_STATUS, VIRTUAL
    vmw EOI_BITMAP_0, 0
    vmw EOI_BITMAP_0 + 2, 0
    vmw EOI_BITMAP_0 + 4, 0
    vmw EOI_BITMAP_0 + 6, 0
.write:
    mov dword [abs VAPIC + 0x80], 0x20
    mov dword [abs VAPIC + 0x30], 0x50014
    mov [pin], r12d
    mov [proc], ebp
    mov ecx, [exit]
    controls EXIT_CONTROLS, 0x48f, ecx
    set_pin(r12d)
    set_proc(ebp)
    set_proc2(ebx)
    ret
align 4
pin: dd 0
proc: dd 0
exit: dd 0x3c1204               ; save and load debug controls, PAT, EFER, IA32_PERF_GLOBAL_CTRL

set_entry_point:
    vmw GUEST_RIP, A(l2_main)
    ret

; What the exit left, for the log.
log_exit:
    inc dword [exits]
    mov rdi, [log_at]
%macro log_field 1
    vmr %1
    mov [rdi], rax
    add rdi, 8
%endmacro
    log_field X_ERROR
    log_field X_REASON
    log_field X_QUALIFICATION
    log_field X_INTR_INFO
    log_field X_IDT_INFO
    log_field GUEST_RIP
    log_field GUEST_INTR_STATUS
    log_field GUEST_RFLAGS
    log_field INTERRUPTIBILITY
    log_field X_INTR_ERROR
    log_field X_LENGTH
    log_field X_GPA
    log_field X_LINEAR
    mov rax, [abs MSR_LISTS + 0x18] ; what the list stored
    mov [rdi], rax
    add rdi, 24
    cmp rdi, LOG + 0x2000
    jb .end
    mov rdi, LOG
.end:
    mov [log_at], rdi
    ret

; Does what the exit asks for.
take_exit:
    mov eax, [x_reason]
    cmp eax, 18
    je .vmcall
    cmp eax, 1
    je .interrupt
    cmp eax, 0
    je .nmi
    cmp eax, 37
    je .trap
    cmp eax, 52
    je .timer
    cmp eax, 43
    je .threshold
    cmp eax, 56                 ; APIC write
    je .end
    cmp eax, 3                  ; INIT
    je .end
    cmp eax, 48
    je .violation
    mov zsi, A(.text)
    call puts
    mov eax, [x_reason]
    call put_hex
    inc dword [n_fail]
    jmp finish
.text: db "FAIL exit ", 0
.interrupt:
    vmw ACTIVITY, 0             ; HLT is over
    vmr X_INTR_INFO
    bt eax, 31
    jc .acknowledged
    sti
    nop
    cli
    ret
.acknowledged:
    mov ecx, 0xb0
    xor eax, eax
    jmp apic_store
.nmi:
    vmr X_INTR_INFO
    and eax, 0x700
    cmp eax, 0x300
    je .violation
    mov eax, ss                 ; IRET ends the blocking of NMIs
    mov rcx, rsp
    push rax
    push rcx
    pushfq
    push KCS64
    push A(.end)
    iretq
.trap:
    mov ecx, [proc]
    set_proc(ecx)
    ret
.timer:
    mov ecx, [pin]
    set_pin(ecx)
    mov ecx, [exit]
    controls EXIT_CONTROLS, 0x48f, ecx
    ret
.threshold:
    vmw TPR_THRESHOLD, 0
    ret
.violation:
    vmw GUEST_RIP, A(l2_event)
    ret
.vmcall:
    call skip_instruction
    inc dword [stage]
    cmp dword [stage], 1
    je situation
.end:
    ret

; L2 asked for it: the next entry is the one.
situation:
    event_of
    cmp eax, EV_EXCEPTION
    je .exception
    cmp eax, EV_MTF
    je .trap
    cmp eax, EV_TIMER_PAST
    je .past
    cmp eax, EV_TIMER_FUTURE
    je .future
    cmp eax, EV_RUN_PENDING
    je .pending
    cmp eax, EV_HALT
    je .halt
    cmp eax, EV_MWAIT
    je .halt
    cmp eax, EV_EXITED
    je .exited
    cmp eax, EV_INTERRUPT
    jne .action
    vmw INTERRUPTIBILITY, 8     ; and NMIs are blocked
.action:
    call set_action
    mov al, 'M'
    call putc
    mov al, 10
    jmp putc
.pending:
    apic_of
    cmp eax, APIC_ACCESS
    jne .action
    vmw TPR_THRESHOLD, 3        ; the entry ends in an exit at once
    jmp .action
.halt:
    apic_write APIC_LVTT, 0x62
    apic_write APIC_TMICT, 0x200
    jmp .action
.exception:
    mode_of
    cmp eax, 1
    je .software
    vmw ENTRY_INFO, 0x80000b0d  ; #GP
    vmw ENTRY_ERROR, 0x18
    jmp .action
.software:
    vmw ENTRY_INFO, 0x80000603  ; #BP
    vmw ENTRY_LENGTH, 1
    vmw GUEST_RIP, A(l2_acts.breakpoint)
    jmp .action
.exited:
    vmw INTERRUPTIBILITY, 8
    mov ecx, UNMAPPED
    test dword [params], P_EPT
    jnz .address
    mov ecx, UNMAPPED_LINEAR
.address:
    mov [g_regs + 7 * 8], rcx
    vmw GUEST_RIP, A(l2_acts.store)
    mov al, 'M'
    call putc
    mov al, 10
    jmp putc
.trap:
    mov ecx, [proc]
    or ecx, PROC_MTF
    set_proc(ecx)
    jmp .action
.past:
    vmw PREEMPTION_TIMER, 1
    jmp .arm
.future:
    vmw PREEMPTION_TIMER, 0x40
.arm:
    mov ecx, [pin]
    or ecx, PIN_TIMER
    set_pin(ecx)
    mov ecx, [exit]
    or ecx, EXIT_SAVE_TIMER
    controls EXIT_CONTROLS, 0x48f, ecx
    jmp .action

; L2's first instruction changes L1's APIC.
set_action:
    action_of
    cmp eax, ACT_BASE
    je .base
    cmp eax, ACT_X2APIC
    je .x2apic
    cmp eax, ACT_EOI
    je .eoi
    cmp eax, ACT_CR8
    je .cr8
    cmp eax, ACT_ID
    je .id
    ret
.base:
    mov dword [g_regs], 0xfed80000 | 0x900
    jmp .msr
.x2apic:
    mov dword [g_regs], 0xfee00000 | 0xd00
.msr:
    mov dword [g_regs + 8], MSR_APICBASE
    mov dword [g_regs + 16], 0
    vmw GUEST_RIP, A(l2_acts.msr)
    ret
.eoi:
    mov dword [g_regs], 0
    mov dword [g_regs + 7 * 8], 0xfee000b0
    jmp .store
.cr8:
    apic_write APIC_ICR, 0x40000 | BLOCKED ; waits behind SERVED, so the threshold matters
    mov dword [g_regs], 4
    vmw GUEST_RIP, A(l2_acts.cr8)
    ret
.id:
    mov dword [g_regs], 0x05000000
    mov dword [g_regs + 7 * 8], 0xfee00020
.store:
    vmw GUEST_RIP, A(l2_acts.store)
    ret

; All that L1 can read, once L2 is done.
dump:
    mov rdi, DUMP
    xor r8d, r8d
.field:
    call field_of
    vmread rax, rdx
    jbe .next                   ; no such field
    stosq
.next:
    inc r8d
    cmp r8d, FIELDS
    jb .field
    lea rsi, [dump_table]
.msr:
    mov ecx, [rsi]
    cmp ecx, -1
    je .apic
    rdmsr
    stosd
    mov eax, edx
    stosd
    add rsi, 4
    jmp .msr
.apic:
    mov ecx, 0x20
.register:
    call apic_load
    stosd
    add ecx, 0x10
    cmp ecx, 0x400
    jne .register
    ret
align 4
dump_table:
    dd 0x10, 0x1b, 0x3b, 0x174, 0x175, 0x176, 0x277, 0xc0000081, 0xc0000082, 0xc0000083, 0xc0000084
    dd 0xc0000100, 0xc0000101, 0xc0000102, 0xc0000103, 0x1d9, 0x2ff, 0x200, 0x201, 0x250, 0x186, 0xc1
    dd 0xc2, 0x309, 0x38d, 0x38e, 0x38f, -1

; eax = register ecx of L1's APIC, 0 where x2APIC mode has none. rdx lost.
apic_load:
    push rcx
    mov ecx, MSR_APICBASE
    rdmsr
    test eax, 0x400
    jnz .x2apic
    and eax, ~0xfff
    mov ecx, [rsp]
    add rax, rcx
    mov eax, [rax]
    pop rcx
    ret
.x2apic:
    mov ecx, [rsp]
    shr ecx, 4
    xor eax, eax
    cmp ecx, 0x31               ; the registers that exist in both modes and read without #GP
    je .end
    cmp ecx, 0x0c
    je .end
    cmp ecx, 0x09
    je .end
    cmp ecx, 0x0b
    je .end
    cmp ecx, 0x0e
    je .end
    cmp ecx, 0x3e
    jae .end
    cmp ecx, 0x04
    jb .read
    cmp ecx, 0x08
    jb .end
    cmp ecx, 0x29
    jb .read
    cmp ecx, 0x30
    jb .end
    cmp ecx, 0x3a
    jb .read
    cmp ecx, 0x3e
    jb .end
.read:
    add ecx, 0x800
    rdmsr
.end:
    pop rcx
    ret

eoi_hook:
    mov ecx, 0xb0
    xor eax, eax
    call apic_store
count_hook:
    inc dword [irq_n]
no_hook:
    ret

; --- L2 ---------------------------------------------------------------------------------------------
; esi = parameters, ebp = its notes. Only encodings that 32-bit and 64-bit mode share.
l2_main:
    mov ebp, NOTES
    call l2_work
    vmcall
    jmp l2_event
l2_acts:
.msr:
    wrmsr
    jmp l2_event
.cr8:
    mov cr8, rax
    jmp l2_event
.store:
    mov [rdi], eax
    jmp l2_event
.breakpoint:
    int3                        ; is injected
l2_event:
    mov eax, esi
    and eax, 0x1000
    shl eax, 19
    or esi, eax                 ; half of the events end a part of the work
    mov eax, esi
    shr eax, 12
    and eax, 15
    cmp eax, EV_NMI
    je .nmi
    cmp eax, EV_INTERRUPT
    je .interrupt
    cmp eax, EV_POSTED
    je .posted
    cmp eax, EV_SMM
    je .smi
    cmp eax, EV_SMI
    je .smi
    cmp eax, EV_INIT
    je .init
    cmp eax, EV_PENDING_DEBUG
    je .debug
    cmp eax, EV_MWAIT
    je .mwait
    cmp eax, EV_HALT
    je .halt
    jmp .after
.nmi:
    mov eax, 0x4400
    call apic_send
    jmp .after
.smi:
    mov eax, 0x4200
    call apic_send
    jmp .after
.init:
    mov eax, 0x4500
    call apic_send
    jmp .after
.debug:
    mov ss, [rbp + WORD_SS]     ; the breakpoint waits
    nop
    jmp .after
.mwait:
    mov eax, NOTES
    xor ecx, ecx
    xor edx, edx
    monitor
    sti
    mwait
    cli
    jmp .after
.interrupt:
    mov eax, 0x40000 | VECTOR
    mov ecx, 0x300
    call apic_store
    jmp .after
.posted:
    mov edi, PI_DESC
    mov eax, 1 << (VIRTUAL & 31)
    mov [rdi + VIRTUAL / 32 * 4], eax
    mov eax, 1
    mov [rdi + 32], eax
    mov eax, 0x40000 | NOTIFY
    mov ecx, 0x300
    call apic_store
    jmp .after
.halt:
    sti
    hlt
    cli
.after:
    mov ecx, 6
.loop:
    push rcx
    call l2_work
    sti
    nop
    nop
    cli
    pop rcx
    sub ecx, 1
    jnz .loop
    vmcall
    call l2_work
    vmcall
    call l2_work
    vmcall
    jmp l2_main

; Sums, the vector unit, the time-stamp counter, and the APIC that L1 gives. eax, ecx, edx, edi lost.
l2_work:
    mov ecx, 40
.turn:
    imul eax, eax, 0x41c64e6d
    add eax, 12345
    add [rbp + WORD_SUM], eax
    sub ecx, 1
    jnz .turn
    paddd xmm0, xmm1
    pshufd xmm1, xmm0, 0x39
    test esi, esi
    js .clock
    fxch st0, st1
    fadd st0, st2
    pause
.clock:
    rdtsc
    add [rbp + WORD_RESULTS], eax
    mov eax, esi
    and eax, P_SHADOW
    jz .apic
    mov edx, GUEST_RIP
    mov eax, [rbp + WORD_SUM]
    vmwrite rdx, rax
    vmread rcx, rdx
    add [rbp + WORD_RESULTS + 4], ecx
.apic:
    mov eax, esi
    shr eax, 8
    and eax, 15
    cmp eax, APIC_ACCESS
    jb .end
    cmp eax, APIC_X2
    je .x2
    mov edi, APIC_PAGE
    mov eax, [rdi + 0x80]
    add [rbp + WORD_RESULTS + 8], eax
    xor eax, 0x30
    mov [rdi + 0x80], eax
    ret
.x2:
    mov ecx, 0x808
    rdmsr
    add [rbp + WORD_RESULTS + 12], eax
    mov ecx, 0x808
    xor eax, 0x30
    wrmsr
    mov ecx, 0x83f              ; a virtual interrupt to itself
    mov eax, VIRTUAL
    wrmsr
.end:
    ret

; To this processor itself: eax = the command. Shared by L1 and L2; rax, rcx, rdx, rdi lost.
apic_send:
    push rax
    mov ecx, MSR_APICBASE
    rdmsr
    test eax, 0x400
    jnz .x2apic
    and eax, 0xfffff000
    mov edi, eax
    mov eax, [rdi + APIC_ID]
    mov [rdi + APIC_ICR2], eax
    pop rax
    mov [rdi + APIC_ICR], eax
    ret
.x2apic:
    mov ecx, 0x802
    rdmsr
    mov edx, eax
    mov ecx, 0x830
    pop rax
    wrmsr
    ret
; Register ecx of L1's APIC = eax, in whichever mode it is.
apic_store:
    push rax
    push rcx
    mov ecx, MSR_APICBASE
    rdmsr
    test eax, 0x400
    jnz .x2apic
    and eax, 0xfffff000
    mov edi, eax
    pop rcx
    add edi, ecx
    pop rax
    mov [rdi], eax
    ret
.x2apic:
    pop rcx
    shr ecx, 4
    add ecx, 0x800
    pop rax
    xor edx, edx
    wrmsr
    ret

; L2's handlers, once for each width.
%macro l2_handlers 1
bits %1
l2_fault%1:
    add dword [abs NOTES + WORD_FAULTS], 1
  %if %1 == 64
    add rsp, 8
    iretq
  %else
    add esp, 4
    iretd
  %endif
l2_debug%1:
    add dword [abs NOTES + WORD_DEBUGS], 1
  %if %1 == 64
    iretq
  %else
    iretd
  %endif
l2_nmi%1:
    add dword [abs NOTES + WORD_NMIS], 1
  %if %1 == 64
    iretq
  %else
    iretd
  %endif
l2_irq%1:                       ; L1's own interrupt: it does not exit in this L1
    add dword [abs NOTES + WORD_IRQS], 1
  %if %1 == 64
    push rax
    push rcx
    push rdx
    push rdi
  %else
    pushad
  %endif
    mov ecx, 0xb0
    xor eax, eax
    call apic_store
  %if %1 == 64
    pop rdi
    pop rdx
    pop rcx
    pop rax
    iretq
  %else
    popad
    iretd
  %endif
l2_virtual%1:
    add dword [abs NOTES + WORD_VIRTUAL], 1
  %if %1 == 64
    push rax
    push rcx
    push rdx
  %else
    pushad
  %endif
    mov eax, [abs A(params)]
    and eax, 0xf00
    cmp eax, APIC_X2 << 8
    je %%x2
    mov dword [abs APIC_PAGE + 0xb0], 0
    jmp %%end
%%x2:
    mov ecx, 0x80b
    xor eax, eax
    xor edx, edx
    wrmsr
%%end:
  %if %1 == 64
    pop rdx
    pop rcx
    pop rax
    iretq
  %else
    popad
    iretd
  %endif
align 8
l2_idt%1:
%assign i 0
%rep 256
    %if i == V_NMI
        %define handler A(l2_nmi%1)
    %elif i == VIRTUAL
        %define handler A(l2_virtual%1)
    %elif i == V_DB || i == V_BP
        %define handler A(l2_debug%1)
    %elif i == V_GP
        %define handler A(l2_fault%1)
    %else
        %define handler A(l2_irq%1)
    %endif
    %if %1 == 64
        dw (handler) & 0xffff, KCS64, 0x8e00, (handler) >> 16
        dq 0
    %else
        dw (handler) & 0xffff, KCS32, 0x8e00, (handler) >> 16
    %endif
%assign i i + 1
%endrep
%endmacro
    l2_handlers 64
    l2_handlers 32

; The first SMI moves SMBASE; later ones work a little.
bits 16
align 16
smi_handler:
    push eax
    push ecx
    mov ecx, SMRAM_RESET + SMBASE_INTEL
    mov dword [ecx], SMRAM_NEXT
    mov ecx, NOTES
    inc dword [ecx + WORD_SMIS]
    mov eax, cr4
    add [ecx + WORD_SMIS + 4], eax
    mov eax, 8
.turn:
    dec eax
    jnz .turn
    pop ecx
    pop eax
    rsm
smi_handler_end:
bits 64
    end_image
