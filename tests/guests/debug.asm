; Debug exceptions: instruction, data and I/O breakpoints, single steps (also over instructions that a
; hypervisor intercepts), DR7.GD, RF, ICEBP, DR4 and DR5, DR6 bits, MOV SS. SDM 3B chapter 18.
%include "common.inc"
%include "irq.inc"

%define BUF 0x600000
%define DR7(n, rw, len) (0x400 | (1 << ((n) * 2)) | ((rw) << (16 + (n) * 4)) | ((len) << (18 + (n) * 4)))
%define X_ 0
%define W_ 1
%define IO_ 2
%define RW_ 3
%macro set_dr7 1                ; rax lost
    mov eax, %1
    mov dr7, rax
%endmacro
%macro set_dr 2
    mov rax, %2
    mov dr%1, rax
%endmacro

align 8
db_n: dd 0, 0
db_rip: times 16 dq 0
db_dr6: times 16 dq 0
db_fl: times 16 dq 0
db_resume: db 1                 ; set RF when it returns
align 8
; Logs, clears DR6, resumes.
db_hook:
    mov eax, [db_n]
    and eax, 15
    mov rcx, [rdi + F_RIP]
    mov [db_rip + rax * 8], rcx
    mov rcx, [rdi + F_FL]
    mov [db_fl + rax * 8], rcx
    mov rcx, dr6
    mov [db_dr6 + rax * 8], rcx
    mov rcx, dr7
    mov [db_dr7], rcx
    inc dword [db_n]
    mov ecx, 0xffff0ff0
    mov dr6, rcx
    cmp byte [db_resume], 0
    je .end
    or dword [rdi + F_FL], 0x10000
.end:
    ret
db_dr7: dq 0

%macro clear 0
    mov dword [db_n], 0
    mov qword [db_rip], 0
    mov qword [db_dr6], 0
%endmacro
%macro hit 4                    ; name, count, rip of the first, low bits of the first DR6
    %strcat hit_name %1, ".count"
    check32 hit_name, [db_n], %2
    %strcat hit_name %1, ".rip"
    check hit_name, [db_rip], %3
    %strcat hit_name %1, ".dr6"
    checkm hit_name, [db_dr6], 0xe00f, %4
%endmacro

main:
    set_hook V_DB, db_hook
    call registers
    call code
    call data
    call io
    call steps
    call shadows
    call general_detect
    set_dr7 0x400
    jmp finish

registers:
    mov rax, dr6
    check "dr6.reset_or_fixed", rax, 0xffff0ff0
    set_dr7 0x400
    mov eax, 0
    mov dr7, rax
    mov rax, dr7
    check "dr7.bit10_is_one", rax, 0x400
    mov eax, 0xf000             ; bits 15, 14 and 12 read as zero; 13 is GD
    and eax, ~0x2000
    mov dr7, rax
    mov rax, dr7
    intel
    check "dr7.fixed_zeros", rax, 0x400
    set_dr7 0x400
    xor eax, eax
    mov dr6, rax
    mov rax, dr6
    check "dr6.fixed_ones", rax, 0xffff0ff0
    mov rax, 0x123456789abcdef0
    mov dr3, rax
    mov rcx, dr3
    mov [want], rax
    check "dr3.64_bits", rcx, [want]
    xor eax, eax
    mov dr3, rax
    mov rax, 0x100000400
    intel
    try
    mov dr7, rax
    endtry_fault "dr7.upper_half", V_GP, 0
    intel
    try
    mov dr6, rax
    endtry_fault "dr6.upper_half", V_GP, 0
    and_cr4 ~8
    mov rax, dr4
    check "dr4.is_dr6_without_de", rax, 0xffff0ff0
    db 0x0f, 0x21, 0xe8         ; MOV RAX, DR5
    check "dr5.is_dr7_without_de", rax, 0x400
    or_cr4 8
    try
    db 0x0f, 0x21, 0xe0         ; MOV RAX, DR4
    endtry_fault "dr4.ud_with_de", V_UD, 0
    try
    db 0x0f, 0x23, 0xe8         ; MOV DR5, RAX
    endtry_fault "dr5.ud_with_de", V_UD, 0
    try_user
    mov rax, dr0
    endtry_user_fault "dr.user", V_GP, 0
    ret
align 8
want: dq 0

