; Segmentation in 32-bit protected mode: limits, types, rights, expand-down, null, accessed bits, LDT, LAR, LSL,
; VERR, VERW, ARPL, far pointer loads, 16-bit stacks. SDM 3A chapters 3 and 5. QEMU checks no limits and no
; types on access, so those checks are for Intel behaviour only.
%define BASE32
%include "common.inc"
%include "user32.inc"

; A segment in a slot: selector, base, limit, access byte, flags nibble (G B L AVL)
%macro seg_desc 5
    descriptor %1, ((%2) & 0xffff) << 16 | ((%3) & 0xffff), \
        ((%2) & 0xff000000) | (%5) << 20 | ((%3) & 0xf0000) | (%4) << 8 | (((%2) >> 16) & 0xff)
%endmacro
%define S1 FREE_SEL
%define S2 FREE_SEL + 8
%define S3 FREE_SEL + 16
%define BUF 0x600000
%define LDTBUF 0x610000

main:
    mov edi, BUF
    mov ecx, 0x8000
    xor eax, eax
    rep stosd
    call limits
    call rights
    call loads
    call user_loads
    call ldt
    call queries
    call far_pointers
    call stacks
    jmp finish

%macro access_ok 2+             ; name, instruction
    intel
    try
    %2
    endtry_ok %1
%endmacro
%macro access_fault 4+          ; name, vector, error, instruction
    intel
    try
    %4
    endtry_fault %1, %2, %3
%endmacro

limits:
    seg_desc S1, BUF, 0xfff, 0x93, 4
    mov eax, S1
    mov fs, eax
    access_ok "limit.dword_last", mov eax, [fs:0xffc]
    access_fault "limit.dword_one_over", V_GP, 0, mov eax, [fs:0xffd]
    access_ok "limit.byte_last", mov al, [fs:0xfff]
    access_fault "limit.byte_over", V_GP, 0, mov al, [fs:0x1000]
    access_fault "limit.write_over", V_GP, 0, mov [fs:0xffe], eax
    access_fault "limit.top", V_GP, 0, mov al, [fs:0xffffffff]
    access_fault "limit.wraps_offset", V_GP, 0, mov eax, [fs:0xfffffffe]
    seg_desc S1, BUF, 0, 0x93, 0xc   ; one page by granularity
    mov eax, S1
    mov fs, eax
    access_ok "limit.page_granular_last", mov eax, [fs:0xffc]
    access_fault "limit.page_granular_over", V_GP, 0, mov al, [fs:0x1000]
    seg_desc S1, 0, 0xfff, 0x97, 4   ; expand down: above 0xfff
    mov eax, S1
    mov fs, eax
    access_fault "expand_down.below", V_GP, 0, mov al, [fs:0xfff]
    access_ok "expand_down.above", mov al, [fs:0x1000]
    access_ok "expand_down.to_4g", mov al, [fs:0xfee00020]
    access_fault "expand_down.straddles", V_GP, 0, mov eax, [fs:0xffe]
    seg_desc S1, 0, 0xfff, 0x97, 0   ; B clear: up to 64 KiB
    mov eax, S1
    mov fs, eax
    access_ok "expand_down.16bit_top", mov al, [fs:0xffff]
    access_fault "expand_down.16bit_over", V_GP, 0, mov al, [fs:0x10000]
    seg_desc S1, 0xfffff000, 0xfffff, 0x93, 0xc
    mov eax, S1
    mov fs, eax
    mov dword [BUF], 0x1234
    mov eax, [fs:BUF + 0x1000]
    check "base.wraps_at_4g", eax, 0x1234
    ; SS
    seg_desc S1, 0, 0x300, 0x93, 0xc ; 0..0x300fff
    mov eax, S1
    intel_only "ss.limit"
    try
    mov ss, eax
    mov ebp, 0x301000
.ss:
    mov eax, [ebp]
    endtry_fault "ss.limit", V_SS, 0, A(.ss)
    try
    mov eax, S1
    mov ss, eax
    mov ebp, 0x300ffd
.ss2:
    mov eax, [ebp]
    endtry_fault "ss.limit_straddles", V_SS, 0, A(.ss2)
    try
    mov eax, S1
    mov ss, eax
    mov ebp, 0x300ffc
    mov eax, [ebp]
    mov eax, [ds:ebp + 0x1000]
    mov eax, KDS
    mov ss, eax
    endtry_ok "ss.within"
    end_only
    ; code: the fetch beyond the limit
    intel_only "cs.limit"
    seg_desc S1, A(.code), .code_end - .code - 1, 0x9b, 4
    try
    call S1:0
    endtry_fault "cs.jump_beyond", V_GP, 0, 1
    check "cs.jump_beyond_cs", [f_cs], S1
    try
    call S1:(.straddle - .code)
    endtry_fault "cs.fetch_straddles", V_GP, 0, .straddle - .code
    end_only
    ret
