; External interrupts: PIC pair, IOAPIC, PIT, interrupt shadows, NMI and its blocking, HLT.
%include "common.inc"
%include "irq.inc"

main:
    call apic_enable
    call pic_init
%assign v 0x40
%rep 0x40
    set_hook v, irq_hook
%assign v v + 1
%endrep
    set_hook 0xf0, irq_hook
    set_hook 0xe0, irq_hook
    call shadows
    call nmi
    call pic
    call pit
    call ioapic
    jmp finish

; Makes vector 0xe0 pending with IF clear.
%macro self_ipi 1
    apic_write APIC_ICR2, 0
    apic_write APIC_ICR, 0x40000 + %1
%endmacro

shadows:
    cli
    call log_clear
    self_ipi 0xe0
    apic_read APIC_IRR + 0x70
    check32 "apic.pending_in_irr", eax, 1
    xor ebx, ebx
    sti
.sti:
    inc ebx
.sti1:
    inc ebx
    cli
    check "sti.one_instruction_shadow", [irq_rip], A(.sti1)
    check32 "sti.taken_once", [irq_n], 1
    call log_clear
    self_ipi 0xe0
    sti
    cli
    nop
    nop
    check32 "sti_cli.not_taken", [irq_n], 0
    sti
    sti
.sti2:
    nop
    cli
    check "sti_sti.taken_after_the_second", [irq_rip], A(.sti2)
    call log_clear
    self_ipi 0xe0
    push 0x202
    popfq
.popf:
    nop
    cli
    check "popf.no_shadow", [irq_rip], A(.popf)
    call log_clear
    self_ipi 0xe0
    mov rax, rsp
    push KDS
    push rax
    push 0x202
    push KCS64
    push A(.iret)
    iretq
.iret:
    nop
    cli
    check "iret.no_shadow", [irq_rip], A(.iret)
    call log_clear
    self_ipi 0xe0
    mov eax, KDS
    sti
    mov ss, eax
    inc ebx
.movss:
    inc ebx
    cli
    ; only the first of two shadows in a row is certain (SDM 2B STI): either place is right
    mov rax, [irq_rip]
    cmp rax, A(.movss) - 2
    jne .second
    add rax, 2
.second:
    check "mov_ss.after_sti", rax, A(.movss)
    check32 "mov_ss.once", [irq_n], 1
    call log_clear
    self_ipi 0xe0
    sti
    hlt
.hlt:
    nop
    cli
    check "hlt.wakes_after_shadow", [irq_rip], A(.hlt)
    check32 "hlt.once", [irq_n], 1
    ; the frame is aligned to 16
    call log_clear
    self_ipi 0xe0
    mov rbx, rsp
    and rsp, -16
    sub rsp, 8
    mov rsi, rsp
    sti
    nop
    nop
    cli
    mov rsp, rbx
    and rsi, -16
    sub rsi, 40
    check "frame.aligned_to_16", [irq_sp], rsi
    ; an exception between STI and the next instruction's end
    call log_clear
    self_ipi 0xe0
    try
    sti
.ud:
    ud2
    endtry_fault "sti.fault_in_shadow", V_UD, 0, A(.ud)
    checkm "sti.if_pushed", [f_fl], 0x200, 0x200
    check32 "sti.fault_first", [irq_n], 0
    sti
    nop
    nop
    cli
    check32 "sti.then_taken", [irq_n], 1
    ; user code is interrupted, the stack switches
    call log_clear
    self_ipi 0xe0
    push UDS
    push USTACK_TOP + UALIAS
    push 0x202
    push UCS64
    push A(.user) + UALIAS
    mov [recover_rsp], rsp
    lea rax, [.back]
    mov [recover_rip], rax
    iretq
.user:
    nop
    int V_BACK
.back:
    check "user.interrupted_at_once", [irq_rip], A(.user) + UALIAS
    check "user.frame_at_rsp0", [irq_sp], RSP0_TOP - 40
    checkm "user.cpl3_keeps_if", [f_fl], 0x200, 0x200
    add rsp, 40
    ret

nmi_hook:                       ; counts nesting; sends one more NMI from the first
    inc dword [irq_depth]
    mov eax, [irq_depth]
    cmp eax, [irq_depth_max]
    jbe .no_max
    mov [irq_depth_max], eax