code:
    set_dr 0, A(.here)
    clear
    set_dr7 DR7(0, X_, 0)
    xor ebx, ebx
    nop
.here:
    inc ebx
    nop
    set_dr7 0x400
    hit "code", 1, A(.here), 1
    check32 "code.instruction_ran_once", ebx, 1
    checkm "code.pushes_rf_as_it_was", [db_fl], 0x10000, 0
    ; without RF it would come again
    clear
    set_dr7 DR7(0, X_, 0)
    mov rax, rsp
    push KDS
    push rax
    push 0x10002
    push KCS64
    push A(.here2)
    set_dr 0, A(.here2)
    iretq
.here2:
    inc ebx
    set_dr7 0x400
    check32 "code.iret_with_rf", [db_n], 0
    ; a global one, in slot 3, and a branch to it
    set_dr 3, A(.here3)
    clear
    set_dr7 0x400 | 0x80
    jmp .here3
    nop
.here3:
    nop
    set_dr7 0x400
    hit "code.dr3_global", 1, A(.here3), 8
    ; disabled
    clear
    set_dr7 0x400
    jmp .disabled
.disabled:
    nop
    check32 "code.disabled", [db_n], 0
    ; two match at once
    set_dr 0, A(.here4)
    set_dr 1, A(.here4)
    clear
    set_dr7 DR7(0, X_, 0) | DR7(1, X_, 0)
    jmp .here4
.here4:
    nop
    set_dr7 0x400
    hit "code.two", 1, A(.here4), 3
    ; only the first byte counts
    set_dr 0, A(.here5) + 1
    clear
    set_dr7 DR7(0, X_, 0)
    jmp .here5
.here5:
    mov eax, 0x11223344
    set_dr7 0x400
    check32 "code.inside_an_instruction", [db_n], 0
    ; on a faulting instruction the breakpoint comes first
    set_dr 0, A(.here6)
    clear
    set_dr7 DR7(0, X_, 0)
    try
    jmp .here6
.here6:
    ud2
    endtry_fault "code.then_the_fault", V_UD, 0, A(.here6)
    set_dr7 0x400
    hit "code.before_fault", 1, A(.here6), 1
    ; a REP instruction breaks once
    set_dr 0, A(.here7)
    clear
    mov edi, BUF
    mov ecx, 5
    set_dr7 DR7(0, X_, 0)
    jmp .here7
.here7:
    rep stosb
    set_dr7 0x400
    intel                       ; QEMU drops RF after each iteration
    hit "code.rep", 1, A(.here7), 1
    check "code.rep_done", rcx, 0
    ret

%macro data_case 6+             ; name, DR7 value, address, count, dr6, instruction
    set_dr 0, %3
    clear
    set_dr7 %2
    %6
%%after:
    set_dr7 0x400
  %if %4 == 0
    check32 %1, [db_n], 0
  %else
    hit %1, %4, A(%%after), %5
  %endif
%endmacro
data:
    mov edi, BUF
    mov ecx, 0x100
    xor eax, eax
    rep stosd
    mov ebx, BUF
    data_case "data.write", DR7(0, W_, 3), BUF, 1, 1, mov [rbx], ecx
    checkm "data.trap_pushes_no_rf", [db_fl], 0x10000, 0
    data_case "data.write_not_read", DR7(0, W_, 3), BUF, 0, 0, mov ecx, [rbx]
    data_case "data.rw_read", DR7(0, RW_, 3), BUF, 1, 1, mov ecx, [rbx]
    data_case "data.rw_write", DR7(0, RW_, 3), BUF, 1, 1, mov [rbx], ecx
    data_case "data.rmw", DR7(0, W_, 3), BUF, 1, 1, inc dword [rbx]
    data_case "data.byte_in_dword", DR7(0, W_, 3), BUF, 1, 1, mov [rbx + 3], cl
    data_case "data.byte_behind", DR7(0, W_, 3), BUF, 0, 0, mov [rbx + 4], cl
    data_case "data.dword_reaches_byte", DR7(0, W_, 0), BUF + 3, 1, 1, mov [rbx], ecx
    data_case "data.dword_before_byte", DR7(0, W_, 0), BUF + 4, 0, 0, mov [rbx], ecx
    data_case "data.length_2", DR7(0, W_, 1), BUF + 2, 1, 1, mov [rbx + 3], cl
    data_case "data.length_8", DR7(0, W_, 2), BUF, 1, 1, mov [rbx + 7], cl
    data_case "data.length_8_behind", DR7(0, W_, 2), BUF, 0, 0, mov [rbx + 8], cl
    intel_only "data.low_bits_ignored"
    data_case "data.low_bits_ignored", DR7(0, W_, 3), BUF + 2, 1, 1, mov [rbx], cl
    end_only
    data_case "data.no_code_match", DR7(0, RW_, 0), A(data_target), 0, 0, call data_target
    lea rsp, [rsp - 8]
    data_case "data.push", DR7(0, W_, 3), STACK_TOP - 0x18, 1, 1, push rax
    lea rsp, [rsp + 16]
    data_case "data.movaps", DR7(0, W_, 0), BUF + 15, 1, 1, movaps [rbx], xmm0
    ; two, in slots 1 and 2
    set_dr 1, BUF
    set_dr 2, BUF + 1
    intel_only "data.two (QEMU reports one)"
    data_case "data.two", DR7(1, W_, 0) | DR7(2, W_, 0), 0, 1, 6, mov [rbx], cx
    end_only
    ; REP STOSB: after the iteration that wrote
    set_dr 0, BUF + 2
    clear
    mov edi, BUF
    mov ecx, 5
    set_dr7 DR7(0, W_, 0)
