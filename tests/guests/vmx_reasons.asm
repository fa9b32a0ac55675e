; Every basic exit reason of the silicon's table (engine/arch/exit_reason.def), without EPT and with it. What
; was not seen at the end, and is not among the few that cannot be, fails. The second processor sends what
; only another one can.
%include "common.inc"
%include "irq.inc"
%include "smp.inc"
%include "vmx.inc"
%include "ept.inc"

%define CANNOT -1               ; by any program
%define WITH_EPT 2

align 8
ept_control: dd 0               ; PROC2_EPT in the second round
sender_stops: dd 0
seen: times 128 db 0
; Reasons that are excused: the number, in which rounds, and why.
excused_reasons:
    db 11, CANNOT               ; GETSEC: no SMX
    db 17, CANNOT               ; RSM: outside SMM it is undefined, and there is no dual-monitor treatment
    db 41, CANNOT               ; machine checks do not happen
    db 60, CANNOT               ; ENCLS: no SGX
    db 63, CANNOT               ; XSAVES, XRSTORS: IA32_XSS has no bits
    db 64, CANNOT
    db 48, WITH_EPT
    db 49, WITH_EPT
    db 62, WITH_EPT
    db 0xff

main:
    call apic_enable
    mov ebx, 1
    call start_aps
    or_cr4 1 << 18              ; OSXSAVE, for XSETBV
    enter_vmx
    call vmcs_fill
    call ept_fill
    call round
    mov dword [ept_control], PROC2_EPT
    vmw EPTP, EPT_PML4 | 0x5e   ; with accessed and dirty flags
    call round
    vmxoff
    jmp finish

round:
    lea rdi, [seen]
    mov ecx, 128 / 8
    xor eax, eax
    rep stosq
    call instructions
    call registers
    call events
    call other_processor
    call apic
    call failures
    call task
    cmp dword [ept_control], 0
    je .check
    call second_level
.check:
    jmp check_seen

; Controls, with EPT in the second round.
%macro use 2                    ; primary, secondary
    set_proc((%1) | PROC_SECONDARY)
    mov eax, %2
    or eax, [ept_control]
    call set_secondary
%endmacro
set_secondary:
    mov ecx, 0x48b
    call adjust
    mov ecx, eax
    vmw PROC2_CONTROLS, rcx
    ret
; Runs L2, which has to exit for a reason; goes there.
%macro leaves 2                 ; label, reason
    l2_at %1
    leaves_now %2
%endmacro
%macro leaves_now 1
    %defstr %%text %1
    call l2_run
    call note
    check {"exits for reason ", %%text}, [x_reason], %1
%endmacro
note:
    movzx eax, byte [x_reason]
    cmp dword [x_reason], -1
    je .end
    mov byte [seen + rax], 1
.end:
    ret

instructions:
    use PROC_HLT | PROC_INVLPG | PROC_RDPMC | PROC_RDTSC | PROC_MWAIT | PROC_MONITOR | PROC_PAUSE, \
        PROC2_DT | PROC2_WBINVD | PROC2_RDRAND | PROC2_RDSEED | PROC2_INVPCID | PROC2_VMFUNC | 8
    vmw VM_FUNCTIONS, 0
    leaves l2_cpuid, 10
    leaves l2_hlt, 12
    leaves l2_invd, 13
    leaves l2_invlpg, 14
    leaves l2_rdpmc, 15
    leaves l2_rdtsc, 16
    leaves l2_vmcall, 18
    leaves l2_vmclear, 19
    leaves l2_vmx.vmlaunch, 20
    leaves l2_vmx.vmptrld, 21
    leaves l2_vmptrst, 22
    leaves l2_vmx.vmread, 23
    leaves l2_vmresume, 24
    leaves l2_vmwrite, 25
    leaves l2_vmx, 26
    leaves l2_vmxon, 27
    leaves l2_monitor.mwait, 36
    leaves l2_monitor, 39
    leaves l2_pause, 40
    leaves l2_sgdt, 46
    leaves l2_sldt, 47
    leaves l2_invept, 50
    leaves l2_rdtscp.twice, 51
    leaves l2_invvpid, 53
    leaves l2_wbinvd, 54
    leaves l2_xsetbv, 55
    leaves l2_rdrand, 57
    leaves l2_invpcid, 58
    leaves l2_vmfunc, 59
    leaves l2_rdrand.seed, 61
    ret

