; Exceptions raised by software in 64-bit mode: vector, error code, pushed RIP, priorities, escalation.
%include "common.inc"

%macro save_idt 1               ; copies the gate of vector %1 aside
    mov rax, [idt + %1 * 16]
    mov [saved_gate], rax
%endmacro
%macro restore_idt 1
    mov rax, [saved_gate]
    mov [idt + %1 * 16], rax
%endmacro
%define NONCANON 0x8000000000000000

main:
    ; ---- vectors 0..7
    xor edx, edx
    xor ecx, ecx
    mov eax, 5
    try
    div ecx
    endtry_fault "de.div_by_zero", V_DE, 0
    mov edx, 5
    mov ecx, 1
    try
    div ecx
    endtry_fault "de.div_overflow", V_DE, 0
    check "de.rax_kept", rax, 5
    check "de.rdx_kept", rdx, 5
    mov eax, 0x80
    mov cl, 0xff
    cbw
    mov ax, 0x8000
    cwd
    mov cx, -1
    try
    idiv cx
    endtry_fault "de.idiv_min_by_minus_one", V_DE, 0
    try
    int3
.bp:
    endtry_fault "bp.int3", V_BP, 0, A(.bp)
    try
    int 3
.bp2:
    endtry_fault "bp.int_3", V_BP, 0, A(.bp2)
    try
    int 4
.of:
    endtry_fault "of.int_4", V_OF, 0, A(.of)
    try
    ud2
    endtry_fault "ud.ud2", V_UD, 0
    try
    db 0x0f, 0xb9, 0xc0         ; UD1 eax, eax
    endtry_fault "ud.ud1", V_UD, 0
    try
    db 0x06                     ; PUSH ES
    endtry_fault "ud.push_es", V_UD, 0
    try
    db 0xce                     ; INTO
    endtry_fault "ud.into", V_UD, 0
    try
    db 0xf0, 0x90               ; LOCK NOP
    endtry_fault "ud.lock_nop", V_UD, 0
    try
    db 0xf0, 0x01, 0xc0         ; LOCK ADD eax, eax
    endtry_fault "ud.lock_register", V_UD, 0
    try
    db 0xf0, 0x39, 0x00         ; LOCK CMP [rax], eax
    endtry_fault "ud.lock_cmp", V_UD, 0
    try
    db 0x8c, 0xf8               ; MOV eax, segment 7
    endtry_fault "ud.mov_from_segment_7", V_UD, 0
    xor eax, eax
    try
    db 0x8e, 0xc8               ; MOV CS, eax
    endtry_fault "ud.mov_to_cs", V_UD, 0
    try
    db 0x0f, 0x20, 0xc8         ; MOV rax, CR1
    endtry_fault "ud.mov_from_cr1", V_UD, 0
    try
    vmcall
    endtry_fault "ud.vmcall_without_vmx", V_UD, 0
    or_cr0 8                    ; TS
    try
    fninit
    endtry_fault "nm.ts_x87", V_NM, 0
    try
    movaps xmm0, xmm1
    endtry_fault "nm.ts_sse", V_NM, 0
    try
    fwait
    endtry_fault "nm.ts_mp_wait", V_NM, 0
    clts
    mov rax, cr0
    test al, 8
    setnz al
    movzx eax, al
    check "nm.clts_clears_ts", rax, 0
    or_cr0 4                    ; EM
    try
    fninit
    endtry_fault "nm.em_x87", V_NM, 0
    try
    movaps xmm0, xmm1
    endtry_fault "ud.em_sse", V_UD, 0
    and_cr0 ~4
    and_cr4 ~0x200              ; OSFXSR off
    try
    movaps xmm0, xmm1
    endtry_fault "ud.osfxsr_off", V_UD, 0
    or_cr4 0x200

    ; ---- #MF and #XM
    fninit
    push 0x37e                  ; unmask invalid operation
    fldcw [rsp]
    pop rax
    fldz
    fldz
    fdivp st1, st0
    try
    fwait
    endtry_fault "mf.fwait", V_MF, 0
    intel_only "mf.next_x87"    ; SDM 1 8.6: the next waiting instruction takes the exception
    try
    fldz
    endtry_fault "mf.next_x87", V_MF, 0
    end_only
    fnclex
    try
    fwait
    endtry_ok "mf.cleared_by_fnclex"
    fninit
    intel_only "xm (QEMU raises no SIMD exceptions)"
    push 0x1f00                 ; unmask invalid only: 0x1f00 keeps others masked
    ldmxcsr [rsp]
    pop rax
    xorps xmm0, xmm0
    try
    divps xmm0, xmm0
    endtry_fault "xm.div_0_0", V_XM, 0
    and_cr4 ~0x400              ; OSXMMEXCPT off: #UD instead
    try
    divps xmm0, xmm0
    endtry_fault "ud.xm_without_osxmmexcpt", V_UD, 0
    or_cr4 0x400
    push 0x1f80
    ldmxcsr [rsp]
    pop rax
    end_only

    ; ---- #GP
    mov rbx, NONCANON
    try
    mov eax, [rbx]
    endtry_fault "gp.noncanonical_read", V_GP, 0
    try
    mov [rbx], eax
    endtry_fault "gp.noncanonical_write", V_GP, 0
    mov rbp, NONCANON
    intel_only "ss.noncanonical_rbp (QEMU: #GP)"
    try
    mov eax, [rbp]
    endtry_fault "ss.noncanonical_rbp", V_SS, 0
    mov rbp, 0x00007fffffffffff
    try
    mov eax, [rbp]
    endtry_fault "ss.crosses_canonical_boundary", V_SS, 0
    mov byte [idt + V_SS * 16 + 4], 1
    mov rcx, NONCANON
    try
    mov rsp, rcx
