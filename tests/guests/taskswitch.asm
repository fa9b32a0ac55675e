; Hardware task switches: JMP, CALL, task gates in GDT and IDT, IRET; busy bits, NT, back link, saved and loaded
; state, errors before and after the switch, the T flag, 16-bit TSS, I/O permission bitmap. SDM 3A chapter 8.
%define BASE32
%include "common.inc"
%include "paging32_common.inc"

%define TB 0x600000             ; 32-bit TSS B
%define T16 0x601000            ; 16-bit TSS
%define TC 0x602000             ; the handler's TSS
%define TC_SEL FREE_SEL + 0x80
%define TB_SEL FREE_SEL
%define T16_SEL FREE_SEL + 8
%define GATE FREE_SEL + 16
%define BAD FREE_SEL + 24
%define LDT_SEL FREE_SEL + 32
%define TB_STACK 0x620000
%define T_LINK 0
%define T_ESP0 4
%define T_SS0 8
%define T_CR3 0x1c
%define T_EIP 0x20
%define T_FL 0x24
%define T_AX 0x28
%define T_CX 0x2c
%define T_DX 0x30
%define T_BX 0x34
%define T_SP 0x38
%define T_BP 0x3c
%define T_SI 0x40
%define T_DI 0x44
%define T_ES 0x48
%define T_CS 0x4c
%define T_SS 0x50
%define T_DS 0x54
%define T_FS 0x58
%define T_GS 0x5c
%define T_LDT 0x60
%define T_TRAP 0x64

%macro tss_descriptor 4         ; selector, address, limit, type byte
    descriptor %1, ((%2) & 0xffff) << 16 | (%3), ((%2) & 0xff000000) | (%4) << 8 | (((%2) >> 16) & 0xff)
%endmacro
%macro check_type 3             ; name, selector, type byte
    movzx eax, byte [gdt + (%2) + 5]
    check %1, eax, %3
%endmacro

; TSS B as it starts at routine %1, at CPL 0; both descriptors as after LTR of the first.
%macro fresh 1
    mov dword [TB + T_EIP], A(%1)
    call fresh_b
%endmacro
fresh_b:
    mov dword [TB + T_LINK], 0
    mov dword [TB + T_ESP0], RSP0_TOP - 0x1000
    mov dword [TB + T_SS0], KDS
    mov eax, cr3
    mov [TB + T_CR3], eax
    mov dword [TB + T_FL], 0x8d7
    mov dword [TB + T_AX], 0xa0a0a0a0
    mov dword [TB + T_CX], 0xc0c0c0c0
    mov dword [TB + T_DX], 0xd0d0d0d0
    mov dword [TB + T_BX], 0xb0b0b0b0
    mov dword [TB + T_SP], TB_STACK
    mov dword [TB + T_BP], 0xb1b1b1b1
    mov dword [TB + T_SI], 0x51515151
    mov dword [TB + T_DI], 0xd1d1d1d1
    mov dword [TB + T_ES], KDS
    mov dword [TB + T_CS], KCS32
    mov dword [TB + T_SS], KDS
    mov dword [TB + T_DS], KDS
    mov dword [TB + T_FS], KDS16
    mov dword [TB + T_GS], 0
    mov dword [TB + T_LDT], 0
    mov dword [TB + T_TRAP], 0x680000
    mov byte [gdt + TB_SEL + 5], 0x89
    ret
; Makes the first TSS current again after a test that stayed in B.
home:
    push eax
    mov byte [gdt + TB_SEL + 5], 0x89
    mov byte [gdt + TSS_SEL + 5], 0x89
    mov ax, TSS_SEL
    ltr ax
    clts
    xor eax, eax
    lldt ax
    mov fs, ax
    mov gs, ax
    pop eax
    ret

align 4
seen: times 16 dd 0
far_tss: dd 0x12345678          ; the offset does not matter
    dw 0
align 4

main:
    mov edi, TB
    mov ecx, 0x800
    xor eax, eax
    rep stosd
    tss_descriptor TB_SEL, TB, 0x67, 0x89
    tss_descriptor TC_SEL, TC, 0x67, 0x89
    tss_descriptor T16_SEL, T16, 0x2b, 0x81
    call jumps
    call calls
    call gates
    call idt_gates
    call errors_before
    call errors_after
    call trap_flag
    call tss16
    call user_task
    call io_bitmap
    jmp finish

