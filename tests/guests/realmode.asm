; Real mode: segments and their 64 KiB, the interrupt table, faults, 16- and 32-bit addressing, big real mode,
; wraparound, A20, hardware interrupts. Parts run as routines at 0x1000:0000 and leave results in memory.
; SDM 3B chapter 21.
%define BASE32
%include "common.inc"

%define LOW 0x10000             ; where the 16-bit part is copied; its segment is 0x1000
%define RES 0x20000             ; results, segment 0x2000
%define R(x) ((x) - rm_start)
%define RSTACK 0x8000           ; ss = 0x3000, so 0x38000

main:
    mov esi, A(rm_start)
    mov edi, LOW
    mov ecx, rm_end - rm_start
    rep movsb
    mov edi, RES
    mov ecx, 0x4000
    xor eax, eax
    rep stosd
    call basics
    call faults
    call addressing
    call big_real
    call hardware
    jmp finish

%include "realmode.inc"

basics:
    real r_basics
    result "real.cr0_pe_clear", 0, 0
    result "real.cs", 1, 0x1000
    result "real.ds_times_16", 2, 0x11223344
    result "real.ss_push", 3, 0xbeef
    result "real.sp", 4, RSTACK - 2
    result "real.far_call", 5, 0x77
    result "real.int_pushed_ip", 6, R(r_basics.after_int)
    result "real.int_pushed_cs", 7, 0x1000
    checkm "real.int_pushed_flags", [RES + 8 * 4], 0x0301, 0x0201
    checkm "real.int_clears_if", [RES + 9 * 4], 0x0300, 0
    result "real.int_sp", 10, RSTACK - 6
    checkm "real.iret_restores_flags", [RES + 11 * 4], 0x0201, 0x0201
    result "real.hma", 12, [IMG]
    result "real.smsw", 13, 0
    checkm "real.popf_iopl", [RES + 14 * 4], 0x7000, 0x7000
    result "real.lds_offset", 15, 0x5678
    result "real.lds_segment", 16, 0x2100
    result "real.mov_from_cs", 17, 0x1000
    ret

faults:
    real r_faults
    result "fault.de_vector", 20, 0
    result "fault.de_ip", 21, R(r_faults.div)
    result "fault.ud_vector", 22, 6
    result "fault.ud_ip", 23, R(r_faults.ud)
    result "fault.int3", 24, 3
    result "fault.into", 25, 4
    result "fault.bound", 26, 5
    result "fault.no_error_code", 27, RSTACK - 6
    intel
    result "fault.limit_gp", 28, 13
    intel
    result "fault.limit_ip", 29, R(r_faults.limit)
    intel
    result "fault.word_at_ffff", 30, 13
    intel
    result "fault.32bit_offset", 31, 13
    intel
    result "fault.stack_limit", 32, 12
    result "fault.lldt_ud", 33, 6
    result "fault.lar_ud", 34, 6
    result "fault.arpl_ud", 35, 6
    result "fault.ltr_ud", 36, 6
    intel
    result "fault.int_beyond_idt", 37, 13
    result "fault.lock_ud", 38, 6
    result "fault.step", 39, 1
    result "fault.step_ip", 40, R(r_faults.stepped)
    ret

addressing:
    real r_addressing
    result "address.bx_si_wraps", 50, 0xaa55aa55
    result "address.bp_uses_ss", 51, 0x1357
    result "address.esp_32bit", 52, 0x1357
    result "address.scaled_32bit", 53, 0xcafe
    result "address.stos_wraps_di", 54, 0x0008
    result "address.stos_wrapped_byte", 55, 0x77
    result "address.cx_only", 56, 0x50000
    result "address.sp_wraps", 57, 0xfffe
    result "address.push_dword", 58, 0x12345678
    result "address.loop_uses_cx", 59, 0xffff0000
    result "address.jcxz", 60, 1
    result "address.xlat", 61, 0x99
    result "address.es_override", 62, 0x4321
    result "address.lea_16", 63, 0xffff0004
    result "address.enter", 64, RSTACK - 12
    result "address.pusha", 65, RSTACK - 16
    result "address.ip_wraps_in_jump", 66, 1
    ret

