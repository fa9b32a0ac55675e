; Gates and far transfers of 32-bit protected mode: 16- and 32-bit interrupt, trap and call gates, parameter
; copy, privilege change through the TSS, conforming code, far JMP, CALL, RET, IRET. SDM 3A 5.8, 6.12; 2A, 2B.
%define BASE32
%include "common.inc"
%include "user32.inc"

%define UCS UCS32
%macro gate 3                   ; vector, target selector, type byte
    mov word [idt + (%1) * 8 + 2], %2
    mov byte [idt + (%1) * 8 + 5], %3
%endmacro
%macro point_gate 2
    mov word [idt + (%1) * 8], A(%2) & 0xffff
    mov word [idt + (%1) * 8 + 6], A(%2) >> 16
%endmacro
%macro call_gate 5              ; slot, target selector, address, type, parameters
    mov word [gdt + (%1)], (%3) & 0xffff
    mov word [gdt + (%1) + 2], %2
    mov byte [gdt + (%1) + 4], %5
    mov byte [gdt + (%1) + 5], %4
    mov word [gdt + (%1) + 6], (%3) >> 16
%endmacro
%define SLOT FREE_SEL
%define GATE FREE_SEL + 8
%define CONF FREE_SEL + 16      ; conforming code, DPL 0
%define CODE16 FREE_SEL + 24    ; 16-bit code with the image as base

align 8
p_ss: dd 0
p_cs: dd 0
p_fl: dd 0
p_sp: dd 0
p_ds: dd 0
p_stack: times 8 dd 0
saved_sp: dd 0
far_ptr: dd 0
    dw 0
align 4

; Notes its own state and the stack; is then recorded as vector 0x60.
probe:
    push eax
    mov ax, ds
    push ds
    mov [ss:p_ds], ax
    mov ax, KDS
    mov ds, ax
    lea eax, [esp + 8]
    mov [p_sp], eax
    pushfd
    pop dword [p_fl]
    mov word [p_ss], ss
    mov word [p_cs], cs
    push esi
    push edi
    push es
    mov ax, KDS
    mov es, ax
    lea esi, [esp + 20]
    mov edi, A(p_stack)
    movsd
    movsd
    movsd
    movsd
    movsd
    movsd
    pop es
    pop edi
    pop esi
    pop ds
    pop eax
    push 0
    push 0x60
    jmp isr_common

main:
    descriptor CONF, 0x0000ffff, 0x00cf9f00
    descriptor CODE16, (IMG & 0xffff) << 16 | 0xffff, 0x00009b00 + (IMG >> 16)
    call idt_gates
    call bad_tss
    call irets
    call call_gates
    call far_transfers
    jmp finish

idt_gates:
    point_gate 0x50, probe
    gate 0x50, KCS, 0x8e
    try
    push 0x4202
    popfd
    int 0x50
.int1:
    endtry_fault "gate.interrupt", 0x60, 0, A(.int1)
    checkm "gate.interrupt_clears_if_nt", [p_fl], 0x4300, 0
    checkm "gate.pushed_flags", [p_stack + 8], 0xffff, 0x4202
    check "gate.pushed_cs", [p_stack + 4], KCS
    mov eax, [recover_rsp]
    sub eax, 12
    check "gate.same_level_pushes_12", [p_sp], eax
    gate 0x50, KCS, 0x8f
    try
    sti
    int 0x50
.int2:
    endtry_fault "gate.trap", 0x60, 0, A(.int2)
    checkm "gate.trap_keeps_if", [p_fl], 0x200, 0x200
    gate 0x50, KCS, 0xee
    try_user
    int 0x50
.int3:
    endtry_user_fault "gate.from_user", 0x60, 0, A(.int3)
    check "gate.from_user_ss", [p_ss], KDS
    check "gate.from_user_esp0", [p_sp], RSP0_TOP - 20
    check "gate.from_user_pushed_esp", [p_stack + 12], USTACK_TOP
    check "gate.from_user_pushed_ss", [p_stack + 16], UDS
    check "gate.from_user_keeps_ds", [p_ds], UDS
    gate 0x50, KCS, 0x8e
    try_user
    int 0x50
    endtry_user_fault "gate.dpl", V_GP, 0x50 * 8 + 2
    ; 16-bit gates
    mov word [idt + 0x50 * 8], probe16 - image_start
    mov word [idt + 0x50 * 8 + 6], 0
    gate 0x50, CODE16, 0x86
    mov ebx, esp
    try
    sti
    int 0x50
