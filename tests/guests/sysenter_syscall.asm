; SYSCALL and SYSRET, SYSENTER and SYSEXIT in 64-bit and compatibility code, SWAPGS, FSGSBASE, RDTSCP, RDPID.
; SDM 2B. Intel's behaviour: SYSCALL only in 64-bit mode, SYSRET faults on a non-canonical RCX at CPL 0.
%include "common.inc"
%define STAR 0xc0000081
%define LSTAR 0xc0000082
%define CSTAR 0xc0000083
%define FMASK 0xc0000084
%define SYSENTER_CS 0x174
%define SYSENTER_ESP 0x175
%define SYSENTER_EIP 0x176
%define FS_BASE 0xc0000100
%define GS_BASE 0xc0000101
%define KERNEL_GS_BASE 0xc0000102
%define NONCANON 0x0000800000000000
%define U(x) (A(x) + UALIAS)

align 8
s_cs: dq 0
s_ss: dq 0
s_fl: dq 0
s_sp: dq 0
s_cx: dq 0
s_r11: dq 0
%macro note_entry 0
    mov [s_sp], rsp
    mov [s_cx], rcx
    mov [s_r11], r11
    mov esp, STACK_TOP - 0x1000
    pushfq
    pop qword [s_fl]
    mov qword [s_cs], 0
    mov word [s_cs], cs
    mov qword [s_ss], 0
    mov word [s_ss], ss
%endmacro
syscall_entry:
    note_entry
    int 0x61
syscall_return:                 ; back with SYSRET
    note_entry
    mov rsp, [s_sp]
    mov rcx, [s_cx]
    mov r11, [s_r11]
    o64 sysret
syscall_to_compat:
    note_entry
    mov ecx, U(compat_user)
    mov r11d, 0x46
    mov rsp, [s_sp]
    o32 sysret
bits 32
compat_user:
    pushfd
    pop esi
    mov eax, 0x50
    inc eax
    int V_BACK
compat_syscall:
    syscall
    int V_BACK
compat_sysenter:
    sysenter
    int V_BACK
bits 64

main:
    wrmsr_imm STAR, (0x23 << 48) | (KCS64 << 32)
    wrmsr_imm LSTAR, A(syscall_entry)
    wrmsr_imm FMASK, 0x47701
    wrmsr_imm CSTAR, A(syscall_entry)
    call syscalls
    call sysenters
    call bases
    jmp finish

syscalls:
    try_user
    mov r11d, 5
    stc
    std
    syscall
.next:
    endtry_user_fault "syscall.user", 0x61, 0, -1
    check "syscall.cs", [s_cs], KCS64
    check "syscall.ss", [s_ss], KDS
    check "syscall.rcx", [s_cx], U(.next)
    checkm "syscall.r11", [s_r11], 0xffff, 0x403
    checkm "syscall.fmask", [s_fl], 0xffff, 2
    check "syscall.rsp_kept", [s_sp], USTACK_TOP + UALIAS
    wrmsr_imm LSTAR, A(syscall_return)
    try_user
    stc
    std
    mov ebx, 0x777
    syscall
    pushfq
    pop rsi
    cld
    mov edi, cs
    mov ecx, ss
    int V_BACK
    endtry_user_fault "sysret.to_64", V_BACK, 0, -1
    check "sysret.cs", [f_cs], UCS64
    check "sysret.ss", [f_ss], UDS
    checkm "sysret.flags", [f_si], 0xffff, 0x403
    wrmsr_imm LSTAR, A(syscall_to_compat)
    try_user
    syscall
    endtry_user_fault "sysret.to_compat", V_BACK, 0, -1
    check "sysret.compat_cs", [f_cs], UCS32
    check "sysret.compat_ss", [f_ss], UDS
    check "sysret.compat_ran", [f_ax], 0x51
    checkm "sysret.compat_flags", [f_si], 0xffff, 0x46
    wrmsr_imm LSTAR, A(syscall_entry)
    try
    syscall
.kernel:
    endtry_fault "syscall.from_cpl0", 0x61, 0, -1
    check "syscall.from_cpl0_rcx", [s_cx], A(.kernel)
    intel_only "syscall.compat_is_ud"
    try
    push UDS
    push USTACK_TOP + UALIAS
    push 2
    push UCS32
    push U(compat_syscall)
    iretq
    endtry_fault "syscall.compat_is_ud", V_UD, 0, U(compat_syscall)
    end_only
    try_user
    o64 sysret
    endtry_user_fault "sysret.user", V_GP, 0
    intel_only "sysret.noncanonical"
    mov rcx, NONCANON
    mov r11d, 2
    try
    o64 sysret
    endtry_fault "sysret.noncanonical", V_GP, 0
    check "sysret.noncanonical_at_cpl0", [f_cs], KCS64
    end_only
    ; without EFER.SCE
    mov ecx, MSR_EFER
    rdmsr
    btr eax, 0
    wrmsr
    try
    syscall
    endtry_fault "syscall.sce_off", V_UD, 0
    try
    o64 sysret
    endtry_fault "sysret.sce_off", V_UD, 0
    mov ecx, MSR_EFER
    rdmsr
    bts eax, 0
    wrmsr
    ret

sysenter_entry:
    note_entry
    int 0x62