.code:
    nop
    jmp .code_end
.straddle:
    db 0xb8, 1, 2               ; a MOV cut by the limit
.code_end:
    db 3, 4, 0xc3

rights:
    seg_desc S1, BUF, 0xfff, 0x91, 4
    mov eax, S1
    mov fs, eax
    access_ok "type.read_only_read", mov eax, [fs:0]
    access_fault "type.read_only_write", V_GP, 0, mov [fs:0], eax
    access_fault "type.read_only_rmw", V_GP, 0, add dword [fs:0], 0
    seg_desc S1, BUF, 0xfff, 0x9b, 4
    mov eax, S1
    mov fs, eax
    access_ok "type.code_readable", mov eax, [fs:0]
    access_fault "type.code_write", V_GP, 0, mov [fs:0], eax
    mov dword [BUF + 0x20], eax
    try
    mov eax, [cs:BUF]
    endtry_ok "type.cs_read"
    access_fault "type.cs_write", V_GP, 0, mov [cs:BUF + 0x20], eax
    intel_only "type.execute_only"
    seg_desc S1, 0, 0xfffff, 0x99, 0xc
    try
    jmp S1:A(.exec_only)
.exec_only:
    mov eax, [cs:BUF]
    endtry_fault "type.execute_only_read", V_GP, 0, A(.exec_only)
    end_only
    xor eax, eax
    mov fs, eax
    try
    nop
    endtry_ok "null.load"
    access_fault "null.read", V_GP, 0, mov eax, [fs:0]
    mov eax, 3
    mov fs, eax
    mov ebx, fs
    check "null.keeps_rpl", ebx, 3
    access_fault "null.rpl3_write", V_GP, 0, mov [fs:BUF + 0x20], eax
    try
    mov ss, eax
    endtry_fault "null.ss", V_GP, 0
    xor eax, eax
    try
    mov ss, eax
    endtry_fault "null.ss0", V_GP, 0
    ret

%macro load_fault 5             ; name, register, selector, vector, error
    mov eax, %3
    try
    mov %2, eax
    endtry_fault %1, %4, %5
%endmacro
%macro load_ok 3
    mov eax, %3
    try
    mov %2, eax
    endtry_ok %1
%endmacro
loads:
    load_fault "load.beyond", fs, 0x1000, V_GP, 0x1000
    load_fault "load.system_segment", fs, TSS_SEL, V_GP, TSS_SEL
    seg_desc S1, 0, 0xfffff, 0x98, 0xc
    load_fault "load.execute_only", fs, S1, V_GP, S1
    seg_desc S1, 0, 0xfffff, 0x92, 0xc
    load_fault "load.rpl_above_dpl", fs, S1 + 3, V_GP, S1
    checkm "load.failed_sets_no_accessed", [gdt + S1 + 4], 0x100, 0
    load_ok "load.data", fs, S1
    checkm "load.sets_accessed", [gdt + S1 + 4], 0x100, 0x100
    seg_desc S1, 0, 0xfffff, 0x9e, 0xc
    load_ok "load.conforming_any_rpl", fs, S1 + 3
    seg_desc S1, 0, 0xfffff, 0x12, 0xc
    load_fault "load.not_present", gs, S1, V_NP, S1
    mov ebx, gs
    load_fault "load.np_again", gs, S1 + 0, V_NP, S1
    mov ecx, gs
    check "load.failed_keeps_register", ecx, ebx
    load_fault "ss.rpl", ss, KDS + 1, V_GP, KDS
    load_fault "ss.code", ss, KCS32, V_GP, KCS32
    load_fault "ss.dpl", ss, UDS & ~3, V_GP, UDS & ~3
    load_fault "ss.not_present", ss, S1, V_SS, S1
    seg_desc S1, 0, 0xfffff, 0x91, 0xc
    load_fault "ss.read_only", ss, S1, V_GP, S1
    load_fault "ss.beyond", ss, 0x1000, V_GP, 0x1000
    try
    mov fs, [KDS16_LITERAL]
    endtry_ok "load.from_memory"
    mov eax, -1
    mov fs, [KDS16_LITERAL]
    mov eax, fs
    check "load.store_zero_extends", eax, KDS16
    ; POP keeps ESP when it faults
    mov ebx, esp
    push 0x1000
    mov esi, esp
    try
    pop fs
    endtry_fault "pop.bad_selector", V_GP, 0x1000
    mov esp, ebx
    try
    push KDS
    mov edi, esp
    pop fs
    mov edx, esp
    endtry_ok "pop.good"
    sub edx, edi
    check "pop.takes_4", edx, 4
    mov eax, 0xffffffff
    push eax
    push fs
    pop eax
    movzx eax, ax
    check "push.selector", eax, KDS
    pop eax
    ret
