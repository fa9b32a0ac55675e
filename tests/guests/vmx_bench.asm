; Loops for tools/bench: the same in L1 and in L2, and nested exits. Each prints "bench NAME start" and
; "bench NAME end iterations N"; the host's clock between these lines is the measurement.
%include "common.inc"
%include "vmx.inc"

%define PAGES 8192              ; that the TLB loop walks over, 4 KiB each, at every level
%define WALK_AT 0x1000000
%define WALK_END (WALK_AT + PAGES * 0x1000)
%define TABLES (PAGES / 512)
%define L1_TABLES 0x600000
%define EPT_TABLES 0x640000
%define PD_INDEX (WALK_AT >> 21)

%define INTEGER 20000000
%define MISS_ROUNDS 100
%define MISSES (MISS_ROUNDS * PAGES)
%define CPUIDS 100000
%define FAULT_ROUNDS 10
%define FAULTS (FAULT_ROUNDS * PAGES)

%macro bench 3                  ; name, iterations, code
    %defstr %%count %2
    lea rsi, [%%start]
    call puts
    %3
    lea rsi, [%%end]
    call puts
    jmp %%over
%%start: db "bench ", %1, " start", 10, 0
%%end: db "bench ", %1, " end iterations ", %%count, 10, 0
%%over:
%endmacro
%macro in_l2 1                  ; runs L2 from a label to its VMCALL
    l2_at %1
    call l2_run
    cmp qword [x_reason], 18
    jne wrong
%endmacro
%define integer_count 20000000
%define miss_count 819200
%define cpuid_count 100000
%define fault_count 81920
%if integer_count != INTEGER || miss_count != MISSES || cpuid_count != CPUIDS || fault_count != FAULTS
    %error "the counts that are printed are not those of the loops"
%endif

main:
    enter_vmx
    call vmcs_fill
    call map_walk
    set_proc2(PROC2_EPT | PROC2_VPID)
    vmw VPID, 1
    vmw EPTP, EPT_PML4 | 0x1e   ; write-back, four levels
    mov r15d, 4                 ; in turn, so that what else the host does hits both
.turn:
    bench "integer_l1", integer_count, call integer_loop
    bench "integer_l2", integer_count, in_l2 l2_integer
    bench "miss_l1", miss_count, call miss_loop
    bench "miss_l2", miss_count, in_l2 l2_miss
    dec r15d
    jnz .turn
    bench "cpuid", cpuid_count, call cpuid_exits
    bench "violation", fault_count, call violation_exits
    vmxoff
    xor eax, eax
    jmp leave
wrong:
    lea rsi, [t_wrong]
    call puts
    mov eax, 1
leave:
    mov dx, 0xf4
    out dx, al
    hlt
t_wrong: db "an exit that was not expected", 10, 0

; EPT maps the first GiB as it is; the pages of the walk are 4 KiB pages there and in L1's tables.
map_walk:
    mov qword [abs EPT_PML4], EPT_PDPT | 7
    mov qword [abs EPT_PDPT], EPT_PD | 7
    mov edi, EPT_PD
    mov eax, 0xb7
    mov edx, 0x200000
    mov ecx, 512
    call fill
    mov edi, L1_TABLES
    mov eax, WALK_AT | 3
    mov edx, 0x1000
    mov ecx, PAGES
    call fill
    mov edi, PT_BASE + 0x2000 + PD_INDEX * 8
    mov eax, L1_TABLES | 3
    mov ecx, TABLES
    call fill
    mov edi, EPT_PD + PD_INDEX * 8
    mov eax, EPT_TABLES | 7
    mov ecx, TABLES
    call fill
    mov rcx, cr3
    mov cr3, rcx
map_ept:
    mov edi, EPT_TABLES
    mov eax, WALK_AT | 0x37
    mov edx, 0x1000
    mov ecx, PAGES
; rcx table entries at rdi: rax, and rdx more each.
fill:
    mov [rdi], rax
    add rdi, 8
    add rax, rdx
    dec ecx
    jnz fill
    ret

; Ten instructions a round.
integer_loop:
    mov ecx, INTEGER
    mov rax, 0x9e3779b97f4a7c15
    mov edi, L2_STACK + 0x1000
.next:
    mov rdx, rax
    shr rdx, 29
    xor rax, rdx
    lea rax, [rax + rax * 4 + 5]
    mov rdx, rax
    and edx, 63
    add rbx, [rdi + rdx * 8]
    mov [rdi + rdx * 8], rbx
    dec ecx
    jnz .next
    ret
; A load from one page after the other; rax, rdi lost.
%macro walk 0
    mov edi, WALK_AT
%%next:
    mov rax, [rdi]
    add rdi, 0x1000
    cmp rdi, WALK_END
    jb %%next
%endmacro
miss_loop:
    mov ecx, MISS_ROUNDS
.round:
    walk
    dec ecx
    jnz .round
    ret

cpuid_exits:
    l2_at l2_cpuid
    mov ebx, CPUIDS
.next:
    call l2_run
    cmp qword [x_reason], 10
    jne wrong
    call skip_instruction
    dec ebx
    jnz .next
    ret

; A page is mapped when L2 touches it; when it has touched all, none is mapped again.
violation_exits:
    mov ebx, FAULT_ROUNDS
.round:
    mov edi, EPT_TABLES
    xor eax, eax
    mov ecx, PAGES
    rep stosq
    mov qword [pointer], EPT_PML4 | 0x1e
    mov qword [pointer + 8], 0
    mov eax, 1
    invept rax, [pointer]
    l2_at l2_touch
.next:
    call l2_run
    cmp qword [x_reason], 18
    je .done
    cmp qword [x_reason], 48
    jne wrong
    vmr X_GPA
    and eax, ~0xfff
    lea ecx, [rax - WALK_AT]
    or eax, 0x37
    shr ecx, 9
    mov [EPT_TABLES + rcx], rax
    jmp .next
.done:
    dec ebx
    jnz .round
    jmp map_ept

; --- L2 ---------------------------------------------------------------------------------------------
l2_integer:
    call integer_loop
    vmcall
l2_miss:
    call miss_loop
    vmcall
l2_cpuid:
    cpuid
    jmp l2_cpuid
l2_touch:
    walk
    vmcall
    end_image
