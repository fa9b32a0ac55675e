; What no device claims: reads are all ones in every size and writes change nothing. The addresses are some that
; PCs have had devices at: a second serial port, a TPM, a real-time clock of old, ends of the port space.
%include "common.inc"

%macro unclaimed_port 2         ; name, port
    mov dx, %2
    mov eax, 0x12345678
    out dx, eax
    out dx, ax
    out dx, al
    in eax, dx
    check32 %1, eax, 0xffffffff
    xor eax, eax
    in ax, dx
    check32 %1, eax, 0xffff
    xor eax, eax
    in al, dx
    check32 %1, eax, 0xff
%endmacro

; QEMU's pc answers zeros where nothing claims an address; a PCI bus without a target gives ones (PCI 2.3, 3.3.3.1).
%macro unclaimed_memory 2       ; name, address
    intel_only %1
    mov ebx, %2
    mov rax, 0x123456789abcdef0
    mov [rbx], rax
    mov [rbx], eax
    mov [rbx], al
    mov rcx, [rbx]
    check %1, rcx, -1
    mov ecx, [rbx]
    check32 %1, ecx, 0xffffffff
    movzx ecx, word [rbx + 2]
    check32 %1, ecx, 0xffff
    movzx ecx, byte [rbx + 1]
    check32 %1, ecx, 0xff
    end_only
%endmacro

main:
    unclaimed_port "unclaimed.port_2e8", 0x2e8
    unclaimed_port "unclaimed.port_d00", 0xd00
    unclaimed_port "unclaimed.port_1234", 0x1234
    unclaimed_port "unclaimed.port_fffc", 0xfffc
    unclaimed_memory "unclaimed.memory_fed50000", 0xfed50000
    unclaimed_memory "unclaimed.memory_fed41000", 0xfed41000
    unclaimed_memory "unclaimed.memory_fd000000", 0xfd000000
    jmp finish
    end_image