big_real:
    mov dword [0x600000], 0x5ca1ab1e
    real r_big
    result "big.reads_above_64k", 70, 0x5ca1ab1e
    result "big.base_follows_selector", 71, 0x5ca1ab1e
    result "big.limit_survives_loads", 72, 0x5ca1ab1e
    ret

hardware:
    ; PIT through the interrupt table
    mov al, 0x11
    out 0x20, al
    mov al, 0x08
    out 0x21, al
    mov al, 4
    out 0x21, al
    mov al, 1
    out 0x21, al
    mov dword [0xfee000f0], 0x1ff
    mov dword [0xfee00350], 0x700
    real r_hardware
    result "irq.ticks", 80, 3
    result "irq.hlt_ip", 81, R(r_hardware.halted)
    result "irq.sti_shadow_ip", 82, R(r_hardware.shadowed)
    mov al, 0xff
    out 0x21, al
    ret

; ------------------------------------------------------------------------------------------ real mode code
bits 16
align 16
rm_start:
r_enter:                        ; bx = routine
    mov eax, cr0
    and al, 0xfe
    mov cr0, eax
    jmp 0x1000:R(.real)
.real:
    mov ax, 0x2000
    mov ds, ax
    mov es, ax
    xor ax, ax
    mov fs, ax
    mov ax, 0x3000
    mov ss, ax
    mov sp, RSTACK
    push 2
    popf
    mov sp, RSTACK
    call bx
r_leave:
    cli
    mov eax, cr0
    or al, 1
    mov cr0, eax
    jmp dword KCS32:A(rm_return)

; A handler that notes and returns to the address in r_resume with the stack as at the start.
note_vec: dw 0
note_ip: dw 0
note_sp: dw 0
note_fl: dw 0
resume: dw 0
%macro handler 1
h%1:
    mov word [cs:R(note_vec)], %1
    jmp noted
%endmacro
    handler 0
    handler 1
    handler 3
    handler 4
    handler 5
    handler 6
    handler 12
    handler 13
noted:
    mov [cs:R(note_sp)], sp
    pop word [cs:R(note_ip)]
    pop ax
    pop word [cs:R(note_fl)]
    mov sp, RSTACK - 2
    mov ax, 0x2000
    mov ds, ax
    mov es, ax
    mov ax, 0x3000
    mov ss, ax
    jmp [cs:R(resume)]

r_basics:
    mov eax, cr0
    and eax, 1
    store 0, eax
    xor eax, eax
    mov ax, cs
    store 1, eax
    mov dword [0x400], 0x11223344
    mov ax, 0x1fff
    mov ds, ax
    mov eax, [0x410]
    store 2, eax
    mov ax, 0x2000
    mov ds, ax
    pop dx                      ; return address
    mov ax, 0xbeef
    push ax
    xor eax, eax
    mov ax, [ss:RSTACK - 2]
    store 3, eax
    xor eax, eax
    mov ax, sp
    store 4, eax
    pop ax
    push dx
    xor eax, eax
    call 0x1000:R(.far)
    store 5, eax
    vector 0x60, .int
    mov dx, sp
    add sp, 2                   ; the frame starts at RSTACK
    push 0x201
    popf
    int 0x60
.after_int:
    pushf
    cli
    pop ax
    movzx eax, ax
    store 11, eax
    mov sp, dx
    mov ax, 0xffff
    mov ds, ax
    mov eax, [0x10]
    mov cx, 0x2000
    mov ds, cx
    store 12, eax
    smsw ax
    and eax, 1
    store 13, eax
    push 0x7002
    popf
    pushf
    pop ax
    movzx eax, ax
    store 14, eax
    push 2
    popf
    mov dword [0x420], 0x21005678
    lds bx, [0x420]
    movzx eax, bx
    store 15, eax
    xor eax, eax
    mov ax, ds
    store 16, eax
    mov ax, 0x2000
    mov ds, ax
    mov eax, 0
    mov ax, cs
    store 17, eax
    jmp r_leave