.int4:
    endtry_fault "gate.16bit", 0x61, 0, -1
    mov eax, [p_sp]
    sub eax, ebx
    check "gate.16bit_pushes_6", eax, -6
    movzx eax, word [p_stack]
    check "gate.16bit_ip", eax, A(.int4) & 0xffff
    movzx eax, word [p_stack + 2]
    check "gate.16bit_cs", eax, KCS
    movzx eax, word [p_stack + 4]
    checkm "gate.16bit_flags", eax, 0x200, 0x200
    point_gate 0x50, probe
    ; targets
    gate 0x50, 0, 0x8e
    try
    int 0x50
    endtry_fault "gate.null_cs", V_GP, 0
    gate 0x50, 0x1000, 0x8e
    try
    int 0x50
    endtry_fault "gate.cs_beyond_gdt", V_GP, 0x1000
    gate 0x50, KDS, 0x8e
    try
    int 0x50
    endtry_fault "gate.cs_data", V_GP, KDS
    gate 0x50, UCS, 0x8e
    try
    int 0x50
    endtry_fault "gate.cs_less_privileged", V_GP, UCS & ~3
    descriptor SLOT, 0x0000ffff, 0x00cf1b00
    gate 0x50, SLOT, 0x8e
    try
    int 0x50
    endtry_fault "gate.cs_not_present", V_NP, SLOT
    gate 0x50, KCS, 0x0e
    try
    int 0x50
    endtry_fault "gate.not_present", V_NP, 0x50 * 8 + 2
    gate 0x50, KCS, 0x8c
    try
    int 0x50
    endtry_fault "gate.call_gate_in_idt", V_GP, 0x50 * 8 + 2
    ; a handler beyond the code limit
    descriptor SLOT, 0x00000fff, 0x00409b00
    gate 0x50, SLOT, 0x8e
    intel
    try
    int 0x50
    endtry_fault "gate.eip_beyond_limit", V_GP, 0
    gate 0x50, KCS, 0x8e
    ret

bits 16
probe16:
    push eax
    push ds
    mov ax, KDS
    mov ds, ax
    lea eax, [esp + 6]
    mov [dword p_sp], eax
    mov eax, [ss:esp + 6]
    mov [dword p_stack], eax
    mov eax, [ss:esp + 10]
    mov [dword p_stack + 4], eax
    pop ds
    pop eax
    int 0x61
bits 32

; The stack that the TSS names is wrong: #TS or #SS with its selector. Their handler is conforming code, which
; stays at CPL 3 and so needs no stack from the TSS.
ts_catch:
    mov dword [ts_vec], V_TS
    jmp stack_catch
ss_catch:
    mov dword [ts_vec], V_SS
stack_catch:
    pop dword [ts_err]
    pop dword [ts_eip]
    mov dword [tss + 8], KDS
    int V_BACK
align 4
ts_vec: dd 0
ts_err: dd 0
ts_eip: dd 0
%macro bad_ss0 4                ; name, SS0, vector, error
    mov dword [tss + 8], %2
    try_user
%%int:
    int 0x50
    %strcat ss0_name %1, ".caught"
    endtry_user_fault ss0_name, V_BACK, 0, -1
    %strcat ss0_name %1, ".vector"
    intel                       ; QEMU raises #TS where the stack is not present
    check ss0_name, [ts_vec], %3
    %strcat ss0_name %1, ".error"
    check ss0_name, [ts_err], %4
    %strcat ss0_name %1, ".eip"
    check ss0_name, [ts_eip], A(%%int)
