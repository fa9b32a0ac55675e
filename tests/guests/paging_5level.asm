; 5-level paging: the checks of paging_body.inc beyond 48 bits, LA57 rules, 57-bit canonical addresses.
%include "common.inc"
%define TVA 0x1000000000000
%define ROOT5 PT_BASE + 0x5000
%define ROOT5_PML4 PT_BASE + 0x6000
%include "paging_body.inc"

test_root:
    mov qword [abs ROOT5 + 8], ROOT5_PML4 + 7
    mov qword [abs ROOT5_PML4], T_PDPT + 7
    ret

; Leaves long mode, sets CR4 to esi and CR3 to edi, comes back.
switch_paging:
    pop r13
    jmp dword far [.to32]
.to32: dd A(.code32), KCS32
bits 32
.code32:
    mov eax, cr0
    btr eax, 31
    mov cr0, eax
    mov cr4, esi
    mov cr3, edi
    bts eax, 31
    mov cr0, eax
    jmp KCS64:A(.code64)
bits 64
.code64:
    jmp r13

main:
    need_cpuid "LA57", 7, 0, ecx, 16
    mov rax, cr4
    bts rax, 12
    try
    mov cr4, rax
    endtry_fault "la57.set_in_long_mode", V_GP, 0
    mov edi, ROOT5
    mov ecx, 0x2000 / 8
    xor eax, eax
    rep stosq
    mov qword [abs ROOT5], PT_BASE + 7
    mov rsi, cr4
    bts esi, 12
    mov edi, ROOT5
    call switch_paging
    mov rax, cr4
    checkm "la57.on", eax, 0x1000, 0x1000
    call paging_checks

    mov rdi, TVA + 0x123
    entry ROOT5 + 8, 0
    try
    mov [rdi], eax
    endtry_fault "pml5e.not_present", V_PF, 2, first, rdi
    entry ROOT5 + 8, ROOT5_PML4 + 5
    try
    mov [rdi], eax
    endtry_fault "pml5e.read_only", V_PF, 3, first, rdi
    entry ROOT5 + 8, ROOT5_PML4 + 3
    try_user
    mov eax, [rdi]
    endtry_user_fault "pml5e.supervisor", V_PF, 5, first, rdi
    entry ROOT5 + 8, ROOT5_PML4 + 7 + NX
    lea rsi, [rbx + CODE_OFF]
    try
    call rsi
    endtry_fault "pml5e.nx", V_PF, 0x11, rsi, rsi
    entry ROOT5 + 8, ROOT5_PML4 + 0x87
    intel
    try
    mov eax, [rdi]
    endtry_fault "pml5e.ps_reserved", V_PF, 9, first, rdi
    entry ROOT5 + 8, ROOT5_PML4 + 7
    mov eax, [rdi]
    check_entry "pml5e.accessed", ROOT5 + 8, ROOT5_PML4 + 0x27
    mov rsi, 0x00ffffffffffffff - 7
    try
    mov eax, [rsi]
    endtry_fault "canonical57.highest_lower", V_PF, 0, first, rsi
    mov rsi, 0x0100000000000000
    try
    mov eax, [rsi]
    endtry_fault "canonical57.first_hole", V_GP, 0
    mov rsi, 0xff00000000000000
    try
    mov eax, [rsi]
    endtry_fault "canonical57.lowest_upper", V_PF, 0, first, rsi
    mov rsi, 0xfeffffffffffffff
    try
    mov al, [rsi]
    endtry_fault "canonical57.last_hole", V_GP, 0
    intel_only "CR4 checks of QEMU"
    mov rax, cr4
    btr rax, 12
    try
    mov cr4, rax
    endtry_fault "la57.clear_in_long_mode", V_GP, 0
    end_only
    mov rsi, cr4
    btr esi, 12
    mov edi, PT_BASE
    call switch_paging
    mov eax, [abs DATA + 0x10]
    check32 "la57.back_to_4_levels", eax, 0x11223344
    end_only
    jmp finish
    end_image
