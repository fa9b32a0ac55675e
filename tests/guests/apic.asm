; Local APIC: priorities, IPIs to itself in every addressing mode, EOI, errors, timer in its three modes,
; xAPIC registers and x2APIC MSRs. SDM 3A chapter 11.
%include "common.inc"
%include "irq.inc"

%macro ipi 2                    ; destination field, command
    apic_write APIC_ICR2, (%1) << 24
    apic_write APIC_ICR, %2
%endmacro
; Opens a window in which pending interrupts are taken.
%macro window 0
    sti
    nop
    nop
    nop
    cli
%endmacro
%macro x2_write 2               ; register offset of the xAPIC page / 16, 64-bit value
    wrmsr_imm 0x800 + %1, %2
%endmacro
%macro x2_read 1
    mov ecx, 0x800 + %1
    rdmsr
%endmacro
%macro x2_no_read 2            ; name, register
    try
    x2_read %2
    endtry_fault %1, V_GP, 0, -1
%endmacro
%macro x2_no_write 3           ; name, register, 64-bit value
    try
    x2_write %2, %3
    endtry_fault %1, V_GP, 0, -1
%endmacro

main:
    call apic_enable
    call pic_init
%assign v 0x40
%rep 0xc0
    set_hook v, irq_hook
%assign v v + 1
%endrep
    call registers
    call priorities
    call addressing
    call errors
    call timer
    call deadline
    call disabling
    call x2apic
    jmp finish

registers:
    apic_read APIC_ID
    mov ebx, eax
    mov eax, 1
    push rbx
    cpuid
    mov edx, ebx
    pop rbx
    and edx, 0xff000000
    check32 "reg.id_is_the_initial_one", ebx, edx
    apic_read APIC_VER
    checkm "reg.version", eax, 0xf0, 0x10
    shr eax, 16
    and eax, 0xff
    sub eax, 4
    cmp eax, 3
    setb al
    movzx eax, al
    check32 "reg.version_lvts", eax, 1
    apic_write APIC_TPR, 0xffffffa5
    apic_read APIC_TPR
    check32 "reg.tpr_8_bits", eax, 0xa5
    mov rax, cr8
    check "reg.cr8_is_tpr_class", rax, 10
    mov eax, 3
    mov cr8, rax
    apic_read APIC_TPR
    check32 "reg.cr8_writes_tpr", eax, 0x30
    apic_read APIC_PPR
    check32 "reg.ppr_follows_tpr", eax, 0x30
    mov eax, 16
    intel
    try
    mov cr8, rax
    endtry_fault "reg.cr8_reserved", V_GP, 0
    xor eax, eax
    mov cr8, rax
    apic_write APIC_LDR, 0xffffffff
    apic_read APIC_LDR
    check32 "reg.ldr_8_bits", eax, 0xff000000
    apic_write APIC_DFR, 0
    apic_read APIC_DFR
    check32 "reg.dfr_low_bits_set", eax, 0x0fffffff
    apic_write APIC_DFR, 0xffffffff
    apic_write APIC_LDR, 0x01000000
    apic_write APIC_LVTT, 0x200ff
    apic_read APIC_LVTT
    check32 "reg.lvt_timer_reads_back", eax, 0x200ff
    apic_write APIC_LVTT, 0x10000
    apic_write APIC_TDCR, 0xffffffff
    apic_read APIC_TDCR
    check32 "reg.divide_bits", eax, 0xb
    apic_write APIC_SVR, 0x1ef
    apic_read APIC_SVR
    check32 "reg.svr_reads_back", eax, 0x1ef
    apic_write APIC_SVR, 0x1ff
    apic_write APIC_ICR2, 0x12345678
    apic_read APIC_ICR2
    checkm "reg.icr2_destination", eax, 0xff000000, 0x12000000
    ret