%endmacro
bad_tss:
    gate 0x50, KCS, 0xee
    point_gate V_TS, ts_catch
    point_gate V_SS, ss_catch
    gate V_TS, CONF, 0x8e
    gate V_SS, CONF, 0x8e
    bad_ss0 "tss.ss0_null", 0, V_TS, 0
    bad_ss0 "tss.ss0_beyond_gdt", 0x1000, V_TS, 0x1000
    bad_ss0 "tss.ss0_code", KCS, V_TS, KCS
    bad_ss0 "tss.ss0_dpl", UDS, V_TS, UDS & ~3
    bad_ss0 "tss.ss0_rpl", KDS + 1, V_TS, KDS
    descriptor SLOT, 0x0000ffff, 0x00cf1300
    bad_ss0 "tss.ss0_not_present", SLOT, V_SS, SLOT
    ; a call gate's stack
    call_gate GATE, KCS, A(target), 0xec, 0
    mov word [far_ptr + 4], GATE + 3
    mov dword [tss + 8], 0
    try_user
.call:
    call far [far_ptr]
    endtry_user_fault "tss.callgate_ss0_null", V_BACK, 0, -1
    check "tss.callgate_vector", [ts_vec], V_TS
    check "tss.callgate_eip", [ts_eip], A(.call)
    mov dword [tss + 8], KDS
    point_gate V_TS, isr_stubs + 16 * V_TS
    point_gate V_SS, isr_stubs + 16 * V_SS
    gate V_TS, KCS, 0x8e
    gate V_SS, KCS, 0x8e
    ret

irets:
    mov [saved_sp], esp
    try
    push 0x46
    push KCS
    push A(.same)
    iretd
    ud2
.same:
    pushfd
    pop ebx
    mov ecx, esp
    endtry_ok "iret.same"
    checkm "iret.flags", ebx, 0xffff, 0x46
    mov eax, [saved_sp]
    check "iret.same_pops_12", ecx, eax
%macro bad_iret 5               ; name, cs, ss, vector, error
    try
    push %3
    push dword [saved_sp]
    push 2
    push %2
    push A(%%target)
%%iret:
    iretd
%%target:
    endtry_fault %1, %4, %5, A(%%iret)
%endmacro
    bad_iret "iret.null_cs", 0, KDS, V_GP, 0
    bad_iret "iret.cs_beyond", 0x1000, KDS, V_GP, 0x1000
    bad_iret "iret.cs_data", KDS, KDS, V_GP, KDS
    bad_iret "iret.cs_rpl_below_dpl", UCS & ~3, KDS, V_GP, UCS & ~3
    bad_iret "iret.cs_rpl_above_dpl", KCS + 3, UDS, V_GP, KCS
    bad_iret "iret.ss_rpl", UCS, KDS, V_GP, KDS
    bad_iret "iret.ss_null", UCS, 0, V_GP, 0
    bad_iret "iret.ss_null_rpl3", UCS, 3, V_GP, 0
    descriptor SLOT, 0x0000ffff, 0x00cff100
    bad_iret "iret.ss_read_only", UCS, SLOT + 3, V_GP, SLOT
    descriptor SLOT, 0x0000ffff, 0x00cf7b00
    bad_iret "iret.cs_not_present", SLOT + 3, UDS, V_NP, SLOT
    descriptor SLOT, 0x00000fff, 0x00409b00
    intel_only "iret.eip_beyond_limit (QEMU checks no code limit)"
    bad_iret "iret.eip_beyond_limit", SLOT, KDS, V_GP, 0
    end_only
    ; data segments of the old level become null, conforming code and user data stay
    mov eax, KDS
    mov fs, eax
    mov eax, CONF
    mov gs, eax
    try
    push UDS
    push USTACK_TOP
    push 2
    push UCS
    push A(.user)
    iretd
.user:
    xor eax, eax
    xor ecx, ecx
    mov ax, fs
    mov cx, gs
    int V_BACK
    endtry_fault "iret.to_user", V_BACK, 0, -1
    check "iret.fs_nulled", [f_ax], 0
    check "iret.conforming_gs_kept", [f_cx], CONF
    xor eax, eax
    mov gs, eax
    try_user
    pushfd
    pop eax
    or eax, 0x3200
    push eax
    popfd
    pushfd
    pop eax
    int V_BACK
    endtry_user_fault "popf.user", V_BACK, 0, -1
    checkm "popf.user_keeps_if_iopl", [f_ax], 0x3200, 0
    ; IOPL 3 lets user code change IF but not IOPL
    try
    push UDS
    push USTACK_TOP
    push 0x3002
    push UCS
    push A(.iopl3)
    iretd