.no_max:
    inc dword [irq_n]
    mov rcx, [rdi + F_RIP]
    mov [irq_rip], rcx
    cmp dword [irq_n], 1
    jne .end
    cmp byte [nmi_again], 0
    je .end
    apic_write APIC_ICR, 0x4400
    nop
    nop
    mov eax, [irq_n]
    mov [nmi_blocked_n], eax
    cmp byte [nmi_again], 2
    jne .end
    int 0x50                    ; any IRET ends the blocking (SDM 3A 6.7.1)
    mov eax, [irq_depth_max]
    mov [nmi_iret_depth], eax
.end:
    dec dword [irq_depth]
    ret
nmi_again: db 0
align 4
nmi_blocked_n: dd 0
nmi_iret_depth: dd 0
empty_hook:
    ret

; NMIs go to the own APIC id: the shorthand for self takes only fixed delivery (SDM 3A 11.6.1).
nmi:
    set_hook V_NMI, nmi_hook
    set_hook 0x50, empty_hook
    call log_clear
    apic_write APIC_ICR2, 0
    apic_write APIC_ICR, 0x4400
    wait_for irq_n, 1000000, 1
    check32 "nmi.ignores_if", [irq_n], 1
    call log_clear
    mov byte [nmi_again], 1
    apic_write APIC_ICR, 0x4400
    wait_for irq_n, 1000000, 2
    check32 "nmi.blocked_until_iret", [nmi_blocked_n], 1
    check32 "nmi.second_after_iret", [irq_n], 2
    check32 "nmi.never_nested", [irq_depth_max], 1
    call log_clear
    mov byte [nmi_again], 2
    apic_write APIC_ICR, 0x4400
    wait_for irq_n, 1000000, 2
    check32 "nmi.unblocked_by_any_iret", [nmi_iret_depth], 2
    check32 "nmi.two_in_all", [irq_n], 2
    mov byte [nmi_again], 0
    set_hook 0x50, irq_hook
    ret

pic:
    need_testdev "PIC by test device"
    cli
    mov byte [pic_eoi], 1
    mov byte [apic_eoi], 0
    apic_write APIC_LINT0, 0x700    ; ExtINT
    mov al, 0x5b                ; open: 2, 5, 7
    out 0x21, al
    mov al, 0xfb                ; open: 10
    out 0xa1, al
    call log_clear
    line 5, 1
    mov al, 0x0a
    out 0x20, al
    in al, 0x20
    movzx eax, al
    checkm "pic.irr", eax, 0x20, 0x20
    sti
    nop
    nop
    cli
    check32 "pic.vector", [irq_vec], 0x45
    check32 "pic.once", [irq_n], 1
    sti
    nop
    nop
    cli
    check32 "pic.edge_not_repeated", [irq_n], 1
    line 5, 0
    call log_clear
    line 7, 1
    line 5, 1
    sti
    nop
    nop
    nop
    cli
    check32 "pic.priority_first", [irq_vec], 0x45
    check32 "pic.priority_second", [irq_vec + 4], 0x47
    line 5, 0
    line 7, 0
    call log_clear
    line 10, 1
    sti
    nop
    nop
    cli
    check32 "pic.slave_vector", [irq_vec], 0x4a
    line 10, 0
    ; in service: lower priority waits for the EOI, higher nests
    call log_clear
    mov byte [pic_eoi], 0
    line 5, 1
    sti
    nop
    nop
    cli
    mov al, 0x0b
    out 0x20, al
    in al, 0x20
    movzx eax, al
    check32 "pic.isr", eax, 0x20
    line 7, 1
    sti
    nop
    nop
    cli
    check32 "pic.lower_waits", [irq_n], 1
    line 10, 1                  ; comes through line 2 of the master: higher than 5
    sti
    nop
    nop
    cli
    check32 "pic.higher_nests", [irq_vec + 4], 0x4a
    mov al, 0x62                ; specific EOI 2
    out 0x20, al
    mov al, 0x20
    out 0xa0, al
    mov al, 0x0b
    out 0x20, al
    in al, 0x20
    movzx eax, al
    check32 "pic.specific_eoi", eax, 0x20
    mov al, 0x20
    out 0x20, al
    sti
    nop
    nop
    cli
    check32 "pic.after_eoi", [irq_vec + 8], 0x47
    mov al, 0x20
    out 0x20, al
    mov byte [pic_eoi], 1
    line 5, 0
    line 7, 0
    line 10, 0
    ; masked: remembered
    call log_clear
    mov al, 0xff
    out 0x21, al
    line 5, 1
    sti
    nop
    nop
    cli
    check32 "pic.masked", [irq_n], 0
    in al, 0x21
    movzx eax, al
    check32 "pic.mask_reads_back", eax, 0xff
    mov al, 0xdf
    out 0x21, al
    sti
    nop
    nop
    cli
    check32 "pic.unmasked", [irq_n], 1
    line 5, 0
    ; level triggered by ELCR: repeats while high
    mov dx, 0x4d0
    mov al, 0x20
    out dx, al
    call log_clear
    mov byte [lower_line], 5
    mov byte [lower_after], 2
    line 5, 1
    sti
    nop
    nop
    cli
    check32 "pic.level_repeats", [irq_n], 2
    mov byte [lower_line], 0
    mov byte [lower_after], 1
    mov dx, 0x4d0
    mov al, 0
    out dx, al
    ; poll mode
    mov al, 0xdf
    out 0x21, al
    line 5, 1
    mov al, 0x0c
    out 0x20, al
    in al, 0x20
    movzx eax, al
    check32 "pic.poll", eax, 0x85
    mov al, 0x20
    out 0x20, al
    line 5, 0
    ; the LINT0 mask stops it
    call log_clear
    apic_write APIC_LINT0, 0x10700
    line 5, 1
    sti
    nop
    nop
    cli
    check32 "pic.lint0_masked", [irq_n], 0
    apic_write APIC_LINT0, 0x700
    sti
    nop
    nop
    cli
    check32 "pic.lint0_unmasked", [irq_n], 1
    line 5, 0
    mov al, 0xff
    out 0x21, al
    out 0xa1, al
    end_only
    ret

