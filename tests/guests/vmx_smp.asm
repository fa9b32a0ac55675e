; VMX on two processors: INIT, SIPI and NMI from one while the other runs L2, in root operation, and behind
; VMXOFF (SDM 3C 24.8, 26.2, 28.2). The second processor is the hypervisor that is watched.
%include "common.inc"
%include "irq.inc"
%include "smp.inc"
%include "vmx.inc"

%define VMXON_B (VMX_BASE + 0x15000)
%define OTHER 1 << 24           ; ICR2: the second processor
%define WATCHED 1

%macro send 1                   ; ICR, to the second processor
    apic_write APIC_ICR2, OTHER
    apic_write APIC_ICR, %1
%endmacro
%define INIT 0x4500
%define SIPI(vector) 0x4600 | (vector)
%define NMI 0x4400
; Runs it there, and waits until its L2 loops.
%macro begin 1
    mov dword [beats], 0
    give_work WATCHED, %1
    wait_for beats, 50000000, 2
%endmacro
%macro settle 0                 ; long enough for the other to get anywhere: it runs at each PAUSE
    mov ecx, 50
%%wait:
    pause
    loop %%wait
%endmacro

align 8
beats: dd 0                     ; what L2 of the second processor counts
nmis: dd 0
leave_l2: dd 0
s_qualification: dq 0           ; what the last exit there left
s_info: dq 0
s_activity: dq 0
s_rip: dq 0
own_pointer: dq 0

main:
    call apic_enable
    set_hook V_NMI, nmi_hook
    mov ebx, 1
    call start_aps
    check32 "the other processor is there", [ap_ready], 1
    give_work WATCHED, begin_vmx
    await_work WATCHED

    begin run_loop
    send INIT
    await_work WATCHED
    check "INIT in L2 exits", [x_reason], 3
    check "INIT: qualification", [s_qualification], 0
    check "INIT: activity", [s_activity], 0
    check "INIT: L2 stands in its loop", [s_rip], A(l2_beat)

    give_work WATCHED, run_waiting
    settle
    send SIPI(0x9a)
    await_work WATCHED
    check "SIPI exits from wait-for-SIPI", [x_reason], 4
    check "SIPI: qualification", [s_qualification], 0x9a
    check "SIPI: activity", [s_activity], 3
    begin run_loop
    send SIPI(0x9a)
    settle
    mov dword [leave_l2], 1
    await_work WATCHED
    check "SIPI is nothing to a running L2", [x_reason], 18

    ; Blocked in root operation, and there at the next entry.
    send INIT
    settle
    mov dword [beats], 0
    give_work WATCHED, run_loop
    await_work WATCHED
    check "INIT waits for the entry", [x_reason], 3
    check32 "which runs nothing", [beats], 0

    ; NMIs from this processor's own L2 to the other one's.
    call begin_own_vmx
    begin run_nmi_exiting
    call own_l2
    await_work WATCHED
    check "NMI exits", [x_reason], 0
    check "NMI: info", [s_info], 0x80000202
    check32 "NMI: no handler ran", [nmis], 0
    begin run_loop
    call own_l2
    settle
    mov dword [leave_l2], 1
    await_work WATCHED
    check "without NMI exiting L2 goes on", [x_reason], 18
    check32 "L2 took the NMI itself", [nmis], 1
    give_work WATCHED, unblock
    await_work WATCHED

    ; INIT takes effect behind VMXOFF.
    send INIT
    settle
    mov qword [ap_work + WATCHED * 8], A(end_vmx)
    settle
    mov qword [ap_work + WATCHED * 8], 0
    check32 "INIT behind VMXOFF resets", [off], 1
    send SIPI(TRAMPOLINE / 0x1000)
    wait_for ap_ready, 50000000, 2
    check32 "and SIPI starts it again", [ap_ready], 2
    vmxoff
    jmp finish

nmi_hook:
    lock inc dword [nmis]
    ret

; --- on the second processor ------------------------------------------------------------------------
begin_vmx:
    enter_vmx
    jmp vmcs_fill
run_nmi_exiting:
    set_pin(PIN_NMI)
    jmp run_from_loop
run_loop:
    set_pin(0)
run_from_loop:
    l2_at l2_beat
    mov dword [leave_l2], 0
    jmp run_and_note
run_waiting:
    l2_at l2_beat
    vmw ACTIVITY, 3
run_and_note:
    call l2_run
    vmr X_QUALIFICATION
    mov [s_qualification], rax
    vmr X_INTR_INFO
    mov [s_info], rax
    vmr ACTIVITY
    mov [s_activity], rax
    vmr GUEST_RIP
    mov [s_rip], rax
    ret
unblock:
    iret_here
    ret
end_vmx:
    lock inc dword [off]
    vmxoff
    lock inc dword [off]
.stay: jmp .stay
align 4
off: dd 0

; --- on the first one: its own VMX, beside vmx.inc's ---------------------------------------------------
begin_own_vmx:
    or_cr4 1 << 13
    mov eax, [abs VMXON_REGION]
    mov [abs VMXON_B], eax
    mov qword [own_pointer], VMXON_B
    vmxon [own_pointer]
    mov qword [own_pointer], VMCS_B
    vmclear [own_pointer]
    vmptrld [own_pointer]
    call vmcs_fill
    vmw HOST_RIP, A(own_l2.exit)
    mov byte [own_launched], 0
    mov byte [launched], 1      ; which vmcs_fill cleared, is the other's
    ret
own_l2:
    vmw GUEST_RIP, A(l2_send)
    vmw GUEST_RSP, L2_STACK + 0x1000
    vmw GUEST_RFLAGS, 2
    vmw HOST_RSP, rsp
    cmp byte [own_launched], 0
    mov byte [own_launched], 1
    jne .again
    vmlaunch
.again:
    vmresume
.exit:
    vmr X_REASON
    check "L2 of the first processor", rax, 18
    ret
own_launched: db 0

; --- L2 ---------------------------------------------------------------------------------------------
l2_beat:
    cmp dword [leave_l2], 0
    jne .leave
    inc dword [beats]
    jmp l2_beat
.leave:
    vmcall
l2_send:
    send NMI
    vmcall
    end_image