priorities:
    cli
    call log_clear
    mov byte [apic_eoi], 1
    ipi 0, 0x40045
    ipi 0, 0x40062
    ipi 0, 0x40091
    apic_read APIC_IRR + 0x40
    check32 "irr.91", eax, 1 << 0x11
    apic_read APIC_IRR + 0x30
    check32 "irr.62", eax, 1 << 2
    apic_read APIC_ISR + 0x40
    check32 "isr.empty", eax, 0
    window
    check32 "priority.first", [irq_vec], 0x91
    check32 "priority.second", [irq_vec + 4], 0x62
    check32 "priority.third", [irq_vec + 8], 0x45
    apic_read APIC_TMR + 0x40
    check32 "tmr.edge", eax, 0
    ; TPR masks its class and those below
    call log_clear
    apic_write APIC_TPR, 0x60
    ipi 0, 0x4006f
    window
    check32 "tpr.same_class_waits", [irq_n], 0
    ipi 0, 0x40070
    window
    check32 "tpr.higher_class_comes", [irq_vec], 0x70
    check32 "tpr.only_it", [irq_n], 1
    apic_write APIC_TPR, 0x5f
    window
    check32 "tpr.lowered", [irq_vec + 4], 0x6f
    apic_write APIC_TPR, 0
    ; in service
    call log_clear
    mov byte [apic_eoi], 0
    ipi 0, 0x40065
    window
    apic_read APIC_ISR + 0x30
    check32 "isr.65", eax, 1 << 5
    apic_read APIC_PPR
    check32 "ppr.in_service", eax, 0x60
    apic_read APIC_IRR + 0x30
    check32 "irr.moved_to_isr", eax, 0
    apic_write APIC_TPR, 0x45
    apic_read APIC_PPR
    check32 "ppr.isr_above_tpr", eax, 0x60
    apic_write APIC_TPR, 0x75
    apic_read APIC_PPR
    check32 "ppr.tpr_above_isr", eax, 0x75
    apic_write APIC_TPR, 0
    ipi 0, 0x40068              ; same class: waits although its vector is higher
    window
    check32 "isr.same_class_waits", [irq_n], 1
    ipi 0, 0x40075
    window
    check32 "isr.higher_nests", [irq_vec + 4], 0x75
    apic_read APIC_PPR
    check32 "ppr.nested", eax, 0x70
    ipi 0, 0x40065              ; the same vector once more while in service
    apic_write APIC_EOI, 0
    apic_read APIC_ISR + 0x30
    check32 "eoi.clears_the_highest", eax, 1 << 5
    window
    check32 "eoi.next_still_waits", [irq_n], 2
    apic_write APIC_EOI, 0
    window
    check32 "eoi.68_then", [irq_vec + 8], 0x68
    apic_write APIC_EOI, 0
    window
    check32 "eoi.65_again", [irq_vec + 12], 0x65
    apic_write APIC_EOI, 0
    apic_write APIC_EOI, 0      ; with nothing in service
    apic_read APIC_PPR
    check32 "eoi.all_done", eax, 0
    mov byte [apic_eoi], 1
    ret

%macro expect_ipi 4             ; name, destination, command, how many arrive
    call log_clear
    ipi %2, %3
    window
    check32 %1, [irq_n], %4
%endmacro
addressing:
    expect_ipi "ipi.physical", 0, 0x4050, 1
    check32 "ipi.vector", [irq_vec], 0x50
    expect_ipi "ipi.physical_other", 7, 0x4050, 0
    expect_ipi "ipi.physical_broadcast", 0xff, 0x4050, 1
    expect_ipi "ipi.self", 7, 0x44050, 1
    expect_ipi "ipi.all", 7, 0x84050, 1
    expect_ipi "ipi.all_but_self", 0, 0xc4050, 0
    apic_write APIC_LDR, 0x04000000
    expect_ipi "ipi.flat", 0x04, 0x4850, 1
    expect_ipi "ipi.flat_set", 0x06, 0x4850, 1
    expect_ipi "ipi.flat_miss", 0x03, 0x4850, 0
    expect_ipi "ipi.flat_broadcast", 0xff, 0x4850, 1
    expect_ipi "ipi.lowest_priority", 0x04, 0x4950, 1
    expect_ipi "ipi.lowest_priority_miss", 0x08, 0x4950, 0
    apic_write APIC_DFR, 0x0fffffff
    apic_write APIC_LDR, 0x12000000
    expect_ipi "ipi.cluster", 0x12, 0x4850, 1
    expect_ipi "ipi.cluster_set", 0x16, 0x4850, 1
    expect_ipi "ipi.cluster_other_member", 0x14, 0x4850, 0
    expect_ipi "ipi.other_cluster", 0x22, 0x4850, 0
    intel
    expect_ipi "ipi.cluster_broadcast", 0xff, 0x4850, 1
    apic_write APIC_DFR, 0xffffffff
    apic_write APIC_LDR, 0x01000000
    apic_read APIC_ICR
    checkm "ipi.delivery_status_idle", eax, 0x1000, 0
    ret

