; Four processors: INIT and SIPI, IPIs in every form, locked operations, code modified across processors,
; TLB shootdown, MWAIT and stores, INIT of a running processor.
%include "common.inc"
%include "irq.inc"
%include "smp.inc"

align 16
cpu_irqs: times MAX_CPUS dd 0
cpu_nmis: times MAX_CPUS dd 0
total: dq 0, 0
spinlock: dd 0
plain: dd 0
flag: dd 0
answer: dd 0
rounds: dd 0
align 64
watched: times 64 db 0

main:
    call apic_enable
    set_hook 0x50, count_hook
    set_hook 0x51, shoot_hook
    set_hook V_NMI, nmi_hook
    mov ebx, 3
    call start_aps
    check32 "start.all_ready", [ap_ready], 3
    check32 "start.each_once", [abs TRAMPOLINE + ap_starts - trampoline], 3
    check32 "start.cr0", [abs TRAMPOLINE + ap_first - trampoline + 8], 0x60000010
    check32 "start.cr4", [abs TRAMPOLINE + ap_first - trampoline + 12], 0
    movzx eax, word [abs TRAMPOLINE + ap_first - trampoline + 16]
    check32 "start.cs", eax, TRAMPOLINE / 16
    movzx eax, word [abs TRAMPOLINE + ap_first - trampoline + 18]
    check32 "start.ss", eax, 0
    check32 "start.eax", [abs TRAMPOLINE + ap_first - trampoline], 0
    apic_write APIC_ICR, 0xc4600 + TRAMPOLINE / 0x1000
    call settle
    check32 "start.second_sipi_ignored", [abs TRAMPOLINE + ap_starts - trampoline], 3
    call ipis
    call locked
    call modified_code
    call shootdown
    call monitored
    call init_again
    jmp finish

count_hook:
    call cpu_index
    lock inc dword [cpu_irqs + rax * 4]
    apic_write APIC_EOI, 0
    ret
nmi_hook:
    call cpu_index
    lock inc dword [cpu_nmis + rax * 4]
    ret

; ------------------------------------------------------------------------------------------------- IPIs
halt_for_one:                   ; on an AP: opens interrupts until one came
    call cpu_index
    mov ebx, eax
    mov edi, [cpu_irqs + rbx * 4]
    mov dword [answer], 1
.again:
    sti
    hlt
    cli
    cmp edi, [cpu_irqs + rbx * 4]
    je .again
    ret
listen:                         ; on an AP: takes interrupts until `flag` is set
    sti
    lock inc dword [answer]
.loop:
    pause
    cmp dword [flag], 0
    je .loop
    cli
    ret
clear_counts:
    mov ecx, MAX_CPUS * 2
    lea rdi, [cpu_irqs]
    xor eax, eax
    rep stosd
    ret
%macro send 2                   ; destination, command
    apic_write APIC_ICR2, (%1) << 24
    apic_write APIC_ICR, %2
%endmacro
settle:                         ; time for another processor to get where it is going
    mov ecx, 5000
.loop:
    pause
    loop .loop
    ret
; Waits until as many interrupts were counted as edx says, but not for ever: a slow host needs time. Then
; for those that nobody expects. In: rsi = counts. Out: eax = digits
arrived:
    mov ecx, 300000
.loop:
    call digits
    popcnt eax, eax
    cmp eax, edx
    jae .settle
    pause
    loop .loop
.settle:
    call settle
    jmp digits
; One hexadecimal digit per processor, cpu 0 lowest; in: rsi = counts
digits:
    mov eax, [rsi + 12]
    shl eax, 4
    or eax, [rsi + 8]
    shl eax, 4
    or eax, [rsi + 4]
    shl eax, 4
    or eax, [rsi]
    ret
%macro expect 3                 ; name, counts, digits: how often each processor was interrupted, once or not
    lea rsi, [%2]
    mov edx, (%3) % 15          ; how many digits are 1
    call arrived
    check32 %1, eax, %3
    call clear_counts
%endmacro
%define expect_counts(name, digits) expect name, cpu_irqs, digits
%define expect_nmis(name, digits) expect name, cpu_nmis, digits