; Notes what it started with, then jumps back to the first task.
task_notes:
    mov [seen], eax
    mov [seen + 4], esp
    pushfd
    pop dword [seen + 8]
    str eax
    mov [seen + 12], eax
    mov eax, cr0
    mov [seen + 16], eax
    mov eax, fs
    mov [seen + 20], eax
    mov [seen + 24], edi
    mov [seen + 28], ebx
    movzx eax, byte [gdt + TSS_SEL + 5]
    mov [seen + 32], eax
    movzx eax, byte [gdt + TB_SEL + 5]
    mov [seen + 36], eax
    mov eax, dr7
    mov [seen + 40], eax
    mov eax, 0x77
    mov ecx, 0x88
    jmp TSS_SEL:0
.again:
    mov dword [seen + 44], 1
    jmp TSS_SEL:0

jumps:
    fresh task_notes
    mov eax, 0x401
    mov dr7, eax                ; L0
    mov ebx, 0x1234
    mov esi, 0x5678
    mov edx, esp
    stc
    jmp TB_SEL:0
.back:
    setc al
    movzx edi, al
    intel                       ; QEMU saves stale flags
    check "jmp.flags_come_back", edi, 1
    mov ecx, esp
    check "jmp.esp_comes_back", ecx, edx
    check "jmp.ebx_comes_back", ebx, 0x1234
    check "jmp.esi_comes_back", esi, 0x5678
    check "jmp.loaded_eax", [seen], 0xa0a0a0a0
    check "jmp.loaded_esp", [seen + 4], TB_STACK
    check "jmp.loaded_flags", [seen + 8], 0x8d7
    check "jmp.tr", [seen + 12], TB_SEL
    checkm "jmp.sets_ts", [seen + 16], 8, 8
    check "jmp.loaded_fs", [seen + 20], KDS16
    check "jmp.loaded_edi", [seen + 24], 0xd1d1d1d1
    check "jmp.loaded_ebx", [seen + 28], 0xb0b0b0b0
    check "jmp.old_not_busy", [seen + 32], 0x89
    check "jmp.new_busy", [seen + 36], 0x8b
    checkm "jmp.clears_dr7_l", [seen + 40], 0x55, 0
    check_type "jmp.back_busy", TSS_SEL, 0x8b
    check_type "jmp.b_not_busy", TB_SEL, 0x89
    check "jmp.saved_eip", [tss + T_EIP], A(.back)
    check "jmp.saved_ebx", [tss + T_BX], 0x1234
    intel
    checkm "jmp.saved_flags", [tss + T_FL], 1, 1
    check "jmp.saved_cs", [tss + T_CS], KCS32
    check "jmp.saved_ss", [tss + T_SS], KDS
    check "jmp.b_saved_eip", [TB + T_EIP], A(task_notes.again)
    check "jmp.b_saved_eax", [TB + T_AX], 0x77
    check "jmp.b_saved_ecx", [TB + T_CX], 0x88
    check "jmp.no_link", [TB + T_LINK], 0
    str eax
    check "jmp.tr_back", eax, TSS_SEL
    mov dword [seen + 44], 0
    jmp TB_SEL:0
    check "jmp.second_continues", [seen + 44], 1
    clts
    ret

task_called:
    pushfd
    pop dword [seen]
    mov eax, [TB + T_LINK]
    mov [seen + 4], eax
    movzx eax, byte [gdt + TSS_SEL + 5]
    mov [seen + 8], eax
    mov edx, 0x99
    iretd
.second:
    mov dword [seen + 12], 2
    iretd
calls:
    fresh task_called
    mov edx, 5
    call TB_SEL:0
.back:
    check "call.own_edx", edx, 5
    checkm "call.nt_set", [seen], 0x4000, 0x4000
    check "call.link", [seen + 4], TSS_SEL
    check "call.old_stays_busy", [seen + 8], 0x8b
    check_type "call.b_freed_by_iret", TB_SEL, 0x89
    check_type "call.still_busy", TSS_SEL, 0x8b
    check "call.saved_eip", [tss + T_EIP], A(.back)
    checkm "call.nt_clear_in_saved_image", [TB + T_FL], 0x4000, 0
    check "call.b_saved_eip", [TB + T_EIP], A(task_called.second)
    check "call.b_saved_edx", [TB + T_DX], 0x99
    pushfd
    pop eax
    checkm "call.nt_clear_here", eax, 0x4000, 0
    mov dword [seen + 12], 0
    call TB_SEL:0
    check "call.second_continues", [seen + 12], 2
    clts
    ret

