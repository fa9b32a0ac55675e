; Saving and restoring x87, SSE and AVX state: FSAVE, FXSAVE, XSAVE, XSAVEOPT, XSAVEC, XSAVES and their
; restores, XCR0 and IA32_XSS, #NM, #UD and #GP of each. SDM 1 chapters 10 and 13.
%include "common.inc"
%define AREA 0x600000
%define AREA2 0x602000
%define XSTATE_BV AREA + 512
%define XCOMP_BV AREA + 520

clear_area:
    mov edi, AREA
    mov ecx, 0x4000 / 8
    xor eax, eax
    rep stosq
    ret

main:
    fninit
    call x87
    call fx
    call xcr0
    call xs
    call avx
    call compact
    call supervisor
    jmp finish

x87:
    call clear_area
    fninit
    fnstcw [abs AREA]
    movzx eax, word [abs AREA]
    check32 "fninit.cw", eax, 0x37f
    fnstsw ax
    movzx eax, ax
    check32 "fninit.sw", eax, 0
    fld1
    fldpi
    fnstenv [abs AREA]
    movzx eax, word [abs AREA + 4]
    check32 "fnstenv.sw_top_6", eax, 0x3000
    movzx eax, word [abs AREA + 8]
    check32 "fnstenv.tag", eax, 0x0fff  ; two valid ones in 7 and 6
    checkm "fnstenv.cw_then_masked", [abs AREA], 0x3f, 0x3f
    fldenv [abs AREA]
    fnsave [abs AREA]
    mov rax, [abs AREA + 28]
    mov rcx, 0xc90fdaa22168c235
    mov [want], rcx
    check "fnsave.st0_pi", rax, [want]
    movzx eax, word [abs AREA + 28 + 8]
    check32 "fnsave.st0_exponent", eax, 0x4000
    movzx eax, word [abs AREA + 28 + 18]
    check32 "fnsave.st1_exponent", eax, 0x3fff
    fnstsw ax
    movzx eax, ax
    check32 "fnsave.initialises", eax, 0
    frstor [abs AREA]
    fistp qword [abs AREA2]
    check "frstor.st0", [abs AREA2], 3
    fistp qword [abs AREA2]
    check "frstor.st1", [abs AREA2], 1
    ; MMX use marks all valid, EMMS none
    pxor mm0, mm0
    fnstenv [abs AREA]
    movzx eax, word [abs AREA + 8]
    checkm "mmx.tags_not_empty", eax, 0x8000, 0
    emms
    fnstenv [abs AREA]
    movzx eax, word [abs AREA + 8]
    check32 "emms.tags", eax, 0xffff
    fninit
    ret
align 8
want: dq 0

fx:
    call clear_area
    fninit
    fld1
    fldz
    mov rax, 0x1122334455667788
    movq xmm0, rax
    movq xmm15, rax
    fxsave [abs AREA]
    movzx eax, word [abs AREA]
    check32 "fxsave.cw", eax, 0x37f
    movzx eax, word [abs AREA + 2]
    check32 "fxsave.sw", eax, 0x3000
    movzx eax, byte [abs AREA + 4]
    check32 "fxsave.abridged_tag", eax, 0xc0
    check32 "fxsave.mxcsr", [abs AREA + 24], 0x1f80
    checkm "fxsave.mxcsr_mask", [abs AREA + 28], 0xffbf, 0xffbf
    mov rax, [abs AREA + 32 + 16]
    mov rcx, 0x8000000000000000
    mov [want], rcx
    check "fxsave.st1_one", rax, [want]
    mov rcx, 0x1122334455667788
    mov [want], rcx
    check "fxsave.xmm0", [abs AREA + 160], [want]
    check "fxsave.xmm15", [abs AREA + 160 + 15 * 16], [want]
    fninit
    pxor xmm0, xmm0
    pxor xmm15, xmm15
    fxrstor [abs AREA]
    movq rax, xmm15
    check "fxrstor.xmm15", rax, [want]
    fistp qword [abs AREA2]
    check "fxrstor.st0", [abs AREA2], 0
    fistp qword [abs AREA2]
    check "fxrstor.st1", [abs AREA2], 1
    mov edi, AREA + 8
    try
    fxsave [rdi]
    endtry_fault "fxsave.unaligned", V_GP, 0
    try
    fxrstor [rdi]
    endtry_fault "fxrstor.unaligned", V_GP, 0
    mov dword [abs AREA + 24], 0x10000
    intel
    try
    fxrstor [abs AREA]
    endtry_fault "fxrstor.mxcsr_reserved", V_GP, 0
    push 0x10000
    intel
    try
    ldmxcsr [rsp]
    endtry_fault "ldmxcsr.reserved", V_GP, 0
    pop rax
    or_cr0 8
    try
    fxsave [abs AREA]
    endtry_fault "fxsave.ts", V_NM, 0
    try
    fxrstor [abs AREA]
    endtry_fault "fxrstor.ts", V_NM, 0
    try
    stmxcsr [abs AREA]
    endtry_fault "stmxcsr.ts", V_NM, 0
    clts
    or_cr0 4
    intel
    try
    fxsave [abs AREA]
    endtry_fault "fxsave.em", V_NM, 0
    and_cr0 ~4
    ; an unmasked exception that waits does not stop FXSAVE
    fninit
    push 0x37e
    fldcw [rsp]
    pop rax
    fldz
    fldz
    fdivp st1, st0
    try
    fxsave [abs AREA]
    endtry_ok "fxsave.pending_exception"
    checkm "fxsave.sw_has_ie_es", [abs AREA], 0x810000, 0x810000
    fninit
    ret