registers:
    use PROC_CR3_LOAD | PROC_MOV_DR | PROC_IO, 0
    leaves l2_cr3.load, 28
    leaves l2_dr, 29
    leaves l2_in, 30
    leaves l2_rdmsr, 31         ; without bitmaps every access exits
    leaves l2_rdmsr.wrmsr, 32
    ret

events:
    use 0, 0
    vmw EXCEPTION_BITMAP, 1 << V_UD
    leaves l2_ud, 0
    vmw EXCEPTION_BITMAP, 0
    set_pin(PIN_INTR)
    set_exit(EXIT_ACK)
    apic_write 0x300, 0x40060   ; self, vector 0x60
    leaves l2_loop, 1
    apic_write APIC_EOI, 0
    set_exit(0)
    set_pin(0)
    vmw 0x4812, 0               ; no IDT
    leaves l2_ud, 2
    vmw 0x4812, idt_end - idt - 1
    use PROC_INTR_WINDOW, 0
    leaves l2_sti, 7
    set_pin(PIN_NMI | PIN_VNMI)
    use PROC_NMI_WINDOW, 0
    leaves l2_loop, 8
    set_pin(0)
    use PROC_MTF, 0
    leaves l2_nops, 37
    use 0, 0
    set_pin(PIN_TIMER)
    vmw PREEMPTION_TIMER, 10
    leaves l2_loop, 52
    set_pin(0)
    ret

other_processor:
    use 0, 0
    give_work 1, send_init
    leaves l2_loop, 3
    await_work 1
    mov dword [sender_stops], 0
    give_work 1, send_sipis
    l2_at l2_loop
    vmw ACTIVITY, 3
    leaves_now 4
    mov dword [sender_stops], 1
    await_work 1
    vmw ACTIVITY, 0
    ret
send_init:
    apic_write APIC_ICR2, 0
    apic_write APIC_ICR, 0x4500
    ret
send_sipis:                     ; the first ones may come before anybody waits for one
    apic_write APIC_ICR2, 0
    apic_write APIC_ICR, 0x4699
    pause
    cmp dword [sender_stops], 0
    je send_sipis
    ret

; The virtual APIC.
%define PROC2_APIC_ACCESSES 1
%define PROC2_X2APIC 0x10
%define PROC2_APIC_REGISTERS 0x100
%define PROC2_VID 0x200
apic:
    vmw F_VAPIC, VAPIC
    vmw F_APIC_ACCESS, APIC_PAGE
    vmw TPR_THRESHOLD, 0
    use PROC_TPR_SHADOW, PROC2_APIC_ACCESSES
    leaves l2_apic, 44
    use PROC_TPR_SHADOW, PROC2_APIC_ACCESSES | PROC2_APIC_REGISTERS
    leaves l2_apic.timer, 56
    check_field "which register", X_QUALIFICATION, 0x320
    mov dword [abs VAPIC + 0x80], 0x50
    vmw TPR_THRESHOLD, 3
    use PROC_TPR_SHADOW, 0
    leaves l2_tpr, 43
    vmw TPR_THRESHOLD, 0
    mov dword [abs VAPIC + 0x80], 0
    set_pin(PIN_INTR)
    use PROC_TPR_SHADOW | PROC_MSR_BITMAPS, PROC2_X2APIC | PROC2_VID | PROC2_APIC_REGISTERS
    mov dword [abs VAPIC + 0x100 + 0x20], 1 << 17 ; ISR: vector 0x51
    vmw GUEST_INTR_STATUS, 0x5100
    vmw EOI_BITMAP_0 + 2, 1 << (0x51 - 64)
    leaves l2_eoi, 45
    check_field "which vector", X_QUALIFICATION, 0x51
    vmw GUEST_INTR_STATUS, 0
    set_pin(0)
    use 0, 0
    ret