.iopl3:
    sti
    pushfd
    pop eax
    cli
    pushfd
    pop ecx
    push 2
    popfd
    pushfd
    pop edi
    in al, 0x21
    int V_BACK
    endtry_fault "iopl3.cli_sti_in", V_BACK, 0, -1
    checkm "iopl3.sti", [f_ax], 0x200, 0x200
    checkm "iopl3.cli", [f_cx], 0x200, 0
    checkm "iopl3.popf_keeps_iopl", [f_di], 0x3000, 0x3000
    ret

call_gates:
    call_gate GATE, KCS, A(target), 0xec, 0
    mov word [far_ptr + 4], GATE + 3
    mov ebx, esp
    try
    call far [far_ptr]
.ret0:
    endtry_fault "callgate.same_level", 0x61, 0, -1
    mov eax, [p_sp]
    sub eax, ebx
    check "callgate.same_level_pushes_8", eax, -8
    check "callgate.return_eip", [p_stack], A(.ret0)
    call_gate GATE, KCS, A(target), 0xec, 2
    try_user
    push 0x1111
    push 0x2222
    call far [far_ptr]
.ret3:
    endtry_user_fault "callgate.from_user", 0x61, 0, -1
    check "callgate.esp0", [p_sp], RSP0_TOP - 24
    check "callgate.pushed_eip", [p_stack], A(.ret3)
    check "callgate.pushed_cs", [p_stack + 4], UCS
    check "callgate.parameter_last", [p_stack + 8], 0x2222
    check "callgate.parameter_first", [p_stack + 12], 0x1111
    check "callgate.pushed_esp", [p_stack + 16], USTACK_TOP - 8
    check "callgate.pushed_ss", [p_stack + 20], UDS
    call_gate GATE, KCS, A(target_return), 0xec, 2
    try_user
    push 0x1111
    push 0x2222
    call far [far_ptr]
    mov ecx, esp
    xor eax, eax
    mov ax, es
    int V_BACK
    endtry_user_fault "callgate.retf_8", V_BACK, 0, -1
    check "callgate.retf_releases_both", [f_cx], USTACK_TOP
    check "callgate.retf_keeps_es", [f_ax], UDS
    check "callgate.ran_at_cpl0", [p_cs], KCS
    call_gate GATE, KCS, A(target), 0xec, 0
    try_user
    jmp far [far_ptr]
    endtry_user_fault "callgate.jmp_cannot_raise", V_GP, KCS
    call_gate GATE, CONF, A(conforming), 0xec, 0
    try_user
    jmp far [far_ptr]
    endtry_user_fault "callgate.jmp_conforming", V_BACK, 0, -1
    check "callgate.conforming_keeps_cpl", [f_cs], CONF + 3
    call_gate GATE, KCS, A(target), 0x8c, 0
    try_user
    call far [far_ptr]
    endtry_user_fault "callgate.dpl", V_GP, GATE
    call_gate GATE, KCS, A(target), 0x6c, 0
    try_user
    call far [far_ptr]
    endtry_user_fault "callgate.not_present", V_NP, GATE
    call_gate GATE, 0, A(target), 0xec, 0
    try
    call far [far_ptr]
    endtry_fault "callgate.target_null", V_GP, 0
    call_gate GATE, KDS, A(target), 0xec, 0
    try
    call far [far_ptr]
    endtry_fault "callgate.target_data", V_GP, KDS
    call_gate GATE, KCS, A(target), 0xec, 0
    ; a 16-bit gate pushes words
    call_gate GATE, CODE16, target16 - image_start, 0xe4, 1
    mov ebx, esp
    try
    call far [far_ptr]
.ret16:
    endtry_fault "callgate.16bit", 0x61, 0, -1
    mov eax, [p_sp]
    sub eax, ebx
    check "callgate.16bit_pushes_4", eax, -4
    check "callgate.16bit_frame", [p_stack], (A(.ret16) & 0xffff) + KCS * 0x10000
    try_user
    push word 0x3333
    call far [far_ptr]