ipis:
    mov dword [answer], 0
    give_work 1, halt_for_one
    wait_for answer, 50000000, 1
    call settle
    send 1, 0x4050
    await_work 1
    expect_counts("ipi.wakes_hlt", 0x0010)
    mov dword [flag], 0
    mov dword [answer], 0
    give_work 1, listen
    give_work 2, listen
    give_work 3, listen
    wait_for answer, 50000000, 3
    sti
    send 2, 0x4050
    expect_counts("ipi.physical", 0x0100)
    send 0xff, 0x4050
    expect_counts("ipi.physical_broadcast", 0x1111)
    send 0, 0x84050
    expect_counts("ipi.all", 0x1111)
    send 0, 0xc4050
    expect_counts("ipi.all_but_self", 0x1110)
    send 0, 0x44050
    expect_counts("ipi.self", 0x0001)
    send 0x0a, 0x4850
    expect_counts("ipi.logical", 0x1010)
    send 0x0f, 0x4850
    expect_counts("ipi.logical_all", 0x1111)
    send 0x0c, 0x4950
    lea rsi, [cpu_irqs]
    mov edx, 1
    call arrived
    mov ebx, eax
    popcnt eax, eax
    check32 "ipi.lowest_takes_one", eax, 1
    mov eax, ebx
    and eax, 0x00ff
    check32 "ipi.lowest_within_set", eax, 0
    call clear_counts
    send 3, 0x4400
    expect_nmis("ipi.nmi", 0x1000)
    send 0, 0xc4400
    expect_nmis("ipi.nmi_all_but_self", 0x1110)
    send 0x05, 0x4c00
    expect_nmis("ipi.nmi_logical", 0x0101)
    cli
    mov dword [flag], 1
    await_work 1
    await_work 2
    await_work 3
    ; pending while the receiver has IF clear
    send 1, 0x4050
    expect_counts("ipi.held_while_if_clear", 0)
    mov dword [flag], 1
    give_work 1, listen
    await_work 1
    expect_counts("ipi.then_taken", 0x0010)
    ret

; ----------------------------------------------------------------------------------------------- locked
%define TURNS 5000
hammer:
    mov ecx, TURNS
.loop:
    lock inc dword [total]
    mov eax, 1
    lock xadd [total + 4], eax
    mov eax, [total + 8]
.retry:
    mov edx, eax
    inc edx
    lock cmpxchg [total + 8], edx
    jne .retry
.spin:
    mov eax, 1
    xchg eax, [spinlock]        ; implies LOCK
    test eax, eax
    jz .owned
    pause
    jmp .spin
.owned:
    inc dword [total + 12]
    mov dword [spinlock], 0
    dec ecx
    jnz .loop
    ret
align 16
pair: dq 0, 0
hammer16:
    mov r8d, TURNS
.loop:
    mov rax, [pair]
    mov rdx, [pair + 8]
.retry:
    lea rbx, [rax + 1]
    lea rcx, [rdx + 2]
    lock cmpxchg16b [pair]
    jne .retry
    dec r8d
    jnz .loop
    ret

locked:
    give_work 1, hammer
    give_work 2, hammer
    give_work 3, hammer
    call hammer
    await_work 1
    await_work 2
    await_work 3
    check32 "lock.inc", [total], 4 * TURNS
    check32 "lock.xadd", [total + 4], 4 * TURNS
    check32 "lock.cmpxchg", [total + 8], 4 * TURNS
    check32 "lock.xchg_spinlock", [total + 12], 4 * TURNS
    need_cpuid "CMPXCHG16B", 1, 0, ecx, 13
    give_work 1, hammer16
    give_work 2, hammer16
    give_work 3, hammer16
    call hammer16
    await_work 1
    await_work 2
    await_work 3
    check "lock.cmpxchg16b_low", [pair], 4 * TURNS
    check "lock.cmpxchg16b_high", [pair + 8], 8 * TURNS
    end_only
    ret

; ------------------------------------------------------------------------------------- code and mappings
; The AP runs `patched` each round and hands over what it returned.
%define CODE_ROUNDS 200
runner:
    mov r8d, 1
.round:
    pause
    cmp [flag], r8d
    jne .round
    xor eax, eax
    cpuid
    call patched
    mov [plain], eax
    mov [answer], r8d
    inc r8d
    cmp r8d, CODE_ROUNDS
    jbe .round
    ret
align 16
patched:
    mov eax, 0
    ret

modified_code:
    mov dword [flag], 0
    mov dword [answer], 0
    give_work 1, runner
    xor edi, edi
    mov esi, 1
.round:
    imul eax, esi, 0x01030507
    mov [patched + 1], eax
    mov [flag], esi