xcr0:
    need_cpuid "XSAVE", 1, 0, ecx, 26
    xor ecx, ecx
    try
    xgetbv
    endtry_fault "xgetbv.without_osxsave", V_UD, 0
    try
    xsave [abs AREA]
    endtry_fault "xsave.without_osxsave", V_UD, 0
    mov eax, 1
    cpuid
    checkm "osxsave.clear", ecx, 1 << 27, 0
    or_cr4 1 << 18
    mov eax, 1
    cpuid
    checkm "osxsave.set", ecx, 1 << 27, 1 << 27
    xor ecx, ecx
    xgetbv
    check32 "xcr0.reset_value", eax, 1
    xor edx, edx
    xor ecx, ecx
    mov eax, 2
    try
    xsetbv
    endtry_fault "xsetbv.x87_off", V_GP, 0
    mov eax, 5
    try
    xsetbv
    endtry_fault "xsetbv.avx_without_sse", V_GP, 0
    mov eax, 3
    mov ecx, 1
    try
    xsetbv
    endtry_fault "xsetbv.xcr1", V_GP, 0
    xor ecx, ecx
    mov edx, 0x80000000
    try
    xsetbv
    endtry_fault "xsetbv.reserved", V_GP, 0
    xor edx, edx
    try_user
    xsetbv
    endtry_user_fault "xsetbv.user", V_GP, 0
    mov eax, 3
    xsetbv
    xgetbv
    check32 "xsetbv.sse", eax, 3
    mov eax, 0xd
    xor ecx, ecx
    cpuid
    check32 "cpuid.size_x87_sse", ebx, 576
    try_user
    xor ecx, ecx
    xgetbv
    endtry_user_ok "xgetbv.user"
    mov ecx, 7
    intel
    try
    xgetbv
    endtry_fault "xgetbv.unknown", V_GP, 0
    end_only
    ret

%macro all_xcr0 1               ; XSAVE family instruction with RFBM = %1 in edx:eax
    mov eax, %1
    xor edx, edx