KDS16_LITERAL: dw KDS16

user_loads:
    seg_desc S1, 0, 0xfffff, 0x93, 0xc   ; DPL 0
    seg_desc S2, 0, 0xfffff, 0x9f, 0xc   ; conforming, readable, DPL 0
    seg_desc S3, 0, 0xfffff, 0xd3, 0xc   ; DPL 2
    try_user
    mov ax, S1
.u1:
    mov fs, ax
    endtry_user_fault "user.kernel_data", V_GP, S1, A(.u1)
    try_user
    mov ax, S1 + 3
.u2:
    mov fs, ax
    endtry_user_fault "user.kernel_data_rpl3", V_GP, S1, A(.u2)
    try_user
    mov ax, S3
.u3:
    mov fs, ax
    endtry_user_fault "user.dpl2_data", V_GP, S3, A(.u3)
    try_user
    mov ax, S2
    mov fs, ax
    mov eax, [fs:BUF]
    mov ax, UDS & ~3
    mov fs, ax
    endtry_user_fault "user.conforming_and_own", V_BACK, 0, -1
    try_user
    mov ax, KDS
.u4:
    mov ss, ax
    endtry_user_fault "user.ss_kernel", V_GP, KDS, A(.u4)
    try_user
    mov ax, UDS & ~3
.u5:
    mov ss, ax
    endtry_user_fault "user.ss_rpl0", V_GP, UDS & ~3, A(.u5)
    try_user
    sgdt [BUF]
    endtry_user_fault "user.sgdt_without_umip", V_BACK, 0, -1
    ret

ldt:
    seg_desc S1, LDTBUF, 0x17, 0x82, 0
    mov dword [LDTBUF + 8], (BUF & 0xffff) << 16 | 0xfff
    mov dword [LDTBUF + 12], 0x00409200 | (BUF >> 16)
    mov dword [LDTBUF], 0x0000ffff  ; slot 0 of an LDT is usable
    mov dword [LDTBUF + 4], 0x00cf9200
    mov eax, S1
    lldt ax
    sldt eax
    check "ldt.sldt", eax, S1
    mov dword [BUF + 4], 0xabcd
    mov eax, 0x0c
    mov fs, eax
    mov eax, [fs:4]
    check "ldt.segment", eax, 0xabcd
    load_ok "ldt.slot_0", fs, 4
    load_fault "ldt.limit", fs, 0x1c, V_GP, 0x1c
    mov dword [LDTBUF + 0x14], 0x00409200
    load_ok "ldt.last_slot", fs, 0x14
    seg_desc S2, LDTBUF, 0x17, 0x02, 0
    mov eax, S2
    try
    lldt ax
    endtry_fault "lldt.not_present", V_NP, S2
    mov eax, 0x0c
    try
    lldt ax
    endtry_fault "lldt.from_ldt", V_GP, 0x0c
    mov eax, KDS
    try
    lldt ax
    endtry_fault "lldt.data", V_GP, KDS
    xor eax, eax
    lldt ax
    load_fault "ldt.null", fs, 0x0c, V_GP, 0x0c
    mov eax, KDS
    mov fs, eax
    ret

%macro query 5                  ; name, instruction, selector, ZF expected, result expected
    mov eax, 0x77777777
    mov ecx, %3
    %2 eax, ecx
    setz bl
    movzx ebx, bl
    %strcat query_name %1, ".zf"
    check query_name, ebx, %4
  %ifidn %2, lar
    checkm %1, eax, 0xfff0ffff, (%5) & 0xfff0ffff   ; bits 19:16 are undefined
  %else
    check %1, eax, %5
  %endif
%endmacro
%macro verify 4                 ; name, instruction, selector, ZF expected
    mov ecx, %3
    %2 cx
    setz bl
    movzx ebx, bl
    check %1, ebx, %4
