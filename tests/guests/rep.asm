; Repeated string instructions: page faults in the middle and their restart, interrupts and single steps
; between iterations, overlap, direction, address size, count zero. SDM 2B REP.
%include "common.inc"
%include "irq.inc"
%include "window.inc"      ; sixteen pages of DATA are mapped at TVA

%define PLAIN 0x700000

%macro page 2                   ; index, flags (0 = not present)
  %if %2
    mov qword [abs T_PT + (%1) * 8], DATA + (%1) * 0x1000 + (%2)
  %else
    mov qword [abs T_PT + (%1) * 8], 0
  %endif
    mov rax, TVA + (%1) * 0x1000
    invlpg [rax]
%endmacro

main:
    map_window
%assign i 0
%rep 16
    mov qword [abs T_PT + i * 8], DATA + i * 0x1000 + 3
%assign i i + 1
%endrep
    call faults
    call restarts
    call semantics
    call ports
    call steps
    call interrupted
    jmp finish

%macro where 4                  ; name, rcx, rsi, rdi at the fault
    %strcat where_name %1, ".rcx"
    check where_name, [f_cx], %2
    mov rdx, %3
    %strcat where_name %1, ".rsi"
    check where_name, [f_si], rdx
    mov rdx, %4
    %strcat where_name %1, ".rdi"
    check where_name, [f_di], rdx
%endmacro
faults:
    page 1, 0
    mov esi, PLAIN
    mov rdi, TVA + 0xff0
    mov ecx, 100
    try
    rep movsb
    endtry_fault "movsb.destination", V_PF, 2, first, TVA + 0x1000
    where "movsb.destination", 100 - 16, PLAIN + 16, TVA + 0x1000
    mov rsi, TVA + 0xff0
    mov edi, PLAIN
    mov ecx, 100
    try
    rep movsb
    endtry_fault "movsb.source", V_PF, 0, first, TVA + 0x1000
    where "movsb.source", 100 - 16, TVA + 0x1000, PLAIN + 16
    mov esi, PLAIN
    mov rdi, TVA + 0xff2        ; the fourth element straddles
    mov ecx, 100
    try
    rep movsd
    endtry_fault "movsd.straddling", V_PF, 2, first, TVA + 0x1000
    where "movsd.straddling", 100 - 3, PLAIN + 12, TVA + 0xffe
    mov rdi, TVA + 0xfc0
    mov ecx, 100
    mov esi, 7
    xor eax, eax
    try
    rep stosq
    endtry_fault "stosq", V_PF, 2, first, TVA + 0x1000
    where "stosq", 100 - 8, 7, TVA + 0x1000
    mov rsi, TVA + 0xff0
    mov ecx, 100
    mov edi, 9
    try
    rep lodsw
    endtry_fault "lodsw", V_PF, 0, first, TVA + 0x1000
    where "lodsw", 100 - 8, TVA + 0x1000, 9
    mov rdi, TVA + 0xff0
    mov ecx, 100
    mov esi, 9
    mov eax, 0x55
    try
    repne scasb
    endtry_fault "scasb", V_PF, 0, first, TVA + 0x1000
    where "scasb", 100 - 16, 9, TVA + 0x1000
    mov edi, DATA
    mov ecx, 0x400
    xor eax, eax
    rep stosd
    mov edi, PLAIN
    mov ecx, 0x400
    rep stosd
    mov rsi, TVA + 0xff0
    mov edi, PLAIN
    mov ecx, 100
    try
    repe cmpsb
    endtry_fault "cmpsb", V_PF, 0, first, TVA + 0x1000
    where "cmpsb", 100 - 16, TVA + 0x1000, PLAIN + 16
    ; downwards
    page 1, 3
    page 0, 0
    mov esi, PLAIN + 200
    mov rdi, TVA + 0x1003
    mov ecx, 100
    try
    std
    rep movsb
    endtry_fault "movsb.down", V_PF, 2, -1, TVA + 0xfff
    where "movsb.down", 100 - 4, PLAIN + 196, TVA + 0xfff
    checkm "movsb.down.df_pushed", [f_fl], 0x400, 0x400
    cld
    ; read-only
    page 0, 3
    page 1, 1
    mov esi, PLAIN
    mov rdi, TVA + 0xffc
    mov ecx, 10
    try
    rep movsb
    endtry_fault "movsb.read_only", V_PF, 3, first, TVA + 0x1000
    where "movsb.read_only", 6, PLAIN + 4, TVA + 0x1000
    ; nothing happens with count zero
    page 1, 0
    mov rdi, TVA + 0x1000
    xor ecx, ecx
    cmp ecx, 1
    try
    rep stosb
    endtry_ok "count_zero.no_access"
    stc
    repne scasb
    setc al
    movzx eax, al
    check "count_zero.keeps_flags", rax, 1
    page 0, 3
    and qword [abs T_PT], ~0x60
    mov rax, TVA
    invlpg [rax]
    mov rdi, TVA
    rep stosb
    checkm "count_zero.no_accessed_or_dirty", [abs T_PT], 0x60, 0
    mov rax, 0x8000000000000000
    mov rdi, rax
    try
    rep stosb
    endtry_ok "count_zero.noncanonical"
    mov ecx, 1
    try
    rep stosb
    endtry_fault "noncanonical", V_GP, 0
    ret