pit:
    cli
    mov byte [pic_eoi], 1
    mov byte [apic_eoi], 0
    apic_write APIC_LINT0, 0x700
    call pic_init
    mov al, 0xfe
    out 0x21, al
    call log_clear
    mov al, 0x34                ; channel 0, mode 2
    out 0x43, al
    mov al, 0xa9                ; 1193 counts: 1 ms
    out 0x40, al
    mov al, 4
    out 0x40, al
    mov ebx, 5
.ticks:
    sti
    hlt
    cli
    dec ebx
    jnz .ticks
    mov eax, [irq_n]
    cmp byte [is_tcg], 0
    je .counted
    cmp eax, 5                  ; a slow host may have two ticks ready at one HLT
    jb .counted
    mov eax, 5
.counted:
    check32 "pit.five_ticks", eax, 5
    check32 "pit.vector", [irq_vec], 0x40
    mov al, 0x30                ; mode 0: once
    out 0x43, al
    mov al, 0xff                ; 55 ms: long enough for a slow host
    out 0x40, al
    out 0x40, al
    sti                         ; a tick of mode 2 may still be latched
    nop
    nop
    cli
    call log_clear
    sti
    hlt
    cli
    check32 "pit.one_shot", [irq_n], 1
    mov al, 0xe2                ; read-back: status of channel 0
    out 0x43, al
    in al, 0x40
    movzx eax, al
    checkm "pit.status_output_high", eax, 0x80, 0x80
    checkm "pit.status_mode", eax, 0x3f, 0x30
    mov al, 0xff
    out 0x21, al
    ; channel 2 by port 0x61: output goes high at the end of mode 0
    in al, 0x61
    and al, 0xfc
    or al, 1
    out 0x61, al
    mov al, 0xb0
    out 0x43, al
    mov al, 0xff                ; 55 ms
    out 0x42, al
    out 0x42, al
    in al, 0x61
    movzx eax, al
    checkm "pit.channel2_low", eax, 0x20, 0
    mov al, 0x80                ; latch twice: the counter runs down
    out 0x43, al
    in al, 0x42
    mov bl, al
    in al, 0x42
    mov bh, al
    mov ecx, 200000             ; looks now and then: reading a port is slow
.spin:
    mov edx, 2000
.wait:
    dec edx
    jnz .wait
    in al, 0x61
    test al, 0x20
    jnz .high
    loop .spin
.high:
    movzx eax, al
    checkm "pit.channel2_high", eax, 0x20, 0x20
    cmp bx, 0x2000
    setae al
    movzx eax, al
    check32 "pit.latched_count", eax, 1
    ret

