; Every processor computes the same checksum through everything that makes a save or a replay hard: REP
; strings, interrupts, STI and MOV SS shadows, exceptions, demand paging, user code, NMI, single steps,
; self-modifying code, SMIs, HLT. All processors must reach the same sum, which is also a known one. A second
; value, `trace`, hashes what depends on time (interrupted addresses, TSC): equal only for equal machines.
%include "common.inc"
%include "irq.inc"
%include "smp.inc"
%include "smm.inc"

%ifndef ROUNDS
%define ROUNDS 200
%endif
%define EXPECTED 0x31396183ca42e004
%define BUFFERS 0x1000000       ; 1 MiB for each processor
%define PER_CPU 0x500000        ; 4 KiB for each processor: counters, TSS
%define PAGES 0x520000          ; 16 KiB for each: tables of its demand-paged 2 MiB
%define RSP0S 0x560000
%define SMBASES 0x600000        ; 64 KiB for each
%define DEMAND 0x10000000000    ; + 1 GiB * cpu
%define P_STEPS 0
%define P_IRQS 4
%define P_NMIS 8
%define P_FAULTS 12
%define P_SMIS 16
%define P_TICKS 20
%define P_TRACE 24
%define P_SUM 32
%define P_TSS 0x100

bits 16
align 16
smi_handler:                    ; counts in the dword behind itself; on the first run relocates
    push eax
    push bx
    inc dword [cs:0x8000 + smi_count - smi_handler]
    mov eax, [cs:0x8000 + smi_new_base - smi_handler]
    test eax, eax
    jz .end
    mov bx, SMBASE_AMD64
    cmp word [cs:SMM_REVISION], 0x64
    je .layout
    mov bx, SMBASE_INTEL
.layout:
    mov [cs:bx], eax
.end:
    pop bx
    pop eax
    rsm
align 4
smi_count: dd 0
smi_new_base: dd 0
smi_end:
bits 64

; r9 = this processor's page in every hook
%macro my_page 0
    call cpu_index
    shl eax, 12
    lea r9, [rax + PER_CPU]
%endmacro
%macro hash 1                   ; into the trace of r9; rax lost
    mov rax, [r9 + P_TRACE]
    rol rax, 7
    xor rax, %1
    mov [r9 + P_TRACE], rax
%endmacro
irq_counter:
    my_page
    inc dword [r9 + P_IRQS]
    apic_write APIC_EOI, 0
    ret
tick:
    my_page
    inc dword [r9 + P_TICKS]
    hash [rdi + F_RIP]
    rdtsc
    mov ebx, eax
    hash rbx
    apic_write APIC_EOI, 0
    ret
nmi_counter:
    my_page
    inc dword [r9 + P_NMIS]
    ret
skip_two:                       ; DIV CL, UD2
    my_page
    inc dword [r9 + P_FAULTS]
    add qword [rdi + F_RIP], 2
    ret
stepper:
    my_page
    inc dword [r9 + P_STEPS]
    ret
demand:                         ; maps the page that was missing to the processor's buffer
    my_page
    inc dword [r9 + P_FAULTS]
    call cpu_index
    mov ebx, eax
    mov rcx, cr2
    mov edx, ecx
    shr edx, 12
    and edx, 15
    mov eax, ebx
    shl eax, 20
    shl edx, 12
    lea eax, [rax + rdx + BUFFERS + 3]
    shl ebx, 14
    shr edx, 9
    mov [abs rbx + rdx + PAGES + 0x1000], rax
    ret
from_user:                      ; back to the kernel address in r11, stack r10
    mov [rdi + F_RIP], r11
    mov [rdi + F_SP], r10
    mov qword [rdi + F_CS], KCS64
    mov qword [rdi + F_SS], KDS
    and qword [rdi + F_FL], ~0x200
    ret