%endmacro
queries:
    seg_desc S1, 0x12345678, 0x54321, 0x92, 0x5
    seg_desc S2, 0, 0xfffff, 0x98, 0xc   ; execute only, DPL 0
    seg_desc S3, 0, 0xfffff, 0x9e, 0xc   ; conforming, readable
    query "lar.data", lar, S1, 1, 0x00559200
    query "lar.code", lar, KCS32, 1, 0x00cf9b00
    query "lar.tss", lar, TSS_SEL, 1, 0x00008b00
    query "lar.null", lar, 0, 0, 0x77777777
    query "lar.beyond", lar, 0x1000, 0, 0x77777777
    query "lar.rpl_above_dpl", lar, S1 + 3, 0, 0x77777777
    query "lar.conforming_any_rpl", lar, S3 + 3, 1, 0x00cf9e00
    query "lsl.byte_granular", lsl, S1, 1, 0x54321
    query "lsl.page_granular", lsl, KDS, 1, 0xffffffff
    query "lsl.tss", lsl, TSS_SEL, 1, 0x67
    query "lsl.null", lsl, 0, 0, 0x77777777
    verify "verr.data", verr, S1, 1
    verify "verw.data", verw, S1, 1
    verify "verr.execute_only", verr, S2, 0
    verify "verr.conforming_rpl3", verr, S3 + 3, 1
    verify "verw.code", verw, S3, 0
    verify "verr.rpl", verr, S1 + 3, 0
    verify "verr.null", verr, 0, 0
    verify "verr.system", verr, TSS_SEL, 0
    verify "verr.beyond", verr, 0x1000, 0
    descriptor S2, A(main) & 0xffff | KCS32 << 16, 0x00008c00 | (A(main) & 0xffff0000)
    query "lar.call_gate", lar, S2, 1, 0x00008c00 | (A(main) & 0x00ff0000)
    query "lsl.call_gate", lsl, S2, 0, 0x77777777
    descriptor S2, 0, 0x00008e00
    query "lar.interrupt_gate", lar, S2, 0, 0x77777777
    descriptor S2, 0, 0x00008200
    query "lar.ldt", lar, S2, 1, 0x00008200
    seg_desc S1, 0, 0xfffff, 0x12, 0xc
    query "lar.not_present_is_fine", lar, S1, 1, 0x00cf1200
    mov ax, 0x50
    mov cx, 3
    arpl ax, cx
    setz bl
    movzx ebx, bl
    check "arpl.raises_zf", ebx, 1
    movzx eax, ax
    check "arpl.raises", eax, 0x53
    mov cx, 1
    arpl ax, cx
    setz bl
    movzx ebx, bl
    check "arpl.keeps_zf", ebx, 0
    movzx eax, ax
    check "arpl.keeps", eax, 0x53
    sgdt [BUF + 0x40]
    movzx eax, word [BUF + 0x40]
    check "sgdt.limit", eax, gdt_end - gdt - 1
    check "sgdt.base", [BUF + 0x42], A(gdt)
    sidt [BUF + 0x40]
    movzx eax, word [BUF + 0x40]
    check "sidt.limit", eax, idt_end - idt - 1
    check "sidt.base", [BUF + 0x42], A(idt)
    smsw eax
    mov ecx, cr0
    check "smsw", eax, ecx
    str eax
    check "str", eax, TSS_SEL
    ret

far_pointers:
    mov dword [BUF + 0x80], 0x11223344
    mov word [BUF + 0x84], KDS16
    xor edi, edi
    lfs edi, [BUF + 0x80]
    check "lfs.offset", edi, 0x11223344
    mov eax, fs
    check "lfs.selector", eax, KDS16
    mov word [BUF + 0x84], 0x1000
    mov edi, 5
    try
    les edi, [BUF + 0x80]
    endtry_fault "les.bad_selector", V_GP, 0x1000
    check "les.keeps_register", edi, 5
    lss edx, [.pointer]
    mov eax, ss
    check "lss.selector", eax, KDS
    check "lss.offset", edx, 0x9999
    try
    db 0xc5, 0xc0               ; LDS with a register is VEX territory: #UD in any case without AVX on
    endtry_fault "lds.register", V_UD, 0
    ret
align 8
.pointer: dd 0x9999
    dw KDS

stacks:
    ; a 16-bit stack: only SP moves, and wraps
    seg_desc S1, BUF, 0xffff, 0x93, 0
    mov [saved_sp], esp
    mov eax, S1
    mov ebx, 0x12340000
    mov ss, eax
    mov esp, ebx
    push 0x55667788
    mov ecx, esp
    mov eax, KDS
    mov ss, eax
    mov esp, [saved_sp]
    check "stack16.sp_wraps", ecx, 0x1234fffc
    ret
align 4
saved_sp: dd 0
    end_image
