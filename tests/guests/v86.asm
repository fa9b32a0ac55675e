; Virtual-8086 mode: entry by IRET, the frame on the way out, IOPL-sensitive instructions, privileged ones,
; limits, I/O bitmap; with CR4.VME interrupt redirection and VIF/VIP; PVI. SDM 3B chapter 21.
%define BASE32
%include "common.inc"
%include "paging32_common.inc"

%define LOW 0x10000             ; 16-bit code, segment 0x1000
%define R(x) ((x) - rm_start)
%define TB 0x600000
%define TB_SEL FREE_SEL
%define REDIRECTION TB + 0x68
%define IOMAP TB + 0x88
%define VM 0x20000
%define IOPL3 0x3000
%define VIF 0x80000
%define VIP 0x100000

; Runs 16-bit routine %1 in virtual-8086 mode with flags %2 until something reaches the monitor.
%macro v86 2
    mov ebx, R(%1)
    mov edx, VM + 2 + (%2)
    call run_v86
%endmacro
run_v86:
    mov dword [f_vec], V_NONE
    mov [recover_rsp], esp
    mov dword [recover_rip], A(.after)
    push 0x2500
    push 0x2400
    push 0x2300
    push 0x2200
    push 0x3000
    push 0x8000
    push edx
    push 0x1000
    push ebx
    mov eax, 0x1111
    mov ecx, 0x2222
    iretd
.after:
    mov dword [recover_rip], 0
    ret
%macro expect 4                 ; name, vector, error, ip label or -1
    mov dword [chk_vec], %2
    mov dword [chk_err], %3
  %ifidn %4, -1
    mov dword [chk_rip], -1
  %else
    mov dword [chk_rip], R(%4)
  %endif
    mov dword [chk_cr2], -1
    set_name %1
    call report_fault
%endmacro

main:
    mov esi, A(rm_start)
    mov edi, LOW
    mov ecx, rm_end - rm_start
    rep movsb
    mov edi, TB
    mov ecx, 0x400
    xor eax, eax
    rep stosd
    mov edi, IOMAP
    mov ecx, 0x10
    mov eax, -1
    rep stosd
    mov byte [IOMAP + 0xe0 / 8], 0xfe
    mov dword [TB + 4], RSP0_TOP
    mov dword [TB + 8], KDS
    mov word [TB + 0x66], 0x88
    mov dword [gdt + TB_SEL], (TB & 0xffff) << 16 | 0xa8
    mov dword [gdt + TB_SEL + 4], 0x00008900 | (TB >> 16)
    mov ax, TB_SEL
    ltr ax
    mov word [0x60 * 4], R(ivt_handler)
    mov word [0x60 * 4 + 2], 0x1000
    call iopl3
    call iopl0
    call vme
    call pvi
    jmp finish

iopl3:
    v86 r_plain, IOPL3
    expect "plain.out", V_BACK, 0, r_plain.out
    check "plain.cs", [f_cs], 0x1000
    check "plain.ss", [f_ss], 0x3000
    check "plain.sp", [f_sp], 0x8000 - 2
    checkm "plain.flags", [f_fl], 0x3f000, VM + IOPL3
    mov esi, [f_frame]
    check "plain.frame_at_esp0", esi, RSP0_TOP - 36
    check "plain.pushed_es", [RSP0_TOP - 16], 0x2200
    check "plain.pushed_ds", [RSP0_TOP - 12], 0x2300
    check "plain.pushed_fs", [RSP0_TOP - 8], 0x2400
    check "plain.pushed_gs", [RSP0_TOP - 4], 0x2500
    check "plain.ds_store", [0x23010], 0xfeedf00d
    check "plain.gs_store", [0x25010], 0x12341234
    ; the handler's segment registers are null
    mov word [idt + 0x51 * 8], A(.segments) & 0xffff
    mov word [idt + 0x51 * 8 + 6], A(.segments) >> 16
    mov byte [idt + 0x51 * 8 + 5], 0xee
    v86 r_int51, IOPL3
    expect "segments.out", 0x61, 0, -1
    check "segments.null_in_handler", [.nulls], 0
    v86 r_flags, IOPL3
    expect "iopl3.flags_out", V_BACK, 0, -1
    checkm "iopl3.pushf_has_iopl", [f_ax], 0x3200, 0x3000
    checkm "iopl3.sti", [f_cx], 0x200, 0x200
    checkm "iopl3.pushfd_no_vm", [f_si], 0x30000, 0
    checkm "iopl3.popfd_keeps_vm_iopl", [f_fl], VM + IOPL3, VM + IOPL3
    v86 r_iret, IOPL3
    expect "iopl3.iret", V_BACK, 0, r_iret.out
    checkm "iopl3.iret_flags", [f_fl], 0x2d5, 0x0d5
    v86 r_int50, IOPL3
    expect "iopl3.int_dpl0_gate", V_GP, 0x50 * 8 + 2, r_int50
    v86 r_int3, IOPL3
    expect "iopl3.int3", V_BP, 0, r_int3.next
    ret