main:
    call apic_enable
    call pic_init
    set_hook V_DE, skip_two
    set_hook V_UD, skip_two
    set_hook V_DB, stepper
    set_hook V_PF, demand
    set_hook V_NMI, nmi_counter
    set_hook V_BACK, from_user
    set_hook 0x60, irq_counter
    set_hook 0x61, tick
    mov edi, PER_CPU
    mov ecx, 0x60000 / 8
    xor eax, eax
    rep stosq
    call count_cpus
    mov [cpus], ebx
    dec ebx
    jz .alone
    call start_aps
.alone:
    mov eax, [ap_ready]
    inc eax
    check32 "mix.processors", eax, [cpus]
    ; SMBASE of each, one after another
    lea rsi, [smi_handler]
    mov ecx, smi_end - smi_handler
    call install_smi_handler
    call have_own_smram
    jne .relocated
    call relocate
    mov r12d, 1
.relocate:
    cmp r12d, [cpus]
    jae .relocated
    lea rax, [relocate]
    mov [ap_work + r12 * 8], rax
.relocating:
    pause
    cmp qword [ap_work + r12 * 8], 0
    jne .relocating
    inc r12d
    jmp .relocate
.relocated:
    mov r12d, 1
.give:
    cmp r12d, [cpus]
    jae .given
    lea rax, [work]
    mov [ap_work + r12 * 8], rax
    inc r12d
    jmp .give
.given:
    call work
    mov r12d, 1
.collect:
    cmp r12d, [cpus]
    jae .collected
.working:
    pause
    cmp qword [ap_work + r12 * 8], 0
    jne .working
    mov eax, r12d
    shl eax, 12
    mov rcx, [abs PER_CPU + P_SUM]
    mov [want], rcx
    check "mix.same_sum", [abs rax + PER_CPU + P_SUM], [want]
    check32 "mix.same_irqs", [abs rax + PER_CPU + P_IRQS], [abs PER_CPU + P_IRQS]
    inc r12d
    jmp .collect
.collected:
    mov rax, EXPECTED
    mov [want], rax
    check "mix.sum", [abs PER_CPU + P_SUM], [want]
    check32 "mix.irqs", [abs PER_CPU + P_IRQS], ROUNDS * 3
    check32 "mix.nmis", [abs PER_CPU + P_NMIS], ROUNDS
    check32 "mix.steps", [abs PER_CPU + P_STEPS], ROUNDS * 8
    mov eax, [cpus]
    imul eax, eax, ROUNDS
    check32 "mix.xadd_total", [total], eax
    lea rsi, [t_trace]
    call puts
    xor ebx, ebx
    xor ecx, ecx
.trace:
    rol rbx, 9
    mov eax, ecx
    shl eax, 12
    xor rbx, [abs rax + PER_CPU + P_TRACE]
    inc ecx
    cmp ecx, [cpus]
    jne .trace
    mov rax, rbx
    call put_hex
    mov al, 10
    call putc
    jmp finish
t_trace: db "trace ", 0
align 8
want: dq 0
cpus: dd 0
total: dd 0
smis: dd 0

; ebx = processors, from fw_cfg where it exists, else 1
count_cpus:
    mov ebx, 1
    mov dx, 0x510
    xor eax, eax
    out dx, ax
    inc dx
    in al, dx
    cmp al, 'Q'
    jne .end
    in al, dx
    cmp al, 'E'
    jne .end
    dec dx
    mov ax, 5
    out dx, ax
    inc dx
    in al, dx
    movzx ebx, al
.end:
    ret
; ZF set where the handler sits at the reset SMBASE (no firmware has moved it)
have_own_smram:
    mov dx, 0xcf8
    mov eax, 0x80000000
    out dx, eax
    mov dx, 0xcfc
    in eax, dx
    cmp eax, 0x12378086
    setne al
    movzx eax, al
    mov [smis], eax
    cmp eax, 1
    ret
relocate:
    call cpu_index
    mov ebx, eax
    shl ebx, 16
    add ebx, SMBASES
    lea rsi, [smi_handler]
    lea rdi, [rbx + 0x8000]
    mov ecx, smi_end - smi_handler
    rep movsb
    mov [abs SMRAM_RESET + 0x8000 + smi_new_base - smi_handler], ebx
    mov dword [abs SMRAM_RESET + 0x8000 + smi_count - smi_handler], 0
    send_smi