.far:
    mov al, 0x77
    retf
.int:
    pushf
    pop ax
    movzx eax, ax
    store 9, eax
    xor eax, eax
    mov ax, sp
    store 10, eax
    mov bp, sp
    mov ax, [bp]
    store 6, eax
    mov ax, [bp + 2]
    store 7, eax
    mov ax, [bp + 4]
    store 8, eax
    iret

%macro expect 1                 ; fault in what follows up to the label
    mov word [cs:R(note_vec)], 0xff
    mov word [cs:R(resume)], R(%1)
%endmacro
%macro vec_result 1
    movzx eax, word [cs:R(note_vec)]
    store %1, eax
%endmacro
%macro ip_result 1
    movzx eax, word [cs:R(note_ip)]
    store %1, eax
%endmacro
r_faults:
    vector 0, h0
    vector 1, h1
    vector 3, h3
    vector 4, h4
    vector 5, h5
    vector 6, h6
    vector 12, h12
    vector 13, h13
    expect .f1
    xor cx, cx
.div:
    div cx
.f1:
    vec_result 20
    ip_result 21
    expect .f2
.ud:
    ud2
.f2:
    vec_result 22
    ip_result 23
    expect .f3
    int3
.f3:
    vec_result 24
    expect .f4
    mov al, 0x7f
    add al, 1
    into
.f4:
    vec_result 25
    expect .f5
    mov dword [0x430], 0x00050001
    mov ax, 9
    bound ax, [0x430]
.f5:
    vec_result 26
    expect .f6
    mov sp, RSTACK
    ud2
.f6:
    movzx eax, word [cs:R(note_sp)]
    store 27, eax
    expect .f7
    mov bx, 0xfffd
.limit:
    mov eax, [bx]
.f7:
    vec_result 28
    ip_result 29
    expect .f8
    mov bx, 0xffff
    mov ax, [bx]
.f8:
    vec_result 30
    expect .f9
    mov ebx, 0x10000
    mov al, [ebx]
.f9:
    vec_result 31
    expect .f10
    mov bp, 0xffff
    mov ax, [bp]
.f10:
    vec_result 32
    expect .f11
    lldt ax
.f11:
    vec_result 33
    expect .f12
    lar ax, bx
.f12:
    vec_result 34
    expect .f13
    arpl ax, bx
.f13:
    vec_result 35
    expect .f14
    ltr ax
.f14:
    vec_result 36
    expect .f15
    lidt [cs:R(.short_idt)]
    int 0x60
.f15:
    lidt [cs:R(.full_idt)]
    vec_result 37
    expect .f16
    db 0xf0, 0x90
.f16:
    vec_result 38
    expect .f17
    push 0x102
    popf
    nop
.stepped:
    nop
.f17:
    push 2
    popf
    vec_result 39
    ip_result 40
    mov sp, RSTACK - 2
    jmp r_leave
align 4
.short_idt: dw 0x17f            ; ends before vector 0x60
    dd 0
.full_idt: dw 0x3ff
    dd 0