.segments:
    mov [ss:.nulls], ds
    mov [ss:.nulls + 2], gs
    int 0x61
align 4
.nulls: dd -1

%macro refused 2                ; name, routine: #GP(0) at its start
    v86 %2, 0
    expect %1, V_GP, 0, %2
%endmacro
iopl0:
    refused "iopl0.cli", r_cli
    refused "iopl0.sti", r_sti
    refused "iopl0.pushf", r_pushf
    refused "iopl0.popf", r_popf
    refused "iopl0.int", r_int30
    refused "iopl0.iret", r_iret16
    v86 r_int3, 0
    expect "iopl0.int3_is_free", V_BP, 0, r_int3.next
    refused "privileged.hlt", r_hlt
    refused "privileged.mov_cr", r_mov_cr
    refused "privileged.lgdt", r_lgdt
    refused "privileged.clts", r_clts
    refused "privileged.rdmsr", r_rdmsr
    v86 r_lar, 0
    expect "ud.lar", V_UD, 0, r_lar
    v86 r_verr, 0
    expect "ud.verr", V_UD, 0, r_verr
    v86 r_str, 0
    expect "ud.str", V_UD, 0, r_str
    v86 r_arpl, 0
    expect "ud.arpl", V_UD, 0, r_arpl
    v86 r_in_e0, 0
    expect "io.open_port", V_BP, 0, -1
    v86 r_in_e1, 0
    expect "io.closed_port", V_GP, 0, r_in_e1.in
    v86 r_in_e1, IOPL3
    expect "io.iopl_does_not_help", V_GP, 0, r_in_e1.in
    intel_only "limits (QEMU checks none)"
    v86 r_limit, 0
    expect "limit.ds", V_GP, 0, r_limit.at
    v86 r_limit32, 0
    expect "limit.32bit_offset", V_GP, 0, r_limit32.at
    v86 r_limit_ss, 0
    expect "limit.ss", V_SS, 0, r_limit_ss.at
    end_only
    v86 r_div, 0
    expect "fault.de", V_DE, 0, r_div.at
    v86 r_step, 0x100
    expect "fault.step", V_DB, 0, r_step.next
    mov eax, 0xffff0ff0
    mov dr6, eax
    ret

vme:
    need_cpuid "VME", 1, 0, edx, 1
    or_cr4 1
    mov dword [REDIRECTION + 12], 0     ; vector 0x60: by the virtual machine's own table
    v86 r_int60, IOPL3 + 0x200
    expect "vme.redirected", V_BP, 0, -1
    check "vme.redirected_ran", [f_ax], 0x6060
    checkm "vme.redirected_flags", [f_cx], 0x3200, 0x3200
    checkm "vme.redirected_clears_if", [f_si], 0x200, 0
    v86 r_int60, VIF
    expect "vme.iopl0_redirected", V_BP, 0, -1
    check "vme.iopl0_ran", [f_ax], 0x6060
    checkm "vme.iopl0_pushes_vif_as_if_and_iopl3", [f_cx], 0x3200, 0x3200
    checkm "vme.iopl0_clears_vif", [f_si], 0x200, 0
    checkm "vme.iret_sets_vif", [f_fl], VIF, VIF
    mov dword [REDIRECTION + 12], -1
    v86 r_int60, 0
    expect "vme.bit_set_iopl0", V_GP, 0, r_int60
    mov byte [idt + 0x60 * 8 + 5], 0xee
    v86 r_int60, IOPL3
    expect "vme.bit_set_iopl3", 0x60, 0, r_int60.next
    mov dword [REDIRECTION + 12], 0
    v86 r_cli, VIF
    expect "vme.cli", V_BP, 0, -1
    checkm "vme.cli_clears_vif", [f_fl], VIF + 0x200, 0
    v86 r_sti, 0
    expect "vme.sti", V_BP, 0, -1
    checkm "vme.sti_sets_vif", [f_fl], VIF + 0x200, VIF
    v86 r_sti, VIP
    expect "vme.sti_with_vip", V_GP, 0, r_sti
    v86 r_pushf_pop, VIF
    expect "vme.pushf", V_BP, 0, -1
    checkm "vme.pushf_image", [f_ax], 0x3200, 0x3200
    v86 r_popf_value, 0
    expect "vme.popf", V_BP, 0, -1
    checkm "vme.popf_sets_vif", [f_fl], VIF + 0x3200, VIF
    v86 r_popf_value, VIP
    expect "vme.popf_with_vip", V_GP, 0, r_popf_value.at
    v86 r_popf_tf, 0
    expect "vme.popf_tf", V_GP, 0, r_popf_tf.at
    v86 r_pushfd, 0
    expect "vme.pushfd", V_GP, 0, r_pushfd
    v86 r_iret16_value, 0
    expect "vme.iret", V_BP, 0, -1
    checkm "vme.iret_vif", [f_fl], VIF + 0x200, VIF
    and_cr4 ~1
    end_only
    ret