.wait:
    pause
    cmp dword [abs SMRAM_RESET + 0x8000 + smi_count - smi_handler], 1
    jne .wait
    ret

%macro mixin 1                  ; into the sum r12; rax lost
    mov rax, %1
    rol r12, 5
    add r12, rax
    imul r12, r15
%endmacro
%macro random 1                 ; register = next of the generator, 0..mask
    imul r13, r13, 0x19660d
    add r13, 0x3c6ef35f
    mov rax, r13
    shr rax, 16
    and eax, %1
%endmacro
%macro wait_count 2             ; offset in the page, dword to reach
%%loop:
    pause
    cmp [r8 + %1], %2
    jb %%loop
%endmacro
align 16
work:
    call cpu_index
    mov ebp, eax
    mov r8d, eax
    shl r8d, 12
    add r8d, PER_CPU
    call set_up
    mov r15, 0x9e3779b97f4a7c15
    mov r12, r15
    mov r13d, 12345
    fninit
    xor r14d, r14d              ; round
    apic_write APIC_TDCR, 0xb
    apic_write APIC_LVTT, 0x20061
    apic_write APIC_TMICT, 50021
.round:
    call strings
    call events
    call modify
    call arithmetic
    inc r14d
    cmp r14d, ROUNDS
    jne .round
    apic_write APIC_LVTT, 0x10000
    apic_write APIC_TMICT, 0
    mov [r8 + P_SUM], r12
    ret

; TSS (processor 0 has one), tables for the demand-paged region
set_up:
    mov eax, ebp
    shl eax, 14
    lea esi, [rax + PAGES]      ; page directory, then table
    lea ecx, [rsi + 0x1000 + 3]
    mov [rsi], rcx
    lea ecx, [rsi + 3]
    mov eax, ebp
    mov [abs PAGES + 0x2000 + rax * 8], rcx
    mov qword [abs PT_BASE + 2 * 8], PAGES + 0x2000 + 3
    test ebp, ebp
    jz .end
    mov eax, ebp
    shl eax, 12
    add eax, RSP0S + 0x1000
    mov [r8 + P_TSS + 4], rax
    mov ecx, ebp
    shl ecx, 4
    lea eax, [r8 + P_TSS]
    mov word [gdt + FREE_SEL + rcx], 0x67
    mov [gdt + FREE_SEL + rcx + 2], ax
    shr eax, 16
    mov [gdt + FREE_SEL + rcx + 4], al
    mov byte [gdt + FREE_SEL + rcx + 5], 0x89
    mov byte [gdt + FREE_SEL + rcx + 6], 0
    mov [gdt + FREE_SEL + rcx + 7], ah
    mov qword [gdt + FREE_SEL + rcx + 8], 0
    lea eax, [rcx + FREE_SEL]
    ltr ax
.end:
    ret

%macro buffer 1                 ; register = own buffer
    mov %1d, ebp
    shl %1d, 20
    add %1d, BUFFERS
%endmacro
strings:
    sti
    mov r9d, ebp
    shl r9d, 20
    add r9d, BUFFERS
    mov ecx, 64
.fill:
    random 0xffff
    mov [r9 + rcx * 4], eax
    dec ecx
    jnz .fill
    random 0x1fff
    mov ecx, eax
    random 0xff
    lea rsi, [r9 + rax]
    lea rdi, [r9 + 0x4000]
    rep movsb
    sub rdi, r9
    mixin rdi
    random 0x3ff
    mov ecx, eax
    lea rdi, [r9 + 0x6000]
    random 0xff
    rep stosb
    lea rdi, [r9 + 0x4000]
    mov ecx, 0x2000
    repne scasb
    mixin rcx
    lea rsi, [r9]
    lea rdi, [r9 + 0x4000]
    mov ecx, 0x1000
    repe cmpsb
    mixin rcx
    ; through pages that are mapped when touched
    mov r10, DEMAND
    mov eax, ebp
    shl rax, 30
    add r10, rax
    mov esi, r9d
    lea rdi, [r10 + 0x8ff0]
    mov ecx, 0x600
    rep movsd
    mov rax, rdi
    sub rax, r10
    mixin rax
    mov eax, ebp                ; forget them again
    shl eax, 14
    lea edi, [rax + PAGES + 0x1000]
    mov ecx, 16
    xor eax, eax
    rep stosq
    mov rax, cr3
    mov cr3, rax
    mov rax, [r9 + 0x9010]
    mixin rax
    cli
    ret