gates:
    fresh task_called
    descriptor GATE, TB_SEL << 16, 0x8500
    call GATE:0
    checkm "gate.call", [seen], 0x4000, 0x4000
    fresh task_notes
    jmp GATE:0
    check "gate.jmp", [seen + 12], TB_SEL
    mov word [far_tss + 4], GATE + 3
    fresh task_called
    try_user
    call far [far_tss]
    endtry_user_fault "gate.dpl", V_GP, GATE
    mov byte [gdt + GATE + 5], 0xe5
    mov dword [seen], 0
    try_user
    call far [far_tss]
    endtry_user_fault "gate.user_call", V_BACK, 0, -1
    checkm "gate.user_call_ran", [seen], 0x4000, 0x4000
    mov byte [gdt + GATE + 5], 0x65
    try
    call far [far_tss]
    endtry_fault "gate.not_present", V_NP, GATE
    descriptor GATE, KDS << 16, 0xe500
    try
    call far [far_tss]
    endtry_fault "gate.not_a_tss", V_GP, KDS
    descriptor GATE, 0x1000 << 16, 0xe500
    try
    call far [far_tss]
    endtry_fault "gate.tss_beyond_gdt", V_GP, 0x1000
    ; user code may not use a TSS of DPL 0
    mov word [far_tss + 4], TB_SEL + 3
    try_user
    call far [far_tss]
    endtry_user_fault "tss.dpl", V_GP, TB_SEL
    clts
    ret

task_handler:
    mov eax, [esp]
    mov [seen], eax
    mov [seen + 4], esp
    pushfd
    pop dword [seen + 8]
    iretd
.again:
    jmp task_handler
task_fault_handler:
    pop dword [seen]            ; error code
    mov eax, [tss + T_EIP]
    mov [seen + 8], eax
    mov dword [tss + T_EIP], A(idt_gates.recovered)
    iretd
idt_gates:
    mov dword [idt + 0x50 * 8], TB_SEL << 16
    mov dword [idt + 0x50 * 8 + 4], 0x8500
    fresh task_handler
    int 0x50
.int:
    check "idt.saved_eip", [tss + T_EIP], A(.int)
    checkm "idt.nt_in_handler", [seen + 8], 0x4000, 0x4000
    check "idt.no_error_code", [seen + 4], TB_STACK
    ; a fault: EIP at the instruction, error code on the new stack
    mov eax, [idt + V_GP * 8]
    mov [seen + 32], eax
    mov eax, [idt + V_GP * 8 + 4]
    mov [seen + 36], eax
    mov dword [idt + V_GP * 8], TB_SEL << 16
    mov dword [idt + V_GP * 8 + 4], 0x8500
    fresh task_fault_handler
    mov eax, 0x1000
.fault:
    mov fs, ax
.recovered:
    check "idt.error_code", [seen], 0x1000
    check "idt.fault_eip", [seen + 8], A(.fault)
    mov eax, [seen + 32]
    mov [idt + V_GP * 8], eax
    mov eax, [seen + 36]
    mov [idt + V_GP * 8 + 4], eax
    mov byte [idt + 0x50 * 8 + 5], 0x05
    try
    int 0x50
    endtry_fault "idt.gate_not_present", V_NP, 0x50 * 8 + 2
    mov byte [idt + 0x50 * 8 + 5], 0x85
    mov byte [gdt + TB_SEL + 5], 0x8b
    try
    int 0x50
    endtry_fault "idt.busy", V_GP, TB_SEL
    mov byte [gdt + TB_SEL + 5], 0x09
    try
    int 0x50
    endtry_fault "idt.tss_not_present", V_NP, TB_SEL
    mov byte [gdt + TB_SEL + 5], 0x89
    clts
    ret

%macro jmp_fault 4              ; name, selector, vector, error
    mov word [far_tss + 4], %2
    try
    jmp far [far_tss]
    endtry_fault %1, %3, %4
%endmacro
errors_before:
    fresh task_notes
    jmp_fault "error.busy_self", TSS_SEL, V_GP, TSS_SEL
    mov byte [gdt + TB_SEL + 5], 0x8b
    jmp_fault "error.busy", TB_SEL, V_GP, TB_SEL
    mov byte [gdt + TB_SEL + 5], 0x09
    jmp_fault "error.not_present", TB_SEL, V_NP, TB_SEL
    mov byte [gdt + TB_SEL + 5], 0x89
    mov word [gdt + TB_SEL], 0x66
    jmp_fault "error.limit", TB_SEL, V_TS, TB_SEL
    mov word [gdt + TB_SEL], 0x67
    str eax
    check "error.tr_unchanged", eax, TSS_SEL
    check_type "error.still_busy", TSS_SEL, 0x8b
    check_type "error.b_not_busy", TB_SEL, 0x89
    ; IRET with NT: the link must name a busy TSS
    mov word [tss + T_LINK], TB_SEL
    try
    push 0x4002
    popfd