.push:
    push rax
    endtry_fault "ss.push_noncanonical", V_SS, 0, A(.push)
    try
    mov rsp, rcx
.pop:
    pop rax
    endtry_fault "ss.pop_noncanonical", V_SS, 0, A(.pop)
    mov byte [idt + V_SS * 16 + 4], 0
    end_only
    intel_only "gp.jmp_noncanonical (QEMU faults at the target)"
    ; SDM 2A JMP: the instruction itself faults; RIP is the JMP's.
    mov rax, NONCANON
    try
    jmp rax
    endtry_fault "gp.jmp_noncanonical", V_GP, 0
    try
    call rax
    endtry_fault "gp.call_noncanonical", V_GP, 0
    try
    push rax
.ret:
    ret
    endtry_fault "gp.ret_noncanonical", V_GP, 0, A(.ret)
    end_only
    mov eax, 0x1000
    try
    mov ds, eax
    endtry_fault "gp.selector_beyond_gdt", V_GP, 0x1000
    mov eax, 0x1003
    try
    mov ds, eax
    endtry_fault "gp.selector_rpl_dropped_from_error", V_GP, 0x1000
    mov eax, 0x1004
    try
    mov es, eax
    endtry_fault "gp.selector_beyond_null_ldt", V_GP, 0x1004
    try
    int 0x80
.int80:
    endtry_fault "ok.int80", 0x80, 0, A(.int80)
    intel_only "gp.rdmsr_unknown, CR4 checks"
    mov ecx, 0x12345678
    try
    rdmsr
    endtry_fault "gp.rdmsr_unknown", V_GP, 0
    mov rax, cr4
    bts rax, 63
    try
    mov cr4, rax
    endtry_fault "gp.cr4_reserved", V_GP, 0
    mov rax, cr4
    btr rax, 5
    try
    mov cr4, rax
    endtry_fault "gp.cr4_pae_off_in_long_mode", V_GP, 0
    end_only
    intel_only "gp.cr0 combinations (QEMU does not check)"
    ; SDM 2B MOV CR: PG without PE, NW without CD, PG off in 64-bit mode.
    mov rax, cr0
    btr eax, 31
    try
    mov cr0, rax
    endtry_fault "gp.cr0_pg_off_in_64bit", V_GP, 0
    mov rax, cr0
    btr eax, 0
    try
    mov cr0, rax
    endtry_fault "gp.cr0_pg_without_pe", V_GP, 0
    mov rax, cr0
    bts eax, 29
    btr eax, 30
    try
    mov cr0, rax
    endtry_fault "gp.cr0_nw_without_cd", V_GP, 0
    mov rax, cr0
    bts rax, 32
    try
    mov cr0, rax
    endtry_fault "gp.cr0_upper_half", V_GP, 0
    mov rax, cr3
    bts rax, 62
    try
    mov cr3, rax
    endtry_fault "gp.cr3_reserved", V_GP, 0
    end_only
    intel_only "gp.wrmsr noncanonical and EFER (QEMU does not check)"
    mov ecx, 0xc0000082
    mov edx, 0x80000000
    xor eax, eax
    try
    wrmsr
    endtry_fault "gp.lstar_noncanonical", V_GP, 0
    mov ecx, 0xc0000101
    try
    wrmsr
    endtry_fault "gp.gsbase_noncanonical", V_GP, 0
    mov ecx, MSR_EFER
    rdmsr
    btr eax, 8
    try
    wrmsr
    endtry_fault "gp.efer_lme_change_while_paging", V_GP, 0
    mov ecx, MSR_EFER
    rdmsr
    bts eax, 2
    try
    wrmsr
    endtry_fault "gp.efer_reserved", V_GP, 0
    end_only
    lea rbx, [scratch + 8]
    try
    movaps xmm0, [rbx]
    endtry_fault "gp.movaps_unaligned", V_GP, 0
    lea rbx, [scratch + 8]
    try
    lock cmpxchg16b [rbx]
    endtry_fault "gp.cmpxchg16b_unaligned", V_GP, 0
    intel_only "gp.instruction longer than 15 bytes"
    try
    times 15 db 0x66
    nop
    endtry_fault "gp.instruction_length", V_GP, 0
    end_only
    try
    times 14 db 0x66
    nop
    endtry_ok "gp.instruction_length_15"

    ; ---- #NP and #SS through segment loads, #NP through the IDT
    mov qword [gdt_free], 0
    mov rax, 0x00cf13000000ffff ; data, not present
    mov [gdt_free], rax
    mov eax, FREE_SEL
    try
    mov ds, eax
    endtry_fault "np.data", V_NP, FREE_SEL
    try
    mov ss, eax
    endtry_fault "ss.not_present", V_SS, FREE_SEL
    ; QEMU counts 16 bytes a vector in 64-bit mode's error codes; SDM 3A 6.13: the index is the vector
    save_idt 0x41
    and byte [idt + 0x41 * 16 + 5], 0x7f
    intel
    try
    int 0x41
    endtry_fault "np.idt_gate", V_NP, 0x41 * 8 + 2
    mov byte [idt + 0x41 * 16 + 5], 0x85
    intel
    try
    int 0x41
    endtry_fault "gp.idt_gate_type", V_GP, 0x41 * 8 + 2
    restore_idt 0x41
    mov word [small_idtr], 0x40 * 16 + 14   ; one byte short of a whole gate 0x40
    lidt [small_idtr]
    intel
    try
    int 0x40
    endtry_fault "gp.idt_limit", V_GP, 0x40 * 8 + 2
    lidt [idtr]
    intel
    try_user
    int 0x41
    endtry_user_fault "gp.int_dpl", V_GP, 0x41 * 8 + 2
    try_user
    int3