sysenters:
    wrmsr_imm SYSENTER_CS, 0
    try_user
    sysenter
    endtry_user_fault "sysenter.null_cs", V_GP, 0
    try
    sysexit
    endtry_fault "sysexit.null_cs", V_GP, 0
    wrmsr_imm SYSENTER_CS, KCS64
    wrmsr_imm SYSENTER_ESP, 0x7fff12345678
    wrmsr_imm SYSENTER_EIP, A(sysenter_entry)
    try_user
    std
    sysenter
    endtry_user_fault "sysenter.user", 0x62, 0, -1
    check "sysenter.cs", [s_cs], KCS64
    check "sysenter.ss", [s_ss], KDS
    mov rcx, 0x7fff12345678
    check "sysenter.rsp", [s_sp], rcx
    checkm "sysenter.flags", [s_fl], 0x700, 0x400
    try
    push UDS
    push USTACK_TOP + UALIAS
    push 2
    push UCS32
    push U(compat_sysenter)
    iretq
    endtry_fault "sysenter.compat", 0x62, 0, -1
    check "sysenter.compat_cs", [s_cs], KCS64
    mov ecx, USTACK_TOP + UALIAS
    mov edx, U(compat_user)
    try
    sysexit
    endtry_fault "sysexit.to_compat", V_BACK, 0, -1
    check "sysexit.compat_cs", [f_cs], KCS64 + 16 + 3
    check "sysexit.compat_ss", [f_ss], KCS64 + 24 + 3
    check "sysexit.compat_ran", [f_ax], 0x51
    check "sysexit.compat_esp", [f_sp], USTACK_TOP + UALIAS
    mov rcx, USTACK_TOP + UALIAS
    mov rdx, U(.user64)
    try
    o64 sysexit
.user64:
    mov eax, 0x11
    int V_BACK
    endtry_fault "sysexit.to_64", V_BACK, 0, -1
    check "sysexit.64_cs", [f_cs], KCS64 + 32 + 3
    check "sysexit.64_ss", [f_ss], KCS64 + 40 + 3
    check "sysexit.64_ran", [f_ax], 0x11
    try_user
    sysexit
    endtry_user_fault "sysexit.user", V_GP, 0
    intel_only "sysexit.noncanonical"
    mov rdx, NONCANON
    mov ecx, USTACK_TOP + UALIAS
    try
    o64 sysexit
    endtry_fault "sysexit.noncanonical_rdx", V_GP, 0
    mov rcx, NONCANON
    mov edx, U(.user64)
    try
    o64 sysexit
    endtry_fault "sysexit.noncanonical_rcx", V_GP, 0
    end_only
    ret

bases:
    mov dword [abs 0x600010], 0x1010
    mov dword [abs 0x601010], 0x2020
    wrmsr_imm GS_BASE, 0x600000
    wrmsr_imm KERNEL_GS_BASE, 0x601000
    mov eax, [gs:0x10]
    check32 "gs.base", eax, 0x1010
    swapgs
    mov eax, [gs:0x10]
    check32 "swapgs.exchanged", eax, 0x2020
    mov ecx, KERNEL_GS_BASE
    rdmsr
    check32 "swapgs.msr", eax, 0x600000
    swapgs
    ; the base is 64 bits, and an offset wraps
    wrmsr_imm FS_BASE, 0xffffffff00000000
    mov rdi, 0x100600010
    mov eax, [fs:rdi]
    check32 "fs.negative_base", eax, 0x1010
    ; loading a selector replaces the low base only by the descriptor's; null keeps it on Intel
    mov eax, KDS
    mov fs, eax
    mov ecx, FS_BASE
    rdmsr
    check32 "fs.load_replaces_low", eax, 0
    check32 "fs.load_clears_high", edx, 0
    ; addresses with a base must be canonical
    wrmsr_imm FS_BASE, 0x00007ffffffff000
    mov edi, 0x1000
    try
    mov eax, [fs:rdi]
    endtry_fault "fs.sum_noncanonical", V_GP, 0
    ; a32: the sum of base and 32-bit offset
    wrmsr_imm FS_BASE, 0x600000
    mov rdi, 0x5555555500000010
    a32 mov eax, [fs:edi]
    check32 "fs.a32", eax, 0x1010
    lea rax, [fs:rdi]
    mov rcx, 0x5555555500000010
    check "fs.lea_ignores_base", rax, rcx
    need_cpuid "FSGSBASE", 7, 0, ebx, 0
    try
    rdfsbase rax
    endtry_fault "fsgsbase.off", V_UD, 0
    or_cr4 1 << 16
    rdfsbase rax
    check "rdfsbase", rax, 0x600000
    mov rax, 0xffffffff12345678
    wrgsbase eax
    rdgsbase rcx
    check "wrgsbase.32bit", rcx, 0x12345678
    wrgsbase rax
    rdgsbase rcx
    mov rdx, 0xffffffff12345678
    check "wrgsbase.64bit", rcx, rdx
    rdgsbase ecx
    check "rdgsbase.32bit", rcx, 0x12345678
    mov rax, NONCANON
    intel
    try
    wrfsbase rax
    endtry_fault "wrfsbase.noncanonical", V_GP, 0
    try_user
    mov eax, 0x1234
    wrfsbase rax
    rdfsbase rax
    int V_BACK
    endtry_user_fault "wrfsbase.user", V_BACK, 0, -1
    check "wrfsbase.user_value", [f_ax], 0x1234
    and_cr4 ~(1 << 16)
    end_only
    need_cpuid "RDTSCP", 0x80000001, 0, edx, 27
    wrmsr_imm 0xc0000103, 0x4321
    rdtscp
    check32 "rdtscp.aux", ecx, 0x4321
    or_cr4 4
    try_user
    rdtscp
    endtry_user_fault "rdtscp.user_tsd", V_GP, 0
    and_cr4 ~4
    need_cpuid "RDPID", 7, 0, ecx, 22
    rdpid rax
    check "rdpid", rax, 0x4321
    end_only
    end_only
    wrmsr_imm GS_BASE, 0
    wrmsr_imm FS_BASE, 0
    ret
    end_image
