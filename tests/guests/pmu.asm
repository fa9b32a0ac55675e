; Performance counters of version 2: what they count, at which levels, their overflow interrupt, what is refused.
; SDM 3B 20.2.1, 20.2.2, 20.2.4. Nestor's cycles are its instructions.
%include "common.inc"
%include "irq.inc"

%define PMC0 0xc1
%define SELECT0 0x186
%define SELECT1 0x187
%define FIXED_CTRL 0x38d
%define GLOBAL_STATUS 0x38e
%define GLOBAL_CTRL 0x38f
%define GLOBAL_OVF_CTRL 0x390
%define APIC_LVTPC 0x340

%define USR (1 << 16)
%define OS (1 << 17)
%define INT (1 << 20)
%define EN (1 << 22)
%define CYCLES 0x003c
%define INSTRUCTIONS 0x00c0
%define CACHE_MISSES 0x412e
%define FIXED0 0x40000000       ; for RDPMC: instructions retired
%define MASKED 0x10000
%define V_PMI 0x60

%macro pmc 1                    ; eax = low half of a counter; ecx, edx lost
    mov ecx, %1
    rdpmc
%endmacro
%macro over_nops 2              ; counter, n: eax = its advance over n NOPs and a few instructions
    pmc %1
    mov ebx, eax
    times %2 nop
    pmc %1
    sub eax, ebx
%endmacro
%macro advance 3                ; "name", counter, what it is to advance by over 100 NOPs
    over_nops %2, 0
    mov esi, eax
    over_nops %2, 100
    sub eax, esi
    check32 %1, eax, %3
%endmacro
%macro refused 3                ; "name", msr, value
    mov ecx, %2
    mov eax, (%3) & 0xffffffff
    mov edx, (%3) >> 32
    try
    wrmsr
    endtry_fault %1, V_GP, 0
%endmacro

main:
    call apic_enable
    need_cpuid "performance monitoring", 0xa, 0, eax, 1
    call offered
    call counting
    call levels
    call overflow
    call refusals
    end_only
    check "pmu.end", 0, 0
    jmp finish

offered:
    mov eax, 0xa
    cpuid
    checkm "cpuid.version", eax, 0xff, 2
    checkm "cpuid.counters", eax, 0xff00, 4 << 8
    checkm "cpuid.width", eax, 0xff0000, 48 << 16
    checkm "cpuid.fixed", edx, 0x1f, 3
    ret

counting:
    wrmsr_imm GLOBAL_CTRL, 1
    wrmsr_imm SELECT0, EN + OS + INSTRUCTIONS
    advance "instructions", 0, 100
    wrmsr_imm SELECT0, EN + OS + CYCLES
    advance "cycles", 0, 100
    wrmsr_imm SELECT0, EN + OS + CACHE_MISSES
    advance "no_count_of_that", 0, 0
    wrmsr_imm SELECT0, EN + USR + INSTRUCTIONS
    advance "only_other_levels", 0, 0
    wrmsr_imm SELECT0, OS + INSTRUCTIONS
    advance "not_enabled", 0, 0
    wrmsr_imm FIXED_CTRL, 1
    advance "fixed.not_enabled_globally", FIXED0, 0
    wrmsr_imm GLOBAL_CTRL, 1 << 32
    advance "fixed.instructions", FIXED0, 100
    wrmsr_imm FIXED_CTRL, 2
    advance "fixed.only_other_levels", FIXED0, 0
    ret

; 2001 instructions at CPL 3, and the one that leaves it.
%macro counts_user 2            ; "name", counter
    pmc %2
    sub eax, 2001
    cmp eax, 2
    setb al
    checkm %1, eax, 0xff, 1
%endmacro
levels:
    wrmsr_imm SELECT0, EN + OS + INSTRUCTIONS
    wrmsr_imm SELECT1, EN + USR + INSTRUCTIONS
    wrmsr_imm PMC0, 0
    wrmsr_imm PMC0 + 1, 0
    wrmsr_imm 0x309, 0
    wrmsr_imm GLOBAL_CTRL, (1 << 32) + 3
    try_user
    mov ecx, 1000
.loop:
    dec ecx
    jnz .loop
    endtry_user_ok "levels.ran"
    wrmsr_imm GLOBAL_CTRL, 0
    counts_user "levels.user", 1
    counts_user "levels.user_fixed", FIXED0
    pmc 0
    dec eax
    cmp eax, 1999               ; what gets there and back, and reports
    setb al
    checkm "levels.os", eax, 0xff, 1
    ret

overflow:
    set_hook V_PMI, irq_hook
    apic_write APIC_LVTPC, V_PMI
    call log_clear
    wrmsr_imm PMC0, 0xfffffc18  ; -1000, sign extended
    pmc 0
    check32 "counter.sign_extended", edx, 0xffff
    wrmsr_imm SELECT0, EN + INT + OS + INSTRUCTIONS
    wrmsr_imm GLOBAL_CTRL, 1
    sti
    wait_for irq_n, 5000, 1
    cli
    check32 "pmi.came", [irq_n], 1
    check32 "pmi.vector", [irq_vec], V_PMI
    apic_read APIC_LVTPC
    checkm "pmi.masks_itself", eax, MASKED, MASKED
    mov ecx, GLOBAL_STATUS
    rdmsr
    check32 "status.overflow", eax, 1
    wrmsr_imm GLOBAL_OVF_CTRL, 1
    mov ecx, GLOBAL_STATUS
    rdmsr
    check32 "status.cleared", eax, 0
    wrmsr_imm GLOBAL_CTRL, 0
    ret

refusals:
    refused "gp.select_any_thread", SELECT0, 1 << 21
    refused "gp.global_ctrl", GLOBAL_CTRL, 1 << 4
    refused "gp.global_status", GLOBAL_STATUS, 0
    refused "gp.fixed_ctrl", FIXED_CTRL, 4
    mov ecx, 4
    try
    rdpmc
    endtry_fault "gp.rdpmc_4", V_GP, 0
    mov ecx, FIXED0 + 3
    try
    rdpmc
    endtry_fault "gp.rdpmc_fixed_3", V_GP, 0
    or_cr4 1 << 8               ; PCE
    xor ecx, ecx
    try_user
    rdpmc
    endtry_user_ok "user_rdpmc_with_pce"
    and_cr4 ~(1 << 8)
    ret

end_image
