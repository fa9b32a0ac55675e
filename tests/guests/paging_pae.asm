; PAE paging: 4 KiB and 2 MiB pages, NX, the four PDPTEs and when they are loaded, reserved bits, A/D, rights.
; SDM 3A 4.4.
%define BASE32
%include "common.inc"
%include "paging32_common.inc"

%define PDPT 0x410000
%define PD0 0x411000            ; 0..1 GiB
%define PD1 0x412000            ; 1..2 GiB, where TVA is
%define PT 0x413000
%define PDPT2 0x414000
%define PD1B 0x415000
%define TVA 0x40000000
%define DATA 0x600000
%define CODE_OFF 0x800

%macro entry 2-3 0              ; address, low, high
    mov dword [%1], %2
    mov dword [(%1) + 4], %3
    flush
%endmacro

reset_map:                      ; keeps what maps the program valid all the time
    push edi
    mov dword [PDPT], PD0 + 1
    mov dword [PDPT + 8], PD1 + 1
    mov dword [PDPT2], PD0 + 1
    mov dword [PDPT2 + 12], 0
    mov dword [PDPT2 + 16], 0
    mov dword [PDPT2 + 8], PD1B + 1
    mov dword [PD0], 0x87       ; 0..2 MiB: program, user
    mov dword [PD0 + 8], 0x200087
    mov dword [PD0 + 16], 0x400083
    mov dword [PD0 + 24], 0x600083
    mov dword [PD1], PT + 7
    mov dword [PD1 + 4], 0
    mov dword [PD1 + 12], 0
    mov dword [PT + 4], 0
    mov dword [PD1 + 8], DATA + 0x87
    mov dword [PD1B], DATA + 0x87
    mov dword [PT], DATA + 7
    mov dword [PT + 8], DATA + 0x1007
    mov eax, PDPT
    mov cr3, eax
    pop edi
    ret

main:
    mov edi, DATA
    mov ecx, 0x1000
    xor eax, eax
    rep stosd
    mov byte [DATA + CODE_OFF], 0xc3
    mov dword [DATA + 0x10], 0x11223344
    mov dword [DATA + 0x1010], 0x55667788
    mov edi, PDPT
    mov ecx, 0x6000 / 4
    xor eax, eax
    rep stosd
    mov ecx, MSR_EFER
    rdmsr
    bts eax, 11
    wrmsr
    or_cr4 0x20                 ; PAE
    call reset_map
    or_cr0 0x80010000
    mov ebx, TVA
    mov edi, TVA + 0x123
    call sizes
    call rights
    call nx
    call reserved
    call pdptes
    and_cr0 ~0x80000000
    and_cr4 ~0x20
    jmp finish

sizes:
    mov eax, [ebx + 0x10]
    check32 "4k.read", eax, 0x11223344
    check_entry "4k.read_sets_a", PT, DATA + 0x27
    check_entry "4k.read_sets_a_in_pde", PD1, PT + 0x27
    intel                       ; QEMU sets A there
    check_entry "4k.pdpte_unchanged", PDPT + 8, PD1 + 1
    mov dword [ebx + 0x14], 1
    check_entry "4k.write_sets_d", PT, DATA + 0x67
    mov eax, [ebx + 0x201010]
    check32 "2m.read", eax, 0x55667788
    check_entry "2m.read_sets_a", PD1 + 8, DATA + 0xa7
    mov dword [ebx + 0x200018], 5
    check_entry "2m.write_sets_d", PD1 + 8, DATA + 0xe7
    check32 "2m.wrote", [DATA + 0x18], 5
    ret

rights:
    call reset_map
    entry PT, 0
    try
    mov eax, [edi]
    endtry_fault "np.read", V_PF, 0, first, edi
    try
    mov [edi], eax
    endtry_fault "np.write", V_PF, 2, first, edi
    try
    jmp edi
    endtry_fault "np.fetch_with_nxe", V_PF, 0x10, edi, edi
    try_user
    mov [edi], eax
    endtry_user_fault "np.user_write", V_PF, 6, first, edi
    entry PT, DATA + 5
    try
    mov [edi], eax
    endtry_fault "ro.supervisor", V_PF, 3, first, edi
    try_user
    mov [edi], eax
    endtry_user_fault "ro.user", V_PF, 7, first, edi
    entry PT, DATA + 3
    try_user
    mov eax, [edi]
    endtry_user_fault "us.read", V_PF, 5, first, edi
    entry PT, DATA + 7
    entry PD1, PT + 3
    try_user
    mov eax, [edi]
    endtry_user_fault "us.pde", V_PF, 5, first, edi
    entry PD1, PT + 5
    try
    mov [edi], eax
    endtry_fault "ro.pde", V_PF, 3, first, edi
    entry PD1, 0
    try
    mov eax, [edi]
    endtry_fault "np.pde", V_PF, 0, first, edi
    mov esi, 0x80000000         ; PDPTE 2 is not present
    try
    mov eax, [esi]
    endtry_fault "np.pdpte", V_PF, 0, first, esi
    ret

