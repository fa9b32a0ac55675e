; Resets the machine in every way there is: port 0xcf9, the keyboard controller, a triple fault, port 0x92. CMOS
; RAM, which a reset leaves alone, has how often; memory may keep what it held (QEMU) or not. Every start finds the
; image, the processors and the devices as the first one did, whatever the one before did to them. SDM 3A table 9-1.
%include "common.inc"
%include "irq.inc"
%include "smp.inc"
%define CMOS_MARK 0x60
%define CMOS_STARTS 0x61
%define CMOS_CPUS 0x5f          ; how many more than one; QEMU and vm alike
%define MARK 0x5a
%define SCRATCH 0x600000
%define MSR_PAT 0x277
%define MSR_SYSENTER_EIP 0x176
%define MSR_LSTAR 0xc0000082
%define MSR_KERNEL_GS_BASE 0xc0000102
%define MSR_TSC_AUX 0xc0000103

%macro cmos_read 1              ; eax
    mov al, %1
    out 0x70, al
    in al, 0x71
    movzx eax, al
%endmacro
%macro cmos_write 2             ; al lost
    mov al, %1
    out 0x70, al
    mov al, %2
    out 0x71, al
%endmacro
%macro check_msr 3              ; name, register, value below 2^32
    mov ecx, %2
    rdmsr
    or eax, edx
    check32 %1, eax, %3
%endmacro

align 16
data: dd 0x600df00d             ; the image's own, overwritten before each reset
more_cpus: dd 0

main:
    cmos_read CMOS_MARK
    cmp al, MARK
    je .again
    cmos_write CMOS_MARK, MARK
    cmos_write CMOS_STARTS, 0
.again:
    cmos_read CMOS_CPUS
    mov [more_cpus], eax
    call as_at_first
    call apic_enable
    cmp dword [more_cpus], 0
    je .alone
    mov ecx, 200000
.wait:
    pause
    loop .wait
    check32 "cpus.wait_for_sipi", [ap_ready], 0
    mov ebx, [more_cpus]
    call start_aps
    check32 "cpus.started", [ap_ready], [more_cpus]
    check32 "cpus.each_once", [abs TRAMPOLINE + ap_starts - trampoline], [more_cpus]
.alone:
    call leave_a_mess
    cmos_read CMOS_STARTS
    mov ebx, eax
    lea ecx, [rax + 1]
    cmos_write CMOS_STARTS, cl
    cmp ebx, 0
    je by_cf9
    cmp ebx, 1
    je by_keyboard
    cmp ebx, 2
    je by_fault
    cmp ebx, 3
    je by_port_92
    check32 "reset.four_times", ebx, 4
    jmp finish

by_cf9:
    check32 "start.first", ebx, 0
    mov dx, 0xcf9
    mov al, 2
    out dx, al
    mov al, 6
    out dx, al
    jmp stay
by_keyboard:
    check32 "start.after_cf9", ebx, 1
    mov al, 0xfe
    out 0x64, al
    jmp stay
by_fault:
    check32 "start.after_keyboard", ebx, 2
    mov word [idtr], 0
    lidt [idtr]
    ud2
by_port_92:
    check32 "start.after_fault", ebx, 3
    in al, 0x92
    and al, 0xfe
    out 0x92, al
    or al, 1
    out 0x92, al
stay:                           ; the reset may take a moment
    mov ecx, 50000000
.wait:
    pause
    loop .wait
    check "reset.not_reached", 0, 1
    jmp finish

; What the image and a reset determine.
as_at_first:
    check32 "image.data", [data], 0x600df00d
    mov rax, dr7
    check "cpu.dr7", rax, 0x400
    mov rax, dr0
    check "cpu.dr0", rax, 0
    mov rax, cr2
    check "cpu.cr2", rax, 0
    mov rax, cr8
    check "cpu.cr8", rax, 0
    or_cr4 1 << 18
    xor ecx, ecx
    xgetbv
    check32 "cpu.xcr0", eax, 1
    mov ecx, MSR_PAT
    rdmsr
    check32 "msr.pat", eax, 0x00070406
    check_msr "msr.lstar", MSR_LSTAR, 0
    check_msr "msr.sysenter_eip", MSR_SYSENTER_EIP, 0
    check_msr "msr.kernel_gs_base", MSR_KERNEL_GS_BASE, 0
    check_msr "msr.tsc_aux", MSR_TSC_AUX, 0
    check_msr "apic.base", MSR_APICBASE, 0xfee00900
    apic_read APIC_LVTT
    check32 "apic.timer_masked", eax, 0x10000
    apic_read APIC_TMICT
    check32 "apic.timer_stopped", eax, 0
    apic_read APIC_TPR
    check32 "apic.tpr", eax, 0
    apic_read APIC_IRR + 0x20
    check32 "apic.nothing_pending", eax, 0
    ioapic_read 0x10 + 2 * 20
    checkm "ioapic.masked", eax, 0x10000, 0x10000
    cmos_read 0x0b
    checkm "rtc.no_interrupts", eax, 0x68, 0
    mov dx, 0x3ff
    in al, dx
    movzx eax, al
    check32 "uart.scratch", eax, 0
    ret

; Nothing of it may be there after the reset.
leave_a_mess:
    mov dword [data], 0xbad
    mov edi, SCRATCH            ; some of it is loaded lazily when the machine is restored in between
    mov ecx, 64 * 4096 / 8
    mov rax, 0x0123456789abcdef
.fill:
    add [rdi], rax
    add rdi, 8
    loop .fill
    mov eax, 0x1234
    mov dr0, rax
    mov eax, 0x402
    mov dr7, rax
    mov cr2, rax
    mov ecx, 0
    mov eax, 3
    xor edx, edx
    xsetbv
    wrmsr_imm MSR_PAT, 0x0007040600070400
    wrmsr_imm MSR_LSTAR, 0x100000
    wrmsr_imm MSR_SYSENTER_EIP, 0x100000
    wrmsr_imm MSR_KERNEL_GS_BASE, 0x100000
    wrmsr_imm MSR_TSC_AUX, 7
    apic_write APIC_TDCR, 0xb
    apic_write APIC_LVTT, 0x20040           ; periodic
    apic_write APIC_TMICT, 100000
    apic_write APIC_ICR, 0x40041            ; pending, as interrupts are off
    apic_write APIC_TPR, 0x20
    ioapic_write 0x10 + 2 * 20, 0x50
    cmos_write 0x0b, 0x42                   ; periodic interrupts
    mov dx, 0x3ff
    mov al, 0x77
    out dx, al
    ret
    end_image
