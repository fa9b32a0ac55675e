; Gates and far transfers of 64-bit mode: interrupt and trap gates, IST, privilege change, call gates, far
; JMP, CALL, RET and IRET between 64-bit and compatibility code, LTR and LLDT. SDM 3A 5.8, 6.14; 2A, 2B.
%include "common.inc"

%macro descriptor 2             ; selector, 64-bit value
    mov rax, %2
    mov [gdt + (%1)], rax
%endmacro
; A 16-byte gate in the IDT: vector, target selector, type and DPL byte, IST
%macro gate 4
    mov word [idt + (%1) * 16 + 2], %2
    mov byte [idt + (%1) * 16 + 4], %4
    mov byte [idt + (%1) * 16 + 5], %3
%endmacro
%macro point_gate 2             ; vector, label
    mov word [idt + (%1) * 16], A(%2) & 0xffff
    mov word [idt + (%1) * 16 + 6], A(%2) >> 16
%endmacro
; A call gate at a GDT slot: selector of the slot, target selector, label address, type byte
%macro call_gate 4
    mov word [gdt + (%1)], (%3) & 0xffff
    mov word [gdt + (%1) + 2], %2
    mov byte [gdt + (%1) + 4], 0
    mov byte [gdt + (%1) + 5], %4
    mov word [gdt + (%1) + 6], (%3) >> 16
    mov qword [gdt + (%1) + 8], 0
%endmacro
%define SLOT FREE_SEL
%define GATE FREE_SEL + 0x10

align 8
p_ss: dq 0
p_cs: dq 0
p_fl: dq 0
p_sp: dq 0
p_ret: dq 0
saved_sp: dq 0
far_ptr: dd 0
    dw 0
    dw 0
far_ptr64: dq 0
    dw 0

; An interrupt handler that notes its own state and is then recorded as vector 0x60.
probe:
    mov [p_sp], rsp
    pushfq
    pop qword [p_fl]
    mov qword [p_ss], 0
    mov word [p_ss], ss
    mov qword [p_cs], 0
    mov word [p_cs], cs
    push 0
    push 0x60
    jmp isr_common

main:
    call idt_gates
    call irets
    call call_gates
    call far_transfers
    call system_segments
    jmp finish

idt_gates:
    point_gate 0x50, probe
    gate 0x50, KCS64, 0x8e, 0
    try
    push 0x202 + 0x4000         ; IF, NT
    popfq
    int 0x50
.int1:
    endtry_fault "gate.interrupt", 0x60, 0, A(.int1)
    checkm "gate.interrupt_clears_if_and_nt", [p_fl], 0x4300, 0
    checkm "gate.pushed_flags", [f_fl], 0xffff, 0x4202
    gate 0x50, KCS64, 0x8f, 0
    try
    sti
    int 0x50
.int2:
    endtry_fault "gate.trap", 0x60, 0, A(.int2)
    checkm "gate.trap_keeps_if", [p_fl], 0x200, 0x200
    gate 0x50, KCS64, 0x8e, 1
    try
    int 0x50
.int3:
    endtry_fault "gate.ist", 0x60, 0, A(.int3)
    check "gate.ist_stack", [p_sp], IST1_TOP - 40
    mov rax, [recover_rsp]
    check "gate.ist_pushed_rsp", [f_sp], rax
    intel
    check "gate.ist_same_level_keeps_ss", [p_ss], KDS
    gate 0x50, KCS64, 0xee, 0
    try_user
    int 0x50
.int4:
    endtry_user_fault "gate.from_user", 0x60, 0, A(.int4)
    check "gate.from_user_null_ss", [p_ss], 0
    check "gate.from_user_rsp0", [p_sp], RSP0_TOP - 40
    check "gate.from_user_cs", [p_cs], KCS64
    check "gate.from_user_pushed_ss", [f_ss], UDS
    gate 0x50, KCS64, 0xee, 1
    try_user
    int 0x50