errors:
    apic_write APIC_ESR, 0
    apic_write APIC_ESR, 0
    apic_read APIC_ESR
    check32 "esr.clear", eax, 0
    apic_read 0x40              ; a reserved register
    apic_write APIC_ESR, 0
    apic_read APIC_ESR
    checkm "esr.illegal_register", eax, 0x80, 0x80
    apic_write APIC_ESR, 0
    apic_read APIC_ESR
    intel
    check32 "esr.cleared_by_two_writes", eax, 0
    ; SDM 3A 11.5.3: sending vectors 0..15 is an error; QEMU sends them
    intel_only "esr.illegal vectors"
    apic_write APIC_LVTERR, 0x5e
    call log_clear
    apic_write APIC_ICR2, 0
    apic_write APIC_ICR, 0x4005
    apic_write APIC_ESR, 0
    apic_read APIC_ESR
    checkm "esr.send_illegal_vector", eax, 0x20, 0x20
    window
    check32 "esr.error_interrupt", [irq_vec], 0x5e
    apic_write APIC_LVTERR, 0x10000
    apic_write APIC_ESR, 0
    apic_write APIC_ESR, 0
    end_only
    ret

timer:
    cli
    apic_write APIC_TDCR, 0xb   ; by 1
    apic_write APIC_LVTT, 0x60
    call log_clear
    apic_write APIC_TMICT, 4000000000   ; long enough for a slow host
    apic_read APIC_TMCCT
    mov ebx, eax
    cmp eax, 4000000000
    setbe al
    movzx eax, al
    check32 "timer.starts_below_initial", eax, 1
    mov ecx, 50
.spin:
    pause
    loop .spin
    apic_read APIC_TMCCT
    cmp eax, ebx
    setb al
    movzx eax, al
    check32 "timer.counts_down", eax, 1
    apic_read APIC_TMICT
    check32 "timer.initial_stays", eax, 4000000000
    apic_write APIC_TMICT, 1000
    sti
    wait_for irq_n, 100000000, 1
    cli
    check32 "timer.one_shot_vector", [irq_vec], 0x60
    apic_read APIC_TMCCT
    check32 "timer.stopped_at_zero", eax, 0
    mov ecx, 100000
.idle:
    sti
    nop
    cli
    loop .idle
    check32 "timer.one_shot_once", [irq_n], 1
    ; masked: it counts, no interrupt
    call log_clear
    apic_write APIC_LVTT, 0x10060
    apic_write APIC_TMICT, 10000
.masked:
    apic_read APIC_TMCCT
    test eax, eax
    jnz .masked
    window
    check32 "timer.masked", [irq_n], 0
    apic_write APIC_LVTT, 0x60
    window
    check32 "timer.masked_expiry_is_lost", [irq_n], 0
    ; periodic
    apic_write APIC_LVTT, 0x20061
    apic_write APIC_TMICT, 30000
    call log_clear
    sti
    wait_for irq_n, 100000000, 3
    hlt
    cli
    cmp dword [irq_n], 4
    setae al
    movzx eax, al
    check32 "timer.periodic", eax, 1
    check32 "timer.periodic_vector", [irq_vec + 8], 0x61
    apic_write APIC_TMICT, 0
    window
    call log_clear
    apic_read APIC_TMCCT
    check32 "timer.stopped_by_zero", eax, 0
    mov ecx, 300000             ; longer than a period
.stopped:
    sti
    nop
    cli
    loop .stopped
    check32 "timer.stopped", [irq_n], 0
    ; dividing by 128: slower than by 1
    apic_write APIC_LVTT, 0x10060
    apic_write APIC_TDCR, 0xa
    apic_write APIC_TMICT, 0xffffffff
    mov ecx, 100000
.slow:
    pause
    loop .slow
    apic_read APIC_TMCCT
    not eax
    mov ebx, eax
    apic_write APIC_TDCR, 0xb
    apic_write APIC_TMICT, 0xffffffff
    mov ecx, 100000