; The handler maps the missing page; the instruction carries on by itself.
map_hook:
    mov rax, cr2
    and rax, -0x1000
    mov rcx, rax
    mov rdx, TVA
    sub rcx, rdx
    mov rdx, rcx
    shr rdx, 9
    add rcx, DATA + 3
    mov [abs T_PT + rdx], rcx
    invlpg [rax]
    inc dword [maps]
    ret
align 4
maps: dd 0

%macro unmap_all 0
    mov edi, T_PT
    mov ecx, 16
    xor eax, eax
    rep stosq
    mov rax, cr3
    mov cr3, rax
    mov dword [maps], 0
%endmacro
; Fills PLAIN with a pattern of 16 pages.
pattern:
    mov edi, PLAIN
    xor ecx, ecx
.next:
    imul eax, ecx, 0x9e3779b1
    mov [rdi + rcx * 4], eax
    inc ecx
    cmp ecx, 0x4000
    jne .next
    ret
compare_all:                    ; ecx = bytes that are left to compare after REPE CMPSB; ZF
    mov esi, PLAIN
    mov edi, DATA
    mov ecx, 0x10000
    repe cmpsb
    ret
restarts:
    set_hook V_PF, map_hook
    call pattern
%macro restart 3                ; name, instruction, count
    mov edi, DATA
    mov ecx, 0x4000
    xor eax, eax
    rep stosd
    unmap_all
    mov esi, PLAIN
    mov rdi, TVA
    mov ecx, %3
    rep %2
    %strcat restart_name %1, ".faults"
    check32 restart_name, [maps], 16
    mov rdx, TVA + 0x10000
    %strcat restart_name %1, ".rdi"
    check restart_name, rdi, rdx
    call compare_all
    %strcat restart_name %1, ".equal"
    check restart_name, rcx, 0
%endmacro
    restart "restart.movsb", movsb, 0x10000
    restart "restart.movsw", movsw, 0x8000
    restart "restart.movsd", movsd, 0x4000
    restart "restart.movsq", movsq, 0x2000
    unmap_all
    mov rsi, TVA
    mov edi, PLAIN
    mov ecx, 0x10000
    repe cmpsb
    setz al
    movzx eax, al
    check "restart.cmpsb_equal", rax, 1
    check32 "restart.cmpsb_faults", [maps], 16
    ; every element straddles a boundary once per page
    unmap_all
    mov esi, PLAIN
    mov rdi, TVA + 3
    mov ecx, 0x1fff
    rep movsq
    check32 "restart.straddling_faults", [maps], 16
    mov esi, PLAIN
    mov edi, DATA + 3
    mov ecx, 0x1fff * 8
    repe cmpsb
    check "restart.straddling_equal", rcx, 0
    set_hook V_PF, 0
    ret