%endmacro
xs:
    need_cpuid "XSAVE", 1, 0, ecx, 27
    call clear_area
    fninit
    fld1
    mov rcx, 0x1122334455667788
    mov [want], rcx
    movq xmm3, rcx
    all_xcr0 3
    xsave [abs AREA]
    checkm "xsave.bv", [abs XSTATE_BV], 7, 3
    check32 "xsave.xcomp_zero", [abs XCOMP_BV], 0
    check "xsave.xmm3", [abs AREA + 160 + 48], [want]
    fninit
    pxor xmm3, xmm3
    all_xcr0 2
    xrstor [abs AREA]
    movq rax, xmm3
    check "xrstor.sse_only", rax, [want]
    fnstsw ax
    movzx eax, ax
    check32 "xrstor.x87_untouched", eax, 0
    all_xcr0 1
    xrstor [abs AREA]
    fistp qword [abs AREA2]
    check "xrstor.x87", [abs AREA2], 1
    ; a clear bit in XSTATE_BV initialises; MXCSR is loaded all the same
    mov dword [abs XSTATE_BV], 1
    mov dword [abs AREA + 24], 0x1f00
    all_xcr0 2
    xrstor [abs AREA]
    movq rax, xmm3
    check "xrstor.initialises", rax, 0
    stmxcsr [abs AREA2]
    check32 "xrstor.mxcsr_with_sse", [abs AREA2], 0x1f00
    mov dword [abs AREA + 24], 0x1f80
    ldmxcsr [abs AREA + 24]
    mov dword [abs XSTATE_BV], 2
    fld1
    all_xcr0 1
    xrstor [abs AREA]
    fnstenv [abs AREA2]
    movzx eax, word [abs AREA2 + 8]
    check32 "xrstor.x87_initialised", eax, 0xffff
    ; XSAVE touches only what is asked for
    mov dword [abs XSTATE_BV], 0x2
    mov dword [abs AREA + 160], 0x77777777
    all_xcr0 1
    xsave [abs AREA]
    checkm "xsave.keeps_other_bv_bits", [abs XSTATE_BV], 2, 2
    check32 "xsave.keeps_other_state", [abs AREA + 160], 0x77777777
    ; faults
    mov edi, AREA + 32
    all_xcr0 3
    try
    xsave [rdi]
    endtry_fault "xsave.unaligned", V_GP, 0
    try
    xrstor [rdi]
    endtry_fault "xrstor.unaligned", V_GP, 0
    mov dword [abs XSTATE_BV], 0x10003
    try
    xrstor [abs AREA]
    endtry_fault "xrstor.bv_beyond_xcr0", V_GP, 0
    mov dword [abs XSTATE_BV], 3
    mov dword [abs AREA + 528], 1
    intel
    try
    xrstor [abs AREA]
    endtry_fault "xrstor.header_reserved", V_GP, 0
    mov dword [abs AREA + 528], 0
    mov dword [abs XCOMP_BV], 3
    try
    xrstor [abs AREA]
    endtry_fault "xrstor.xcomp_without_bit63", V_GP, 0
    mov dword [abs XCOMP_BV], 0
    mov dword [abs AREA + 24], 0x80000000
    intel
    try
    xrstor [abs AREA]
    endtry_fault "xrstor.mxcsr_reserved", V_GP, 0
    mov dword [abs AREA + 24], 0x1f80
    or_cr0 8
    all_xcr0 3
    intel
    try
    xsave [abs AREA]
    endtry_fault "xsave.ts", V_NM, 0
    intel
    try
    xrstor [abs AREA]
    endtry_fault "xrstor.ts", V_NM, 0
    clts
    need_cpuid "XSAVEOPT", 0xd, 1, eax, 0
    call clear_area
    mov rcx, [want]
    movq xmm3, rcx
    all_xcr0 2
    xsaveopt [abs AREA]
    checkm "xsaveopt.bv", [abs XSTATE_BV], 2, 2
    check "xsaveopt.xmm3", [abs AREA + 160 + 48], [want]
    end_only
    need_cpuid "XGETBV 1", 0xd, 1, eax, 2
    mov ecx, 1
    xgetbv
    checkm "xgetbv.inuse_sse", eax, 2, 2
    fninit
    fld1
    xgetbv
    checkm "xgetbv.inuse_x87", eax, 1, 1
    fninit
    end_only
    end_only
    ret