.ret163:
    endtry_user_fault "callgate.16bit_from_user", 0x61, 0, -1
    check "callgate.16bit_esp0", [p_sp], RSP0_TOP - 10
    check "callgate.16bit_user_frame", [p_stack], (A(.ret163) & 0xffff) + UCS * 0x10000
    check "callgate.16bit_parameter", [p_stack + 4], 0x3333 + ((USTACK_TOP - 2) & 0xffff) * 0x10000
    ret
target:
    mov ax, KDS
    mov ds, ax
    mov es, ax
    mov [p_sp], esp
    mov word [p_cs], cs
    mov esi, esp
    mov edi, A(p_stack)
    mov ecx, 6
    rep movsd
    int 0x61
target_return:
    mov word [p_cs], cs
    retf 8
conforming:
    int V_BACK
bits 16
target16:
    mov ax, KDS
    mov ds, ax
    mov [dword p_sp], esp
    mov eax, [ss:esp]
    mov [dword p_stack], eax
    mov eax, [ss:esp + 4]
    mov [dword p_stack + 4], eax
    int 0x61
bits 32

far_transfers:
    mov [saved_sp], esp
    try
    jmp KCS:A(.jumped)
    ud2
.jumped:
    endtry_ok "far.jmp"
    try
    call KCS:A(.called)
.back:
    jmp .after
.called:
    retf
.after:
    endtry_ok "far.call_and_return"
    mov dword [far_ptr], A(.jumped)
%macro bad_jmp 4                ; name, selector, vector, error
    mov word [far_ptr + 4], %2
    try
    jmp far [far_ptr]
    endtry_fault %1, %3, %4
%endmacro
    bad_jmp "far.jmp_null", 0, V_GP, 0
    bad_jmp "far.jmp_beyond", 0x1000, V_GP, 0x1000
    bad_jmp "far.jmp_data", KDS, V_GP, KDS
    bad_jmp "far.jmp_rpl", UCS, V_GP, UCS & ~3
    descriptor SLOT, 0x0000ffff, 0x00cf1b00
    bad_jmp "far.jmp_not_present", SLOT, V_NP, SLOT
    descriptor SLOT, 0x00000fff, 0x00409b00
    intel_only "far.jmp_limit (QEMU checks no code limit)"
    bad_jmp "far.jmp_limit", SLOT, V_GP, 0
    end_only
    mov word [far_ptr + 4], KCS
    try_user
    jmp far [far_ptr]
    endtry_user_fault "far.user_jmp_kernel", V_GP, KCS
    mov word [far_ptr + 4], CONF
    mov dword [far_ptr], A(conforming)
    try_user
    jmp far [far_ptr]
    endtry_user_fault "far.user_jmp_conforming", V_BACK, 0, -1
    check "far.conforming_keeps_cpl", [f_cs], CONF + 3
    ; returns to an outer level
    try
    push UDS
    push USTACK_TOP
    push UCS
    push A(.user)
    retf
.user:
    mov eax, 0x99
    int V_BACK
    endtry_fault "far.retf_to_user", V_BACK, 0, -1
    check "far.retf_ran", [f_ax], 0x99
    check "far.retf_esp", [f_sp], USTACK_TOP
    try
    push UDS
    push USTACK_TOP
    push 0x77
    push UCS
    push A(.user)
    retf 4
    endtry_fault "far.retf_n_to_user", V_BACK, 0, -1
    check "far.retf_n_esp", [f_sp], USTACK_TOP + 4
    try
    push KDS
    push USTACK_TOP
    push UCS
    push A(.user)
.bad:
    retf
    endtry_fault "far.retf_ss_rpl", V_GP, KDS, A(.bad)
    try_user
    push KCS
    push A(.user)
.inner:
    retf
    endtry_user_fault "far.retf_inward", V_GP, KCS, A(.inner)
    ; 16-bit code and back
    mov dword [far_ptr], code16 - image_start
    mov word [far_ptr + 4], CODE16
    try
    call far [far_ptr]
    endtry_ok "far.16bit_code"
    check "far.16bit_wraps_ax", eax, 0x12340000
    ret
bits 16
code16:
    mov eax, 0x1234ffff
    inc ax
    o32 retf
bits 32
    end_image
