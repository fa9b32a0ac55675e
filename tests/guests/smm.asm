; SMM: an SMI through the ICR, the state the handler starts in, the save area, changes through it, SMBASE
; relocation, RSM back into 64-bit and 32-bit code, events that wait until RSM. SDM 3C chapter 32.
%include "common.inc"
%include "irq.inc"
%include "smm.inc"

%define NOTES 0x600000          ; what the handler saw
%define NEW_SMBASE 0x40000

bits 16
align 16
handler:                        ; base = SMBASE + 0x8000 through CS; data flat
    push eax
    push ecx
    mov ecx, NOTES
    inc dword [ecx]
    mov eax, cr0
    mov [ecx + 4], eax
    mov eax, cr4
    mov [ecx + 8], eax
    pushfd
    pop dword [ecx + 12]
    mov ax, cs
    mov [ecx + 16], ax
    mov ax, ds
    mov [ecx + 18], ax
    mov eax, dr7
    mov [ecx + 20], eax
    mov eax, [cs:SMM_REVISION]
    mov [ecx + 24], eax
    mov bx, SMBASE_AMD64
    cmp ax, 0x64
    je .layout
    mov bx, SMBASE_INTEL
.layout:
    mov eax, [cs:bx]
    mov [ecx + 28], eax
    cmp dword [ecx + 32], 0 ; relocate?
    je .no_relocation
    mov dword [cs:bx], NEW_SMBASE
    mov dword [ecx + 32], 0
.no_relocation:
    cmp dword [ecx + 36], 0 ; send an interrupt and an NMI to itself?
    je .no_ipi
    mov dword [ecx + 36], 0
    mov eax, 0xfee00300
    mov dword [eax + 0x10], 0
    mov dword [eax], 0x4400
    mov dword [eax], 0x4060
    mov dword [eax], 0x4200 ; an SMI waits, too
    nop
    nop
    mov eax, [ecx + 40]     ; interrupts counted so far
    mov [ecx + 44], eax
.no_ipi:
    pop ecx
    pop eax
    mov bx, 0x1234              ; registers come back from the save area
    rsm
handler_end:
bits 64

count_hook:
    inc dword [abs NOTES + 40]
    movzx eax, byte [rdi + F_VEC]
    cmp al, V_NMI
    je .end
    apic_write APIC_EOI, 0
.end:
    ret

main:
    call apic_enable
    call pic_init
    mov edi, NOTES
    mov ecx, 0x100
    xor eax, eax
    rep stosd
    lea rsi, [handler]
    mov ecx, handler_end - handler
    call install_smi_handler
    set_hook 0x60, count_hook
    set_hook V_NMI, count_hook
    try
    rsm
    endtry_fault "rsm.outside_smm", V_UD, 0
    ; every register keeps its value
    mov rbx, 0x1122334455667788
    mov rcx, 0x99aabbccddeeff00
    mov r8, 0x0123456789abcdef
    mov r15, 0xfedcba9876543210
    mov r14, rsp
    mov rbp, 0x5555aaaa5555aaaa
    stc
    send_smi
    mov r13d, 1000000
.wait:
    pause
    cmp dword [abs NOTES], 1
    je .came
    dec r13d
    jnz .wait
.came:
    mov rax, 0x1122334455667788
    mov [want], rax
    check "smi.rbx", rbx, [want]
    mov rax, 0x99aabbccddeeff00
    mov [want], rax
    check "smi.rcx", rcx, [want]
    mov rax, 0x0123456789abcdef
    mov [want], rax
    check "smi.r8", r8, [want]
    mov rax, 0xfedcba9876543210
    mov [want], rax
    check "smi.r15", r15, [want]
    mov rax, 0x5555aaaa5555aaaa
    mov [want], rax
    check "smi.rbp", rbp, [want]
    mov rcx, rsp
    check "smi.rsp", rcx, r14
    check32 "smi.came", [abs NOTES], 1
    checkm "smm.cr0", [abs NOTES + 4], 0x8000000d, 0
    checkm "smm.cr4", [abs NOTES + 8], 0xffffffff, 0
    checkm "smm.flags", [abs NOTES + 12], 0xffffffff, 2
    movzx eax, word [abs NOTES + 18]
    check32 "smm.ds", eax, 0
    check32 "smm.dr7", [abs NOTES + 20], 0x400
    mov eax, [abs NOTES + 28]
    mov [old_base], eax
    movzx ecx, word [abs NOTES + 16]
    shl ecx, 4
    check32 "smm.cs_is_smbase", ecx, eax
    mov rax, cr0
    checkm "after.cr0", eax, 0x80000001, 0x80000001
    mov ecx, MSR_EFER
    rdmsr
    checkm "after.efer", eax, 0xd00, 0xd00
    mov ax, cs
    movzx eax, ax
    check32 "after.cs", eax, KCS64
    str ax
    movzx eax, ax
    check32 "after.tr", eax, TSS_SEL
    ; interrupts, NMIs and SMIs wait for RSM
    mov dword [abs NOTES], 0
    mov dword [abs NOTES + 36], 1
    sti
    send_smi
    wait_for abs NOTES, 1000000, 2
    mov ecx, 10000
.settle:
    pause
    loop .settle
    cli
    check32 "smm.events_wait", [abs NOTES + 44], 0
    check32 "smm.events_come_after", [abs NOTES + 40], 2
    check32 "smm.second_smi_after_rsm", [abs NOTES], 2
    ; SMI out of user and compatibility code
    mov dword [abs NOTES], 0
    mov dword [far_pointer], A(.compat)
    mov word [far_pointer + 4], KCS32
    try
    jmp dword far [far_pointer]
bits 32
.compat:
    mov ecx, 1000
    mov dword [0xfee00310], 0
    mov dword [0xfee00300], 0x4200
.compat_wait:
    pause
    cmp dword [NOTES], 1
    loopne .compat_wait
    mov eax, 0x40
    inc eax
    int 0x61
bits 64
    endtry_fault "smi.in_compat", 0x61, 0, -1
    check "smi.back_in_compat", [f_cs], KCS32
    check32 "smi.compat_ran", [f_ax], 0x41
    check32 "smi.in_compat_came", [abs NOTES], 1
    ; relocation
    mov dword [abs NOTES], 0
    mov dword [abs NOTES + 32], 1
    lea rsi, [handler]
    mov edi, NEW_SMBASE + 0x8000
    mov ecx, handler_end - handler
    rep movsb
    send_smi
    wait_for abs NOTES, 1000000, 1
    check32 "smbase.old_still", [abs NOTES + 28], [old_base]
    mov dword [abs NOTES], 0
    send_smi
    wait_for abs NOTES, 1000000, 1
    check32 "smbase.came_at_new", [abs NOTES], 1
    check32 "smbase.new", [abs NOTES + 28], NEW_SMBASE
    movzx eax, word [abs NOTES + 16]
    check32 "smbase.cs", eax, NEW_SMBASE >> 4
    jmp finish
align 8
want: dq 0
old_base: dd 0
far_pointer: dd 0
    dw 0
    end_image