.ubp:
    endtry_user_fault "bp.user_int3", V_BP, 0, A(.ubp)
    check "bp.user_pushed_cs", [f_cs], UCS64
    check "bp.user_pushed_ss", [f_ss], UDS
    check "bp.user_pushed_rsp", [f_sp], USTACK_TOP + UALIAS
    checkm "bp.user_pushed_flags", [f_fl], 0xffffffff, 2
    check "bp.user_frame_at_rsp0", [f_frame], RSP0_TOP - 40

    ; ---- privileged instructions at CPL 3
    try_user
    hlt
    endtry_user_fault "gp.user_hlt", V_GP, 0
    try_user
    cli
    endtry_user_fault "gp.user_cli", V_GP, 0
    try_user
    in al, 0x21
    endtry_user_fault "gp.user_in", V_GP, 0
    try_user
    mov rax, cr0
    endtry_user_fault "gp.user_mov_cr", V_GP, 0
    try_user
    mov rax, dr7
    endtry_user_fault "gp.user_mov_dr", V_GP, 0
    try_user
    lgdt [gdtr]
    endtry_user_fault "gp.user_lgdt", V_GP, 0
    try_user
    ltr ax
    endtry_user_fault "gp.user_ltr", V_GP, 0
    try_user
    clts
    endtry_user_fault "gp.user_clts", V_GP, 0
    try_user
    invlpg [rax]
    endtry_user_fault "gp.user_invlpg", V_GP, 0
    try_user
    wbinvd
    endtry_user_fault "gp.user_wbinvd", V_GP, 0
    try_user
    rdmsr
    endtry_user_fault "gp.user_rdmsr", V_GP, 0
    try_user
    swapgs
    endtry_user_fault "gp.user_swapgs", V_GP, 0
    try_user
    lmsw ax
    endtry_user_fault "gp.user_lmsw", V_GP, 0
    or_cr4 4                    ; TSD
    try_user
    rdtsc
    endtry_user_fault "gp.user_rdtsc_tsd", V_GP, 0
    and_cr4 ~4
    try_user
    rdtsc
    endtry_user_ok "ok.user_rdtsc"
    mov ecx, 0
    try_user
    rdpmc
    endtry_user_fault "gp.user_rdpmc_pce_off", V_GP, 0
    try_user
    mov ax, KDS