r_addressing:
    mov dword [0x10], 0xaa55aa55
    mov bx, 0xfff0
    mov si, 0x20
    mov eax, [bx + si]
    store 50, eax
    mov word [ss:0x100], 0x1357
    mov bp, 0x100
    movzx eax, word [bp]
    store 51, eax
    movzx edx, sp
    mov ax, [ss:0x100]
    mov ecx, 0x100
    movzx eax, word [ss:ecx]
    store 52, eax
    mov dword [0x408], 0xcafe
    mov ebx, 0x400
    mov ecx, 2
    mov eax, [ebx + ecx * 4]
    store 53, eax
    ; STOSB over the end of the segment
    push es
    mov ax, 0x5000
    mov es, ax
    mov edi, 0xffff8
    and edi, 0xffff
    mov cx, 16
    mov al, 0x77
    rep stosb
    movzx ecx, byte [es:4]
    pop es
    movzx eax, di
    store 54, eax
    store 55, ecx
    mov ecx, 0x50003
    mov di, 0x600
    rep stosb
    store 56, ecx
    ; a push with SP 0
    mov dx, sp
    mov sp, 0
    push ax
    movzx eax, sp
    mov sp, dx
    store 57, eax
    push dword 0x12345678
    pop eax
    store 58, eax
    mov ecx, 0xffff0003
.loop:
    loop .loop
    store 59, ecx
    mov ecx, 0x70000
    xor eax, eax
    jcxz .zero
    jmp .not_zero
.zero:
    inc ax
.not_zero:
    store 60, eax
    mov byte [0x705], 0x99
    mov bx, 0x700
    mov eax, 5
    xlatb
    store 61, eax
    mov dword [0x708], 0x4321
    mov eax, [es:0x708]
    store 62, eax
    mov eax, 0xffff0000
    mov bx, 0xffff
    lea ax, [bx + 5]
    store 63, eax
    mov bp, 0x1111
    enter 8, 0
    movzx eax, sp
    leave
    store 64, eax
    mov bp, sp
    pusha
    movzx eax, sp
    add eax, 2                  ; the return address lies above
    store 65, eax
    popa
    ; a near jump's target wraps to 16 bits
    xor eax, eax
    mov bx, R(.wrapped)
    jmp bx
.wrapped:
    inc ax
    store 66, eax
    ret

r_big:
    cli
    lgdt [cs:R(.gdtr)]
    mov eax, cr0
    or al, 1
    mov cr0, eax
    jmp .pm
.pm:
    mov bx, 8
    mov gs, bx
    and al, 0xfe
    mov cr0, eax
    jmp .rm
.rm:
    mov ebx, 0x600000
    mov eax, [gs:ebx]
    store 70, eax
    mov ax, 0x1000
    mov gs, ax                  ; base moves, limit stays
    mov ebx, 0x5f0000
    mov eax, [gs:ebx]
    store 71, eax
    xor ax, ax
    mov gs, ax
    mov ebx, 0x600000
    mov eax, [gs:ebx]
    store 72, eax
    lgdt [cs:R(.old)]
    ret
align 8
.gdt: dq 0, 0x00cf93000000ffff
.gdtr: dw 15
    dd LOW + R(.gdt)
.old: dw gdt_end - gdt - 1
    dd A(gdt)

r_hardware:
    vector 8, .tick
    mov dword [es:80 * 4], 0
    mov al, 0x34
    out 0x43, al
    mov al, 0xa9
    out 0x40, al
    mov al, 4
    out 0x40, al
    mov al, 0xfe
    out 0x21, al
    mov bx, 3
.next:
    sti
    hlt
.halted:
    cli
    dec bx
    jnz .next
    movzx eax, word [cs:R(note_ip)]
    store 81, eax
    mov eax, [es:80 * 4]
    push eax
    ; one that waits while IF is clear: wait for the request in the PIC
.wait:
    mov al, 0x0a
    out 0x20, al
    in al, 0x20
    test al, 1
    jz .wait
    sti
    nop
.shadowed:
    nop
    cli
    movzx eax, word [cs:R(note_ip)]
    store 82, eax
    pop eax
    store 80, eax
    mov al, 0xff
    out 0x21, al
    mov al, 0x30                ; stop the ticks
    out 0x43, al
    ret
.tick:
    push ax
    push bp
    mov bp, sp
    mov ax, [bp + 4]
    mov [cs:R(note_ip)], ax
    inc dword [es:80 * 4]
    mov al, 0x20
    out 0x20, al
    pop bp
    pop ax
    iret
rm_end:
bits 32
    end_image