.rep:
    rep stosb
.rep_end:
    set_dr7 0x400
    hit "data.rep", 1, A(.rep), 1
    intel                       ; within the repetition RF is pushed set
    checkm "data.rep_pushes_rf", [db_fl], 0x10000, 0x10000
    check "data.rep_done", rcx, 0
    ; an access that faults does not trap
    set_dr 0, 0x80000000
    clear
    set_dr7 DR7(0, RW_, 3)
    mov esi, 0x80000000
    try
    mov eax, [rsi]
    endtry_fault "data.faulting_access", V_PF, 0
    set_dr7 0x400
    check32 "data.fault_no_trap", [db_n], 0
    ret
data_target:
    ret

io:
    or_cr4 8
    set_dr 0, 0xe0
    clear
    set_dr7 DR7(0, IO_, 0)
    mov dx, 0xe0
    out dx, al
.out:
    set_dr7 0x400
    hit "io.out", 1, A(.out), 1
    clear
    set_dr7 DR7(0, IO_, 3)
    mov dx, 0xe2
    in al, dx
.in:
    set_dr7 0x400
    hit "io.in_range", 1, A(.in), 1
    clear
    set_dr7 DR7(0, IO_, 0)
    mov dx, 0xe1
    in al, dx
    set_dr7 0x400
    check32 "io.other_port", [db_n], 0
    and_cr4 ~8
    ret

%macro stepped 2+               ; name, instruction: one trap, behind it
    clear
    pushfq
    or dword [rsp], 0x100
    mov byte [db_resume], 0
    popfq
    %2
%%after:
    pushfq
    and dword [rsp], ~0x100
    popfq
    check %1, [db_rip], A(%%after)
    %strcat step_name %1, ".bs"
    checkm step_name, [db_dr6], 0xe00f, 0x4000
    %strcat step_name %1, ".count"
    check32 step_name, [db_n], 4    ; and PUSHFQ, AND, POPFQ
%endmacro
steps:
    stepped "step.nop", nop
    stepped "step.inc", inc ebx
    stepped "step.cpuid", cpuid
    mov ecx, MSR_EFER
    stepped "step.rdmsr", rdmsr
    mov ecx, MSR_EFER
    rdmsr
    stepped "step.wrmsr", wrmsr
    stepped "step.rdtsc", rdtsc
    mov dx, 0xe0
    stepped "step.out", out dx, al
    stepped "step.in", in al, dx
    mov rax, cr3
    stepped "step.mov_cr3", mov cr3, rax
    stepped "step.invlpg", invlpg [rax]
    mov rax, cr0
    stepped "step.mov_cr0", mov cr0, rax
    intel_only "step.pause (QEMU steps over the next one, too)"
    stepped "step.pause", pause
    end_only
    stepped "step.mmio", mov eax, [abs APIC + APIC_ID]
    mov esi, BUF
    stepped "step.lodsb", lodsb
    stepped "step.cli", cli
    stepped "step.fninit", fninit
    stepped "step.mfence", mfence
    stepped "step.wbinvd", wbinvd
    stepped "step.lidt", lidt [idtr]
    ; into and out of a CALL
    clear
    pushfq
    or dword [rsp], 0x100
    popfq
    call .callee
