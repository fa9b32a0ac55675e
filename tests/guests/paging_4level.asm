; 4-level paging: page sizes, accessed and dirty bits, rights, reserved bits, SMEP, SMAP, INVLPG, PCID.
; SDM 3A chapter 4.
%include "common.inc"
%define TVA 0x8000000000
%define T_PML4E PT_BASE + 8
%include "paging_body.inc"

test_root:
    mov qword [abs T_PML4E], T_PDPT + 7
    ret

main:
    call paging_checks
    ; ---- the PML4 entry's own rights
    mov rdi, TVA + 0x123
    entry T_PML4E, 0
    try
    mov [rdi], eax
    endtry_fault "pml4e.not_present", V_PF, 2, first, rdi
    entry T_PML4E, T_PDPT + 5
    try
    mov [rdi], eax
    endtry_fault "pml4e.read_only", V_PF, 3, first, rdi
    entry T_PML4E, T_PDPT + 3
    try_user
    mov eax, [rdi]
    endtry_user_fault "pml4e.supervisor", V_PF, 5, first, rdi
    entry T_PML4E, T_PDPT + 7 + NX
    lea rsi, [rbx + CODE_OFF]
    try
    call rsi
    endtry_fault "pml4e.nx", V_PF, 0x11, rsi, rsi
    entry T_PML4E, T_PDPT + 0x87
    intel
    try
    mov eax, [rdi]
    endtry_fault "pml4e.ps_reserved", V_PF, 9, first, rdi
    entry T_PML4E, T_PDPT + 7
    mov eax, [rdi]
    check_entry "pml4e.accessed", T_PML4E, T_PDPT + 0x27
    ; the upper half of the address space
    mov qword [abs PT_BASE + 0xff8], T_PDPT + 7
    mov rdx, 0xffffff8000000000
    mov eax, [rdx + 0x10]
    check32 "canonical.upper_half", eax, 0x11223344
    mov rsi, 0xffff800000000000
    try
    mov eax, [rsi]
    endtry_fault "canonical.lowest_upper", V_PF, 0, first, rsi
    mov rsi, 0x00007ffffffffff8
    try
    mov eax, [rsi]
    endtry_fault "canonical.highest_lower", V_PF, 0, first, rsi
    mov rsi, 0x0000800000000000
    try
    mov eax, [rsi]
    endtry_fault "canonical.first_hole", V_GP, 0
    mov rsi, 0xffff7fffffffffff
    try
    mov al, [rsi]
    endtry_fault "canonical.last_hole", V_GP, 0
    call pcid
    jmp finish

pcid:
    call reset_map
    need_cpuid "PCID", 1, 0, ecx, 17
    mov rax, cr3
    or rax, 1
    mov cr3, rax                ; bit 0 is ignored without PCIDE
    mov rcx, cr4
    bts rcx, 17
    try
    mov cr4, rcx
    endtry_fault "pcid.enable_with_low_cr3_bits", V_GP, 0
    mov rax, PT_BASE
    mov cr3, rax
    try
    mov cr4, rcx
    endtry_ok "pcid.enable"
    mov rax, cr0
    btr rax, 31
    try
    mov cr0, rax
    endtry_fault "pcid.pg_off", V_GP, 0
    mov rax, PT_BASE + 5
    mov cr3, rax
    mov rdx, cr3
    check "pcid.cr3_reads_back", rdx, PT_BASE + 5
    mov eax, [rbx + 0x10]
    bts rax, 63
    mov rcx, PT_BASE + 6
    bts rcx, 63
    mov cr3, rcx
    mov rdx, cr3
    check "pcid.bit63_reads_zero", rdx, PT_BASE + 6
    mov eax, [rbx + 0x10]
    mov qword [abs T_PT], DATA + 0x1007
    mov rcx, PT_BASE + 5        ; bit 63 clear: flushes PCID 5
    mov cr3, rcx
    mov eax, [rbx + 0x10]
    check32 "pcid.cr3_load_flushes", eax, 0x55667788
    need_cpuid "INVPCID", 7, 0, ebx, 10
    mov qword [abs T_PT], DATA + 7
    mov qword [descriptor], 5
    mov [descriptor + 8], rbx
    xor ecx, ecx
    invpcid rcx, [descriptor]
    mov eax, [rbx + 0x10]
    check32 "invpcid.address", eax, 0x11223344
    mov qword [abs T_PT], DATA + 0x1007
    mov ecx, 1
    invpcid rcx, [descriptor]
    mov eax, [rbx + 0x10]
    check32 "invpcid.context", eax, 0x55667788
    mov qword [abs T_PT], DATA + 7
    mov ecx, 2
    invpcid rcx, [descriptor]
    mov eax, [rbx + 0x10]
    check32 "invpcid.all_with_globals", eax, 0x11223344
    mov qword [abs T_PT], DATA + 0x1007
    mov ecx, 3
    invpcid rcx, [descriptor]
    mov eax, [rbx + 0x10]
    check32 "invpcid.all", eax, 0x55667788
    mov ecx, 4
    try
    invpcid rcx, [descriptor]
    endtry_fault "invpcid.bad_type", V_GP, 0
    mov qword [descriptor], 0x1000
    mov ecx, 1
    try
    invpcid rcx, [descriptor]
    endtry_fault "invpcid.reserved_descriptor_bits", V_GP, 0
    mov qword [descriptor], 5
    mov rax, 0x8000000000000000
    mov [descriptor + 8], rax
    xor ecx, ecx
    try
    invpcid rcx, [descriptor]
    endtry_fault "invpcid.noncanonical", V_GP, 0
    xor ecx, ecx
    try_user
    invpcid rcx, [descriptor]
    endtry_user_fault "invpcid.user", V_GP, 0
    mov rax, PT_BASE
    mov cr3, rax
    and_cr4 ~(1 << 17)
    mov ecx, 1
    mov qword [descriptor], 5
    mov qword [descriptor + 8], 0
    try
    invpcid rcx, [descriptor]
    endtry_fault "invpcid.pcid_without_pcide", V_GP, 0
    end_only
    mov rax, PT_BASE
    mov cr3, rax
    and_cr4 ~(1 << 17)
    end_only
    ret

align 16
descriptor: dq 0, 0
    end_image
