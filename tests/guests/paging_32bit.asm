; 32-bit paging: 4 KiB and 4 MiB pages, PSE-36, accessed and dirty bits, WP, U/S, SMEP, SMAP, INVLPG, global
; pages, turning paging on and off. SDM 3A 4.3.
%define BASE32
%include "common.inc"
%include "paging32_common.inc"

%define PD 0x410000
%define PT 0x411000             ; maps TVA
%define PT0 0x412000            ; maps the first 4 MiB, user pages
%define TVA 0x40000000
%define DATA 0x600000
%define CODE_OFF 0x800

%macro entry 2
    mov dword [%1], %2
    flush
%endmacro

reset_map:                      ; keeps what maps the program valid all the time
    push edi
    ; 0..4 MiB by 4 KiB pages, user (the program runs at both levels there); 4..8 MiB one supervisor page
    mov dword [PD], PT0 + 7
    xor ecx, ecx
.next:
    mov eax, ecx
    shl eax, 12
    or eax, 7
    mov [PT0 + ecx * 4], eax
    inc ecx
    cmp ecx, 1024
    jne .next
    mov dword [PD + 4], 0x400083
    mov dword [PD + (TVA >> 22) * 4], PT + 7
    mov dword [PD + (TVA >> 22) * 4 + 4], 0x400087  ; TVA + 4 MiB: a large page over DATA
    mov dword [PT], DATA + 7
    mov dword [PT + 4], DATA + 0x1007
    flush
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
    mov edi, PD
    mov ecx, 0x800
    xor eax, eax
    rep stosd
    mov eax, PD
    mov cr3, eax
    or_cr4 0x10                 ; PSE
    call reset_map
    or_cr0 0x80010000           ; PG, WP
    mov ebx, TVA
    mov edi, TVA + 0x123
    call sizes
    call rights
    call reserved
    call supervisor_bits
    call flushing
    call no_pse
    and_cr0 ~0x80000000
    mov eax, [DATA + 0x10]
    check32 "off.reads", eax, 0x11223344
    or_cr0 0x80000000
    mov eax, [TVA + 0x10]
    check32 "on.again", eax, 0x11223344
    ; PG without PE
    mov eax, cr0
    btr eax, 0
    intel_only "cr0.pg_without_pe"
    try
    mov cr0, eax
    endtry_fault "cr0.pg_without_pe", V_GP, 0
    end_only
    and_cr0 ~0x80000000
    jmp finish

sizes:
    entry PT, DATA + 3
    mov eax, [ebx + 0x10]
    check32 "4k.read", eax, 0x11223344
    check_entry "4k.read_sets_a", PT, DATA + 0x23
    check_entry "4k.read_sets_a_in_pde", PD + (TVA >> 22) * 4, PT + 0x27
    mov dword [ebx + 0x14], 1
    check_entry "4k.write_sets_d", PT, DATA + 0x63
    check_entry "4k.pde_has_no_d", PD + (TVA >> 22) * 4, PT + 0x27
    entry PT, DATA + 3
    mov eax, -1
    cmpxchg [ebx + 0x14], ecx
    check_entry "4k.failing_cmpxchg_sets_d", PT, DATA + 0x63
    entry PD + (TVA >> 22) * 4 + 4, 0x400087
    mov eax, [ebx + 0x400000 + 0x200000 + 0x1010]
    check32 "4m.read", eax, 0x55667788
    check_entry "4m.read_sets_a", PD + (TVA >> 22) * 4 + 4, 0x4000a7
    mov dword [ebx + 0x600014], 7
    check_entry "4m.write_sets_d", PD + (TVA >> 22) * 4 + 4, 0x4000e7
    check32 "4m.wrote", [DATA + 0x14], 7
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
    endtry_fault "np.fetch", V_PF, 0, edi, edi  ; no I/D bit: neither NXE nor SMEP
    try_user
    mov eax, [edi]
    endtry_user_fault "np.user_read", V_PF, 4, first, edi
    try_user
    mov [edi], eax
    endtry_user_fault "np.user_write", V_PF, 6, first, edi
    entry PT, DATA + 5
    try
    mov [edi], eax
    endtry_fault "ro.supervisor_wp", V_PF, 3, first, edi
    try_user
    mov [edi], eax
    endtry_user_fault "ro.user", V_PF, 7, first, edi
    and_cr0 ~0x10000
    try
    mov [edi], eax
    endtry_ok "ro.without_wp"
    check_entry "ro.without_wp_sets_d", PT, DATA + 0x65
    or_cr0 0x10000
    entry PT, DATA + 7
    entry PD + (TVA >> 22) * 4, PT + 5
    try
    mov [edi], eax
    endtry_fault "ro.pde", V_PF, 3, first, edi
    entry PD + (TVA >> 22) * 4, PT + 7
    entry PT, DATA + 3
    try_user
    mov eax, [edi]
    endtry_user_fault "us.user_read", V_PF, 5, first, edi
    try_user
    jmp edi
    endtry_user_fault "us.user_fetch", V_PF, 5, edi, edi
    entry PT, DATA + 7
    entry PD + (TVA >> 22) * 4, PT + 3
    try_user
    mov eax, [edi]
    endtry_user_fault "us.pde", V_PF, 5, first, edi
    entry PD + (TVA >> 22) * 4, PT + 7
    try_user
    mov eax, [edi]
    mov [edi], eax
    endtry_user_fault "us.allowed", V_BACK, 0, -1
    entry PD + (TVA >> 22) * 4 + 4, 0x400083
    try_user
    mov eax, [TVA + 0x400000]
    endtry_user_fault "us.4m", V_PF, 5, first, TVA + 0x400000
    ; across pages
    call reset_map
    entry PT + 4, 0
    try
    mov [TVA + 0xffe], eax
    endtry_fault "split.write", V_PF, 2, first, TVA + 0x1000
    mov byte [DATA + 0xfff], 0xb8
    lea esi, [ebx + 0xfff]
    try
    jmp esi
    endtry_fault "split.fetch", V_PF, 0, esi, TVA + 0x1000
    ret

