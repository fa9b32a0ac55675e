; Prints "count N" with increasing N for ever; for tests that save, restore and clone a running machine.
; About 200,000 instructions lie between two lines.
%include "boot_flat.inc"
main:
    xor edi, edi
.next:
    mov esi, A(text)
    call puts
    mov eax, edi
    call put_dec
    mov al, 10
    call putc
    inc edi
    mov ecx, 100000
.wait:
    dec ecx
    jnz .wait
    jmp .next
text: db "count ", 0
    end_image
