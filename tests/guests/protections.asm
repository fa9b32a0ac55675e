; Protection keys for user pages (PKU) and UMIP. SDM 3A 4.6.2, 2.5; 2B RDPKRU, WRPKRU.
%include "common.inc"
%include "window.inc"
%define KEY(n) ((n) << 59)

%macro entry 2
    mov rax, %2
    mov [abs %1], rax
    mov rax, cr3
    mov cr3, rax
%endmacro
%macro pkru 1
    xor ecx, ecx
    xor edx, edx
    mov eax, %1
    wrpkru
%endmacro

main:
    map_window
    mov byte [abs DATA + 0x800], 0xc3
    entry T_PT, DATA + 7 + KEY(3)
    entry T_PT + 8, DATA + 0x1003 + KEY(3)
    mov rdi, TVA + 0x20
    call keys
    call umip
    check "protections.end", 0, 0
    jmp finish

keys:
    need_cpuid "PKU", 7, 0, ecx, 3
    xor ecx, ecx
    try
    rdpkru
    endtry_fault "rdpkru.without_pke", V_UD, 0
    try
    mov eax, [rdi]
    endtry_ok "key.ignored_without_pke"
    or_cr4 1 << 22
    mov eax, 7
    xor ecx, ecx
    cpuid
    checkm "cpuid.ospke", ecx, 0x10, 0x10
    mov rdi, TVA + 0x20
    mov ecx, 1
    try
    rdpkru
    endtry_fault "rdpkru.ecx", V_GP, 0
    xor edx, edx
    try
    wrpkru
    endtry_fault "wrpkru.ecx", V_GP, 0
    xor ecx, ecx
    mov edx, 1
    try
    wrpkru
    endtry_fault "wrpkru.edx", V_GP, 0
    pkru 0x40                   ; key 3: access disabled
    mov edx, -1
    rdpkru
    check32 "rdpkru.value", eax, 0x40
    check32 "rdpkru.edx", edx, 0
    try
    mov eax, [rdi]
    endtry_fault "ad.supervisor_read", V_PF, 0x21, first, rdi
    try
    mov [rdi], eax
    endtry_fault "ad.supervisor_write", V_PF, 0x23, first, rdi
    try_user
    mov eax, [rdi]
    endtry_user_fault "ad.user_read", V_PF, 0x25, first, rdi
    try_user
    mov [rdi], eax
    endtry_user_fault "ad.user_write", V_PF, 0x27, first, rdi
    mov rsi, TVA + 0x800
    try
    call rsi
    endtry_ok "ad.fetch_is_free"
    mov rsi, TVA + 0x1000
    try
    mov eax, [rsi]
    mov [rsi], eax
    endtry_ok "ad.supervisor_page_is_free"
    pkru 0x80                   ; key 3: write disabled
    try
    mov eax, [rdi]
    endtry_ok "wd.read"
    try
    mov [rdi], eax
    endtry_fault "wd.supervisor_write", V_PF, 0x23, first, rdi
    try_user
    mov [rdi], eax
    endtry_user_fault "wd.user_write", V_PF, 0x27, first, rdi
    and_cr0 ~0x10000
    try
    mov [rdi], eax
    endtry_ok "wd.supervisor_write_without_wp"
    try_user
    mov [rdi], eax
    endtry_user_fault "wd.user_write_without_wp", V_PF, 0x27, first, rdi
    or_cr0 0x10000
    pkru 0x10                   ; another key
    try_user
    mov eax, [rdi]
    mov [rdi], eax
    endtry_user_ok "key.other"
    try_user
    xor ecx, ecx
    xor edx, edx
    mov eax, 0x40
    wrpkru
.read:
    mov eax, [rdi]
    endtry_user_fault "key.user_sets_pkru", V_PF, 0x25, A(.read), rdi
    entry T_PT, DATA + 5 + KEY(3)   ; read-only: both reasons show
    try_user
    mov [rdi], eax
    endtry_user_fault "key.with_read_only", V_PF, 0x27, first, rdi
    entry T_PT, 0x7800000000000000 & KEY(3)
    try_user
    mov eax, [rdi]
    endtry_user_fault "key.not_present", V_PF, 4, first, rdi
    pkru 0
    and_cr4 ~(1 << 22)
    end_only
    ret

umip:
    need_cpuid "UMIP", 7, 0, ecx, 2
    or_cr4 1 << 11
    mov edi, DATA + UALIAS
    try_user
    sgdt [rdi]
    endtry_user_fault "umip.sgdt", V_GP, 0
    try_user
    sidt [rdi]
    endtry_user_fault "umip.sidt", V_GP, 0
    try_user
    sldt eax
    endtry_user_fault "umip.sldt", V_GP, 0
    try_user
    str eax
    endtry_user_fault "umip.str", V_GP, 0
    try_user
    smsw eax
    endtry_user_fault "umip.smsw", V_GP, 0
    mov rsi, 0x80000000
    try_user
    sgdt [rsi]
    endtry_user_fault "umip.before_page_fault", V_GP, 0
    try
    sgdt [abs DATA]
    sidt [abs DATA]
    sldt eax
    str eax
    smsw eax
    endtry_ok "umip.kernel_is_free"
    and_cr4 ~(1 << 11)
    try_user
    sgdt [rdi]
    sidt [rdi]
    sldt eax
    str eax
    smsw eax
    endtry_user_ok "umip.off"
    end_only
    ret
    end_image
