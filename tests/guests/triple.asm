; A triple fault resets the machine: RAM keeps what it held, the kernel is started again.
%include "common.inc"
%define MARK 0x500000

main:
    cmp dword [abs MARK], 0x31415926
    je .again
    mov dword [abs MARK], 0x31415926
    mov word [idtr], 0
    lidt [idtr]                 ; no gate at all: #UD, then #GP for #UD's gate, #DF's, and shutdown
    ud2
    check "triple.not_reached", 0, 1
    jmp finish
.again:
    mov dword [abs MARK], 0
    check "triple.reset", 0, 0
    mov rax, cr0
    checkm "triple.cr0_rebuilt", eax, 0x80000011, 0x80000011
    jmp finish
    end_image