.iret1:
    iretd
    endtry_fault "iret.link_not_busy", V_TS, TB_SEL, A(.iret1)
    mov word [tss + T_LINK], KDS
    try
    push 0x4002
    popfd
.iret2:
    iretd
    endtry_fault "iret.link_not_tss", V_TS, KDS, A(.iret2)
    mov word [tss + T_LINK], 0x0c
    try
    push 0x4002
    popfd
.iret3:
    iretd
    endtry_fault "iret.link_in_ldt", V_TS, 0x0c, A(.iret3)
    mov word [tss + T_LINK], 0
    push 2
    popfd
    ret

; What is wrong inside the new task's state is reported in the new task (SDM 3A 8.3).
%macro after_fault 5            ; name, TSS field, value, vector, error
    fresh task_notes
    mov dword [TB + %2], %3
    mov word [far_tss + 4], TB_SEL
    try
    jmp far [far_tss]
    endtry_fault %1, %4, %5, A(task_notes)
    str eax
    %strcat after_name %1, ".in_new_task"
    check after_name, eax, TB_SEL
    call home
%endmacro
; The handler is task C; it goes back to the first task by JMP.
%macro ldt_fault 2              ; name, LDT selector, which is the error code
    fresh task_notes
    mov dword [TB + T_LDT], %2
    call fresh_c
    mov dword [seen], -1
    jmp TB_SEL:0
    check %1, [seen], (%2) & ~3
    %strcat after_name %1, ".link"
    check after_name, [seen + 4], TB_SEL
    %strcat after_name %1, ".eip"
    intel
    check after_name, [TB + T_EIP], A(task_notes)
    call home
%endmacro
fresh_c:
    mov esi, TB
    mov edi, TC
    mov ecx, 0x68 / 4
    rep movsd
    mov dword [TC + T_EIP], A(task_ts)
    mov dword [TC + T_SP], TB_STACK + 0x1000
    mov dword [TC + T_LDT], 0
    mov dword [TC + T_FL], 2
    mov byte [gdt + TC_SEL + 5], 0x89
    ret
task_ts:
    pop dword [seen]
    mov eax, [TC + T_LINK]
    mov [seen + 4], eax
    jmp TSS_SEL:0

errors_after:
    intel_only "after.*: QEMU reports most before the new EIP is in"
    after_fault "after.ds_beyond", T_DS, 0x1000, V_TS, 0x1000
    after_fault "after.fs_system", T_FS, TSS_SEL, V_TS, TSS_SEL
    descriptor BAD, 0x0000ffff, 0x00cf1300
    after_fault "after.gs_not_present", T_GS, BAD, V_NP, BAD
    after_fault "after.es_rpl", T_ES, KDS16 + 3, V_TS, KDS16
    end_only
    ; segment registers are not loaded when the LDT is wrong: only a task can handle it
    mov eax, [idt + V_TS * 8]
    mov [seen + 32], eax
    mov eax, [idt + V_TS * 8 + 4]
    mov [seen + 36], eax
    mov dword [idt + V_TS * 8], TC_SEL << 16
    mov dword [idt + V_TS * 8 + 4], 0x8500
    ldt_fault "after.ldt_beyond", 0x1000
    ldt_fault "after.ldt_is_data", KDS
    descriptor LDT_SEL, 0x0000000f, 0x00000260
    ldt_fault "after.ldt_not_present", LDT_SEL
    ldt_fault "after.ldt_in_ldt", 0x0c
    mov eax, [seen + 32]
    mov [idt + V_TS * 8], eax
    mov eax, [seen + 36]
    mov [idt + V_TS * 8 + 4], eax
    ; a good LDT is loaded
    descriptor LDT_SEL, 0x0000000f, 0x00008263
    fresh task_ldt
    mov dword [TB + T_LDT], LDT_SEL
    jmp TB_SEL:0
    check "after.ldt_loaded", [seen], LDT_SEL
    sldt eax
    check "after.ldt_back", eax, 0
    clts
    ret
task_ldt:
    sldt [seen]
    and dword [seen], 0xffff
    jmp TSS_SEL:0

; T in the new TSS: #DB before its first instruction, with BT in DR6.
trap_flag:
    fresh task_notes
    mov eax, 0xffff0ff0
    mov dr6, eax
    mov dword [TB + T_TRAP], 0x680001
    mov word [far_tss + 4], TB_SEL
    intel_only "trap.bt"
    try
    jmp far [far_tss]
    endtry_fault "trap.db", V_DB, 0, A(task_notes)
    mov eax, dr6
    checkm "trap.bt", eax, 0x8000, 0x8000
    mov eax, 0xffff0ff0
    mov dr6, eax
    call home
    end_only
    ret

