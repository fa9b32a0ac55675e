; Brings processor and devices half way through what they do: registers between two of their bytes, latches
; half read, chips in the middle of their initialisation, AVX and x87 values, a breakpoint that was not hit.
; Then it stays there for a while, and goes on with each. Last, MWAIT, and two NMIs for another processor. For machines that are saved in between (fixtures/README.md).
%include "common.inc"
%include "irq.inc"
%include "smp.inc"

%define STAY 2000               ; turns of the loop in which r15 is MARK
%define MARK 0x6d6964776179
%define WATCHED 0x700000
%define AREA 0x600000
%define PATTERN 0x0123456789abcdef

hits: dd 0
nmis: dd 0
has_avx: db 0
align 8
host_bridge: dq 0

%macro port_out 2
    mov dx, %1
    mov al, %2
    out dx, al
%endmacro
%macro port_in 1                ; eax
    mov dx, %1
    in al, dx
    movzx eax, al
%endmacro
%macro msr_write 2              ; number, 64-bit constant
    mov ecx, %1
    mov eax, (%2) & 0xffffffff
    mov edx, (%2) >> 32
    wrmsr
%endmacro
%macro msr_check 3              ; name, number, value
    mov ecx, %2
    rdmsr
    shl rdx, 32
    or rax, rdx
    check %1, rax, %3
%endmacro

count_hit:
    inc dword [hits]
    ret

main:
    call apic_enable
    call pic_init
    cli
    set_hook V_DB, count_hit
    set_hook 0x60, irq_hook
    mov byte [apic_eoi], 1
    call processor_begins
    call devices_begin
    mov r15, MARK
    mov ecx, STAY
.stay:
    nop
    dec ecx
    jnz .stay
    xor r15d, r15d
    call devices_end
    call processor_ends
    call waits
    call two_nmis
    jmp finish

processor_begins:
    msr_write 0x277, 0x0007040600070401 ; PAT
    msr_write 0x250, 0x0606060606060606 ; MTRR_FIX64K_00000
    msr_write 0xc0000102, 0x123456789abc ; KERNEL_GS_BASE
    msr_write 0xc0000082, 0x234567       ; LSTAR
    msr_write 0xc0000103, 0x77           ; TSC_AUX
    msr_write 0x176, 0x345678            ; SYSENTER_EIP
    mov eax, WATCHED
    mov dr0, rax
    mov eax, 0xf0402            ; 4 bytes read or written, global
    mov dr7, rax
    fninit
    fldpi
    fld1
    fldl2t
    mov word [abs AREA], 0xf7f  ; towards zero
    fldcw [abs AREA]
    mov dword [abs AREA], 0x7f80
    ldmxcsr [abs AREA]
    mov eax, 1
    cpuid
    bt ecx, 28
    jnc .no_avx
    mov byte [has_avx], 1
    mov rax, cr4
    or eax, 1 << 18             ; OSXSAVE
    mov cr4, rax
    mov eax, 7
    xor ecx, ecx
    xor edx, edx
    xsetbv
    mov rax, PATTERN
    mov edi, AREA + 0x1000
    mov ecx, 64
.fill:
    stosq
    rol rax, 7
    loop .fill
%assign i 0
%rep 16
    vmovups ymm %+ i, [abs AREA + 0x1000 + i * 32]
%assign i i + 1
%endrep
.no_avx:
    ret

processor_ends:
    msr_check "pat", 0x277, 0x0007040600070401
    msr_check "mtrr_fix64k", 0x250, [six]
    msr_check "kernel_gs_base", 0xc0000102, 0x123456789abc
    msr_check "lstar", 0xc0000082, 0x234567
    msr_check "tsc_aux", 0xc0000103, 0x77
    msr_check "sysenter_eip", 0x176, 0x345678
    mov rax, dr7
    check "dr7", rax, 0xf0402
    mov eax, [abs WATCHED]
    check32 "breakpoint.hit", [hits], 1
    xor eax, eax
    mov dr7, rax
    stmxcsr [abs AREA]
    check32 "mxcsr", [abs AREA], 0x7f80
    fnstcw [abs AREA]
    movzx eax, word [abs AREA]
    check32 "x87.control", eax, 0xf7f
    fnstsw ax
    movzx eax, ax
    check32 "x87.top", eax, 0x2800
    fistp qword [abs AREA]
    check "x87.st0", [abs AREA], 3
    fistp qword [abs AREA]
    check "x87.st1", [abs AREA], 1
    fstp tword [abs AREA]
    check "x87.st2", [abs AREA], [pi]
    cmp byte [has_avx], 0
    je .no_avx
%assign i 0
%rep 16
    vmovups [abs AREA + 0x2000 + i * 32], ymm %+ i
%assign i i + 1
%endrep
    mov esi, AREA + 0x1000
    mov edi, AREA + 0x2000
    mov ecx, 64
    repe cmpsq
    sete al
    movzx eax, al
    check32 "avx.sixteen_registers", eax, 1
.no_avx:
    ret
align 8
six: dq 0x0606060606060606
pi: dq 0xc90fdaa22168c235       ; loaded while the rounding was to nearest