.fast:
    pause
    loop .fast
    apic_read APIC_TMCCT
    not eax
    shr eax, 3
    cmp eax, ebx
    seta al
    movzx eax, al
    check32 "timer.divide", eax, 1
    apic_write APIC_TMICT, 0
    ret

%define MSR_DEADLINE 0x6e0
%macro arm 1                    ; deadline = now + %1
    rdtsc
    shl rdx, 32
    or rax, rdx
    add rax, %1
    mov rdx, rax
    shr rdx, 32
    mov ecx, MSR_DEADLINE
    wrmsr
%endmacro
%macro read_deadline 0          ; rax
    mov ecx, MSR_DEADLINE
    rdmsr
    shl rdx, 32
    or rax, rdx
%endmacro
deadline:
    need_cpuid "TSC deadline", 1, 0, ecx, 24
    cli
    apic_write APIC_LVTT, 0x60
    arm 1000000
    read_deadline
    check "deadline.ignored_in_other_modes", rax, 0
    apic_write APIC_LVTT, 0x40062
    apic_read APIC_LVTT
    check32 "deadline.mode_reads_back", eax, 0x40062
    call log_clear
    arm 200000
    mov rbx, rax
    rdtsc
    read_deadline
    sub eax, ebx
    check32 "deadline.reads_back_low", eax, 0
    sti
    wait_for irq_n, 10000000, 1
    cli
    check32 "deadline.vector", [irq_vec], 0x62
    rdtsc
    shl rdx, 32
    or rax, rdx
    cmp rax, rbx
    read_deadline
    check "deadline.zero_after", rax, 0
    call log_clear
    arm -1000
    window
    check32 "deadline.past_fires_at_once", [irq_n], 1
    call log_clear
    arm 50000
    wrmsr_imm MSR_DEADLINE, 0
    mov ecx, 100000
.wait:
    sti
    nop
    cli
    loop .wait
    check32 "deadline.zero_disarms", [irq_n], 0
    ; most of 2^64 away, which is no time that has passed
    mov ecx, 0x6e0
    mov eax, -1
    mov edx, eax
    wrmsr
    sti
    nop
    nop
    cli
    check32 "deadline.far_does_not_fire", [irq_n], 0
    read_deadline
    check "deadline.far_reads_back", rax, -1
    mov ecx, 0x6e0
    xor eax, eax
    mov edx, 0x80000000
    wrmsr
    sti
    nop
    nop
    cli
    check32 "deadline.far_by_sign", [irq_n], 0
    apic_write APIC_TMICT, 1000
    apic_read APIC_TMCCT
    check32 "deadline.initial_count_ignored", eax, 0
    arm 50000
    apic_write APIC_LVTT, 0x60
    read_deadline
    check "deadline.mode_change_disarms", rax, 0
    apic_write APIC_LVTT, 0x40062
    call log_clear
    arm 100000
    sti
    hlt
    cli
    check32 "deadline.wakes_hlt", [irq_n], 1
    apic_write APIC_LVTT, 0x10000
    end_only
    ret

disabling:
    cli
    call log_clear
    apic_write APIC_LVTT, 0x60
    apic_write APIC_SVR, 0xff
    apic_read APIC_LVTT
    intel
    checkm "disable.masks_lvt", eax, 0x10000, 0x10000
    apic_write APIC_LVTT, 0x60
    apic_read APIC_LVTT
    intel                       ; cannot be unmasked while disabled (SDM 3A 11.4.7.2)
    checkm "disable.lvt_stays_masked", eax, 0x10000, 0x10000
    ipi 0, 0x4066
    apic_write APIC_SVR, 0x1ff
    window
    intel                       ; QEMU keeps it
    check32 "disable.refuses_fixed", [irq_n], 0
    apic_write APIC_LVTT, 0x10000
    ret