semantics:
    mov edi, PLAIN
    mov ecx, 64
    xor eax, eax
    rep stosd
    mov byte [abs PLAIN], 0xab
    mov esi, PLAIN
    mov edi, PLAIN + 1
    mov ecx, 40
    rep movsb
    mov eax, [abs PLAIN + 37]
    check32 "overlap.byte_fill", eax, 0xabababab
    mov eax, [abs PLAIN + 40]
    check32 "overlap.byte_end", eax, 0x000000ab
    mov dword [abs PLAIN], 0x04030201
    mov dword [abs PLAIN + 4], 0x08070605
    mov esi, PLAIN
    mov edi, PLAIN + 3
    mov ecx, 2
    rep movsd
    mov rax, [abs PLAIN]
    mov eax, [abs PLAIN + 7]
    ; first: bytes 3..6 = 1 2 3 4; then source 4..7 = 2 3 4 8 -> 7..10
    check32 "overlap.dword_second_sees_first", eax, 0x08040302
    mov edi, PLAIN
    mov ecx, 16
    xor eax, eax
    rep stosd
    mov byte [abs PLAIN + 10], 7
    mov edi, PLAIN
    mov ecx, 40
    mov al, 7
    repne scasb
    check "scasb.found_rcx", rcx, 29
    check "scasb.found_rdi", rdi, PLAIN + 11
    mov edi, PLAIN
    mov ecx, 10
    repne scasb
    setnz al
    movzx eax, al
    check "scasb.not_found", rax, 1
    mov esi, PLAIN + 1
    mov edi, PLAIN + 20
    mov ecx, 15
    repe cmpsb
    check "cmpsb.differs_rcx", rcx, 5
    ; address size 32: the upper halves are cleared, ECX counts
    mov rcx, 0x500000004
    mov rdi, 0x100000000 + PLAIN
    mov eax, 0x5a5a5a5a
    a32 rep stosd
    check "a32.rcx", rcx, 0
    check "a32.rdi", rdi, PLAIN + 16
    check32 "a32.stored", [abs PLAIN + 12], 0x5a5a5a5a
    ; a segment base applies to the source only
    wrmsr_imm 0xc0000100, 0x100
    mov dword [abs PLAIN + 0x100], 0x77
    mov esi, PLAIN
    mov edi, PLAIN + 0x200
    mov ecx, 1
    fs rep movsd
    check32 "segment.fs_source", [abs PLAIN + 0x200], 0x77
    wrmsr_imm 0xc0000100, 0
    ; REP before other instructions is ignored; 66 with REP gives words
    mov ecx, 5
    db 0xf3
    nop
    check "ignored.pause", rcx, 5
    mov edi, PLAIN
    mov ecx, 3
    mov eax, 0x1111
    db 0x66, 0xf3, 0xab
    check "prefix.66_before_f3", rdi, PLAIN + 6
    mov edi, PLAIN
    mov ecx, 3
    db 0x66, 0xf3, 0x48, 0xab
    check "prefix.rex_w_wins", rdi, PLAIN + 24
    ret

ports:
    need_testdev "INS and OUTS"
    mov dword [abs PLAIN], 0x44332211
    mov esi, PLAIN
    mov ecx, 4
    mov dx, 0xe0
    rep outsb
    in al, dx
    movzx eax, al
    check "outsb.last", rax, 0x44
    check "outsb.rsi", rsi, PLAIN + 4
    mov edi, PLAIN + 16
    mov ecx, 3
    rep insb
    mov eax, [abs PLAIN + 16]
    and eax, 0xffffff
    check32 "insb.stored", eax, 0x444444
    mov eax, 0xcafe1234
    out dx, eax
    mov rdi, TVA + 0xffc
    page 0, 3
    page 1, 0
    mov ecx, 3
    mov esi, 5
    mov dx, 0xe0
    try
    rep insd
    endtry_fault "insd.fault", V_PF, 2, first, TVA + 0x1000
    where "insd.fault", 2, 5, TVA + 0x1000
    check32 "insd.first_stored", [abs DATA + 0xffc], 0xcafe1234
    mov rsi, TVA + 0xffc
    mov ecx, 3
    mov edi, 5
    try
    rep outsd
    endtry_fault "outsd.fault", V_PF, 0, first, TVA + 0x1000
    where "outsd.fault", 2, TVA + 0x1000, 5
    page 1, 3
    end_only
    ret