.int5:
    endtry_user_fault "gate.from_user_ist", 0x60, 0, A(.int5)
    check "gate.from_user_ist_stack", [p_sp], IST1_TOP - 40
    ; what is wrong with the target
    gate 0x50, 0, 0x8e, 0
    try
    int 0x50
    endtry_fault "gate.null_cs", V_GP, 0
    gate 0x50, 0x1000, 0x8e, 0
    try
    int 0x50
    endtry_fault "gate.cs_beyond_gdt", V_GP, 0x1000
    gate 0x50, KDS, 0x8e, 0
    try
    int 0x50
    endtry_fault "gate.cs_is_data", V_GP, KDS
    intel_only "gate.cs_is_32bit (QEMU runs the handler as 32-bit code)"
    gate 0x50, KCS32, 0x8e, 0
    try
    int 0x50
    endtry_fault "gate.cs_is_32bit", V_GP, KCS32
    end_only
    gate 0x50, UCS64, 0x8e, 0
    try
    int 0x50
    endtry_fault "gate.cs_less_privileged", V_GP, UCS64 & ~3
    descriptor SLOT, 0x00af1b000000ffff
    gate 0x50, SLOT, 0x8e, 0
    try
    int 0x50
    endtry_fault "gate.cs_not_present", V_NP, SLOT
    gate 0x50, KCS64, 0x85, 0   ; task gate
    intel
    try
    int 0x50
    endtry_fault "gate.task_gate", V_GP, 0x50 * 8 + 2
    gate 0x50, KCS64, 0x86, 0   ; 16-bit interrupt gate
    intel
    try
    int 0x50
    endtry_fault "gate.16bit_gate", V_GP, 0x50 * 8 + 2
    ; a conforming handler runs at the caller's level
    descriptor SLOT, 0x00af9f000000ffff
    point_gate 0x50, conforming_probe
    gate 0x50, SLOT, 0xee, 0
    mov dword [idt + 0x50 * 16 + 8], 0
    mov word [idt + 0x50 * 16 + 6], (A(conforming_probe) + UALIAS) >> 16
    try_user
    int 0x50
    endtry_user_fault "gate.conforming_handler", V_BACK, 0, -1
    check "gate.conforming_keeps_cpl", [f_cs], SLOT + 3
    gate 0x50, KCS64, 0x8e, 0
    point_gate 0x50, probe
    ret
conforming_probe:
    int V_BACK

; Builds an IRET frame and executes IRETQ: cs, ss, rsp, flags, rip
%macro frame 5
    push %2
    push %3
    push %4
    push %1
    push %5
%endmacro
irets:
    mov [saved_sp], rsp
    try
    frame KCS64, KDS, qword [saved_sp], 0x46, A(.there)
    iretq
    ud2
.there:
    pushfq
    pop rbx
    endtry_ok "iret.same"
    checkm "iret.flags", ebx, 0xffff, 0x46
    try
    frame KCS64, 0, qword [saved_sp], 2, A(.null_ss)
    iretq
    ud2
.null_ss:
    mov eax, KDS
    mov ss, eax
    endtry_ok "iret.null_ss_at_cpl0"
    push 0x4002
    popfq
    try
    frame KCS64, KDS, qword [saved_sp], 2, A(.there)
.nt:
    iretq
    endtry_fault "iret.nt", V_GP, 0, A(.nt)
    push 2
    popfq
    try
    push KDS
    push qword [saved_sp]
    push 2
    push KCS64
    mov rax, 0x800000000000
    push rax
.nc:
    iretq
    endtry_fault "iret.noncanonical", V_GP, 0, -1
    %macro bad_iret 5           ; name, cs, ss, vector, error
    try
    frame %2, %3, qword [saved_sp], 2, A(%%target)
%%iret:
    iretq