.wait:
    pause
    cmp [answer], esi
    jne .wait
    imul eax, esi, 0x01030507
    cmp eax, [plain]
    je .good
    inc edi
.good:
    inc esi
    cmp esi, CODE_ROUNDS
    jbe .round
    await_work 1
    check32 "code.every_change_is_seen", edi, 0
    ; without handshake or serialisation: in the end the new code is run
    mov byte [patched + 5], 0xc3
    mov dword [patched + 1], 0
    mov dword [flag], 0
    give_work 2, spin_on_code
    call settle
    mov dword [patched + 1], 77
    await_work 2
    check32 "code.change_is_seen_in_the_end", [plain], 77
    ret
spin_on_code:
    call patched
    test eax, eax
    jz spin_on_code
    mov [plain], eax
    ret

%define SHARED_VA 0x8000000000
shoot_hook:
    mov rax, SHARED_VA
    invlpg [rax]
    lock inc dword [rounds]
    apic_write APIC_EOI, 0
    ret
reader:
    mov rdx, SHARED_VA
    mov eax, [rdx]
    sti
    mov dword [answer], 1
.loop:
    pause
    cmp dword [rounds], 0
    je .loop
    cli
    mov eax, [rdx]
    mov [plain], eax
    ret
shootdown:
    mov dword [answer], 0
    mov dword [abs 0x600000], 0x1111
    mov dword [abs 0x601000], 0x2222
    mov edi, 0x410000
    mov ecx, 0x3000 / 8
    xor eax, eax
    rep stosq
    mov qword [abs 0x412000], 0x600007
    mov qword [abs 0x411000], 0x412007
    mov qword [abs 0x410000], 0x411007
    mov qword [abs PT_BASE + 8], 0x410007
    give_work 3, reader
    wait_for answer, 50000000, 1
    mov qword [abs 0x412000], 0x601007
    apic_write APIC_ICR2, 0x03000000
    apic_write APIC_ICR, 0x4051
    await_work 3
    check32 "tlb.shootdown", [plain], 0x2222
    ret

; ------------------------------------------------------------------------------------------------ MWAIT
wait_for_store:                 ; on an AP
    lea rax, [watched]
    xor ecx, ecx
    xor edx, edx
    monitor
    mov dword [answer], 1
    xor eax, eax
    mwait
    mov dword [answer], 2
    ret
monitored:
    mov dword [answer], 0
    give_work 1, wait_for_store
    wait_for answer, 50000000, 1
    call settle
    mov dword [watched + 60], 0    ; what it holds already
    wait_for answer, 50000000, 2
    check32 "mwait.ends_at_a_store_of_the_same_value", [answer], 2
    await_work 1
    ret

; A halted processor and a spinning one are reset by INIT and answer nothing until the SIPI.
hold:
    wrmsr_imm 0xc0000082, 0x1234567
    mov rax, 0x1122334455667788
    movq xmm7, rax
    mov cr2, rax
    mov dword [answer], 1
.loop:
    pause
    jmp .loop
what_is_left:
    mov ecx, 0xc0000082
    rdmsr
    mov [plain], eax
    movd [total], xmm7
    mov rax, cr2
    mov [rounds], eax
    ret
init_again:
    mov dword [abs TRAMPOLINE + ap_starts - trampoline], 0
    mov dword [answer], 0
    give_work 1, hold
    wait_for answer, 50000000, 1
    mov qword [ap_work + 8], 0
    mov dword [ap_ready], 0
    send 1, 0x4500
    call settle
    intel_only "init.nmi while waiting for the SIPI (QEMU takes it and shuts down)"
    call clear_counts
    send 1, 0x4400
    expect_nmis("init.nmi_waits_or_is_lost", 0)
    end_only
    check32 "init.waits_for_sipi", [ap_ready], 0
    send 1, 0x4600 + TRAMPOLINE / 0x1000
    wait_for ap_ready, 50000000, 1
    check32 "init.started_again", [ap_ready], 1
    give_work 1, what_is_left
    await_work 1
    ; SDM 3A table 10-1: INIT keeps most MSRs and the vector registers; QEMU resets them
    intel
    check32 "init.keeps_msr", [plain], 0x1234567
    intel
    check32 "init.keeps_xmm", [total], 0x55667788
    check32 "init.clears_cr2", [rounds], 0
    check32 "init.through_trampoline", [abs TRAMPOLINE + ap_starts - trampoline], 1
    ret
    end_image