; One #DB for every iteration, at the instruction until the last.
step_hook:
    mov eax, [step_n]
    mov rcx, [rdi + F_RIP]
    mov [step_rip + rax * 8], rcx
    mov rcx, [rdi + F_CX]
    mov [step_rcx + rax * 8], rcx
    inc dword [step_n]
    and dword [step_n], 7
    ret
align 8
step_n: dd 0
step_rip: times 8 dq 0
step_rcx: times 8 dq 0
steps:
    set_hook V_DB, step_hook
    mov esi, PLAIN
    mov edi, PLAIN + 0x100
    mov ecx, 3
    push 0x102
    popfq
.rep:
    rep movsb
.next:
    push 2
    popfq
.end:
    check "step.first_rip", [step_rip], A(.rep)
    check "step.first_rcx", [step_rcx], 2
    check "step.second_rip", [step_rip + 8], A(.rep)
    check "step.second_rcx", [step_rcx + 8], 1
    check "step.third_rip", [step_rip + 16], A(.next)
    check "step.third_rcx", [step_rcx + 16], 0
    check32 "step.count", [step_n], 5   ; three iterations, PUSH, POPF
    ; count zero: one step
    mov dword [step_n], 0
    xor ecx, ecx
    push 0x102
    popfq
    rep movsb
.after:
    push 2
    popfq
    check "step.count_zero", [step_rip], A(.after)
    set_hook V_DB, 0
    ret

; A timer interrupts long moves; what matters is that nothing is lost or done twice.
tick_hook:
    inc dword [ticks]
    mov rax, [rdi + F_RIP]
    cmp rax, [tick_at]
    jne .end
    cmp qword [rdi + F_CX], 0
    je .end
    inc dword [ticks_inside]
.end:
    apic_write APIC_EOI, 0
    ret
align 8
ticks: dd 0
ticks_inside: dd 0
tick_at: dq 0
%define BIG 0x1000000
%define BIG_SIZE 0x100000
interrupted:
    call apic_enable
    call pic_init
    set_hook 0x60, tick_hook
    apic_write APIC_TDCR, 0xb
    apic_write APIC_LVTT, 0x20060
    mov dword [ticks_inside], 0
    mov rax, A(.stos)
    mov [tick_at], rax
    apic_write APIC_TMICT, 100003
    mov ebx, 20
.round:
    mov edi, BIG
    mov ecx, BIG_SIZE
    mov r12d, ebx
    mov eax, ebx
    sti
    nop                         ; ends the shadow, which QEMU keeps for the whole REP
.stos:
    rep stosb
    cli
    cmp edi, BIG + BIG_SIZE
    jne .wrong
    test rcx, rcx
    jne .wrong
    cmp dword [ticks_inside], 3
    jae .enough
    dec ebx
    jnz .round
.enough:
    mov eax, [ticks_inside]
    cmp eax, 3
    setae al
    movzx eax, al
    check "interrupted.inside_stosb", rax, 1
    mov edi, BIG
    mov ecx, BIG_SIZE
    mov eax, r12d
    repe scasb
    setz al
    movzx eax, al
    check "interrupted.all_stored", rax, 1
    check "interrupted.none_left", rcx, 0
    mov dword [ticks_inside], 0
    mov rax, A(.scas)
    mov [tick_at], rax
    mov edi, BIG
    mov ecx, BIG_SIZE
    mov eax, r12d
    sti
    nop
.scas:
    repe scasb
    cli
    check "interrupted.scasb_rdi", rdi, BIG + BIG_SIZE
    apic_write APIC_TMICT, 0
    ret
.wrong:
    check "interrupted.registers", rdi, BIG + BIG_SIZE
    ret
    end_image
