; Loops for tools/bench that run as a guest of an L1's KVM: CPUID, and memory that is touched first.
%include "common.inc"

%define FIRST 0x1000000
%define PAGES 8192
%define CPUIDS 20000

main:
    lea rsi, [t_cpuid]
    call puts
    mov r15d, CPUIDS
.next:
    cpuid
    dec r15d
    jnz .next
    lea rsi, [t_touch]
    call puts
    mov edi, FIRST
    mov ecx, PAGES
.touch:
    mov [rdi], rcx
    add rdi, 0x1000
    dec ecx
    jnz .touch
    lea rsi, [t_end]
    call puts
    xor eax, eax
    out 0xf4, al
    hlt
t_cpuid: db "bench kvm_cpuid start", 10, 0
t_touch: db "bench kvm_cpuid end iterations 20000", 10
    db "bench kvm_touch start", 10, 0
t_end: db "bench kvm_touch end iterations 8192", 10, 0
    end_image