.back:
    pushfq
    and dword [rsp], ~0x100
    popfq
    check "step.call", [db_rip], A(.callee)
    check "step.ret", [db_rip + 8], A(.back)
    ; INT clears TF in the handler and IRET brings it back
    set_hook 0x50, .nothing
    clear
    pushfq
    or dword [rsp], 0x100
    popfq
    int 0x50
    nop
.after_int:
    pushfq
    and dword [rsp], ~0x100
    popfq
    checkm "step.int_tf_pushed", [int_flags], 0x100, 0x100
    ; the trap behind IRET comes after the next instruction
    check "step.after_iret", [db_rip], A(.after_int)
    ; a faulting instruction does not step; its frame has TF
    clear
    try
    pushfq
    or dword [rsp], 0x100
    popfq
.ud:
    ud2
    endtry_fault "step.fault", V_UD, 0, A(.ud)
    ; faults push RF set (SDM 3B 18.3.1.1)
    intel
    checkm "step.fault_rf_pushed", [f_fl], 0x10000, 0x10000
    checkm "step.fault_tf_pushed", [f_fl], 0x100, 0x100
    check32 "step.fault_no_trap", [db_n], 0
    ; user code is stepped as well
    clear
    push UDS
    push USTACK_TOP + UALIAS
    push 0x102
    push UCS64
    push A(.user) + UALIAS
    mov [recover_rsp], rsp
    lea rax, [.from_user]
    mov [recover_rip], rax
    iretq
.user:
    nop
.user2:
    int V_BACK
.from_user:
    add rsp, 40
    check "step.user", [db_rip], A(.user2) + UALIAS
    check32 "step.user_count", [db_n], 1
    ; ICEBP
    intel_only "icebp"
    clear
    db 0xf1
.ice:
    hit "icebp", 1, A(.ice), 0
    end_only
    ; pending interrupt and single step: the trap comes first, the interrupt right after it
    call apic_enable
    set_hook 0xe0, irq_hook
    call log_clear
    clear
    apic_write APIC_ICR2, 0
    apic_write APIC_ICR, 0x400e0
    pushfq
    or dword [rsp], 0x300
    popfq
.irq_at:
    nop
    pushfq
    and dword [rsp], ~0x300
    popfq
    check32 "step.interrupt_taken", [irq_n], 1
    check "step.interrupt_before_first", [irq_rip], A(.irq_at)
    ret
.callee:
    ret
.nothing:
    mov rax, [rdi + F_FL]
    mov [int_flags], rax
    ret
align 8
int_flags: dq 0

shadows:
    ; MOV SS holds back a single step and a data breakpoint for one instruction
    clear
    mov eax, KDS
    pushfq
    or dword [rsp], 0x100
    popfq
    mov ss, eax
    nop
.after:
    pushfq
    and dword [rsp], ~0x100
    popfq
    check "mov_ss.no_step_behind_it", [db_rip], A(.after)
    mov word [abs BUF], KDS
    set_dr 0, BUF
    clear
    set_dr7 DR7(0, RW_, 1)
    mov ss, [abs BUF]
    nop
.after2:
    set_dr7 0x400
    intel
    check "mov_ss.data_breakpoint_is_late", [db_rip], A(.after2)
    check32 "mov_ss.data_breakpoint_once", [db_n], 1
    ; and an instruction breakpoint on the next instruction is lost
    mov byte [db_resume], 1
    set_dr 0, A(.next)
    mov eax, KDS
    mov ecx, DR7(0, X_, 0)
    clear
    mov dr7, rcx
    mov ss, eax
.next:
    nop
    set_dr7 0x400
    intel
    check32 "mov_ss.code_breakpoint_suppressed", [db_n], 0
    ret

general_detect:
    clear
    mov eax, 0x2400
    mov dr7, rax
    nop
.gd:
    mov rax, dr7                ; faults; GD is clear in the handler, RF lets it run
    intel                       ; QEMU has no GD on reads
    check32 "gd.count", [db_n], 1
    intel
    check "gd.rip", [db_rip], A(.gd)
    intel
    checkm "gd.bd", [db_dr6], 0xe00f, 0x2000
    checkm "gd.clear_in_handler", [db_dr7], 0x2000, 0
    ret
    end_image