%%target:
    endtry_fault %1, %4, %5, A(%%iret)
    %endmacro
    bad_iret "iret.null_cs", 0, KDS, V_GP, 0
    bad_iret "iret.cs_beyond", 0x1000, KDS, V_GP, 0x1000
    bad_iret "iret.cs_data", KDS, KDS, V_GP, KDS
    bad_iret "iret.cs_rpl_below_dpl", UCS64 & ~3, KDS, V_GP, UCS64 & ~3
    bad_iret "iret.cs_rpl_above_dpl", KCS64 + 3, UDS, V_GP, KCS64
    bad_iret "iret.ss_rpl", UCS64, KDS, V_GP, KDS
    bad_iret "iret.ss_null_to_user", UCS64, 0, V_GP, 0
    bad_iret "iret.ss_null_rpl3_to_user_64", UCS64, 3, V_GP, 0
    intel_only "iret.ss_null_compat (QEMU goes there)"
    bad_iret "iret.ss_null_compat", KCS32, 0, V_GP, 0
    end_only
    descriptor SLOT, 0x00cff1000000ffff     ; read-only data
    bad_iret "iret.ss_read_only", UCS64, SLOT + 3, V_GP, SLOT
    descriptor SLOT, 0x00cf73000000ffff     ; not present
    bad_iret "iret.ss_not_present", UCS64, SLOT + 3, V_NP, SLOT
    descriptor SLOT, 0x00af7b000000ffff
    bad_iret "iret.cs_not_present", SLOT + 3, UDS, V_NP, SLOT
    descriptor SLOT, 0x00effb000000ffff     ; L and D
    intel
    bad_iret "iret.cs_l_and_d", SLOT + 3, UDS, V_GP, SLOT
    ; into compatibility mode at both levels
    try
    frame KCS32, KDS, qword [saved_sp], 2, A(.compat)
    iretq
bits 32
.compat:
    mov eax, 0x11111111
    inc eax                     ; 0x40 is a REX prefix in 64-bit code
    mov ebx, cs
    int 0x50
bits 64
    endtry_fault "iret.to_compat", 0x60, 0, -1
    check "iret.compat_cs", [f_cs], KCS32
    check32 "iret.compat_ran_32bit", [f_ax], 0x11111112
    try
    frame UCS32, UDS, USTACK_TOP + UALIAS, 2, A(.ucompat) + UALIAS
    iretq
bits 32
.ucompat:
    push dword 0x12345678
    pop eax
    db 0x06, 0x07               ; PUSH ES, POP ES exist here
    int V_BACK
bits 64
    endtry_fault "iret.to_user_compat", V_BACK, 0, -1
    check "iret.user_compat_cs", [f_cs], UCS32
    check32 "iret.user_compat_ax", [f_ax], 0x12345678
    check "iret.user_compat_sp", [f_sp], USTACK_TOP + UALIAS
    ; segment registers more privileged than the new level become null
    mov eax, KDS
    mov es, eax
    mov eax, UDS
    mov fs, eax
    try
    frame UCS64, UDS, USTACK_TOP + UALIAS, 2, A(.outer) + UALIAS
    iretq
.outer:
    xor eax, eax
    xor ecx, ecx
    mov ax, es
    mov cx, fs
    int V_BACK
    endtry_fault "iret.to_user", V_BACK, 0, -1
    check "iret.kernel_es_nulled", [f_ax], 0
    check "iret.user_fs_kept", [f_cx], UDS
    ; a user IRET cannot change IF, IOPL
    try_user
    mov rax, rsp
    push UDS
    push rax
    push 0x3202
    push UCS64
    push A(.uiret) + UALIAS
    iretq
.uiret:
    pushfq
    pop rax
    int V_BACK
    endtry_user_fault "iret.user", V_BACK, 0, -1
    checkm "iret.user_keeps_if_iopl", [f_ax], 0x3200, 0
    ret

call_gates:
    call_gate GATE, KCS64, A(gate_target), 0xec
    mov dword [far_ptr], 0
    mov word [far_ptr + 4], GATE + 3
    mov rbx, rsp
    try
    call dword far [far_ptr]
.ret0:
    endtry_fault "callgate.same_level", 0x60, 0, -1
    mov rax, [p_sp]
    sub rax, rbx
    check "callgate.same_level_pushes_16", rax, -16
    check "callgate.return_rip", [p_ret], A(.ret0)
    try_user
    call dword far [far_ptr]