pvi:
    need_cpuid "PVI", 1, 0, edx, 1
    or_cr4 2
    try_user
    cli
    pushfd
    pop eax
    sti
    pushfd
    pop ecx
    int V_BACK
    endtry_user_fault "pvi.cli_sti", V_BACK, 0, -1
    checkm "pvi.cli", [f_ax], VIF + 0x200, 0
    checkm "pvi.sti", [f_cx], VIF + 0x200, VIF
    try_user
    pushfd
    pop eax
    or eax, 0x200
    push eax
    popfd
    pushfd
    pop eax
    int V_BACK
    endtry_user_fault "pvi.popf", V_BACK, 0, -1
    checkm "pvi.popf_changes_nothing", [f_ax], VIF + 0x200, 0
    and_cr4 ~2
    try_user
    cli
    endtry_user_fault "pvi.off", V_GP, 0
    end_only
    ret

bits 16
align 16
rm_start:
r_plain:
    mov dword [0x10], 0xfeedf00d
    mov dword [gs:0x10], 0x12341234
    push ax
    int V_BACK
.out:
r_int51:
    int 0x51
r_flags:
    pushf
    pop ax
    sti
    pushf
    pop cx
    pushfd
    pop esi
    push dword 0
    popfd
    int V_BACK
r_iret:
    push 0x00d7
    push cs
    push R(.there)
    iret
.there:
    int V_BACK
.out:
r_int50:
    int 0x50
r_int3:
    int3
.next:
r_cli:
    cli
    int3
r_sti:
    sti
    int3
r_pushf:
    pushf
    int3
r_popf:
    popf
    int3
r_int30:
    int V_BACK
r_iret16:
    iret
r_hlt:
    hlt
r_mov_cr:
    mov eax, cr0
r_lgdt:
    lgdt [0]
r_clts:
    clts
r_rdmsr:
    rdmsr
r_lar:
    lar ax, bx
r_verr:
    verr ax
r_str:
    str ax
r_arpl:
    arpl ax, bx
r_in_e0:
    mov dx, 0xe0
    in al, dx
    int3
r_in_e1:
    mov dx, 0xe1
.in:
    in al, dx
    int3
r_limit:
    mov bx, 0xffff
.at:
    mov ax, [bx]
r_limit32:
    mov ebx, 0x10000
.at:
    mov al, [ebx]
r_limit_ss:
    mov bp, 0xfffd
.at:
    mov eax, [bp]
r_div:
    xor cx, cx
.at:
    div cx
r_step:
    nop
.next:
    nop
r_int60:
    int 0x60
.next:
    int3
r_pushf_pop:
    pushf
    pop ax
    int3
r_popf_value:
    push 0x3202
.at:
    popf
    int3
r_popf_tf:
    push 0x0102
.at:
    popf
    int3
r_pushfd:
    pushfd
    int3
r_iret16_value:
    push 0x0202
    push cs
    push R(.there)
    iret
.there:
    int3
ivt_handler:                    ; flags image in cx, own flags in si
    mov bp, sp
    mov cx, [bp + 4]
    mov ax, 0x6060
    pushf
    pop si
    iret
rm_end:
bits 32
    end_image