devices_begin:
    port_out 0x43, 0xb0         ; channel 2, mode 0
    port_out 0x42, 0xff
    port_out 0x42, 0x12
    port_out 0x43, 0xc8         ; read back count and status
    port_in 0x42                ; status; the count's bytes are left
    port_out 0x43, 0x34         ; channel 0, mode 2: half of its count
    port_out 0x40, 0x34
    port_out 0x70, 0x0a
    port_out 0x71, 0x26         ; 1024 Hz
    port_out 0x70, 0x0b
    port_out 0x71, 0x42         ; periodic, 24 hours
    port_out 0x70, 0x50
    port_out 0x71, 0xa5
    port_out 0x70, 0x50         ; selected and not read
    port_out 0x64, 0x60         ; the byte of the command is to come
    mov dx, 0xcf8
    mov eax, 0x80000000
    out dx, eax
    mov dx, 0xcfc
    in eax, dx
    mov [host_bridge], eax
    mov dx, 0x510
    xor eax, eax
    out dx, ax
    port_in 0x511
    port_in 0x511               ; "QE"
    port_out 0xa0, 0x11         ; ICW2 is to come
    mov byte [abs IOAPIC], 0x10 + 2 * 9
    mov dword [abs IOAPIC + 0x10], 0x1a059 ; level, low active, masked
    port_out 0x3fa, 1           ; FIFO
    port_out 0x3fc, 0x10        ; what is sent comes back
    port_out 0x3f8, 'a'
    port_out 0x3f8, 'b'
    port_out 0x3f8, 'c'
    mov ecx, 100000
.sent:                          ; a real one takes its time
    in al, 0x61
    loop .sent
    port_out 0x3ff, 0x5a
    port_in 0x3fb
    mov bl, al
    or al, 0x80
    mov dx, 0x3fb
    out dx, al                  ; divisor latch
    port_out 0x3f8, 3
    ret

; Nothing is printed before the serial port is as it was: rows of results first.
%define RESULT(n) AREA + 0x3000 + 4 * n
%macro result 1
    mov [abs RESULT(%1)], eax
%endmacro
devices_end:
    port_in 0x3f8
    result 0
    mov al, bl
    mov dx, 0x3fb
    out dx, al
    port_in 0x3ff
    result 1
    port_in 0x3f8
    result 2
    port_in 0x3f8
    result 3
    port_in 0x3f8
    result 4
    port_out 0x3fc, 3
    port_out 0x3fa, 0
    check32 "uart.divisor", [abs RESULT(0)], 3
    check32 "uart.scratch", [abs RESULT(1)], 0x5a
    check32 "uart.first", [abs RESULT(2)], 'a'
    check32 "uart.second", [abs RESULT(3)], 'b'
    check32 "uart.third", [abs RESULT(4)], 'c'
    port_in 0x42
    port_in 0x42
    check32 "pit.high_byte_of_latched_count", eax, 0x12
    port_out 0x40, 0x12         ; the other half: it counts from here
    port_out 0x43, 0xe2         ; status of channel 0
    port_in 0x40
    checkm "pit.status", eax, 0x3f, 0x34
    port_in 0x71
    check32 "cmos.selected_byte", eax, 0xa5
    mov ebx, 2000000
.periodic:
    port_out 0x70, 0x0c
    port_in 0x71
    test al, 0x40
    jnz .came
    dec ebx
    jnz .periodic
.came:
    checkm "rtc.periodic", eax, 0x40, 0x40
    port_out 0x60, 0x44
    port_out 0x64, 0x20
    port_in 0x60
    checkm "keyboard.configuration", eax, 0x74, 0x44
    mov dx, 0xcfc
    in eax, dx
    check32 "pci.address", eax, [host_bridge]
    port_in 0x511
    check32 "fw_cfg.third", eax, 'M'
    port_in 0x511
    check32 "fw_cfg.fourth", eax, 'U'
    port_out 0xa1, 0x28
    port_out 0xa1, 2
    port_out 0xa1, 1
    port_in 0xa1
    check32 "pic.initialised", eax, 0
    port_out 0xa1, 0xff
    mov eax, [abs IOAPIC + 0x10]
    checkm "ioapic.selected_entry", eax, 0x1a0ff, 0x1a059
    ret

; MWAIT until the APIC timer comes.
waits:
    need_cpuid "MONITOR", 1, 0, ecx, 3
    call log_clear
    apic_write APIC_TDCR, 0xb
    apic_write APIC_LVTT, 0x60
    mov eax, AREA
    xor ecx, ecx
    xor edx, edx
    monitor
    apic_write APIC_TMICT, 50000
    sti
    xor ecx, ecx
    xor eax, eax
    mwait
    wait_for irq_n, 10000000, 1
    cli
    check32 "mwait.interrupted", [irq_n], 1
    end_only
    ret

count_nmi:
    lock inc dword [nmis]
    ret

; While the other processor waits for its turn: the second one is latched behind the first (SDM 3A 6.7.1).
two_nmis:
    intel_only "nmi.two (QEMU has one bit for them)"
    set_hook V_NMI, count_nmi
    mov dx, 0x510
    mov ax, 5                   ; processors
    out dx, ax
    port_in 0x511
    lea ebx, [rax - 1]
    test ebx, ebx
    jz .alone
    call start_aps
    apic_write APIC_ICR2, 1 << 24
    apic_write APIC_ICR, 0x4400
    apic_write APIC_ICR, 0x4400
    wait_for nmis, 10000000, 2
    check32 "nmi.two", [nmis], 2
.alone:
    end_only
    ret
    end_image