; 16-bit TSS: link, sp0 ss0 (x3), ip 0e, flags 10, ax 12, cx, dx, bx, sp 1a, bp, si, di 20, es 22, cs, ss, ds 28, ldt 2a
bits 16
align 16
code16_start:
    mov [seen16 - code16_start], ax     ; ds = this segment, writable
    mov [seen16 - code16_start + 2], sp
    jmp TSS_SEL:0
align 4
seen16: dw 0, 0
bits 32
tss16:
    descriptor BAD, (A(code16_start) & 0xffff) << 16 | 0xffff, 0x00009b00 | (A(code16_start) >> 16)
    descriptor BAD + 24, (A(code16_start) & 0xffff) << 16 | 0xffff, 0x00009300 | (A(code16_start) >> 16)
    mov edi, T16
    mov ecx, 0x2c / 4
    xor eax, eax
    rep stosd
    mov word [T16 + 0x0e], 0
    mov word [T16 + 0x10], 2
    mov word [T16 + 0x12], 0x4711
    mov word [T16 + 0x1a], 0x7000
    mov word [T16 + 0x22], KDS16
    mov word [T16 + 0x24], BAD
    mov word [T16 + 0x26], KDS16
    mov word [T16 + 0x28], BAD + 24
    mov ebx, 0xabcd1234
    jmp T16_SEL:0
    movzx eax, word [seen16]
    check "tss16.ax", eax, 0x4711
    movzx eax, word [seen16 + 2]
    check "tss16.sp", eax, 0x7000
    check "tss16.ebx_back", ebx, 0xabcd1234
    check_type "tss16.not_busy", T16_SEL, 0x81
    mov word [gdt + T16_SEL], 0x2a
    jmp_fault "tss16.limit", T16_SEL, V_TS, T16_SEL
    clts
    ret

user_task:
    fresh task_user
    mov dword [TB + T_CS], UCS32
    mov dword [TB + T_SS], UDS
    mov dword [TB + T_DS], UDS
    mov dword [TB + T_ES], UDS
    mov dword [TB + T_FS], 0
    mov dword [TB + T_SP], USTACK_TOP
    mov dword [TB + T_FL], 2
    try
    call TB_SEL:0
    endtry_fault "user.ran", V_BACK, 0, -1
    check "user.cs", [f_cs], UCS32
    check "user.eax", [f_ax], 0xa0a0a0a1
    check "user.esp0_of_b", [f_frame], RSP0_TOP - 0x1000 - 20
    checkm "user.nt_pushed", [f_fl], 0x4000, 0x4000
    call home
    ret
task_user:
    inc eax
    int V_BACK

; The bitmap of the current TSS decides below IOPL; its base and the limit count.
%macro user_in 3-4 0            ; name, port, allowed, kind: 0 byte, 1 word
    try_user
    mov dx, %2
%%in:
  %if %4
    in ax, dx
  %else
    in al, dx
  %endif
  %if %3
    endtry_user_fault %1, V_BACK, 0, -1
  %else
    endtry_user_fault %1, V_GP, 0, A(%%in)
  %endif
%endmacro
io_bitmap:
    fresh task_notes
    mov edi, TB + 0x68
    mov ecx, 0x40
    mov eax, -1
    rep stosd
    mov byte [TB + 0x68 + 0xe0 / 8], 0xf8   ; e0, e1, e2 open
    mov dword [TB + T_TRAP], 0x680000
    mov word [gdt + TB_SEL], 0x68 + 0x20 - 1    ; ports 0..0xff
    mov byte [gdt + TSS_SEL + 5], 0x89
    mov ax, TB_SEL
    ltr ax
    user_in "io.open", 0xe0, 1
    user_in "io.closed", 0xe3, 0
    user_in "io.word_open", 0xe1, 1, 1
    user_in "io.word_second_closed", 0xe2, 0, 1
    user_in "io.beyond_limit", 0x3f8, 0
    mov byte [TB + 0x68 + 0x1f], 0  ; f8..ff open, but two bytes of the bitmap are read
    user_in "io.needs_second_byte", 0xf8, 0
    mov word [TB + T_TRAP + 2], 0xffff
    user_in "io.base_beyond_limit", 0xe0, 0
    mov word [gdt + TB_SEL], 0x67
    call home
    ret
    end_image