reserved:
    call reset_map
    mov eax, 1
    cpuid
    mov ebx, TVA
    ; PSE-36: bits 20:13 of a 4 MiB entry are address bits 39:32 up to MAXPHYADDR; bit 21 is reserved
    mov dword [PD + (TVA >> 22) * 4 + 4], 0x600087
    flush
    mov edi, TVA + 0x400000
    intel
    try
    mov eax, [edi]
    endtry_fault "rsvd.4m_bit21", V_PF, 9, first, edi
    entry PD + (TVA >> 22) * 4 + 4, 0x401087    ; PAT
    try
    mov eax, [edi]
    endtry_ok "rsvd.4m_pat"
    mov edi, TVA + 0x123
    entry PT, DATA + 0xe87      ; PAT and the ignored bits
    try
    mov eax, [edi]
    endtry_ok "rsvd.4k_ignored"
    ret

supervisor_bits:
    call reset_map
    mov ebx, TVA
    need_cpuid "SMEP", 7, 0, ebx, 7
    ; the program itself lies on user pages: make the first 4 MiB supervisor's
    mov dword [PD], PT0 + 3
    or_cr4 1 << 20
    lea esi, [ebx + CODE_OFF]
    try
    call esi
    endtry_fault "smep.fetch", V_PF, 0x11, esi, esi
    entry PT, 0
    try
    call esi
    endtry_fault "smep.not_present_sets_id", V_PF, 0x10, esi, esi
    entry PT, DATA + 3
    try
    call esi
    endtry_ok "smep.supervisor_page"
    and_cr4 ~(1 << 20)
    end_only
    need_cpuid "SMAP", 7, 0, ebx, 20
    mov dword [PD], PT0 + 3
    entry PT, DATA + 7
    or_cr4 1 << 21
    try
    mov eax, [edi]
    endtry_fault "smap.read", V_PF, 1, first, edi
    try
    mov [edi], eax
    endtry_fault "smap.write", V_PF, 3, first, edi
    stac
    try
    mov [edi], eax
    endtry_ok "smap.stac"
    clac
    and_cr4 ~(1 << 21)
    end_only
    ret

flushing:
    call reset_map
    mov eax, [ebx + 0x10]
    mov dword [PT], DATA + 0x1007
    invlpg [ebx]
    mov eax, [ebx + 0x10]
    check32 "invlpg", eax, 0x55667788
    or_cr4 0x80
    entry PT, DATA + 0x107
    mov eax, [ebx + 0x10]
    mov dword [PT], DATA + 0x1107
    and_cr4 ~0x80
    mov eax, [ebx + 0x10]
    check32 "global.pge_toggle", eax, 0x55667788
    entry PT, DATA + 7
    mov eax, [ebx + 0x10]
    mov dword [PT], DATA + 0x1007
    and_cr0 ~0x80000000         ; paging off and on flushes
    or_cr0 0x80000000
    mov eax, [ebx + 0x10]
    check32 "pg_toggle_flushes", eax, 0x55667788
    entry PT, 0
    try
    mov eax, [ebx]
    endtry_fault "present.before", V_PF, 0
    mov dword [PT], DATA + 7
    try
    mov eax, [ebx]
    endtry_ok "present.needs_no_flush"
    ret

; Without CR4.PSE the PS bit of a directory entry is ignored: it points to a table.
no_pse:
    call reset_map
    ; page directory entry 1 (tables at 4 MiB) must not be large any more
    mov edi, 0x413000
    xor ecx, ecx
.next:
    mov eax, ecx
    shl eax, 12
    add eax, 0x400007
    mov [edi + ecx * 4], eax
    inc ecx
    cmp ecx, 1024
    jne .next
    mov dword [PD + 4], 0x413007
    mov dword [PD + (TVA >> 22) * 4 + 4], PT + 0x87
    flush
    and_cr4 ~0x10
    mov eax, [TVA + 0x400010]
    check32 "pse_off.ps_ignored", eax, 0x11223344
    or_cr4 0x10
    call reset_map
    ret
    end_image