.load:
    mov ds, ax
    endtry_user_fault "gp.user_loads_kernel_data", V_GP, KDS, A(.load)
    try_user
    push rax
    popfq
    endtry_user_ok "ok.user_popf"

    ; ---- #PF
    mov rbx, 0x80000000
    try
    mov eax, [rbx]
    endtry_fault "pf.read_not_present", V_PF, 0, first, 0x80000000
    try
    mov [rbx + 0x123], eax
    endtry_fault "pf.write_not_present", V_PF, 2, first, 0x80000123
    try
    jmp rbx
    endtry_fault "pf.fetch_not_present", V_PF, 0x10, 0x80000000, 0x80000000
    try_user
    mov eax, [abs 0x100000]
    endtry_user_fault "pf.user_reads_kernel", V_PF, 5, first, 0x100000
    try_user
    mov [abs 0x100000], eax
    endtry_user_fault "pf.user_writes_kernel", V_PF, 7, first, 0x100000
    mov rbx, 0x7ffffffe         ; crosses from the alias into the hole
    try
    mov eax, [rbx]
    endtry_fault "pf.split_read_second_page", V_PF, 0, first, 0x80000000
    mov word [abs 0x3ffffffe], 0x1234
    try
    mov dword [rbx], 0x55667788
    endtry_fault "pf.split_write_second_page", V_PF, 2, first, 0x80000000

    ; ---- #AC
    or_cr0 0x40000
    lea rbx, [scratch + 1 + UALIAS]
    intel
    try_user
    pushfq
    or dword [rsp], 0x40000
    popfq
.ac:
    mov eax, [rbx]
    endtry_user_fault "ac.user_unaligned", V_AC, 0, A(.ac)
    try_user
    pushfq
    or dword [rsp], 0x40000
    popfq
    mov al, [rbx]
    mov ax, [rbx + 1]
    endtry_user_ok "ac.user_aligned"
    pushfq
    or dword [rsp], 0x40000
    popfq
    try
    mov eax, [scratch + 1]
    endtry_ok "ac.supervisor_exempt"
    push 2
    popfq
    and_cr0 ~0x40000

    ; ---- priority: #UD before #NM, #GP before #PF, #NM before #PF
    mov rbx, 0x80000000
    or_cr0 8
    try
    fld dword [rbx]
    endtry_fault "priority.nm_before_pf", V_NM, 0
    intel
    try
    db 0xf0
    fld dword [rbx]
    endtry_fault "priority.ud_before_nm", V_UD, 0
    clts
    mov rbx, 0x80000008
    try
    movaps xmm0, [rbx]
    endtry_fault "priority.gp_alignment_before_pf", V_GP, 0
    try_user
    mov rax, 0x80000000
.lidt:
    lidt [rax]
    endtry_user_fault "priority.gp_privilege_before_pf", V_GP, 0, A(.lidt)

    ; ---- escalation to #DF: contributory after contributory, #PF after #PF
    mov byte [idt + V_DF * 16 + 4], 1
    save_idt V_GP
    and byte [idt + V_GP * 16 + 5], 0x7f
    mov rbx, NONCANON
    try
    mov eax, [rbx]
    endtry_fault "df.np_while_delivering_gp", V_DF, 0
    check "df.frame_on_ist1", [f_frame], IST1_TOP - 40
    restore_idt V_GP
    save_idt V_DE
    and byte [idt + V_DE * 16 + 5], 0x7f
    xor ecx, ecx
    try
    div ecx
    endtry_fault "df.np_while_delivering_de", V_DF, 0
    restore_idt V_DE
    save_idt V_PF
    and byte [idt + V_PF * 16 + 5], 0x7f
    mov rbx, 0x80000000
    try
    mov eax, [rbx]
    endtry_fault "df.np_while_delivering_pf", V_DF, 0
    restore_idt V_PF
    mov rcx, 0x80000800         ; stack in a hole: #PF while delivering #PF
    try
    mov rsp, rcx
.spf:
    push rax
    endtry_fault "df.pf_while_delivering_pf", V_DF, 0, A(.spf)
    ; benign first, then #NP: no double fault; EXT is set for #UD (SDM 3A 6.13)
    save_idt V_UD
    and byte [idt + V_UD * 16 + 5], 0x7f
    intel
    try
    ud2
    endtry_fault "np.while_delivering_ud_has_ext", V_NP, V_UD * 8 + 3
    restore_idt V_UD
    save_idt V_BP
    and byte [idt + V_BP * 16 + 5], 0x7f
    intel_only "np.while_delivering_int3_no_ext"
    try
    int3
    endtry_fault "np.while_delivering_int3_no_ext", V_NP, V_BP * 8 + 2
    end_only
    restore_idt V_BP
    ; contributory then #PF is handled serially: #GP's stack push faults
    mov byte [idt + V_PF * 16 + 4], 1
    mov rcx, 0x80000800
    mov rbx, NONCANON
    try
    mov rsp, rcx
.serial:
    mov eax, [rbx]
    endtry_fault "pf.while_delivering_gp", V_PF, 2, A(.serial), 0x800007f8
    mov byte [idt + V_PF * 16 + 4], 0
    jmp finish

align 16
scratch: times 64 db 0
saved_gate: dq 0
small_idtr: dw 0
    dq A(idt)
    end_image