.ret3:
    endtry_user_fault "callgate.from_user", 0x60, 0, -1
    check "callgate.rsp0", [p_sp], RSP0_TOP - 32
    check "callgate.null_ss", [p_ss], 0
    check "callgate.cs", [p_cs], KCS64
    check "callgate.pushed_rip", [abs RSP0_TOP - 32], A(.ret3) + UALIAS
    check "callgate.pushed_cs", [abs RSP0_TOP - 24], UCS64
    check "callgate.pushed_rsp", [abs RSP0_TOP - 16], USTACK_TOP + UALIAS
    check "callgate.pushed_ss", [abs RSP0_TOP - 8], UDS
    ; and back
    call_gate GATE, KCS64, A(gate_return), 0xec
    try_user
    call dword far [far_ptr]
    mov eax, 0x777
    mov rcx, rsp
    int V_BACK
    endtry_user_fault "callgate.retf", V_BACK, 0, -1
    check "callgate.retf_continues", [f_ax], 0x777
    check "callgate.retf_rsp", [f_cx], USTACK_TOP + UALIAS
    call_gate GATE, KCS64, A(gate_target), 0xec
    try
    jmp dword far [far_ptr]
    endtry_fault "callgate.jmp_same_level", 0x60, 0, -1
    check "callgate.jmp_pushes_nothing", [p_sp], rbx
    try_user
    jmp dword far [far_ptr]
    endtry_user_fault "callgate.jmp_cannot_raise", V_GP, KCS64
    call_gate GATE, KCS64, A(gate_target), 0x8c
    try_user
    call dword far [far_ptr]
    endtry_user_fault "callgate.dpl", V_GP, GATE
    call_gate GATE, KCS64, A(gate_target), 0x6c
    try_user
    call dword far [far_ptr]
    endtry_user_fault "callgate.not_present", V_NP, GATE
    call_gate GATE, KCS32, A(gate_target), 0xec
    try
    call dword far [far_ptr]
    endtry_fault "callgate.target_32bit", V_GP, KCS32
    call_gate GATE, 0, A(gate_target), 0xec
    try
    call dword far [far_ptr]
    endtry_fault "callgate.target_null", V_GP, 0
    call_gate GATE, KDS, A(gate_target), 0xec
    try
    call dword far [far_ptr]
    endtry_fault "callgate.target_data", V_GP, KDS
    call_gate GATE, KCS64, A(gate_target), 0xe4     ; 16-bit gate
    intel
    try
    call dword far [far_ptr]
    endtry_fault "callgate.16bit", V_GP, GATE
    call_gate GATE, KCS64, A(gate_target), 0xec
    mov byte [gdt + GATE + 13], 4   ; the type field of the upper half must be zero
    intel
    try
    call dword far [far_ptr]
    endtry_fault "callgate.upper_type", V_GP, GATE
    call_gate GATE, KCS64, A(gate_target), 0xec
    mov dword [gdt + GATE + 8], 0x8000
    intel
    try
    call dword far [far_ptr]
    endtry_fault "callgate.noncanonical", V_GP, 0
    ret
gate_target:
    push qword [rsp]
    pop qword [p_ret]
    mov [p_sp], rsp
    mov qword [p_ss], 0
    mov word [p_ss], ss
    mov qword [p_cs], 0
    mov word [p_cs], cs
    int 0x60
gate_return:
    o64 retf

far_transfers:
    mov [saved_sp], rsp
    mov dword [far_ptr], A(.compat)
    mov word [far_ptr + 4], KCS32
    try
    jmp dword far [far_ptr]
bits 32
.compat:
    mov eax, 1
    inc eax
    call KCS64:A(.back64)       ; compatibility code calls 64-bit code
    inc eax
    int 0x61
bits 64
.back64:
    shl rax, 33
    shr rax, 33                 ; REX
    add eax, 0x10
    o32 retf
    endtry_fault "far.compat_calls_64", 0x61, 0, -1
    check "far.compat_result", [f_ax], 0x13
    mov word [far_ptr + 4], KDS
    try
    jmp dword far [far_ptr]
    endtry_fault "far.jmp_data", V_GP, KDS
    mov word [far_ptr + 4], 0
    try
    jmp dword far [far_ptr]
    endtry_fault "far.jmp_null", V_GP, 0
    mov word [far_ptr + 4], UCS64
    try
    jmp dword far [far_ptr]
    endtry_fault "far.jmp_rpl_above_dpl", V_GP, UCS64 & ~3
    mov word [far_ptr + 4], TSS_SEL
    intel
    try
    jmp dword far [far_ptr]
    endtry_fault "far.jmp_tss", V_GP, TSS_SEL
    try
    db 0xea                     ; JMP ptr16:32 does not exist
    endtry_fault "far.direct_jmp_ud", V_UD, 0
    try
    db 0x9a
    endtry_fault "far.direct_call_ud", V_UD, 0
    lea rax, [.far64]
    mov [far_ptr64], rax
    mov word [far_ptr64 + 8], KCS64
    intel_only "far.m16:64"     ; QEMU has Intel's form; kept apart because AMD reads m16:32 here
    try
    jmp qword far [far_ptr64]
    ud2