; Entries that fail: bit 31 beside the reason.
failures:
    vmw GUEST_CS_RIGHTS, 0
    leaves l2_loop, 0x80000021
    vmw GUEST_CS_RIGHTS, 0xa09b
    mov dword [abs MSR_LISTS], 0xc0000100
    vmw ENTRY_LOAD_ADDR, MSR_LISTS
    vmw ENTRY_LOAD_COUNT, 1
    leaves l2_loop, 0x80000022
    vmw ENTRY_LOAD_COUNT, 0
    ret

; A task switch, in a legacy L2 with 4 MiB pages.
%define LEGACY_PD (VMX_BASE + 0x16000)
%define TASK_SEL FREE_SEL
task:
    mov edi, LEGACY_PD
    mov eax, 0x83
    mov ecx, 16
.next:
    mov [rdi], eax
    add eax, 0x400000
    add edi, 4
    loop .next
    mov rax, 0x00008905_00000067 ; an available 32-bit TSS, somewhere
    mov [gdt + TASK_SEL], rax
    set_entry(0)
    vmw GUEST_CR3, LEGACY_PD
    mov rcx, cr4
    and ecx, ~0x20
    or ecx, 0x10
    vmw GUEST_CR4, rcx
    vmw GUEST_CS_SEL, KCS32
    vmw GUEST_CS_RIGHTS, 0xc09b
    leaves l2_task, 9
    vmr X_QUALIFICATION
    and eax, 0xffff
    check "which task", rax, TASK_SEL
    set_entry(0x200)
    mov rcx, cr3
    vmw GUEST_CR3, rcx
    mov rcx, cr4
    vmw GUEST_CR4, rcx
    vmw GUEST_CS_SEL, KCS64
    vmw GUEST_CS_RIGHTS, 0xa09b
    ret

second_level:
    mov qword [abs HOLE_ENTRY], 0
    leaves l2_write, 48
    mov qword [abs HOLE_ENTRY], HOLE | 0x32 ; writable, not readable
    leaves l2_write, 49
    mov qword [abs HOLE_ENTRY], HOLE | 0x37
    vmw F_PML_LOG, PML_LOG
    vmw PML_INDEX, 0xffff
    use 0, PROC2_PML
    leaves l2_write, 62
    use 0, 0
    ret

; Every reason of the table against what was seen.
check_seen:
    lea rbx, [reasons]
.next:
    movzx ecx, byte [rbx]
    cmp ecx, 0xff
    je .end
    movzx r12d, byte [seen + rcx]
    lea rsi, [excused_reasons]
.excuse:
    cmp byte [rsi], 0xff
    je .wanted
    cmp [rsi], cl
    je .found
    add rsi, 2
    jmp .excuse
.found:
    mov r13d, 0
    cmp byte [rsi + 1], WITH_EPT
    jne .compare
    cmp dword [ept_control], 0
    je .compare
.wanted:
    mov r13d, 1
.compare:
    inc rbx
    mov [chk_name], rbx
    mov [chk_got], r12
    mov [chk_want], r13
    call report
.skip:
    inc rbx
    cmp byte [rbx - 1], 0
    jne .skip
    jmp .next
.end:
    ret
reasons:
%define EXIT_REASON(number, name) db number, %str(name), 0
%include "exit_reason.inc"
    db 0xff

%include "vmx_l2.inc"
l2_vmclear: vmclear [rax]
l2_vmptrst: vmptrst [rax]
l2_vmresume: vmresume
l2_vmwrite: vmwrite rax, rax
l2_vmxon: vmxon [rax]
l2_sldt: sldt eax
l2_invept: invept rax, [rax]
l2_invvpid: invvpid rax, [rax]
l2_invpcid: invpcid rax, [rax]
l2_vmfunc: mov eax, 1
    vmfunc
l2_tpr: mov ecx, 2
    mov cr8, rcx
    vmcall
l2_apic: mov eax, [abs APIC_PAGE + 0x30]
.timer: mov dword [abs APIC_PAGE + 0x320], 0x10000
l2_eoi: mov ecx, 0x80b
    xor eax, eax
    xor edx, edx
    wrmsr
l2_write: mov [abs HOLE], rax
bits 32
l2_task: jmp TASK_SEL:0
bits 64
    end_image