%macro own_ipi 1
    apic_write APIC_ICR2, 0
    apic_write APIC_ICR, 0x40000 + %1
%endmacro
events:
    cli
    xor ebx, ebx
    own_ipi 0x60
    sti
    inc ebx
    inc ebx
    mov eax, KDS
    mov ss, eax
    inc ebx
    cli
    mov ecx, r14d
    lea ecx, [rcx * 2 + rcx + 1]
    sti
    wait_count P_IRQS, ecx
    cli
    own_ipi 0x60
    push 0x202
    popfq
    inc ecx
    wait_count P_IRQS, ecx
    cli
    inc ecx
    own_ipi 0x60
.halt:                          ; HLT right behind the STI: cannot miss it
    sti
    hlt
    cli
    cmp [r8 + P_IRQS], ecx
    jb .halt
    mov eax, ebx
    mixin rax
    ; exceptions
    xor ecx, ecx
    mov eax, 5
    div cl
    ud2
    mov eax, [r8 + P_FAULTS]
    mixin rax
    ; NMI to itself
    lea ecx, [r14 + 1]
    apic_read APIC_ID
    mov [abs APIC + APIC_ICR2], eax
    apic_write APIC_ICR, 0x4400
    wait_count P_NMIS, ecx
    ; single steps
    pushfq
    or dword [rsp], 0x100
    popfq
    inc ebx
    mov eax, KDS
    mov ecx, 2
    rep lodsb
    pushfq
    and dword [rsp], ~0x100
    popfq
    mov eax, [r8 + P_STEPS]
    mixin rax
    ; user code, interrupts on
    mov r10, rsp
    lea r11, [.kernel]
    mov eax, ebp
    shl eax, 10
    neg rax
    push UDS
    lea rax, [rax + USTACK_TOP + UALIAS]
    push rax
    push 0x202
    push UCS64
    push A(.user) + UALIAS
    iretq
.user:
    mov ecx, 50
.user_loop:
    push rcx
    lea rbx, [rbx + rcx]
    pop rcx
    loop .user_loop
    int V_BACK
.kernel:
    mixin rbx
    ; SMI
    cmp dword [smis], 0
    je .no_smi
    mov eax, ebp
    shl eax, 16
    lea r9d, [rax + SMBASES + 0x8000 + smi_count - smi_handler]
    mov ecx, [r9]
    inc ecx
    send_smi
.smi:
    pause
    cmp [r9], ecx
    jb .smi
.no_smi:
    ret

; Code in the own buffer, rewritten each round.
modify:
    mov r9d, ebp
    shl r9d, 20
    add r9d, BUFFERS + 0x10000
    random 0xffffff
    mov byte [r9], 0xb8
    mov [r9 + 1], eax
    mov byte [r9 + 5], 0xc3
    call r9
    mixin rax
    mov byte [r9 + 2], 0x77
    call r9
    mixin rax
    lock inc dword [total]
    ret

arithmetic:
    cvtsi2sd xmm0, r13
    sqrtsd xmm0, xmm0
    movq rax, xmm0
    mixin rax
    mov [r8 + 0x80], r13
    fild qword [r8 + 0x80]
    fsqrt
    fstp qword [r8 + 0x80]
    mixin [r8 + 0x80]
    mov rax, r13
    mul r15
    mixin rdx
    crc32 eax, r13d
    mov eax, eax
    mixin rax
    ret
    end_image