avx:
    need_cpuid "AVX", 1, 0, ecx, 28
    try
    vpxor xmm0, xmm0, xmm0
    endtry_fault "avx.xcr0_off", V_UD, 0
    xor ecx, ecx
    xor edx, edx
    mov eax, 7
    xsetbv
    mov eax, 0xd
    xor ecx, ecx
    cpuid
    check32 "cpuid.size_avx", ebx, 832
    mov eax, 0xd
    mov ecx, 2
    cpuid
    check32 "cpuid.avx_size", eax, 256
    check32 "cpuid.avx_offset", ebx, 576
    call clear_area
    vbroadcastss ymm5, [pattern]
    all_xcr0 7
    xsave [abs AREA]
    checkm "avx.bv", [abs XSTATE_BV], 4, 4
    check32 "avx.upper_half", [abs AREA + 576 + 5 * 16], 0x0badcafe
    check32 "avx.lower_half", [abs AREA + 160 + 5 * 16], 0x0badcafe
    vzeroall
    all_xcr0 4
    xrstor [abs AREA]
    vextractf128 xmm6, ymm5, 1
    vmovd eax, xmm6
    check32 "avx.restored_upper", eax, 0x0badcafe
    vmovd eax, xmm5
    check32 "avx.lower_untouched", eax, 0
    all_xcr0 2
    xrstor [abs AREA]
    vmovd eax, xmm5
    check32 "avx.restored_lower", eax, 0x0badcafe
    movaps xmm5, xmm5           ; legacy SSE keeps the upper half
    vextractf128 xmm6, ymm5, 1
    vmovd eax, xmm6
    check32 "avx.legacy_sse_keeps_upper", eax, 0x0badcafe
    vmovaps xmm5, xmm5          ; VEX.128 zeroes it
    vextractf128 xmm6, ymm5, 1
    vmovd eax, xmm6
    check32 "avx.vex128_zeroes_upper", eax, 0
    vbroadcastss ymm5, [pattern]
    vzeroupper
    vextractf128 xmm6, ymm5, 1
    vmovd eax, xmm6
    check32 "avx.vzeroupper", eax, 0
    or_cr0 8
    try
    vpxor xmm0, xmm0, xmm0
    endtry_fault "avx.ts", V_NM, 0
    clts
    mov edi, AREA + 16
    try
    vmovaps ymm0, [rdi]
    endtry_fault "avx.vmovaps_unaligned", V_GP, 0
    try
    vmovups ymm0, [rdi + 1]
    vaddps ymm0, ymm0, [rdi + 1]
    endtry_ok "avx.unaligned_allowed"
    and_cr4 ~(1 << 18)
    try
    vpxor xmm0, xmm0, xmm0
    endtry_fault "avx.osxsave_off", V_UD, 0
    or_cr4 1 << 18
    end_only
    ret
align 4
pattern: dd 0x0badcafe

compact:
    need_cpuid "XSAVEC", 0xd, 1, eax, 1
    call clear_area
    vbroadcastss ymm5, [pattern]
    all_xcr0 7
    xsavec [abs AREA]
    check32 "xsavec.xcomp_low", [abs XCOMP_BV], 7
    check32 "xsavec.xcomp_high", [abs XCOMP_BV + 4], 0x80000000
    check32 "xsavec.upper_half", [abs AREA + 576 + 5 * 16], 0x0badcafe
    vzeroall
    all_xcr0 7
    xrstor [abs AREA]
    vextractf128 xmm6, ymm5, 1
    vmovd eax, xmm6
    check32 "xsavec.restored", eax, 0x0badcafe
    mov dword [abs XCOMP_BV], 0x10007
    try
    xrstor [abs AREA]
    endtry_fault "xsavec.xcomp_beyond_xcr0", V_GP, 0
    mov dword [abs XCOMP_BV], 3
    try
    xrstor [abs AREA]
    endtry_fault "xsavec.bv_beyond_xcomp", V_GP, 0
    call clear_area
    vzeroupper                  ; AVX in its initial state is left out
    all_xcr0 4
    mov dword [abs AREA + 576], 0x5a5a5a5a
    xsavec [abs AREA]
    check32 "xsavec.init_bv", [abs XSTATE_BV], 0
    check32 "xsavec.init_xcomp", [abs XCOMP_BV], 4
    end_only
    ret

supervisor:
    need_cpuid "XSAVES", 0xd, 1, eax, 3
    mov ecx, 0xda0
    xor edx, edx
    mov eax, 1                  ; a user component
    try
    wrmsr
    endtry_fault "xss.user_component", V_GP, 0
    mov ecx, 0xda0
    rdmsr
    check32 "xss.reset", eax, 0
    call clear_area
    vbroadcastss ymm5, [pattern]
    all_xcr0 7
    xsaves [abs AREA]
    check32 "xsaves.xcomp_high", [abs XCOMP_BV + 4], 0x80000000
    check32 "xsaves.upper_half", [abs AREA + 576 + 5 * 16], 0x0badcafe
    vzeroall
    all_xcr0 7
    xrstors [abs AREA]
    vextractf128 xmm6, ymm5, 1
    vmovd eax, xmm6
    check32 "xrstors.restored", eax, 0x0badcafe
    mov dword [abs XCOMP_BV + 4], 0
    mov dword [abs XCOMP_BV], 0
    all_xcr0 7
    try
    xrstors [abs AREA]
    endtry_fault "xrstors.standard_form", V_GP, 0
    all_xcr0 7
    try_user
    xsaves [rdi]
    endtry_user_fault "xsaves.user", V_GP, 0
    try_user
    xrstors [rdi]
    endtry_user_fault "xrstors.user", V_GP, 0
    end_only
    ret
    end_image