x2apic:
    need_cpuid "x2APIC", 1, 0, ecx, 21
    mov ecx, 0x802
    try
    rdmsr
    endtry_fault "x2.msr_in_xapic_mode", V_GP, 0
    mov ecx, MSR_APICBASE
    rdmsr
    bts eax, 10
    try
    wrmsr
    endtry_ok "x2.enable"
    rdmsr
    checkm "x2.base_msr", eax, 0xfffffd00, 0xfee00d00
    x2_read 2
    check32 "x2.id", eax, 0
    x2_read 3
    checkm "x2.version", eax, 0xf0, 0x10
    x2_read 0xd
    check32 "x2.ldr", eax, 1
    x2_write 0xf, 0x1ff
    x2_write 8, 0
    x2_write 0x32, 0x10000
    x2_no_read "x2.no_dfr", 0xe
    x2_no_read "x2.no_icr2", 0x31
    x2_no_read "x2.eoi_write_only", 0xb
    x2_no_read "x2.self_ipi_write_only", 0x3f
    x2_no_read "x2.reserved_register", 4
    x2_no_write "x2.ldr_read_only", 0xd, 1
    x2_no_write "x2.id_read_only", 2, 0
    x2_no_write "x2.eoi_not_zero", 0xb, 1
    x2_no_write "x2.esr_not_zero", 0x28, 1
    x2_no_write "x2.tpr_reserved", 8, 0x100
    x2_no_write "x2.upper_half", 8, 0x100000000
    x2_no_write "x2.lvt_reserved", 0x32, 0x80000
    x2_no_write "x2.self_ipi_reserved", 0x3f, 0x100
    ; EOI goes through the MSR now
    mov byte [apic_eoi], 0
    call log_clear
    x2_write 0x3f, 0x51
    x2_read 0x22
    check32 "x2.self_ipi_irr", eax, 1 << 0x11
    window
    check32 "x2.self_ipi", [irq_vec], 0x51
    x2_read 0x12
    check32 "x2.isr", eax, 1 << 0x11
    x2_write 0xb, 0
    x2_read 0x12
    check32 "x2.eoi", eax, 0
    call log_clear
    x2_write 0x30, 0x0000000000000052
    window
    x2_write 0xb, 0
    check32 "x2.icr_physical", [irq_vec], 0x52
    x2_write 0x30, 0x0000000100000853  ; logical: cluster 0, member 0
    window
    x2_write 0xb, 0
    x2_read 0x30
    call log_clear
    x2_write 0x30, 0x0000000100000853
    window
    x2_write 0xb, 0
    check32 "x2.icr_logical", [irq_vec], 0x53
    call log_clear
    x2_write 0x30, 0x0000000200000853
    window
    check32 "x2.icr_logical_miss", [irq_n], 0
    x2_write 0x30, 0x0001000100000853
    window
    check32 "x2.icr_other_cluster", [irq_n], 0
    x2_write 0x30, 0xffffffff00000054
    window
    x2_write 0xb, 0
    check32 "x2.icr_broadcast", [irq_vec], 0x54
    x2_read 0x30
    check32 "x2.icr_reads_low", eax, 0x54
    check32 "x2.icr_reads_high", edx, 0xffffffff
    call log_clear
    x2_write 0x3e, 0xb
    x2_write 0x32, 0x60
    x2_write 0x38, 10000
    sti
    wait_for irq_n, 10000000, 1
    cli
    x2_write 0xb, 0
    check32 "x2.timer", [irq_vec], 0x60
    x2_read 0x39
    check32 "x2.timer_stopped", eax, 0
    x2_write 0x32, 0x10000
    mov eax, 5
    mov cr8, rax
    x2_read 8
    check32 "x2.cr8", eax, 0x50
    xor eax, eax
    mov cr8, rax
    ; the ways out
    mov ecx, MSR_APICBASE
    rdmsr
    btr eax, 10
    try
    wrmsr
    endtry_fault "x2.not_back_to_xapic", V_GP, 0
    mov ecx, MSR_APICBASE
    rdmsr
    btr eax, 11
    try
    wrmsr
    endtry_fault "x2.not_extd_without_en", V_GP, 0
    btr eax, 10
    try
    wrmsr
    endtry_ok "x2.disable"
    mov eax, 1
    cpuid
    checkm "x2.cpuid_apic_gone", edx, 1 << 9, 0
    mov ecx, MSR_APICBASE
    rdmsr
    bts eax, 10
    bts eax, 11
    try
    wrmsr
    endtry_fault "x2.not_from_disabled", V_GP, 0
    btr eax, 10
    try
    wrmsr
    endtry_ok "x2.xapic_again"
    apic_read APIC_SVR
    check32 "x2.reset_by_disabling", eax, 0xff
    mov byte [apic_eoi], 1
    end_only
    ret
    end_image