.far64:
    endtry_ok "far.jmp_m16_64"
    end_only
    try
    push KCS64
    lea rax, [.retf64]
    push rax
    o64 retf
    ud2
.retf64:
    endtry_ok "far.retf64"
    mov rbx, rsp
    try
    sub rsp, 0x20
    push KCS64
    lea rax, [.retfn]
    push rax
    o64 retf 0x20
    ud2
.retfn:
    mov rcx, rsp
    endtry_ok "far.retf_n"
    check "far.retf_n_rsp", rcx, rbx
    try
    push UDS
    push USTACK_TOP + UALIAS
    push UCS32
    push A(.ucompat) + UALIAS
    o64 retf
bits 32
.ucompat:
    mov eax, 5
    dec eax
    int V_BACK
bits 64
    endtry_fault "far.retf_to_user_compat", V_BACK, 0, -1
    check "far.retf_ran", [f_ax], 4
    try
    push KDS
    push qword [saved_sp]
    push UCS64
    push A(.ucompat)
.bad:
    o64 retf
    endtry_fault "far.retf_ss_rpl", V_GP, KDS, A(.bad)
    ret

system_segments:
    str ax
    movzx eax, ax
    check "str", rax, TSS_SEL
    checkm "tss.busy", [gdt + TSS_SEL + 4], 0x0f00, 0x0b00
    mov eax, TSS_SEL
    try
    ltr ax
    endtry_fault "ltr.busy", V_GP, TSS_SEL
    xor eax, eax
    intel
    try
    ltr ax
    endtry_fault "ltr.null", V_GP, 0
    mov eax, KDS
    try
    ltr ax
    endtry_fault "ltr.data", V_GP, KDS
    mov eax, 0x1000
    try
    ltr ax
    endtry_fault "ltr.beyond", V_GP, 0x1000
    mov eax, 0x0c
    try
    ltr ax
    endtry_fault "ltr.in_ldt", V_GP, 0x0c
    descriptor SLOT, 0x0000090000000067
    mov qword [gdt + SLOT + 8], 0
    mov eax, SLOT
    try
    ltr ax
    endtry_fault "ltr.not_present", V_NP, SLOT
    descriptor SLOT, 0x0000890000000067
    mov dword [gdt + SLOT + 8], 0x8000
    mov eax, SLOT
    intel
    try
    ltr ax
    endtry_fault "ltr.noncanonical_base", V_GP, SLOT
    ; LDT: 16-byte descriptor, null allowed
    descriptor SLOT, 0x000082000000000f + (0x600000 << 16)
    mov qword [gdt + SLOT + 8], 0
    mov rax, 0x00cf93000000ffff
    mov [abs 0x600008], rax
    mov eax, SLOT
    lldt ax
    sldt cx
    movzx ecx, cx
    check "sldt", rcx, SLOT
    mov eax, 0x0c
    try
    mov es, eax
    endtry_ok "ldt.load_from"
    mov eax, 0x14
    try
    mov es, eax
    endtry_fault "ldt.limit", V_GP, 0x14
    mov eax, KDS
    try
    lldt ax
    endtry_fault "lldt.data", V_GP, KDS
    mov eax, 0
    try
    lldt ax
    endtry_ok "lldt.null"
    mov eax, 0x0c
    try
    mov es, eax
    endtry_fault "ldt.none", V_GP, 0x0c
    mov eax, KDS
    mov es, eax
    ret
    end_image
