; A triple fault resets the machine and the kernel starts again. Where RAM keeps what it held (QEMU) the second
; start ends the program; where it does not (vm), `run` looks for a second "ok triple.armed".
%include "common.inc"
%define MARK 0x500000

main:
    cmp dword [abs MARK], 0x31415926
    je .again
    mov dword [abs MARK], 0x31415926
    check "triple.armed", 0, 0
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