ioapic:
    mov byte [pic_eoi], 0
    mov byte [apic_eoi], 1
    apic_write APIC_LINT0, 0x10000
    ioapic_read 1
    checkm "ioapic.24_pins", eax, 0xff0000, 0x170000
    ioapic_read 0x10
    checkm "ioapic.masked_at_start", eax, 0x10000, 0x10000
    need_testdev "IOAPIC by test device"
    mov byte [lower_line], 0
    ioapic_write 0x10 + 2 * 5 + 1, 0
    ioapic_write 0x10 + 2 * 5, 0x55
    call log_clear
    sti
    line 5, 1
    wait_for irq_n, 1000, 1
    check32 "ioapic.edge_vector", [irq_vec], 0x55
    line 5, 1                   ; high already: no edge, but QEMU sends again
    wait_for irq_n, 1000, 2
    intel
    check32 "ioapic.edge_not_repeated", [irq_n], 1
    line 5, 0
    call log_clear
    line 5, 1
    wait_for irq_n, 1000, 1
    check32 "ioapic.second_edge", [irq_n], 1
    line 5, 0
    call log_clear
    ioapic_write 0x10 + 2 * 5, 0x10055
    line 5, 1
    nop
    ioapic_write 0x10 + 2 * 5, 0x55
    nop
    nop
    check32 "ioapic.masked_edge_lost", [irq_n], 0
    line 5, 0
    ; level
    cli
    ioapic_write 0x10 + 2 * 5, 0x8056
    call log_clear
    line 5, 1
    ioapic_read 0x10 + 2 * 5
    checkm "ioapic.remote_irr", eax, 0x4000, 0x4000
    apic_read APIC_IRR + 0x20
    checkm "ioapic.apic_irr", eax, 1 << 0x16, 1 << 0x16
    apic_read APIC_TMR + 0x20
    checkm "ioapic.apic_tmr", eax, 1 << 0x16, 1 << 0x16
    mov byte [lower_line], 5
    sti
    nop
    nop
    cli
    check32 "ioapic.level_vector", [irq_vec], 0x56
    check32 "ioapic.level_once_when_lowered", [irq_n], 1
    ioapic_read 0x10 + 2 * 5
    checkm "ioapic.remote_irr_cleared", eax, 0x4000, 0
    mov byte [lower_after], 2
    call log_clear
    line 5, 1
    sti
    nop
    nop
    cli
    check32 "ioapic.level_repeats_after_eoi", [irq_n], 2
    mov byte [lower_line], 0
    mov byte [lower_after], 1
    ; a level interrupt on a masked pin is taken when unmasked
    ioapic_write 0x10 + 2 * 5, 0x18056
    call log_clear
    line 5, 1
    sti
    nop
    nop
    check32 "ioapic.masked_level", [irq_n], 0
    mov byte [lower_line], 5
    ioapic_write 0x10 + 2 * 5, 0x8056
    wait_for irq_n, 1000, 1
    check32 "ioapic.unmasked_level", [irq_n], 1
    mov byte [lower_line], 0
    ; logical destination, NMI delivery
    ioapic_write 0x10 + 2 * 5 + 1, 0x01000000
    ioapic_write 0x10 + 2 * 5, 0x857
    call log_clear
    line 5, 1
    wait_for irq_n, 1000, 1
    check32 "ioapic.logical", [irq_vec], 0x57
    line 5, 0
    ioapic_write 0x10 + 2 * 5 + 1, 0x02000000
    call log_clear
    line 5, 1
    nop
    nop
    check32 "ioapic.logical_miss", [irq_n], 0
    line 5, 0
    cli
    ioapic_write 0x10 + 2 * 5 + 1, 0
    ioapic_write 0x10 + 2 * 5, 0x400
    call log_clear
    line 5, 1
    wait_for irq_n, 1000, 1
    check32 "ioapic.nmi", [irq_n], 1
    line 5, 0
    ioapic_write 0x10 + 2 * 5, 0x10000
    ; line 0 is pin 2
    ioapic_write 0x10 + 2 * 2 + 1, 0
    ioapic_write 0x10 + 2 * 2, 0x58
    call log_clear
    sti
    mov al, 0x34
    out 0x43, al
    mov al, 0xa9
    out 0x40, al
    mov al, 4
    out 0x40, al
    hlt
    cli
    check32 "ioapic.pit_on_pin_2", [irq_vec], 0x58
    ioapic_write 0x10 + 2 * 2, 0x10000
    end_only
    ret
    end_image