nx:
    call reset_map
    lea esi, [ebx + CODE_OFF]
    entry PT, DATA + 7, 0x80000000
    try
    call esi
    endtry_fault "nx.pte", V_PF, 0x11, esi, esi
    try_user
    jmp esi
    endtry_user_fault "nx.user", V_PF, 0x15, esi, esi
    mov eax, [ebx + 0x10]
    check32 "nx.read", eax, 0x11223344
    entry PT, DATA + 7
    entry PD1, PT + 7, 0x80000000
    try
    call esi
    endtry_fault "nx.pde", V_PF, 0x11, esi, esi
    entry PD1 + 8, DATA + 0x87, 0x80000000
    lea esi, [ebx + 0x200000 + CODE_OFF]
    try
    call esi
    endtry_fault "nx.2m", V_PF, 0x11, esi, esi
    entry PD1 + 8, DATA + 0x87
    try
    call esi
    endtry_ok "nx.none"
    call reset_map
    mov ecx, MSR_EFER
    rdmsr
    btr eax, 11
    wrmsr
    entry PT, DATA + 7, 0x80000000
    intel
    try
    mov eax, [edi]
    endtry_fault "nx.reserved_without_nxe", V_PF, 9, first, edi
    mov ecx, MSR_EFER
    rdmsr
    bts eax, 11
    wrmsr
    ret

reserved:
    call reset_map
    entry PT, DATA + 7, 0x40000000  ; bit 62; QEMU's error code lacks P
    intel
    try
    mov eax, [edi]
    endtry_fault "rsvd.pte_bit62", V_PF, 9, first, edi
    entry PT, DATA + 7, 0x00100000  ; bit 52
    intel
    try
    mov [edi], eax
    endtry_fault "rsvd.pte_bit52", V_PF, 0xb, first, edi
    call reset_map
    entry PD1, PT + 7, 0x00100000
    intel
    try
    mov eax, [edi]
    endtry_fault "rsvd.pde_bit52", V_PF, 9, first, edi
    call reset_map
    mov esi, TVA + 0x200000
    entry PD1 + 8, DATA + 0x2087
    intel
    try
    mov eax, [esi]
    endtry_fault "rsvd.2m_bit13", V_PF, 9, first, esi
    entry PD1 + 8, DATA + 0x1087
    try
    mov eax, [esi]
    endtry_ok "rsvd.2m_pat"
    ret

; SDM 3A 4.4.1: MOV to CR3 loads the four entries and faults on reserved bits in present ones, leaving CR3.
pdptes:
    call reset_map
    mov ecx, PDPT2
    mov dword [PDPT2 + 8], PD1B + 3     ; R/W is reserved here
    intel
    try
    mov cr3, ecx
    endtry_fault "pdpte.reserved_bit1", V_GP, 0
    mov eax, cr3
    intel
    check "pdpte.cr3_kept", eax, PDPT
    mov eax, PDPT
    mov cr3, eax
    mov dword [PDPT2 + 8], PD1B + 0x21  ; bit 5
    intel
    try
    mov cr3, ecx
    endtry_fault "pdpte.reserved_bit5", V_GP, 0
    mov dword [PDPT2 + 8], PD1B + 1
    mov dword [PDPT2 + 12], 0x80000000  ; bit 63
    intel
    try
    mov cr3, ecx
    endtry_fault "pdpte.reserved_bit63", V_GP, 0
    mov dword [PDPT2 + 12], 0
    mov dword [PDPT2 + 16], 0xfffffffe  ; not present: anything goes
    try
    mov cr3, ecx
    endtry_ok "pdpte.not_present_is_ignored"
    mov eax, [ebx + 0x1010]     ; now through PD1B: a large page
    check32 "pdpte.other_root", eax, 0x55667788
    mov eax, PDPT
    mov cr3, eax
    ; the registers are loaded, memory is not looked at again
    mov dword [PDPT + 8], PD1B + 1
    invlpg [ebx]
    mov dword [DATA + 0x200], 0x1111
    mov dword [PT], DATA + 0x1007
    mov dword [DATA + 0x1200], 0x2222
    invlpg [ebx]
    mov eax, [ebx + 0x200]
    intel
    check32 "pdpte.cached_until_cr3_load", eax, 0x2222
    mov eax, cr3
    mov cr3, eax
    mov eax, [ebx + 0x200]
    check32 "pdpte.reloaded_by_cr3", eax, 0x1111
    ; CR4.PGE or CR0.CD changes load them, too
    mov dword [PDPT + 8], PD1 + 1
    or_cr4 0x80
    mov eax, [ebx + 0x200]
    check32 "pdpte.reloaded_by_cr4", eax, 0x2222
    and_cr4 ~0x80
    ; CR3 is aligned to 32 bytes
    mov esi, PDPT
    mov edi, PDPT2 + 0x20
    mov ecx, 8
    rep movsd
    mov eax, PDPT2 + 0x20
    try
    mov cr3, eax
    mov eax, [ebx + 0x200]
    endtry_ok "pdpte.aligned_32"
    check32 "pdpte.aligned_32_read", eax, 0x2222
    mov eax, PDPT
    mov cr3, eax
    ret
    end_image
