; Runs cases in 32-bit code under qemu-i386, which judges them where the host has no 32-bit code.
;
; File 3 is shared with the oracle: the three data pages and a page of mailbox (struct Mailbox of qemu.cpp). A
; byte on standard input starts a case; one on standard output says that it has ended. A case ends in a signal;
; the handler takes what it needs from the frame and goes on from the top. QEMU leaves SSE and AVX registers in
; a handler as they were and saves x87 in the frame, so both are collected there.
bits 32
org 0x08048000
image_start:
    db 0x7f, 'ELF', 1, 1, 1, 0
    times 8 db 0
    dw 2, 3
    dd 1, entry, 52, 0, 0
    dw 52, 32, 1, 40, 0, 0
    dd 1, 0, image_start, image_start, image_end - image_start, bss_end - image_start, 7, 0x1000

%define DATA    0x70001000
%define CODE    0x70101000
%define MAIL    0x60000000
%define M_GPR   MAIL            ; eax ecx edx ebx esp ebp esi edi
%define M_EIP   MAIL + 32
%define M_FLAGS MAIL + 36
%define M_SIZE  MAIL + 40
%define M_VECTOR MAIL + 44      ; whether M_IMAGE is loaded and stored
%define M_SIGNAL MAIL + 48
%define M_ERROR MAIL + 52
%define M_CR2   MAIL + 56
%define M_REASON MAIL + 60      ; si_code
%define M_CODE  MAIL + 64       ; at most 128 bytes
%define M_IMAGE MAIL + 192      ; XSAVE area, standard form

%define SYS_EXIT 1
%define SYS_READ 3
%define SYS_WRITE 4
%define SYS_RT_SIGACTION 174
%define SYS_SIGALTSTACK 186
%define SYS_MMAP2 192
%define SIGINFO_ONSTACK_NODEFER 0x48000004

entry:
    mov ebx, DATA
    mov ecx, 0x2000
    mov edx, 3                  ; read, write
    mov esi, 0x11               ; shared, fixed
    mov edi, 3
    xor ebp, ebp
    call map
    mov ebx, DATA + 0x2000
    mov ecx, 0x1000
    mov edx, 1
    mov ebp, 2
    call map
    mov ebx, MAIL
    mov ecx, 0x1000
    mov edx, 3
    mov ebp, 3
    call map
    mov ebx, CODE
    mov ecx, 0x2000
    mov edx, 7
    mov esi, 0x32               ; private, fixed, anonymous
    mov edi, -1
    xor ebp, ebp
    call map
    mov edi, CODE
    mov ecx, 0x2000
    mov al, 0xcc
    rep stosb
    mov eax, SYS_SIGALTSTACK
    mov ebx, signal_stack
    xor ecx, ecx
    int 0x80
    mov esi, signals
.next_signal:
    movzx ebx, byte [esi]
    inc esi
    test ebx, ebx
    jz next_case
    push esi
    mov eax, SYS_RT_SIGACTION
    mov ecx, action
    xor edx, edx
    mov esi, 8
    int 0x80
    pop esi
    test eax, eax
    jz .next_signal
    jmp fail

map:
    mov eax, SYS_MMAP2
    int 0x80
    cmp eax, ebx
    jne fail
    ret
fail:
    mov eax, SYS_EXIT
    mov ebx, 1
    int 0x80

next_case:
    mov esp, stack_end
    mov eax, SYS_READ
    xor ebx, ebx
    mov ecx, one_byte
    mov edx, 1
    int 0x80
    cmp eax, 1
    jne fail                    ; the oracle has gone
    mov esi, M_CODE
    mov edi, [M_EIP]
    mov ecx, [M_SIZE]
    rep movsb
    cmp dword [M_VECTOR], 0
    je .load
    fninit
    mov eax, 7
    xor edx, edx
    xrstor [M_IMAGE]
.load:
    push dword [M_FLAGS]
    popfd
    mov eax, [M_GPR]
    mov ecx, [M_GPR + 4]
    mov edx, [M_GPR + 8]
    mov ebx, [M_GPR + 12]
    mov ebp, [M_GPR + 20]
    mov esi, [M_GPR + 24]
    mov edi, [M_GPR + 28]
    mov esp, [M_GPR + 16]
    jmp [M_EIP]

; Arguments: signal, siginfo, ucontext; whose mcontext begins at 20.
handler:
    cld
    mov eax, [esp + 4]
    mov [M_SIGNAL], eax
    mov eax, [esp + 8]
    mov eax, [eax + 8]
    mov [M_REASON], eax
    mov esi, [esp + 12]
    cmp dword [M_VECTOR], 0
    je .registers
    mov eax, [esi + 96]
    frstor [eax]
    mov dword [M_IMAGE + 512], 0
    mov eax, 7
    xor edx, edx
    xsave [M_IMAGE]
.registers:
%macro take 2
    mov eax, [esi + %1]
    mov [%2], eax
%endmacro
    take 64, M_GPR
    take 60, M_GPR + 4
    take 56, M_GPR + 8
    take 52, M_GPR + 12
    take 48, M_GPR + 16
    take 44, M_GPR + 20
    take 40, M_GPR + 24
    take 36, M_GPR + 28
    take 72, M_ERROR
    take 104, M_CR2
    take 84, M_FLAGS
    mov edi, [M_EIP]            ; where the case began
    mov ecx, [M_SIZE]
    mov al, 0xcc
    rep stosb
    take 76, M_EIP
    mov eax, SYS_WRITE
    mov ebx, 1
    mov ecx, one_byte
    mov edx, 1
    int 0x80
    jmp next_case

align 4
action: dd handler, SIGINFO_ONSTACK_NODEFER, 0, 0, 0
signal_stack: dd handler_stack, 0, 0x4000
signals: db 4, 5, 7, 8, 11, 0   ; SIGILL, SIGTRAP, SIGBUS, SIGFPE, SIGSEGV
image_end:
; On pages of their own: QEMU translates a page again after each write to it.
absolute image_start + 0x1000
handler_stack: resb 0x4000
one_byte: resb 16
stack: resb 0x1000
stack_end:
bss_end:
